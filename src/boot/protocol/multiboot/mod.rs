//! Kernels for Multiboot, as hosts pass them: GNU Mach, Xen, many hobby and teaching kernels.
//!
//! The host has read the file. It gives one item with the kernel as it is to be in memory, the list of modules, the
//! command lines and the modules, all for fixed addresses, and another with the information that the kernel is to find
//! (QEMU `hw/i386/multiboot.c`). The first goes where the host says. Of the second, [`HostInfo`] is what was understood;
//! all that it points to is checked to be in the first. Memory sizes, memory map and screen are the firmware's to add:
//! [`MultibootInfo`]. That goes to a place of the firmware's choosing, since nothing of the host's points to it.
//!
//! Source: the Multiboot specification, version 0.6.96; "section" below. All fields are little-endian.
//!
//! Left out: what no host gives (symbols, drives, a configuration table, APM, VBE), setting the mode that a kernel asks
//! for, VGA text mode, and Multiboot 2.

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
use crate::memory_map::HostMap;
use crate::state::Boot;

/// A kernel for Multiboot with its modules and all that the host tells of them, in one piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultibootKernel {
    /// Where the piece goes.
    placed: PlacedKernel,
    /// The item with the piece.
    item: Item,
    /// What the host tells of it.
    told: HostInfo,
    /// That of the piece which is the kernel itself.
    code: PhysRange,
}

impl MultibootKernel {
    /// The kernel that is to be at `placed`, with its bytes in `item` and the host's Multiboot information in `info`.
    ///
    /// # Errors
    /// [`Error::MultibootInfo`], [`Error::EntryOutside`] when the entry is none of the kernel's bytes.
    pub fn new<M: HostAccess>(
        machine: &mut M,
        fw_cfg: &FwCfg,
        placed: PlacedKernel,
        item: Item,
        info: Item,
    ) -> Result<Self, Error> {
        let mut bytes = [0; HostInfo::LEN];
        fw_cfg.read(machine, info, &mut bytes);
        let told = HostInfo::parse(&bytes, info.len())?;
        let code = told.kernel(placed.image);
        // The rest of the image may hold the entry as well, but not all of that is measured.
        // Both are below 4 GiB.
        PlacedKernel::new(code.start(), code.len() as u32, placed.entry)?;
        Ok(Self { placed, item, told, code })
    }

    /// Keeps everything else off it in `map`.
    ///
    /// # Errors
    /// As for [`PlacedKernel::hold`].
    pub fn hold(&self, map: &mut HostMap) -> Result<(), Error> {
        self.placed.hold(map)
    }
}

/// Loads a kernel as [`crate::boot::load`] does.
#[cold]
pub fn load<M: HostAccess>(
    boot: &mut Boot<'_, M>,
    kernel: &MultibootKernel,
    system: &SystemInfo<'_>,
) -> Result<Loaded, Error> {
    let Boot { machine, fw_cfg, map, .. } = boot;
    let MultibootKernel { placed, item, told, code } = kernel;
    let image = placed.image;
    let place = allocate_low(map, size_of::<MultibootInfo>() as u64)?;
    fw_cfg.load(*machine, *item, image.start())?;
    let command_line = told.command_line(*machine, image)?;
    let modules = told.modules(*machine, image)?;
    let info = MultibootInfo::new(told, place, map, system.framebuffer)?;
    machine.write(place.start(), info.bytes())?;
    let handover = Handover::new(Entry::Multiboot(placed.entry), place.start());
    log::info!(
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
