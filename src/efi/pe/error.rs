//! Why a file cannot be started as an EFI program.

use crate::hal::MemoryError;

/// The defect of an image. Offsets and addresses count from the start of the file or of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file does not begin as a PE file.
    #[error("the file is no EFI program: it does not begin as a PE file; use an EFI program, a bzImage or an ELF file")]
    NotPe,
    /// The file is for another machine (PE, "Machine Types").
    #[error(
        "the EFI program is for {name} ({0:#06x}), not for x86-64 (0x8664); use one for x86-64",
        name = machine_name(*.0)
    )]
    Machine(u16),
    /// The image is not PE32+, but has this magic number.
    #[error("the EFI program has the magic number {0:#06x}, and PE32+ has 0x020b; use one for x86-64")]
    Magic(u16),
    /// The image is for another subsystem than UEFI (PE, "Windows Subsystem").
    #[error(
        "the program is not for UEFI: its subsystem is {0}, not 10, 11 or 12; use an EFI application, such as a \
         unified kernel image"
    )]
    Subsystem(u16),
    /// The file, of `file` bytes, ends within its headers.
    #[error("the EFI program is cut off: its {file} bytes end within its headers; copy it again")]
    HeadersTruncated {
        /// The length of the file.
        file: u64,
    },
    /// The headers do not end within [`super::MOST_HEADERS`] bytes.
    #[error("the EFI program's headers do not end within {} bytes; build or copy it again", super::MOST_HEADERS)]
    HeadersTooLong,
    /// The stated length of the headers is shorter than they are, or longer than the image.
    #[error("the EFI program says that its headers have {0} bytes, which cannot be; build or copy it again")]
    HeadersLength(u32),
    /// An alignment is not a power of two.
    #[error("the EFI program has an alignment of {0:#x}, which is no power of two; build or copy it again")]
    Alignment(u32),
    /// There are more sections than [`super::MOST_SECTIONS`].
    #[error(
        "the EFI program has {0} sections, and at most {max} are taken; build or copy it again",
        max = super::MOST_SECTIONS
    )]
    TooManySections(u16),
    /// The file ends before the contents of a section.
    #[error("the EFI program is cut off: section {section} ends at {end:#x}, the file at {file:#x}; copy it again")]
    SectionTruncated {
        /// Its index in the section table.
        section: u16,
        /// Where its contents end.
        end: u64,
        /// The length of the file.
        file: u64,
    },
    /// A section is outside the image, or overlaps the headers.
    #[error(
        "section {section} of the EFI program is from {start:#x} to {end:#x}, and the image has room from {headers:#x} to \
         {image:#x}; build or copy it again, with its sections above its ImageBase and not over each other"
    )]
    SectionOutside {
        /// Its index in the section table.
        section: u16,
        /// Where it begins in memory, from the image's start.
        start: u32,
        /// Where it ends.
        end: u64,
        /// Where the headers end.
        headers: u32,
        /// Where the image ends.
        image: u32,
    },
    /// The entry point is in no section, or in one that is not executable.
    #[error("the EFI program's entry point {0:#x} is in no section with code; build or copy it again")]
    EntryOutside(u32),
    /// The relocations are outside the image, or a block has an impossible length.
    #[error("the EFI program's relocations are broken at {at:#x}; build or copy it again")]
    Relocations {
        /// Where the defect is.
        at: u32,
    },
    /// A relocation has a type that does not occur on x86-64 (PE, "Base Relocation Types").
    #[error("the EFI program has a relocation of the unknown type {0}; build or copy it again")]
    RelocationType(u16),
    /// The image has no relocations and is not at this address, for which it is linked.
    #[error(
        "the EFI program has no relocations, and {0:#x}, where it would run, is not free; link it with relocations, \
         or give the machine more memory"
    )]
    NotAtBase(u64),
    /// The certificates do not fit into what the file has behind its sections, or the file has 4 GiB or more.
    #[error(
        "the certificates of the EFI program, {len} bytes, have no room in its file of {file} bytes; build or copy it again"
    )]
    Certificates {
        /// Their length.
        len: u32,
        /// The length of the file.
        file: u64,
    },
    /// The image is in memory that the firmware may not access.
    #[error("the EFI program cannot be loaded: {0}; give the machine more memory")]
    Memory(#[from] MemoryError),
}

const fn machine_name(machine: u16) -> &'static str {
    match machine {
        0x014c => "32-bit x86",
        0xaa64 => "64-bit Arm",
        _ => "another machine",
    }
}
