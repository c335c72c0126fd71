//! A PCI hierarchy for tests: configuration space whose registers keep only the bits that exist, bridges that forward
//! the bus numbers that they are assigned, and faults on purpose. It counts accesses and records misuse that real
//! functions would not tolerate.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use super::machine::{FakeMemory, FakeRegisters};
use crate::pci::register::{self, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, COMMAND_SERR};
use crate::pci::topology::BarKind;
use crate::pci::{Address, ConfigSpace};

const DECODING: u32 = (COMMAND_IO | COMMAND_MEMORY) as u32;

/// A function: its registers, and which of their bits are writable.
#[derive(Clone)]
pub(crate) struct FakeFunction {
    registers: [u32; 64],
    writable: [u32; 64],
}

impl FakeFunction {
    /// An ordinary function; `class` is class, sub-class and programming interface.
    pub(crate) fn new(id: u32, class: u32) -> Self {
        let mut function = Self { registers: [0; 64], writable: [0; 64] };
        function.registers[0] = id;
        function.registers[reg(register::CLASS)] = class << 8;
        function.writable[reg(register::COMMAND)] = DECODING | u32::from(COMMAND_MASTER | COMMAND_SERR);
        function.writable[reg(register::INTERRUPT)] = 0xff;
        function
    }

    /// A bridge whose prefetchable window takes 32-bit addresses.
    pub(crate) fn narrow_bridge(id: u32) -> Self {
        Self::bridge(id, Some(0), false).writable(register::PREFETCHABLE_WINDOW, 0xfff0_fff0)
    }

    /// A bridge with its windows as after a reset.
    pub(crate) fn bridge(id: u32, io: Option<u8>, wide: bool) -> Self {
        let mut function = Self::new(id, 0x06_0400).set(register::HEADER, 1 << 16);
        function.writable[reg(register::BUS_NUMBERS)] = u32::MAX;
        function.writable[reg(register::MEMORY_WINDOW)] = 0xfff0_fff0;
        function.writable[reg(register::INTERRUPT)] = 0xffff_00ff;
        if let Some(kind) = io {
            function.writable[reg(register::IO_WINDOW)] = 0xf0f0;
            function.registers[reg(register::IO_WINDOW)] = u32::from(kind) << 8 | u32::from(kind);
            if kind == 1 {
                function.writable[reg(register::IO_WINDOW_UPPER)] = u32::MAX;
            }
        }
        if wide {
            function.writable[reg(register::PREFETCHABLE_WINDOW)] = 0xfff0_fff0;
            function.registers[reg(register::PREFETCHABLE_WINDOW)] = 0x0001_0001;
            function.writable[reg(register::PREFETCHABLE_BASE_UPPER)] = u32::MAX;
            function.writable[reg(register::PREFETCHABLE_LIMIT_UPPER)] = u32::MAX;
        }
        function
    }

    /// A PCI Express port with a bus behind it, as QEMU's `pcie-root-port`: the capability is not the list's first.
    pub(crate) fn port(id: u32, kind: u8) -> Self {
        Self::bridge(id, Some(0), true).express(kind)
    }

    pub(crate) fn express(self, kind: u8) -> Self {
        self.set(register::COMMAND, u32::from(register::STATUS_CAPABILITIES) << 16)
            .set(register::CAPABILITIES, 0x40)
            .set(0x40, 0x5400 | 0x0d)
            .set(0x54, u32::from(kind) << 20 | 2 << 16 | 0x10)
    }

    /// Puts a capability at the head of the list; `rest` is the upper half of its first dword.
    pub(crate) fn capability(mut self, at: u8, id: u8, rest: u32) -> Self {
        let head = self.registers[reg(register::CAPABILITIES)];
        self.registers[reg(register::CAPABILITIES)] = at.into();
        self.set(register::COMMAND, u32::from(register::STATUS_CAPABILITIES) << 16)
            .set(at, rest << 16 | head << 8 | u32::from(id))
    }

    /// An Express port with a slot, which can be empty.
    pub(crate) fn slot(self) -> Self {
        self.set(0x54, 1 << 24)
    }

    /// A conventional bridge with a hot-plug controller.
    pub(crate) fn hot_plug(self) -> Self {
        self.capability(0x50, register::CAPABILITY_HOT_PLUG, 0)
    }

