//! The registers of a PC: a selector and a data port that gives one byte a read, and two ports for DMA.

use super::Key;
use super::registers::{Doorbell, Registers};
use crate::addr::{PhysAddr, PhysRange};
use crate::hal::{MemoryError, PortInput};

/// Selects an item, 16 bits, little-endian.
const SELECTOR: u16 = 0x510;
/// The selected item's next byte. Only byte-wide reads are answered.
const DATA: u16 = 0x511;
/// The descriptor's address, high half, big-endian.
const ADDRESS_HIGH: u16 = 0x514;
/// The descriptor's address, low half, big-endian; the write starts the transfer.
const ADDRESS_LOW: u16 = 0x518;

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

    fn forget_dma_address(&mut self) {
        self.out32(ADDRESS_HIGH, 0);
    }

    fn write_dma_address(&mut self, descriptor: PhysAddr, doorbell: Doorbell) {
        let at = descriptor.get();
        if doorbell == Doorbell::Halves {
            self.out32(ADDRESS_HIGH, ((at >> 32) as u32).to_be());
        }
        self.out32(ADDRESS_LOW, (at as u32).to_be());
    }
}
