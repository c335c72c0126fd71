//! The registers of a PC: a selector and a data port that gives one byte a read, and two ports for DMA.

use super::Key;
use super::registers::Registers;
use crate::addr::PhysRange;
use crate::hal::dma::{ADDRESS_HIGH, Doorbell};
use crate::hal::{MemoryError, PortInput};

/// Selects an item, 16 bits, little-endian.
const SELECTOR: u16 = 0x510;
/// The selected item's next byte. Only byte-wide reads are answered.
const DATA: u16 = 0x511;

impl<T: PortInput> Registers for T {
    fn select(&mut self, key: Key) {
        self.out16(SELECTOR, key.get());
    }

    fn read_data(&mut self, into: &mut [u8]) {
        self.in8_string(DATA, into);
    }

    fn load_data(&mut self, to: PhysRange) -> Result<(), MemoryError> {
        self.in8_string_to(DATA, to)
    }

    fn read_dma_address_high(&mut self) -> [u8; 4] {
        self.in32(ADDRESS_HIGH).to_le_bytes()
    }

    fn doorbell(&self) -> Doorbell {
        Doorbell::Ports
    }
}
