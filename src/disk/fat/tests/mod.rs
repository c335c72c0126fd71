mod damage;
mod names;
mod second_reader;

use std::string::String;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::addr::PhysAddr;
use crate::disk::BlockLen;
use crate::fakes::blocks::{FakeBlocks, Request};
use crate::fakes::fat::{FatImage, Format};

fn utf16(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

fn text(units: &[u16]) -> String {
    String::from_utf16_lossy(units)
}

/// The file system of an image, on a disk.
fn opened(image: &FatImage) -> (Fat, FakeBlocks) {
    let mut blocks = FakeBlocks::new(&image.bytes);
    (Fat::open(&mut blocks).unwrap(), blocks)
}

/// What a path of names leads to.
fn find(fat: &Fat, blocks: &mut FakeBlocks, path: &str) -> Option<Entry> {
    path.split('\\').try_fold(fat.root(), |at, name| fat.find(blocks, &at, &utf16(name)).unwrap())
}

fn list(fat: &Fat, blocks: &mut FakeBlocks, directory: &Entry) -> Vec<Entry> {
    let mut position = Position::default();
    core::iter::from_fn(|| fat.next(blocks, directory, &mut position).unwrap()).collect()
}

fn names(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| text(entry.name())).collect()
}

/// The names in the root directory.
fn root_names(image: &FatImage) -> Vec<String> {
    let (fat, mut blocks) = opened(image);
    names(&list(&fat, &mut blocks, &fat.root()))
}

fn contents(fat: &Fat, blocks: &mut FakeBlocks, file: &Entry) -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; file.len() as usize];
    fat.read(blocks, &mut fat.reader(file), 0, &mut bytes).map(|()| bytes)
}

/// Bytes that differ everywhere.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u32).map(|at| ((at % 251) ^ (at >> 9)) as u8).collect()
}

const PLACE: u64 = 0x10_0000;

fn place(len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(PLACE), len).unwrap()
}

fn loads(blocks: &FakeBlocks) -> Vec<Request> {
    blocks.requests.iter().copied().filter(|request| matches!(request, Request::Load(..))).collect()
}

#[test]
fn a_file_is_found_by_its_path_and_read() {
    for format in Format::ALL {
        let mut image = FatImage::new(format);
        let efi = image.directory(image.root(), "EFI");
        let boot = image.directory(efi, "BOOT");
        let program = pattern(12_345);
        image.file(boot, "BOOTX64.EFI", &program);
        let (fat, mut blocks) = opened(&image);
        let file = find(&fat, &mut blocks, "efi\\Boot\\bootx64.efi").unwrap();
        assert_eq!((text(file.name()), file.len(), file.is_directory()), ("BOOTX64.EFI".into(), 12_345, false));
        assert_eq!(contents(&fat, &mut blocks, &file).unwrap(), program);
        let boot = find(&fat, &mut blocks, "EFI\\BOOT").unwrap();
        assert_eq!(names(&list(&fat, &mut blocks, &boot)), [".", "..", "BOOTX64.EFI"]);
        assert_eq!(find(&fat, &mut blocks, "EFI\\BOOT\\GRUBX64.EFI"), None);
        assert_eq!((fat.serial(), fat.is_empty()), (0x1234_5678, false));
        assert_eq!(fat.len(), u64::from(format.clusters) * u64::from(format.cluster_len()));
        assert_eq!([0, 1, 512, 513].map(|len| fat.room_of(len)), [0, 512, 512, 1024]);
    }
}

#[test]
fn a_contiguous_file_is_loaded_by_one_request() {
    for format in Format::ALL {
        let mut image = FatImage::new(format);
        let kernel = pattern(150_000);
        let cluster = image.file(image.root(), "VMLINUZ", &kernel);
        let (fat, mut blocks) = opened(&image);
        let file = find(&fat, &mut blocks, "vmlinuz").unwrap();
        fat.load(&mut blocks, &mut fat.reader(&file), 0, place(150_000)).unwrap();
        assert_eq!(loads(&blocks), [Request::Load(format.cluster(cluster), 150_000)]);
        assert_eq!(blocks.memory.bytes(PLACE, kernel.len()), kernel);
    }
}

