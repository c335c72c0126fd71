//! The display that a framebuffer can be set up on: which function it is, and where its memory ended up.

use super::Address;
use super::plan::Plan;
use super::topology::{BarKind, Topology};
use crate::addr::{PhysAddr, PhysRange};

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
    pub fn first(topology: &Topology, plan: &Plan) -> Option<Self> {
        let functions = (0..u16::MAX).zip(topology.functions());
        let mut displays = functions.filter(|(_, function)| function.class >> 16 == BASE_CLASS_DISPLAY);
        displays.find_map(|(index, function)| {
            let memory = |register| {
                let mut memory = plan.placements.iter().filter(|placed| placed.bar.kind != BarKind::Io);
                let placed = memory.find(|placed| (placed.function, placed.bar.register) == (index, register))?;
                PhysRange::new(PhysAddr::new(placed.address), placed.bar.size())
            };
            let framebuffer = memory(0)?;
            let (address, id, class) = (function.address, function.id, function.class);
            Some(Self { address, id, class, framebuffer, registers: memory(2) })
        })
    }
}
