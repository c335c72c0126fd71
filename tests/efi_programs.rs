//! The EFI programs of Debian's packages: each is placed in memory as a second reader has it, the crate `object`.
//!
//! `cargo xtask test` gets the packages (`xtask/src/efi_programs.rs`). Without them the tests are skipped, and their output
//! says why.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use firstlight::addr::PhysAddr;
use firstlight::efi::pe::{self, Error, Image, MOST_HEADERS};
use firstlight::fakes::event_log;
use firstlight::fakes::machine::FakeMachine;
use firstlight::hal::paging::Access;
use object::LittleEndian as LE;
use object::pe::{
    IMAGE_DIRECTORY_ENTRY_SECURITY, IMAGE_DLLCHARACTERISTICS_NX_COMPAT, IMAGE_FILE_MACHINE_AMD64,
    IMAGE_REL_BASED_ABSOLUTE, IMAGE_REL_BASED_DIR64, IMAGE_SCN_MEM_EXECUTE, IMAGE_SCN_MEM_WRITE, ImageSectionHeader,
};
use object::read::pe::{ImageNtHeaders, ImageOptionalHeader, PeFile64};

/// The folder with a folder for each suite, of which each has one for each package.
const PROGRAMS: &str = "FIRSTLIGHT_EFI_PROGRAMS";
/// Why there is none.
const REASON: &str = "FIRSTLIGHT_NO_EFI_PROGRAMS";

const PAGE: u32 = 0x1000;
/// Where images are placed: not where any of them is linked for.
const PLACE: PhysAddr = PhysAddr::new(0x1234_5000);

/// All files, by their paths in the folder; `None` where there is none.
fn programs() -> Option<BTreeMap<PathBuf, Vec<u8>>> {
    if let Ok(why) = env::var(REASON) {
        eprintln!("skipped: no EFI programs: {why}");
        return None;
    }
    let Some(folder) = env::var_os(PROGRAMS) else {
        panic!("{PROGRAMS} is not set: run these tests with `cargo xtask test`, which sets it");
    };
    let (mut folders, mut programs) = (vec![PathBuf::from(&folder)], BTreeMap::new());
    while let Some(path) = folders.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            folders.extend(entries.map(|entry| entry.unwrap().path()));
        } else {
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            programs.insert(path.strip_prefix(&folder).unwrap().to_owned(), bytes);
        }
    }
    assert!(!programs.is_empty(), "{PROGRAMS} names {}, where no program is", folder.display());
    Some(programs)
}

/// Those for x86-64.
fn programs_for_x86_64() -> impl Iterator<Item = (PathBuf, Vec<u8>)> {
    programs().into_iter().flatten().filter(|(_, bytes)| machine_of(bytes) == Some(IMAGE_FILE_MACHINE_AMD64))
}

/// The machine that the file's header names.
fn machine_of(bytes: &[u8]) -> Option<u16> {
    let at = u32::from_le_bytes(*bytes.get(0x3c..)?.first_chunk()?) as usize;
    Some(u16::from_le_bytes(*bytes.get(at + 4..)?.first_chunk()?))
}

fn parse(bytes: &[u8]) -> Result<Image, Error> {
    Image::parse(&bytes[..bytes.len().min(MOST_HEADERS)], bytes.len() as u64)
}

/// A section as the second reader has it.
struct Section {
    start: u32,
    /// The bytes in memory.
    len: u32,
    offset: u32,
    /// The bytes in the file, of those.
    file_len: u32,
    is_executable: bool,
    is_writable: bool,
}

/// What the second reader makes of a file.
struct Expected {
    /// The image in memory, as it is linked.
    memory: Vec<u8>,
    base: u64,
    entry: u32,
    alignment: u32,
    headers_len: u32,
    is_nx_compatible: bool,
    sections: Vec<Section>,
    /// Where in the image there are addresses.
    addresses: Vec<u32>,
}

