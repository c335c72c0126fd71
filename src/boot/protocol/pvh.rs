//! Kernels that are entered as Xen's PVH guests are: ELF files with a note that names a 32-bit entry. An uncompressed
//! `vmlinux` is one, FreeBSD's kernel, and many unikernels.
//!
//! The host has put such a kernel's segments into memory before the firmware starts. So its place is not chosen but held,
//! before anything else is put anywhere, and a kernel that lies where the firmware is cannot be booted.
//!
//! The entry's contract is Xen's `docs/misc/pvh.pandoc`, the structures are in [`crate::start_info::abi`].
//!
//! Left out: modules but for the initrd, a command line for it, and a screen, for which the structure has no field.

use alloc::boxed::Box;
use alloc::vec::Vec;

use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::addr::{PhysAddr, PhysRange};
use crate::boot::error::Error;
use crate::boot::extras::{Extras, Needs};
use crate::boot::handover::{Entry, Handover};
use crate::boot::loaded::{Images, Loaded};
use crate::boot::placed::PlacedKernel;
use crate::boot::room::{allocate_command_line, allocate_low, place_initrd};
use crate::boot::system_info::SystemInfo;
use crate::hal::HostAccess;
use crate::memory_map::{CAPACITY, MemoryMap};
use crate::start_info::abi::{self, Header, MapEntry, Module};
use crate::state::Boot;

/// Where the rest is to be put. No two parts overlap, and each is RAM that nothing else held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PvhPlan {
    kernel: PlacedKernel,
    /// The bytes of the initrd, if there is one.
    pub initrd: Option<PhysRange>,
    /// The bytes of the command line as the host counts them, and one more for a NUL in any case.
    pub command_line: PhysRange,
    /// Room for [`HvmStartInfo`].
    pub start_info: PhysRange,
}

impl PvhPlan {
    /// Finds a place for everything that goes with `kernel`, and holds it in `map` as `LOADER_DATA`. An initrd that is in
    /// memory stays there.
    ///
    /// # Errors
    /// [`Error::NoLowMemory`], [`Error::CommandLineDoesNotFit`], [`Error::InitrdDoesNotFit`]. Parts that fitted stay held
    /// in `map` then.
    pub fn new(kernel: PlacedKernel, needs: &Needs, map: &mut MemoryMap) -> Result<Self, Error> {
        let start_info = allocate_low(map, size_of::<HvmStartInfo>() as u64)?;
        let command_line = allocate_command_line(map, needs.command_line)?;
        // Linux takes 32 bits of the address.
        let space = PhysRange::LOW_4_GIB;
        let initrd = match (needs.initrd, needs.initrd_at) {
            (0, _) => None,
            (_, Some(place)) if space.contains(place) => Some(place),
            (len, _) => Some(place_initrd(space, len, map)?),
        };
        Ok(Self { kernel, initrd, command_line, start_info })
    }

    /// How the kernel is entered once everything is in its place.
    #[must_use]
    pub const fn handover(&self) -> Handover {
        Handover::new(Entry::Pvh(self.kernel.entry), self.start_info.start())
    }
}

/// Loads what goes with a kernel that is in memory, as [`crate::boot::load`] does.
#[cold]
pub fn load<M: HostAccess>(
    boot: &mut Boot<'_, M>,
    kernel: PlacedKernel,
    extras: &Extras<'_>,
    system: &SystemInfo<'_>,
) -> Result<Loaded, Error> {
    let Boot { machine, fw_cfg, map, .. } = boot;
    // Nothing of the kernel is to be transferred.
    let plan = PvhPlan::new(kernel, &extras.needs(0), map)?;
    extras.load(*machine, fw_cfg, plan.initrd, plan.command_line)?;
    let info = HvmStartInfo::new(&plan, map, system.rsdp)?;
    machine.write(plan.start_info.start(), info.bytes())?;
    let images = Images {
        setup: None,
        kernel: kernel.image,
        initrd: plan.initrd,
        modules: Vec::new(),
        command_line: plan.command_line,
    };
    let handover = plan.handover();
    log::info!(
        "ELF kernel, loaded by the host: {} KiB at {}, initrd {} KiB, {}",
        kernel.image.len() >> 10,
        kernel.image.start(),
        extras.initrd.len() >> 10,
        handover.entry
    );
    Ok(Loaded { images, handover })
}

/// `struct hvm_start_info` with the lists that it points to behind it, ready to be stored.
#[derive(Clone, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct HvmStartInfo {
    header: Header,
    module: Module,
    memory_map: [MapEntry; CAPACITY],
}

impl HvmStartInfo {
    /// What a kernel is told when the rest was loaded by `plan`, on a machine with this map (in which the plan is already
    /// held) and with the ACPI root pointer at `rsdp`.
    ///
    /// # Errors
    /// [`Error::HeapFull`].
    pub fn new(plan: &PvhPlan, map: &MemoryMap, rsdp: Option<PhysAddr>) -> Result<Box<Self>, Error> {
        let mut info = Self::new_box_zeroed().map_err(|_| Error::HeapFull)?;
        // The plan has room for all of it.
        let at = |offset: usize| plan.start_info.start().get().saturating_add(offset as u64);
        info.header.magic.set(abi::MAGIC);
        info.header.version.set(abi::VERSION);
        if let Some(initrd) = plan.initrd {
            info.header.nr_modules.set(1);
            info.header.modlist_paddr.set(at(core::mem::offset_of!(Self, module)));
            info.module.paddr.set(initrd.start().get());
            info.module.size.set(initrd.len());
        }
        info.header.cmdline_paddr.set(plan.command_line.start().get());
        info.header.rsdp_paddr.set(rsdp.map_or(0, PhysAddr::get));
        info.header.memmap_paddr.set(at(core::mem::offset_of!(Self, memory_map)));
        let mut entries = 0_u32;
        for (place, entry) in info.memory_map.iter_mut().zip(map.e820()) {
            *place = MapEntry::new(entry);
            // There are at most CAPACITY.
            entries = entries.saturating_add(1);
        }
        info.header.memmap_entries.set(entries);
        Ok(info)
    }

    /// The bytes to be stored.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

#[cfg(test)]
mod tests;
