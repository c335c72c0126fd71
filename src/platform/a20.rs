//! Port 0x92: what it says of address line 20.
//!
//! The line is open from a reset of QEMU's on, and the port reads as if it were shut. A kernel that looks there, and opens it by
//! the slow way of the keyboard controller if it has to, is told what is true.
//!
//! Source: IBM Personal System/2 Hardware Interface Technical Reference, "System Control Port A"; QEMU `hw/i386/port92.c`.

use crate::hal::Ports;

/// System control port A.
const CONTROL: u16 = 0x92;
/// Bit 1: the line is open. Bit 0, which resets the machine, is zero.
const OPEN: u8 = 1 << 1;

/// Has the port say that the line is open.
pub fn tell(ports: &mut impl Ports) {
    ports.out8(CONTROL, OPEN);
}
