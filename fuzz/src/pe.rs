//! EFI programs: the headers, the plan to place one, and its relocations.
//!
//! Input: the length of the file, an address, and the file, whose missing bytes are zero.

use firstlight::addr::PhysAddr;
use firstlight::efi::pe::{self, Image, MOST_HEADERS};
use firstlight::fakes::machine::FakeMachine;

use crate::input::Input;
use crate::one_line;

/// Images up to this length are placed, in bytes.
const MOST_PLACED: u32 = 1 << 20;
/// Where they are placed: this, and up to 16 MiB more.
const PLACE: u64 = 0x1000_0000;

/// Plans and places a program. Nothing is read outside the file or written outside the image. Each page of the image is as it was, or
/// each of its bytes is copied or zero. The entry point is in the image. Protection, if there is one, is for all of it, in whole pages.
///
/// # Panics
/// When that is not so.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (file_len, offset): (u32, u16) = (input.take(), input.take());
    let file = input.rest();
    let file_len = u64::from(file_len).max(file.len() as u64);
    let mut start = file[..file.len().min(MOST_HEADERS)].to_vec();
    start.resize(file_len.min(MOST_HEADERS as u64) as usize, 0);
    let image = match Image::parse(&start, file_len) {
        Ok(image) => image,
        Err(error) => return one_line(&error.to_string()),
    };
    assert!(image.entry() < image.len());
    for piece in image.contents() {
        assert!(piece.len > 0 && u64::from(piece.offset) + u64::from(piece.len) <= file_len, "{piece:x?}");
        assert!(u64::from(piece.address) + u64::from(piece.len) <= image.len().into(), "{piece:x?}");
    }
    let mut end = 0;
    for gap in image.zeros() {
        assert!(gap.start >= end && gap.start < gap.end && gap.end <= image.len(), "{gap:x?}");
        end = gap.end;
    }
    if let Some(spans) = image.protection() {
        let mut end = 0;
        for (span, _) in spans {
            assert!(span.start == end && span.start.is_multiple_of(0x1000) && span.end > span.start, "{image:x?}");
            end = span.end;
        }
        assert_eq!(end, image.len());
    }
    if image.len() > MOST_PLACED {
        return;
    }
    place(&image, file, PhysAddr::new(PLACE + u64::from(offset) * 0x1000));
}

fn place(image: &Image, file: &[u8], at: PhysAddr) {
    // None of the bytes is known at first.
    let mut memory = vec![None; image.len() as usize];
    for piece in image.contents() {
        for index in 0..piece.len {
            let byte = file.get((piece.offset + index) as usize).copied().unwrap_or(0);
            memory[(piece.address + index) as usize] = Some(byte);
        }
    }
    for gap in image.zeros() {
        memory[gap.start as usize..gap.end as usize].fill(Some(0));
    }
    for (number, page) in memory.chunks(0x1000).enumerate() {
        let known = page.iter().flatten().count();
        assert!(known == 0 || known == page.len(), "page {number}: {known} bytes, {image:x?}");
    }
    let memory: Vec<u8> = memory.into_iter().map(|byte| byte.unwrap_or(0xee)).collect();
    let mut machine = FakeMachine::new();
    machine.keeps_accesses = false;
    machine.memory.store(at.get(), &memory);
    machine.memory.keep_stores();
    if let Err(error) = pe::relocate(&mut machine, image, at) {
        one_line(&error.to_string());
    }
    let end = at.get() + u64::from(image.len());
    assert!(machine.memory.stores().iter().all(|store| store.start >= at.get() && store.end <= end));
}

/// A section of a seed: address, length, offset and length in the file, and flags.
type Section = (u32, u32, u32, u32, u32);

const CODE: u32 = 0x6000_0020;
const CONSTANTS: u32 = 0x4000_0040;
const DATA: u32 = 0xc000_0040;

/// A file with these sections, an alignment, and relocations.
fn program(sections: &[Section], alignment: u32, relocations: (u32, &[u8])) -> Vec<u8> {
    let end = sections.iter().map(|section| section.2 + section.3).max().unwrap_or(0x400);
    let mut file: Vec<u8> = (0..end.max(0x400)).map(|at| at as u8).collect();
    file[..0x400].fill(0);
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    let (coff, optional) = (0x44, 0x58);
    put(0, b"MZ");
    put(0x3c, &[0x40]);
    put(0x40, b"PE\0\0");
    for (at, number) in [(coff, 0x8664), (coff + 2, sections.len() as u16), (coff + 16, 240), (coff + 18, 0x206)] {
        put(at, &number.to_le_bytes());
    }
    for (at, number) in [(optional, 0x20b_u16), (optional + 44, 1), (optional + 68, 10), (optional + 70, 0x100)] {
        put(at, &number.to_le_bytes());
    }
    let (address, contents) = relocations;
    let len = sections.iter().map(|section| section.0 + section.1).max().unwrap_or(0x400);
    for (at, number) in [
        (16, sections[0].0),
        (32, alignment),
        (36, alignment.min(0x200)),
        (56, len.next_multiple_of(alignment)),
        (60, 0x400),
        (108, 16),
        (152, address),
        (156, contents.len() as u32),
    ] {
        put(optional + at, &number.to_le_bytes());
    }
    for (index, &(address, len, offset, raw_len, flags)) in sections.iter().enumerate() {
        let at = optional + 240 + 40 * index;
        for (place, number) in [(8, len), (12, address), (16, raw_len), (20, offset), (36, flags)] {
            put(at + place, &number.to_le_bytes());
        }
        if address == relocations.0 {
            put(offset as usize, contents);
        }
    }
    file
}

/// A kernel, programs with and without relocations, one aligned to 64 bytes, and one whose sections overlap.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    const KERNEL: &[u8] = include_bytes!("../../src/boot/testdata/vmlinuz-6.1.0-56-cloud-amd64.setup");
    let block = [0_u32.to_le_bytes(), 16_u32.to_le_bytes()].concat();
    let entries: Vec<u8> = [0xa008_u16, 0xa010, 0xa018, 0].into_iter().flat_map(u16::to_le_bytes).collect();
    let at_code = [&0x1000_u32.to_le_bytes()[..], &block[4..], &entries].concat();
    let sections = [
        (0x1000, 0x300, 0x400, 0x400, CODE),
        (0x2000, 0x1200, 0x800, 0x200, DATA),
        (0x4000, 0x180, 0xa00, 0x200, CONSTANTS),
        (0x5000, 0x10, 0xc00, 0x200, CONSTANTS),
    ];
    let small = [(0x400, 0x100, 0x400, 0x140, CODE), (0x540, 0x80, 0x540, 0x80, DATA)];
    let overlapping = [(0x1000, 0x800, 0x400, 0x400, CODE), (0x1700, 0x400, 0x800, 0x400, CONSTANTS)];
    let files = [
        (0xe0_0000, KERNEL.to_vec()),
        (0, program(&sections, 0x1000, (0x5000, &at_code))),
        (0, program(&sections, 0x1000, (0, &[]))),
        (0, program(&small, 0x40, (0, &[]))),
        (0, program(&overlapping, 0x200, (0, &[]))),
    ];
    files.map(|(len, file): (u32, Vec<u8>)| [&len.to_le_bytes()[..], &[0x45, 0x23], &file].concat()).to_vec()
}
