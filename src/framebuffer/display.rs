//! The display for a framebuffer: its PCI function and its memory.

use crate::addr::PhysRange;
use crate::pci::{Address, Devices, Route};

/// Base class of display controllers (PCI Code and ID Assignment 1.11, section 1.4).
const BASE_CLASS_DISPLAY: u32 = 0x03;

/// A display controller with memory in its first base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Display {
    /// The PCI address.
    pub address: Address,
    /// Vendor ID in the low half, device ID in the high half.
    pub id: u32,
    /// Class, sub-class and programming interface in bits 23:16, 15:8 and 7:0.
    pub class: u32,
    /// The range of base address register 0 once memory decoding is on. On QEMU's displays, this is the framebuffer.
    pub framebuffer: PhysRange,
    /// The range of base address register 2, if it is memory. On QEMU's Bochs displays, these are the registers.
    pub registers: Option<PhysRange>,
    /// The way from the root bus to it, if that is not too long.
    pub route: Option<Route>,
}

impl Display {
    /// The first display in the order of discovery: on bus 0, on another root bus, or on the lowest bus.
    #[must_use]
    pub fn first(devices: &Devices) -> Option<Self> {
        let mut displays = devices.iter().filter(|device| device.function.class >> 16 == BASE_CLASS_DISPLAY);
        displays.find_map(|device| {
            let framebuffer = device.memory(0)?;
            let function = device.function;
            let (address, id, class) = (function.address, function.id, function.class);
            let (registers, route) = (device.memory(2), devices.route(&device));
            Some(Self { address, id, class, framebuffer, registers, route })
        })
    }
}
