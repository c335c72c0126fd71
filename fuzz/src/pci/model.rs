//! A model of any configuration space: any bytes, registers that keep all, some or none of their bits or never settle, and
//! functions that respond at other addresses.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use firstlight::fakes::machine::{FakeDevice, FakeMemory, FakeRegisters};
use firstlight::pci::{Address, ConfigSpace, register};

use crate::input::Input;

/// The most accesses of a set-up: each bus is searched for each device at most twice, and each function has its registers read.
const MOST_ACCESSES: u32 = 400_000;

/// The class of bridges to other buses, of host bridges and of ISA bridges.
const CLASS_HOST: u32 = 0x0600;
const CLASS_ISA: u32 = 0x0601;

/// The bus of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    /// The root bus of this number.
    Root(u8),
    /// The bus behind the function of this index.
    Behind(usize),
}

/// A function.
#[derive(Clone, Debug)]
struct Function {
    on: On,
    /// Device and function number.
    place: u8,
    registers: [u32; 64],
    writable: [u32; 64],
}

impl Function {
    /// A function with these bytes of configuration space. `orders` says how many low bits each base address register
    /// keeps, and then the expansion ROM, plus one; zero for all.
    fn new(on: On, place: u8, bytes: &[u8], orders: &[u8]) -> Self {
        let mut registers = [0; 64];
        for (register, bytes) in registers.iter_mut().zip(bytes.chunks(4)) {
            *register = bytes.iter().rev().fold(0, |value: u32, &byte| value << 8 | u32::from(byte));
        }
        let mut writable = [0; 64];
        let is_bridge = registers[3] >> 16 & 0x7f == 1;
        let rom = if is_bridge { 14 } else { 12 };
        let bars = if is_bridge { 4..6 } else { 4..10 };
        for (at, &order) in bars.chain([rom]).zip(orders) {
            writable[at] = order.checked_sub(1).map_or(0, |order| u32::MAX << (order & 31));
        }
        writable[1] = 0x547;
        writable[15] = 0xff;
        if is_bridge {
            writable[6] = u32::MAX;
            writable[7] = 0xf0f0;
            (writable[8], writable[9]) = (0xfff0_fff0, 0xfff0_fff0);
            (writable[10], writable[11], writable[12]) = (u32::MAX, u32::MAX, u32::MAX);
        }
        Self { on, place, registers, writable }
    }

    /// The number of the bus behind it; `None` for one that has none.
    fn secondary(&self) -> Option<u8> {
        let [_, secondary, ..] = self.registers[6].to_le_bytes();
        (self.registers[3] >> 16 & 0x7f == 1 && secondary != 0).then_some(secondary)
    }

    /// Whether it forwards accesses to the bus with this number, which is not the one directly behind it.
    fn passes_on(&self, bus: u8) -> bool {
        let [_, _, subordinate, _] = self.registers[6].to_le_bytes();
        self.secondary().is_some_and(|secondary| secondary < bus && bus <= subordinate)
    }

    fn decodes(&self) -> bool {
        self.registers[1] & 3 != 0
    }
}

/// All functions of a machine.
#[derive(Clone, Debug, Default)]
pub struct Model {
    functions: Vec<Function>,
    /// Which of them have a device and function number.
    at_place: BTreeMap<u8, Vec<usize>>,
    /// Every bus is bus 0.
    mirrored: bool,
    /// The first function responds at every address without another.
    everywhere: bool,
    /// Registers read differently each time.
    unsettled: bool,
    /// A bridge responds for the bus with its number wherever it is, even behind itself, and no other bridge has to forward the
    /// access.
    unrouted: bool,
    /// Whether the model checks that accesses are safe for devices.
    strict: bool,
    accesses: u32,
}

