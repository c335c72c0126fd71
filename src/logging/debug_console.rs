//! The debug console: every byte written to port 0x402 is a character (QEMU's `isa-debugcon`).

use crate::hal::Ports;

const PORT: u16 = 0x402;
/// The value that a present device reads as (QEMU `hw/char/debugcon.c`, property `readback`).
const READBACK: u8 = 0xe9;

/// Whether the debug console is present.
pub fn is_present(ports: &mut impl Ports) -> bool {
    ports.in8(PORT) == READBACK
}

/// Sends `text`.
pub fn print(ports: &mut impl Ports, text: &str) {
    for byte in text.bytes() {
        ports.out8(PORT, byte);
    }
}
