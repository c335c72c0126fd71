//! Access to configuration space, the first 256 bytes of each function.
//!
//! There are two ways of access: the port pair that every PC has, and the memory-mapped window (ECAM) of a PCI Express host
//! bridge, whose address firmware sets. Each access is an exit to the host. The ports need two for a dword other than the last
//! one accessed. Left out: extended configuration space, from byte 256 on.

use super::address::{Address, Addresses};
use super::register;
use crate::addr::{PhysAddr, PhysRange};
use crate::hal::{Memory, Ports};

/// Configuration space by function and byte offset. An absent function reads as all ones, and a write to it is lost.
pub trait ConfigSpace {
    /// Reads the dword that holds byte `offset`; the offset's low two bits are ignored.
    fn read32(&mut self, address: Address, offset: u8) -> u32;

    /// Returns the first of `addresses` that has a function, with its vendor ID in the low half and its device ID in the high
    /// half. The addresses after it stay in `addresses`.
    ///
    /// Most addresses that a boot tries are absent. So the loop is a method here, and each implementation can have a faster one.
    fn find_next(&mut self, addresses: &mut Addresses) -> Option<(Address, u32)> {
        addresses.map(|address| (address, self.read32(address, register::ID))).find(|&(_, id)| is_there(id))
    }

    /// Writes the dword that holds byte `offset`; the offset's low two bits are ignored.
    fn write32(&mut self, address: Address, offset: u8, value: u32);

    /// Writes two dwords: first the low half to the lower one. `offset` is a multiple of 8.
    fn write64(&mut self, address: Address, offset: u8, value: u64) {
        self.write32(address, offset, value as u32);
        self.write32(address, offset | 4, (value >> 32) as u32);
    }

    /// Reads the word that holds byte `offset`; the offset's low bit is ignored.
    fn read16(&mut self, address: Address, offset: u8) -> u16 {
        (self.read32(address, offset) >> shift(offset & 2)) as u16
    }

    /// Reads the byte at `offset`.
    fn read8(&mut self, address: Address, offset: u8) -> u8 {
        (self.read32(address, offset) >> shift(offset)) as u8
    }

    /// Writes all ones to the dword that holds byte `offset` and reads it back. If it costs nothing, does the same with the next
    /// dword, provided both are in one multiple of eight bytes.
    fn probe(&mut self, address: Address, offset: u8) -> Probe {
        self.write32(address, offset, u32::MAX);
        Probe { this: self.read32(address, offset), next: None }
    }

    /// Writes the word that holds byte `offset`; the offset's low bit is ignored. An implementation may read the rest of the
    /// dword and write it back, so do not use this for a dword with bits that are cleared by writing one.
    fn write16(&mut self, address: Address, offset: u8, value: u16) {
        let shift = shift(offset & 2);
        let rest = self.read32(address, offset) & !(0xffff << shift);
        self.write32(address, offset, rest | u32::from(value) << shift);
    }

    /// Writes the byte at `offset`. The same caution as for [`ConfigSpace::write16`] applies.
    fn write8(&mut self, address: Address, offset: u8, value: u8) {
        let shift = shift(offset);
        let rest = self.read32(address, offset) & !(0xff << shift);
        self.write32(address, offset, rest | u32::from(value) << shift);
    }
}

/// What a register reads back after all ones were written to it; also the next register's value, if it took no access of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The register's value.
    pub this: u32,
    /// The next register's value.
    pub next: Option<u32>,
}

/// Whether a function with these vendor and device IDs exists. No vendor has the ID 0xffff (PCI Local Bus 3.0, section 6.2.1),
/// nor 0 in practice.
const fn is_there(id: u32) -> bool {
    !matches!(id as u16, 0 | u16::MAX)
}

/// The bit position of byte `offset` in its dword.
const fn shift(offset: u8) -> u32 {
    ((offset & 3) as u32) << 3
}

/// The address of the next access (PCI Local Bus 3.0, section 3.2.2.3.2, CONFIG_ADDRESS).
const ADDRESS_PORT: u16 = 0xcf8;
/// The addressed dword (same section, CONFIG_DATA).
const DATA_PORT: u16 = 0xcfc;
/// CONFIG_ADDRESS: the access is to configuration space.
const ENABLE: u32 = 1 << 31;

/// Configuration space through the ports 0xcf8 and 0xcfc.
///
/// It caches the value of 0xcf8. This is correct because it borrows the ports for its whole lifetime.
pub struct PortConfig<'p, P> {
    ports: &'p mut P,
    latched: Option<u32>,
}

