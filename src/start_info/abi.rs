//! The structures of a start by the PVH entry point, of a kernel and of the firmware itself: those of Xen's
//! `xen/include/public/arch-x86/hvm/start_info.h`, version 1. All fields are little-endian.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::memory_map::E820Entry;

/// `XEN_HVM_START_MAGIC_VALUE`.
pub const MAGIC: u32 = 0x336e_c578;
/// The version that added the memory map.
pub const VERSION: u32 = 1;

/// `struct hvm_start_info`. Addresses are physical; zero means absent.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of the source")]
pub struct Header {
    pub magic: U32,
    pub version: U32,
    pub flags: U32,
    pub nr_modules: U32,
    pub modlist_paddr: U64,
    pub cmdline_paddr: U64,
    pub rsdp_paddr: U64,
    pub memmap_paddr: U64,
    pub memmap_entries: U32,
    pub reserved: U32,
}

/// `struct hvm_modlist_entry`.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are those of the source")]
pub struct Module {
    pub paddr: U64,
    pub size: U64,
    pub cmdline_paddr: U64,
    pub reserved: U64,
}

/// `struct hvm_memmap_table_entry`, whose types are those of e820.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MapEntry {
    entry: E820Entry,
    reserved: U32,
}

impl MapEntry {
    /// The entry with these contents.
    #[must_use]
    pub const fn new(entry: E820Entry) -> Self {
        Self { entry, reserved: U32::ZERO }
    }

    /// Its contents.
    #[must_use]
    pub const fn as_e820(&self) -> E820Entry {
        self.entry
    }
}
