//! A kernel in memory: one of the modules of `hvm_start_info`, if the host starts the firmware by the PVH entry point.
//! Another module is the initrd.

use crate::addr::PhysRange;
use crate::boot::blob::Blob;
use crate::boot::error::Error;
use crate::boot::extras::{CommandLine, Extras};
use crate::boot::kernel_file::KernelFile;
use crate::boot::protocol::Kernel;
use crate::fw_cfg::{FwCfg, Item};
use crate::hal::HostAccess;
use crate::start_info::StartInfo;

/// The first module that is a kernel. If there are no modules, the kernel may be `initrd`, the numbered item: QEMU's
/// `pvh.bin` passes no modules.
///
/// # Errors
/// [`Error::NoKernelModule`]; else why the module that is a kernel cannot be booted.
pub fn find<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg, info: &StartInfo, initrd: Item) -> Result<Kernel, Error> {
    let item = Some(Blob::from(initrd)).filter(|item| !item.is_empty() && info.modules.is_empty());
    let mut none = Error::NoKernelModule { modules: info.modules.len() };
    for file in info.modules.iter().copied().map(Blob::Memory).chain(item) {
        match Kernel::of_file(machine, fw_cfg, KernelFile::Whole(file)) {
            // `FwCfg` is for memory that the firmware cannot read.
            Err(Error::Elf | Error::NotLinux { .. } | Error::Truncated { .. } | Error::FwCfg(_)) => {}
            // Any file with a boot sector looks like this. It is the error if no module is a kernel.
            Err(error @ Error::RealModeOnly) => none = error,
            kernel => return kernel,
        }
    }
    Err(none)
}

/// Fills in a missing initrd or command line from what the host has put into memory. The initrd is the first module
/// that is not the kernel. The kernel is at `kernel` if it is a module.
pub fn complete<'a>(info: &'a StartInfo, kernel: Option<PhysRange>, extras: &mut Extras<'a>) {
    if extras.initrd.is_empty()
        && let Some(&module) = info.modules.iter().find(|&&module| kernel != Some(module))
    {
        extras.initrd = Blob::Memory(module);
    }
    if extras.command_line.is_empty() {
        extras.command_line = CommandLine { text: Blob::Bytes(&info.command_line), has_nul: false };
    }
}
