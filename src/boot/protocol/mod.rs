//! How a kernel is entered. Each protocol has its own file or folder; this file lists them.
//!
//! When a kernel is found, its protocol parses the kernel's header. When it is loaded, the protocol plans where
//! everything goes, has the parts transferred, and writes the kernel's parameters. Planning changes nothing but the
//! memory map.

pub mod efi;
pub mod linux;
pub mod multiboot;
pub mod pvh;

use self::efi::{EfiKernel, OnDisk};
use self::linux::{LinuxKernel, SetupHeader};
use self::multiboot::MultibootKernel;
use super::error::Error;
use super::extras::Extras;
use super::file_kind::FileKind;
use super::kernel_file::KernelFile;
use super::loaded::Loaded;
use super::placed::PlacedKernel;
use super::system_info::SystemInfo;
use crate::addr::PhysRange;
use crate::efi::pe;
use crate::fw_cfg::FwCfg;
use crate::hal::HostAccess;
use crate::memory_map::HostMap;
use crate::state::Boot;

/// A kernel that can be entered, by its protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// A bzImage or zImage.
    Linux(LinuxKernel),
    /// An ELF file with a PVH note, which the host has loaded.
    Pvh(PlacedKernel),
    /// A Multiboot kernel, to be loaded where the host says.
    Multiboot(MultibootKernel),
    /// An EFI program.
    Efi(EfiKernel),
    /// None from the host. A disk may have an EFI program.
    OnDisk(OnDisk),
}

impl Kernel {
    /// Parses the kernel in a file by its first bytes.
    ///
    /// # Errors
    /// The error of the last protocol that accepts files ([`LinuxKernel::of_file`]); [`Error::FwCfg`].
    pub fn of_file<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg, file: KernelFile) -> Result<Self, Error> {
        // Every bzImage has the boot sector and at least one more (boot.rst, `setup_sects`), so the host need not be
        // asked for the length of the setup code.
        let first = file.first(SetupHeader::BYTES as u32).read(machine, fw_cfg)?;
        match LinuxKernel::of_file(machine, fw_cfg, file, &first) {
            Err(error @ Error::NotLinux { kind: Some(FileKind::Dos) }) => {
                match EfiKernel::of_file(machine, fw_cfg, file) {
                    Err(Error::Efi(pe::Error::NotPe)) => Err(error),
                    program => program.map(Self::Efi),
                }
            }
            linux => linux.map(Self::Linux),
        }
    }

    /// The kernel as it is entered by EFI, if it can be.
    ///
    /// # Errors
    /// As for [`EfiKernel::of_file`].
    #[cold]
    #[inline(never)]
    pub fn by_efi<M: HostAccess>(self, machine: &mut M, fw_cfg: &FwCfg) -> Result<Self, Error> {
        match self {
            Self::Linux(kernel) if kernel.is_efi_program() => {
                EfiKernel::of_file(machine, fw_cfg, kernel.file).map(Self::Efi)
            }
            kernel => Ok(kernel),
        }
    }

    /// Reserves the kernel's memory in `map`, if the host has chosen its place.
    ///
    /// # Errors
    /// As for [`PlacedKernel::reserve`].
    pub fn reserve(&self, map: &mut HostMap) -> Result<(), Error> {
        match self {
            Self::Linux(_) | Self::Efi(_) | Self::OnDisk(_) => Ok(()),
            Self::Pvh(kernel) => kernel.reserve(map),
            Self::Multiboot(kernel) => kernel.placed.reserve(map),
        }
    }

    /// Whether the kernel includes its command line and modules, or gets none.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        match self {
            Self::Linux(_) | Self::Pvh(_) | Self::Efi(_) => false,
            Self::Multiboot(_) | Self::OnDisk(_) => true,
        }
    }

    /// The range of the kernel's file, if the file is in memory.
    #[must_use]
    pub const fn place(&self) -> Option<PhysRange> {
        match self {
            Self::Linux(kernel) => kernel.file.place(),
            Self::Efi(kernel) => kernel.place(),
            Self::Pvh(_) | Self::Multiboot(_) | Self::OnDisk(_) => None,
        }
    }

    /// Finds a place for every part, has the host write each there in one transfer, and passes the addresses to the
    /// kernel. Parts that the host has put into memory are copied from there. An initrd in memory stays there if the
    /// kernel accepts it.
    ///
    /// Memory for the kernel is reserved in the map. Returns what went where.
    ///
    /// # Errors
    /// [`Error::FwCfg`] if the host does not deliver; else why a part has no place, or what is wrong with a loaded
    /// part.
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
            Self::Efi(kernel) => efi::load(boot, kernel, extras, system),
            Self::OnDisk(nothing) => nothing.load(boot, system),
        }
    }
}
