//! What one bus needs from its bridge, including the room reserved for functions plugged in later.

use super::super::topology::{Reserve, Slot};
use super::space::{Space, align_up};

/// The room that a slot gets at least, even if the host does not ask for it: ports, and memory in each window, as SeaBIOS
/// reserves them.
pub(super) const SLOT_IO: u64 = 1 << 12;
pub(super) const SLOT_MEMORY: u64 = 2 << 20;

/// What one bus needs from its bridge in one space.
#[derive(Clone, Copy, Default)]
pub(super) struct Need {
    pub(super) size: u64,
    pub(super) order: u8,
}

/// Room for functions plugged in later, in addition to what is needed now.
#[derive(Clone, Copy, Default)]
pub(super) struct Kept {
    /// Bytes or ports, including those needed now.
    pub(super) size: u64,
    /// Whether the host asks for it.
    pub(super) asked: bool,
}

/// The planner's data on one bus.
#[derive(Clone, Copy, Default)]
pub(super) struct BusState {
    /// By [`Space`].
    pub(super) needs: [Need; 4],
    /// By [`Space`]: the part of the need that is for functions plugged in later.
    pub(super) kept: [Kept; 4],
    /// The spaces in which reserved room was dropped, of a slot or of what the host asks for: one bit for each [`Space`].
    pub(super) no_slot: u8,
    pub(super) no_reserve: u8,
    /// Whether bridges forward ports to this bus.
    pub(super) io: bool,
    /// The addresses that the prefetchable windows on the path to this bus take; any on a root bus.
    pub(super) prefetchable: Option<Space>,
}

impl BusState {
    /// What the bridge to this bus has to forward in `space`, if the functions behind it take `end` bytes or ports with an
    /// alignment of at most `order`; and how much of it is reserved for functions plugged in later.
    pub(super) fn need(&self, space: Space, end: u64, order: u8, reserve: &Reserve) -> (Need, Kept) {
        let window_order = space.window_order();
        let content = align_up(end, window_order).unwrap_or(u64::MAX);
        let reachable = match space {
            Space::Io => self.io,
            Space::Low => true,
            Space::Prefetchable | Space::Wide => self.prefetchable == Some(space),
        };
        let (asked, slot) = match (space, reserve.slot) {
            (Space::Io, slot) => {
                (u64::from(reserve.io) << 12, if slot == Some(Slot::Conventional) { SLOT_IO } else { 0 })
            }
            (Space::Low, slot) => (u64::from(reserve.memory) << 20, if slot.is_some() { SLOT_MEMORY } else { 0 }),
            (_, slot) => (u64::from(reserve.prefetchable) << 20, if slot.is_some() { SLOT_MEMORY } else { 0 }),
        };
        let is_in = |bits: u8| bits & space.bit() != 0;
        let asked = if is_in(self.no_reserve) { 0 } else { asked };
        let slot = if is_in(self.no_slot) { 0 } else { slot };
        let kept = if reachable { asked.max(slot) } else { 0 };
        if kept <= content {
            let order = if content == 0 { 0 } else { order.max(window_order) };
            return (Need { size: content, order }, Kept::default());
        }
        // One plugged-in function may take all of it, and needs alignment to its size.
        let own_order = if space == Space::Io { window_order } else { kept.ilog2() as u8 };
        (Need { size: kept, order: order.max(window_order).max(own_order) }, Kept { size: kept, asked: asked >= slot })
    }
}
