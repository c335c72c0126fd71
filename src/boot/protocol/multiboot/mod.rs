//! Multiboot kernels, as hosts pass them: GNU Mach, Xen, many hobby and teaching kernels.
//!
//! The host has read the file. It provides two items (QEMU `hw/i386/multiboot.c`). One has the kernel as it is in
//! memory, the list of modules, the command lines and the modules, all for fixed addresses. The firmware loads it where
//! the host says. The other has the Multiboot information, parsed as [`HostInfo`]. Its pointers are checked to point
//! into the first item. The firmware adds memory sizes, the memory map and the framebuffer ([`MultibootInfo`]), and
//! stores the information at an address of its choice, because none of the host's data points to it.
//!
//! Source: the Multiboot specification, version 0.6.96; "section" below. All fields are little-endian.
//!
//! Left out: what no host provides (symbols, drives, a configuration table, APM, VBE), setting the mode that a kernel
//! requests, VGA text mode, and Multiboot 2.

mod host_info;
mod info;

pub use self::host_info::HostInfo;
pub use self::info::MultibootInfo;
use crate::addr::PhysRange;
use crate::boot::error::Error;
use crate::boot::handover::{Entry, Handover};
use crate::boot::loaded::{Images, Loaded};
use crate::boot::placed::PlacedKernel;
use crate::boot::room::allocate_low;
use crate::boot::system_info::SystemInfo;
use crate::fw_cfg::{FwCfg, Item};
use crate::hal::HostAccess;
use crate::state::Boot;

/// A Multiboot kernel with its modules and the host's information about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultibootKernel {
    /// Where the host's item goes.
    pub(super) placed: PlacedKernel,
    /// The item with kernel and modules.
    item: Item,
    /// The host's Multiboot information.
    host: HostInfo,
    /// The part of the item that is the kernel itself.
    code: PhysRange,
}

impl MultibootKernel {
    /// The kernel for `placed`, with its bytes in `item` and the host's Multiboot information in `info`.
    ///
    /// # Errors
    /// [`Error::MultibootInfo`]; [`Error::EntryOutside`] if the entry point is outside the kernel.
    pub fn new<M: HostAccess>(
        machine: &mut M,
        fw_cfg: &FwCfg,
        placed: PlacedKernel,
        item: Item,
        info: Item,
    ) -> Result<Self, Error> {
        let mut bytes = [0; HostInfo::LEN];
        fw_cfg.read(machine, info, &mut bytes);
        let host = HostInfo::parse(&bytes, info.len())?;
        let code = host.kernel(placed.image);
        // The entry point may not be in the rest of the image, because not all of that is measured. Both ranges are
        // below 4 GiB.
        PlacedKernel::new(code.start(), code.len() as u32, placed.entry)?;
        Ok(Self { placed, item, host, code })
    }
}

/// Loads a kernel as [`Kernel::load`](super::Kernel::load) does.
#[cold]
pub fn load<M: HostAccess>(
    boot: &mut Boot<'_, M>,
    kernel: &MultibootKernel,
    system: &SystemInfo<'_>,
) -> Result<Loaded, Error> {
    let Boot { machine, fw_cfg, map, .. } = boot;
    let MultibootKernel { placed, item, host, code } = kernel;
    let image = placed.image;
    let place = allocate_low(map, size_of::<MultibootInfo>() as u64)?;
    fw_cfg.load(*machine, *item, image.start())?;
    let command_line = host.command_line(*machine, image)?;
    let modules = host.modules(*machine, image)?;
    let info = MultibootInfo::new(host, place, map, system.framebuffer)?;
    machine.write(place.start(), info.bytes())?;
    let handover = Handover::new(Entry::Multiboot(placed.entry), place.start());
    crate::info!(
        "kernel for Multiboot, loaded by {}: {} KiB at {} with {} modules, {}",
        fw_cfg.transport(*machine),
        image.len() >> 10,
        image.start(),
        modules.len(),
        handover.entry
    );
    let images = Images { setup: None, kernel: *code, initrd: None, modules, command_line };
    Ok(Loaded { images, handover })
}

#[cfg(test)]
mod tests;