impl<'p, P: Ports> PortConfig<'p, P> {
    /// Borrows the ports. Nothing is accessed yet.
    pub fn new(ports: &'p mut P) -> Self {
        Self { ports, latched: None }
    }

    fn select(&mut self, address: Address, offset: u8) {
        let wanted = ENABLE | u32::from(address.bits()) << 8 | u32::from(offset & !3);
        if self.latched != Some(wanted) {
            self.ports.out32(ADDRESS_PORT, wanted);
            self.latched = Some(wanted);
        }
    }
}

impl<P: Ports> ConfigSpace for PortConfig<'_, P> {
    fn read32(&mut self, address: Address, offset: u8) -> u32 {
        self.select(address, offset);
        self.ports.in32(DATA_PORT)
    }

    fn write32(&mut self, address: Address, offset: u8, value: u32) {
        self.select(address, offset);
        self.ports.out32(DATA_PORT, value);
    }

    fn write16(&mut self, address: Address, offset: u8, value: u16) {
        self.select(address, offset);
        self.ports.out16(DATA_PORT | u16::from(offset & 2), value);
    }

    fn write8(&mut self, address: Address, offset: u8, value: u8) {
        self.select(address, offset);
        self.ports.out8(DATA_PORT | u16::from(offset & 3), value);
    }
}

/// The longest access that a window supports. Software may not cross a dword boundary unless it knows that the root complex
/// supports it (PCI Express Base Specification 5.0, 7.2.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongestAccess {
    /// Four bytes, which every window supports.
    Dword,
    /// Eight bytes, as in QEMU (`hw/pci/pcie_host.c`; the memory core splits the accesses into dwords).
    Qword,
}

/// The way to access configuration space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConfigAccess {
    /// The ports, which every PC has.
    #[default]
    Ports,
    /// An open memory-mapped window.
    Ecam(EcamWindow),
}

impl ConfigAccess {
    /// Calls `work` with configuration space, and returns its result.
    pub fn with<M: Ports + Memory, T>(self, machine: &mut M, work: impl FnOnce(&mut dyn ConfigSpace) -> T) -> T {
        match self {
            Self::Ports => work(&mut PortConfig::new(machine)),
            Self::Ecam(EcamWindow { range, longest: LongestAccess::Qword }) => {
                work(&mut Ecam::<M, true>::new(machine, range))
            }
            Self::Ecam(EcamWindow { range, longest: LongestAccess::Dword }) => {
                work(&mut Ecam::<M, false>::new(machine, range))
            }
        }
    }
}

/// A window of memory-mapped configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EcamWindow {
    /// The address that firmware has set in the host bridge: bus 0 first, 1 MiB for each bus.
    pub range: PhysRange,
    /// The longest access.
    pub longest: LongestAccess,
}

/// Configuration space through a memory-mapped window. Buses beyond the window's end are absent.
///
/// With `QWORDS`, an access takes two dwords at once: the host splits it, and it is one exit. So the last two reads stay cached,
/// with the neighbouring dwords, until two further reads or a write. This is correct because only firmware accesses configuration
/// space, and the values that it reads change only by its own writes.
struct Ecam<'m, M, const QWORDS: bool> {
    memory: &'m mut M,
    window: PhysRange,
    /// The last two reads, the latest first: eight bytes, or four in the low half.
    known: [(PhysAddr, u64); 2],
}

/// No read: no access has an unaligned address.
const NOTHING: (PhysAddr, u64) = (PhysAddr::new(1), 0);

impl<'m, M: Memory, const QWORDS: bool> Ecam<'m, M, QWORDS> {
    /// Borrows the memory. `window` is the address that firmware has set in the host bridge: 1 MiB for each bus.
    fn new(memory: &'m mut M, window: PhysRange) -> Self {
        Self { memory, window, known: [NOTHING; 2] }
    }

    /// The address of a byte, if its bus is in the window.
    fn locate(&self, address: Address, offset: u8) -> Option<PhysAddr> {
        let at = self.window.start().checked_add(u64::from(address.bits()) << 12 | u64::from(offset))?;
        self.window.contains_addr(at).then_some(at)
    }

    /// One access of the longest size.
    fn access(&mut self, at: PhysAddr) -> Option<u64> {
        if QWORDS { self.memory.read_register64(at).ok() } else { self.memory.read_register32(at).ok().map(u64::from) }
    }

    /// The value at `at`, from the cache or by an access.
    fn read(&mut self, at: PhysAddr) -> Option<u64> {
        let [latest, before] = self.known;
        if latest.0 == at {
            return Some(latest.1);
        }
        if before.0 == at {
            return Some(before.1);
        }
        let value = self.access(at)?;
        self.known = [(at, value), latest];
        Some(value)
    }
}

