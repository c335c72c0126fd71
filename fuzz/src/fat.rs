//! FAT file systems: boot sector, table, directories and files.
//!
//! Input: which length a block has, the number of blocks, then pieces of the disk: where, and the bytes.

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::disk::BlockLen;
use firstlight::disk::fat::{Entry, Fat, MOST_DIRECTORY, Position};
use firstlight::fakes::blocks::{FakeBlocks, Request};
use firstlight::fakes::fat::{Described, FatImage, Format, long_slots, short, slot};

use crate::input::Input;
use crate::one_line;

/// As many entries are looked at, in all directories together.
const MOST_ENTRIES: usize = 100;
/// As many bytes of a file are read at once.
const MOST_READ: u32 = 64 << 10;
/// Where files are loaded to.
const PLACE: u64 = 0x100_0000;

/// The disk, and how often it may be read in one call.
struct Disk {
    blocks: FakeBlocks,
    /// As many links as fit into the input: no chain has more.
    links: usize,
}

impl Disk {
    /// Makes a call that reads at most `most` times, beside following a chain.
    fn call<T>(&mut self, most: usize, work: impl FnOnce(&mut FakeBlocks) -> T) -> T {
        self.blocks.requests.clear();
        let result = work(&mut self.blocks);
        let (count, most) = (self.blocks.requests.len(), most + 3 * self.links);
        assert!(count <= most, "{count} requests, {most} expected");
        result
    }
}

/// Looks at everything in the file system. Each call reads the disk a bounded number of times. A file that is listed is found by its
/// name. A file has the same bytes in one piece, in several, and by another way to them. Names, labels and errors have their form.
///
/// # Panics
/// When that is not so.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let block_len = BlockLen::new(512 << (input.take::<u8>() % 4)).expect("one of the four");
    let len = u64::from(input.take::<u16>()) << 10;
    let mut blocks = FakeBlocks::empty(block_len, len / u64::from(block_len.get()));
    while !input.is_empty() {
        let at = input.take::<u32>().into();
        blocks.disk.store(at, input.long());
    }
    let mut disk = Disk { blocks, links: bytes.len() };
    let fat = match Fat::open(&mut disk.blocks) {
        Ok(fat) => fat,
        Err(error) => return one_line(&error.to_string()),
    };
    assert!(!fat.is_empty() && fat.cluster_len().is_power_of_two() && fat.len() >= fat.cluster_len().into());
    if let Err(error) = disk.call(pieces(MOST_DIRECTORY), |blocks| fat.label(blocks)) {
        one_line(&error.to_string());
    }
    let mut left = MOST_ENTRIES;
    walk(&fat, &mut disk, &fat.root(), 0, &mut left);
}

/// How many reads of 512 bytes `len` bytes take, each perhaps with one of the table.
const fn pieces(len: u32) -> usize {
    2 * (len as usize / 512 + 2)
}

fn walk(fat: &Fat, disk: &mut Disk, directory: &Entry, depth: u32, left: &mut usize) {
    let mut position = Position::default();
    while *left > 0 {
        *left -= 1;
        let before = position;
        let listed = disk.call(pieces(MOST_DIRECTORY), |blocks| fat.next(blocks, directory, &mut position));
        let entry = match listed {
            Ok(Some(entry)) => entry,
            Ok(None) => return,
            Err(error) => {
                assert_eq!(position, before);
                return one_line(&error.to_string());
            }
        };
        assert!(position != before && entry.name().len() <= 255 && !entry.name().contains(&0));
        let found = disk.call(pieces(MOST_DIRECTORY), |blocks| fat.find(blocks, directory, entry.name()));
        // Another one may have the same name, and a name may end with what does not matter in names.
        if let Some(found) = found.expect("it was read until there") {
            assert!(found.name().len() <= 255);
        } else {
            let dot_or_space = [0x20, 0x2e];
            let is_odd = |unit: Option<&u16>| unit.is_none_or(|unit| dot_or_space.contains(unit));
            assert!(is_odd(entry.name().first()) || is_odd(entry.name().last()), "{:x?}", entry.name());
        }
        if entry.is_directory() {
            assert_eq!(entry.len(), 0);
            if depth < 4 {
                walk(fat, disk, &entry, depth + 1, left);
            }
        } else {
            read(fat, disk, &entry);
        }
    }
}

