//! The two 8259 interrupt controllers of a PC.
//!
//! After a reset their vectors begin at 0 and no input is masked. An operating system that enables interrupts before it programs
//! them gets the timer interrupt as exception 0. A PC's firmware leaves the vectors at [`MASTER_BASE`] and [`SLAVE_BASE`], and
//! masks every input except the cascade of the second controller.
//!
//! Assumed: the controllers are at a PC's ports, and are not in the middle of being programmed. Left out: which interrupts are
//! level-triggered, which the chipset controls ([`super`]).
//!
//! Source: Intel 8259A data sheet, "Programming the 8259A"; ICH9 data sheet, 13.4.

use crate::hal::Ports;

const MASTER_COMMAND: u16 = 0x20;
const MASTER_DATA: u16 = 0x21;
const SLAVE_COMMAND: u16 = 0xa0;
const SLAVE_DATA: u16 = 0xa1;

/// ICW1: edge-triggered inputs, two controllers, ICW4 follows.
const BEGIN: u8 = 0x11;
/// ICW2: the vector of the first input, as in IBM's PC/AT.
const MASTER_BASE: u8 = 0x08;
const SLAVE_BASE: u8 = 0x70;
/// ICW3: the first controller's input for the second, as a bit and as a number.
const CASCADE: u8 = 1 << 2;
const CASCADE_NUMBER: u8 = 2;
/// ICW4: 8086 mode, which is for all later CPUs too.
const MODE_8086: u8 = 0x01;
/// OCW1: all inputs masked; on the first controller all except the cascade.
const ALL_MASKED: u8 = 0xff;
const MASTER_MASK: u8 = ALL_MASKED & !CASCADE;

/// The writes that program both.
static PROGRAM: [(u16, u8); 10] = [
    (MASTER_COMMAND, BEGIN),
    (SLAVE_COMMAND, BEGIN),
    (MASTER_DATA, MASTER_BASE),
    (SLAVE_DATA, SLAVE_BASE),
    (MASTER_DATA, CASCADE),
    (SLAVE_DATA, CASCADE_NUMBER),
    (MASTER_DATA, MODE_8086),
    (SLAVE_DATA, MODE_8086),
    (MASTER_DATA, MASTER_MASK),
    (SLAVE_DATA, ALL_MASKED),
];

/// Masks all inputs, if there are controllers: the second controller's inputs arrive through the first.
pub fn mask(ports: &mut impl Ports) {
    ports.out8(MASTER_DATA, ALL_MASKED);
}

/// Programs the controllers. Returns whether they exist: the mask of the first reads as it was written.
pub fn set_up(ports: &mut impl Ports) -> bool {
    ports.out8(MASTER_DATA, MASTER_MASK);
    if ports.in8(MASTER_DATA) != MASTER_MASK {
        return false;
    }
    for (port, value) in PROGRAM {
        ports.out8(port, value);
    }
    true
}