impl Model {
    /// The machine that `input` describes, with up to `most` functions. `board` has the functions of the chipset, with their IDs.
    pub fn take(input: &mut Input<'_>, most: u8, board: &[(u8, u32)]) -> Self {
        let flags: u8 = input.take();
        let mut functions: Vec<_> = board
            .iter()
            .map(|&(place, id)| {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&id.to_le_bytes());
                bytes[10..12].copy_from_slice(&if place == 0 { CLASS_HOST } else { CLASS_ISA }.to_le_bytes()[..2]);
                bytes[14] = if place == 0 { 0 } else { 0x80 };
                Function { writable: [u32::MAX; 64], ..Function::new(On::Root(0), place, &bytes, &[]) }
            })
            .collect();
        for _ in 0..most {
            if input.is_empty() {
                break;
            }
            let (kind, number, place): (u8, u8, u8) = (input.take(), input.take(), input.take());
            let on = match kind & 3 {
                0 => On::Root(0),
                1 => On::Root(number),
                _ => On::Behind(board.len() + usize::from(number)),
            };
            let bytes = input.short();
            functions.push(Function::new(on, place, bytes, input.bytes(7)));
            if kind & 4 != 0 {
                // A size that has a hole.
                let hole = !(1 << (kind >> 3));
                functions.last_mut().unwrap().writable[4..10].iter_mut().for_each(|mask| *mask &= hole);
            }
        }
        let mut at_place = BTreeMap::<_, Vec<_>>::new();
        for (index, function) in functions.iter().enumerate() {
            at_place.entry(function.place).or_default().push(index);
        }
        // Each is rare, because it causes many accesses.
        let (mirrored, everywhere, unrouted) = (flags & 15 == 1, flags & 15 == 2, flags & 15 == 3);
        let unsettled = flags & 12 == 4;
        let strict = !(mirrored || everywhere || unrouted || unsettled);
        Self { functions, at_place, mirrored, everywhere, unsettled, unrouted, strict, accesses: 0 }
    }

    /// Whether no function misbehaves as a whole; register values may still be wrong.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.strict
    }

    /// Whether repeated reads return the same value, whatever is written elsewhere.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !(self.mirrored || self.everywhere || self.unsettled || self.unrouted)
    }

    /// Disables the checks, because the boot has its own registers.
    #[must_use]
    pub fn relaxed(self) -> Self {
        Self { strict: false, ..self }
    }

    fn bridge(&self, index: usize) -> &Function {
        &self.functions[index % self.functions.len()]
    }

    /// Whether accesses to the bus with this number reach `bridge` (PCI-to-PCI Bridge 1.2, 3.1.2.1.3).
    fn is_led_to(&self, bridge: &Function, bus: u8) -> bool {
        let mut on = bridge.on;
        for _ in 0..self.functions.len() {
            let On::Behind(above) = on else { return true };
            let above = self.bridge(above);
            if !above.passes_on(bus) {
                return false;
            }
            on = above.on;
        }
        false
    }

    fn find(&mut self, bus: u8, place: u8) -> Option<usize> {
        self.accesses += 1;
        assert!(self.accesses <= MOST_ACCESSES, "{MOST_ACCESSES} accesses to configuration space");
        let is_on = |on| match on {
            On::Root(number) => number == bus || self.mirrored,
            On::Behind(bridge) => {
                let bridge = self.bridge(bridge);
                bridge.secondary() == Some(bus) && (self.unrouted || self.is_led_to(bridge, bus))
            }
        };
        let found = self.at_place.get(&place).and_then(|at| at.iter().find(|&&index| is_on(self.functions[index].on)));
        found.copied().or((self.everywhere && !self.functions.is_empty()).then_some(0))
    }

    fn read(&mut self, bus: u8, place: u8, register: usize) -> u32 {
        let noise = if self.unsettled { self.accesses.wrapping_mul(0x9e37_79b9) & 0x8001_0010 } else { 0 };
        self.find(bus, place).map_or(u32::MAX, |function| self.functions[function].registers[register] ^ noise)
    }

    fn write(&mut self, bus: u8, place: u8, register: usize, mask: u32, value: u32) {
        let strict = self.strict;
        let Some(function) = self.find(bus, place) else { return };
        let function = &mut self.functions[function];
        if strict {
            let is_bridge = function.registers[3] >> 16 & 0x7f == 1;
            let may = match register {
                1 | 15 => true,
                4..6 => !function.decodes(),
                6..10 if !is_bridge => !function.decodes(),
                6..13 if is_bridge => true,
                12 => true,
                16 => matches!(function.registers[0], 0x7010_8086 | 0x7111_8086),
                _ => false,
            };
            assert!(may, "{bus:02x}:{place:02x}: {:#x} is written, command {:#x}", register * 4, function.registers[1]);
        }
        let mask = mask & function.writable[register];
        function.registers[register] = function.registers[register] & !mask | value & mask;
    }
}

