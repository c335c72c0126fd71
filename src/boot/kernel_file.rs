//! A kernel file as a source has it.

use super::blob::Blob;
use crate::addr::{PhysAddr, PhysRange};
use crate::fw_cfg::{FwCfg, Item, Key};
use crate::hal::HostAccess;

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
    /// The first `len` bytes: of a whole file as many as there are, of a divided one no more than the setup code has by its
    /// header. The host is not asked how long that is.
    #[must_use]
    pub fn first(self, len: u32) -> Blob<'static> {
        match self {
            Self::Whole(file) => file.split_at(len).0,
            Self::Divided { setup, .. } => Item::new(setup, len).into(),
        }
    }

    /// What is behind the `setup_len` bytes of setup code.
    #[must_use]
    pub fn code(self, setup_len: u32) -> Blob<'static> {
        match self {
            Self::Whole(file) => file.split_at(setup_len).1,
            Self::Divided { code, .. } => code.into(),
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
    pub fn host_address<M: HostAccess>(self, machine: &mut M, fw_cfg: &FwCfg) -> Option<PhysAddr> {
        match self {
            Self::Whole(_) => None,
            Self::Divided { address, .. } => Some(PhysAddr::new(fw_cfg.read_u32(machine, address).into())),
        }
    }
}