fn expected(bytes: &[u8]) -> Expected {
    let file = PeFile64::parse(bytes).unwrap();
    let header = file.nt_headers().optional_header();
    let section = |header: &ImageSectionHeader| {
        let [len, raw_len] = [header.virtual_size.get(LE), header.size_of_raw_data.get(LE)];
        let len = if len == 0 { raw_len } else { len };
        let flags = header.characteristics.get(LE);
        Section {
            start: header.virtual_address.get(LE),
            len,
            offset: header.pointer_to_raw_data.get(LE),
            file_len: len.min(raw_len),
            is_executable: flags & IMAGE_SCN_MEM_EXECUTE != 0,
            is_writable: flags & IMAGE_SCN_MEM_WRITE != 0,
        }
    };
    let sections: Vec<_> = file.section_table().iter().map(section).collect();
    let headers_len = header.size_of_headers();
    let mut memory = vec![UNTOUCHED; header.size_of_image() as usize];
    // If file and memory have the same layout, pages between sections have the bytes of the file.
    if sections.iter().all(|section| section.file_len == 0 || section.offset == section.start) {
        let end = sections.iter().map(|section| section.start + section.file_len).max().unwrap_or(0) as usize;
        memory[..end].copy_from_slice(&bytes[..end]);
    }
    let whole = memory.len();
    let spans = sections.iter().filter(|section| section.len > 0).map(|section| (section.start, section.len));
    for (start, len) in spans.chain([(0, headers_len)]) {
        let page = PAGE as usize;
        let (start, end) = (start as usize / page * page, (start + len) as usize);
        memory[start..end.next_multiple_of(page).min(whole)].fill(0);
    }
    memory[..headers_len as usize].copy_from_slice(&bytes[..headers_len as usize]);
    for section in &sections {
        let contents = &bytes[section.offset as usize..][..section.file_len as usize];
        memory[section.start as usize..][..contents.len()].copy_from_slice(contents);
    }
    let mut addresses = Vec::new();
    let has_some = file.data_directories().get(5).is_some_and(|directory| directory.size.get(LE) != 0);
    let blocks = file.data_directories().relocation_blocks(bytes, &file.section_table());
    if let Some(mut blocks) = blocks.unwrap().filter(|_| has_some) {
        // A block of length zero ends the list: GRUB fills the directory up to a page.
        while let Ok(Some(block)) = blocks.next() {
            for relocation in block {
                match relocation.typ {
                    IMAGE_REL_BASED_ABSOLUTE => {}
                    IMAGE_REL_BASED_DIR64 => addresses.push(relocation.virtual_address),
                    other => panic!("a relocation of type {other}"),
                }
            }
        }
    }
    Expected {
        memory,
        base: header.image_base(),
        entry: header.address_of_entry_point(),
        alignment: header.section_alignment(),
        headers_len,
        is_nx_compatible: header.dll_characteristics() & IMAGE_DLLCHARACTERISTICS_NX_COMPAT != 0,
        sections,
        addresses,
    }
}

impl Expected {
    /// The image at another address than it is linked for.
    fn relocated(mut self, to: u64) -> Vec<u8> {
        for at in self.addresses {
            let address: &mut [u8; 8] = self.memory[at as usize..].first_chunk_mut().unwrap();
            *address = u64::from_le_bytes(*address).wrapping_add(to.wrapping_sub(self.base)).to_le_bytes();
        }
        self.memory
    }

    /// How each page may be used, by what is in it; `None` if they cannot be told apart.
    fn pages(&self) -> Option<Vec<Access>> {
        if !self.is_nx_compatible || self.alignment < PAGE {
            return None;
        }
        let mut pages = vec![None; self.memory.len().div_ceil(PAGE as usize)];
        let mut mark = |start: u32, len: u32, access| {
            for page in start / PAGE..(start + len).div_ceil(PAGE) {
                let page = &mut pages[page as usize];
                if page.is_some() {
                    return None;
                }
                *page = Some(access);
            }
            Some(())
        };
        mark(0, self.headers_len, Access::Constants)?;
        for section in self.sections.iter().filter(|section| section.len > 0) {
            let access = match (section.is_writable, section.is_executable) {
                (false, false) => Access::Constants,
                (false, true) => Access::Code,
                (true, false) => Access::Data,
                (true, true) => return None,
            };
            mark(section.start, section.len, access)?;
        }
        // Nothing between sections is executed.
        Some(pages.into_iter().map(|page| page.unwrap_or(Access::Data)).collect())
    }
}

/// What is in memory that nothing is written to: not zero.
const UNTOUCHED: u8 = 0xee;

/// Places an image as its plan says.
fn place(image: &Image, bytes: &[u8], at: PhysAddr) -> FakeMachine {
    let mut memory = vec![UNTOUCHED; image.len() as usize];
    for piece in image.contents() {
        let contents = &bytes[piece.offset as usize..][..piece.len as usize];
        memory[piece.address as usize..][..contents.len()].copy_from_slice(contents);
    }
    for gap in image.zeros() {
        memory[gap.start as usize..gap.end as usize].fill(0);
    }
    let mut machine = FakeMachine::new();
    machine.memory.store(at.get(), &memory);
    machine
}

