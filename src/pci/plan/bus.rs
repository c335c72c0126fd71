//! What one bus needs from the bridge to it, with what is kept for functions plugged in later.

use super::super::topology::{Reserve, Slot};
use super::space::{Space, align_up};

/// What a slot has at the least without being asked for: so many ports, and so much memory by each window, as SeaBIOS
/// gives it.
pub(super) const SLOT_IO: u64 = 1 << 12;
pub(super) const SLOT_MEMORY: u64 = 2 << 20;

/// What one bus needs from the bridge to it in one space.
#[derive(Clone, Copy, Default)]
pub(super) struct Need {
    pub(super) size: u64,
    pub(super) order: u8,
}

/// Room for functions plugged in later, beyond what is there.
#[derive(Clone, Copy, Default)]
pub(super) struct Kept {
    /// Bytes or ports, with those for what is there.
    pub(super) size: u64,
    /// Whether the host asks for it.
    pub(super) asked: bool,
}

/// What the planner knows of one bus.
#[derive(Clone, Copy, Default)]
pub(super) struct BusState {
    /// By [`Space`].
    pub(super) needs: [Need; 4],
    /// By [`Space`]: what of the need is there for functions plugged in later.
    pub(super) kept: [Kept; 4],
    /// Where nothing is kept any more, though a slot would have it, or though the host asks for it: one bit a [`Space`].
    pub(super) no_slot: u8,
    pub(super) no_reserve: u8,
    /// Whether ports get here.
    pub(super) io: bool,
    /// Which addresses the prefetchable windows that lead here take; any on a root bus.
    pub(super) prefetchable: Option<Space>,
}

impl BusState {
    /// What the bridge to this bus has to pass on in `space`, when what is behind it takes `end` bytes or ports of at most
    /// the alignment `order`; and how much of it is kept for functions plugged in later.
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
        // What is plugged in can be one function that takes all of it, which wants to be aligned to its size.
        let own_order = if space == Space::Io { window_order } else { kept.ilog2() as u8 };
        (Need { size: kept, order: order.max(window_order).max(own_order) }, Kept { size: kept, asked: asked >= slot })
    }
}