/// As `f-frag`, the test disk with a kernel that was written between other files.
#[test]
fn a_kernel_in_hundreds_of_fragments_takes_a_request_for_each() {
    const FRAGMENTS: u32 = 256;
    let format = Format { cluster_sectors: 8, clusters: 8000, ..Format::FAT32 };
    let mut image = FatImage::new(format);
    let kernel = pattern(14 << 20);
    let all = image.take(7500);
    let count = (kernel.len() as u32).div_ceil(format.cluster_len());
    // Every piece of 14 clusters is followed by one of another file.
    let clusters: Vec<_> = all.chunks(15).flat_map(|piece| piece.iter().copied().take(14)).collect();
    let clusters = &clusters[..count as usize];
    image.file_in(image.root(), "vmlinuz", &kernel, clusters);
    let (fat, mut blocks) = opened(&image);
    let file = find(&fat, &mut blocks, "vmlinuz").unwrap();

    blocks.requests.clear();
    fat.load(&mut blocks, &mut fat.reader(&file), 0, place(kernel.len() as u64)).unwrap();
    assert_eq!(loads(&blocks).len() as u32, FRAGMENTS);
    // The table's part of the file is read once, 128 entries at a time.
    let links = all[..clusters.len() + FRAGMENTS as usize].len();
    assert!(blocks.requests.len() - FRAGMENTS as usize <= links.div_ceil(128) + 1, "{}", blocks.requests.len());
    assert!(blocks.memory.bytes(PLACE, kernel.len()) == kernel);

    // In the pieces of a loader, each of which goes on in the row of the last one.
    const PIECE: u64 = 32 << 10;
    blocks.requests.clear();
    blocks.memory = Default::default();
    let mut reader = fat.reader(&file);
    for at in (0..kernel.len() as u64).step_by(PIECE as usize) {
        let to = PhysRange::new(PhysAddr::new(PLACE + at), PIECE.min(kernel.len() as u64 - at)).unwrap();
        fat.load(&mut blocks, &mut reader, at, to).unwrap();
    }
    let pieces = kernel.len() as u64 / PIECE;
    let tables = blocks.requests.len() - loads(&blocks).len();
    assert!(tables as u64 <= 2 * pieces, "{tables} reads of the table for {pieces} pieces");
    assert!(blocks.memory.bytes(PLACE, kernel.len()) == kernel);
}

/// As unified kernel images are looked at before they are started.
#[test]
fn a_file_is_read_in_pieces_of_any_length_up_to_its_end() {
    for format in Format::ALL {
        let mut image = FatImage::new(format);
        let bytes = pattern(3000);
        image.file(image.root(), "A", &bytes);
        image.file(image.root(), "EMPTY", &[]);
        let (fat, mut blocks) = opened(&image);
        let file = find(&fat, &mut blocks, "A").unwrap();
        let mut reader = fat.reader(&file);
        assert_eq!((reader.len(), reader.is_empty()), (3000, false));
        for (at, len) in [(0, 0x40), (0x40, 0x60), (510, 4), (2999, 1), (1024, 512), (0, 3000), (3000, 0)] {
            let mut piece = vec![0; len];
            fat.read(&mut blocks, &mut reader, at, &mut piece).unwrap();
            assert_eq!(piece, bytes[at as usize..][..len], "{at}");
        }
        for (at, len) in [(2999, 2), (3000, 1), (3001, 0), (u64::MAX, 0), (u64::MAX, 1), (1 << 32, 1)] {
            let result = fat.read(&mut blocks, &mut reader, at, &mut vec![0; len]);
            assert_eq!(result, Err(Error::OutOfRange), "{at} {len}");
        }
        let empty = find(&fat, &mut blocks, "EMPTY").unwrap();
        assert_eq!((empty.is_empty(), fat.reader(&empty).is_empty()), (true, true));
        assert_eq!(contents(&fat, &mut blocks, &empty), Ok(vec![]));
        assert_eq!(fat.read(&mut blocks, &mut fat.reader(&empty), 0, &mut [0]), Err(Error::OutOfRange));
    }
}

#[test]
fn a_sector_of_the_file_system_is_not_a_block_of_the_disk() {
    let formats = [
        // A CD: the file system is an image, with sectors of a disk.
        (Format::FAT16, BlockLen::CD),
        (Format { sector_len: 4096, ..Format::FAT32 }, BlockLen::new(4096).unwrap()),
        (Format { sector_len: 4096, root_entries: 512, ..Format::FAT16 }, BlockLen::new(4096).unwrap()),
        (Format { cluster_sectors: 16, ..Format::FAT12 }, BlockLen::DISK),
        (Format { sector_len: 1024, cluster_sectors: 128, clusters: 30, ..Format::FAT12 }, BlockLen::DISK),
    ];
    for (format, block_len) in formats {
        let mut image = FatImage::new(format);
        let loader = image.directory(image.root(), "loader");
        let bytes = pattern(100_001);
        image.file(loader, "loader.conf", &bytes);
        let mut blocks = FakeBlocks::new(&image.bytes).in_blocks(block_len);
        let fat = Fat::open(&mut blocks).unwrap();
        assert_eq!(fat.cluster_len(), format.cluster_len());
        let file = find(&fat, &mut blocks, "loader\\loader.conf").unwrap();
        assert_eq!(contents(&fat, &mut blocks, &file), Ok(bytes), "{format:?}");
    }
}

