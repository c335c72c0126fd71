//! The planner: sizes the buses, drops what does not fit, places the rest.

use alloc::vec::Vec;
use core::mem;

use super::super::topology::{Bar, BarKind, Bus, IoWindow, PrefetchableWindow, Reserve, Topology};
use super::bus::{BusState, Kept, Need};
use super::resources::{BridgeWindows, GivenUp, Resources, Unassigned};
use super::space::{self, Item, Room, Space, What};
use crate::heap::{self, HeapFull, with_capacity};

/// The buses whose items share an aperture or window.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// All root buses.
    Roots,
    /// The bus with this index.
    Bus(u8),
}

pub(super) struct Planner<'t> {
    pub(super) topology: &'t Topology,
    /// By bus index.
    pub(super) buses: Vec<BusState>,
    /// By function index: the BARs that are left out, one bit each.
    pub(super) left_out: Vec<u16>,
    /// The items of one layout. The memory is reused for each.
    pub(super) items: Vec<Item>,
}

impl<'t> Planner<'t> {
    pub(super) fn new(topology: &'t Topology) -> Result<Self, HeapFull> {
        let mut buses = with_capacity::<BusState>(topology.buses().len())?;
        for bus in topology.buses() {
            let state = match bus.parent {
                None => BusState { io: true, prefetchable: Some(Space::Wide), ..BusState::default() },
                Some(parent) => {
                    let above = buses.get(usize::from(parent.bus)).copied().unwrap_or_default();
                    let function = topology.functions().get(usize::from(parent.bridge));
                    let bridge = function.and_then(|function| function.bridge);
                    let io = above.io && bridge.is_some_and(|bridge| bridge.io != IoWindow::Absent);
                    let prefetchable = bridge.and_then(|bridge| match bridge.prefetchable {
                        PrefetchableWindow::Absent => None,
                        PrefetchableWindow::Bits64 if !bridge.reserve.below_4_gib => above.prefetchable,
                        _ => above.prefetchable.map(|_| Space::Prefetchable),
                    });
                    BusState { io, prefetchable, ..BusState::default() }
                }
            };
            heap::push_within_capacity(&mut buses, state)?;
        }
        let mut left_out = with_capacity(topology.functions().len())?;
        for _ in topology.functions() {
            heap::push_within_capacity(&mut left_out, 0)?;
        }
        // The most there can be: all on one bus.
        let bars = topology.bars();
        let items = with_capacity(topology.buses().len().saturating_mul(Space::ALL.len()).saturating_add(bars))?;
        Ok(Self { topology, buses, left_out, items })
    }

    /// The space through which a BAR on `bus` is reached; `None` if there is none, or the BAR is left out.
    pub(super) fn space(&self, bus: &Bus, state: &BusState, function: u16, bar: Bar) -> Option<Space> {
        if self.left_out.get(usize::from(function))? & bar.bit() != 0 { None } else { way(bus, state, bar) }
    }

    /// Calls `visit` with every item on the buses of `group` that needs room in `spaces`.
    pub(super) fn each(&self, group: Group, spaces: &[Space], visit: &mut dyn FnMut(Item)) {
        let range = match group {
            Group::Roots => 0..self.buses.len(),
            Group::Bus(index) => usize::from(index)..usize::from(index) + 1,
        };
        let buses = self.topology.buses().get(range.clone()).unwrap_or_default();
        let states = self.buses.get(range).unwrap_or_default();
        let mut show = |space, item| {
            if spaces.contains(&space) {
                visit(item);
            }
        };
        for (bus, state) in buses.iter().zip(states) {
            if group == Group::Roots && bus.parent.is_some() {
                continue;
            }
            for (function, found) in self.topology.on_bus(bus) {
                for &bar in &found.bars {
                    if let Some(space) = self.space(bus, state, function, bar) {
                        show(space, Item::of_bar(function, bar));
                    }
                }
                let Some(bus) = found.bridge.and_then(|bridge| bridge.bus) else { continue };
                let Some(below) = self.buses.get(usize::from(bus)) else { continue };
                for (space, need) in Space::ALL.into_iter().zip(below.needs) {
                    if need.size != 0 {
                        // This bus may have no such window, or one for other addresses.
                        let here = match space {
                            Space::Prefetchable if state.prefetchable != Some(space) => Space::Low,
                            other => other,
                        };
                        show(here, Item { order: need.order, size: need.size, what: What::Window { bus, space } });
                    }
                }
            }
        }
    }

