//! A boot without a kernel of the host's: boot services start without a program, and the boot manager looks for one on the disks.
//!
//! Nothing is read from a disk here. The disks are what the scan of buses found.

use crate::boot::error::Error;
use crate::boot::loaded::Loaded;
use crate::boot::system_info::SystemInfo;
use crate::hal::HostAccess;
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
    /// Why there is no kernel, if there is no disk; [`Error::NoEfiMemory`], [`Error::HeapFull`].
    #[cold]
    pub fn load<M: HostAccess>(self, _boot: &mut Boot<'_, M>, _system: &SystemInfo<'_>) -> Result<Loaded, Error> {
        Err(self.none)
    }
}