    /// QEMU's capability with the room to reserve: buses, ports, memory, prefetchable memory below and above 4 GiB.
    pub(crate) fn reserve(self, buses: u32, io: u64, memory: u32, low: u32, wide: u64) -> Self {
        let mut function = self.capability(0xa0, register::CAPABILITY_VENDOR, 1 << 8 | 32);
        let values = [buses, io as u32, (io >> 32) as u32, memory, low, wide as u32, (wide >> 32) as u32];
        function.registers[reg(0xa4)..reg(0xc0)].copy_from_slice(&values);
        function
    }

    pub(crate) fn set(mut self, offset: u8, bits: u32) -> Self {
        self.registers[reg(offset)] |= bits;
        self
    }

    pub(crate) fn writable(mut self, offset: u8, mask: u32) -> Self {
        self.writable[reg(offset)] = mask;
        self
    }

    pub(crate) fn multifunction(self) -> Self {
        self.set(register::HEADER, u32::from(register::HEADER_MULTIFUNCTION) << 16)
    }

    pub(crate) fn pin(self, pin: u8) -> Self {
        self.set(register::INTERRUPT, u32::from(pin) << 8)
    }

    pub(crate) fn bar(mut self, number: u8, kind: BarKind, order: u8) -> Self {
        let at = reg(register::BAR0) + usize::from(number);
        let mask = u64::MAX << order;
        let bits = match kind {
            BarKind::Io => 1,
            BarKind::Memory32 { prefetchable } => u32::from(prefetchable) << 3,
            BarKind::Rom => 0,
            BarKind::Memory64 { prefetchable } => 4 | u32::from(prefetchable) << 3,
        };
        self.registers[at] = bits;
        self.writable[at] = mask as u32 & !0xf | if bits == 1 { mask as u32 & 0xc } else { 0 };
        if let BarKind::Memory64 { .. } = kind {
            self.writable[at + 1] = (mask >> 32) as u32;
        }
        self
    }

    pub(crate) fn rom(self, order: u8) -> Self {
        self.writable(register::ROM, (u64::MAX << order) as u32 | 1)
    }

    pub(crate) fn is_bridge(&self) -> bool {
        self.registers[reg(register::HEADER)] >> 16 & 0x7f == 1
    }

    pub(crate) fn get(&self, offset: u8) -> u32 {
        self.registers[reg(offset)]
    }

    pub(crate) fn command(&self) -> u16 {
        self.get(register::COMMAND) as u16
    }

    fn bus_numbers(&self) -> (u8, u8) {
        let [_, secondary, subordinate, _] = self.get(register::BUS_NUMBERS).to_le_bytes();
        (secondary, subordinate)
    }

    /// The address in each of its base address registers, as the hardware decodes it.
    pub(crate) fn bars(&self) -> Vec<(u8, BarKind, u64, u64)> {
        let count = if self.is_bridge() { 2 } else { 6 };
        let mut found = Vec::new();
        let mut number = 0;
        while number < count {
            let at = reg(register::BAR0) + usize::from(number);
            let (value, mask) = (self.registers[at], self.writable[at]);
            let value_bits = value;
            let this = number;
            number += 1;
            let kind = match value & 7 {
                1 | 5 => BarKind::Io,
                4 => BarKind::Memory64 { prefetchable: value & 8 != 0 },
                _ => BarKind::Memory32 { prefetchable: value & 8 != 0 },
            };
            let (mut value, mut mask) = (u64::from(value & mask), u64::from(mask) | u64::from(u32::MAX) << 32);
            if let BarKind::Memory64 { .. } = kind {
                number += 1;
                value |= u64::from(self.registers[at + 1]) << 32;
                mask = mask & 0xffff_ffff | u64::from(self.writable[at + 1]) << 32;
            }
            if mask << 32 != 0 || value_bits & 7 != 0 {
                found.push((this, kind, value, 1 << mask.trailing_zeros()));
            }
        }
        found
    }

    /// The windows that it forwards, as first and last address: ports, memory, prefetchable memory.
    pub(crate) fn windows(&self) -> [Option<(u64, u64)>; 3] {
        let [io, memory, wide] = self.windows_as_read();
        let decodes = |bit: u16| self.command() & bit != 0;
        [
            io.filter(|_| decodes(COMMAND_IO)),
            memory.filter(|_| decodes(COMMAND_MEMORY)),
            wide.filter(|_| decodes(COMMAND_MEMORY)),
        ]
    }

