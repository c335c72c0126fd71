//! The two 8259 interrupt controllers of a PC.
//!
//! After a reset their vectors begin at 0 and nothing is masked: an operating system that lets interrupts in before it
//! programs them gets the timer's as exception 0. A PC's firmware leaves the vectors at [`MASTER_BASE`] and
//! [`SLAVE_BASE`], and every input masked but the one that the second controller is on.
//!
//! Assumed: the controllers are where a PC has them, and are not in the middle of being programmed. Left out: which
//! interrupts are level-triggered, which is the chipset's ([`super`]).
//!
//! Source: Intel 8259A data sheet, "Programming the 8259A"; ICH9 data sheet, 13.4.

use crate::hal::Ports;

const MASTER_COMMAND: u16 = 0x20;
const MASTER_DATA: u16 = 0x21;
const SLAVE_COMMAND: u16 = 0xa0;
const SLAVE_DATA: u16 = 0xa1;

/// ICW1: edge-triggered inputs, two controllers, ICW4 follows.
const BEGIN: u8 = 0x11;
/// ICW2: the vector of the first input. IBM's of the PC/AT.
const MASTER_BASE: u8 = 0x08;
const SLAVE_BASE: u8 = 0x70;
/// ICW3: the input of the first that the second is on, as a bit and as a number.
const CASCADE: u8 = 1 << 2;
const CASCADE_NUMBER: u8 = 2;
/// ICW4: for an 8086, which every later CPU counts as.
const MODE_8086: u8 = 0x01;
/// OCW1: all inputs masked; of the first controller all but the second's.
const ALL_MASKED: u8 = 0xff;
const MASTER_MASK: u8 = ALL_MASKED & !CASCADE;

/// What programs both.
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

/// Masks all inputs, if there are controllers: those of the second come by one of the first.
pub fn mask(ports: &mut impl Ports) {
    ports.out8(MASTER_DATA, ALL_MASKED);
}

/// Programs the controllers. Gives whether there are any: the mask of the first reads as it was written.
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
