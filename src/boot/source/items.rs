//! A kernel in the numbered items of fw_cfg: what a host is given by `-kernel`, `-initrd` and `-append`.
//!
//! QEMU tells the kinds apart by the file, and so which items there are (`hw/i386/x86.c`, `x86_load_linux`;
//! `hw/i386/multiboot.c`): an entry only with a kernel that is not a bzImage, and then setup code only with a PVH note. An
//! entry that is zero reads as one that is absent. What is in that setup code is not looked at: QEMU 7.2 keeps it on a stack,
//! and it is lost when it is read.
//!
//! After a start by the PVH entry the numbered kernel may be the firmware itself: the host was given it as the kernel. QEMU
//! gives its entry then, Cloud Hypervisor none. Such a kernel does not count.

use crate::addr::PhysAddr;
use crate::boot::elf;
use crate::boot::error::Error;
use crate::boot::extras::{CommandLine, Extras};
use crate::boot::kernel_file::KernelFile;
use crate::boot::placed::PlacedKernel;
use crate::boot::protocol::Kernel;
use crate::boot::protocol::multiboot::MultibootKernel;
use crate::fw_cfg::{FwCfg, Item, Key};
use crate::hal::HostAccess;
use crate::layout;
use crate::start_info::Start;

/// The numbered kernel.
///
/// # Errors
/// [`Error::NoKernel`] when there is none but the firmware itself; else why it cannot be booted.
pub fn find<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg, start: &Start) -> Result<Kernel, Error> {
    let size = fw_cfg.read_u32(machine, Key::KERNEL_SIZE);
    if size == 0 {
        return Err(Error::NoKernel);
    }
    let code = Item::new(Key::KERNEL_DATA, size);
    let file = KernelFile::Divided { setup: Key::SETUP_DATA, code, address: Key::KERNEL_ADDR };
    match Kernel::of_file(machine, fw_cfg, file) {
        Err(error @ (Error::Elf | Error::NotLinux { .. } | Error::RealModeOnly)) => {
            let entry = fw_cfg.read_u32(machine, Key::KERNEL_ENTRY);
            if matches!(start, Start::Pvh(_)) && is_own_image(machine, fw_cfg, entry) {
                return Err(Error::NoKernel);
            }
            placed(machine, fw_cfg, code, entry, error)
        }
        result => result,
    }
}

/// A kernel with a place and an entry, which only the host has read. `error` is why it is no other kernel.
#[cold]
fn placed<M: HostAccess>(
    machine: &mut M,
    fw_cfg: &FwCfg,
    image: Item,
    entry: u32,
    error: Error,
) -> Result<Kernel, Error> {
    let has_setup = fw_cfg.read_u32(machine, Key::SETUP_SIZE) != 0;
    // An entry that is absent. Without setup code it is the entry of a kernel for Multiboot.
    if has_setup && entry == 0 {
        return Err(error);
    }
    let start = PhysAddr::new(fw_cfg.read_u32(machine, Key::KERNEL_ADDR).into());
    let kernel = PlacedKernel::new(start, image.len(), PhysAddr::new(entry.into()))?;
    if has_setup {
        return Ok(Kernel::Pvh(kernel));
    }
    let info = initrd(machine, fw_cfg);
    Ok(Kernel::Multiboot(MultibootKernel::new(machine, fw_cfg, kernel, image, info)?))
}

/// The numbered initrd, unless it is not wanted, and the numbered command line.
pub fn extras<'a, M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg, with_initrd: bool) -> Extras<'a> {
    let initrd = if with_initrd { initrd(machine, fw_cfg) } else { Item::new(Key::INITRD_DATA, 0) };
    let command_line = Item::new(Key::CMDLINE_DATA, fw_cfg.read_u32(machine, Key::CMDLINE_SIZE));
    Extras { initrd: initrd.into(), command_line: CommandLine { text: command_line.into(), has_nul: true } }
}

/// The item with the initrd; with a kernel for Multiboot it has the Multiboot information.
pub fn initrd<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg) -> Item {
    Item::new(Key::INITRD_DATA, fw_cfg.read_u32(machine, Key::INITRD_SIZE))
}

/// Whether the numbered kernel is the firmware itself, by its entry: that of the host, or without one (zero) that of the file.
/// Nothing else is entered where the image is, since nothing else can be there.
#[cold]
fn is_own_image<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg, entry: u32) -> bool {
    let entry = match entry {
        0 => {
            let mut bytes = [0; elf::BYTES];
            fw_cfg.read(machine, Item::new(Key::SETUP_DATA, bytes.len() as u32), &mut bytes);
            elf::entry(&bytes)
        }
        entry => Some(PhysAddr::new(entry.into())),
    };
    entry.is_some_and(|entry| layout::LOADED_IMAGE.contains_addr(entry))
}
