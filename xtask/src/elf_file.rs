//! The ELF file of the firmware: checks that every host can load it, and removes its symbols.
//!
//! A host loads the segments into RAM at their load addresses and enters the file at the entry point in the PVH note. Hosts read
//! the program headers differently, so the file must satisfy the strictest of them:
//! - alioth copies the bytes of every header, whatever its type;
//! - crosvm uses the first and the last loadable segment as the bounds of all;
//! - the specification requires loadable segments in ascending order (System V ABI, "Program Header"). It means the addresses at
//!   which a program runs; hosts use the load addresses, so these ascend.

use anyhow::{Context, Result, ensure};
use object::pod::bytes_of;
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{LittleEndian, U16, elf};

use crate::image_size::IMAGE_SIZE;

type Header = elf::FileHeader64<LittleEndian>;

/// The largest image (`FIRMWARE_ROM` in `src/layout.rs`).
pub const LIMIT: usize = IMAGE_SIZE as usize;
/// One past the last byte of the image where the ELF file has it loaded (`LOADED_IMAGE` in `src/layout.rs`).
pub const LOADED_END: u64 = 16 << 20;

/// The name and the type of the note with the PVH entry point (Xen `public/elfnote.h`, `XEN_ELFNOTE_PHYS32_ENTRY`).
const PVH_NOTE: (&[u8], u32) = (b"Xen", 18);
/// The first bytes of the code at the PVH entry point: `cli`, `cld`.
const PVH_CODE: [u8; 2] = [0xfa, 0xfc];

/// The loadable segments that have bytes: their load addresses, and the bytes.
pub fn loaded(file: &[u8]) -> Result<Vec<(u64, &[u8])>> {
    let header = Header::parse(file)?;
    let endian = header.endian()?;
    let mut segments = Vec::new();
    for segment in header.program_headers(endian, file)? {
        let data = segment.data(endian, file).ok().context("a segment lies outside the file")?;
        if segment.p_type(endian) == elf::PT_LOAD && !data.is_empty() {
            segments.push((segment.p_paddr(endian), data));
        }
    }
    Ok(segments)
}

/// Checks that every host can load the file and find its entry point.
pub fn check(file: &[u8]) -> Result<()> {
    check_segments(file)?;
    check_pvh_entry(file)
}

/// Checks that loadable segments ascend, and that the bytes of every other header are in one of them, at the same address.
fn check_segments(file: &[u8]) -> Result<()> {
    let header = Header::parse(file)?;
    let endian = header.endian()?;
    let mut end = LOADED_END - LIMIT as u64;
    let mut loaded = Vec::new();
    for segment in header.program_headers(endian, file)? {
        let (start, len, in_file) = (segment.p_paddr(endian), segment.p_memsz(endian), segment.p_filesz(endian));
        let data = segment.data(endian, file).ok().context("a segment lies outside the file")?;
        if segment.p_type(endian) == elf::PT_LOAD {
            let next = start.checked_add(len).filter(|&next| start >= end && next <= LOADED_END);
            end = next.with_context(|| {
                format!(
                    "a segment of {len:#x} bytes is loaded at {start:#x}, not between {end:#x}, the end of the previous \
                     one, and {LOADED_END:#x}"
                )
            })?;
            ensure!(
                len == in_file,
                "the segment at {start:#x} has {len:#x} bytes in memory, but {in_file:#x} in the file"
            );
            loaded.push((start, data));
        } else {
            // A host that copies these bytes too changes nothing.
            let is_there = data.is_empty()
                || loaded.iter().any(|&(first, bytes)| {
                    let offset = start.checked_sub(first).and_then(|offset| usize::try_from(offset).ok());
                    offset.and_then(|offset| bytes.get(offset..)?.get(..data.len())) == Some(data)
                });
            ensure!(
                is_there,
                "the program header of type {:#x} has {in_file:#x} bytes for {start:#x}, and no segment has them there",
                segment.p_type(endian)
            );
        }
    }
    ensure!(!loaded.is_empty(), "no loadable segment");
    Ok(())
}

/// Checks that there is a note with the PVH entry point, and that a segment has its code.
fn check_pvh_entry(file: &[u8]) -> Result<()> {
    let header = Header::parse(file)?;
    let endian = header.endian()?;
    let mut entry = None;
    for segment in header.program_headers(endian, file)? {
        for note in segment.notes(endian, file)?.into_iter().flat_map(|notes| notes.into_iter()) {
            let note = note?;
            if (note.name(), note.n_type(endian)) == PVH_NOTE {
                let address = note.desc().first_chunk().context("the PVH note has no address of eight bytes")?;
                entry = Some(u64::from_le_bytes(*address));
            }
        }
    }
    let entry = entry.context("no PVH note")?;
    let code = loaded(file)?.into_iter().find_map(|(start, bytes)| {
        let offset = usize::try_from(entry.checked_sub(start)?).ok()?;
        bytes.get(offset..)?.get(..PVH_CODE.len())
    });
    ensure!(code == Some(&PVH_CODE), "the code at the PVH entry point {entry:#x} is {code:02x?}, not {PVH_CODE:02x?}");
    Ok(())
}

