//! The registers in memory, as QEMU's machines for Arm, RISC-V and LoongArch have them: [`Mapped`].
//!
//! The data register is read by bytes. QEMU's is 8 bytes wide, other hosts' is not, and nothing tells which it is; where
//! there is DMA, and all these machines have it, next to nothing is read there.
//!
//! Assumed: the machine's [`Dma`] sees to the order, where a CPU or a compiler may change it: a descriptor and all that was
//! written before it is in memory when a register is written after it, and what is read after its control word is as the
//! device left it. Left out: finding the registers, which a device tree does (`qemu,fw-cfg-mmio`).
//!
//! Sources: QEMU `docs/specs/fw_cfg.rst`, `hw/nvram/fw_cfg.c` (`fw_cfg_init_mem_wide`).

use super::Key;
use super::registers::{Doorbell, Registers};
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::hal::{Clock, Dma, Memory, MemoryError};

/// The selected item's next byte.
const DATA: u64 = 0;
/// Selects an item, 16 bits, big-endian.
const SELECTOR: u64 = 8;
/// The descriptor's address, 64 bits, big-endian, or its high half; the write of all of it starts the transfer.
const ADDRESS: u64 = 16;
/// The descriptor's address, low half; the write starts the transfer.
const ADDRESS_LOW: u64 = 20;

/// A machine whose fw_cfg registers are in memory.
#[derive(Debug)]
pub struct Mapped<M> {
    machine: M,
    data: PhysAddr,
    selector: PhysAddr,
    address: PhysAddr,
    address_low: PhysAddr,
}

impl<M: Memory> Mapped<M> {
    /// `machine` with the registers from `base` on, a multiple of 8. The data register and the last one are read.
    ///
    /// # Errors
    /// [`MemoryError`] when these are no addresses of registers that the firmware may access.
    pub fn new(mut machine: M, base: PhysAddr) -> Result<Self, MemoryError> {
        let unreachable = MemoryError { range: PhysRange::empty_at(base) };
        if !base.is_aligned(Alignment::QWORD) {
            return Err(unreachable);
        }
        let register = |offset| base.checked_add(offset).ok_or(unreachable);
        let (data, address_low) = (register(DATA)?, register(ADDRESS_LOW)?);
        // If the first and the last can be accessed, those between can.
        machine.read_register8(data)?;
        machine.read_register32(address_low)?;
        Ok(Self { machine, data, selector: register(SELECTOR)?, address: register(ADDRESS)?, address_low })
    }

    /// The machine.
    pub const fn machine(&mut self) -> &mut M {
        &mut self.machine
    }
}

// No access fails, as `new` has tried them. If one did, it would be as with a device that is not there.
impl<M: Memory + Dma> Registers for Mapped<M> {
    fn select(&mut self, key: Key) {
        let _ = self.machine.write_register16(self.selector, key.get().to_be());
    }

    fn read_data(&mut self, into: &mut [u8]) {
        for byte in into {
            *byte = self.machine.read_register8(self.data).unwrap_or(u8::MAX);
        }
    }

    fn load_data(&mut self, to: PhysRange) -> Result<(), MemoryError> {
        self.machine.check_device_range(to)?;
        let mut piece = [0; 64];
        let mut at = to.start();
        while at < to.end() {
            let len = to.end().get().saturating_sub(at.get()).min(piece.len() as u64);
            let (piece, _) = piece.split_at_mut(len as usize);
            self.read_data(piece);
            self.machine.write(at, piece)?;
            at = at.checked_add(len).ok_or(MemoryError { range: to })?;
        }
        Ok(())
    }

    fn read_dma_address_high(&mut self) -> [u8; 4] {
        self.machine.read_register32(self.address).unwrap_or(u32::MAX).to_le_bytes()
    }

    fn forget_dma_address(&mut self) {
        // Both halves are always written.
    }

    fn write_dma_address(&mut self, descriptor: PhysAddr, doorbell: Doorbell) {
        let at = descriptor.get();
        let _ = match doorbell {
            Doorbell::Once => self.machine.write_register64(self.address, at.to_be()),
            Doorbell::Halves => {
                let _ = self.machine.write_register32(self.address, ((at >> 32) as u32).to_be());
                self.machine.write_register32(self.address_low, (at as u32).to_be())
            }
        };
    }
}

impl<M: Dma> Dma for Mapped<M> {
    fn share(&mut self, buffer: &mut [u8]) -> PhysAddr {
        self.machine.share(buffer)
    }
    fn unshare(&mut self, buffer: &mut [u8]) {
        self.machine.unshare(buffer);
    }
    fn write_descriptor(&mut self, descriptor: [u8; 16]) -> PhysAddr {
        self.machine.write_descriptor(descriptor)
    }
    fn read_descriptor_control(&mut self) -> [u8; 4] {
        self.machine.read_descriptor_control()
    }
    fn check_device_range(&self, range: PhysRange) -> Result<(), MemoryError> {
        self.machine.check_device_range(range)
    }
}

impl<M: Clock> Clock for Mapped<M> {
    fn ticks(&mut self) -> u64 {
        self.machine.ticks()
    }
}
