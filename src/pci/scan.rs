//! Finds buses and functions, numbers the buses, and sizes each BAR.
//!
//! It reads as little as possible, because each access is an exit to the host. It avoids writes that make a host rebuild its
//! memory map. It writes only bus numbers, BARs of functions that do not decode, and the I/O window of a bridge with an I/O BAR behind
//! it.
//!
//! Afterwards the BARs have no meaningful values; [`super::apply()`] writes the final ones.

use arrayvec::ArrayVec;

use super::address::{Address, Addresses};
use super::capabilities::Capabilities;
use super::config::ConfigSpace;
use super::register::{self, COMMAND_IO, COMMAND_MEMORY};
use super::sizing;
use super::topology::{
    Bar, BarKind, Bridge, Bus, Function, IoWindow, Parent, Pin, PrefetchableWindow, Reserve, Topology,
};
use crate::heap;

/// The most functions; more would use up the heap. The largest machine without nested bridges has 240 root ports with a function
/// behind each.
pub const MAX_FUNCTIONS: usize = 512;

/// The most buses on the path from a root bus to a function, including both.
pub const MAX_DEPTH: usize = 32;

/// Class of all bridges (PCI Code and ID Assignment 1.11, section 1.7).
const BASE_CLASS_BRIDGE: u32 = 0x06;
/// Class and sub-class of a host bridge (PCI Code and ID Assignment 1.11, section 1.7).
const CLASS_HOST_BRIDGE: u32 = 0x0600;
/// Class and sub-class of an ISA bridge (same section).
const CLASS_ISA_BRIDGE: u32 = 0x0601;

/// A chipset function, with the state that QEMU's has after a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChipsetFunction {
    /// Its address. It is not function 0 of its device.
    pub address: Address,
    /// Vendor ID in the low half, device ID in the high half.
    pub id: u32,
    /// Class, sub-class and programming interface in bits 23:16, 15:8 and 7:0.
    pub class: u32,
    /// The interrupt pin it uses, if any.
    pub pin: Option<Pin>,
    /// Its BARs, at most six.
    pub bars: &'static [Bar],
}

impl ChipsetFunction {
    /// The function as a scan finds it after a reset.
    fn function(&self) -> Function {
        let Self { address, id, class, pin, bars: known } = *self;
        let mut bars = ArrayVec::new();
        // A function has at most six BARs, and there is room for seven.
        let _ = bars.try_extend_from_slice(known);
        Function { address, id, class, command: 0, line: 0, pin, bars, sound: true, in_chipset: true, bridge: None }
    }
}

/// The chipset functions that are known beforehand.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChipsetFunctions<'b> {
    /// The host bridge, device 0 of its bus, with one function. It needs nothing and is not read.
    pub host_bridge: Option<Address>,
    /// The ISA bridge, function 0 of a device with several. It needs nothing and is not read.
    pub isa_bridge: Option<Address>,
    /// Other functions, without an expansion ROM. Their drivers enable them.
    pub functions: &'b [ChipsetFunction],
    /// Whether the functions are QEMU's. Then a function with the expected ID is as described, and only its ID is read: a reset
    /// in QEMU disables decoding and clears the interrupt line (`hw/pci/pci.c`, `pci_do_device_reset`).
    pub is_qemu: bool,
}

/// Finds the functions on bus 0, on as many other root buses as the host says it has, and behind their bridges.
///
/// Afterwards no function decodes, except host and ISA bridges. A function or bus beyond the limits is left out and warned about.
pub fn scan(config: &mut dyn ConfigSpace, extra_roots: u64, chipset: ChipsetFunctions<'_>) -> Topology {
    let odd = sizing::Odd::default();
    let mut scan = Scan { config, topology: Topology::default(), chipset, full: false, unnumbered: 0, odd };
    scan.bus(0, None, false);
    if extra_roots > 0 {
        scan.find_extra_roots(extra_roots);
    }
    if scan.topology.has_bridges() {
        scan.hierarchies();
    }
    scan.odd.warn_of_the_rest();
    if scan.unnumbered > 0 {
        crate::warn!("PCI: nothing behind {} bridges is set up: too many or too deep", scan.unnumbered);
    }
    if scan.full {
        crate::warn!("PCI: more than {} functions, or no memory for them; the rest is left alone", MAX_FUNCTIONS);
    }
    scan.topology
}

struct Scan<'c, 'b> {
    config: &'c mut dyn ConfigSpace,
    topology: Topology,
    chipset: ChipsetFunctions<'b>,
    /// No more functions can be stored.
    full: bool,
    /// Bridges without a bus number.
    unnumbered: u16,
    /// BARs that ask for no valid size.
    odd: sizing::Odd,
}

