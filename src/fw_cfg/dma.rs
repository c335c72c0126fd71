//! DMA: the control words, and which control word and doorbell each host accepts.
//!
//! The machine does the transfer itself ([`crate::hal::dma`]).

use super::{Error, Key};
use crate::hal::FwCfgRegisters;
use crate::hal::dma::Fault;

/// What the device does with the memory that it is lent, as a bit of the control word.
#[derive(Clone, Copy)]
pub enum Operation {
    /// Copy from the item to memory.
    Read = 1 << 1,
    /// Skip bytes of the item.
    Skip = 1 << 2,
    /// Copy from memory to the item.
    Write = 1 << 4,
}

/// The bit of the control word that selects the item of the key first. The key is in bits 16 to 31.
const SELECT: u32 = 1 << 3;

impl Operation {
    /// The control word to select the item of `key` and begin at its start.
    pub const fn selecting(self, key: Key) -> u32 {
        self as u32 | SELECT | (key.get() as u32) << 16
    }

    /// The control word to continue in the selected item.
    pub const fn continuing(self) -> u32 {
        self as u32
    }
}

/// The error for the item of `key`.
pub const fn error(fault: Fault, key: Key) -> Error {
    match fault {
        Fault::Memory(error) => Error::Memory(error),
        Fault::Refused(control) => Error::Refused { key, control },
        Fault::Timeout(control) => Error::Timeout { key, control },
    }
}

/// Whether the address register reads as "QEMU CFG", as QEMU's does (`hw/nvram/fw_cfg.c`, `fw_cfg_dma_mem_read`). The
/// high half is sufficient: on other hosts it reads as an address.
pub fn has_qemu_signature(host: &mut impl FwCfgRegisters) -> bool {
    host.read_dma_address_high() == *b"QEMU"
}
