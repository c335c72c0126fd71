//! A kernel file as a source has it.

use super::blob::Blob;
use crate::addr::{PhysAddr, PhysRange};
use crate::fw_cfg::{FwCfg, Item, Key};
use crate::hal::HostAccess;

/// Where the bytes of a kernel file are. A Linux kernel file is setup code, followed by the code that is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelFile {
    /// In one piece.
    Whole(Blob<'static>),
    /// In two items, because the host divides a bzImage.
    Divided {
        /// The item with the setup code, as modified by the host.
        setup: Key,
        /// The item with the rest, followed by what the host has appended.
        code: Item,
        /// The item with the kernel's address for which the host has computed pointers to what it has appended.
        address: Key,
    },
}

impl KernelFile {
    /// The first `len` bytes. A whole file may be shorter. Of a divided file, `len` must not exceed the setup code, because
    /// the host is not asked for its length.
    #[must_use]
    pub fn first(self, len: u32) -> Blob<'static> {
        match self {
            Self::Whole(file) => file.split_at(len).0,
            Self::Divided { setup, .. } => Item::new(setup, len).into(),
        }
    }

    /// What follows the `setup_len` bytes of setup code.
    #[must_use]
    pub fn code(self, setup_len: u32) -> Blob<'static> {
        match self {
            Self::Whole(file) => file.split_at(setup_len).1,
            Self::Divided { code, .. } => code.into(),
        }
    }

    /// The whole file, in one or two parts. The host is asked for the length of the setup code.
    pub fn parts<M: HostAccess>(self, machine: &mut M, fw_cfg: &FwCfg) -> [Blob<'static>; 2] {
        match self {
            Self::Whole(file) => [file, Blob::default()],
            Self::Divided { setup, code, .. } => {
                let len = fw_cfg.read_u32(machine, Key::SETUP_SIZE);
                [Item::new(setup, len).into(), code.into()]
            }
        }
    }

    /// The range that holds the whole file, if the host has put it into memory.
    #[must_use]
    pub const fn place(&self) -> Option<PhysRange> {
        match self {
            Self::Whole(file) => file.place(),
            Self::Divided { .. } => None,
        }
    }

    /// The address at which the host expects the code. `None` for a whole file, to which nothing is appended.
    pub fn host_address<M: HostAccess>(self, machine: &mut M, fw_cfg: &FwCfg) -> Option<PhysAddr> {
        match self {
            Self::Whole(_) => None,
            Self::Divided { address, .. } => Some(PhysAddr::new(fw_cfg.read_u32(machine, address).into())),
        }
    }
}