/// A bus whose bridges are being visited.
struct Level {
    /// Index of the bus.
    bus: u8,
    /// Index of the next function to visit.
    next: u16,
    /// Whether the bridge to this bus already forwards more than this bus.
    opened: bool,
    /// Whether something on or behind this bus needs ports, or reserves them.
    io: bool,
    /// Whether something on or behind this bus can use a prefetchable window.
    prefetchable: bool,
    /// What the bridge to this bus has to reserve.
    reserve: Reserve,
}

impl Scan<'_, '_> {
    /// Finds root buses other than bus 0, until there are `count` of them.
    ///
    /// The user chooses their numbers, and the host reports only how many there are. So each number is tried: first device 0,
    /// which QEMU's `pxb` has, and where a device on a `pxb-pcie` is by default. Only if that does not find all, the other
    /// devices are tried. No bus behind a bridge has a number yet, so none answers.
    fn find_extra_roots(&mut self, count: u64) {
        let mut missing = count;
        for devices in [0..1, 1..32] {
            for number in 1..=u8::MAX {
                if missing == 0 || self.full {
                    return;
                }
                let is_known = self.topology.buses.iter().any(|bus| bus.number == number);
                if !is_known
                    && self.config.find_next(&mut Address::devices(number, devices.clone())).is_some()
                    && self.bus(number, None, false).is_some()
                {
                    missing = missing.saturating_sub(1);
                }
            }
        }
        if missing > 0 {
            crate::warn!(
                "PCI: {missing} of the host's {count} extra root buses were not found; is anything plugged into them?"
            );
        }
    }

    /// Scans everything behind the root buses.
    #[inline(never)]
    fn hierarchies(&mut self) {
        // So far no bus behind a bridge has a number, so all are root buses.
        let roots = self.topology.buses.len();
        for root in 0..roots {
            self.hierarchy(root);
        }
    }

    /// Scans everything behind the root bus with this index. Numbers go up to the next root bus, depth first, so that the buses
    /// behind a bridge are consecutive.
    fn hierarchy(&mut self, root: usize) {
        let Some(&Bus { number, .. }) = self.topology.buses.get(root) else { return };
        let mut last = number;
        let roots = self.topology.buses.iter().filter(|bus| bus.parent.is_none());
        let next = roots.map(|bus| bus.number).filter(|&other| other > number).min();
        let limit = next.map_or(u8::MAX, |next| next.saturating_sub(1));
        let mut path = ArrayVec::<Level, MAX_DEPTH>::new();
        if let Some(level) = u8::try_from(root).ok().and_then(|root| self.level(root)) {
            let _ = path.try_push(level);
        }
        while let Some(level) = path.last_mut() {
            let Some((index, address, bridge)) = self.next_bridge(level) else {
                let (io, prefetchable);
                (last, io, prefetchable) = self.leave(level, last, limit);
                path.pop();
                if let Some(above) = path.last_mut() {
                    above.io |= io;
                    above.prefetchable |= prefetchable;
                }
                continue;
            };
            if self.full || last >= limit || path.remaining_capacity() == 0 {
                self.unnumbered = self.unnumbered.saturating_add(1);
                continue;
            }
            let Some(level) = path.last_mut() else { break };
            let parent = Parent { bus: level.bus, bridge: index };
            if !level.opened {
                level.opened = true;
                self.set_subordinate(level.bus, limit);
            }
            last = last.saturating_add(1);
            self.number(address, bridge.latency, last, last);
            let bus = self.bus(last, Some(parent), bridge.single_device);
            let Some(level) = bus.and_then(|bus| self.level(bus)) else {
                self.number(address, bridge.latency, 0, 0);
                continue;
            };
            if let Some(Function { bridge: Some(bridge), .. }) = self.topology.functions.get_mut(usize::from(index)) {
                bridge.bus = Some(level.bus);
            }
            // The room was checked.
            let _ = path.try_push(level);
        }
    }

    /// The next bridge on the level's bus.
    fn next_bridge(&mut self, level: &mut Level) -> Option<(u16, Address, Bridge)> {
        let end = self.topology.buses.get(usize::from(level.bus))?.end;
        while level.next < end {
            let index = level.next;
            level.next = level.next.saturating_add(1);
            let function = self.topology.functions.get(usize::from(index))?;
            if let Some(bridge) = function.bridge {
                return Some((index, function.address, bridge));
            }
        }
        None
    }

