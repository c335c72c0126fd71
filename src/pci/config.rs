//! Access to configuration space, the first 256 bytes of each function.
//!
//! Two ways in: the port pair every PC has, and the memory-mapped window (ECAM) that a PCI Express host bridge opens
//! once it is told where. Each access is an exit to the host; the ports need two for a dword that was not the last one
//! touched. Left out: extended configuration space, from byte 256 on.
#![forbid(unsafe_code)]

use super::Address;
use crate::addr::{PhysAddr, PhysRange};
use crate::hal::{Memory, Ports};

/// Configuration space by function and byte offset. An absent function reads as all ones, and a write to it is lost.
pub trait ConfigSpace {
    /// Reads the dword that holds byte `offset`; the offset's low two bits are ignored.
    fn read32(&mut self, address: Address, offset: u8) -> u32;

    /// Writes the dword that holds byte `offset`; the offset's low two bits are ignored.
    fn write32(&mut self, address: Address, offset: u8, value: u32);

    /// Reads the word that holds byte `offset`; the offset's low bit is ignored.
    fn read16(&mut self, address: Address, offset: u8) -> u16 {
        (self.read32(address, offset) >> shift(offset & 2)) as u16
    }

    /// Reads the byte at `offset`.
    fn read8(&mut self, address: Address, offset: u8) -> u8 {
        (self.read32(address, offset) >> shift(offset)) as u8
    }

    /// Writes the word that holds byte `offset`; the offset's low bit is ignored. The rest of the dword may be read and
    /// written back on the way, so this is not for a dword with bits that are cleared by writing one.
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

/// How far byte `offset` lies from the low end of its dword, in bits.
const fn shift(offset: u8) -> u32 {
    (offset & 3) as u32 * 8
}

/// Where the address of the next access goes (PCI Local Bus 3.0, section 3.2.2.3.2, CONFIG_ADDRESS).
const ADDRESS_PORT: u16 = 0xcf8;
/// Where the addressed dword appears (same section, CONFIG_DATA).
const DATA_PORT: u16 = 0xcfc;
/// CONFIG_ADDRESS: the access is to configuration space.
const ENABLE: u32 = 1 << 31;

/// Configuration space through the ports 0xcf8 and 0xcfc.
///
/// It remembers what 0xcf8 holds. That is sound because it borrows the ports for as long as it lives.
pub struct PortConfig<'p, P> {
    ports: &'p mut P,
    latched: Option<u32>,
}

impl<'p, P: Ports> PortConfig<'p, P> {
    /// Takes the ports over. Nothing is accessed yet.
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

/// Bytes of the window that one bus takes (PCI Express Base 5.0, section 7.2.2).
const ECAM_BUS: u64 = 1 << 20;

/// Configuration space through a memory-mapped window, bus 0 first. A bus beyond the window's end is absent.
pub struct Ecam<'m, M> {
    memory: &'m mut M,
    window: PhysRange,
}

impl<'m, M: Memory> Ecam<'m, M> {
    /// Takes the memory over. `window` is where the host bridge was told to put configuration space: 1 MiB a bus.
    pub fn new(memory: &'m mut M, window: PhysRange) -> Self {
        Self { memory, window }
    }

    fn locate(&self, address: Address, offset: u8) -> Option<PhysAddr> {
        if (u64::from(address.bus()) + 1) * ECAM_BUS > self.window.len() {
            return None;
        }
        self.window.start().checked_add(u64::from(address.bits()) << 12 | u64::from(offset & !3))
    }
}

impl<M: Memory> ConfigSpace for Ecam<'_, M> {
    fn read32(&mut self, address: Address, offset: u8) -> u32 {
        self.locate(address, offset).and_then(|at| self.memory.read_register32(at).ok()).unwrap_or(u32::MAX)
    }

    fn write32(&mut self, address: Address, offset: u8, value: u32) {
        if let Some(at) = self.locate(address, offset) {
            // A window the firmware may not touch has no functions in it, and writes to absent functions are lost.
            let _ = self.memory.write_register32(at, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hal::fake::{Access, FakeMachine};

    const LPC: Address = Address::new(0, 0x1f, 0).unwrap();

    #[test]
    fn the_ports_are_told_an_address_once_for_accesses_to_the_same_dword() {
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
    fn the_address_is_told_anew_to_ports_that_were_given_back_in_between() {
        let mut machine = FakeMachine::new();
        PortConfig::new(&mut machine).read32(LPC, 0);
        PortConfig::new(&mut machine).read32(LPC, 0);
        assert_eq!(machine.accesses.iter().filter(|access| matches!(access, Access::Out(0xcf8, ..))).count(), 2);
    }

    fn window(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start), len).unwrap()
    }

    #[test]
    fn the_window_maps_bus_device_and_function() {
        let mut machine = FakeMachine::new();
        machine.memory.store(0xb000_0000 + (2 << 20 | 3 << 15 | 1 << 12 | 0x40), &[1, 2, 3, 4]);
        let mut config = Ecam::new(&mut machine, window(0xb000_0000, 256 << 20));
        let address = Address::new(2, 3, 1).unwrap();
        assert_eq!(config.read32(address, 0x40), 0x0403_0201);
        assert_eq!(config.read16(address, 0x42), 0x0403);
        assert_eq!(config.read8(address, 0x41), 2);
        config.write8(address, 0x42, 0xaa);
        config.write16(address, 0x40, 0xbbcc);
        assert_eq!(config.read32(address, 0x40), 0x04aa_bbcc);
    }

    #[test]
    fn a_bus_past_the_window_is_absent_and_not_written() {
        let mut machine = FakeMachine::new();
        let mut config = Ecam::new(&mut machine, window(0xb000_0000, (2 << 20) - 1));
        let address = Address::new(1, 0, 0).unwrap();
        config.write32(address, 0, 0);
        assert_eq!(config.read32(address, 0), u32::MAX);
        // One the firmware may not touch at all.
        let mut config = Ecam::new(&mut machine, window(1 << 32, 256 << 20));
        config.write32(address, 0, 0);
        assert_eq!(config.read32(address, 0), u32::MAX);
        assert_eq!(machine.memory.bytes(0xb010_0000, 4), [0; 4]);
    }
}
