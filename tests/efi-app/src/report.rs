//! The lines of the report, on a port of their own. They are not mixed with the console, and go on after boot services.

use core::arch::asm;
use core::fmt::{self, Display, Write};

use uefi::{Result, Status};

/// The port of QEMU's `isa-debugcon` (`tests/qemu/efi_compared.rs`).
const PORT: u16 = 0x4e9;

struct Port;

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the port has a device that takes bytes, or none; neither accesses memory.
            unsafe { asm!("out dx, al", in("dx") PORT, in("al") byte, options(nomem, nostack, preserves_flags)) };
        }
        Ok(())
    }
}

/// Prints a line.
pub fn line(subject: &str, result: impl Display) {
    let _ = writeln!(Port, "{subject}: {result}");
}

/// Prints a line with a status.
pub fn status(subject: &str, status: Status) {
    line(subject, format_args!("{status:?}"));
}

/// Prints a line with the status of a result. Returns its value.
pub fn result<T>(subject: &str, result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => {
            status(subject, Status::SUCCESS);
            Some(value)
        }
        Err(error) => {
            status(subject, error.status());
            None
        }
    }
}
