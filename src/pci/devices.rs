//! The PCI functions for drivers: which were found, where their BARs are, and how to enable them.
//!
//! The scan and the plan provide all of this, so it costs no access.
//!
//! Assumed: nothing else has moved a function since. Left out: capabilities, functions that are plugged in later, and bridges
//! that were closed because nothing is behind them.

use super::apertures::PortRange;
use super::config::{ConfigAccess, ConfigSpace};
use super::plan::Resources;
use super::register::{self, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY};
use super::topology::{Bar, BarKind, Function, Topology};
use crate::addr::{PhysAddr, PhysRange};

/// All functions, with their addresses. The default has none.
#[derive(Default, Debug)]
pub struct Devices {
    pub(super) access: ConfigAccess,
    pub(super) topology: Topology,
    pub(super) resources: Resources,
}

impl Devices {
    /// The way to access configuration space, for [`Device::turn_on`].
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

/// A function with its addresses.
#[derive(Clone, Copy, Debug)]
pub struct Device<'d> {
    /// What the scan found, including PCI address, IDs and class.
    pub function: &'d Function,
    index: u16,
    resources: &'d Resources,
}

impl<'d> Device<'d> {
    /// The BARs, each with its first byte or port; `None` for a BAR without an address.
    pub fn bars(self) -> impl Iterator<Item = (Bar, Option<u64>)> + 'd {
        self.function.bars.iter().map(move |&bar| (bar, self.address_of(bar.register).map(|(_, address)| address)))
    }

    /// The memory of the BAR with this number; `None` if it is not a memory BAR or has no address.
    #[must_use]
    pub fn memory(self, register: u8) -> Option<PhysRange> {
        let (bar, address) = self.address_of(register).filter(|(bar, _)| bar.kind != BarKind::Io)?;
        PhysRange::new(PhysAddr::new(address), bar.size())
    }

    /// The ports of the BAR with this number; `None` if it is not an I/O BAR or has no address.
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

    /// Enables decoding of `spaces` ([`COMMAND_IO`], [`COMMAND_MEMORY`] or both) and bus mastering.
    ///
    /// Returns whether it was enabled. If a BAR of one of these spaces has no address, nothing is written, because the function
    /// would decode addresses of another.
    pub fn turn_on(self, config: &mut dyn ConfigSpace, spaces: u16) -> bool {
        let wanted = spaces & (COMMAND_IO | COMMAND_MEMORY);
        if wanted & !self.resources.may_decode(self.index, self.function) != 0 {
            return false;
        }
        let address = self.function.address;
        // The status in the upper half is not written back, because its bits are cleared by writing one.
        let command = config.read32(address, register::COMMAND) as u16;
        config.write32(address, register::COMMAND, (command | wanted | COMMAND_MASTER).into());
        true
    }
}
