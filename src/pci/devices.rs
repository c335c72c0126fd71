//! The PCI functions for drivers: which were found, where their BARs are, and how to enable them.
//!
//! The scan and the plan provide all of this, so it costs no access.
//!
//! Assumed: nothing else has moved a function since. Left out: capabilities, functions that are plugged in later, and bridges
//! that were closed because nothing is behind them.

use super::address::Address;
use super::apertures::PortRange;
use super::config::{ConfigAccess, ConfigSpace};
use super::plan::Resources;
use super::register::{self, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY};
use super::topology::{Bar, BarKind, Function, Topology};
use crate::addr::{PhysAddr, PhysRange};
use crate::heap;

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

    /// The way from a root bus to a device. `None` if it has more than `MOST_STEPS` steps.
    #[must_use]
    pub fn route(&self, device: &Device<'_>) -> Option<Route> {
        let buses = self.topology.buses();
        let mut bus = buses.iter().find(|bus| (bus.first..bus.end).contains(&device.index))?;
        let (mut address, mut steps) = (device.function.address, [None; MOST_STEPS]);
        let mut free = steps.iter_mut().rev();
        // A parent comes earlier in the list, so this ends.
        loop {
            *free.next()? = Some(address);
            let Some(parent) = bus.parent else { break };
            address = self.topology.functions().get(usize::from(parent.bridge))?.address;
            bus = buses.get(usize::from(parent.bus))?;
        }
        let roots = buses.iter().filter(|root| root.parent.is_none() && root.number < bus.number);
        let root_index = u8::try_from(heap::count(roots)).ok()?;
        Some(Route { root: bus.number, root_index, steps })
    }
}

/// The most functions on the way from a root bus to a device, with the device's own.
pub const MOST_STEPS: usize = 8;

/// The way from a root bus to a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The number of the root bus.
    pub root: u8,
    /// How many root buses have smaller numbers: 0 for bus 0, 1 for the first extra root bus.
    pub root_index: u8,
    /// The steps, at the end of the list.
    steps: [Option<Address>; MOST_STEPS],
}

impl Route {
    /// The bridges on the way, from the root bus on, and the function.
    pub fn steps(&self) -> impl Iterator<Item = Address> {
        self.steps.into_iter().flatten()
    }

    /// The way by these steps, of which the last is the function.
    #[cfg(test)]
    pub fn of(root: u8, root_index: u8, path: &[Address]) -> Self {
        let mut steps = [None; MOST_STEPS];
        steps.iter_mut().rev().zip(path.iter().rev()).for_each(|(step, address)| *step = Some(*address));
        Self { root, root_index, steps }
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
        let may = self.may_decode(spaces);
        if may {
            turn_on(config, self.function.address, spaces);
        }
        may
    }

    /// Whether all BARs of `spaces` ([`COMMAND_IO`], [`COMMAND_MEMORY`] or both) have addresses.
    #[must_use]
    pub fn may_decode(self, spaces: u16) -> bool {
        let wanted = spaces & (COMMAND_IO | COMMAND_MEMORY);
        wanted & !self.resources.may_decode(self.index, self.function) == 0
    }
}

/// Enables decoding of `spaces` and bus mastering of a function that [may decode](Device::may_decode) them. Returns what COMMAND
/// was before.
pub fn turn_on(config: &mut dyn ConfigSpace, address: Address, spaces: u16) -> u16 {
    // The status in the upper half is not written back, because its bits are cleared by writing one.
    let command = config.read32(address, register::COMMAND) as u16;
    let wanted = spaces & (COMMAND_IO | COMMAND_MEMORY) | COMMAND_MASTER;
    config.write32(address, register::COMMAND, (command | wanted).into());
    command
}
