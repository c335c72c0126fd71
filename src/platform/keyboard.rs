//! The keyboard controller: translation of scan codes, on which small kernels rely that read the keyboard themselves.
//!
//! A PC's firmware leaves the controller translating what the keyboard sends (set 2) to the codes of the first PCs (set 1).
//! After a reset of QEMU's it does not.
//!
//! Assumed: after a reset the controller takes a command and its byte at once, as QEMU's does, so that nothing waits for it
//! to be ready. A chipset's machine without one (`i8042=off`) ignores both writes; [`translate_if_present`] is for machines
//! of which nothing says that they have one.
//!
//! Source: QEMU `hw/input/pckbd.c`; IBM Personal System/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary
//! Device Controller" (commands, command byte).

use crate::hal::Ports;

/// Port for the byte of a command.
const DATA: u16 = 0x60;
/// Port for commands; read, it is the controller's status.
const COMMAND: u16 = 0x64;
/// Command: write the command byte.
const WRITE_COMMAND_BYTE: u8 = 0x60;
/// Command byte: interrupts of the keyboard and of the mouse, as after a reset, and translation.
const TRANSLATING: u8 = 1 << 0 | 1 << 1 | 1 << 6;

/// Has the controller translate, where its status reads as something: a port that nothing answers reads as all ones or, on
/// some hosts, as zero, and after a reset the status of a controller is neither.
pub fn translate_if_present(ports: &mut impl Ports) {
    if !matches!(ports.in8(COMMAND), 0 | 0xff) {
        translate(ports);
    }
}

/// Has the controller translate.
pub fn translate(ports: &mut impl Ports) {
    ports.out8(COMMAND, WRITE_COMMAND_BYTE);
    ports.out8(DATA, TRANSLATING);
}
