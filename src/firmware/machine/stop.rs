//! Where the firmware stops: its last lines, and whose an exception is.

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use firstlight::logging::{Consoles, Level};

use crate::PcPorts;

/// Prints an error on separate consoles, because the logger may be in the middle of a line.
pub fn report(error: &dyn fmt::Display) {
    // SAFETY: this is the firmware, and nothing else drives the machine's ports.
    let ports = unsafe { PcPorts::new() };
    Consoles::new(ports).print(Level::Error, error);
}

/// Stops the CPU for good.
pub fn halt() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// Not zero once a kernel runs: it was entered, or has ended boot services. The kernel may write anything to it.
static KERNEL_RUNS: AtomicU8 = AtomicU8::new(0);

/// From here on, exceptions are the kernel's.
pub fn leave_to_kernel() {
    KERNEL_RUNS.store(1, Relaxed);
}

/// Whether [`leave_to_kernel`] was called.
pub fn kernel_runs() -> bool {
    KERNEL_RUNS.load(Relaxed) != 0
}
