//! Where each part of a Linux boot is put.

use super::setup_data::Appended;
use crate::addr::{PhysAddr, PhysRange};
use crate::boot::handover::{Entry, Handover};

/// The size of `boot_params`.
pub const BOOT_PARAMS_LEN: u64 = 4096;

/// Where each part is put. The parts do not overlap, and each is RAM that was free. With [`Entry::LinuxLow`], parts are
/// prepared there and moved later: see [`crate::boot::LowBlock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadPlan {
    /// The length in bytes of the kernel file's real-mode part. It is not loaded, because neither the 64-bit nor the
    /// 32-bit entry point needs it.
    pub setup_len: u32,
    /// The bytes of the protected-mode part of the kernel file.
    pub kernel: PhysRange,
    /// All memory that the kernel uses until it manages memory itself, above 1 MiB. Contains `kernel`, unless that is a
    /// zImage.
    pub kernel_run: PhysRange,
    /// The alignment that the kernel has to assume (`kernel_alignment`), if the plan has to choose one.
    pub kernel_alignment: Option<u32>,
    /// The bytes of the initrd, if there is one.
    pub initrd: Option<PhysRange>,
    /// The command line as the host counts it, and one more byte for a NUL.
    pub command_line: PhysRange,
    /// A page for [`super::BootParams`].
    pub boot_params: PhysRange,
    /// Room for the page tables of parts above 4 GiB, if there are any ([`Self::above_4_gib`]).
    pub page_tables: Option<PhysRange>,
    /// The place of what the host has appended to the kernel for its `setup_data`, if there is any.
    pub appended: Option<Appended>,
    /// The kernel's entry point.
    pub entry: Entry,
}

impl LoadPlan {
    /// The ranges of kernel and initrd above 4 GiB, which have to be mapped.
    pub fn above_4_gib(&self) -> impl Iterator<Item = PhysRange> {
        parts_above_4_gib(self.kernel_run, self.initrd)
    }

    /// How the kernel is entered after loading.
    #[must_use]
    pub fn handover(&self) -> Handover {
        Handover::new(self.entry, self.at_entry(self.boot_params.start()))
    }

    /// The address at which the kernel finds the byte that is at `address` now.
    pub(super) fn at_entry(&self, address: PhysAddr) -> PhysAddr {
        match self.entry {
            Entry::LinuxLow { block, .. } => block.at_entry(address),
            _ => address,
        }
    }

    /// Where the protected-mode part of the kernel begins when it runs. If the 32-bit entry point is elsewhere in it,
    /// the entry point (`code32_start`).
    pub(super) fn code32_start(&self) -> PhysAddr {
        match self.entry {
            Entry::Linux32(at) | Entry::LinuxLow { at, .. } => at,
            _ => self.kernel.start(),
        }
    }
}

/// The parts that reach above 4 GiB.
pub fn parts_above_4_gib(kernel: PhysRange, initrd: Option<PhysRange>) -> impl Iterator<Item = PhysRange> {
    [Some(kernel), initrd].into_iter().flatten().filter(|part| part.end() > PhysRange::LOW_4_GIB.end())
}
