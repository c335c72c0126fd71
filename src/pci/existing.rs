//! The functions of a machine whose PCI the host has set up, found by reading only.
//!
//! The size of a BAR is not known, because it shows only when the BAR is written. So it is taken to be as large as its address
//! allows, up to 1 MiB: a BAR's address is a multiple of its size.
//!
//! Assumed: bus 0 is the only root bus. Left out: ports, because no driver for such machines needs them.

use arrayvec::ArrayVec;

use super::address::Address;
use super::config::{ConfigAccess, ConfigSpace};
use super::devices::Devices;
use super::plan::{Assignment, Resources};
use super::register;
use super::scan::MAX_FUNCTIONS;
use super::sizing::bar_offset;
use super::topology::{Bar, BarKind, Bridge, Bus, Function, IoWindow, Parent, PrefetchableWindow, Reserve, Topology};
use crate::heap;

/// The most that a BAR is taken to be large: 1 MiB.
const LARGEST_ORDER: u8 = 20;
/// The smallest memory BAR, 16 bytes (PCI Local Bus 3.0, 6.2.5.1).
const LEAST_ORDER: u8 = 4;
/// The bits of a memory BAR that are no address, and what of them says that it takes two registers (same section).
const KIND: u32 = 0xf;
const IS_IO: u32 = 1 << 0;
const WIDTH: u32 = 3 << 1;
const WIDE: u32 = 2 << 1;
const PREFETCHABLE: u32 = 1 << 3;

/// Finds all functions. `access` is how `config` accesses configuration space. BARs are read of functions that `is_wanted` says
/// are, by their IDs and class ([`Function::id`], [`Function::class`]).
///
/// Nothing is written. Functions beyond [`MAX_FUNCTIONS`] are left out.
#[cold]
pub fn existing(config: &mut dyn ConfigSpace, access: ConfigAccess, is_wanted: fn(u32, u32) -> bool) -> Devices {
    let mut search = Search { config, is_wanted, topology: Topology::default(), resources: Resources::default() };
    // Only the heap or the limit ends it early.
    let _ = search.bus(0, None);
    let mut next = 0;
    while let Some(function) = search.topology.functions.get(next) {
        let (address, is_bridge) = (function.address, function.bridge.is_some());
        if is_bridge && search.behind(next, address).is_none() {
            break;
        }
        next = next.saturating_add(1);
    }
    Devices { access, topology: search.topology, resources: search.resources }
}

struct Search<'c> {
    config: &'c mut dyn ConfigSpace,
    is_wanted: fn(u32, u32) -> bool,
    topology: Topology,
    resources: Resources,
}

impl Search<'_> {
    /// Finds the functions behind the bridge with this index. `None` if there is no room for more.
    fn behind(&mut self, index: usize, address: Address) -> Option<()> {
        let [_, number, ..] = self.config.read32(address, register::BUS_NUMBERS).to_le_bytes();
        // Numbers ascend from the root on. So a bus that was found is not behind another bridge, and this ends.
        let is_new = number > address.bus() && self.topology.buses.iter().all(|bus| bus.number != number);
        if !is_new {
            return Some(());
        }
        let bus = self.topology.buses.iter().position(|bus| bus.number == address.bus())?;
        let bus = u8::try_from(bus).ok()?;
        let behind = self.bus(number, Some(Parent { bus, bridge: u16::try_from(index).ok()? }))?;
        let bridge = self.topology.functions.get_mut(index)?.bridge.as_mut()?;
        bridge.bus = Some(behind);
        Some(())
    }

    /// Finds the functions on a bus. Returns its index.
    fn bus(&mut self, number: u8, parent: Option<Parent>) -> Option<u8> {
        let index = u8::try_from(self.topology.buses.len()).ok()?;
        let first = u16::try_from(self.topology.functions.len()).ok()?;
        let mut devices = Address::devices(number, 0..32);
        let mut room = Some(());
        while let Some((address, id)) = self.config.find_next(&mut devices).filter(|_| room.is_some()) {
            let header = (self.config.read32(address, register::HEADER) >> 16) as u8;
            room = self.function(address, id, header);
            let mut others = address.other_functions();
            while header & register::HEADER_MULTIFUNCTION != 0
                && room.is_some()
                && let Some((address, id)) = self.config.find_next(&mut others)
            {
                let header = (self.config.read32(address, register::HEADER) >> 16) as u8;
                room = self.function(address, id, header);
            }
        }
        let end = u16::try_from(self.topology.functions.len()).ok()?;
        heap::push(&mut self.topology.buses, Bus { number, parent, first, end }).ok()?;
        room.map(|()| index)
    }

    /// Stores a function. `None` if there is no room.
    fn function(&mut self, address: Address, id: u32, header: u8) -> Option<()> {
        let class = self.config.read32(address, register::CLASS) >> 8;
        let index = u16::try_from(self.topology.functions.len()).ok()?;
        let is_bridge = header & !register::HEADER_MULTIFUNCTION == register::HEADER_BRIDGE;
        let mut bars = ArrayVec::new();
        if header & !register::HEADER_MULTIFUNCTION == register::HEADER_ORDINARY && (self.is_wanted)(id, class) {
            self.bars(address, index, &mut bars)?;
        }
        let bridge = is_bridge.then_some(Bridge {
            bus: None,
            io: IoWindow::Absent,
            prefetchable: PrefetchableWindow::Absent,
            single_device: false,
            latency: 0,
            reserve: Reserve::default(),
        });
        let function = Function {
            address,
            id,
            class,
            command: 0,
            pin: None,
            line: 0,
            bars,
            sound: true,
            in_chipset: false,
            bridge,
        };
        let has_room = self.topology.functions.len() < MAX_FUNCTIONS;
        has_room.then(|| heap::push(&mut self.topology.functions, function).ok()).flatten()
    }

    /// Reads a function's memory BARs. `None` if there is no room.
    fn bars(&mut self, address: Address, function: u16, bars: &mut ArrayVec<Bar, 7>) -> Option<()> {
        let mut registers = 0..6;
        while let Some(register) = registers.next() {
            let low = self.config.read32(address, bar_offset(register));
            if low & IS_IO != 0 {
                continue;
            }
            let prefetchable = low & PREFETCHABLE != 0;
            let mut place = u64::from(low & !KIND);
            let mut kind = BarKind::Memory32 { prefetchable };
            if low & WIDTH == WIDE
                && let Some(upper) = registers.next()
            {
                place |= u64::from(self.config.read32(address, bar_offset(upper))) << 32;
                kind = BarKind::Memory64 { prefetchable };
            }
            // The host has given no address.
            if place == 0 {
                continue;
            }
            let order = (place.trailing_zeros() as u8).clamp(LEAST_ORDER, LARGEST_ORDER);
            let bar = Bar { register, kind, order };
            bars.try_push(bar).ok()?;
            heap::push(&mut self.resources.assigned, Assignment { function, bar, address: place }).ok()?;
        }
        Some(())
    }
}