    /// Finishes a bus after everything behind it was scanned. Its bridge then forwards the buses up to `last` and the reserved
    /// ones, and its windows are probed if they are needed. Returns the last bus number, and whether the parent bus has to
    /// forward ports and prefetchable memory for it.
    fn leave(&mut self, level: &Level, last: u8, limit: u8) -> (u8, bool, bool) {
        let Some(&Bus { number, parent, .. }) = self.topology.buses.get(usize::from(level.bus)) else {
            return (last, false, false);
        };
        let kept = number.saturating_add(level.reserve.buses).min(limit).max(last);
        if level.opened || kept > last {
            self.set_subordinate(level.bus, kept);
        }
        let function = parent.and_then(|parent| self.topology.functions.get_mut(usize::from(parent.bridge)));
        let Some(Function { address, bridge: Some(bridge), .. }) = function else { return (kept, false, false) };
        if level.io {
            bridge.io = io_window(self.config, *address);
        }
        if level.prefetchable {
            bridge.prefetchable = prefetchable_window(self.config, *address);
        }
        (kept, bridge.io != IoWindow::Absent, bridge.prefetchable != PrefetchableWindow::Absent)
    }

    /// Sets the last bus number that the bridge to the bus with index `bus` forwards. A root bus has no bridge.
    fn set_subordinate(&mut self, bus: u8, last: u8) {
        let Some(&Bus { number, parent: Some(parent), .. }) = self.topology.buses.get(usize::from(bus)) else { return };
        let Some(function) = self.topology.functions.get(usize::from(parent.bridge)) else { return };
        let (address, latency) = (function.address, function.bridge.map_or(0, |bridge| bridge.latency));
        self.number(address, latency, number, last);
    }

    /// Writes a bridge's bus numbers.
    fn number(&mut self, bridge: Address, latency: u8, secondary: u8, subordinate: u8) {
        // A bridge without a bus behind it gets zeros, as after a reset.
        let primary = if secondary == 0 { 0 } else { bridge.bus() };
        let value = u32::from_le_bytes([primary, secondary, subordinate, latency]);
        self.config.write32(bridge, register::BUS_NUMBERS, value);
    }

    /// Scans each device on a bus. Returns the index of the bus; `None` if it cannot be stored.
    fn bus(&mut self, number: u8, parent: Option<Parent>, single_device: bool) -> Option<u8> {
        let index = u8::try_from(self.topology.buses.len()).ok()?;
        let first = u16::try_from(self.topology.functions.len()).ok()?;
        if self.topology.buses.try_reserve(1).is_err() {
            self.full = true;
            return None;
        }
        let is_here = |address: &Address| address.bus() == number;
        let start = if self.chipset.host_bridge.is_some_and(|bridge| is_here(&bridge)) { 1 } else { 0 };
        let count = if single_device { 1 } else { 32 };
        match self.chipset.isa_bridge.filter(is_here) {
            Some(bridge) => {
                self.devices(Address::devices(number, start..bridge.device()));
                self.other_functions(bridge);
                self.devices(Address::devices(number, bridge.device().saturating_add(1)..count));
            }
            None => self.devices(Address::devices(number, start..count)),
        }
        let end = u16::try_from(self.topology.functions.len()).ok()?;
        heap::push(&mut self.topology.buses, Bus { number, parent, first, end }).ok()?;
        Some(index)
    }

    /// Scans each of these devices.
    fn devices(&mut self, mut devices: Addresses) {
        while !self.full
            && let Some((address, id)) = self.config.find_next(&mut devices)
        {
            // Only function 0 says whether there are more. If so, any of them may exist.
            if self.function(address, id) {
                self.other_functions(address);
            }
        }
    }

    /// Scans functions 1 to 7 of a device.
    #[inline(always)]
    fn other_functions(&mut self, device: Address) {
        let mut others = device.other_functions();
        while !self.full
            && let Some((address, id)) = self.config.find_next(&mut others)
        {
            self.function(address, id);
        }
    }

    /// The start of a walk through the bridges on the bus with this index, whose functions are known.
    fn level(&self, index: u8) -> Option<Level> {
        let bus = self.topology.buses.get(usize::from(index))?;
        let asks = |wanted: fn(BarKind) -> bool| {
            self.topology.on_bus(bus).any(|(_, function)| function.bars.iter().any(|bar| wanted(bar.kind)))
        };
        let io = asks(|kind| kind == BarKind::Io);
        let prefetchable = asks(|kind| {
            matches!(kind, BarKind::Memory32 { prefetchable: true } | BarKind::Memory64 { prefetchable: true })
        });
        let bridge = bus.parent.and_then(|parent| self.topology.functions.get(usize::from(parent.bridge))?.bridge);
        let reserve = bridge.map_or_else(Reserve::default, |bridge| bridge.reserve);
        Some(Level {
            bus: index,
            next: bus.first,
            opened: false,
            io: io || reserve.wants_io(),
            prefetchable: prefetchable || reserve.wants_prefetchable(),
            reserve,
        })
    }

