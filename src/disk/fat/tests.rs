use std::string::String;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::addr::PhysAddr;
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
        let loads: Vec<_> = blocks.requests.iter().filter(|request| matches!(request, Request::Load(..))).collect();
        assert_eq!(loads, [&Request::Load(format.cluster(cluster), 150_000)]);
        assert_eq!(blocks.memory.bytes(PLACE, kernel.len()), kernel);
    }
}