fn split(address: Address, offset: u8) -> (u8, u8, usize) {
    let [place, bus] = address.bits().to_le_bytes();
    (bus, place, usize::from(offset / 4))
}

impl ConfigSpace for Model {
    fn read32(&mut self, address: Address, offset: u8) -> u32 {
        let (bus, place, register) = split(address, offset);
        self.read(bus, place, register)
    }

    fn write32(&mut self, address: Address, offset: u8, value: u32) {
        let (bus, place, register) = split(address, offset);
        self.write(bus, place, register, u32::MAX, value);
    }

    fn write16(&mut self, address: Address, offset: u8, value: u16) {
        let (bus, place, register) = split(address, offset);
        let shift = u32::from(offset & 2) * 8;
        self.write(bus, place, register, 0xffff << shift, u32::from(value) << shift);
    }
}

const _: () = assert!(register::COMMAND == 4 && register::INTERRUPT == 60);

/// The ports of configuration space.
pub struct Ports {
    model: Rc<RefCell<Model>>,
    latched: u32,
}

impl Ports {
    /// The ports to `model`.
    #[must_use]
    pub fn new(model: Rc<RefCell<Model>>) -> Self {
        Self { model, latched: 0 }
    }
}

impl FakeDevice for Ports {
    fn claims(&self, port: u16) -> bool {
        (0xcf8..0xd00).contains(&port)
    }

    fn read(&mut self, port: u16, _size: u8, _memory: &mut FakeMemory) -> u32 {
        let [register, place, bus, on] = self.latched.to_le_bytes();
        match port {
            0xcf8 => self.latched,
            0xcfc.. if on & 0x80 != 0 => {
                self.model.borrow_mut().read(bus, place, usize::from(register / 4)) >> (u32::from(port & 3) * 8)
            }
            _ => u32::MAX,
        }
    }

    fn write(&mut self, port: u16, size: u8, value: u32, _memory: &mut FakeMemory) {
        let [register, place, bus, on] = self.latched.to_le_bytes();
        match port {
            0xcf8 => self.latched = value,
            0xcfc.. if on & 0x80 != 0 => {
                let shift = u32::from(port & 3) * 8;
                let mask = (u32::MAX >> (32 - u32::from(size) * 8)) << shift;
                self.model.borrow_mut().write(bus, place, usize::from(register / 4), mask, value << shift);
            }
            _ => {}
        }
    }
}

/// The memory-mapped window of q35.
pub struct Window(pub Rc<RefCell<Model>>);

impl Window {
    /// Where it is.
    pub const START: u64 = 0xb000_0000;
    /// Where it ends.
    pub const END: u64 = 0xc000_0000;

    /// The bus, place and register, the bits of it and how far left these are in the value, of each dword of an access.
    fn parts(at: u64, size: u8) -> impl Iterator<Item = (u8, u8, usize, u32, u32)> {
        let offset = at - Self::START;
        let [low, middle, bus, _] = ((offset >> 4) as u32).to_le_bytes();
        let place = (u16::from_le_bytes([low, middle]) >> 8) as u8;
        let shift = (at & 3) as u32 * 8;
        let mask = (u32::MAX >> (32 - u32::from(size.min(4)) * 8)) << shift;
        let first = (offset & 0xfff) as usize / 4;
        (0..u32::from(size).div_ceil(4))
            .map(move |step| (bus, place, first + step as usize, mask, shift + step * 32))
            .filter(|(_, _, register, ..)| *register < 64)
    }
}

impl FakeRegisters for Window {
    fn claims(&self, at: u64) -> bool {
        (Self::START..Self::END).contains(&at)
    }

    fn read(&mut self, at: u64, size: u8) -> u64 {
        let mut value = 0;
        for (bus, place, register, mask, shift) in Self::parts(at, size) {
            let part = u64::from(self.0.borrow_mut().read(bus, place, register) & mask);
            value |= if shift >= 32 { part << 32 } else { part >> shift };
        }
        value
    }

    fn write(&mut self, at: u64, size: u8, value: u64, _memory: &mut FakeMemory) {
        for (bus, place, register, mask, shift) in Self::parts(at, size) {
            let part = if shift >= 32 { value >> 32 } else { value << shift };
            self.0.borrow_mut().write(bus, place, register, mask, part as u32);
        }
    }
}
