//! Port 0x92: the state of address line 20.
//!
//! After a reset, QEMU's line is enabled, but the port reads as disabled. A kernel may read this port, and enable the line
//! through the slow keyboard controller if it reads as disabled. So the firmware makes the port show the true state.
//!
//! Source: IBM Personal System/2 Hardware Interface Technical Reference, "System Control Port A"; QEMU `hw/i386/port92.c`.

use crate::hal::Ports;

/// System control port A.
const CONTROL: u16 = 0x92;
/// Bit 1: the line is enabled. Bit 0, which resets the machine, is zero.
const OPEN: u8 = 1 << 1;

/// Makes the port show that the line is enabled.
pub fn tell(ports: &mut impl Ports) {
    ports.out8(CONTROL, OPEN);
}
