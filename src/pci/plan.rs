//! Giving every base address register and every bridge window its place. Pure: a topology and the host's windows in, a
//! plan out.
//!
//! How: the buses are sized from the leaves to the root, each with what its own registers and the windows of the bridges
//! on it need, the largest alignment first; then placed from the root to the leaves in the same order. A window also has
//! what is kept for functions that are plugged in later. Memory goes below 4 GiB if all of it fits there. If not, what
//! takes 64-bit addresses goes above, all of it. If there is still no room, first what is kept is given up, where the host
//! has not asked for it and then where it has; then the largest register is left out, and so on until the rest fits.
//!
//! A 64-bit register behind a bridge can only go above 4 GiB when it is prefetchable and each bridge on its way has a
//! 64-bit prefetchable window. Behind a bridge whose prefetchable window takes 32-bit addresses, prefetchable registers of
//! both sizes use that. Any other memory behind a bridge uses the bridge's memory window.
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::{fmt, mem};

use super::topology::{Bar, BarKind, Bus, IoWindow, PrefetchableWindow, Reserve, Slot, Topology};
use super::windows::{PortRange, Windows};
use crate::addr::{Alignment, PhysAddr, PhysRange};

/// Bridges pass on ports in blocks of 4 KiB (PCI-to-PCI Bridge 1.2, section 3.2.5.6).
const IO_WINDOW_ORDER: u8 = 12;
/// Bridges pass on memory in blocks of 1 MiB (same specification, section 3.2.5.8). Two at a time are given, as SeaBIOS
/// does: a large page maps them, and there is some room for more.
const MEMORY_WINDOW_ORDER: u8 = 21;
/// What a slot has at the least without being asked for: so many ports, and so much memory by each window, as SeaBIOS
/// gives it.
const SLOT_IO: u64 = 1 << 12;
const SLOT_MEMORY: u64 = 2 << 20;
/// Two functions do not share a 4 KiB page, so that a host or a kernel can map each on its own.
const PAGE_ORDER: u8 = 12;

/// The plan for a topology. Function and bus indices are those of the topology.
#[derive(Default, Debug)]
pub struct Plan {
    /// The registers that got an address.
    pub placements: Vec<Placement>,
    /// The registers that got none.
    pub unplaced: Vec<Unplaced>,
    /// What the bridge to each bus has to pass on, by bus index.
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
    /// The first byte, or the first port for [`BarKind::Io`].
    pub address: u64,
}

/// A base address register that has to stay without an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unplaced {
    /// Index of the function.
    pub function: u16,
    /// Which of its registers.
    pub bar: Bar,
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

/// There is no memory left for a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory to plan PCI addresses")
    }
}

impl core::error::Error for OutOfMemory {}

/// Plans where everything goes.
///
/// # Errors
/// [`OutOfMemory`] when the heap does not hold the plan.
pub fn plan(topology: &Topology, windows: &Windows) -> Result<Plan, OutOfMemory> {
    let mut planner = Planner::new(topology)?;
    let [io, more_io] =
        [windows.io(), windows.more_io()].map(|ports| Room { start: ports.start().into(), end: ports.end().into() });
    let [low, high] =
        [windows.low(), windows.high()].map(|window| Room { start: window.start().get(), end: window.end().get() });
    planner.size();
    let io = if planner.fits(IO, io) || more_io.size() <= io.size() { io } else { more_io };
    let low_only: &[_] = &[(IO, io), (MEMORY, low)];
    let split: &[_] = &[(IO, io), (LOW, low), (WIDE, high)];
    let all_low = planner.fits(MEMORY, low);
    let rooms = if all_low || high.start == high.end { low_only } else { split };
    for &(spaces, room) in rooms {
        if !(all_low && spaces == MEMORY) {
            planner.make_fit(spaces, room);
        }
    }
    planner.place(rooms)
}

/// One of the four ways in which addresses get to a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    /// Ports, by I/O windows.
    Io = 0,
    /// Memory that has to be below 4 GiB, by memory windows.
    Low = 1,
    /// Memory that has to be below 4 GiB, by prefetchable windows. There is none on a root bus.
    Prefetchable = 2,
    /// Memory that may be above 4 GiB, by prefetchable windows.
    Wide = 3,
}

impl Space {
    const ALL: [Self; 4] = [Self::Io, Self::Low, Self::Prefetchable, Self::Wide];

