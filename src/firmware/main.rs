//! The firmware binary: entry point, memory functions, allocator, panic handler. All logic is in the library.
#![no_std]
#![no_main]
// No code in the image may panic, as in the library (`src/lib.rs`).
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::get_unwrap,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::unwrap_used
)]

extern crate alloc;

mod memory;
mod start;

use core::panic::PanicInfo;

use firstlight::addr::PhysAddr;
use firstlight::boot::{EfiStart, Entry, Handover};
use firstlight::failure::{self, Failure};
use firstlight::layout;
use firstlight::logging::Logger;
use firstlight::platform::{reset, timer};
use firstlight::resume;
use firstlight::start_info::Start;
use firstlight_efi as efi;
use firstlight_machine::{PcMachine, PcPorts, halt, report};

// SAFETY: this is the firmware, and nothing else drives the machine's ports.
static LOGGER: Logger<PcPorts> = Logger::new(unsafe { PcPorts::new() });

/// The EFI runtime services: build.rs writes the file.
const RUNTIME_SERVICES: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/runtime.bin"));

/// The first Rust code. `reset.s` calls it once, in 64-bit mode, with a stack and initialized statics.
///
/// `bias` is the distance of the image above the end of the low 4 GiB, wrapping: zero after a reset. Otherwise this is a start by
/// the PVH entry point, and `start_info` is the address that the host passes for Xen's `hvm_start_info`, which may be zero.
///
/// # Safety
/// Called once, by `reset.s`, with these arguments, after it made the mappings that [`firstlight_machine`] assumes.
unsafe extern "C" fn rust_start(start_info: u64, bias: u64) -> ! {
    LOGGER.install();
    let (start, image) = match bias {
        0 => (Start::Reset, layout::FIRMWARE_ROM),
        _ => (Start::Pvh(PhysAddr::new(start_info)), layout::LOADED_IMAGE),
    };
    // SAFETY: the caller made the mappings, runs in ring 0 and calls this once. After a reset, the image is in ROM.
    let mut machine = unsafe { PcMachine::take(image, RUNTIME_SERVICES) };
    // SAFETY: called once, and nothing was allocated before.
    match unsafe { boot(&mut machine, start) } {
        Ok(handover) => {
            machine.give_mapping();
            machine.clear_unused(handover.clears);
            if let Some(data) = handover.bios_data {
                machine.set_bios_data(data);
            }
            match handover.entry {
                Entry::Efi => run_programs(machine, handover.efi, start),
                // SAFETY: `run` loaded the kernel and its parameters before it returned the handover. All memory is executable.
                _ => unsafe { start::hand_over(&handover) },
            }
        }
        Err(failure) => fail(machine, start, &failure),
    }
}

/// Runs EFI programs. Not inlined, so that other boots have no frame of its size on the part of the stack that is cleared last.
#[cold]
#[inline(never)]
fn run_programs(mut machine: PcMachine, mut boot: EfiStart, start: Start<PhysAddr>) -> ! {
    let Some(boot) = boot.take() else { halt() };
    machine.map_page_zero(false);
    match efi::run(machine, boot) {
        (Some(machine), failure) => fail(machine, start, &failure),
        (None, failure) => {
            report(&failure.error);
            halt()
        }
    }
}

/// Reports a failure, also on the display, and restarts or halts.
fn fail(mut machine: PcMachine, start: Start<PhysAddr>, failure: &Failure) -> ! {
    report(&failure.error);
    // The error was the last line: warnings about the display must not follow it.
    log::set_max_level(log::LevelFilter::Off);
    failure::show(&mut machine, start, &failure.error);
    end(&mut machine, failure)
}

/// Wakes or boots. Not inlined, so that its stack frame is below that of [`rust_start`] and is cleared.
///
/// # Safety
/// Called once, before anything is allocated.
#[inline(never)]
unsafe fn boot(machine: &mut PcMachine, start: Start<PhysAddr>) -> Result<Handover, Failure> {
    if start == Start::Reset && resume::is_requested(machine) {
        // SAFETY: the caller promises it.
        unsafe { wake(machine) };
    }
    // SAFETY: called once, and everything that the check for a wake allocated was dropped.
    unsafe { memory::give_heap() };
    firstlight::run(machine, start)
}

/// Resumes the operating system that is suspended in memory; all memory except the firmware's is its own. Returns if none is
/// suspended, with nothing allocated.
///
/// # Safety
/// Called once, before anything is allocated.
unsafe fn wake(machine: &mut PcMachine) {
    // SAFETY: the caller promises it.
    unsafe { memory::give_wake_heap() };
    match firstlight::wake(machine) {
        Ok(Some(vector)) => {
            machine.give_mapping();
            // SAFETY: before it returned the vector, `wake` restored what that operating system leaves to the firmware.
            unsafe { start::wake(vector) }
        }
        Ok(None) => {}
        Err(failure) => {
            report(&failure.error);
            end(machine, &failure)
        }
    }
}

/// Restarts or halts after a failure, as the host asks.
fn end(machine: &mut PcMachine, failure: &Failure) -> ! {
    if let Some(milliseconds) = failure.restart_after {
        timer::wait(machine, milliseconds);
        reset::restart(machine);
        start::triple_fault();
    }
    halt()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    report(info);
    halt()
}