    /// The windows that read as open, even if it does not decode.
    pub(crate) fn windows_as_read(&self) -> [Option<(u64, u64)>; 3] {
        let pair = |base: u64, limit: u64| (base <= limit).then_some((base, limit));
        let on = |offset: u8| self.writable[reg(offset)] != 0;
        let io = u64::from(self.get(register::IO_WINDOW));
        let upper = u64::from(self.get(register::IO_WINDOW_UPPER));
        let io = pair(
            (io & 0xf0) << 8 | (upper & 0xffff) << 16,
            (io >> 8 & 0xf0) << 8 | 0xfff | (upper >> 16 & 0xffff) << 16,
        );
        let memory = |value: u64, base: u64, limit: u64| {
            pair((value & 0xfff0) << 16 | base << 32, (value >> 16 & 0xfff0) << 16 | 0xf_ffff | limit << 32)
        };
        let wide = memory(
            self.get(register::PREFETCHABLE_WINDOW).into(),
            self.get(register::PREFETCHABLE_BASE_UPPER).into(),
            self.get(register::PREFETCHABLE_LIMIT_UPPER).into(),
        );
        [
            io.filter(|_| on(register::IO_WINDOW)),
            memory(self.get(register::MEMORY_WINDOW).into(), 0, 0),
            wide.filter(|_| on(register::PREFETCHABLE_WINDOW)),
        ]
    }
}

fn reg(offset: u8) -> usize {
    usize::from(offset / 4)
}

/// The bus of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum On {
    /// The root bus with this number.
    Root(u8),
    /// The bus behind the bridge with this index.
    Behind(usize),
}

/// A function and its bus.
pub(crate) struct Node {
    pub(crate) on: On,
    pub(crate) device: u8,
    pub(crate) number: u8,
    pub(crate) function: FakeFunction,
}

/// The hierarchy.
#[derive(Default)]
pub(crate) struct FakePci {
    pub(crate) nodes: Vec<Node>,
    /// Reads so far.
    pub(crate) reads: usize,
    /// Writes so far.
    pub(crate) writes: usize,
    /// Pairs of accesses that were one access.
    pub(crate) pairs: usize,
    /// Writes that make QEMU rebuild its memory map.
    pub(crate) remaps: usize,
    /// Misuse that real functions would not tolerate.
    pub(crate) misuse: Vec<String>,
    /// After this many accesses, all functions are gone.
    pub(crate) dies_after: Option<usize>,
    /// Every bus has the functions of root bus 0, so that each bridge is behind itself.
    pub(crate) mirrored: bool,
}

impl FakePci {
    pub(crate) fn add(&mut self, on: On, device: u8, number: u8, function: FakeFunction) -> usize {
        self.nodes.push(Node { on, device, number, function });
        self.nodes.len() - 1
    }

    pub(crate) fn with(mut self, on: On, device: u8, number: u8, function: FakeFunction) -> Self {
        self.add(on, device, number, function);
        self
    }

    pub(crate) fn accesses(&self) -> usize {
        self.reads + self.writes
    }

    pub(crate) fn function(&self, index: usize) -> &FakeFunction {
        &self.nodes[index].function
    }

    fn find(&mut self, address: Address) -> Option<usize> {
        if self.dies_after.is_some_and(|after| self.accesses() > after) {
            return None;
        }
        let on = if self.mirrored { On::Root(0) } else { self.bus(address.bus())? };
        self.nodes
            .iter()
            .position(|node| (node.on, node.device, node.number) == (on, address.device(), address.function()))
    }

    fn bus(&mut self, bus: u8) -> Option<On> {
        let roots: Vec<_> = self.nodes.iter().map(|node| node.on).filter(|on| matches!(on, On::Root(_))).collect();
        if roots.contains(&On::Root(bus)) {
            return Some(On::Root(bus));
        }
        let mut level = roots;
        loop {
            let claims: Vec<_> = (0..self.nodes.len())
                .filter(|&index| level.contains(&self.nodes[index].on) && self.function(index).is_bridge())
                .filter(|&index| {
                    let (secondary, subordinate) = self.function(index).bus_numbers();
                    secondary != 0 && (secondary..=subordinate).contains(&bus)
                })
                .collect();
            if claims.len() > 1 {
                self.misuse.push(format!("bus {bus} is claimed by {claims:?}"));
            }
            let &index = claims.first()?;
            if self.function(index).bus_numbers().0 == bus {
                return Some(On::Behind(index));
            }
            level = [On::Behind(index)].into();
        }
    }
}

