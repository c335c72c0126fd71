//! Where each part of a Linux kernel and of what goes with it is put.

use super::setup_data::Appended;
use crate::addr::{PhysAddr, PhysRange};
use crate::boot::handover::{Entry, Handover};

/// The size of `boot_params`.
pub const BOOT_PARAMS_LEN: u64 = 4096;

/// Where each part is to be put. No two overlap, and each is RAM that nothing else held. With [`Entry::LinuxLow`] that is
/// where it is made ready: see [`crate::boot::LowBlock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadPlan {
    /// The length in bytes of the kernel file's real-mode part, which is not loaded: 64-bit and 32-bit entry need none of
    /// it.
    pub setup_len: u32,
    /// The bytes of the protected-mode part of the kernel file.
    pub kernel: PhysRange,
    /// All that the kernel uses until it manages memory itself, above 1 MiB. Contains `kernel`, unless that is a zImage.
    pub kernel_run: PhysRange,
    /// The alignment that the kernel is to assume (`kernel_alignment`), where the plan has to choose one.
    pub kernel_alignment: Option<u32>,
    /// The bytes of the initrd, if there is one.
    pub initrd: Option<PhysRange>,
    /// The bytes of the command line as the host counts them, and one more for a NUL in any case.
    pub command_line: PhysRange,
    /// A page for [`super::BootParams`].
    pub boot_params: PhysRange,
    /// Room for the page tables of what is above 4 GiB, if anything is ([`Self::above_4_gib`]).
    pub page_tables: Option<PhysRange>,
    /// What the host has appended to the kernel for its `setup_data`, if it has.
    pub appended: Option<Appended>,
    /// Where the kernel is entered.
    pub entry: Entry,
}

impl LoadPlan {
    /// What has to be mapped: that of kernel and initrd which is above 4 GiB.
    pub fn above_4_gib(&self) -> impl Iterator<Item = PhysRange> {
        parts_above_4_gib(self.kernel_run, self.initrd)
    }

    /// How the kernel is entered once everything is in its place.
    #[must_use]
    pub fn handover(&self) -> Handover {
        Handover::new(self.entry, self.at_entry(self.boot_params.start()))
    }

    /// The address that the byte now at `address` has when the kernel runs.
    pub(super) fn at_entry(&self, address: PhysAddr) -> PhysAddr {
        match self.entry {
            Entry::LinuxLow { block, .. } => block.at_entry(address),
            _ => address,
        }
    }

    /// Where the protected-mode part of the kernel begins when it runs, for a 32-bit entry that is elsewhere in it the
    /// entry (`code32_start`).
    pub(super) fn code32_start(&self) -> PhysAddr {
        match self.entry {
            Entry::Linux32(at) | Entry::LinuxLow { at, .. } => at,
            _ => self.kernel.start(),
        }
    }
}

/// The parts of which some is above 4 GiB.
pub fn parts_above_4_gib(kernel: PhysRange, initrd: Option<PhysRange>) -> impl Iterator<Item = PhysRange> {
    [Some(kernel), initrd].into_iter().flatten().filter(|part| part.end() > PhysRange::LOW_4_GIB.end())
}
