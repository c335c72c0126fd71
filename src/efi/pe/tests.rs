//! Images made by hand: each field that a loader goes by, right and wrong.

extern crate std;

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::addr::PhysAddr;
use crate::fakes::machine::FakeMachine;
use crate::hal::Memory;

/// A section of a file to be made.
#[derive(Clone, Debug)]
pub struct Made {
    address: u32,
    len: u32,
    offset: u32,
    raw_len: u32,
    flags: u32,
}

pub const CODE: u32 = 0x6000_0020;
pub const DATA: u32 = 0xc000_0040;
const CONSTANTS: u32 = 0x4000_0040;

pub const fn section(address: u32, len: u32, offset: u32, raw_len: u32, flags: u32) -> Made {
    Made { address, len, offset, raw_len, flags }
}

/// A file with these sections, whose bytes are other than zero, and other at each place.
pub fn file(sections: &[Made]) -> Vec<u8> {
    file_with(sections, |_| {})
}

const COFF: usize = 0x44;
pub const OPTIONAL: usize = COFF + 20;
const TABLE: usize = OPTIONAL + 112 + 16 * 8;

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..][..bytes.len()].copy_from_slice(bytes);
}

pub fn file_with(sections: &[Made], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let end = sections.iter().map(|section| section.offset + section.raw_len).max().unwrap_or(0).max(0x400);
    let mut file: Vec<u8> = (0..end).map(|at| (at % 251) as u8 + 1).collect();
    file[..0x400].fill(0);
    put(&mut file, 0, b"MZ");
    put(&mut file, 0x3c, &0x40_u32.to_le_bytes());
    put(&mut file, 0x40, b"PE\0\0");
    put(&mut file, COFF, &0x8664_u16.to_le_bytes());
    put(&mut file, COFF + 2, &(sections.len() as u16).to_le_bytes());
    put(&mut file, COFF + 16, &(112_u16 + 16 * 8).to_le_bytes());
    put(&mut file, OPTIONAL, &0x20b_u16.to_le_bytes());
    let entry = sections.first().map_or(0, |section| section.address);
    put(&mut file, OPTIONAL + 16, &entry.to_le_bytes());
    put(&mut file, OPTIONAL + 32, &0x1000_u32.to_le_bytes());
    put(&mut file, OPTIONAL + 36, &0x200_u32.to_le_bytes());
    let len = sections.iter().map(|section| section.address.saturating_add(section.len.max(1))).max().unwrap_or(0x400);
    put(&mut file, OPTIONAL + 56, &len.checked_next_multiple_of(0x1000).unwrap_or(0x2000).to_le_bytes());
    put(&mut file, OPTIONAL + 60, &0x400_u32.to_le_bytes());
    put(&mut file, OPTIONAL + 68, &10_u16.to_le_bytes());
    put(&mut file, OPTIONAL + 70, &0x100_u16.to_le_bytes());
    put(&mut file, OPTIONAL + 108, &16_u32.to_le_bytes());
    for (index, section) in sections.iter().enumerate() {
        let at = TABLE + 40 * index;
        put(&mut file, at + 8, &section.len.to_le_bytes());
        put(&mut file, at + 12, &section.address.to_le_bytes());
        put(&mut file, at + 16, &section.raw_len.to_le_bytes());
        put(&mut file, at + 20, &section.offset.to_le_bytes());
        put(&mut file, at + 36, &section.flags.to_le_bytes());
    }
    change(&mut file);
    file
}

fn parse(file: &[u8]) -> Result<Image, Error> {
    Image::parse(&file[..file.len().min(MOST_HEADERS)], file.len() as u64)
}

/// The image in memory, as [`Image::contents`] and [`Image::zeros`] have it. What they leave out is 0xee.
fn load(image: &Image, file: &[u8]) -> Vec<u8> {
    let mut memory = vec![0xee; image.len() as usize];
    for piece in image.contents() {
        let bytes = &file[piece.offset as usize..][..piece.len as usize];
        memory[piece.address as usize..][..bytes.len()].copy_from_slice(bytes);
    }
    for gap in image.zeros() {
        memory[gap.start as usize..gap.end as usize].fill(0);
    }
    memory
}