    /// Lays out the items of `group` in `spaces` from `start` on, the largest alignment first, and shows each with its address.
    /// Returns the end of the last one, and the largest alignment; `None` if an address wraps.
    ///
    /// Alignment leaves a hole. The largest hole so far is filled from its end, which has the alignment of a larger item.
    /// The layout is the same from any start that has the largest alignment.
    #[inline(never)]
    pub(super) fn pack(
        &mut self,
        group: Group,
        spaces: &[Space],
        start: u64,
        show: &mut dyn FnMut(Item, u64),
    ) -> Option<(u64, u8)> {
        let mut items = mem::take(&mut self.items);
        items.clear();
        // `items` has room for all of them.
        self.each(group, spaces, &mut |item| {
            let _ = heap::push_within_capacity(&mut items, item);
        });
        let packed = space::pack(&items, start, show);
        self.items = items;
        packed
    }

    /// Calculates what each bus needs, from the leaves to the root.
    pub(super) fn size(&mut self) {
        for index in (0..self.buses.len()).rev() {
            self.size_bus(index);
        }
    }

    /// Calculates what the bus with this index needs. Returns the index of its parent.
    pub(super) fn size_bus(&mut self, index: usize) -> Option<usize> {
        let bus = self.topology.buses().get(index)?;
        // A root bus has no bridge.
        let (parent, number) = (bus.parent?, u8::try_from(index).ok()?);
        let bridge = self.topology.functions().get(usize::from(parent.bridge)).and_then(|function| function.bridge);
        let reserve = bridge.map_or_else(Reserve::default, |bridge| bridge.reserve);
        for space in Space::ALL {
            let content = self.pack(Group::Bus(number), space.alone(), 0, &mut |_, _| {});
            let state = self.buses.get_mut(index)?;
            let (need, kept) = match content {
                Some((end, order)) => state.need(space, end, order, &reserve),
                // More than the address space, so this does not fit anywhere.
                None => (Need { size: u64::MAX, order: space.window_order() }, Kept::default()),
            };
            let places = (state.needs.get_mut(space as usize), state.kept.get_mut(space as usize));
            let (Some(needs), Some(keeps)) = places else { return None };
            (*needs, *keeps) = (need, kept);
        }
        Some(usize::from(parent.bus))
    }

    /// Recalculates what the bus with this index needs, and each bus on the path to the root. It visits no other bus: a host can
    /// have any number of BARs, and each may have to be left out.
    fn size_from(&mut self, index: usize) {
        let mut next = Some(index);
        // Each iteration goes one bridge towards the root.
        for _ in 0..self.buses.len() {
            let Some(index) = next else { break };
            next = self.size_bus(index);
        }
    }

    /// Whether the needs of the root buses in `spaces` fit into `room`.
    pub(super) fn fits(&mut self, spaces: &[Space], room: Room) -> bool {
        self.pack(Group::Roots, spaces, room.start, &mut |_, _| {}).is_some_and(|(end, _)| end <= room.end)
    }

    /// Drops reserved room and leaves out BARs until the rest in `spaces` fits into `room`.
    pub(super) fn make_fit(&mut self, spaces: &[Space], room: Room) {
        // Each iteration drops reserved room for good, or leaves out a BAR, so this ends.
        while !self.fits(spaces, room) {
            if self.give_up(spaces) {
                continue;
            }
            match self.largest(spaces) {
                None => return,
                Some((Group::Roots, Item { size, .. })) => self.leave_out_at_root(spaces, room, size),
                Some((Group::Bus(bus), item)) => {
                    self.leave_out(item);
                    self.size_from(bus.into());
                }
            }
        }
    }

    fn leave_out(&mut self, register: Item) {
        let What::Bar { function, bar } = register.what else { return };
        if let Some(left_out) = self.left_out.get_mut(usize::from(function)) {
            *left_out |= bar.bit();
        }
    }

    /// Leaves out the last BARs on root buses that have this `size`, which is the largest there: as many as have to go even if
    /// alignment costs nothing, at least one, and none that precedes a window of that size.
    ///
    /// One at a time would suffice, but a host can fill the root bus with functions, of which thousands may have to go.
    #[cold]
    fn leave_out_at_root(&mut self, spaces: &[Space], room: Room, size: u64) {
        let mut total = 0_u64;
        let mut last = mem::take(&mut self.items);
        last.clear();
        // `items` has room for all of them.
        self.each(Group::Roots, spaces, &mut |item| {
            total = total.saturating_add(item.size);
            match item.what {
                _ if item.size != size => {}
                What::Window { .. } => last.clear(),
                What::Bar { .. } => {
                    let _ = heap::push_within_capacity(&mut last, item);
                }
            }
        });
        // Each iteration leaves one out.
        while let Some(register) = last.pop() {
            self.leave_out(register);
            total = total.saturating_sub(size);
            if total <= room.size() {
                break;
            }
        }
        self.items = last;
    }

