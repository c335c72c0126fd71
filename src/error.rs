//! Why the boot failed, as a message for the user.

use crate::efi::boot_manager::tried::Tried;
use crate::{boot, fw_cfg, memory_map, resume, start_info};

/// The error that stopped the boot. Each prints as one sentence: what was asked, what was seen, what to change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The fw_cfg device.
    #[error(transparent)]
    FwCfg(#[from] fw_cfg::Error),
    /// The information from a host that starts the firmware by the PVH entry point.
    #[error(transparent)]
    StartInfo(#[from] start_info::Error),
    /// The memory map.
    #[error(transparent)]
    MemoryMap(#[from] memory_map::Error),
    /// The kernel, its place or its transfer.
    #[error(transparent)]
    Boot(#[from] boot::Error),
    /// There is no kernel, and no disk has booted.
    #[error(
        "nothing boots: {0}; give the machine a disk with a boot loader for UEFI, or give the host a kernel (QEMU -kernel, \
         libvirt <kernel>)"
    )]
    NothingBoots(Tried),
    /// A wake from suspend.
    #[error("the guest cannot wake up from suspend and boots again: {0}")]
    Resume(#[from] resume::Error),
}
