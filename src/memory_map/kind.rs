//! What a kernel may do with each kind of memory.

use uefi_raw::table::boot::MemoryType;

use super::e820::{self, E820Entry};

/// Whether the kernel may use memory of this kind freely once it runs (see [`E820Entry::RAM`]).
#[inline]
pub fn is_ram(kind: MemoryType) -> bool {
    e820::type_of(kind) == E820Entry::RAM
}

/// The more restrictive kind, or `old` if both are equally restrictive.
#[inline]
pub fn stricter(old: MemoryType, new: MemoryType) -> MemoryType {
    if strictness(new) > strictness(old) { new } else { old }
}

/// How restrictive a kind is.
#[inline]
pub fn strictness(kind: MemoryType) -> u8 {
    match kind {
        MemoryType::CONVENTIONAL => 0,
        kind if is_ram(kind) => 1,
        MemoryType::PERSISTENT_MEMORY => 2,
        MemoryType::ACPI_RECLAIM => 3,
        MemoryType::ACPI_NON_VOLATILE => 4,
        MemoryType::UNUSABLE => 6,
        _ => 5,
    }
}
