//! Giving every base address register and every bridge window its place. Pure: a topology and the host's windows in, a
//! plan out.
//!
//! How: the buses are sized from the leaves to the root, each with what its own registers and the windows of the bridges
//! on it need, the largest alignment first; then placed from the root to the leaves in the same order. A window also has
//! what is kept for functions that are plugged in later. Memory goes below 4 GiB if all of it fits there. If not, what
//! takes 64-bit addresses goes above, all of it, into the first room there that holds it, else into the largest. It is never
//! divided over two: QEMU's tables tell the kernel of one piece, from the first byte to the last, and what lies between two
//! rooms is no room. If there is still no room, first what is kept is given up, where the host
//! has not asked for it and then where it has; then the largest register is left out, and so on until the rest fits.
//!
//! A 64-bit register behind a bridge can only go above 4 GiB when it is prefetchable and each bridge on its way has a
//! 64-bit prefetchable window. Behind a bridge whose prefetchable window takes 32-bit addresses, prefetchable registers of
//! both sizes use that. Any other memory behind a bridge uses the bridge's memory window.
//!
//! Most machines have no bridges and room for everything. Their plan is the same and has a shorter way of its own, `flat`.

mod bus;
mod flat;
mod planner;
mod space;

use alloc::vec::Vec;

use self::flat::flat;
use self::planner::Planner;
use self::space::{IO, Item, LOW, MEMORY, Room, Space, WIDE, What};
use super::topology::{Bar, Topology};
use super::windows::{Near, PortRange, Windows};
use crate::addr::{PhysAddr, PhysRange};
use crate::heap::{self, HeapFull};

/// The plan for a topology. Function and bus indices are those of the topology.
#[derive(Default, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The registers that got an address.
    pub placements: Vec<Placement>,
    /// The registers that got none.
    pub unplaced: Vec<Unplaced>,
    /// What the bridge to each bus has to pass on, by bus index; empty where there is no bridge.
    pub windows: Vec<BridgeWindows>,
    /// The bridges that keep less than they should for functions plugged in later.
    pub given_up: GivenUp,
}

/// How many bridges keep no room for functions plugged in later, because there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// No ports.
    pub io: u16,
    /// No memory, by one of the windows.
    pub memory: u16,
}

/// An address for a base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Index of the function.
    pub function: u16,
    /// Which of its registers.
    pub bar: Bar,
    /// The first byte, or the first port where it decodes ports.
    pub address: u64,
}

/// A base address register that has to stay without an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unplaced {
    /// Index of the function.
    pub function: u16,
    /// Which of its registers.
    pub bar: Bar,
    /// Whether it could have one above 4 GiB: it takes 64 bits, and so does each window on the way.
    pub may_be_high: bool,
}

/// What a bridge passes on; an empty range where it has to pass on nothing, as for a root bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BridgeWindows {
    /// Ports.
    pub io: PortRange,
    /// Memory by the memory window.
    pub memory: PhysRange,
    /// Memory by the prefetchable window.
    pub prefetchable: PhysRange,
}

impl BridgeWindows {
    /// Whether the bridge passes on nothing.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.io.is_empty() && self.memory.is_empty() && self.prefetchable.is_empty()
    }
}

/// Plans where everything goes.
///
/// # Errors
/// [`HeapFull`] when the heap does not hold the plan.
pub fn plan(topology: &Topology, windows: &Windows) -> Result<Plan, HeapFull> {
    flat(topology, windows.near()).map_or_else(|| of_any_topology(topology, windows), Ok)
}

/// As [`plan`]. The windows are worked out only where `near`, their part that is tried first, does not do.
///
/// # Errors
/// As [`plan`].
pub fn plan_near(topology: &Topology, near: Near, windows: &dyn Fn() -> Windows) -> Result<Plan, HeapFull> {
    flat(topology, near).map_or_else(|| of_any_topology(topology, &windows()), Ok)
}

/// As [`plan`], with bridges or without, whether all fits or not.
#[inline(never)]
fn of_any_topology(topology: &Topology, windows: &Windows) -> Result<Plan, HeapFull> {
    let mut planner = Planner::new(topology)?;
    let [io, more_io] = [windows.near().io(), windows.more_io()].map(Room::from);
    let low = Room::from(windows.near().low());
    planner.size();
    let io = if planner.fits(IO, io) || more_io.size() <= io.size() { io } else { more_io };
    let low_only: &[_] = &[(IO, io), (MEMORY, low)];
    let all_low = planner.fits(MEMORY, low);
    let high = match windows.high() {
        [.., largest] if !all_low => {
            let first = windows.high().iter().find(|window| planner.fits(WIDE, Room::from(**window)));
            Some(Room::from(*first.unwrap_or(largest)))
        }
        _ => None,
    };
    let split = high.map(|high| [(IO, io), (LOW, low), (WIDE, high)]);
    let rooms = split.as_ref().map_or(low_only, |split| split);
    for &(spaces, room) in rooms {
        if !(all_low && spaces == MEMORY) {
            planner.make_fit(spaces, room);
        }
    }
    planner.place(rooms)
}

impl Plan {
    /// From the first to the last byte that got an address above 4 GiB; empty when none did.
    #[must_use]
    pub fn above_4_gib(&self) -> PhysRange {
        let mut all: Option<PhysRange> = None;
        for &Placement { bar, address, .. } in &self.placements {
            let Some(range) = PhysRange::new(PhysAddr::new(address), bar.size()) else { continue };
            if range.end() > PhysRange::LOW_4_GIB.end() {
                let (start, end) = all.map_or((range.start(), range.end()), |all| (all.start(), all.end()));
                all = PhysRange::from_bounds(start.min(range.start()), end.max(range.end()));
            }
        }
        all.unwrap_or_default()
    }

    fn put(&mut self, item: Item, address: u64) {
        match item.what {
            What::Bar { function, bar } => {
                // There is room for all registers.
                let _ = heap::push_within_capacity(&mut self.placements, Placement { function, bar, address });
            }
            What::Window { bus, space } => {
                let Some(windows) = self.windows.get_mut(usize::from(bus)) else { return };
                let range = PhysRange::new(PhysAddr::new(address), item.size).unwrap_or_default();
                match space {
                    Space::Io => windows.io = ports(address, item.size),
                    Space::Low => windows.memory = range,
                    Space::Prefetchable | Space::Wide => windows.prefetchable = range,
                }
            }
        }
    }
}

/// A run of ports that was found to fit into the host's.
fn ports(start: u64, size: u64) -> PortRange {
    let end = start.checked_add(size).and_then(|end| u32::try_from(end).ok());
    let range = u32::try_from(start).ok().zip(end).and_then(|(start, end)| PortRange::new(start, end));
    range.unwrap_or_default()
}