    const fn alone(self) -> &'static [Self] {
        match self {
            Self::Io => IO,
            Self::Low => &[Self::Low],
            Self::Prefetchable => &[Self::Prefetchable],
            Self::Wide => WIDE,
        }
    }

    const fn window_order(self) -> u8 {
        match self {
            Self::Io => IO_WINDOW_ORDER,
            Self::Low | Self::Prefetchable | Self::Wide => MEMORY_WINDOW_ORDER,
        }
    }
}

/// What goes to the window for ports.
const IO: &[Space] = &[Space::Io];
/// What goes to the window below 4 GiB if that holds all memory.
const MEMORY: &[Space] = &[Space::Low, Space::Prefetchable, Space::Wide];
/// What goes to the window below 4 GiB if that does not.
const LOW: &[Space] = &[Space::Low, Space::Prefetchable];
/// What goes to the window above 4 GiB then.
const WIDE: &[Space] = &[Space::Wide];

/// Where items go: addresses or ports, `start` to `end` exclusive.
#[derive(Clone, Copy)]
struct Room {
    start: u64,
    end: u64,
}

impl Room {
    const fn size(self) -> u64 {
        self.end - self.start
    }

    /// Cuts off what `item` takes at the end; `None`, and no change, when it does not fit.
    fn take_last(&mut self, item: Item) -> Option<u64> {
        let alignment = Alignment::new(1u64.checked_shl(item.order.into())?)?;
        let address = PhysAddr::new(self.end).checked_sub(item.size)?.align_down(alignment).get();
        if address < self.start {
            return None;
        }
        self.end = address;
        Some(address)
    }
}

/// What one bus needs from the bridge to it in one space.
#[derive(Clone, Copy, Default)]
struct Need {
    size: u64,
    order: u8,
}

/// Room for functions plugged in later, beyond what is there.
#[derive(Clone, Copy, Default)]
struct Kept {
    /// Bytes or ports, with those for what is there.
    size: u64,
    /// Whether the host asks for it.
    asked: bool,
}

/// What the planner knows of one bus.
#[derive(Clone, Copy, Default)]
struct BusState {
    /// By [`Space`].
    needs: [Need; 4],
    /// By [`Space`]: what of the need is there for functions plugged in later.
    kept: [Kept; 4],
    /// Where nothing is kept any more, though a slot would have it, or though the host asks for it: one bit a [`Space`].
    no_slot: u8,
    no_reserve: u8,
    /// Whether ports get here.
    io: bool,
    /// Which addresses the prefetchable windows that lead here take; any on a root bus.
    prefetchable: Option<Space>,
}

/// The buses whose items share a room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    /// All root buses.
    Roots,
    /// The bus with this index.
    Bus(u8),
}

/// Something that takes room on a bus.
#[derive(Clone, Copy)]
struct Item {
    /// Its alignment is two to this power.
    order: u8,
    size: u64,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    Bar {
        function: u16,
        bar: Bar,
    },
    /// The window of the bridge to the bus with this index, for what is in `space` there.
    Window {
        bus: u8,
        space: Space,
    },
}

struct Planner<'t> {
    topology: &'t Topology,
    /// By bus index.
    buses: Vec<BusState>,
    /// By function index: the registers that are left out, one bit each.
    left_out: Vec<u16>,
    /// Room for what is laid out together, kept from one time to the next.
    items: Vec<Item>,
}

