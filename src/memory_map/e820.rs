//! The map in the kernel's format: e820 entries.

use uefi_raw::table::boot::MemoryType;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::region::Region;

/// One e820 entry, 20 bytes, little-endian: `struct boot_e820_entry` of Linux
/// (`arch/x86/include/uapi/asm/bootparam.h`) and an entry of the fw_cfg file `etc/e820` (QEMU `hw/i386/e820.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct E820Entry {
    /// The first byte.
    pub addr: U64,
    /// The length in bytes.
    pub size: U64,
    /// The type (ACPI 6.5, section 15, table "Address Range Types").
    pub kind: U32,
}

impl E820Entry {
    /// `AddressRangeMemory`: RAM the kernel may use.
    pub const RAM: u32 = 1;
    /// `AddressRangeReserved`.
    pub const RESERVED: u32 = 2;
    /// `AddressRangeACPI`: RAM the kernel may use once it has read the ACPI tables in it.
    pub const ACPI: u32 = 3;
    /// `AddressRangeNVS`: the kernel does not use it, and saves it over a sleep.
    pub const NVS: u32 = 4;
    /// `AddressRangeUnusable`: RAM with errors.
    pub const UNUSABLE: u32 = 5;
    /// `AddressRangePersistentMemory`.
    pub const PERSISTENT: u32 = 7;
}

/// The e820 type of a UEFI memory type (ACPI 6.5, section 15.4 "UEFI Assumptions and Conventions", the mapping table).
/// `UNACCEPTED` has no e820 type there, and is not RAM until it is accepted.
#[inline]
pub fn type_of(kind: MemoryType) -> u32 {
    match kind {
        MemoryType::CONVENTIONAL
        | MemoryType::LOADER_CODE
        | MemoryType::LOADER_DATA
        | MemoryType::BOOT_SERVICES_CODE
        | MemoryType::BOOT_SERVICES_DATA => E820Entry::RAM,
        MemoryType::ACPI_RECLAIM => E820Entry::ACPI,
        MemoryType::ACPI_NON_VOLATILE => E820Entry::NVS,
        MemoryType::UNUSABLE => E820Entry::UNUSABLE,
        MemoryType::PERSISTENT_MEMORY => E820Entry::PERSISTENT,
        _ => E820Entry::RESERVED,
    }
}

/// The UEFI memory type of a host's `e820_type`; unknown types are reserved.
pub fn kind_of(e820_type: u32) -> MemoryType {
    match e820_type {
        E820Entry::RAM => MemoryType::CONVENTIONAL,
        E820Entry::ACPI => MemoryType::ACPI_RECLAIM,
        E820Entry::NVS => MemoryType::ACPI_NON_VOLATILE,
        E820Entry::UNUSABLE => MemoryType::UNUSABLE,
        E820Entry::PERSISTENT => MemoryType::PERSISTENT_MEMORY,
        _ => MemoryType::RESERVED,
    }
}

/// The regions as e820 entries. Adjacent regions of one e820 type are one entry.
pub fn entries(regions: &[Region]) -> impl Iterator<Item = E820Entry> + '_ {
    let mut regions = regions.iter();
    core::iter::from_fn(move || {
        let first = regions.next()?;
        let kind = type_of(first.kind);
        let start = first.range.start().get();
        let mut end = first.range.end().get();
        while let Some(next) = regions.as_slice().first()
            && next.range.start().get() == end
            && type_of(next.kind) == kind
        {
            end = next.range.end().get();
            regions.next();
        }
        // A region ends above its start.
        Some(E820Entry { addr: start.into(), size: end.wrapping_sub(start).into(), kind: kind.into() })
    })
}
