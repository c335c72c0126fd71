//! A kernel in the numbered items of fw_cfg: what `-kernel`, `-initrd` and `-append` pass to a host.
//!
//! QEMU provides different items for each kind of kernel (`hw/i386/x86.c`, `x86_load_linux`; `hw/i386/multiboot.c`).
//! Only a kernel that is not a bzImage has an entry point, and of these only one with a PVH note has setup code. An
//! entry point of zero reads like an absent one. The firmware does not read that setup code: QEMU 7.2 keeps it on a
//! stack, and it is lost by the time it is read.
//!
//! After a start by the PVH entry point, the numbered kernel can be the firmware itself, because the host was started
//! with it as the kernel. QEMU then provides its entry point, Cloud Hypervisor does not. Such a kernel is ignored.

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
/// [`Error::NoKernel`] if there is none, or only the firmware itself; else why it cannot be booted.
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

/// A kernel that only the host has parsed, with a place and an entry point. `error` is why it is no other kernel.
fn placed<M: HostAccess>(
    machine: &mut M,
    fw_cfg: &FwCfg,
    image: Item,
    entry: u32,
    error: Error,
) -> Result<Kernel, Error> {
    let has_setup = fw_cfg.read_u32(machine, Key::SETUP_SIZE) != 0;
    // A PVH kernel has an entry point. Without setup code, zero is the entry point of a Multiboot kernel.
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

/// The numbered initrd, if `with_initrd`, and the numbered command line.
pub fn extras<'a, M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg, with_initrd: bool) -> Extras<'a> {
    let initrd = if with_initrd { initrd(machine, fw_cfg) } else { Item::new(Key::INITRD_DATA, 0) };
    let command_line = Item::new(Key::CMDLINE_DATA, fw_cfg.read_u32(machine, Key::CMDLINE_SIZE));
    Extras { initrd: initrd.into(), command_line: CommandLine { text: command_line.into(), has_nul: true } }
}

/// The item with the initrd. With a Multiboot kernel it has the Multiboot information.
pub fn initrd<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg) -> Item {
    Item::new(Key::INITRD_DATA, fw_cfg.read_u32(machine, Key::INITRD_SIZE))
}

/// Whether the numbered kernel is the firmware itself, by its entry point: the host's, or if that is zero, the file's.
/// No other kernel can have its entry point in the range of the firmware's image.
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