impl<'t> Planner<'t> {
    fn new(topology: &'t Topology) -> Result<Self, OutOfMemory> {
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
            buses.push(state);
        }
        let mut left_out = with_capacity(topology.functions().len())?;
        left_out.resize(topology.functions().len(), 0);
        // As many as there are at the most, if all of them were on one bus.
        let bars: usize = topology.functions().iter().map(|function| function.bars.len()).sum();
        let items = with_capacity(bars + Space::ALL.len() * topology.buses().len())?;
        Ok(Self { topology, buses, left_out, items })
    }

    /// Which way a register on `bus` is reached; `None` when there is none, or it is left out.
    fn space(&self, bus: &Bus, state: &BusState, function: u16, bar: Bar) -> Option<Space> {
        if self.left_out.get(usize::from(function))? >> bar.register & 1 != 0 {
            return None;
        }
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

    /// Shows everything on the buses of `group` that needs room in `spaces`.
    fn each(&self, group: Group, spaces: &[Space], visit: &mut dyn FnMut(Item)) {
        let range = match group {
            Group::Roots => 0..self.buses.len(),
            Group::Bus(index) => usize::from(index)..usize::from(index) + 1,
        };
        let buses = self.topology.buses().get(range.clone()).unwrap_or_default();
        let states = self.buses.get(range).unwrap_or_default();
        let mut show = |space, order, size, what| {
            if spaces.contains(&space) {
                visit(Item { order, size, what });
            }
        };
        for (bus, state) in buses.iter().zip(states) {
            if group == Group::Roots && bus.parent.is_some() {
                continue;
            }
            for (function, found) in self.topology.on_bus(bus) {
                for &bar in &found.bars {
                    if let Some(space) = self.space(bus, state, function, bar) {
                        let order = if space == Space::Io { bar.order } else { bar.order.max(PAGE_ORDER) };
                        show(space, order, 1 << order, What::Bar { function, bar });
                    }
                }
                let Some(bus) = found.bridge.and_then(|bridge| bridge.bus) else { continue };
                let Some(below) = self.buses.get(usize::from(bus)) else { continue };
                for (space, need) in Space::ALL.into_iter().zip(below.needs) {
                    if need.size != 0 {
                        // This bus may have no such window, or one that takes other addresses.
                        let here = match space {
                            Space::Prefetchable if state.prefetchable != Some(space) => Space::Low,
                            other => other,
                        };
                        show(here, need.order, need.size, What::Window { bus, space });
                    }
                }
            }
        }
    }

    /// Lays out the items of `group` in `spaces` from `start` on, the largest alignment first, and shows each with its
    /// address. Where the last one ends, and the largest alignment; `None` if an address wraps.
    ///
    /// Aligning leaves a hole; the largest so far is filled, from its end, which has the alignment of something larger.
    /// The layout is the same from any start that has the largest alignment.
    #[inline(never)]
    fn pack(
        &mut self,
        group: Group,
        spaces: &[Space],
        start: u64,
        show: &mut dyn FnMut(Item, u64),
    ) -> Option<(u64, u8)> {
        let mut items = mem::take(&mut self.items);
        items.clear();
        self.each(group, spaces, &mut |item| items.push(item));
        let packed = pack(&items, start, show);
        self.items = items;
        packed
    }

    /// Works out what each bus needs, from the leaves to the root.
    fn size(&mut self) {
        for index in (0..self.buses.len()).rev() {
            self.size_bus(index);
        }
    }

    /// Works out what the bus with this index needs. Gives the index of the bus above.
    fn size_bus(&mut self, index: usize) -> Option<usize> {
        let bus = self.topology.buses().get(index)?;
        // Nothing leads to a root bus.
        let (parent, number) = (bus.parent?, u8::try_from(index).ok()?);
        let bridge = self.topology.functions().get(usize::from(parent.bridge)).and_then(|function| function.bridge);
        let reserve = bridge.map_or_else(Reserve::default, |bridge| bridge.reserve);
        for space in Space::ALL {
            let content = self.pack(Group::Bus(number), space.alone(), 0, &mut |_, _| {});
            let state = self.buses.get_mut(index)?;
            let (need, kept) = match content {
                Some((end, order)) => state.need(space, end, order, &reserve),
                // More than there are addresses: this does not fit anywhere.
                None => (Need { size: u64::MAX, order: space.window_order() }, Kept::default()),
            };
            (state.needs[space as usize], state.kept[space as usize]) = (need, kept);
        }
        Some(usize::from(parent.bus))
    }

    /// Whether what the root buses need in `spaces` fits into `room`.
    fn fits(&mut self, spaces: &[Space], room: Room) -> bool {
        self.pack(Group::Roots, spaces, room.start, &mut |_, _| {}).is_some_and(|(end, _)| end <= room.end)
    }

    /// Gives up what is kept and leaves out registers until what remains in `spaces` fits into `room`.
    fn make_fit(&mut self, spaces: &[Space], room: Room) {
        // Each turn gives up something that is not kept again, or leaves one register out, so this ends.
        while !self.fits(spaces, room) {
            if self.give_up(spaces) {
                continue;
            }
            let Some((function, bar)) = self.largest(spaces) else { return };
            if let Some(left_out) = self.left_out.get_mut(usize::from(function)) {
                *left_out |= 1 << bar.register;
            }
            self.size();
        }
    }

    /// Gives up what one bridge keeps in one of `spaces`: what nobody asked for first, then the most, the last of several.
    /// Whether there was any.
    fn give_up(&mut self, spaces: &[Space]) -> bool {
        let mut chosen: Option<(Kept, usize, Space)> = None;
        for (index, state) in self.buses.iter().enumerate() {
            for &space in spaces {
                let kept = state.kept[space as usize];
                let before = |chosen: Kept| (!chosen.asked, chosen.size) <= (!kept.asked, kept.size);
                if kept.size != 0 && chosen.is_none_or(|(chosen, ..)| before(chosen)) {
                    chosen = Some((kept, index, space));
                }
            }
        }
        let Some((kept, index, space)) = chosen else { return false };
        if let Some(state) = self.buses.get_mut(index) {
            let given_up = if kept.asked { &mut state.no_reserve } else { &mut state.no_slot };
            *given_up |= 1 << space as u8;
        }
        let mut next = Some(index);
        // Each turn goes one bridge towards the root.
        for _ in 0..self.buses.len() {
            let Some(index) = next else { break };
            next = self.size_bus(index);
        }
        true
    }

    /// The register to leave out: from the root on, the one that takes most room or that is behind the bridge that does,
    /// the last of several.
    fn largest(&self, spaces: &[Space]) -> Option<(u16, Bar)> {
        let mut group = Group::Roots;
        let mut spaces = spaces;
        // Each turn but the last goes one bridge away from the root.
        for _ in 0..=self.buses.len() {
            let mut largest: Option<Item> = None;
            self.each(group, spaces, &mut |item| {
                if largest.is_none_or(|largest| largest.size <= item.size) {
                    largest = Some(item);
                }
            });
            match largest?.what {
                What::Bar { function, bar } => return Some((function, bar)),
                What::Window { bus, space } => (group, spaces) = (Group::Bus(bus), space.alone()),
            }
        }
        None
    }

    /// Gives everything its place, from the root to the leaves. All of it fits.
    fn place(&mut self, rooms: &[(&[Space], Room)]) -> Result<Plan, OutOfMemory> {
        let bars = self.topology.functions().iter().map(|function| function.bars.len()).sum();
        let mut plan = Plan {
            placements: with_capacity(bars)?,
            unplaced: Vec::new(),
            windows: with_capacity(self.buses.len())?,
            given_up: self.given_up(),
        };
        plan.windows.resize(self.buses.len(), BridgeWindows::default());
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
        plan.unplaced = with_capacity(bars.saturating_sub(plan.placements.len()))?;
        for (bus, state) in self.topology.buses().iter().zip(&self.buses) {
            for (index, function) in self.topology.on_bus(bus) {
                let lost = function.bars.iter().filter(|&&bar| self.space(bus, state, index, bar).is_none());
                plan.unplaced.extend(lost.map(|&bar| Unplaced { function: index, bar }));
            }
        }
        Ok(plan)
    }

    /// How many bridges keep less than they should.
    fn given_up(&self) -> GivenUp {
        const IO_BIT: u8 = 1 << Space::Io as u8;
        let count = |spaces: u8| {
            let given_up = |state: &&BusState| (state.no_slot | state.no_reserve) & spaces != 0;
            self.buses.iter().filter(given_up).count().try_into().unwrap_or(u16::MAX)
        };
        GivenUp { io: count(IO_BIT), memory: count(!IO_BIT) }
    }
}

