//! How a kernel is entered. Each protocol has a file or a folder of its own, and this one has the list of them.
//!
//! A protocol reads what a kernel says of itself when the kernel is found. When it is loaded, the protocol makes a plan of
//! where everything goes, which touches nothing but the memory map, has the parts transferred, and tells the kernel.

pub mod linux;
pub mod multiboot;
pub mod pvh;

use self::linux::{LinuxKernel, SetupHeader};
use self::multiboot::MultibootKernel;
use super::error::Error;
use super::extras::Extras;
use super::kernel_file::KernelFile;
use super::loaded::Loaded;
use super::placed::PlacedKernel;
use super::system_info::SystemInfo;
use crate::addr::PhysRange;
use crate::fw_cfg::FwCfg;
use crate::hal::HostAccess;
use crate::memory_map::HostMap;
use crate::state::Boot;

/// A kernel that can be entered, by the protocol by which it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// A bzImage or zImage.
    Linux(LinuxKernel),
    /// An ELF file with a PVH note, which the host has loaded.
    Pvh(PlacedKernel),
    /// A kernel for Multiboot, to be loaded where the host says.
    Multiboot(MultibootKernel),
}

impl Kernel {
    /// The kernel in a file, by its first bytes.
    ///
    /// # Errors
    /// What the last protocol that takes files finds ([`LinuxKernel::of_file`]); [`Error::FwCfg`].
    #[inline(never)]
    pub fn of_file<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg, file: KernelFile) -> Result<Self, Error> {
        // Every bzImage has the boot sector and at least one more (boot.rst, `setup_sects`), so the host need not be asked
        // whether there are as many.
        let first = file.first(SetupHeader::BYTES as u32).read(machine, fw_cfg)?;
        LinuxKernel::of_file(machine, fw_cfg, file, &first).map(Self::Linux)
    }

    /// Keeps everything else in `map` off a kernel whose place the host has chosen.
    ///
    /// # Errors
    /// As for [`PlacedKernel::hold`].
    pub fn hold(&self, map: &mut HostMap) -> Result<(), Error> {
        match self {
            Self::Linux(_) => Ok(()),
            Self::Pvh(kernel) => kernel.hold(map),
            Self::Multiboot(kernel) => kernel.hold(map),
        }
    }

    /// Whether the kernel brings all that goes with it.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        match self {
            Self::Linux(_) | Self::Pvh(_) => false,
            Self::Multiboot(_) => true,
        }
    }

    /// The range of the kernel's file, if that is in memory.
    #[must_use]
    pub const fn place(&self) -> Option<PhysRange> {
        match self {
            Self::Linux(kernel) => kernel.place(),
            Self::Pvh(_) | Self::Multiboot(_) => None,
        }
    }

    /// Loads the kernel and what goes with it, and tells the kernel of it and of the machine. What the kernel is given is held
    /// in the map.
    ///
    /// # Errors
    /// [`Error::FwCfg`] when the host does not deliver; else why there is no place for a part.
    pub fn load<M: HostAccess>(
        &self,
        boot: &mut Boot<'_, M>,
        extras: &Extras<'_>,
        system: &SystemInfo<'_>,
    ) -> Result<Loaded, Error> {
        match self {
            Self::Linux(kernel) => linux::load(boot, kernel, extras, system),
            Self::Pvh(kernel) => pvh::load(boot, *kernel, extras, system),
            Self::Multiboot(kernel) => multiboot::load(boot, kernel, system),
        }
    }
}
