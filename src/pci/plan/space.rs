//! The spaces through which functions are reached, the room in them, and the layout of items.

use super::super::apertures::PortRange;
use super::super::topology::{Bar, BarKind, size_of_order};
use crate::addr::{Alignment, PhysAddr, PhysRange};

/// Bridges forward ports in blocks of 4 KiB (PCI-to-PCI Bridge 1.2, section 3.2.5.6).
pub(super) const IO_WINDOW_ORDER: u8 = 12;
/// Bridges forward memory in blocks of 1 MiB (same specification, section 3.2.5.8). Windows are multiples of two blocks, as in
/// SeaBIOS: a large page maps them, and there is some room for more.
pub(super) const MEMORY_WINDOW_ORDER: u8 = 21;
/// Functions do not share a 4 KiB page, so that a host or a kernel can map each separately.
pub(super) const PAGE_ORDER: u8 = 12;

/// One of the four kinds of addresses, by the bridge windows that forward them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// Ports, in I/O windows.
    Io = 0,
    /// Memory that has to be below 4 GiB, in memory windows.
    Low = 1,
    /// Memory that has to be below 4 GiB, in prefetchable windows. A root bus has none.
    Prefetchable = 2,
    /// Memory that may be above 4 GiB, in prefetchable windows.
    Wide = 3,
}

impl Space {
    pub(super) const ALL: [Self; 4] = [Self::Io, Self::Low, Self::Prefetchable, Self::Wide];

    pub(super) const fn alone(self) -> &'static [Self] {
        match self {
            Self::Io => IO,
            Self::Low => &[Self::Low],
            Self::Prefetchable => &[Self::Prefetchable],
            Self::Wide => WIDE,
        }
    }

    /// Its bit in a set of spaces.
    pub(super) const fn bit(self) -> u8 {
        match self {
            Self::Io => 1 << 0,
            Self::Low => 1 << 1,
            Self::Prefetchable => 1 << 2,
            Self::Wide => 1 << 3,
        }
    }

    pub(super) const fn window_order(self) -> u8 {
        match self {
            Self::Io => IO_WINDOW_ORDER,
            Self::Low | Self::Prefetchable | Self::Wide => MEMORY_WINDOW_ORDER,
        }
    }
}

/// The spaces that use ports.
pub(super) const IO: &[Space] = &[Space::Io];
/// The spaces in the aperture below 4 GiB if it holds all memory.
pub(super) const MEMORY: &[Space] = &[Space::Low, Space::Prefetchable, Space::Wide];
/// The spaces in the aperture below 4 GiB if it does not hold all memory.
pub(super) const LOW: &[Space] = &[Space::Low, Space::Prefetchable];
/// The spaces in the aperture above 4 GiB in that case.
pub(super) const WIDE: &[Space] = &[Space::Wide];

/// Room for items: addresses or ports, `start` to `end` exclusive.
#[derive(Clone, Copy)]
pub(super) struct Room {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl From<PortRange> for Room {
    fn from(ports: PortRange) -> Self {
        Self { start: ports.start().into(), end: ports.end().into() }
    }
}

impl From<PhysRange> for Room {
    fn from(memory: PhysRange) -> Self {
        Self { start: memory.start().get(), end: memory.end().get() }
    }
}

impl Room {
    pub(super) const fn size(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Takes room for `item` from the end; returns `None`, without a change, if it does not fit.
    pub(super) fn take_last(&mut self, item: Item) -> Option<u64> {
        let alignment = Alignment::new(1u64.checked_shl(item.order.into())?)?;
        let address = PhysAddr::new(self.end).checked_sub(item.size)?.align_down(alignment).get();
        if address < self.start {
            return None;
        }
        self.end = address;
        Some(address)
    }
}

/// An item that takes room on a bus: a BAR or a window.
#[derive(Clone, Copy)]
pub(super) struct Item {
    /// Its alignment is two to this power.
    pub(super) order: u8,
    pub(super) size: u64,
    pub(super) what: What,
}

impl Item {
    /// A BAR of the function with this index.
    pub(super) fn of_bar(function: u16, bar: Bar) -> Self {
        let order = if bar.kind == BarKind::Io { bar.order } else { bar.order.max(PAGE_ORDER) };
        Self { order, size: size_of_order(order), what: What::Bar { function, bar } }
    }
}

#[derive(Clone, Copy)]
pub(super) enum What {
    Bar {
        function: u16,
        bar: Bar,
    },
    /// The window of the bridge to the bus with this index, for this space.
    Window {
        bus: u8,
        space: Space,
    },
}

/// Lays out `items`; see [`Planner::pack`](super::planner::Planner::pack). Not inlined, because hosts that translate code would
/// translate each copy.
#[inline(never)]
pub(super) fn pack(items: &[Item], start: u64, show: &mut dyn FnMut(Item, u64)) -> Option<(u64, u8)> {
    let mut orders = items.iter().fold(0u64, |orders, item| orders | size_of_order(item.order));
    let largest = orders.checked_ilog2().unwrap_or(0) as u8;
    let mut next = start;
    let mut hole = Room { start, end: start };
    while let Some(order) = orders.checked_ilog2() {
        orders ^= size_of_order(order as u8);
        for &item in items.iter().filter(|item| u32::from(item.order) == order) {
            if let Some(address) = hole.take_last(item) {
                show(item, address);
                continue;
            }
            let address = align_up(next, item.order)?;
            let end = address.checked_add(item.size)?;
            let aligned_over = Room { start: next, end: address };
            if aligned_over.size() > hole.size() {
                hole = aligned_over;
            }
            next = end;
            show(item, address);
        }
    }
    Some((next, largest))
}

pub(super) fn align_up(address: u64, order: u8) -> Option<u64> {
    PhysAddr::new(address).align_up(Alignment::new(1u64.checked_shl(order.into())?)?).map(PhysAddr::get)
}
