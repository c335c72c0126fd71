//! Finding buses and functions, numbering buses, and asking each base address register for its size.
//!
//! This reads as little as it can, because each access is an exit to the host, and it writes nothing that makes a host
//! rebuild its memory map unless it has to: bus numbers, base address registers of functions that do not decode, and
//! the I/O window of a bridge with an I/O register behind it.
//!
//! Base address registers hold nonsense afterwards; [`super::apply()`] gives each its final value.

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

/// Functions that are kept, at most; more would not leave the heap room for anything else. The largest machine that can
/// be built without bridges behind bridges has 240 root ports with a function each behind them.
pub const MAX_FUNCTIONS: usize = 512;

/// Buses on the way from a root bus to a function, at most, both ends included.
pub const MAX_DEPTH: usize = 32;

/// Class of all bridges (PCI Code and ID Assignment 1.11, section 1.7).
const BASE_CLASS_BRIDGE: u32 = 0x06;
/// Class and sub-class of a host bridge (PCI Code and ID Assignment 1.11, section 1.7).
const CLASS_HOST_BRIDGE: u32 = 0x0600;
/// Class and sub-class of an ISA bridge (same section).
const CLASS_ISA_BRIDGE: u32 = 0x0601;

/// One of the chipset's own functions, and what QEMU's is like after a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChipsetFunction {
    /// Where it is. It is not function 0 of its device.
    pub address: Address,
    /// Vendor ID in the low half, device ID in the high half.
    pub id: u32,
    /// Class, sub-class and programming interface in bits 23:16, 15:8 and 7:0.
    pub class: u32,
    /// The interrupt pin it uses, if any.
    pub pin: Option<Pin>,
    /// Its base address registers, at most six.
    pub bars: &'static [Bar],
}

impl ChipsetFunction {
    /// The function as a scan finds it after a reset.
    fn function(&self) -> Function {
        let Self { address, id, class, pin, bars: known } = *self;
        let mut bars = ArrayVec::new();
        // A function has six registers at most, and there is room for seven.
        let _ = bars.try_extend_from_slice(known);
        Function { address, id, class, command: 0, line: 0, pin, bars, sound: true, in_chipset: true, bridge: None }
    }
}

/// What is known of the chipset's own functions beforehand.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChipsetFunctions<'b> {
    /// The host bridge, device 0 of its bus, with one function. It needs nothing and is not looked at.
    pub host_bridge: Option<Address>,
    /// The ISA bridge, function 0 of a device with several. It needs nothing and is not looked at.
    pub isa_bridge: Option<Address>,
    /// Other functions, without an expansion ROM, which only decode once their driver says so.
    pub functions: &'b [ChipsetFunction],
    /// Whether the functions are QEMU's. If so, one with the expected ID is as it is described, and only its ID is read: a
    /// reset of QEMU's turns decoding off and clears the interrupt line (`hw/pci/pci.c`, `pci_do_device_reset`).
    pub is_qemu: bool,
}

/// Finds what is on bus 0 and on as many more root buses as the host says it has, and behind the bridges there.
///
/// Every function found has decoding off afterwards, unless it is a host or ISA bridge. What cannot be kept or numbered
/// is left out and warned about.
pub fn scan(config: &mut dyn ConfigSpace, extra_roots: u64, board: ChipsetFunctions<'_>) -> Topology {
    let odd = sizing::Odd::default();
    let mut scan = Scan { config, topology: Topology::default(), board, full: false, unnumbered: 0, odd };
    scan.bus(0, None, false);
    if extra_roots > 0 {
        scan.find_extra_roots(extra_roots);
    }
    if scan.topology.has_bridges() {
        scan.hierarchies();
    }
    scan.odd.warn_of_the_rest();
    if scan.unnumbered > 0 {
        log::warn!("PCI: nothing behind {} bridges is set up: too many or too deep", scan.unnumbered);
    }
    if scan.full {
        log::warn!("PCI: more than {} functions, or no memory for them; the rest is left alone", MAX_FUNCTIONS);
    }
    scan.topology
}

struct Scan<'c, 'b> {
    config: &'c mut dyn ConfigSpace,
    topology: Topology,
    board: ChipsetFunctions<'b>,
    /// Nothing more can be kept.
    full: bool,
    /// Bridges without a bus number.
    unnumbered: u16,
    /// Registers that ask for no size.
    odd: sizing::Odd,
}

/// A bus whose bridges are being gone through.
struct Level {
    /// Index of the bus.
    bus: u8,
    /// Index of the next function to look at.
    next: u16,
    /// Whether the bridge to this bus passes on more than this bus by now.
    opened: bool,
    /// Whether something on this bus or behind it asks for ports, or ports are to be kept for it.
    io: bool,
    /// Whether something on this bus or behind it can use a prefetchable window.
    prefetchable: bool,
    /// What the bridge to this bus has to keep.
    reserve: Reserve,
}

