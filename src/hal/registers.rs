//! The registers of fw_cfg's device, except the doorbell, which is in [`super::dma`]: ports on a PC, memory on other
//! machines.
//!
//! The two differ in address, width and byte order. The machine knows which it has, so other modules need no ports to
//! use the device.
//!
//! Registers in memory are as on QEMU's machines for Arm, RISC-V and LoongArch. The data register is read byte by byte:
//! QEMU's is 8 bytes wide, other hosts' are not, and nothing tells them apart. All these machines have DMA, so it is
//! rarely read.
//!
//! Left out: finding registers in memory, which a device tree describes (`qemu,fw-cfg-mmio`).
//!
//! Sources: QEMU `docs/specs/fw_cfg.rst`, `hw/nvram/fw_cfg.c` (`fw_cfg_init_mem_wide`).

use super::{Dma, Memory, MemoryError};
use crate::addr::{Alignment, PhysAddr, PhysRange};

/// The port that selects an item, 16 bits, little-endian.
pub const SELECTOR: u16 = 0x510;
/// The port that returns the selected item's next byte. Only byte-wide reads are answered.
pub const DATA: u16 = 0x511;

/// A machine with the device's registers.
pub trait FwCfgRegisters {
    /// Selects the item of `key`, from its start.
    fn select(&mut self, key: u16);

    /// Reads the selected item's next bytes.
    fn read_data(&mut self, into: &mut [u8]);

    /// Reads the selected item's next bytes to guest memory.
    ///
    /// # Errors
    /// [`MemoryError`] if the firmware may not write the range. Then nothing is read.
    fn load_data(&mut self, to: PhysRange) -> Result<(), MemoryError>;

    /// The high half of the DMA address register as it reads, in byte order.
    fn read_dma_address_high(&mut self) -> [u8; 4];
}

/// The addresses of registers in memory, for machines that have them there.
///
/// No access fails, because [`Self::new`] has tried them. If one did, the effect would be that of an absent device.
#[derive(Clone, Copy, Debug)]
pub struct MemoryRegisters {
    /// The selected item's next byte.
    data: PhysAddr,
    /// Selects an item, 16 bits, big-endian.
    selector: PhysAddr,
    /// The descriptor's address, 64 bits, big-endian, or its high half. Writing all 64 bits starts the transfer.
    address: PhysAddr,
    /// The low half of the address. Writing it starts the transfer.
    address_low: PhysAddr,
}

impl MemoryRegisters {
    /// The registers from `base` on, a multiple of 8. Reads the data register and the last register.
    ///
    /// # Errors
    /// [`MemoryError`] if the firmware may not access registers at these addresses.
    pub fn new(machine: &mut impl Memory, base: PhysAddr) -> Result<Self, MemoryError> {
        let unreachable = MemoryError { range: PhysRange::empty_at(base) };
        if !base.is_aligned(Alignment::QWORD) {
            return Err(unreachable);
        }
        let register = |offset| base.checked_add(offset).ok_or(unreachable);
        let this = Self { data: base, selector: register(8)?, address: register(16)?, address_low: register(20)? };
        // If the first and the last can be accessed, so can those between.
        machine.read_register8(this.data)?;
        machine.read_register32(this.address_low)?;
        Ok(this)
    }

    /// The registers that take a descriptor's address: the high half or all of it, and the low half. Only the machine
    /// has access to them ([`super::dma`]).
    #[must_use]
    pub const fn doorbell(self) -> (PhysAddr, PhysAddr) {
        (self.address, self.address_low)
    }

    /// See [`FwCfgRegisters::select`].
    pub fn select(self, machine: &mut impl Memory, key: u16) {
        let _ = machine.write_register16(self.selector, key.to_be());
    }

    /// See [`FwCfgRegisters::read_data`].
    pub fn read_data(self, machine: &mut impl Memory, into: &mut [u8]) {
        for byte in into {
            *byte = machine.read_register8(self.data).unwrap_or(u8::MAX);
        }
    }

    /// See [`FwCfgRegisters::load_data`].
    ///
    /// # Errors
    /// As there.
    pub fn load_data(self, machine: &mut (impl Memory + Dma), to: PhysRange) -> Result<(), MemoryError> {
        machine.check_device_range(to)?;
        let mut piece = [0; 64];
        let mut at = to.start();
        while at < to.end() {
            let len = to.end().get().saturating_sub(at.get()).min(piece.len() as u64);
            let (piece, _) = piece.split_at_mut(len as usize);
            self.read_data(machine, piece);
            machine.write(at, piece)?;
            at = at.checked_add(len).ok_or(MemoryError { range: to })?;
        }
        Ok(())
    }

    /// See [`FwCfgRegisters::read_dma_address_high`].
    pub fn read_dma_address_high(self, machine: &mut impl Memory) -> [u8; 4] {
        machine.read_register32(self.address).unwrap_or(u32::MAX).to_le_bytes()
    }
}