/// The same by the rule in the module's head, without a plan. `None` is any byte.
fn expected(sections: &[Made], file: &[u8], len: usize) -> Vec<Option<u8>> {
    let mut memory = vec![None; len];
    let mut clear =
        |start: usize, end: usize| memory[start & !0xfff..end.next_multiple_of(0x1000).min(len)].fill(Some(0));
    let len_of = |section: &Made| if section.len == 0 { section.raw_len } else { section.len } as usize;
    clear(0, 0x400);
    for section in sections.iter().filter(|section| len_of(section) > 0) {
        clear(section.address as usize, section.address as usize + len_of(section));
    }
    let mut put = |at: usize, bytes: &[u8]| {
        memory[at..][..bytes.len()].iter_mut().zip(bytes).for_each(|(to, &byte)| *to = Some(byte));
    };
    put(0, &file[..0x400]);
    for section in sections {
        let len = len_of(section).min(section.raw_len as usize);
        put(section.address as usize, &file[section.offset as usize..][..len]);
    }
    memory
}

/// Whether each byte of `memory` is the expected one.
fn agree(memory: &[u8], expected: &[Option<u8>]) -> bool {
    memory.len() == expected.len()
        && memory.iter().zip(expected).all(|(&byte, to_be)| to_be.is_none_or(|to_be| to_be == byte))
}

#[track_caller]
fn assert_loads(sections: &[Made]) -> Image {
    let file = file(sections);
    let image = parse(&file).unwrap();
    assert!(agree(&load(&image, &file), &expected(sections, &file, image.len() as usize)));
    image
}

#[test]
fn each_section_is_placed_and_what_it_lacks_is_zero() {
    let image = assert_loads(&[
        section(0x1000, 0x234, 0x400, 0x400, CODE),
        section(0x2000, 0x1800, 0x800, 0x200, DATA),
        section(0x4000, 0x1000, 0, 0, DATA),
    ]);
    assert_eq!((image.len(), image.entry(), image.subsystem()), (0x5000, 0x1000, Subsystem::Application));
    assert_eq!(image.contents().count(), 3);
}

#[test]
fn pages_between_sections_are_left_as_they_are() {
    let sections = [section(0x1000, 0x234, 0x400, 0x400, CODE), section(0x300_0000, 0x1800, 0x800, 0x200, DATA)];
    let image = assert_loads(&sections);
    let zeros: Vec<_> = image.zeros().map(|Span { start, end }| (start, end)).collect();
    assert_eq!(zeros, [(0x400, 0x1000), (0x1234, 0x2000), (0x300_0200, 0x300_2000)]);
}

#[test]
fn a_file_laid_out_as_its_image_is_one_piece() {
    let sections = [section(0x400, 0x234, 0x400, 0x400, CODE), section(0x1000, 0x3000, 0x1000, 0x800, DATA)];
    let image = assert_loads(&sections);
    let pieces: Vec<_> = image.contents().collect();
    assert_eq!(pieces, [Contents { offset: 0, address: 0, len: 0x1800 }]);
}

#[test]
fn a_section_without_a_virtual_size_has_that_of_its_contents() {
    assert_loads(&[section(0x1000, 0, 0x400, 0x200, CODE), section(0x1200, 0x100, 0x600, 0x200, DATA)]);
}

#[test]
fn of_overlapping_sections_the_later_one_counts() {
    assert_loads(&[section(0x1000, 0x234, 0x400, 0x400, CODE), section(0x1200, 0x100, 0x800, 0x200, CONSTANTS)]);
    assert_loads(&[section(0x1200, 0x234, 0x400, 0x400, CODE), section(0x1000, 0x300, 0x800, 0x400, CONSTANTS)]);
}

#[test]
fn sections_may_be_in_any_order() {
    assert_loads(&[section(0x3000, 0x200, 0x600, 0x200, CODE), section(0x1000, 0x200, 0x400, 0x200, CONSTANTS)]);
}

