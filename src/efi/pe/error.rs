//! Why a file cannot be started as an EFI program.

use core::fmt;

use crate::hal::MemoryError;

/// The defect of an image. Offsets and addresses count from the start of the file or of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The file does not begin as a PE file.
    NotPe,
    /// The file is for another machine (PE, "Machine Types").
    Machine(u16),
    /// The image is not PE32+, but has this magic number.
    Magic(u16),
    /// The image is for another subsystem than UEFI (PE, "Windows Subsystem").
    Subsystem(u16),
    /// The file, of `file` bytes, ends within its headers.
    HeadersTruncated {
        /// The length of the file.
        file: u64,
    },
    /// The headers do not end within [`super::MOST_HEADERS`] bytes.
    HeadersTooLong,
    /// The stated length of the headers is shorter than they are, or longer than the image.
    HeadersLength(u32),
    /// An alignment is not a power of two.
    Alignment(u32),
    /// There are more sections than [`super::MOST_SECTIONS`].
    TooManySections(u16),
    /// The file ends before the contents of a section.
    SectionTruncated {
        /// Its index in the section table.
        section: u16,
        /// Where its contents end.
        end: u64,
        /// The length of the file.
        file: u64,
    },
    /// A section is outside the image, or overlaps the headers.
    SectionOutside {
        /// Its index in the section table.
        section: u16,
    },
    /// The entry point is in no section, or in one that is not executable.
    EntryOutside(u32),
    /// The relocations are outside the image, or a block has an impossible length.
    Relocations {
        /// Where the defect is.
        at: u32,
    },
    /// A relocation has a type that does not occur on x86-64 (PE, "Base Relocation Types").
    RelocationType(u16),
    /// The image has no relocations and is not at this address, for which it is linked.
    NotAtBase(u64),
    /// The image is in memory that the firmware may not access.
    Memory(MemoryError),
}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

impl Error {
    /// What to change.
    const fn remedy(&self) -> &'static str {
        match self {
            Self::NotPe => "use an EFI program, a bzImage or an ELF file",
            Self::Machine(_) | Self::Magic(_) => "use one for x86-64",
            Self::Subsystem(_) => "use an EFI application, such as a unified kernel image",
            Self::HeadersTruncated { .. } | Self::SectionTruncated { .. } => "copy it again",
            Self::NotAtBase(_) => "link it with relocations, or give the machine more memory",
            Self::Memory(_) => "give the machine more memory",
            Self::HeadersTooLong
            | Self::HeadersLength(_)
            | Self::Alignment(_)
            | Self::TooManySections(_)
            | Self::SectionOutside { .. }
            | Self::EntryOutside(_)
            | Self::Relocations { .. }
            | Self::RelocationType(_) => "build or copy it again",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPe => f.write_str("the file is no EFI program: it does not begin as a PE file"),
            Self::Machine(machine) => {
                let name = match machine {
                    0x014c => "32-bit x86",
                    0xaa64 => "64-bit Arm",
                    _ => "another machine",
                };
                write!(f, "the EFI program is for {name} ({machine:#06x}), not for x86-64 (0x8664)")
            }
            Self::Magic(magic) => write!(f, "the EFI program has the magic number {magic:#06x}, and PE32+ has 0x020b"),
            Self::Subsystem(subsystem) => {
                write!(f, "the program is not for UEFI: its subsystem is {subsystem}, not 10, 11 or 12")
            }
            Self::HeadersTruncated { file } => {
                write!(f, "the EFI program is cut off: its {file} bytes end within its headers")
            }
            Self::HeadersTooLong => {
                write!(f, "the EFI program's headers do not end within {} bytes", super::MOST_HEADERS)
            }
            Self::HeadersLength(len) => {
                write!(f, "the EFI program says that its headers have {len} bytes, which cannot be")
            }
            Self::Alignment(alignment) => {
                write!(f, "the EFI program has an alignment of {alignment:#x}, which is no power of two")
            }
            Self::TooManySections(count) => {
                write!(f, "the EFI program has {count} sections, and at most {} are taken", super::MOST_SECTIONS)
            }
            Self::SectionTruncated { section, end, file } => {
                write!(f, "the EFI program is cut off: section {section} ends at {end:#x}, the file at {file:#x}")
            }
            Self::SectionOutside { section } => {
                write!(f, "section {section} of the EFI program is outside the image, or over its headers")
            }
            Self::EntryOutside(at) => write!(f, "the EFI program's entry point {at:#x} is in no section with code"),
            Self::Relocations { at } => write!(f, "the EFI program's relocations are broken at {at:#x}"),
            Self::RelocationType(kind) => write!(f, "the EFI program has a relocation of the unknown type {kind}"),
            Self::NotAtBase(base) => {
                write!(f, "the EFI program has no relocations, and {base:#x}, where it would run, is not free")
            }
            Self::Memory(error) => write!(f, "the EFI program cannot be loaded: {error}"),
        }?;
        write!(f, "; {}", self.remedy())
    }
}

impl core::error::Error for Error {}
