//! Giving every base address register and every bridge window its place. Pure: a topology and the host's
//! apertures in, resources out.
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
mod resources;
mod space;

pub use self::resources::{Assignment, BridgeWindows, GivenUp, Resources, Unassigned};

use self::flat::flat;
use self::planner::Planner;
use self::space::{IO, LOW, MEMORY, Room, WIDE};
use super::apertures::{Apertures, LowApertures};
use super::topology::Topology;
use crate::heap::HeapFull;

/// Plans where everything goes.
///
/// # Errors
/// [`HeapFull`] when the heap does not hold the plan.
pub fn plan(topology: &Topology, apertures: &Apertures) -> Result<Resources, HeapFull> {
    flat(topology, apertures.low()).map_or_else(|| of_any_topology(topology, apertures), Ok)
}

/// As [`plan`]. All the `apertures` are worked out only where the `low` ones do not suffice.
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

/// As [`plan`], with bridges or without, whether all fits or not.
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
