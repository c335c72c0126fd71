//! The ways in which addresses get to a function, the room there is, and laying things out in it.

use super::super::apertures::PortRange;
use super::super::topology::{Bar, BarKind, size_of_order};
use crate::addr::{Alignment, PhysAddr, PhysRange};

/// Bridges pass on ports in blocks of 4 KiB (PCI-to-PCI Bridge 1.2, section 3.2.5.6).
pub(super) const IO_WINDOW_ORDER: u8 = 12;
/// Bridges pass on memory in blocks of 1 MiB (same specification, section 3.2.5.8). Two at a time are given, as SeaBIOS
/// does: a large page maps them, and there is some room for more.
pub(super) const MEMORY_WINDOW_ORDER: u8 = 21;
/// Two functions do not share a 4 KiB page, so that a host or a kernel can map each on its own.
pub(super) const PAGE_ORDER: u8 = 12;

/// One of the four ways in which addresses get to a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
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

/// What goes to the window for ports.
pub(super) const IO: &[Space] = &[Space::Io];
/// What goes to the window below 4 GiB if that holds all memory.
pub(super) const MEMORY: &[Space] = &[Space::Low, Space::Prefetchable, Space::Wide];
/// What goes to the window below 4 GiB if that does not.
pub(super) const LOW: &[Space] = &[Space::Low, Space::Prefetchable];
/// What goes to the window above 4 GiB then.
pub(super) const WIDE: &[Space] = &[Space::Wide];

/// Where items go: addresses or ports, `start` to `end` exclusive.
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

    /// Cuts off what `item` takes at the end; `None`, and no change, when it does not fit.
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

/// Something that takes room on a bus.
#[derive(Clone, Copy)]
pub(super) struct Item {
    /// Its alignment is two to this power.
    pub(super) order: u8,
    pub(super) size: u64,
    pub(super) what: What,
}

impl Item {
    /// What a base address register of the function with this index takes.
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
    /// The window of the bridge to the bus with this index, for what is in `space` there.
    Window {
        bus: u8,
        space: Space,
    },
}

/// Lays out `items`; see [`Planner::pack`](super::planner::Planner::pack). Not inlined: on hosts that translate code each
/// copy would cost anew.
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