impl Scan<'_, '_> {
    /// Finds root buses other than bus 0, until there are `count` of them.
    ///
    /// Where they are is the user's choice, and the host tells only how many there are. So each number is tried: first with
    /// device 0, which is what QEMU's `pxb` has and where a device on a `pxb-pcie` goes when nobody says where, and only if
    /// that does not find them all, with the other devices. Nothing behind a bridge has a number yet and could answer.
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
            log::warn!(
                "PCI: {missing} of the host's {count} extra root buses were not found; is anything plugged into them?"
            );
        }
    }

    /// All behind the root buses.
    #[inline(never)]
    fn hierarchies(&mut self) {
        // While nothing behind a bridge had a number, each bus was a root bus.
        let roots = self.topology.buses.len();
        for root in 0..roots {
            self.hierarchy(root);
        }
    }

    /// All behind one root bus, which has this index, numbered up to the next root bus, depth first so that the buses behind
    /// a bridge follow each other.
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
            // There is room: it was looked for.
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

    /// Finishes a bus when all behind it is known: its bridge passes on the buses up to `last` and those that are kept, and
    /// has its windows looked at if they are needed. Gives the last bus number then, and whether the bus above has to pass
    /// on ports and prefetchable memory for it.
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

    /// Sets the last bus number that the bridge to the bus with index `bus` passes on. A root bus has no bridge.
    fn set_subordinate(&mut self, bus: u8, last: u8) {
        let Some(&Bus { number, parent: Some(parent), .. }) = self.topology.buses.get(usize::from(bus)) else { return };
        let Some(function) = self.topology.functions.get(usize::from(parent.bridge)) else { return };
        let (address, latency) = (function.address, function.bridge.map_or(0, |bridge| bridge.latency));
        self.number(address, latency, number, last);
    }

    /// Writes a bridge's bus numbers.
    fn number(&mut self, bridge: Address, latency: u8, secondary: u8, subordinate: u8) {
        // A bridge without a bus behind it is told nothing at all, as after a reset.
        let primary = if secondary == 0 { 0 } else { bridge.bus() };
        let value = u32::from_le_bytes([primary, secondary, subordinate, latency]);
        self.config.write32(bridge, register::BUS_NUMBERS, value);
    }

    /// Looks at each device on a bus. Gives the index of the bus; `None` when it cannot be kept.
    fn bus(&mut self, number: u8, parent: Option<Parent>, single_device: bool) -> Option<u8> {
        let index = u8::try_from(self.topology.buses.len()).ok()?;
        let first = u16::try_from(self.topology.functions.len()).ok()?;
        if self.topology.buses.try_reserve(1).is_err() {
            self.full = true;
            return None;
        }
        let is_here = |address: &Address| address.bus() == number;
        let start = if self.board.host_bridge.is_some_and(|bridge| is_here(&bridge)) { 1 } else { 0 };
        let count = if single_device { 1 } else { 32 };
        match self.board.isa_bridge.filter(is_here) {
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

    /// Looks at each of these devices.
    fn devices(&mut self, mut devices: Addresses) {
        while !self.full
            && let Some((address, id)) = self.config.find_next(&mut devices)
        {
            // Only function 0 says whether there are more, and then any of them may be there.
            if self.function(address, id) {
                self.other_functions(address);
            }
        }
    }

    /// Looks at the functions of a device beside function 0.
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

    /// Looks at a function that is there, with this vendor and device ID, and keeps it. Whether its device says that it has
    /// more.
    fn function(&mut self, address: Address, id: u32) -> bool {
        if !self.has_room() {
            return false;
        }
        let own = self.board.functions.iter().find(|own| own.address == address);
        if let Some(own) = own.filter(|own| self.board.is_qemu && own.id == id) {
            self.keep(own.function());
            return false;
        }
        let class = self.config.read32(address, register::CLASS) >> 8;
        // Function 0 says whether there are more. Of the others only a bridge has another header than the ordinary one,
        // and its class tells.
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

    /// Takes room for one more function. If there is none, nothing more is kept.
    fn has_room(&mut self) -> bool {
        let functions = &mut self.topology.functions;
        self.full |= functions.len() >= MAX_FUNCTIONS || functions.try_reserve(1).is_err();
        !self.full
    }

    /// Keeps a function for which room was taken.
    fn keep(&mut self, function: Function) {
        let _ = heap::push_within_capacity(&mut self.topology.functions, function);
    }

    /// What makes a bridge a bridge. Left-over bus numbers are cleared, so that none stands in the way of another bus.
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

/// A bridge's I/O window, which may be missing: then its registers are read-only zero. Decoding is off, so it may be
/// opened to see.
fn io_window(config: &mut dyn ConfigSpace, address: Address) -> IoWindow {
    config.write32(address, register::IO_WINDOW, 0xf0f0);
    match config.read32(address, register::IO_WINDOW) & 0xffff {
        0xf0f0 => IoWindow::Bits16,
        0xf1f1 => IoWindow::Bits32,
        _ => IoWindow::Absent,
    }
}

/// A bridge's prefetchable window, of which 32-bit ones may be missing: then the register is read-only zero. Decoding is
/// off, so it may be opened to see.
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
