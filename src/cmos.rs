//! CMOS memory: bytes that keep their values over a reset, accessed through the ports of the real-time clock.
//!
//! Source: Motorola MC146818 data sheet; ICH9 data sheet, 13.6. Left out: the clock.

use crate::hal::Ports;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
/// Bit 7 of the index masks the NMI, as after a reset (ICH9 data sheet, 13.7.2). The firmware cannot handle an NMI.
const NMI_MASKED: u8 = 1 << 7;

/// Reads the byte at `register`, which is below 0x80.
pub fn read(ports: &mut impl Ports, register: u8) -> u8 {
    ports.out8(INDEX, register | NMI_MASKED);
    ports.in8(DATA)
}

/// Writes a byte to `register`, which is below 0x80.
pub fn write(ports: &mut impl Ports, register: u8, value: u8) {
    ports.out8(INDEX, register | NMI_MASKED);
    ports.out8(DATA, value);
}