impl BusState {
    /// What the bridge to this bus has to pass on in `space`, when what is behind it takes `end` bytes or ports of at most
    /// the alignment `order`; and how much of it is kept for functions plugged in later.
    fn need(&self, space: Space, end: u64, order: u8, reserve: &Reserve) -> (Need, Kept) {
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
        let is_in = |bits: u8| bits >> space as u8 & 1 != 0;
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

/// Lays out `items`; see [`Planner::pack`]. Not inlined: on hosts that translate code each copy would cost anew.
#[inline(never)]
fn pack(items: &[Item], start: u64, show: &mut dyn FnMut(Item, u64)) -> Option<(u64, u8)> {
    let mut orders = items.iter().fold(0u64, |orders, item| orders | 1 << item.order);
    let largest = orders.checked_ilog2().unwrap_or(0) as u8;
    let mut next = start;
    let mut hole = Room { start, end: start };
    while let Some(order) = orders.checked_ilog2() {
        orders ^= 1 << order;
        for &item in items.iter().filter(|item| u32::from(item.order) == order) {
            if let Some(address) = hole.take_last(item) {
                show(item, address);
                continue;
            }
            let address = align_up(next, item.order)?;
            let end = address.checked_add(item.size)?;
            if address - next > hole.end - hole.start {
                hole = Room { start: next, end: address };
            }
            next = end;
            show(item, address);
        }
    }
    Some((next, largest))
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
            What::Bar { function, bar } => self.placements.push(Placement { function, bar, address }),
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

fn align_up(address: u64, order: u8) -> Option<u64> {
    PhysAddr::new(address).align_up(Alignment::new(1u64.checked_shl(order.into())?)?).map(PhysAddr::get)
}

fn with_capacity<T>(len: usize) -> Result<Vec<T>, OutOfMemory> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(len).map_err(|_| OutOfMemory)?;
    Ok(vec)
}