/// Checks all that is planned for a file against the second reader.
#[track_caller]
fn check(name: &Path, bytes: &[u8]) -> Image {
    let name = name.display();
    let image = parse(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
    let expected = expected(bytes);
    assert_eq!(image.len() as usize, expected.memory.len(), "{name}");
    assert_eq!((image.entry(), image.base().0), (expected.entry, expected.base), "{name}");

    let machine = place(&image, bytes, PLACE);
    // Not `assert_eq`: what differs may be megabytes.
    assert!(machine.memory.bytes(PLACE.get(), expected.memory.len()) == expected.memory, "{name}: placed");

    let pages = image.protection().map(|spans| {
        let spans = spans.collect::<Vec<_>>();
        assert_eq!((spans[0].0.start, spans[spans.len() - 1].0.end), (0, image.len()), "{name}");
        assert!(spans.windows(2).all(|pair| pair[0].0.end == pair[1].0.start), "{name}");
        let pages =
            spans.iter().flat_map(|(span, access)| (span.start..span.end).step_by(PAGE as usize).map(|_| *access));
        pages.collect::<Vec<_>>()
    });
    assert_eq!(pages, expected.pages(), "{name}: protection");

    let mut machine = machine;
    pe::relocate(&mut machine, &image, PLACE).unwrap_or_else(|error| panic!("{name}: {error}"));
    let len = expected.memory.len();
    assert!(machine.memory.bytes(PLACE.get(), len) == expected.relocated(PLACE.get()), "{name}: relocated");
    image
}

/// What a loader has to know how to do.
#[derive(Debug)]
struct Kind {
    alignment: u32,
    relocations: usize,
    is_protected: bool,
    has_one_layout: bool,
    base: u64,
}

#[test]
fn every_program_is_placed_as_a_second_reader_has_it() {
    let mut seen = Vec::new();
    for (name, bytes) in programs_for_x86_64() {
        let (image, facts) = (check(&name, &bytes), expected(&bytes));
        let kind = Kind {
            alignment: facts.alignment,
            relocations: facts.addresses.len(),
            is_protected: image.protection().is_some(),
            has_one_layout: image.contents().count() == 1,
            base: facts.base,
        };
        eprintln!("{}: {kind:x?}", name.display());
        seen.push(kind);
    }
    if seen.is_empty() {
        return;
    }
    // Each kind is there.
    assert!(seen.iter().any(|kind| kind.alignment < 0x200), "sections that are aligned to less than a sector");
    assert!(seen.iter().any(|kind| kind.relocations > 1000), "thousands of relocations");
    assert!(seen.iter().any(|kind| kind.relocations == 0), "no relocations");
    assert!(seen.iter().any(|kind| kind.is_protected), "pages that can be protected");
    assert!(seen.iter().any(|kind| kind.has_one_layout), "the same layout in file and memory");
    assert!(seen.iter().any(|kind| kind.base > u32::MAX.into()), "linked above 4 GiB");
}

#[test]
fn programs_for_other_machines_are_refused() {
    for (name, bytes) in programs().into_iter().flatten() {
        if let Some(machine) = machine_of(&bytes).filter(|&machine| machine != IMAGE_FILE_MACHINE_AMD64) {
            assert_eq!(parse(&bytes), Err(Error::Machine(machine)), "{}", name.display());
        }
    }
}

#[test]
fn a_program_that_is_cut_off_is_refused_and_one_without_its_certificate_is_whole() {
    let mut with_more = 0;
    for (name, bytes) in programs_for_x86_64() {
        let (whole, facts) = (parse(&bytes).unwrap(), expected(&bytes));
        let ends = facts.sections.iter().filter(|section| section.file_len > 0);
        let ends: Vec<_> = ends.map(|section| (section.offset + section.file_len) as usize).collect();
        let last = *ends.iter().max().unwrap();
        // What follows the last section is certificates and symbols.
        assert_eq!(parse(&bytes[..last]), Ok(whole), "{}", name.display());
        with_more += usize::from(last < bytes.len());
        let headers = (0..facts.headers_len as usize).step_by(61);
        for cut in headers.chain(ends.into_iter().map(|end| end - 1)).chain([last / 2]) {
            assert!(parse(&bytes[..cut]).is_err(), "{} with {cut} bytes", name.display());
        }
        assert!(parse(&bytes[..last - 1]).is_err(), "{} with {} bytes", name.display(), last - 1);
    }
    eprintln!("{with_more} programs have bytes after the last section");
}

/// The certificates of a file, by the second reader.
fn certificates(bytes: &[u8]) -> &[u8] {
    let file = PeFile64::parse(bytes).unwrap();
    let directory = file.data_directories().get(IMAGE_DIRECTORY_ENTRY_SECURITY);
    let (at, len) = directory.map_or((0, 0), |found| (found.virtual_address.get(LE), found.size.get(LE)));
    &bytes[at as usize..][..len as usize]
}

/// Who signed a file has put its digest into the certificates, so that is a second reader.
#[test]
fn the_digest_of_each_signed_program_is_in_its_certificates() {
    const SHA256: u16 = 0x0b;
    let mut signed = 0;
    for (name, bytes) in programs_for_x86_64() {
        let parts = pe::hashed(&bytes[..bytes.len().min(MOST_HEADERS)], bytes.len() as u64).unwrap();
        let parts: Vec<_> = parts.iter().map(|part| &bytes[part.start as usize..part.end as usize]).collect();
        let digest = event_log::digest(SHA256, &parts.concat());
        let certificates = certificates(&bytes);
        if certificates.is_empty() {
            let checksum_and_directory = 4 + 8;
            assert_eq!(parts.concat().len(), bytes.len() - checksum_and_directory, "{}", name.display());
        } else {
            signed += 1;
            assert!(certificates.windows(digest.len()).any(|part| part == digest), "{}", name.display());
        }
    }
    eprintln!("{signed} programs are signed");
    assert!(signed > 0 || programs().is_none());
}

/// Appends sections to a stub, as ukify and objcopy do: `overlap` bytes before the end of what comes before.
fn unified(stub: &[u8], sections: &[(&str, Vec<u8>)], overlap: u32) -> Option<Vec<u8>> {
    let facts = expected(stub);
    let at = u32::from_le_bytes(*stub[0x3c..].first_chunk()?) as usize;
    let count = usize::from(u16::from_le_bytes(*stub[at + 6..].first_chunk()?));
    let table = at + 24 + usize::from(u16::from_le_bytes(*stub[at + 20..].first_chunk()?));
    if table + 40 * (count + sections.len()) > facts.headers_len as usize {
        return None;
    }
    let mut file = stub.to_vec();
    let mut end = facts.sections.iter().map(|section| section.start + section.len).max()?;
    let align = |at: u32, overlap| if overlap > 0 { at - overlap } else { at.next_multiple_of(facts.alignment) };
    for (index, (name, contents)) in sections.iter().enumerate() {
        file.resize(file.len().next_multiple_of(0x200), 0);
        let (offset, len, start) = (file.len() as u32, contents.len() as u32, align(end, overlap));
        file.extend(contents);
        file.resize(file.len().next_multiple_of(0x200), 0);
        let mut header = [0; 40];
        header[..name.len()].copy_from_slice(name.as_bytes());
        for (at, number) in [(8, len), (12, start), (16, len.next_multiple_of(0x200)), (20, offset), (36, 0x4000_0040)]
        {
            header[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        file[table + 40 * (count + index)..][..40].copy_from_slice(&header);
        end = end.max(start + len);
    }
    file[at + 6..at + 8].copy_from_slice(&((count + sections.len()) as u16).to_le_bytes());
    file[at + 24 + 56..][..4].copy_from_slice(&end.next_multiple_of(facts.alignment).to_le_bytes());
    Some(file)
}

#[test]
fn a_unified_kernel_image_of_every_stub_is_placed_with_all_its_sections() {
    let stubs = programs_for_x86_64().filter(|(name, _)| name.ends_with("linuxx64.efi.stub"));
    let bytes =
        |seed: u32, len: u32| (0..len).map(|at| ((at ^ seed).wrapping_mul(31) >> 3) as u8 | 1).collect::<Vec<u8>>();
    for (name, stub) in stubs {
        let sections = [
            (".osrel", bytes(1, 0x123)),
            (".cmdline", bytes(2, 0x34)),
            (".linux", bytes(3, 0x12_3456)),
            (".initrd", bytes(4, 0x40_0001)),
        ];
        // After the stub of systemd 252, whose sections are not aligned to pages, ukify lets a section overlap the last one
        // by 0x34 bytes.
        let overlaps: &[u32] = if expected(&stub).alignment < PAGE { &[0, 0x34] } else { &[0] };
        for &overlap in overlaps {
            let Some(image) = unified(&stub, &sections, overlap) else {
                panic!("{}: its headers have no room", name.display());
            };
            check(&name, &image);
        }
    }
}
