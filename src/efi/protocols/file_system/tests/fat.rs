//! Files of a FAT volume.

use super::*;
use crate::addr::{PhysAddr, PhysRange};
use crate::fakes::blocks::{FakeBlocks, Request};
use crate::fakes::fat::{FatImage, Format};

const LOADER: &str = "grubx64.efi";
const CONTENTS: &[u8] = &{
    let (mut bytes, mut at) = ([0; 5000], 0);
    while at < bytes.len() {
        bytes[at] = (at % 251) as u8;
        at += 1;
    }
    bytes
};

/// `\loader.conf`, `\EFI\BOOT\grubx64.efi` and an empty `\EFI\Linux`.
fn image() -> FatImage {
    let mut image = FatImage::new(Format::FAT16);
    let root = image.root();
    image.file(root, "loader.conf", b"timeout 3\n");
    let efi = image.directory(root, "EFI");
    let boot = image.directory(efi, "BOOT");
    image.file(boot, LOADER, CONTENTS);
    image.directory(efi, "Linux");
    image
}

struct Test {
    disks: FakeDisks,
    files: FileSystem<'static>,
    volume: VolumeId,
    root: FileId,
}

impl Test {
    fn of(image: &FatImage) -> Self {
        let mut disks = FakeDisks(std::vec![FakeBlocks::new(&[0; 512]), FakeBlocks::new(&image.bytes)]);
        let fat = crate::disk::fat::Fat::open(&mut disks.0[1]).unwrap();
        let mut files = FileSystem::new();
        files.add(Volume::Host(HostVolume::new())).unwrap();
        let volume = files.add(Volume::Fat(FatVolume::new(BlockId::from_raw(1), fat))).unwrap();
        let root = files.open_volume(volume).unwrap();
        Self { disks, files, volume, root }
    }

    fn new() -> Self {
        Self::of(&image())
    }

    fn open(&mut self, from: FileId, path: &str) -> Result<FileId, Status> {
        self.open_for(from, path, FileMode::READ)
    }

    fn open_for(&mut self, from: FileId, path: &str, mode: FileMode) -> Result<FileId, Status> {
        self.files.open(&mut self.disks, from, &utf16(path), mode)
    }

    fn info(&mut self, id: FileId, kind: Guid) -> Info {
        self.files.info(&mut self.disks, id, kind, 1000).unwrap()
    }

    fn name(&mut self, id: FileId) -> std::string::String {
        name(&self.info(id, FileInfo::ID), 80)
    }

    /// The bytes that a read of a file puts into a buffer.
    fn read(&mut self, id: FileId, room: u64) -> Result<Vec<u8>, Status> {
        let read = self.files.read(&mut self.disks, id, room).map_err(BufferError::status)?;
        let Read::OnDisk { start, len } = read else { panic!("{read:?}") };
        let to = PhysRange::new(PhysAddr::new(0x10_0003), len).unwrap();
        self.files.load(&mut self.disks, id, start, to).inspect_err(|_| self.files.undo(id, &read).unwrap())?;
        Ok(self.disks.0[1].memory.bytes(to.start().get(), len as usize))
    }

    /// The next entry of a directory: its name, and the bytes that it takes.
    fn entry(&mut self, id: FileId, room: u64) -> Result<Option<(std::string::String, u64)>, BufferError> {
        let read = self.files.read(&mut self.disks, id, room)?;
        let Read::Entry(info) = read else { panic!("{read:?}") };
        Ok((!info.is_empty()).then(|| (name(&info, 80), info.len() as u64)))
    }
}

#[test]
fn paths_on_a_disk_lead_to_files_from_where_they_begin() {
    let mut test = Test::new();
    let root = test.root;
    let boot = test.open(root, "efi\\boot").unwrap();
    let loader = test.open(boot, "GRUBX64.EFI").unwrap();
    for (from, path, expected) in [
        (root, "\\EFI\\BOOT\\grubx64.efi", Some(LOADER)),
        (root, "EFI\\BOOT\\GRUBX64.efi", Some(LOADER)),
        (root, "\\\\EFI\\\\.\\BOOT\\.\\grubx64.efi", Some(LOADER)),
        // shim asks for a directory like this.
        (root, "\\EFI\\BOOT\\", Some("BOOT")),
        (boot, "", Some("BOOT")),
        (boot, ".", Some("BOOT")),
        (boot, "grubx64.efi", Some(LOADER)),
        (boot, "..", Some("EFI")),
        (boot, "..\\", Some("EFI")),
        (boot, "..\\..", Some("")),
        (boot, "..\\Linux\\..\\BOOT\\grubx64.efi", Some(LOADER)),
        (boot, "..\\..\\loader.conf", Some("loader.conf")),
        (boot, "\\loader.conf", Some("loader.conf")),
        (boot, "\\", Some("")),
        (loader, "", Some(LOADER)),
        (loader, "\\EFI", Some("EFI")),
        (boot, "..\\..\\..", None),
        (root, "..", None),
        (root, "missing", None),
        (root, "missing\\..\\EFI", None),
        (root, "loader.conf\\", None),
        (root, "loader.conf\\..", None),
        (loader, "grubx64.efi", None),
        (loader, "..", None),
    ] {
        let file = test.open(from, path);
        let Some(expected) = expected else {
            assert_eq!(file, Err(Status::NOT_FOUND), "{path}");
            continue;
        };
        assert_eq!(test.name(file.unwrap()), expected, "{path}");
        test.files.close(file.unwrap()).unwrap();
    }
}