fn read(fat: &Fat, disk: &mut Disk, file: &Entry) {
    let len = file.len().min(MOST_READ);
    assert!(fat.room_of(file.len()) >= file.len().into());
    let mut reader = fat.reader(file);
    let place = PhysRange::new(PhysAddr::new(PLACE), len.into()).expect("low memory");
    let loaded = disk.call(pieces(len), |blocks| fat.load(blocks, &mut reader, 0, place));
    for request in &disk.blocks.requests {
        assert!(matches!(request, Request::Load(..)) || request.range().end - request.range().start <= 512);
    }
    let mut bytes = vec![0; len as usize];
    let whole = disk.call(pieces(len), |blocks| fat.read(blocks, &mut reader, 0, &mut bytes));
    assert_eq!(whole, loaded);
    match loaded {
        Ok(()) => assert!(disk.blocks.memory.bytes(PLACE, bytes.len()) == bytes),
        Err(error) => one_line(&error.to_string()),
    }
    // From the end to the start, where a reader always begins anew, and with one that has not read anything.
    let mut pieces_of = [reader, fat.reader(file)];
    for at in (0..len).step_by(5000).collect::<Vec<_>>().into_iter().rev() {
        let mut piece = vec![0; 5000.min((len - at) as usize)];
        for reader in &mut pieces_of {
            let result = disk.call(pieces(5000), |blocks| fat.read(blocks, reader, at.into(), &mut piece));
            match result {
                Ok(()) => assert!(whole.is_err() || piece == bytes[at as usize..][..piece.len()]),
                Err(_) => assert!(whole.is_err()),
            }
        }
    }
    // The end, and what is behind it.
    let end = u64::from(file.len());
    if let Some(last) = end.checked_sub(1) {
        let _ = disk.call(2, |blocks| fat.read(blocks, &mut reader, last, &mut [0]));
    }
    assert!(disk.call(0, |blocks| fat.read(blocks, &mut reader, end, &mut [])).is_ok());
    assert!(disk.call(0, |blocks| fat.read(blocks, &mut reader, end, &mut [0])).is_err());
}

/// An image as an input: what is not zero.
fn input(image: &FatImage, block_len: u8) -> Vec<u8> {
    let mut bytes = vec![block_len];
    bytes.extend(((image.bytes.len() >> 10) as u16 + 1).to_le_bytes());
    for (index, sector) in image.bytes.chunks(128).enumerate() {
        let Some(last) = sector.iter().rposition(|&byte| byte != 0) else { continue };
        let first = sector.iter().position(|&byte| byte != 0).unwrap_or_default();
        bytes.extend((index as u32 * 128 + first as u32).to_le_bytes());
        bytes.extend(((last - first + 1) as u16).to_le_bytes());
        bytes.extend(&sector[first..=last]);
    }
    bytes
}

/// One of each kind, with long names, pieces, deleted entries, a circle, and an end that comes too early.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let formats = [
        (Format { clusters: 60, ..Format::FAT12 }, 0),
        (Format { clusters: 400, cluster_sectors: 4, ..Format::FAT12 }, 2),
        (Format::FAT16, 0),
        (Format { clusters: 80, ..Format::FAT32 }, 0),
        (Format { clusters: 40, sector_len: 4096, ..Format::FAT32 }, 3),
    ];
    let seed = |(format, block_len): (Format, u8)| {
        let mut image = FatImage::new(format);
        let contents: Vec<u8> = (0..1500_u32).map(|at| (at % 251) as u8).collect();
        let loader = image.directory(image.root(), "loader");
        let entries = image.directory(loader, "entries");
        image.file(entries, "6f1c0dc1a3c54a2f-6.1.0-amd64+3-0.conf", b"title Debian\n");
        image.file(loader, "LOADER.CON", b"timeout 0\n");
        let clusters: Vec<_> =
            [30, 31, 25, 26, 34].map(|cluster| cluster - u32::from(format.clusters < 35) * 10).to_vec();
        let count = contents.len().div_ceil(format.cluster_len() as usize);
        image.file_in(image.root(), "VMLINUZ", &contents, &clusters[..count]);
        let alias = short("GONE").expect("a short name");
        let described = |attributes, cluster, len| Described { attributes, cluster, len };
        let mut gone = long_slots(&[0x47, 0x6f, 0x6e, 0x65], &alias);
        gone.push(slot(alias, described(0x20, 9, 100)));
        gone.iter_mut().for_each(|slot| slot[0] = 0xe5);
        gone.push(slot(*b"ESP        ", described(8, 0, 0)));
        gone.into_iter().for_each(|slot| image.slot(image.root(), slot));
        let first = image.store(&[20, 21, 15], &contents);
        image.set_link(15, 21);
        image.entry(image.root(), "circle", described(0x20, first, u32::MAX));
        image.entry(image.root(), "directory circle", described(0x10, first, 0));
        image.entry(image.root(), "CUTOFF", described(0x20, clusters[0], 50_000));
        input(&image, block_len)
    };
    formats.into_iter().map(seed).collect()
}
