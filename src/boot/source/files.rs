//! A kernel in named files of fw_cfg: under `opt/org.firstlight/`, or in `etc/boot/kernel`, where QEMU 10 puts the
//! unmodified kernel.
//!
//! No host modifies these files, so each is a whole kernel file, with setup code and the rest in one. They are looked
//! for only if there is no numbered kernel.
//!
//! Left out: `etc/boot/kernel` when there is a numbered kernel. It is the same kernel without the host's changes to the
//! header. They matter only to EFI programs ([`KernelFile::parts`]).

use crate::boot::error::Error;
use crate::boot::extras::{CommandLine, Extras};
use crate::boot::kernel_file::{KernelFile, UNMODIFIED};
use crate::boot::protocol::Kernel;
use crate::fw_cfg::FwCfg;
use crate::hal::HostAccess;

/// The files for a kernel; the first one counts.
const KERNELS: [&str; 2] = ["opt/org.firstlight/kernel", UNMODIFIED];
/// The file with an initrd.
const INITRD: &str = "opt/org.firstlight/initrd";
/// The file with a command line.
const COMMAND_LINE: &str = "opt/org.firstlight/cmdline";

/// The kernel in the first file that is not empty.
///
/// # Errors
/// [`Error::NoKernel`] if there is no such file, [`Error::EmptyFile`] if all are empty; else why the kernel cannot be
/// booted.
pub fn find<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg) -> Result<Kernel, Error> {
    let files = || KERNELS.into_iter().filter_map(|name| fw_cfg.find(name));
    let none = if files().next().is_some() { Error::EmptyFile } else { Error::NoKernel };
    let file = files().find(|file| !file.is_empty()).ok_or(none)?;
    Kernel::of_file(machine, fw_cfg, KernelFile::Whole(file.into())).map_err(|error| match error {
        Error::Elf => Error::ElfFile,
        error => error,
    })
}

/// Fills in a missing initrd or command line from named files.
pub fn complete(fw_cfg: &FwCfg, extras: &mut Extras<'_>) {
    if extras.initrd.is_empty()
        && let Some(file) = fw_cfg.find(INITRD)
    {
        extras.initrd = file.into();
    }
    if extras.command_line.is_empty()
        && let Some(file) = fw_cfg.find(COMMAND_LINE)
    {
        extras.command_line = CommandLine { text: file.into(), has_nul: false };
    }
}