#[test]
fn what_follows_the_last_section_is_no_part_of_the_image() {
    let sections = [section(0x1000, 0x200, 0x400, 0x200, CODE)];
    let mut file = file(&sections);
    file.extend([0x5a; 0x1234]);
    let image = parse(&file).unwrap();
    assert!(agree(&load(&image, &file), &expected(&sections, &file, 0x2000)));
}

#[test]
fn alignments_down_to_a_byte_are_taken_and_others_than_powers_of_two_are_not() {
    let sections = [section(0x440, 0x40, 0x400, 0x40, CODE), section(0x480, 0x40, 0x440, 0x40, DATA)];
    for (at, name) in [(32, "section"), (36, "file")] {
        for alignment in [1_u32, 0x20, 0x40, 0x200, 0x1000, 0x20_0000] {
            let file = file_with(&sections, |file| put(file, OPTIONAL + at, &alignment.to_le_bytes()));
            assert!(parse(&file).is_ok(), "{name} {alignment:#x}");
        }
        for alignment in [0_u32, 3, 0x300, u32::MAX] {
            let file = file_with(&sections, |file| put(file, OPTIONAL + at, &alignment.to_le_bytes()));
            assert_eq!(parse(&file), Err(Error::Alignment(alignment)), "{name} {alignment:#x}");
        }
    }
}

/// A file with one section after `change`.
fn changed(at: usize, bytes: &[u8]) -> Result<Image, Error> {
    parse(&file_with(&[section(0x1000, 0x200, 0x400, 0x200, CODE)], |file| put(file, at, bytes)))
}

#[test]
fn what_is_no_program_for_uefi_on_x86_64_is_refused_by_name() {
    assert_eq!(changed(0, b"ZM"), Err(Error::NotPe));
    assert_eq!(changed(0x40, b"NE"), Err(Error::NotPe));
    assert_eq!(changed(0x3c, &u32::MAX.to_le_bytes()), Err(Error::NotPe));
    assert_eq!(changed(COFF, &0xaa64_u16.to_le_bytes()), Err(Error::Machine(0xaa64)));
    assert_eq!(changed(OPTIONAL, &0x10b_u16.to_le_bytes()), Err(Error::Magic(0x10b)));
    assert_eq!(changed(OPTIONAL + 68, &3_u16.to_le_bytes()), Err(Error::Subsystem(3)));
    for (number, kind) in
        [(10_u16, Subsystem::Application), (11, Subsystem::BootDriver), (12, Subsystem::RuntimeDriver)]
    {
        let image = changed(OPTIONAL + 68, &number.to_le_bytes()).unwrap();
        assert_eq!(image.subsystem(), kind);
    }
    assert!(parse(b"MZ").is_err() && parse(b"").is_err());
}

#[test]
fn headers_are_within_the_file_and_the_image() {
    let whole = file(&[section(0x1000, 0x200, 0x400, 0x200, CODE)]);
    for len in 0..0x400 {
        assert!(Image::parse(&whole[..len], len as u64).is_err(), "{len:#x}");
    }
    assert_eq!(Image::parse(&whole[..0x180], 0x180), Err(Error::HeadersTruncated { file: 0x180 }));
    assert_eq!(Image::parse(&whole[..0x100], 0x600), Err(Error::HeadersTooLong));
    // Shorter than the section table, longer than the image, longer than the file.
    assert_eq!(changed(OPTIONAL + 60, &0x100_u32.to_le_bytes()), Err(Error::HeadersLength(0x100)));
    assert_eq!(changed(OPTIONAL + 56, &0x300_u32.to_le_bytes()), Err(Error::HeadersLength(0x400)));
    assert_eq!(changed(OPTIONAL + 60, &0x700_u32.to_le_bytes()), Err(Error::HeadersTruncated { file: 0x600 }));
    assert_eq!(changed(COFF + 2, &97_u16.to_le_bytes()), Err(Error::TooManySections(97)));
    assert_eq!(changed(COFF + 16, &100_u16.to_le_bytes()), Err(Error::HeadersTruncated { file: 0x600 }));
}