/// Returns the file up to the end of its last segment. It has no sections, and so no symbols.
pub fn strip(file: &[u8]) -> Result<Vec<u8>> {
    let header = Header::parse(file)?;
    let endian = header.endian()?;
    let ends =
        header.program_headers(endian, file)?.iter().map(|segment| segment.p_offset(endian) + segment.p_filesz(endian));
    let end = usize::try_from(ends.max().context("no program headers")?)?;
    let mut stripped = file.get(..end).context("a segment lies outside the file")?.to_vec();
    let mut header = *header;
    header.e_shoff.set(endian, 0);
    for number in [&mut header.e_shnum, &mut header.e_shstrndx] {
        *number = U16::new(endian, 0);
    }
    stripped[..bytes_of(&header).len()].copy_from_slice(bytes_of(&header));
    Ok(stripped)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first byte of the segment that ends the image.
    const LAST: u64 = LOADED_END - 0x10;

    /// A program header: type, load address, length in memory, bytes.
    type Segment<'a> = (u32, u64, u64, &'a [u8]);

    /// A file with these segments. Their bytes are behind the headers, in order, and symbols behind them.
    fn file(segments: &[Segment<'_>]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        let mut put = |bytes: &[u8]| file.extend_from_slice(bytes);
        // Type, machine, version; entry, program headers, section headers; flags, sizes and numbers of these.
        put(&[2, 0, 62, 0, 1, 0, 0, 0]);
        [0_u64, 64, 0x1234].iter().for_each(|field| put(&field.to_le_bytes()));
        put(&[0, 0, 0, 0, 64, 0, 56, 0, segments.len() as u8, 0, 64, 0, 7, 0, 6, 0]);
        let mut offset = 64 + 56 * segments.len() as u64;
        for &(kind, at, len, bytes) in segments {
            put(&kind.to_le_bytes());
            put(&[0; 4]);
            [offset, at, at, bytes.len() as u64, len, 4].iter().for_each(|field| put(&field.to_le_bytes()));
            offset += bytes.len() as u64;
        }
        segments.iter().for_each(|(.., bytes)| put(bytes));
        put(b"symbols");
        file
    }

    /// A note that names the last segment as the entry point, and the bytes of that segment.
    fn note_and_code() -> (Vec<u8>, Vec<u8>) {
        let note = [&[4, 0, 0, 0, 8, 0, 0, 0, 18, 0, 0, 0], &b"Xen\0"[..], &LAST.to_le_bytes()].concat();
        (note, [&PVH_CODE[..], &[0; 14]].concat())
    }

    #[test]
    fn a_file_that_some_host_cannot_load_is_refused() {
        let (note, code) = note_and_code();
        let first = LOADED_END - 0x100;
        let segments =
            [(elf::PT_LOAD, first, 24, &note[..]), (elf::PT_LOAD, LAST, 16, &code), (elf::PT_NOTE, first, 24, &note)];
        check(&file(&segments)).unwrap();
        check(&file(&[segments[0], segments[1], segments[2], (elf::PT_NULL, 0, 0x1000, &[])])).unwrap();
        let error = |segments: &[Segment<'_>]| check(&file(segments)).unwrap_err().to_string();
        // alioth copies what any header has.
        let null = error(&[segments[0], segments[1], (elf::PT_NULL, 0x4_0000, 0x1000, &[1])]);
        assert!(null.contains("type 0x0 has 0x1 bytes for 0x40000"), "{null}");
        let moved = error(&[segments[0], segments[1], (elf::PT_NOTE, first + 1, 24, &note)]);
        assert!(moved.contains("no segment has them there"), "{moved}");
        // crosvm takes the last segment's end for that of all.
        assert!(error(&[segments[1], segments[0], segments[2]]).contains("not between 0x1000000"));
        assert!(error(&[segments[0], (elf::PT_LOAD, first + 23, 16, &code)]).contains("the end of the previous one"));
        let below = LOADED_END - LIMIT as u64 - 1;
        assert!(error(&[(elf::PT_LOAD, below, 16, &code)]).contains(&format!("is loaded at {below:#x}")));
        assert!(error(&[(elf::PT_LOAD, LAST + 1, 16, &code)]).contains("is loaded at 0xfffff1"));
        assert!(error(&[(elf::PT_LOAD, LAST, 15, &code)]).contains("bytes in memory"));
        assert!(error(&[segments[0], segments[1]]).contains("no PVH note"));
        assert!(error(&[]).contains("no loadable segment"));
    }
}
