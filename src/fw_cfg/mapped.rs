//! The registers in memory, as QEMU's machines for Arm, RISC-V and LoongArch have them: [`Mapped`].
//!
//! The data register is read by bytes. QEMU's is 8 bytes wide, other hosts' is not, and nothing tells which it is; where
//! there is DMA, and all these machines have it, next to nothing is read there.
//!
//! Left out: finding the registers, which a device tree does (`qemu,fw-cfg-mmio`).
//!
//! Sources: QEMU `docs/specs/fw_cfg.rst`, `hw/nvram/fw_cfg.c` (`fw_cfg_init_mem_wide`).

use alloc::vec::Vec;

use super::Key;
use super::registers::Registers;
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::hal::dma::{Doorbell, Fault, Transfer};
use crate::hal::{Clock, Dma, Memory, MemoryError};

/// The selected item's next byte.
const DATA: u64 = 0;
/// Selects an item, 16 bits, big-endian.
const SELECTOR: u64 = 8;
/// The descriptor's address, 64 bits, big-endian, or its high half; the write of all of it starts the transfer.
const ADDRESS: u64 = 16;
/// Its low half; the write starts the transfer.
const ADDRESS_LOW: u64 = 20;

/// A machine whose fw_cfg registers are in memory.
#[derive(Debug)]
pub struct Mapped<M> {
    machine: M,
    data: PhysAddr,
    selector: PhysAddr,
    address: PhysAddr,
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
        let data = register(DATA)?;
        // If the first and the last can be accessed, those between can.
        machine.read_register8(data)?;
        machine.read_register32(register(ADDRESS_LOW)?)?;
        Ok(Self { machine, data, selector: register(SELECTOR)?, address: register(ADDRESS)? })
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

    fn doorbell(&self) -> Doorbell {
        Doorbell::Register(self.address)
    }
}

impl<M: Dma> Dma for Mapped<M> {
    fn pass(&mut self, transfer: Transfer, len: u32) -> Result<(), Fault> {
        self.machine.pass(transfer, len)
    }
    fn load(&mut self, transfer: Transfer, to: PhysRange) -> Result<(), Fault> {
        self.machine.load(transfer, to)
    }
    fn read_list(&mut self, transfer: Transfer, into: &mut Vec<u8>) -> Result<(), Fault> {
        self.machine.read_list(transfer, into)
    }
    fn read_bytes(&mut self, transfer: Transfer, into: &mut [u8]) -> Result<(), Fault> {
        self.machine.read_bytes(transfer, into)
    }
    fn write_bytes(&mut self, transfer: Transfer, bytes: &[u8]) -> Result<(), Fault> {
        self.machine.write_bytes(transfer, bytes)
    }
    fn forget_address(&mut self) {
        // Both halves are always written.
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
