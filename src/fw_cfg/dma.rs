//! DMA: the control words, and which control word and doorbell each host accepts.
//!
//! The machine does the transfer itself ([`crate::hal::dma`]).

use bitflags::bitflags;

use super::{Error, Key};
use crate::hal::FwCfgRegisters;
use crate::hal::dma::Fault;

bitflags! {
    /// The control word, without the key, which is in bits 16 to 31.
    #[derive(Clone, Copy)]
    struct Control: u32 {
        const READ = 1 << 1;
        const SKIP = 1 << 2;
        /// Select the item of the key first.
        const SELECT = 1 << 3;
        const WRITE = 1 << 4;
    }
}

/// What the device does with the memory that it is lent.
#[derive(Clone, Copy)]
pub enum Operation {
    /// Copy from the item to memory.
    Read,
    /// Skip bytes of the item.
    Skip,
    /// Copy from memory to the item.
    Write,
}

impl Operation {
    const fn control(self) -> Control {
        match self {
            Self::Read => Control::READ,
            Self::Skip => Control::SKIP,
            Self::Write => Control::WRITE,
        }
    }

    /// The control word to select the item of `key` and begin at its start.
    pub const fn selecting(self, key: Key) -> u32 {
        self.control().union(Control::SELECT).bits() | (key.get() as u32) << 16
    }

    /// The control word to continue in the selected item.
    pub const fn continuing(self) -> u32 {
        self.control().bits()
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
