//! Why a file is no image that can be started.

use core::fmt;

use crate::hal::MemoryError;

/// What is wrong with an image. Offsets and addresses are bytes from the start of the file or of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The file does not begin as a PE file does.
    NotPe,
    /// The file is for another machine (PE, "Machine Types").
    Machine(u16),
    /// The image is not PE32+: this is its magic number.
    Magic(u16),
    /// The image is for another subsystem than UEFI's (PE, "Windows Subsystem").
    Subsystem(u16),
    /// The file, of `file` bytes, ends within its headers.
    HeadersTruncated {
        /// The length of the file.
        file: u64,
    },
    /// The headers do not end within [`super::MOST_HEADERS`] bytes.
    HeadersTooLong,
    /// The length of the headers is less than they take, or more than the image.
    HeadersLength(u32),
    /// An alignment is no power of two.
    Alignment(u32),
    /// There are more sections than [`super::MOST_SECTIONS`].
    TooManySections(u16),
    /// The contents of a section are not all in the file.
    SectionTruncated {
        /// Its place in the section table, from zero on.
        section: u16,
        /// Where its contents end.
        end: u64,
        /// How long the file is.
        file: u64,
    },
    /// A section is not within the image, or lies over the headers.
    SectionOutside {
        /// Its place in the section table, from zero on.
        section: u16,
    },
    /// The entry point is in no section, or in one that is not executed.
    EntryOutside(u32),
    /// The relocations are not within the image, or do not end where they say.
    Relocations {
        /// Where what is wrong was found.
        at: u32,
    },
    /// A relocation of a type that images for x86-64 do not have (PE, "Base Relocation Types").
    RelocationType(u16),
    /// The image has no relocations and is not where it has to be.
    NotAtBase(u64),
    /// The image is in memory that the firmware may not access.
    Memory(MemoryError),
}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPe => f.write_str("the file is no EFI program: it does not begin as a PE file"),
            Self::Machine(machine) => {
                write!(f, "the EFI program is for another machine ({machine:#06x}); x86-64 is 0x8664")
            }
            Self::Magic(magic) => write!(f, "the EFI program has the magic number {magic:#06x}, not that of PE32+"),
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
            Self::Alignment(alignment) => write!(f, "the EFI program has an alignment of {alignment:#x}"),
            Self::TooManySections(count) => {
                write!(f, "the EFI program has {count} sections; at most {} are taken", super::MOST_SECTIONS)
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
                write!(f, "the EFI program has no relocations and {base:#x} is not free, where it would run")
            }
            Self::Memory(error) => write!(f, "the EFI program cannot be loaded: {error}"),
        }
    }
}

impl core::error::Error for Error {}