/// Entries 341 and 682 of the table lie across two sectors of 512 bytes.
#[test]
fn a_12_bit_entry_across_two_sectors_is_whole() {
    let format = Format { clusters: 1000, ..Format::FAT12 };
    for across in [341, 682] {
        let mut image = FatImage::new(format);
        let bytes = pattern(5 * 512);
        image.file_in(image.root(), "A", &bytes, &[across - 1, 500, across, 42, across + 1]);
        assert_eq!(format.table(0) % 512, 0);
        let (fat, mut blocks) = opened(&image);
        let file = find(&fat, &mut blocks, "A").unwrap();
        assert_eq!(contents(&fat, &mut blocks, &file), Ok(bytes));
    }
}

#[test]
fn the_table_in_use_is_read() {
    let format = Format::FAT32;
    let mut image = FatImage::new(format);
    let bytes = pattern(3 * 512);
    image.file_in(image.root(), "A", &bytes, &[10, 20, 30]);
    // Only the second copy is kept up to date.
    image.put(format.table(0) + 40, &[0; 4]);
    let (fat, mut blocks) = opened(&image);
    let file = find(&fat, &mut blocks, "A").unwrap();
    assert_eq!(contents(&fat, &mut blocks, &file), Err(Error::Cluster(0)));
    image.put(40, &0x81_u16.to_le_bytes());
    let (fat, mut blocks) = opened(&image);
    assert_eq!(contents(&fat, &mut blocks, &file), Ok(bytes));
    // There is no third one.
    image.put(40, &0x82_u16.to_le_bytes());
    assert_eq!(Fat::open(&mut FakeBlocks::new(&image.bytes)), Err(Error::NotFat));
}

/// Both directions, and the same piece twice: a reader that went too far starts again.
#[test]
fn a_reader_goes_back() {
    for format in Format::ALL {
        let mut image = FatImage::new(format);
        let bytes = pattern(64 * 512);
        let clusters: Vec<_> = (0..64).map(|index| 10 + (index * 37) % 200).collect();
        image.file_in(image.root(), "A", &bytes, &clusters);
        let (fat, mut blocks) = opened(&image);
        let file = find(&fat, &mut blocks, "A").unwrap();
        let mut reader = fat.reader(&file);
        for at in (0..64).rev().chain([5, 5, 63, 0]) {
            let mut piece = [0; 512];
            fat.read(&mut blocks, &mut reader, at * 512, &mut piece).unwrap();
            assert_eq!(piece, bytes[at as usize * 512..][..512]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_file_in_any_clusters_is_read_in_any_pieces(
        which in 0_usize..3,
        cluster_sectors in 0_u32..3,
        order in Just((2_u32..300).collect::<Vec<_>>()).prop_shuffle(),
        // How many neighbours are kept together.
        together in 1_usize..20,
        len in 0_usize..60_000,
        pieces in prop::collection::vec((any::<u32>(), 0_usize..9000), 1..20),
    ) {
        let format = Format { cluster_sectors: 1 << cluster_sectors, ..Format::ALL[which] };
        let mut image = FatImage::new(format);
        image.take(299);
        let order: Vec<u32> = order
            .chunks_exact(together)
            .flat_map(|piece| (piece[0]..).take(together))
            .filter(|cluster| *cluster > 2)
            .collect();
        let mut clusters: Vec<u32> = Vec::new();
        order.into_iter().for_each(|cluster| if !clusters.contains(&cluster) { clusters.push(cluster) });
        let len = len.min(clusters.len() * format.cluster_len() as usize);
        clusters.truncate(len.div_ceil(format.cluster_len() as usize));
        let bytes = pattern(len);
        image.file_in(image.root(), "A", &bytes, &clusters);
        let (fat, mut blocks) = opened(&image);
        let file = find(&fat, &mut blocks, "A").unwrap();
        let rows = clusters.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count() + usize::from(len > 0);
        fat.load(&mut blocks, &mut fat.reader(&file), 0, place(len as u64)).unwrap();
        prop_assert_eq!(loads(&blocks).len(), rows);
        prop_assert_eq!(blocks.memory.bytes(PLACE, len), &bytes[..]);
        let mut reader = fat.reader(&file);
        for (at, most) in pieces {
            let at = at as usize % (len + 1);
            let mut piece = vec![0; most.min(len - at)];
            fat.read(&mut blocks, &mut reader, at as u64, &mut piece).unwrap();
            prop_assert_eq!(&piece, &bytes[at..][..piece.len()]);
        }
    }
}