    /// Drops the room that one bridge reserves in one of `spaces`: first room that the host did not ask for, then the most, then
    /// the last of several. Returns whether there was any.
    pub(super) fn give_up(&mut self, spaces: &[Space]) -> bool {
        let mut chosen: Option<(Kept, usize, Space)> = None;
        for (index, state) in self.buses.iter().enumerate() {
            for &space in spaces {
                let Some(&kept) = state.kept.get(space as usize) else { continue };
                let before = |chosen: Kept| (!chosen.asked, chosen.size) <= (!kept.asked, kept.size);
                if kept.size != 0 && chosen.is_none_or(|(chosen, ..)| before(chosen)) {
                    chosen = Some((kept, index, space));
                }
            }
        }
        let Some((kept, index, space)) = chosen else { return false };
        if let Some(state) = self.buses.get_mut(index) {
            let given_up = if kept.asked { &mut state.no_reserve } else { &mut state.no_slot };
            *given_up |= space.bit();
        }
        self.size_from(index);
        true
    }

    /// The BAR to leave out next, after the group it is in: on each level from the root on, the largest BAR, or the bridge that
    /// needs most, the last of several.
    pub(super) fn largest(&self, spaces: &[Space]) -> Option<(Group, Item)> {
        let mut group = Group::Roots;
        let mut spaces = spaces;
        // Each iteration except the last goes one bridge away from the root.
        for _ in 0..=self.buses.len() {
            let mut largest: Option<Item> = None;
            self.each(group, spaces, &mut |item| {
                if largest.is_none_or(|largest| largest.size <= item.size) {
                    largest = Some(item);
                }
            });
            let largest = largest?;
            match largest.what {
                What::Bar { .. } => return Some((group, largest)),
                What::Window { bus, space } => (group, spaces) = (Group::Bus(bus), space.alone()),
            }
        }
        None
    }

    /// Assigns all addresses, from the root to the leaves. All of it fits.
    pub(super) fn place(&mut self, rooms: &[(&[Space], Room)]) -> Result<Resources, HeapFull> {
        let bars = self.topology.bars();
        let mut plan = Resources {
            assigned: with_capacity(bars)?,
            unassigned: Vec::new(),
            windows: with_capacity(self.buses.len())?,
            given_up: self.given_up(),
        };
        for _ in &self.buses {
            heap::push_within_capacity(&mut plan.windows, BridgeWindows::default())?;
        }
        for &(spaces, room) in rooms {
            self.pack(Group::Roots, spaces, room.start, &mut |item, address| plan.put(item, address));
        }
        for bus in 0..self.buses.len() {
            let (Some(&windows), Some(state)) = (plan.windows.get(bus), self.buses.get(bus)) else { continue };
            let Ok(bus) = u8::try_from(bus) else { continue };
            let by_prefetchable = |space| match state.prefetchable {
                Some(takes) if takes == space => windows.prefetchable.start().get(),
                _ => 0,
            };
            let starts = [
                windows.io.start().into(),
                windows.memory.start().get(),
                by_prefetchable(Space::Prefetchable),
                by_prefetchable(Space::Wide),
            ];
            for (space, start) in Space::ALL.into_iter().zip(starts) {
                if start != 0 {
                    self.pack(Group::Bus(bus), space.alone(), start, &mut |item, address| plan.put(item, address));
                }
            }
        }
        plan.unassigned = with_capacity(bars.saturating_sub(plan.assigned.len()))?;
        for (bus, state) in self.topology.buses().iter().zip(&self.buses) {
            for (index, function) in self.topology.on_bus(bus) {
                let lost = function.bars.iter().filter(|&&bar| self.space(bus, state, index, bar).is_none());
                for &bar in lost {
                    let may_be_high = way(bus, state, bar) == Some(Space::Wide);
                    heap::push_within_capacity(&mut plan.unassigned, Unassigned { function: index, bar, may_be_high })?;
                }
            }
        }
        Ok(plan)
    }

    /// How many bridges reserve less than they should.
    pub(super) fn given_up(&self) -> GivenUp {
        const IO_BIT: u8 = Space::Io.bit();
        let count = |spaces: u8| {
            let given_up = |state: &&BusState| (state.no_slot | state.no_reserve) & spaces != 0;
            self.buses.iter().filter(given_up).fold(0_u16, |count, _| count.saturating_add(1))
        };
        GivenUp { io: count(IO_BIT), memory: count(!IO_BIT) }
    }
}

/// The space through which a BAR on `bus` is reached; `None` if there is none.
fn way(bus: &Bus, state: &BusState, bar: Bar) -> Option<Space> {
    match bar.kind {
        BarKind::Io => state.io.then_some(Space::Io),
        BarKind::Memory64 { .. } if bus.parent.is_none() => Some(Space::Wide),
        BarKind::Memory64 { prefetchable: true } => Some(state.prefetchable.unwrap_or(Space::Low)),
        BarKind::Memory32 { prefetchable: true } if state.prefetchable == Some(Space::Prefetchable) => {
            state.prefetchable
        }
        BarKind::Memory32 { .. } | BarKind::Memory64 { .. } | BarKind::Rom => Some(Space::Low),
    }
}
