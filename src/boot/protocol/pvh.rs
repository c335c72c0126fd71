//! Kernels with a PVH entry point, as Xen's PVH guests have: ELF files with a note that names a 32-bit entry point.
//! Examples are an uncompressed `vmlinux`, FreeBSD's kernel, and many unikernels.
//!
//! The host has put the kernel's segments into memory before the firmware starts. So their place is not chosen but
//! reserved first, before anything else is placed. A kernel that overlaps the firmware cannot be booted.
//!
//! Xen's `docs/misc/pvh.pandoc` specifies the entry point; the structures are in [`crate::start_info::abi`].
//!
//! Left out: modules other than the initrd, a command line for the initrd, and a framebuffer, for which the structure
//! has no field.

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

/// Where the other parts go. They do not overlap, and each is RAM that was free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PvhPlan {
    kernel: PlacedKernel,
    /// The bytes of the initrd, if there is one.
    pub initrd: Option<PhysRange>,
    /// The command line as the host counts it, and one more byte for a NUL.
    pub command_line: PhysRange,
    /// Room for [`HvmStartInfo`].
    pub start_info: PhysRange,
}

impl PvhPlan {
    /// Finds a place for the initrd, the command line and the information, and reserves it in `map` as `LOADER_DATA`.
    /// An initrd in memory stays there.
    ///
    /// # Errors
    /// [`Error::NoLowMemory`], [`Error::CommandLineDoesNotFit`], [`Error::InitrdDoesNotFit`]. Then the parts that did
    /// fit stay reserved in `map`.
    pub fn new(kernel: PlacedKernel, needs: &Needs, map: &mut MemoryMap) -> Result<Self, Error> {
        let start_info = allocate_low(map, size_of::<HvmStartInfo>() as u64)?;
        let command_line = allocate_command_line(map, needs.command_line)?;
        // Linux reads 32 bits of the address.
        let space = PhysRange::LOW_4_GIB;
        let initrd = match (needs.initrd, needs.initrd_at) {
            (0, _) => None,
            (_, Some(place)) if space.contains(place) => Some(place),
            (len, _) => Some(place_initrd(space, len, map)?),
        };
        Ok(Self { kernel, initrd, command_line, start_info })
    }

    /// How the kernel is entered after loading.
    #[must_use]
    pub const fn handover(&self) -> Handover {
        Handover::new(Entry::Pvh(self.kernel.entry), self.start_info.start())
    }
}

/// Loads the initrd and the command line for a kernel in memory, as [`Kernel::load`](super::Kernel::load) does.
#[cold]
pub fn load<M: HostAccess>(
    boot: &mut Boot<'_, M>,
    kernel: PlacedKernel,
    extras: &Extras<'_>,
    system: &SystemInfo<'_>,
) -> Result<Loaded, Error> {
    let Boot { machine, fw_cfg, map, .. } = boot;
    // The kernel needs no transfer.
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
    crate::info!(
        "ELF kernel, loaded by the host: {} KiB at {}, initrd {} KiB, {}",
        kernel.image.len() >> 10,
        kernel.image.start(),
        extras.initrd.len() >> 10,
        handover.entry
    );
    Ok(Loaded { images, handover })
}

/// `struct hvm_start_info`, followed by the lists that it points to, ready to be stored.
#[derive(Clone, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct HvmStartInfo {
    header: Header,
    module: Module,
    memory_map: [MapEntry; CAPACITY],
}

impl HvmStartInfo {
    /// The information for a kernel loaded by `plan`, on a machine with this map, with the ACPI root pointer at `rsdp`.
    /// The plan is already reserved in the map.
    ///
    /// # Errors
    /// [`Error::HeapFull`].
    #[inline(never)]
    pub fn new(plan: &PvhPlan, map: &MemoryMap, rsdp: Option<PhysAddr>) -> Result<Box<Self>, Error> {
        let mut info = Self::new_box_zeroed().map_err(|_| Error::HeapFull)?;
        // The plan has room for the whole structure.
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
        info.header.memmap_entries.set(map.fill_from_e820(&mut info.memory_map, MapEntry::new));
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
