//! What PCI has, for drivers: the functions that were found, where their base address registers are, and how to turn one on.
//!
//! The scan and the plan leave all of this behind, so it takes no access to make or to ask.
//!
//! Assumed: nothing else has moved a function since. Left out: capabilities, functions that are plugged in later, and bridges
//! that closed because nothing was behind them.

use super::apertures::PortRange;
use super::config::{ConfigAccess, ConfigSpace};
use super::plan::Resources;
use super::register::{self, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY};
use super::topology::{Bar, BarKind, Function, Topology};
use crate::addr::{PhysAddr, PhysRange};

/// All functions, with their places. The default has none.
#[derive(Default, Debug)]
pub struct Devices {
    pub(super) access: ConfigAccess,
    pub(super) topology: Topology,
    pub(super) resources: Resources,
}

impl Devices {
    /// The way into configuration space, for [`Device::turn_on`].
    #[must_use]
    pub const fn access(&self) -> ConfigAccess {
        self.access
    }

    /// The functions in the order of discovery: those of bus 0, of the other root buses, then of the buses behind bridges.
    pub fn iter(&self) -> impl Iterator<Item = Device<'_>> {
        let functions = (0..u16::MAX).zip(self.topology.functions());
        functions.map(|(index, function)| Device { function, index, resources: &self.resources })
    }
}

/// A function with its place.
#[derive(Clone, Copy, Debug)]
pub struct Device<'d> {
    /// What the scan found: address, IDs and class among it.
    pub function: &'d Function,
    index: u16,
    resources: &'d Resources,
}

impl<'d> Device<'d> {
    /// The base address registers, each with its first byte or port; `None` for one that got no place.
    pub fn bars(self) -> impl Iterator<Item = (Bar, Option<u64>)> + 'd {
        self.function.bars.iter().map(move |&bar| (bar, self.address_of(bar.register).map(|(_, address)| address)))
    }

    /// The memory of the base address register with this number; `None` where it is none of memory, or got no place.
    #[must_use]
    pub fn memory(self, register: u8) -> Option<PhysRange> {
        let (bar, address) = self.address_of(register).filter(|(bar, _)| bar.kind != BarKind::Io)?;
        PhysRange::new(PhysAddr::new(address), bar.size())
    }

    /// The ports of the base address register with this number; `None` where it is none of ports, or got no place.
    #[must_use]
    pub fn ports(self, register: u8) -> Option<PortRange> {
        let (bar, address) = self.address_of(register).filter(|(bar, _)| bar.kind == BarKind::Io)?;
        PortRange::of_size(address, bar.size())
    }

    fn address_of(self, register: u8) -> Option<(Bar, u64)> {
        let mut assigned = self.resources.assigned.iter();
        let found = assigned.find(|found| (found.function, found.bar.register) == (self.index, register))?;
        Some((found.bar, found.address))
    }

    /// Has the function decode `spaces`, [`COMMAND_IO`] or [`COMMAND_MEMORY`] or both, and act as a bus master.
    ///
    /// Returns whether it does. It does not, and nothing is written, if a register of one of these spaces got no place: the
    /// function would decode what is another's.
    pub fn turn_on(self, config: &mut dyn ConfigSpace, spaces: u16) -> bool {
        let wanted = spaces & (COMMAND_IO | COMMAND_MEMORY);
        if wanted & !self.resources.may_decode(self.index, self.function) != 0 {
            return false;
        }
        let address = self.function.address;
        // The status in the upper half is not written back: its bits are cleared by writing one.
        let command = config.read32(address, register::COMMAND) as u16;
        config.write32(address, register::COMMAND, (command | wanted | COMMAND_MASTER).into());
        true
    }
}
