//! The firmware binary: entry, memory functions, allocator, panic handler. All logic is in the library.
#![no_std]
#![no_main]

mod memory;
mod start;

use core::fmt;
use core::panic::PanicInfo;

use firstlight::hal::x86::{PcMachine, PcPorts};
use firstlight::logging::{Consoles, Logger};

// SAFETY: this is the firmware; nothing else drives the machine's ports.
static LOGGER: Logger<PcPorts> = Logger::new(unsafe { PcPorts::new() });

/// The first Rust code: called once by `reset.s`, in 64-bit mode, with a stack and zeroed statics.
extern "C" fn rust_start() -> ! {
    LOGGER.install();
    memory::give_heap();
    // SAFETY: `reset.s` made the mappings, runs in ring 0 and calls this once.
    let mut machine = unsafe { PcMachine::take() };
    log::error!("hello {}", firstlight::hal::Cpu::cpuid(&mut machine, 0, 0).eax);
    stop(&"done")
}

/// Prints why the firmware stops, and stops.
fn stop(reason: &dyn fmt::Display) -> ! {
    // Consoles of its own: the logger may be in the middle of a line.
    // SAFETY: this is the firmware; nothing else drives the machine's ports.
    Consoles::new(unsafe { PcPorts::new() }).print(log::Level::Error, reason);
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    stop(info)
}
