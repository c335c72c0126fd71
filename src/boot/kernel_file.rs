//! A kernel file as a source has it.

use super::blob::Blob;
use super::error::Error;
use crate::addr::{PhysAddr, PhysRange};
use crate::fw_cfg::{FwCfg, Item, Key};
use crate::hal::Machine;

/// Where the bytes of a kernel file are. A Linux kernel file is the setup code and behind it the code that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFile {
    /// In one piece.
    Whole(Blob<'static>),
    /// In two items, as a host divides a bzImage.
    Divided {
        /// The item with the setup code, as the host has changed it.
        setup: Key,
        /// The item with the rest, and with what the host has appended to it.
        code: Item,
        /// The item with the address for which the host's pointers to what it has appended are.
        address: Key,
    },
}

impl KernelFile {
    /// The first `len` bytes: of a whole file as many as there are, of the setup code no more than it has by its header.
    #[must_use]
    pub fn first(&self, len: u32) -> Blob<'static> {
        match self {
            Self::Whole(file) => file.first(len),
            Self::Divided { setup, .. } => Blob::Item(Item::new(*setup, len)),
        }
    }

    /// The length in bytes of what is behind the `setup_len` bytes of setup code.
    #[must_use]
    pub const fn code_len(&self, setup_len: u32) -> u64 {
        match self {
            Self::Whole(file) => file.len().saturating_sub(setup_len as u64),
            Self::Divided { code, .. } => code.len() as u64,
        }
    }

    /// Loads what is behind the `setup_len` bytes of setup code to `to`.
    ///
    /// # Errors
    /// [`Error::FwCfg`].
    pub fn load_code<M: Machine>(
        &self,
        machine: &mut M,
        fw_cfg: &FwCfg,
        setup_len: u32,
        to: PhysAddr,
    ) -> Result<(), Error> {
        match self {
            Self::Whole(file) => file.load_from(machine, fw_cfg, setup_len, to).map(drop),
            Self::Divided { code, .. } => Ok(fw_cfg.load(machine, *code, to).map(drop)?),
        }
    }

    /// The range that the host has put the whole file in.
    #[must_use]
    pub const fn place(&self) -> Option<PhysRange> {
        match self {
            Self::Whole(file) => file.place(),
            Self::Divided { .. } => None,
        }
    }

    /// The address at which the host would have the code. To a whole file nothing is appended, and it has none.
    pub fn host_address<M: Machine>(&self, machine: &mut M, fw_cfg: &FwCfg) -> Option<PhysAddr> {
        match self {
            Self::Whole(_) => None,
            Self::Divided { address, .. } => Some(PhysAddr::new(fw_cfg.read_u32(machine, *address).into())),
        }
    }
}