#[test]
fn a_file_on_a_disk_is_not_opened_to_write() {
    let mut test = Test::new();
    let root = test.root;
    let (read, write, create) = (FileMode::READ, FileMode::WRITE, FileMode::CREATE);
    for (path, mode, expected) in [
        ("loader.conf", read | write, Status::WRITE_PROTECTED),
        ("new", read | write, Status::NOT_FOUND),
        ("loader.conf", read | write | create, Status::WRITE_PROTECTED),
        ("new", read | write | create, Status::WRITE_PROTECTED),
        ("loader.conf", write, Status::INVALID_PARAMETER),
    ] {
        assert_eq!(test.open_for(root, path, mode), Err(expected), "{path} {mode:?}");
    }
    let file = test.open(root, "loader.conf").unwrap();
    assert_eq!(test.files.write(file), Err(Status::WRITE_PROTECTED));
    assert_eq!(test.files.set_info(file, FileInfo::ID, 100), Err(Status::WRITE_PROTECTED));
    assert_eq!(test.files.flush(file), Err(Status::WRITE_PROTECTED));
    assert_eq!(test.files.delete(file), Err(Status::WARN_DELETE_FAILURE));
    assert!(test.open(root, "loader.conf").is_ok());
}

#[test]
fn a_file_on_a_disk_is_read_in_any_pieces() {
    let mut test = Test::new();
    let root = test.root;
    let file = test.open(root, "EFI\\BOOT\\grubx64.efi").unwrap();
    assert_eq!(test.read(file, 0x40).unwrap(), CONTENTS[..0x40]);
    assert_eq!(test.read(file, 1000).unwrap(), CONTENTS[0x40..0x40 + 1000]);
    test.files.set_position(file, 4000).unwrap();
    assert_eq!(test.read(file, u64::MAX).unwrap(), CONTENTS[4000..]);
    assert_eq!(test.files.position(file), Ok(CONTENTS.len() as u64));
    assert_eq!(test.read(file, 10).unwrap(), [], "at the end");
    test.files.set_position(file, END_OF_FILE).unwrap();
    assert_eq!(test.files.position(file), Ok(CONTENTS.len() as u64));
    for behind in [CONTENTS.len() as u64 + 1, 1 << 32, END_OF_FILE - 1] {
        test.files.set_position(file, behind).unwrap();
        assert_eq!(test.read(file, 10), Err(Status::DEVICE_ERROR), "{behind:#x}");
        assert_eq!(test.read(file, 0), Err(Status::DEVICE_ERROR), "{behind:#x}");
    }
    // The first cluster again, after the last.
    test.files.set_position(file, 0).unwrap();
    assert_eq!(test.read(file, 600).unwrap(), CONTENTS[..600]);
}

#[test]
fn a_file_whose_clusters_are_neighbours_is_one_request() {
    let mut test = Test::new();
    let root = test.root;
    let file = test.open(root, "EFI\\BOOT\\grubx64.efi").unwrap();
    test.disks.0[1].requests.clear();
    assert_eq!(test.read(file, u64::MAX).unwrap(), CONTENTS);
    let loads = test.disks.0[1].requests.iter().filter(|request| matches!(request, Request::Load(..)));
    assert_eq!(loads.count(), 1);
}

#[test]
fn a_directory_on_a_disk_is_read_entry_by_entry() {
    let mut test = Test::new();
    let root = test.root;
    let efi = test.open(root, "EFI").unwrap();
    let expected = [(".", 84), ("..", 86), ("BOOT", 90), ("Linux", 92)];
    for _ in 0..2 {
        for (name, len) in expected {
            // shim asks for the length first, each time.
            for room in [0, len - 1] {
                assert_eq!(test.entry(efi, room), Err(BufferError::TooSmall { needed: len }));
            }
            assert_eq!(test.entry(efi, len), Ok(Some((name.into(), len))));
        }
        for _ in 0..2 {
            assert_eq!(test.entry(efi, 0), Ok(None));
        }
        assert_eq!(test.files.position(efi), Err(Status::UNSUPPORTED));
        assert_eq!(test.files.set_position(efi, 1), Err(Status::UNSUPPORTED));
        assert_eq!(test.files.set_position(efi, 0), Ok(()));
    }
    // The root has no entries for directories above.
    assert_eq!(test.entry(root, 1000).unwrap().unwrap().0, "loader.conf");
    let read = test.files.read(&mut test.disks, root, 1000).unwrap();
    test.files.undo(root, &read).unwrap();
    assert_eq!(test.entry(root, 1000).unwrap().unwrap().0, "EFI");
    assert_eq!(test.files.write(efi), Err(Status::UNSUPPORTED));
}

