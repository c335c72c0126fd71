//! Devices of a PC, for tests: configuration space behind the ports 0xcf8 and 0xcfc, whose registers keep what is
//! written, with a record of the writes; and the two 8259 interrupt controllers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use super::machine::{FakeDevice, FakeMemory};

/// A write: configuration address (bus, device, function and byte offset, as in 0xcf8), bytes, value.
pub(crate) type Write = (u32, u8, u32);

/// The ports, with registers by configuration address. Absent functions read as all ones.
#[derive(Default)]
pub(crate) struct FakeConfigPorts {
    latched: u32,
    registers: BTreeMap<u32, u32>,
    writes: Rc<RefCell<Vec<Write>>>,
}

impl FakeConfigPorts {
    /// A host bridge with this vendor and device, and nothing else.
    pub(crate) fn with_host_bridge(id: u32) -> Self {
        Self { registers: BTreeMap::from([(0, id)]), ..Self::default() }
    }

    /// With another function, at a configuration address.
    pub(crate) fn with_function(mut self, address: u32, id: u32) -> Self {
        self.registers.insert(address, id);
        self
    }

    /// The record of writes, which stays up to date.
    pub(crate) fn writes(&self) -> Rc<RefCell<Vec<Write>>> {
        self.writes.clone()
    }
}

impl FakeDevice for FakeConfigPorts {
    fn claims(&self, port: u16) -> bool {
        (0xcf8..0xd00).contains(&port)
    }

    fn read(&mut self, port: u16, _size: u8, _memory: &mut FakeMemory) -> u32 {
        match port {
            0xcf8 => self.latched,
            _ => self.registers.get(&(self.latched & 0x7fff_fffc)).copied().unwrap_or(u32::MAX),
        }
    }

    fn write(&mut self, port: u16, size: u8, value: u32, _memory: &mut FakeMemory) {
        match port {
            0xcf8 => self.latched = value,
            _ => self.writes.borrow_mut().push(((self.latched & 0x7fff_fffc) + u32::from(port - 0xcfc), size, value)),
        }
    }
}

/// The PM1 status register at the address that the firmware assigns, with its value.
pub(crate) struct FakePm1(pub(crate) u16);

impl FakePm1 {
    /// The value on QEMU after a suspend and a wake by the user (measured on `q35`).
    pub(crate) const WOKEN: Self = Self(0x8101);
    /// The value after a plain reset.
    pub(crate) const RESET: Self = Self(0x0001);
}

impl FakeDevice for FakePm1 {
    fn claims(&self, port: u16) -> bool {
        port == 0x600 || port == 0x601
    }

    fn read(&mut self, port: u16, size: u8, _memory: &mut FakeMemory) -> u32 {
        // QEMU answers only 16-bit accesses.
        if (port, size) == (0x600, 2) { self.0.into() } else { u32::MAX }
    }

    fn write(&mut self, _port: u16, _size: u8, _value: u32, _memory: &mut FakeMemory) {}
}

/// The state of an 8259.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pic8259 {
    /// The vector of its first input.
    pub base: u8,
    /// The mask of its inputs.
    pub mask: u8,
    /// The third command word, about the other 8259, and the mode.
    pub cascade: u8,
    pub mode: u8,
    /// The command word that it expects next (2 to 4); 0 for none.
    waits_for: u8,
}

/// Both interrupt controllers of a PC, in their state after a reset: vectors from 0 on, nothing masked.
#[derive(Default)]
pub(crate) struct FakePics(Rc<RefCell<[Pic8259; 2]>>);

impl FakePics {
    /// The state of the controllers, which stays up to date.
    pub(crate) fn state(&self) -> Rc<RefCell<[Pic8259; 2]>> {
        self.0.clone()
    }
}

impl FakeDevice for FakePics {
    fn claims(&self, port: u16) -> bool {
        matches!(port, 0x20 | 0x21 | 0xa0 | 0xa1)
    }

    fn read(&mut self, port: u16, _size: u8, _memory: &mut FakeMemory) -> u32 {
        let pic = self.0.borrow()[usize::from(port >> 7)];
        if port & 1 == 1 { pic.mask.into() } else { 0 }
    }

    fn write(&mut self, port: u16, _size: u8, value: u32, _memory: &mut FakeMemory) {
        let (pic, value) = (&mut self.0.borrow_mut()[usize::from(port >> 7)], value as u8);
        match (port & 1, pic.waits_for) {
            (0, _) => {
                assert_eq!(value, 0x11, "edge-triggered, two of them, four words");
                *pic = Pic8259 { waits_for: 2, ..Pic8259::default() };
            }
            (_, 2) => (pic.base, pic.waits_for) = (value, 3),
            (_, 3) => (pic.cascade, pic.waits_for) = (value, 4),
            (_, 4) => (pic.mode, pic.waits_for) = (value, 0),
            _ => pic.mask = value,
        }
    }
}
