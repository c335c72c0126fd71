//! A boot without a kernel of the host's: boot services start without a program, and the boot manager looks for one on the disks.
//!
//! Nothing is read from a disk here. The disks are what the scan of buses found.

use alloc::vec::Vec;

use uefi_raw::Status;

use super::program::First;
use super::{allocate_stack, hand_over, map_all};
use crate::addr::PhysRange;
use crate::boot::error::Error;
use crate::boot::loaded::{Images, Loaded};
use crate::boot::system_info::SystemInfo;
use crate::hal::HostAccess;
use crate::heap;
use crate::state::Boot;

/// The host offers no kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDisk {
    /// What the sources of kernels say, for a machine that has no disk either.
    none: Error,
}

impl OnDisk {
    /// No source has a kernel, which is the error `none`.
    #[must_use]
    pub const fn new(none: Error) -> Self {
        Self { none }
    }

    /// Prepares boot services.
    ///
    /// # Errors
    /// Why there is no kernel, if there is no disk either; [`Error::NoEfiMemory`], [`Error::HeapFull`], [`Error::MemoryMap`].
    #[cold]
    pub fn load<M: HostAccess>(self, boot: &mut Boot<'_, M>, system: &SystemInfo<'_>) -> Result<Loaded, Error> {
        let mut disks = Vec::new();
        for &disk in system.disks {
            heap::push(&mut disks, disk).map_err(|_| Error::HeapFull)?;
        }
        if disks.is_empty() {
            return Err(self.none);
        }
        let sources = system.efi.ok_or(Error::EfiNotStarted(Status::UNSUPPORTED))?;
        map_all(boot.machine, boot.map)?;
        let stack = allocate_stack(boot.map)?;
        crate::info!("no kernel from the host: boot services start for its disks");
        let nothing = PhysRange::default();
        let images = Images { setup: None, kernel: nothing, initrd: None, modules: Vec::new(), command_line: nothing };
        Ok(Loaded { images, handover: hand_over(First::Disks(disks), stack, sources, system)? })
    }
}