#[test]
fn sections_are_within_the_file_and_the_image_and_behind_the_headers() {
    let outside = |start, end| Err(Error::SectionOutside { section: 0, start, end, headers: 0x400, image: 0x2000 });
    let one = |made| parse(&file_with(&[made], |file| put(file, OPTIONAL + 56, &0x2000_u32.to_le_bytes())));
    assert!(one(section(0x1000, 0x1000, 0x400, 0x200, CODE)).is_ok());
    assert_eq!(one(section(0x1000, 0x1001, 0x400, 0x200, CODE)), outside(0x1000, 0x2001));
    assert_eq!(one(section(0x3ff, 0x200, 0x400, 0x200, CODE)), outside(0x3ff, 0x5ff));
    assert_eq!(one(section(0x1000, u32::MAX - 0xfff, 0x400, 0x200, CODE)), outside(0x1000, 1 << 32));
    let cut = file(&[section(0x1000, 0x200, 0x400, 0x200, CODE)]);
    let error = Error::SectionTruncated { section: 0, end: 0x600, file: 0x5ff };
    assert_eq!(parse(&cut[..0x5ff]), Err(error));
    assert!(error.to_string().contains("section 0 ends at 0x600, the file at 0x5ff"));
    // What only fills up to the file's alignment may be missing.
    let filled = file(&[section(0x1000, 0x180, 0x400, 0x200, CODE)]);
    assert!(parse(&filled[..0x580]).is_ok());
}

#[test]
fn the_entry_point_is_in_a_section() {
    for at in [0_u32, 0x3ff, 0x400, 0xfff, 0x1200, 0x2000, u32::MAX] {
        assert_eq!(changed(OPTIONAL + 16, &at.to_le_bytes()), Err(Error::EntryOutside(at)), "{at:#x}");
    }
    for at in [0x1000_u32, 0x11ff] {
        assert_eq!(changed(OPTIONAL + 16, &at.to_le_bytes()).map(|image| image.entry()), Ok(at));
    }
}

#[test]
fn pages_are_written_or_executed_where_the_image_is_ready_for_it() {
    let sections = [
        section(0x1000, 0x1234, 0x400, 0x400, CODE),
        section(0x3000, 0x10, 0x800, 0x200, DATA),
        section(0x6000, 0x800, 0xa00, 0x200, CONSTANTS),
    ];
    let span = |start, end| Span { start, end };
    let protection = |file: &[u8]| parse(file).unwrap().protection().map(Iterator::collect::<Vec<_>>);
    let expected = [
        (span(0, 0x1000), Access::Constants),
        (span(0x1000, 0x3000), Access::Code),
        (span(0x3000, 0x4000), Access::Data),
        // Between sections is nothing to execute.
        (span(0x4000, 0x6000), Access::Data),
        (span(0x6000, 0x7000), Access::Constants),
    ];
    assert_eq!(protection(&file(&sections)).unwrap(), expected);
    // The image ends within a page.
    let short = file_with(&sections, |file| put(file, OPTIONAL + 56, &0x6800_u32.to_le_bytes()));
    assert_eq!(protection(&short).unwrap().last(), Some(&(span(0x6000, 0x6800), Access::Constants)));
    let long = file_with(&sections, |file| put(file, OPTIONAL + 56, &0x7400_u32.to_le_bytes()));
    assert_eq!(protection(&long).unwrap().last(), Some(&(span(0x7000, 0x7400), Access::Data)));
    // It does not say that it is ready, its alignment is less than a page, sections share one.
    let unready = file_with(&sections, |file| put(file, OPTIONAL + 70, &[0, 0]));
    assert_eq!(protection(&unready), None);
    let narrow = file_with(&sections, |file| put(file, OPTIONAL + 32, &0x200_u32.to_le_bytes()));
    assert_eq!(protection(&narrow), None);
    let [code, ..] = sections.clone();
    let shared = file(&[code.clone(), section(0x2400, 0x10, 0x800, 0x200, DATA)]);
    assert_eq!(protection(&shared), None);
    let any = file(&[code, section(0x3000, 0x10, 0x800, 0x200, CODE | DATA)]);
    assert_eq!(protection(&any), None);
    // It is entered where its pages are executed.
    let data = [section(0x1000, 0x10, 0x800, 0x200, DATA)];
    assert_eq!(parse(&file(&data)), Err(Error::EntryOutside(0x1000)));
    let unready = file_with(&data, |file| put(file, OPTIONAL + 70, &[0, 0]));
    assert!(parse(&unready).is_ok());
}

