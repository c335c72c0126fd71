//! A region of memory, and the most regions that a map has.

use uefi_raw::table::boot::MemoryType;

use crate::addr::PhysRange;

/// The most regions of a map: twice what `boot_params` has room for, and what fits into the heap of a wake.
pub const CAPACITY: usize = 256;
/// How many regions a host may fill. The rest of [`CAPACITY`] is for what the firmware cuts out and allocates.
pub const HOST_CAPACITY: usize = CAPACITY - 32;

/// A range of memory of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The range; never empty.
    pub range: PhysRange,
    /// The kind.
    pub kind: MemoryType,
}

impl Region {
    /// Its free memory inside `within`.
    pub(super) fn free_part(&self, within: PhysRange) -> Option<PhysRange> {
        if self.kind == MemoryType::CONVENTIONAL { self.range.intersection(within) } else { None }
    }
}
