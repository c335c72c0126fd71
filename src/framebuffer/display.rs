//! The display that a framebuffer can be set up on: which PCI function it is, and where its memory is.

use crate::addr::PhysRange;
use crate::pci::{Address, Devices};

/// Base class of display controllers (PCI Code and ID Assignment 1.11, section 1.4).
const BASE_CLASS_DISPLAY: u32 = 0x03;

/// A display controller with memory in its first base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Display {
    /// Where it is.
    pub address: Address,
    /// Vendor ID in the low half, device ID in the high half.
    pub id: u32,
    /// Class, sub-class and programming interface in bits 23:16, 15:8 and 7:0.
    pub class: u32,
    /// What base address register 0 decodes, once the function decodes memory: on QEMU's displays the framebuffer.
    pub framebuffer: PhysRange,
    /// What base address register 2 decodes, if it is memory: on QEMU's Bochs displays the registers.
    pub registers: Option<PhysRange>,
}

impl Display {
    /// The first display in the order of discovery: on bus 0, on another root bus, or else on the lowest bus.
    #[must_use]
    pub fn first(devices: &Devices) -> Option<Self> {
        let mut displays = devices.iter().filter(|device| device.function.class >> 16 == BASE_CLASS_DISPLAY);
        displays.find_map(|device| {
            let framebuffer = device.memory(0)?;
            let function = device.function;
            let (address, id, class) = (function.address, function.id, function.class);
            Some(Self { address, id, class, framebuffer, registers: device.memory(2) })
        })
    }
}