const AT: PhysAddr = PhysAddr::new(0x20_0000);

/// The image of code, with 8 bytes at 0x1010 and 0x1ff8, and these relocations, at [`AT`].
fn relocated(directory_len: u32, blocks: &[u8], base: u64, flags: u16) -> (Result<(), Error>, FakeMachine) {
    let sections = [section(0x1000, 0x1000, 0x400, 0x1000, CODE), section(0x2000, 0x400, 0x1400, 0x400, CONSTANTS)];
    let file = file_with(&sections, |file| {
        put(file, OPTIONAL + 24, &base.to_le_bytes());
        put(file, OPTIONAL + 112 + 5 * 8, &0x2000_u32.to_le_bytes());
        put(file, OPTIONAL + 112 + 5 * 8 + 4, &directory_len.to_le_bytes());
        put(file, COFF + 18, &flags.to_le_bytes());
        put(file, 0x1400, blocks);
        put(file, 0x410, &(base + 0x1234).to_le_bytes());
        put(file, 0x13f8, &(base + 0x5678).to_le_bytes());
    });
    let image = parse(&file).unwrap();
    let mut machine = FakeMachine::default();
    machine.write(AT, &load(&image, &file)).unwrap();
    (relocate(&mut machine, &image, AT), machine)
}

fn address(machine: &FakeMachine, at: u64) -> u64 {
    u64::from_le_bytes(*machine.memory.bytes(AT.get() + at, 8).first_chunk().unwrap())
}

fn block(page: u32, entries: &[u16]) -> Vec<u8> {
    let len = 8 + 2 * entries.len() as u32;
    let words = entries.iter().flat_map(|entry| entry.to_le_bytes());
    page.to_le_bytes().into_iter().chain(len.to_le_bytes()).chain(words).collect()
}

#[test]
fn addresses_in_the_image_become_those_where_it_is() {
    for base in [0, 0x14df_9000_0000, AT.get()] {
        let blocks = [block(0x1000, &[0xa010, 0]), block(0x1000, &[0xaff8])].concat();
        let (result, machine) = relocated(blocks.len() as u32, &blocks, base, 0);
        assert_eq!(result, Ok(()));
        assert_eq!((address(&machine, 0x1010), address(&machine, 0x1ff8)), (0x20_1234, 0x20_5678), "{base:#x}");
    }
}

#[test]
fn a_directory_that_goes_on_with_zeros_ends_there() {
    let blocks = [block(0x1000, &[0xa010, 0]), vec![0; 0x20]].concat();
    let (result, machine) = relocated(blocks.len() as u32, &blocks, 0, 0);
    assert_eq!((result, address(&machine, 0x1010)), (Ok(()), 0x20_1234));
}

#[test]
fn an_image_without_relocations_runs_anywhere_unless_it_says_otherwise() {
    let (result, machine) = relocated(0, &[], 0, 0);
    assert_eq!((result, address(&machine, 0x1010)), (Ok(()), 0x1234));
    assert_eq!(relocated(0, &[], 0x1000_0000, 1).0, Err(Error::NotAtBase(0x1000_0000)));
    assert_eq!(relocated(0, &[], AT.get(), 1).0, Ok(()));
}

