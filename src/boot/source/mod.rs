//! Where a kernel, its initrd and its command line come from. Each source has its own file; this file lists them.
//!
//! A source has a function that finds its kernel, and one that fills in an initrd or a command line that no earlier
//! source has. Sources put nothing into memory.

mod files;
mod items;
mod modules;

use super::error::Error;
use super::extras::Extras;
use super::protocol::Kernel;
use super::protocol::efi::OnDisk;
use crate::efi::request::Request;
use crate::fw_cfg::FwCfg;
use crate::hal::HostAccess;
use crate::memory_map::HostMap;
use crate::start_info::Start;

/// A source of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// The numbered items of fw_cfg.
    Items,
    /// Named files of fw_cfg.
    Files,
    /// The modules of a host that starts the firmware by the PVH entry point.
    Modules,
    /// The disks, where a boot manager looks once boot services run.
    Disks,
}

/// The sources in their order: the first kernel counts, and the first initrd and the first command line.
const SOURCES: [Source; 4] = [Source::Items, Source::Files, Source::Modules, Source::Disks];

/// A kernel with its initrd and command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// The kernel.
    pub kernel: Kernel,
    /// The initrd and the command line.
    pub extras: Extras<'a>,
    /// What the host wants of EFI.
    pub request: Request,
}

impl<'a> Payload<'a> {
    /// Finds what the host wants booted. If the host has chosen the kernel's place, that memory is reserved in `map`.
    ///
    /// # Errors
    /// [`Error::EmptyFile`] or [`Error::NoKernelModule`] if the host offers something that is no kernel; else why the first
    /// kernel cannot be booted; [`Error::FwCfg`] if the host does not deliver.
    pub fn of_host<M: HostAccess>(
        machine: &mut M,
        fw_cfg: &FwCfg,
        start: &'a Start,
        map: &mut HostMap,
    ) -> Result<Self, Error> {
        let (kernel, source) = find_kernel(machine, fw_cfg, start)?;
        let request = Request::of_host(machine, fw_cfg);
        let kernel = if request == Request::On { kernel.by_efi(machine, fw_cfg)? } else { kernel };
        kernel.reserve(map)?;
        let extras =
            if kernel.is_complete() { Extras::default() } else { find_extras(machine, fw_cfg, start, &kernel, source) };
        Ok(Self { kernel, extras, request })
    }
}

impl Payload<'_> {
    /// Whether the kernel finds EFI tables: if the host asks for them, and if it is an EFI program.
    #[must_use]
    pub fn wants_efi(&self) -> bool {
        self.request != Request::Off || matches!(self.kernel, Kernel::Efi(_) | Kernel::OnDisk(_))
    }
}

/// The first kernel, and its source: a disk if the host offers none.
fn find_kernel<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg, start: &Start) -> Result<(Kernel, Source), Error> {
    let mut none = Error::NoKernel;
    for source in SOURCES {
        let kernel = match (source, start) {
            (Source::Items, _) => items::find(machine, fw_cfg, start),
            (Source::Files, _) => files::find(machine, fw_cfg),
            (Source::Modules, Start::Pvh(info)) => {
                let initrd = items::initrd(machine, fw_cfg);
                modules::find(machine, fw_cfg, info, initrd)
            }
            (Source::Modules, Start::Reset) => Err(Error::NoKernel),
            (Source::Disks, _) if is_nothing(none) => Ok(Kernel::OnDisk(OnDisk::new(none))),
            (Source::Disks, _) => Err(Error::NoKernel),
        };
        match kernel {
            // Another source may have one.
            Err(Error::NoKernel) => {}
            Err(error @ (Error::EmptyFile | Error::NoKernelModule { .. })) => none = error,
            Err(error) => return Err(error),
            Ok(kernel) => return Ok((kernel, source)),
        }
    }
    Err(none)
}

/// Whether the host offers nothing to boot. Something that is no kernel is the user's mistake, and no disk hides it.
const fn is_nothing(error: Error) -> bool {
    matches!(error, Error::NoKernel | Error::NoKernelModule { modules: 0 })
}

/// The initrd and the command line for `kernel`, which is from `source`.
fn find_extras<'a, M: HostAccess>(
    machine: &mut M,
    fw_cfg: &FwCfg,
    start: &'a Start,
    kernel: &Kernel,
    source: Source,
) -> Extras<'a> {
    // With a kernel in memory, the numbered initrd may be that kernel.
    let mut extras = items::extras(machine, fw_cfg, source != Source::Modules);
    // Named files do not add to a numbered kernel.
    if source != Source::Items {
        files::complete(fw_cfg, &mut extras);
    }
    if let Start::Pvh(info) = start {
        modules::complete(info, kernel.place(), &mut extras);
    }
    extras
}
