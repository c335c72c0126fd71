//! Assigns addresses to all BARs and bridge windows. Pure: takes a topology and the host's apertures, returns resources.
//!
//! The buses are sized from the leaves to the root: the needs of a bus are its own BARs and the windows of its bridges, the
//! largest alignment first. Then they are placed from the root to the leaves in the same order. A window includes the room
//! reserved for functions that are plugged in later.
//!
//! Memory goes below 4 GiB if all of it fits there. If not, all memory that takes 64-bit addresses goes above 4 GiB: into the
//! first aperture there that holds all of it, otherwise into the largest. It is never split over two apertures, because QEMU's
//! tables describe one range to the kernel, from the first byte to the last, and the gap between two apertures is unusable. If
//! memory still does not fit, reserved room is dropped: first room that the host did not ask for, then room that it did. Then the
//! largest BARs are left out, one after the other, until the rest fits.
//!
//! A 64-bit BAR behind a bridge can only go above 4 GiB if it is prefetchable and each bridge on the path has a 64-bit
//! prefetchable window. If a bridge's prefetchable window takes 32-bit addresses, prefetchable BARs of both sizes use it. All
//! other memory behind a bridge uses the bridge's memory window.
//!
//! Most machines have no bridges, and enough room. The module `flat` makes the same plan for them in a faster way.

mod bus;
mod flat;
mod planner;
mod resources;
mod space;

pub use self::resources::{Assignment, BridgeWindows, GivenUp, Resources, Unassigned};

use self::flat::flat;
use self::planner::Planner;
use self::space::{IO, LOW, MEMORY, Room, WIDE};
use super::apertures::{Apertures, LowApertures};
use super::topology::Topology;
use crate::heap::HeapFull;

/// Assigns all addresses.
///
/// # Errors
/// [`HeapFull`] if the heap has no room for the plan.
pub fn plan(topology: &Topology, apertures: &Apertures) -> Result<Resources, HeapFull> {
    flat(topology, apertures.low()).map_or_else(|| of_any_topology(topology, apertures), Ok)
}

/// As [`plan`], but calls `apertures` only if the `low` ones do not suffice.
///
/// # Errors
/// As [`plan`].
pub fn plan_low_first(
    topology: &Topology,
    low: LowApertures,
    apertures: &dyn Fn() -> Apertures,
) -> Result<Resources, HeapFull> {
    flat(topology, low).map_or_else(|| of_any_topology(topology, &apertures()), Ok)
}

/// As [`plan`], for any topology.
#[inline(never)]
fn of_any_topology(topology: &Topology, apertures: &Apertures) -> Result<Resources, HeapFull> {
    let mut planner = Planner::new(topology)?;
    let [io, more_io] = [apertures.low().io(), apertures.more_io()].map(Room::from);
    let low = Room::from(apertures.low().memory());
    planner.size();
    let io = if planner.fits(IO, io) || more_io.size() <= io.size() { io } else { more_io };
    let low_only: &[_] = &[(IO, io), (MEMORY, low)];
    let all_low = planner.fits(MEMORY, low);
    let high = match apertures.high() {
        [.., largest] if !all_low => {
            let first = apertures.high().iter().find(|window| planner.fits(WIDE, Room::from(**window)));
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
