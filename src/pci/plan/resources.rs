//! The resources of all functions: the plan for a topology.

use alloc::vec::Vec;

use super::super::apertures::PortRange;
use super::super::register::{COMMAND_IO, COMMAND_MEMORY};
use super::super::topology::{Bar, BarKind, Function};
use super::space::{Item, Space, What};
use crate::addr::{PhysAddr, PhysRange};
use crate::heap;

/// The resources of each function and each bridge. Function and bus indices are those of the topology.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Resources {
    /// The BARs that got an address.
    pub assigned: Vec<Assignment>,
    /// The BARs that got none.
    pub unassigned: Vec<Unassigned>,
    /// What the bridge to each bus has to forward, by bus index; empty if there is no bridge.
    pub windows: Vec<BridgeWindows>,
    /// The bridges that reserve less than they should for functions plugged in later.
    pub given_up: GivenUp,
}

/// How many bridges reserve no room for functions plugged in later, because there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// Bridges without reserved ports.
    pub io: u16,
    /// Bridges without reserved memory in one of the windows.
    pub memory: u16,
}

/// An address for a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Index of the function.
    pub function: u16,
    /// The BAR.
    pub bar: Bar,
    /// The first byte, or the first port of an I/O BAR.
    pub address: u64,
}

/// A BAR without an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unassigned {
    /// Index of the function.
    pub function: u16,
    /// The BAR.
    pub bar: Bar,
    /// Whether it could have one above 4 GiB: it and each window on the path take 64-bit addresses.
    pub may_be_high: bool,
}

/// What a bridge forwards. A range is empty if it has to forward nothing, as for a root bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeWindows {
    /// Ports.
    pub io: PortRange,
    /// Memory in the memory window.
    pub memory: PhysRange,
    /// Memory in the prefetchable window.
    pub prefetchable: PhysRange,
}

impl BridgeWindows {
    /// Whether the bridge forwards nothing.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.io.is_empty() && self.memory.is_empty() && self.prefetchable.is_empty()
    }
}

impl Resources {
    /// From the first to the last byte assigned above 4 GiB; empty if there is none.
    #[must_use]
    pub fn above_4_gib(&self) -> PhysRange {
        let mut all: Option<PhysRange> = None;
        for &Assignment { bar, address, .. } in &self.assigned {
            let Some(range) = PhysRange::new(PhysAddr::new(address), bar.size()) else { continue };
            if range.end() > PhysRange::LOW_4_GIB.end() {
                let (start, end) = all.map_or((range.start(), range.end()), |all| (all.start(), all.end()));
                all = PhysRange::from_bounds(start.min(range.start()), end.max(range.end()));
            }
        }
        all.unwrap_or_default()
    }

    /// The spaces, as bits of COMMAND, in which all BARs of the function with this index have an address. It must not decode the
    /// others.
    pub(in crate::pci) fn may_decode(&self, index: u16, function: &Function) -> u16 {
        if !function.sound {
            return 0;
        }
        let lost = self.unassigned.iter().filter(|lost| lost.function == index);
        lost.fold(COMMAND_IO | COMMAND_MEMORY, |may, lost| match lost.bar.kind {
            BarKind::Io => may & !COMMAND_IO,
            BarKind::Memory32 { .. } | BarKind::Memory64 { .. } => may & !COMMAND_MEMORY,
            BarKind::Rom => may,
        })
    }

    /// Records an item's address.
    #[inline(always)]
    pub(super) fn put(&mut self, item: Item, address: u64) {
        match item.what {
            What::Bar { function, bar } => {
                // There is room for all BARs.
                let _ = heap::push_within_capacity(&mut self.assigned, Assignment { function, bar, address });
            }
            What::Window { bus, space } => {
                let Some(windows) = self.windows.get_mut(usize::from(bus)) else { return };
                let range = PhysRange::new(PhysAddr::new(address), item.size).unwrap_or_default();
                match space {
                    Space::Io => windows.io = PortRange::of_size(address, item.size).unwrap_or_default(),
                    Space::Low => windows.memory = range,
                    Space::Prefetchable | Space::Wide => windows.prefetchable = range,
                }
            }
        }
    }
}
