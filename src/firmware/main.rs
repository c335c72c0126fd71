//! The firmware binary: entry, memory functions, allocator, panic handler. All logic is in the library.
#![no_std]
#![no_main]
// Nothing that goes into the image may panic, here as in the library (`src/lib.rs`).
#![cfg_attr(
    feature = "firmware",
    deny(
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
    )
)]

extern crate alloc;

mod machine;
mod memory;
mod start;

use core::fmt;
use core::panic::PanicInfo;

use firstlight::addr::PhysAddr;
use firstlight::boot::Handover;
use firstlight::failure::{self, Failure};
use firstlight::layout;
use firstlight::logging::{Consoles, Logger};
use firstlight::platform::{reset, timer};
use firstlight::resume;
use firstlight::start_info::Start;
use machine::{PcMachine, PcPorts};

// SAFETY: this is the firmware; nothing else drives the machine's ports.
static LOGGER: Logger<PcPorts> = Logger::new(unsafe { PcPorts::new() });

/// The first Rust code: called once by `reset.s`, in 64-bit mode, with a stack and its statics in place.
///
/// `bias` is how much higher than at the end of the low 4 GiB the image is, wrapping: zero after a reset. Else this is a start
/// by the PVH entry, and `start_info` the address that the host gives for Xen's `hvm_start_info`, be it zero.
///
/// # Safety
/// It is called once, by `reset.s`, which made the mappings that [`machine`] assumes, with these arguments.
unsafe extern "C" fn rust_start(start_info: u64, bias: u64) -> ! {
    LOGGER.install();
    let (start, image) = match bias {
        0 => (Start::Reset, layout::FIRMWARE_ROM),
        _ => (Start::Pvh(PhysAddr::new(start_info)), layout::LOADED_IMAGE),
    };
    // SAFETY: the caller made the mappings, runs in ring 0 and calls this once. After a reset the image is in ROM.
    let mut machine = unsafe { PcMachine::take(image) };
    // SAFETY: this is called once, and nothing was allocated before.
    match unsafe { boot(&mut machine, start) } {
        Ok(handover) => {
            machine.give_mapping();
            machine.clear_unused(handover.clears);
            if let Some(data) = handover.bios_data {
                machine.set_bios_data(data);
            }
            // SAFETY: `run` loaded the kernel and its parameters before it gave the handover; it can be executed where it is.
            unsafe { start::hand_over(&handover) }
        }
        Err(failure) => {
            report(&failure.error);
            // That was the last line: what the display lacks is no news after it.
            log::set_max_level(log::LevelFilter::Off);
            failure::show(&mut machine, start, &failure.error);
            end(&mut machine, &failure)
        }
    }
}

/// Wakes or boots. Not inlined: its stack is below that of [`rust_start`], and is cleared with the rest.
///
/// # Safety
/// This is called once, before anything is allocated.
#[inline(never)]
unsafe fn boot(machine: &mut PcMachine, start: Start<PhysAddr>) -> Result<Handover, Failure> {
    if start == Start::Reset && resume::is_requested(machine) {
        // SAFETY: the caller promises it.
        unsafe { wake(machine) };
    }
    // SAFETY: this is called once; all that looked for a wake was dropped.
    unsafe { memory::give_heap() };
    firstlight::run(machine, start)
}

/// Goes on with the operating system that sleeps in memory, all but the firmware's part of which is its own. Comes back
/// where none sleeps, with nothing left in the heap.
///
/// # Safety
/// This is called once, before anything is allocated.
unsafe fn wake(machine: &mut PcMachine) {
    // SAFETY: the caller promises it.
    unsafe { memory::give_wake_heap() };
    match firstlight::wake(machine) {
        Ok(Some(vector)) => {
            machine.give_mapping();
            // SAFETY: `wake` restored what the operating system left to the firmware before it gave the vector.
            unsafe { start::wake(vector) }
        }
        Ok(None) => {}
        Err(failure) => {
            report(&failure.error);
            end(machine, &failure)
        }
    }
}

/// Does what the host wants done after a failure.
fn end(machine: &mut PcMachine, failure: &Failure) -> ! {
    if let Some(milliseconds) = failure.restart_after {
        timer::wait(machine, milliseconds);
        reset::restart(machine);
        start::triple_fault();
    }
    halt()
}

/// Prints an error on consoles of its own: the logger may be in the middle of a line.
fn report(error: &dyn fmt::Display) {
    // SAFETY: this is the firmware; nothing else drives the machine's ports.
    let ports = unsafe { PcPorts::new() };
    Consoles::new(ports).print(log::Level::Error, error);
}

fn halt() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    report(info);
    halt()
}