#[test]
fn information_on_a_disk_is_that_of_its_entry() {
    let mut test = Test::new();
    let root = test.root;
    let file = test.open(root, "EFI\\BOOT\\grubx64.efi").unwrap();
    for room in [0, 0x58] {
        let info = test.files.info(&mut test.disks, file, FileInfo::ID, room);
        assert_eq!(info, Err(BufferError::TooSmall { needed: 0x68 }));
    }
    let info = test.info(file, FileInfo::ID);
    assert_eq!((number(&info, 0), number(&info, 8), number(&info, 16)), (0x68, 5000, 5120));
    // 29 November 2026, 12:34:56; no zone.
    let time = [0xea, 7, 11, 29, 12, 34, 56, 0, 0, 0, 0, 0, 0xff, 7, 0, 0];
    assert_eq!((&info[24..40], &info[56..72]), (&time[..], &time[..]));
    let info = test.info(root, FileInfo::ID);
    assert_eq!((number(&info, 0), number(&info, 8), number(&info, 72), name(&info, 80)), (82, 0, 0x10, "".into()));
    let info = test.info(file, FileSystemInfo::ID);
    let label = "FIRSTLIGHT";
    assert_eq!((number(&info, 8), number(&info, 16), number(&info, 24)), (1, 5000 * 512, 0));
    assert_eq!((&info[32..36], name(&info, 36)), (&512_u32.to_le_bytes()[..], label.into()));
    assert_eq!(name(&test.info(file, FileSystemVolumeLabel::ID), 0), label);
    assert_eq!(test.files.info(&mut test.disks, file, QEMU_LOADER, 1000), Err(Status::UNSUPPORTED.into()));
}

#[test]
fn a_disk_that_cannot_be_read_is_a_device_error() {
    let mut test = Test::new();
    let root = test.root;
    let file = test.open(root, "EFI\\BOOT\\grubx64.efi").unwrap();
    test.disks.0[1].defect = 0..u64::MAX;
    assert_eq!(test.read(file, 100), Err(Status::DEVICE_ERROR));
    assert_eq!(test.files.position(file), Ok(0), "it is read again");
    assert_eq!(test.entry(root, 1000), Err(Status::DEVICE_ERROR.into()));
    assert_eq!(test.open(root, "EFI"), Err(Status::DEVICE_ERROR));
    test.disks.0[1].defect = 0..0;
    assert_eq!(test.read(file, 100).unwrap(), CONTENTS[..100]);
    test.disks.0.clear();
    assert_eq!(test.read(file, 100), Err(Status::DEVICE_ERROR));
}

#[test]
fn a_damaged_file_is_corrupted() {
    let mut image = FatImage::new(Format::FAT16);
    let root = image.root();
    let first = image.file(root, "circle", CONTENTS);
    image.set_link(first + 1, first);
    let mut test = Test::of(&image);
    let root = test.root;
    let file = test.open(root, "circle").unwrap();
    assert_eq!(test.read(file, u64::MAX), Err(Status::VOLUME_CORRUPTED));
}

#[test]
fn a_file_is_found_by_the_nodes_of_its_path() {
    let mut test = Test::new();
    let mut find = |names: &[&str]| {
        let names: Names = names.iter().map(|name| utf16(name)).collect();
        test.files.find(&mut test.disks, test.volume, &names).map(|file| file.map(|file| file.len()))
    };
    assert_eq!(find(&["\\EFI\\BOOT\\grubx64.efi"]), Ok(Some(5000)));
    assert_eq!(find(&["EFI", "BOOT", "grubx64.efi"]), Ok(Some(5000)));
    assert_eq!(find(&["\\EFI\\BOOT"]), Ok(None), "a directory");
    assert_eq!(find(&["\\EFI\\BOOT\\missing"]), Err(Status::NOT_FOUND));
    let names = [utf16("kernel")].to_vec();
    assert!(test.files.find(&mut test.disks, VolumeId::from_raw(0), &names).unwrap().is_none(), "not on a disk");
    let none = test.files.find(&mut test.disks, VolumeId::from_raw(9), &names).map(|_| ());
    assert_eq!(none, Err(Status::INVALID_PARAMETER));
}
