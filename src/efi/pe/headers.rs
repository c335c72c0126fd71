//! The structures at the start of a PE file. All numbers are little-endian.
//!
//! Source: Microsoft, "PE Format" (learn.microsoft.com/windows/win32/debug/pe-format), "PE" below, with the section.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// "MZ", the first bytes of the file (PE, "MS-DOS Stub").
pub const DOS_MAGIC: &[u8] = b"MZ";
/// The offset of the signature's offset, which has 32 bits (PE, "Signature").
pub const SIGNATURE_OFFSET: usize = 0x3c;
/// The signature.
pub const SIGNATURE: &[u8] = b"PE\0\0";

/// PE, "COFF File Header".
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CoffHeader {
    pub machine: U16,
    pub section_count: U16,
    pub time: U32,
    pub symbols: U32,
    pub symbol_count: U32,
    pub optional_header_len: U16,
    pub characteristics: U16,
}

/// `IMAGE_FILE_MACHINE_AMD64`.
pub const MACHINE_X86_64: u16 = 0x8664;
/// `IMAGE_FILE_RELOCS_STRIPPED`: the image runs only at its preferred address.
pub const RELOCATIONS_STRIPPED: u16 = 1;

/// PE, "Optional Header", without its directories.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct OptionalHeader {
    pub magic: U16,
    pub linker_version: [u8; 2],
    pub code_len: U32,
    pub data_len: U32,
    pub zero_data_len: U32,
    pub entry_point: U32,
    pub code_base: U32,
    pub image_base: U64,
    pub section_alignment: U32,
    pub file_alignment: U32,
    pub system_version: [U16; 2],
    pub image_version: [U16; 2],
    pub subsystem_version: [U16; 2],
    pub win32_version: U32,
    pub image_len: U32,
    pub headers_len: U32,
    pub checksum: U32,
    pub subsystem: U16,
    pub dll_characteristics: U16,
    pub stack_and_heap: [U64; 4],
    pub loader_flags: U32,
    pub directory_count: U32,
}

/// `IMAGE_NT_OPTIONAL_HDR64_MAGIC`: PE32+.
pub const PE32_PLUS: u16 = 0x20b;
/// `IMAGE_SUBSYSTEM_EFI_APPLICATION`, `_BOOT_SERVICE_DRIVER` and `_RUNTIME_DRIVER`.
pub const SUBSYSTEM_APPLICATION: u16 = 10;
pub const SUBSYSTEM_BOOT_DRIVER: u16 = 11;
pub const SUBSYSTEM_RUNTIME_DRIVER: u16 = 12;
/// `IMAGE_DLLCHARACTERISTICS_NX_COMPAT`: data need not be executable, nor code writable.
pub const NX_COMPATIBLE: u16 = 0x100;

/// PE, "Optional Header Data Directories".
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Directory {
    pub address: U32,
    pub len: U32,
}

/// The index of the directory of base relocations.
pub const RELOCATION_DIRECTORY: usize = 5;
/// How many directories are defined.
pub const MOST_DIRECTORIES: u32 = 16;

/// PE, "Section Table".
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct SectionHeader {
    pub name: [u8; 8],
    pub virtual_len: U32,
    pub virtual_address: U32,
    pub raw_len: U32,
    pub raw_offset: U32,
    pub relocations: U32,
    pub line_numbers: U32,
    pub relocation_count: U16,
    pub line_number_count: U16,
    pub characteristics: U32,
}

/// `IMAGE_SCN_MEM_EXECUTE` and `IMAGE_SCN_MEM_WRITE`.
pub const EXECUTABLE: u32 = 1 << 29;
pub const WRITABLE: u32 = 1 << 31;

/// PE, "Base Relocation Block".
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RelocationBlock {
    pub page: U32,
    pub len: U32,
}

/// PE, "Base Relocation Types": the upper 4 bits of an entry.
pub const RELOCATION_ABSOLUTE: u16 = 0;
pub const RELOCATION_DIR64: u16 = 10;

const _: () = assert!(size_of::<CoffHeader>() == 20);
const _: () = assert!(size_of::<OptionalHeader>() == 112);
const _: () = assert!(size_of::<Directory>() == 8);
const _: () = assert!(size_of::<SectionHeader>() == 40);
const _: () = assert!(size_of::<RelocationBlock>() == 8);