impl ConfigSpace for FakePci {
    fn read32(&mut self, address: Address, offset: u8) -> u32 {
        self.reads += 1;
        self.find(address).map_or(u32::MAX, |index| self.nodes[index].function.get(offset))
    }

    fn write16(&mut self, address: Address, offset: u8, value: u16) {
        let shift = u32::from(offset & 2) * 8;
        self.write(address, offset & !1, 0xffff << shift, u32::from(value) << shift);
    }

    fn write32(&mut self, address: Address, offset: u8, value: u32) {
        self.write(address, offset, u32::MAX, value);
    }

    fn write64(&mut self, address: Address, offset: u8, value: u64) {
        self.pairs += 1;
        self.write32(address, offset, value as u32);
        self.write32(address, offset | 4, (value >> 32) as u32);
    }
}

impl FakePci {
    /// Writes the bits of a dword that are set in `written`. `offset` is that of the first byte.
    fn write(&mut self, address: Address, offset: u8, written: u32, value: u32) {
        self.writes += 1;
        let Some(index) = self.find(address) else { return };
        let function = &mut self.nodes[index].function;
        let at = reg(offset);
        let old = function.registers[at];
        let writable = function.writable[at] & written;
        let new = old & !writable | value & writable;
        let bridge = function.is_bridge();
        let placement = match offset & !3 {
            0x10..0x18 => true,
            0x18..0x28 if !bridge => true,
            0x1c..0x34 => bridge,
            _ => false,
        };
        if placement && function.registers[reg(register::COMMAND)] & DECODING != 0 {
            self.misuse.push(format!("{address}: {offset:#x} written while it decodes"));
        }
        let status = offset & !3 == register::COMMAND || bridge && offset & !3 == register::IO_WINDOW;
        if status && value >> 16 != 0 {
            self.misuse.push(format!("{address}: {offset:#x} written with status bits {value:#x}"));
        }
        let rebuilds = match offset & !3 {
            register::COMMAND => (old ^ new) & DECODING != 0,
            0x1c..0x34 => bridge,
            register::INTERRUPT => bridge && written >> 16 != 0,
            _ => false,
        };
        self.remaps += usize::from(rebuilds);
        function.registers[at] = new;
    }
}

/// The hierarchy behind a window in memory, with the first 256 bytes of each function.
pub(crate) struct FakeWindow {
    pub(crate) pci: Rc<RefCell<FakePci>>,
    /// Where the window begins.
    pub(crate) start: u64,
    /// The longest access in bytes. A longer write is lost, and a longer read of a present function returns zeros.
    pub(crate) longest: u8,
}

impl FakeWindow {
    /// The function and its byte for the address `at`.
    fn place(&self, at: u64) -> Option<(Address, u8)> {
        let offset = at - self.start;
        let (bus, device, function) = ((offset >> 20) as u8, (offset >> 15 & 31) as u8, (offset >> 12 & 7) as u8);
        Some((Address::new(bus, device, function)?, u8::try_from(offset & 0xfff).ok()?))
    }
}

impl FakeRegisters for FakeWindow {
    fn claims(&self, at: u64) -> bool {
        (self.start..self.start + (256 << 20)).contains(&at)
    }

    fn read(&mut self, at: u64, size: u8) -> u64 {
        let Some((address, offset)) = self.place(at) else { return 0 };
        let mut pci = self.pci.borrow_mut();
        let low = u64::from(pci.read32(address, offset & !3));
        if size <= self.longest && size == 8 {
            return low | u64::from(pci.read32(address, offset | 4)) << 32;
        }
        let is_there = pci.find(address).is_some();
        match size {
            _ if !is_there => u64::MAX,
            _ if size > self.longest => 0,
            _ => low >> (offset % 4 * 8),
        }
    }

    fn write(&mut self, at: u64, size: u8, value: u64, _memory: &mut FakeMemory) {
        let Some((address, offset)) = self.place(at).filter(|_| size <= self.longest) else { return };
        let mut pci = self.pci.borrow_mut();
        match size {
            8 => pci.write64(address, offset, value),
            4 => pci.write32(address, offset, value as u32),
            2 => pci.write16(address, offset, value as u16),
            _ => {
                let shift = u32::from(offset & 3) * 8;
                pci.write(address, offset, 0xff << shift, (value as u32 & 0xff) << shift);
            }
        }
    }
}