    /// Scans a present function, with this vendor and device ID, and stores it. Returns whether it says that its device has more
    /// functions.
    fn function(&mut self, address: Address, id: u32) -> bool {
        if !self.has_room() {
            return false;
        }
        let own = self.chipset.functions.iter().find(|own| own.address == address);
        if let Some(own) = own.filter(|own| self.chipset.is_qemu && own.id == id) {
            self.keep(own.function());
            return false;
        }
        let class = self.config.read32(address, register::CLASS) >> 8;
        // Function 0 says whether there are more. Of the other functions, only bridges have a header other than the ordinary one,
        // and the class identifies them.
        let header = if address.function() == 0 || class >> 16 == BASE_CLASS_BRIDGE {
            (self.config.read32(address, register::HEADER) >> 16) as u8
        } else {
            register::HEADER_ORDINARY
        };
        let multifunction = header & register::HEADER_MULTIFUNCTION != 0;
        let registers = match header & !register::HEADER_MULTIFUNCTION {
            register::HEADER_ORDINARY => 6,
            register::HEADER_BRIDGE => 2,
            _ => return multifunction,
        };
        let mut function = Function {
            address,
            id,
            class,
            command: 0,
            line: 0,
            pin: None,
            bars: ArrayVec::new(),
            sound: true,
            in_chipset: own.is_some(),
            bridge: None,
        };
        if !matches!(class >> 8, CLASS_HOST_BRIDGE | CLASS_ISA_BRIDGE) {
            let command = self.config.read32(address, register::COMMAND);
            function.command = command as u16;
            let interrupt = self.config.read32(address, register::INTERRUPT);
            function.line = interrupt as u8;
            function.pin = Pin::from_register((interrupt >> 8) as u8);
            let decoding = COMMAND_IO | COMMAND_MEMORY;
            if function.command & decoding != 0 {
                self.config.write32(address, register::COMMAND, (function.command & !decoding).into());
            }
            if registers == 2 {
                let listed = (command >> 16) as u16 & register::STATUS_CAPABILITIES != 0;
                function.bridge = Some(self.bridge(address, id, listed));
            }
            sizing::size_bars(self.config, &mut function, registers, &mut self.odd);
            if !function.in_chipset && function.bridge.is_none() {
                sizing::size_rom(self.config, &mut function, &mut self.odd);
            }
        }
        self.keep(function);
        multifunction
    }

    /// Reserves room for one more function. Without room, no more functions are stored.
    fn has_room(&mut self) -> bool {
        let functions = &mut self.topology.functions;
        self.full |= functions.len() >= MAX_FUNCTIONS || functions.try_reserve(1).is_err();
        !self.full
    }

    /// Stores a function for which room was reserved.
    fn keep(&mut self, function: Function) {
        let _ = heap::push_within_capacity(&mut self.topology.functions, function);
    }

    /// Reads a bridge's own data. Clears old bus numbers, so that they do not conflict with another bus.
    fn bridge(&mut self, address: Address, id: u32, has_capabilities: bool) -> Bridge {
        let [numbers @ .., latency] = self.config.read32(address, register::BUS_NUMBERS).to_le_bytes();
        if numbers != [0; 3] {
            self.number(address, latency, 0, 0);
        }
        let Capabilities { single_device, reserve } =
            if has_capabilities { Capabilities::of_bridge(self.config, address, id) } else { Capabilities::default() };
        let (io, prefetchable) = (IoWindow::Absent, PrefetchableWindow::Absent);
        Bridge { bus: None, io, prefetchable, single_device, latency, reserve }
    }
}

/// Probes a bridge's I/O window. If it is missing, its registers are read-only zero. Decoding is disabled, so the window may be
/// opened to find out.
fn io_window(config: &mut dyn ConfigSpace, address: Address) -> IoWindow {
    config.write32(address, register::IO_WINDOW, 0xf0f0);
    match config.read32(address, register::IO_WINDOW) & 0xffff {
        0xf0f0 => IoWindow::Bits16,
        0xf1f1 => IoWindow::Bits32,
        _ => IoWindow::Absent,
    }
}

/// Probes a bridge's prefetchable window. A 32-bit one may be missing: then the register is read-only zero. Decoding is disabled,
/// so the window may be opened to find out.
fn prefetchable_window(config: &mut dyn ConfigSpace, address: Address) -> PrefetchableWindow {
    // The base's low nibble is 1 if the window takes 64-bit addresses (PCI-to-PCI Bridge 1.2, 3.2.5.9).
    match config.read32(address, register::PREFETCHABLE_WINDOW) {
        value if value & 0xf == 1 => return PrefetchableWindow::Bits64,
        0 => {}
        _ => return PrefetchableWindow::Bits32,
    }
    config.write32(address, register::PREFETCHABLE_WINDOW, register::CLOSED_MEMORY);
    match config.read32(address, register::PREFETCHABLE_WINDOW) {
        0 => PrefetchableWindow::Absent,
        _ => PrefetchableWindow::Bits32,
    }
}
