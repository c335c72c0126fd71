//! The Bochs display interface of QEMU's `VGA`, `secondary-vga`, `bochs-display` and `virtio-vga`.
//!
//! BAR 0 is the video memory. BAR 2 has the registers: the EDID, then VGA's ports, then the interface's own registers.
//! So the firmware needs neither ports nor the VGA window at 0xa0000, and a display behind a bridge works like any
//! other.
//!
//! Source: QEMU `docs/specs/standard-vga.rst` and `hw/display/bochs-vbe.h`.

use super::display::Display;
use super::error::Error;
use super::mode::{DisplayFunction, Framebuffer, Mode};
use crate::addr::{PhysAddr, PhysRange};
use crate::checksum;
use crate::hal::Memory;

/// Vendor and device (the vendor is the low half): `VGA`, `secondary-vga` and `bochs-display`.
const ID_BOCHS: u32 = 0x1111_1234;
/// Vendor and device of the virtio display, which has the interface only as a VGA controller.
const ID_VIRTIO_GPU: u32 = 0x1050_1af4;
/// Class and sub-class of a VGA controller (PCI Code and ID Assignment 1.11, section 1.4).
const CLASS_VGA: u32 = 0x0300;

/// The length of an EDID's first block, and what it begins with (VESA E-EDID A2, 3.3).
pub const EDID_LEN: usize = 128;
const EDID_START: [u8; 8] = [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];
/// VGA's ports from 0x3c0 on. A write of two bytes writes two ports.
const VGA_PORTS: u64 = 0x400;
/// Attribute controller, index (port 0x3c0). Bit 5 shows the picture; without it the screen is blank.
const ATTRIBUTE: u64 = VGA_PORTS;
const ATTRIBUTE_SHOW: u16 = 1 << 5;
/// Miscellaneous output (port 0x3c2). Bit 0: the other ports are those of a colour display.
const MISCELLANEOUS: u64 = VGA_PORTS + 2;
const MISCELLANEOUS_COLOUR: u16 = 1 << 0;

/// The interface's registers, 16 bits each.
const REGISTERS: u64 = 0x500;
/// The interface's version.
const VERSION: u64 = REGISTERS;
/// The bits that all versions have in common, and the bits in which they differ.
const VERSION_ANY: u16 = 0xb0c0;
const VERSION_BITS: u16 = 0xf;
const WIDTH: u64 = REGISTERS + 2;
const HEIGHT: u64 = REGISTERS + 4;
const BITS_PER_PIXEL: u64 = REGISTERS + 6;
/// Bit 0 turns the mode on, and clears the picture on all displays except `bochs-display`. Bit 6: the framebuffer is
/// linear, in BAR 0.
const ENABLE: u64 = REGISTERS + 8;
const ENABLE_ON: u16 = 1 << 0;
const ENABLE_LINEAR: u16 = 1 << 6;

/// Whether a display has the interface.
pub fn is_present(display: &Display) -> bool {
    match display.id {
        ID_BOCHS => true,
        ID_VIRTIO_GPU => display.class >> 8 == CLASS_VGA,
        _ => false,
    }
}

/// Sets the largest mode that fits the display's memory.
#[inline(never)]
pub fn set_up(machine: &mut dyn Memory, display: &Display) -> Result<Framebuffer, Error> {
    let registers = display.registers.ok_or(Error::NoRegisters)?;
    let memory = display.framebuffer;
    let mode = Mode::largest_in(memory.len()).ok_or(Error::TooSmall(memory.len()))?;
    let at = |offset| register(registers, offset);
    let version = machine.read_register32(at(VERSION)?)? as u16;
    if version & !VERSION_BITS != VERSION_ANY {
        return Err(Error::Version(version));
    }
    let settings = [
        (WIDTH, mode.width()),
        (HEIGHT, mode.height()),
        (BITS_PER_PIXEL, Mode::BITS_PER_PIXEL),
        (ENABLE, ENABLE_ON | ENABLE_LINEAR),
        // bochs-display has no VGA and ignores these two.
        (MISCELLANEOUS, MISCELLANEOUS_COLOUR),
        (ATTRIBUTE, ATTRIBUTE_SHOW),
    ];
    for (offset, value) in settings {
        machine.write_register16(at(offset)?, value)?;
    }
    let function = display.route.map(|route| DisplayFunction { route, registers });
    Ok(Framebuffer { memory, mode, function })
}

/// The first block of the display's EDID, if it has one. Each of its words is an access.
pub fn edid(machine: &mut dyn Memory, registers: PhysRange) -> Option<[u8; EDID_LEN]> {
    let mut edid = [0; EDID_LEN];
    let (words, _) = edid.as_chunks_mut();
    for (offset, word) in (0..).step_by(size_of::<u32>()).zip(words) {
        *word = machine.read_register32(register(registers, offset).ok()?).ok()?.to_le_bytes();
        // Without an EDID, two words are enough.
        if offset < EDID_START.len() as u64 && !EDID_START.chunks(word.len()).any(|part| part == word) {
            return None;
        }
    }
    (edid.starts_with(&EDID_START) && checksum::sum(&edid) == 0).then_some(edid)
}

fn register(registers: PhysRange, offset: u64) -> Result<PhysAddr, Error> {
    let at = registers.start().checked_add(offset).filter(|&at| registers.contains_addr(at));
    at.ok_or(Error::NoRegisters)
}
