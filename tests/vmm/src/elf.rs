//! An ELF file for a start by the PVH entry point: its segments at their load addresses, and the note that names the entry.
//!
//! In each point it is as strict as the strictest host: alioth copies the bytes of every program header, of any type, and
//! crosvm refuses a file whose last loadable segment does not end above the start of the first.
//!
//! Left out: 32-bit files, sections, `p_vaddr` and `e_entry`.
#![forbid(unsafe_code)]

use anyhow::{Context, ensure};
use object::LittleEndian;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};

use crate::ram::Ram;

/// The note's name and type (Xen `public/elfnote.h`, `XEN_ELFNOTE_PHYS32_ENTRY`).
const PVH_NOTE: (&[u8], u32) = (b"Xen", 18);

/// Loads `file` into `ram`. Returns the address of its PVH entry point.
///
/// # Errors
/// If it is not such a file, a segment is outside RAM, the segments do not ascend, or none contains the entry point.
pub fn load(file: &[u8], ram: &Ram) -> anyhow::Result<u32> {
    let header = elf::FileHeader64::<LittleEndian>::parse(file).context("not an ELF file of 64 bits")?;
    let endian = header.endian()?;
    let mut entry = None;
    let mut loaded = Vec::<std::ops::Range<u64>>::new();
    for segment in header.program_headers(endian, file).context("no program headers")? {
        let (start, len) = (segment.p_paddr(endian), segment.p_memsz(endian));
        let bytes = segment.data(endian, file).ok().context("a segment is not in the file")?;
        let is_loadable = segment.p_type(endian) == elf::PT_LOAD;
        if is_loadable || !bytes.is_empty() {
            ensure!(bytes.len() as u64 <= len, "the segment at {start:#x} is longer in the file than in memory");
            ensure!(ram.has(start, len), "the segment at {start:#x} of {len:#x} bytes is not in RAM");
            // RAM is zero, so the rest of the segment is.
            ram.write(start, bytes)?;
        }
        if is_loadable {
            loaded.push(start..start + len);
        }
        for note in segment.notes(endian, file)?.into_iter().flat_map(|notes| notes.into_iter()) {
            let note = note?;
            if (note.name(), note.n_type(endian)) == PVH_NOTE {
                let address = note.desc().first_chunk().context("the PVH note has no address")?;
                entry = Some(u32::from_le_bytes(*address));
            }
        }
    }
    if let [first, .., last] = &loaded[..] {
        ensure!(first.start < last.end, "the last segment ends at {:#x}, before the first one's start", last.end);
    }
    let entry = entry.context("there is no PVH note")?;
    ensure!(loaded.iter().any(|segment| segment.contains(&entry.into())), "the entry {entry:#x} is in no segment");
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use firstlight::fakes::machine::GuestMemory;

    use super::*;

    const RAM: u64 = 1 << 20;

    /// A file with a segment of four bytes, 16 in memory, at `at`, and with a note of this type that names `entry`.
    fn file(at: u64, note: u32, entry: u32) -> Vec<u8> {
        file_of([(elf::PT_LOAD, [176, 0x1234_5000, at, 4, 16, 1]), (elf::PT_NOTE, [180, 0, 0, 20, 20, 4])], note, entry)
    }

    /// A file with these program headers: type, offset in the file, addresses, length in the file and in memory, alignment.
    fn file_of(segments: [(u32, [u64; 6]); 2], note: u32, entry: u32) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        let mut put = |bytes: &[u8]| file.extend_from_slice(bytes);
        // Type, machine, version; entry, program headers, section headers; flags, sizes and numbers of these.
        put(&[2, 0, 62, 0, 1, 0, 0, 0]);
        [0_u64, 64, 0].iter().for_each(|field| put(&field.to_le_bytes()));
        put(&[0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
        for (kind, fields) in segments {
            put(&kind.to_le_bytes());
            put(&[0; 4]);
            fields.iter().for_each(|field| put(&field.to_le_bytes()));
        }
        put(&[1, 2, 3, 4]);
        [4, 4, note].iter().for_each(|field| put(&field.to_le_bytes()));
        put(b"Xen\0");
        put(&entry.to_le_bytes());
        file
    }

    #[test]
    fn segments_go_to_their_load_addresses() {
        let ram = Ram::new(RAM as usize, &[]).unwrap();
        assert_eq!(load(&file(RAM - 16, 18, RAM as u32 - 16), &ram).unwrap(), RAM as u32 - 16);
        assert_eq!(ram.bytes(RAM - 17, 6), [0, 1, 2, 3, 4, 0]);
    }

    #[test]
    fn a_file_that_cannot_be_started_is_refused() {
        let ram = Ram::new(RAM as usize, &[]).unwrap();
        for (file, expected) in [
            (file(RAM - 15, 18, RAM as u32 - 15), "is not in RAM"),
            (file(u64::MAX - 4, 18, 0), "is not in RAM"),
            (file(0x1000, 17, 0x1000), "no PVH note"),
            (file(0x1000, 18, 0x1010), "in no segment"),
            (file(0x1000, 18, 0x1000)[..64].to_vec(), "program headers"),
            (vec![0; 64], "not an ELF file"),
            (
                file_of(
                    [(elf::PT_LOAD, [176, 0, 0x1000, 4, 16, 1]), (elf::PT_NULL, [180, 0, RAM, 1, 16, 1])],
                    18,
                    0x1000,
                ),
                "is not in RAM",
            ),
            (
                file_of(
                    [(elf::PT_LOAD, [176, 0, 0x1000, 4, 16, 1]), (elf::PT_LOAD, [176, 0, 0, 4, 16, 1])],
                    18,
                    0x1000,
                ),
                "before the first one's start",
            ),
        ] {
            let error = load(&file, &ram).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(ram.bytes(RAM - 15, 4), [0; 4]);
    }
}