impl<M: Memory, const QWORDS: bool> ConfigSpace for Ecam<'_, M, QWORDS> {
    fn read32(&mut self, address: Address, offset: u8) -> u32 {
        let (start, shift) = if QWORDS { (offset & !7, u32::from(offset & 4) * 8) } else { (offset & !3, 0) };
        let value = self.locate(address, start).and_then(|at| self.read(at));
        value.map_or(u32::MAX, |value| (value >> shift) as u32)
    }

    /// Absent functions are not cached.
    fn find_next(&mut self, addresses: &mut Addresses) -> Option<(Address, u32)> {
        for address in addresses {
            let at = self.locate(address, register::ID)?;
            let value = self.access(at)?;
            let id = value as u32;
            if is_there(id) {
                let [latest, _] = self.known;
                self.known = [(at, value), latest];
                return Some((address, id));
            }
        }
        None
    }

    fn write32(&mut self, address: Address, offset: u8, value: u32) {
        self.known = [NOTHING; 2];
        if let Some(at) = self.locate(address, offset & !3) {
            // A window that the firmware must not access has no functions, and writes to absent functions are lost.
            let _ = self.memory.write_register32(at, value);
        }
    }

    fn write64(&mut self, address: Address, offset: u8, value: u64) {
        if !QWORDS {
            self.write32(address, offset, value as u32);
            self.write32(address, offset | 4, (value >> 32) as u32);
            return;
        }
        self.known = [NOTHING; 2];
        if let Some(at) = self.locate(address, offset & !7) {
            // As for `write32`.
            let _ = self.memory.write_register64(at, value);
        }
    }

    fn write16(&mut self, address: Address, offset: u8, value: u16) {
        self.known = [NOTHING; 2];
        if let Some(at) = self.locate(address, offset & !1) {
            // As for `write32`.
            let _ = self.memory.write_register16(at, value);
        }
    }

    fn write8(&mut self, address: Address, offset: u8, value: u8) {
        self.known = [NOTHING; 2];
        if let Some(at) = self.locate(address, offset) {
            // As for `write32`.
            let _ = self.memory.write_register8(at, value);
        }
    }

    fn probe(&mut self, address: Address, offset: u8) -> Probe {
        if !QWORDS || offset & 4 != 0 {
            self.write32(address, offset, u32::MAX);
            return Probe { this: self.read32(address, offset), next: None };
        }
        self.write64(address, offset, u64::MAX);
        Probe { this: self.read32(address, offset), next: Some(self.read32(address, offset | 4)) }
    }
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use alloc::rc::Rc;
    use alloc::vec::Vec;
    use core::cell::RefCell;

    use super::*;
    use crate::fakes::machine::{Access, FakeMachine};
    use crate::fakes::pci::{FakeFunction, FakePci, FakeWindow, On};
    use crate::hal::MemoryError;
    use crate::pci::topology::BarKind;

    const LPC: Address = Address::new(0, 0x1f, 0).unwrap();

    #[test]
    fn the_address_port_is_written_once_for_accesses_to_the_same_dword() {
        let mut machine = FakeMachine::new();
        let mut config = PortConfig::new(&mut machine);
        assert_eq!(config.read32(LPC, 0x40), u32::MAX);
        config.write32(LPC, 0x40, 0x601);
        config.write8(LPC, 0x43, 5);
        config.write16(LPC, 0x42, 6);
        config.write8(LPC, 0x44, 0x80);
        let expected = [
            Access::Out(0xcf8, 4, 0x8000_f840),
            Access::In(0xcfc, 4, u32::MAX),
            Access::Out(0xcfc, 4, 0x601),
            Access::Out(0xcff, 1, 5),
            Access::Out(0xcfe, 2, 6),
            Access::Out(0xcf8, 4, 0x8000_f844),
            Access::Out(0xcfc, 1, 0x80),
        ];
        assert_eq!(machine.accesses, expected);
    }

    #[test]
    fn the_address_port_is_written_again_after_the_ports_were_returned() {
        let mut machine = FakeMachine::new();
        PortConfig::new(&mut machine).read32(LPC, 0);
        PortConfig::new(&mut machine).read32(LPC, 0);
        assert_eq!(machine.accesses.iter().filter(|access| matches!(access, Access::Out(0xcf8, ..))).count(), 2);
    }

    fn window(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start), len).unwrap()
    }

    /// A window that supports four bytes returns zeros for longer accesses, or ignores them.
    #[test]
    fn a_window_for_dwords_gets_no_longer_access() {
        let function = FakeFunction::new(0x2918_8086, 0x06_0100).writable(0x40, 0xff80).writable(0x44, u32::MAX);
        let function = function.bar(0, BarKind::Memory64 { prefetchable: true }, 36);
        let pci = Rc::new(RefCell::new(FakePci::default().with(On::Root(0), 0x1f, 0, function)));
        let mut machine = FakeMachine::new();
        machine.registers.push(Box::new(FakeWindow { pci: pci.clone(), start: 0xb000_0000, longest: 4 }));
        let mut config = Ecam::<_, false>::new(&mut machine, window(0xb000_0000, 256 << 20));
        assert_eq!([0, 8, 0].map(|at| config.read32(LPC, at)), [0x2918_8086, 0x0601_0000, 0x2918_8086]);
        assert_eq!(pci.borrow().reads, 2, "the second read is cached");
        config.write64(LPC, 0x40, 0x80 << 32 | 0x601);
        assert_eq!((config.read32(LPC, 0x40), config.read32(LPC, 0x44)), (0x600, 0x80));
        assert_eq!(config.probe(LPC, 0x10), Probe { this: 0xc, next: None });
        assert_eq!(config.probe(LPC, 0x14), Probe { this: 0xffff_fff0, next: None });
        config.write16(LPC, 0x46, 0x1234);
        config.write8(LPC, 0x45, 0x56);
        assert_eq!(
            (config.read32(LPC, 0x44), config.read16(LPC, 0x46), config.read8(LPC, 0x45)),
            (0x1234_5680, 0x1234, 0x56)
        );
    }

    #[test]
    fn the_window_maps_buses_devices_and_functions() {
        let mut machine = FakeMachine::new();
        machine.memory.store(0xb000_0000 + (2 << 20 | 3 << 15 | 1 << 12 | 0x40), &[1, 2, 3, 4]);
        let mut config = Ecam::<_, true>::new(&mut machine, window(0xb000_0000, 256 << 20));
        let address = Address::new(2, 3, 1).unwrap();
        assert_eq!(config.read32(address, 0x40), 0x0403_0201);
        assert_eq!(config.read16(address, 0x42), 0x0403);
        assert_eq!(config.read8(address, 0x41), 2);
        config.write8(address, 0x42, 0xaa);
        config.write16(address, 0x40, 0xbbcc);
        assert_eq!(config.read32(address, 0x40), 0x04aa_bbcc);
    }

    /// Memory that counts accesses to registers.
    struct Counting(FakeMachine, u32);

    impl Memory for Counting {
        fn map(&mut self, range: PhysRange, room: PhysRange) -> Result<(), MemoryError> {
            self.0.map(range, room)
        }
        fn read(&mut self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryError> {
            self.0.read(from, into)
        }
        fn inspect(&mut self, range: PhysRange, show: &mut dyn FnMut(&[u8])) -> Result<(), MemoryError> {
            self.0.inspect(range, show)
        }
        fn write(&mut self, to: PhysAddr, bytes: &[u8]) -> Result<(), MemoryError> {
            self.0.write(to, bytes)
        }
        fn copy(&mut self, from: PhysRange, to: PhysAddr) -> Result<(), MemoryError> {
            self.0.copy(from, to)
        }
        fn fill(&mut self, range: PhysRange, byte: u8) -> Result<(), MemoryError> {
            self.0.fill(range, byte)
        }
        fn read_register8(&mut self, at: PhysAddr) -> Result<u8, MemoryError> {
            self.1 += 1;
            self.0.read_register8(at)
        }
        fn read_register16(&mut self, at: PhysAddr) -> Result<u16, MemoryError> {
            self.1 += 1;
            self.0.read_register16(at)
        }
        fn read_register32(&mut self, at: PhysAddr) -> Result<u32, MemoryError> {
            self.1 += 1;
            self.0.read_register32(at)
        }
        fn read_register64(&mut self, at: PhysAddr) -> Result<u64, MemoryError> {
            self.1 += 1;
            self.0.read_register64(at)
        }
        fn write_register8(&mut self, at: PhysAddr, value: u8) -> Result<(), MemoryError> {
            self.1 += 1;
            self.0.write_register8(at, value)
        }
        fn write_register16(&mut self, at: PhysAddr, value: u16) -> Result<(), MemoryError> {
            self.1 += 1;
            self.0.write_register16(at, value)
        }
        fn write_register32(&mut self, at: PhysAddr, value: u32) -> Result<(), MemoryError> {
            self.1 += 1;
            self.0.write_register32(at, value)
        }
        fn write_register64(&mut self, at: PhysAddr, value: u64) -> Result<(), MemoryError> {
            self.1 += 1;
            self.0.write_register64(at, value)
        }
    }

    #[test]
    fn a_read_fetches_two_dwords_and_a_write_clears_them() {
        let mut machine = FakeMachine::new();
        machine.memory.store(0xb000_0000 + (0x1f << 15), &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
        let mut memory = Counting(machine, 0);
        let mut config = Ecam::<_, true>::new(&mut memory, window(0xb000_0000, 256 << 20));
        let dwords: Vec<_> = [0, 8, 12, 4].into_iter().map(|offset| config.read32(LPC, offset)).collect();
        assert_eq!((dwords.as_slice(), config.memory.1), ([1, 3, 4, 2].as_slice(), 2));
        config.write64(LPC, 0x10, 5 << 32 | 6);
        assert_eq!((config.read32(LPC, 0x10), config.read32(LPC, 0x14), config.memory.1), (6, 5, 4));
        assert_eq!(config.probe(LPC, 0x18), Probe { this: u32::MAX, next: Some(u32::MAX) });
        assert_eq!(config.memory.1, 6);
        assert_eq!(config.probe(LPC, 0x24), Probe { this: u32::MAX, next: None });
        assert_eq!(config.read32(LPC, 0x28), 0, "a neighbour in another multiple of eight bytes");
        config.write8(LPC, 0x29, 7);
        assert_eq!((config.read32(LPC, 0x28), config.memory.1), (0x700, 11), "one to write a byte, one to read again");
    }

    /// A machine whose window supports accesses of up to `longest` bytes, with a function with this ID as device 5.
    fn device_5(id: u32, longest: u8) -> (FakeMachine, Rc<RefCell<FakePci>>) {
        let pci = FakePci::default().with(On::Root(0), 5, 0, FakeFunction::new(id, 0xff_0000));
        let pci = Rc::new(RefCell::new(pci));
        let mut machine = FakeMachine::new();
        machine.registers.push(Box::new(FakeWindow { pci: pci.clone(), start: 0xb000_0000, longest }));
        (machine, pci)
    }

    #[test]
    fn a_function_is_found_after_absent_ones_with_one_access_each() {
        let range = window(0xb000_0000, 256 << 20);
        let (id, found) = (0x0005_1b36, Address::new(0, 5, 0).unwrap());
        for longest in [4, 8] {
            let (mut machine, pci) = device_5(id, longest);
            let mut devices = Address::devices(0, 1..32);
            let mut find = || match longest {
                4 => Ecam::<_, false>::new(&mut machine, range).find_next(&mut devices),
                _ => Ecam::<_, true>::new(&mut machine, range).find_next(&mut devices),
            };
            let results = [find(), find()];
            assert_eq!(results, [Some((found, id)), None], "{longest} bytes");
            assert_eq!(pci.borrow().reads, 31 * usize::from(longest) / 4, "{longest} bytes: dwords");
            assert_eq!(devices.next(), None);
        }
        let mut machine = FakeMachine::new();
        assert_eq!(PortConfig::new(&mut machine).find_next(&mut Address::devices(0, 1..32)), None);
        assert_eq!(machine.accesses.len(), 2 * 31);
    }

    #[test]
    fn a_function_without_a_vendor_is_absent() {
        for id in [u32::MAX, 0x1234_ffff, 0, 0x1234_0000] {
            let (mut machine, _) = device_5(id, 8);
            let mut config = Ecam::<_, true>::new(&mut machine, window(0xb000_0000, 256 << 20));
            assert_eq!(config.find_next(&mut Address::devices(0, 0..32)), None, "{id:#x}");
        }
    }

    #[test]
    fn a_bus_beyond_the_window_is_absent_and_not_written() {
        let mut machine = FakeMachine::new();
        let mut config = Ecam::<_, true>::new(&mut machine, window(0xb000_0000, 1 << 20));
        let address = Address::new(1, 0, 0).unwrap();
        config.write32(address, 0, 0);
        assert_eq!(config.read32(address, 0), u32::MAX);
        // A window that the firmware must not access at all.
        let mut config = Ecam::<_, true>::new(&mut machine, window(1 << 32, 256 << 20));
        config.write32(address, 0, 0);
        assert_eq!(config.read32(address, 0), u32::MAX);
        assert_eq!(machine.memory.bytes(0xb010_0000, 4), [0; 4]);
    }
}
