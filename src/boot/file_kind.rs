//! Identifies common files that are not Linux kernels for x86 by magic number.
//!
//! For error messages only: the kind tells the reader what to change, and decides nothing else.

use core::fmt;

use super::elf;

/// A kind of file that is commonly passed as a kernel by mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// An ELF file for another machine.
    Elf {
        /// `e_machine` (System V ABI, "ELF Header").
        machine: u16,
    },
    /// Packed by gzip, xz or zstd.
    Packed,
    /// Linux for 64-bit Arm.
    Arm64,
    /// Linux for RISC-V.
    RiscV,
    /// A program for DOS. EFI programs begin as one, and are tried as such first.
    Dos,
    /// Text.
    Text,
}

/// The magic numbers of packed files: RFC 1952, 2.3.1; the .xz file format, 2.1.1.1; RFC 8878, 3.1.1.
const PACKED: [&[u8]; 3] = [b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
/// The offset of the magic number in kernels for Arm and RISC-V (Linux `Documentation/arch/arm64/booting.rst`, "Call
/// the kernel image"; `Documentation/arch/riscv/boot-image-header.rst`).
const IMAGE_MAGIC: usize = 0x38;
const ARM64: &[u8] = b"ARM\x64";
const RISC_V: &[u8] = b"RSC\x05";
/// The magic number of a program for DOS, and of an EFI program (PE format, "MS-DOS Stub").
const MZ: &[u8] = b"MZ";
/// The number of bytes that have to be text for a file to count as text. A shorter file has to be all text.
const TEXT: usize = 16;

impl FileKind {
    /// The kind of the file that begins with `start`. `None` for an ELF file for x86 and for an unknown file.
    pub(super) fn of(start: &[u8]) -> Option<Self> {
        let magic = start.get(IMAGE_MAGIC..).unwrap_or_default();
        let is_text = |&byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
        if start.starts_with(elf::MAGIC) {
            elf::machine(start).filter(|&machine| !elf::is_x86(machine)).map(|machine| Self::Elf { machine })
        } else if PACKED.iter().any(|magic| start.starts_with(magic)) {
            Some(Self::Packed)
        } else if magic.starts_with(ARM64) {
            Some(Self::Arm64)
        } else if magic.starts_with(RISC_V) {
            Some(Self::RiscV)
        } else if start.starts_with(MZ) {
            Some(Self::Dos)
        } else if !start.is_empty() && start.iter().take(TEXT).all(is_text) {
            Some(Self::Text)
        } else {
            None
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elf { machine } => write!(f, "an ELF file for another machine, number {machine}, not x86"),
            Self::Packed => f.write_str("a packed file, which has to be unpacked first"),
            Self::Arm64 => f.write_str("Linux for 64-bit Arm, not for x86"),
            Self::RiscV => f.write_str("Linux for RISC-V, not for x86"),
            Self::Dos => f.write_str("a program for DOS"),
            Self::Text => f.write_str("text"),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    /// Zeros with some bytes at `at`.
    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut file = std::vec![0; 0x290];
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    }

    #[test]
    fn every_kind_is_identified_by_its_whole_magic_number() {
        for (at, magic, kind) in [
            (0, &b"\x1f\x8b\x08"[..], FileKind::Packed),
            (0, b"\xfd7zXZ\0", FileKind::Packed),
            (0, b"\x28\xb5\x2f\xfd", FileKind::Packed),
            (0x38, b"ARM\x64", FileKind::Arm64),
            (0x38, b"RSC\x05", FileKind::RiscV),
            (0, b"MZ", FileKind::Dos),
        ] {
            let mut file = with(at, magic);
            assert_eq!(FileKind::of(&file), Some(kind));
            file[at] ^= 0x80;
            assert_eq!(FileKind::of(&file), None, "{kind:?}");
        }
        // Debian's kernel for Arm has an EFI stub.
        let mut arm = with(0, b"MZ");
        arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
        assert_eq!(FileKind::of(&arm), Some(FileKind::Arm64));
    }

    #[test]
    fn an_elf_file_for_x86_is_of_no_other_kind() {
        let elf = |machine: u8| {
            let mut file = with(0, b"\x7fELF");
            file[18] = machine;
            FileKind::of(&file)
        };
        assert_eq!([elf(3), elf(62)], [None; 2]);
        assert_eq!(elf(183), Some(FileKind::Elf { machine: 183 }));
        assert_eq!(FileKind::of(b"\x7fELF"), None);
    }

    #[test]
    fn text_of_any_length_is_identified() {
        for text in [&b"x"[..], b"#!/bin/sh\nexec true\n", b"\r\n\t"] {
            assert_eq!(FileKind::of(text), Some(FileKind::Text));
        }
        for other in [&b""[..], b"\0", b"#!/bin/sh\nexec \x80"] {
            assert_eq!(FileKind::of(other), None);
        }
    }
}
