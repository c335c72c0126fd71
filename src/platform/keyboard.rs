//! The keyboard controller: enables the translation of scan codes, which small kernels with a keyboard driver rely on.
//!
//! A PC's firmware leaves the controller translating the keyboard's codes (set 2) to those of the first PCs (set 1). QEMU's
//! controller does not translate after a reset.
//!
//! Assumed: after a reset, the controller accepts a command and its byte at once, as QEMU's does, so the firmware does not wait.
//! A machine with a chipset but no controller (`i8042=off`) ignores both writes. [`translate_if_present`] is for machines that
//! may not have one.
//!
//! Source: QEMU `hw/input/pckbd.c`; IBM Personal System/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary
//! Device Controller" (commands, command byte).

use crate::hal::Ports;

/// The port for a command's byte.
const DATA: u16 = 0x60;
/// The port for commands. It reads as the controller's status.
const COMMAND: u16 = 0x64;
/// Command: write the command byte.
const WRITE_COMMAND_BYTE: u8 = 0x60;
/// Command byte: interrupts of the keyboard and of the mouse enabled, as after a reset, and translation.
const TRANSLATING: u8 = 1 << 0 | 1 << 1 | 1 << 6;

/// Enables translation if there is a controller. An absent port reads as all ones or, on some hosts, as zero; a controller's
/// status after a reset is neither.
pub fn translate_if_present(ports: &mut impl Ports) {
    if !matches!(ports.in8(COMMAND), 0 | 0xff) {
        translate(ports);
    }
}

/// Enables translation.
pub fn translate(ports: &mut impl Ports) {
    ports.out8(COMMAND, WRITE_COMMAND_BYTE);
    ports.out8(DATA, TRANSLATING);
}
