//! The structures at the start of a PE file. All numbers are little-endian.
//!
//! Source: Microsoft, "PE Format" (learn.microsoft.com/windows/win32/debug/pe-format), "PE" below, with the section.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::MOST_SECTIONS;
use super::error::Error;

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

/// The index of the directory of certificates, whose "address" is an offset in the file.
pub const CERTIFICATE_DIRECTORY: usize = 4;
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

/// The headers of a file, found one after the other. Only what leads to them is checked.
pub struct Headers<'a> {
    pub coff: &'a CoffHeader,
    pub optional: &'a OptionalHeader,
    /// The offset of `optional` in the file.
    pub optional_at: usize,
    /// The directories that there are, of those that are defined.
    directories: &'a [u8],
    pub sections: &'a [SectionHeader],
    /// Where the section table ends.
    pub end: usize,
}

impl<'a> Headers<'a> {
    /// The headers at the start of a file of `file_len` bytes. `start` has its first [`super::MOST_HEADERS`] bytes, or all of a
    /// shorter file.
    ///
    /// # Errors
    /// [`Error::NotPe`], [`Error::Machine`], [`Error::Magic`], [`Error::TooManySections`], [`Error::HeadersTruncated`],
    /// [`Error::HeadersTooLong`].
    pub fn find(start: &'a [u8], file_len: u64) -> Result<Self, Error> {
        let rest = start.strip_prefix(DOS_MAGIC).ok_or(Error::NotPe)?;
        let at = rest.get(SIGNATURE_OFFSET.saturating_sub(DOS_MAGIC.len())..).and_then(<[u8]>::first_chunk);
        let at = u32::from_le_bytes(*at.ok_or(Error::NotPe)?) as usize;
        let rest = start.get(at..).and_then(|rest| rest.strip_prefix(SIGNATURE)).ok_or(Error::NotPe)?;
        let is_whole = start.len() as u64 >= file_len;
        let cut_off = if is_whole { Error::HeadersTruncated { file: file_len } } else { Error::HeadersTooLong };

        let (coff, rest) = CoffHeader::ref_from_prefix(rest).map_err(|_| cut_off)?;
        if coff.machine.get() != MACHINE_X86_64 {
            return Err(Error::Machine(coff.machine.get()));
        }
        let optional_at = start.len().saturating_sub(rest.len());
        let (optional, directories) = OptionalHeader::ref_from_prefix(rest).map_err(|_| cut_off)?;
        if optional.magic.get() != PE32_PLUS {
            return Err(Error::Magic(optional.magic.get()));
        }
        let sections_at = usize::from(coff.optional_header_len.get());
        let table = rest.get(sections_at..).filter(|_| sections_at >= size_of::<OptionalHeader>()).ok_or(cut_off)?;
        let count = coff.section_count.get();
        if usize::from(count) > MOST_SECTIONS {
            return Err(Error::TooManySections(count));
        }
        let (sections, after) =
            <[SectionHeader]>::ref_from_prefix_with_elems(table, usize::from(count)).map_err(|_| cut_off)?;
        let count = optional.directory_count.get().min(MOST_DIRECTORIES) as usize;
        let within = sections_at.saturating_sub(size_of::<OptionalHeader>());
        let within = within.min(count.saturating_mul(size_of::<Directory>()));
        let directories = directories.get(..within).unwrap_or_default();
        let end = start.len().saturating_sub(after.len());
        Ok(Self { coff, optional, optional_at, directories, sections, end })
    }

    /// A directory, if there is one with this index: its address and its length.
    pub fn directory(&self, index: usize) -> Option<(u32, u32)> {
        let bytes = self.directories.chunks_exact(size_of::<Directory>()).nth(index)?;
        let directory = Directory::ref_from_bytes(bytes).ok()?;
        Some((directory.address.get(), directory.len.get()))
    }
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
