//! A region of memory, and how many of them a map has.

use uefi_raw::table::boot::MemoryType;

use crate::addr::PhysRange;

/// The most regions a map holds: twice what `boot_params` has room for, and as many as the heap of a wake has.
pub const CAPACITY: usize = 256;
/// How many regions a host may fill; the rest of [`CAPACITY`] is for what the firmware cuts out and allocates.
pub const HOST_CAPACITY: usize = CAPACITY - 32;

/// A run of memory of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where it is; never empty.
    pub range: PhysRange,
    /// What it is.
    pub kind: MemoryType,
}

impl Region {
    /// The free memory of it inside `within`.
    pub(super) fn free_part(&self, within: PhysRange) -> Option<PhysRange> {
        if self.kind == MemoryType::CONVENTIONAL { self.range.intersection(within) } else { None }
    }
}