#[test]
fn broken_relocations_are_refused_and_write_nothing_outside_the_image() {
    let broken = |blocks: &[u8]| {
        let (result, mut machine) = relocated(blocks.len() as u32, blocks, 0, 0);
        machine.memory.clear(AT.get(), 0x3000);
        let is_clear = |page: u64| machine.memory.bytes(page, 0x1000) == [0; 0x1000];
        assert!(is_clear(AT.get() - 0x1000) && is_clear(AT.get() + 0x3000));
        result
    };
    let at = |at| Err(Error::Relocations { at });
    assert_eq!(broken(&block(0x2000, &[0xaffc])), at(0x2000));
    assert_eq!(broken(&block(0xffff_f000, &[0xa000])), at(0xffff_f000));
    assert_eq!(broken(&block(0xffff_ffff, &[0xa001])), at(0xffff_ffff));
    assert_eq!(broken(&block(0x1000, &[0x3010])), Err(Error::RelocationType(3)));
    // Blocks shorter than their head, longer than the directory, and one that wraps.
    for len in [1_u32, 7, 0x11, u32::MAX] {
        let mut block = block(0x1000, &[0xa010, 0, 0, 0]);
        put(&mut block, 4, &len.to_le_bytes());
        assert_eq!(broken(&block), at(0x2000), "{len:#x}");
    }
    assert_eq!(changed(OPTIONAL + 112 + 5 * 8, &[0, 0x20, 0, 0, 4, 0, 0, 0]), Err(Error::Relocations { at: 0x2000 }));
    assert_eq!(changed(OPTIONAL + 112 + 5 * 8, &[0, 1, 0, 0, 4, 0, 0, 0]), Err(Error::Relocations { at: 0x100 }));
    // Nothing is loaded between sections.
    let apart = [section(0x1000, 0x200, 0x400, 0x200, CODE), section(0x5000, 0x200, 0x600, 0x200, DATA)];
    for (at, is_right) in
        [(0x1000_u32, true), (0x1ffc, true), (0x1ffe, false), (0x3000, false), (0x5000, true), (0x5ffc, true)]
    {
        let file = file_with(&apart, |file| {
            put(file, OPTIONAL + 112 + 5 * 8, &at.to_le_bytes());
            put(file, OPTIONAL + 112 + 5 * 8 + 4, &4_u32.to_le_bytes());
        });
        assert_eq!(parse(&file).is_ok(), is_right, "{at:#x}");
    }
}

prop_compose! {
    fn sections()(
        made in prop::collection::vec((4..64_u32, 0..0x900_u32, 4..32_u32, 0..5_u32, any::<u32>()), 1..12),
    ) -> Vec<Made> {
        made.into_iter().map(|(page, len, block, raw, flags)| {
            section(page * 0x100, len.max(u32::from(raw == 0)), block * 0x100, raw * 0x100, flags | CODE)
        }).collect()
    }
}

proptest! {
    #[test]
    fn any_sections_are_loaded_as_the_rule_says(made in sections()) {
        let file = file(&made);
        if let Ok(image) = parse(&file) {
            prop_assert!(agree(&load(&image, &file), &expected(&made, &file, image.len() as usize)));
        }
    }

    #[test]
    fn no_bytes_make_a_plan_that_leaves_the_file_or_the_image(
        made in sections(), changes in prop::collection::vec((0..0x400_usize, any::<u8>()), 0..8), cut in 0..0x400_usize,
    ) {
        let mut file = file_with(&made, |file| changes.iter().for_each(|&(at, byte)| file[at] = byte));
        file.truncate(file.len() - cut.min(file.len()));
        if let Ok(image) = parse(&file) {
            for piece in image.contents() {
                prop_assert!(u64::from(piece.offset) + u64::from(piece.len) <= file.len() as u64);
                prop_assert!(u64::from(piece.address) + u64::from(piece.len) <= image.len().into());
            }
            prop_assert!(image.zeros().all(|gap| gap.end <= image.len()));
            if let Some(spans) = image.protection() {
                prop_assert_eq!(spans.map(|(span, _)| span.len()).sum::<u32>(), image.len());
            }
        }
    }
}
