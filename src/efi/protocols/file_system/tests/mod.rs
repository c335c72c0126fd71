//! Each status of a call; names; what is read.

mod fat;

extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::addr::{PhysAddr, PhysRange};
use crate::fakes::blocks::FakeDisks;
use crate::fakes::fw_cfg::FakeFwCfg;
use crate::fakes::machine::FakeMachine;
use crate::fw_cfg::{FwCfg, Item, Key};

const SETUP: &[u8] = b"setup";
const CODE: &[u8] = b"kernel code";
const INITRD: &[u8] = b"the initrd";

fn volume() -> HostVolume<'static> {
    let mut volume = HostVolume::new();
    let one = |name, bytes| HostFile::new(name, [Blob::Bytes(bytes), Blob::default()]);
    volume.add(HostFile::new("kernel", [Blob::Bytes(SETUP), Blob::Bytes(CODE)])).unwrap();
    volume.add(one("initrd", INITRD)).unwrap();
    volume.add(one("shim", b"")).unwrap();
    volume.add(one("cmdline", b"quiet\0")).unwrap();
    volume
}

fn utf16(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

/// There are none.
fn disks() -> FakeDisks {
    FakeDisks::default()
}

/// A file system with this volume, and its root open.
fn of_host(volume: HostVolume<'static>) -> (FileSystem<'static>, FileId) {
    let mut files = FileSystem::new();
    let volume = files.add(Volume::Host(volume)).unwrap();
    let root = files.open_volume(volume).unwrap();
    (files, root)
}

/// A file system with its root open.
fn opened() -> (FileSystem<'static>, FileId) {
    of_host(volume())
}

#[track_caller]
fn open(files: &mut FileSystem<'static>, from: FileId, path: &str) -> Result<FileId, Status> {
    files.open(&mut disks(), from, &utf16(path), FileMode::READ)
}

/// A file system with one file open.
#[track_caller]
fn with(path: &str) -> (FileSystem<'static>, FileId) {
    let (mut files, root) = opened();
    let file = open(&mut files, root, path).unwrap();
    (files, file)
}

/// The bytes of a read.
fn bytes(read: &Read<'_>) -> Vec<u8> {
    match read {
        Read::Contents(pieces) => pieces
            .iter()
            .flat_map(|piece| match piece {
                Blob::Bytes(bytes) => bytes.to_vec(),
                _ => panic!("{piece:?}"),
            })
            .collect(),
        Read::Entry(info) => info.to_vec(),
        Read::OnDisk { .. } => panic!("{read:?}"),
    }
}

/// The name at the end of a structure.
fn name(info: &[u8], at: usize) -> std::string::String {
    let (units, rest) = info[at..].as_chunks::<2>();
    let units: Vec<_> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    let (last, units) = units.split_last().unwrap();
    assert_eq!((*last, rest.len()), (0, 0));
    std::string::String::from_utf16(units).unwrap()
}

fn number(info: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(info[at..at + 8].try_into().unwrap())
}

#[test]
fn a_file_without_bytes_is_not_there() {
    let (mut files, root) = opened();
    assert_eq!(open(&mut files, root, "shim"), Err(Status::NOT_FOUND));
    assert!(volume().file(2).is_some() && volume().file(3).is_none());
    let mut full = volume();
    let more = HostFile::new("shim", [Blob::Bytes(b"x"), Blob::default()]);
    assert_eq!((full.add(more), full.add(more)), (Ok(()), Err(Status::OUT_OF_RESOURCES)));
}

#[test]
fn names_lead_to_files_from_where_they_begin() {
    let (mut files, root) = opened();
    let kernel = open(&mut files, root, "kernel").unwrap();
    let files_of = [
        (root, "kernel", Some("kernel")),
        (root, "\\kernel", Some("kernel")),
        (root, "\\\\.\\KERNEL", Some("kernel")),
        (root, ".\\cmdLine", Some("cmdline")),
        (root, "", Some("")),
        (root, "\\", Some("")),
        (root, ".", Some("")),
        (root, ".\\", Some("")),
        (root, "kernel\0x", Some("kernel")),
        // From a file only what begins at the root, and the file itself.
        (kernel, "", Some("kernel")),
        (kernel, "\\initrd", Some("initrd")),
        (kernel, "\\", Some("")),
        (kernel, "initrd", None),
        (kernel, ".", None),
        (kernel, "..", None),
        (root, "..", None),
        (root, "..\\kernel", None),
        (root, "kernel\\", None),
        (root, "kernel\\.", None),
        (root, "kernel\\..\\kernel", None),
        (root, "/kernel", None),
        (root, "kernel ", None),
        (root, "kerne", None),
        (root, "EFI\\BOOT\\BOOTX64.EFI", None),
        (root, "\u{212a}ernel", None),
    ];
    for (from, path, expected) in files_of {
        let file = open(&mut files, from, path);
        let Some(expected) = expected else {
            assert_eq!(file, Err(Status::NOT_FOUND), "{path}");
            continue;
        };
        let info = files.info(&mut disks(), file.unwrap(), FileInfo::ID, 200).unwrap();
        assert_eq!(name(&info, 80), expected, "{path}");
        files.close(file.unwrap()).unwrap();
    }
}

#[test]
fn a_file_is_opened_to_read_and_for_nothing_else() {
    let (mut files, root) = opened();
    let (read, write, create) = (FileMode::READ, FileMode::WRITE, FileMode::CREATE);
    for (path, mode, expected) in [
        ("kernel", read | write, Status::WRITE_PROTECTED),
        ("new", read | write, Status::NOT_FOUND),
        ("kernel", read | write | create, Status::WRITE_PROTECTED),
        ("new", read | write | create, Status::WRITE_PROTECTED),
        ("", read | write, Status::WRITE_PROTECTED),
        ("kernel", write, Status::INVALID_PARAMETER),
        ("kernel", read | create, Status::INVALID_PARAMETER),
        ("kernel", FileMode::empty(), Status::INVALID_PARAMETER),
        ("kernel", read | FileMode::from_bits_retain(4), Status::INVALID_PARAMETER),
    ] {
        assert_eq!(files.open(&mut disks(), root, &utf16(path), mode), Err(expected), "{path} {mode:?}");
    }
}

#[test]
fn files_that_were_left_open_can_be_closed_together() {
    let (mut files, root) = opened();
    let file = open(&mut files, root, "kernel").unwrap();
    files.close_all();
    assert_eq!([file, root].map(|id| files.close(id)), [Err(Status::INVALID_PARAMETER); 2]);
}

#[test]
fn a_closed_file_is_no_parameter() {
    let (mut files, root) = opened();
    let file = open(&mut files, root, "kernel").unwrap();
    assert_eq!(files.close(file), Ok(()));
    let closed = Err(Status::INVALID_PARAMETER);
    assert_eq!(files.close(file), closed);
    assert_eq!(files.delete(file), closed);
    assert_eq!(files.open(&mut disks(), file, &utf16("\\kernel"), FileMode::READ), Err(Status::INVALID_PARAMETER));
    assert_eq!(files.read(&mut disks(), file, 1), Err(Status::INVALID_PARAMETER.into()));
    assert_eq!(files.write(file), closed);
    assert_eq!(files.position(file), Err(Status::INVALID_PARAMETER));
    assert_eq!(files.set_position(file, 0), closed);
    assert_eq!(files.info(&mut disks(), file, FileInfo::ID, 200), Err(Status::INVALID_PARAMETER.into()));
    assert_eq!(files.set_info(file, FileInfo::ID, 200), closed);
    assert_eq!(files.flush(file), closed);
    // Its number is not given to another one.
    assert_ne!(open(&mut files, root, "kernel").unwrap(), file);
    assert_eq!(FileId::from_raw(file.raw()), file);
}

#[test]
fn files_are_opened_up_to_a_limit() {
    let (mut files, root) = opened();
    let all: Vec<_> = (1..MOST_OPEN).map(|_| open(&mut files, root, "kernel").unwrap()).collect();
    assert_eq!(open(&mut files, root, "kernel"), Err(Status::OUT_OF_RESOURCES));
    assert_eq!(files.open_volume(VolumeId::from_raw(0)), Err(Status::OUT_OF_RESOURCES));
    files.close(all[0]).unwrap();
    assert!(open(&mut files, root, "kernel").is_ok());
}

#[test]
fn what_is_deleted_is_closed_and_stays() {
    let (mut files, root) = opened();
    let file = open(&mut files, root, "kernel").unwrap();
    assert_eq!(files.delete(file), Err(Status::WARN_DELETE_FAILURE));
    assert!(!Status::WARN_DELETE_FAILURE.is_error());
    assert_eq!(files.position(file), Err(Status::INVALID_PARAMETER));
    assert!(open(&mut files, root, "kernel").is_ok());
}

#[test]
fn a_file_is_read_from_its_position_on() {
    let (mut files, file) = with("kernel");
    let whole = [SETUP, CODE].concat();
    let read = files.read(&mut disks(), file, 3).unwrap();
    assert_eq!((bytes(&read), read.len(), files.position(file)), (b"set".to_vec(), 3, Ok(3)));
    // Over the end of a part, and the whole rest, in a buffer that is larger.
    assert_eq!(bytes(&files.read(&mut disks(), file, 4).unwrap()), whole[3..7]);
    assert_eq!(bytes(&files.read(&mut disks(), file, u64::MAX).unwrap()), whole[7..]);
    let read = files.read(&mut disks(), file, 10).unwrap();
    assert!(read.is_empty());
    assert_eq!((read, files.position(file)), (Read::Contents(ArrayVec::new()), Ok(whole.len() as u64)));
    files.set_position(file, 5).unwrap();
    assert!(files.read(&mut disks(), file, 0).unwrap().is_empty());
    assert_eq!(
        files.read(&mut disks(), file, 6).unwrap(),
        Read::Contents([Blob::Bytes(&CODE[..6])].into_iter().collect())
    );
}

#[test]
fn two_openings_of_a_file_have_two_positions() {
    let (mut files, root) = opened();
    let [first, second] = [(); 2].map(|()| open(&mut files, root, "initrd").unwrap());
    files.read(&mut disks(), first, 4).unwrap();
    assert_eq!((files.position(first), files.position(second)), (Ok(4), Ok(0)));
}

#[test]
fn reading_behind_the_end_is_a_device_error() {
    let (mut files, file) = with("initrd");
    let len = INITRD.len() as u64;
    for position in [len + 1, u64::MAX - 1] {
        assert_eq!(files.set_position(file, position), Ok(()));
        assert_eq!(files.position(file), Ok(position));
        for room in [0, 1] {
            assert_eq!(files.read(&mut disks(), file, room), Err(Status::DEVICE_ERROR.into()));
        }
    }
    assert_eq!(files.set_position(file, END_OF_FILE), Ok(()));
    assert_eq!(files.position(file), Ok(len));
    assert!(files.read(&mut disks(), file, 1).unwrap().is_empty());
}

/// Where the reader passes a buffer that cannot be written.
#[test]
fn what_the_reader_did_not_get_is_read_again() {
    let (mut files, file) = with("initrd");
    assert_eq!(files.set_position(file, 4), Ok(()));
    let read = files.read(&mut disks(), file, 3).unwrap();
    assert_eq!((files.undo(file, &read), files.position(file)), (Ok(()), Ok(4)));
    let (mut files, root) = opened();
    let first = files.read(&mut disks(), root, 1000).unwrap();
    assert_eq!(files.undo(root, &first), Ok(()));
    assert_eq!(files.read(&mut disks(), root, 1000), Ok(first));
    assert_eq!(files.close(root), Ok(()));
    assert_eq!(files.undo(root, &read), Err(Status::INVALID_PARAMETER), "it is closed");
}

#[test]
fn a_directory_is_read_entry_by_entry() {
    let (mut files, root) = opened();
    // A buffer that is too small leaves the entry to be read.
    for room in [0, 80, 93] {
        assert_eq!(files.read(&mut disks(), root, room), Err(BufferError::TooSmall { needed: 94 }));
    }
    for _ in 0..2 {
        let entries: Vec<_> = core::iter::from_fn(|| {
            let read = files.read(&mut disks(), root, 100).unwrap();
            (!read.is_empty()).then(|| (name(&bytes(&read), 80), number(&bytes(&read), 8)))
        })
        .collect();
        let expected = [("kernel", 16), ("initrd", 10), ("cmdline", 6)];
        assert_eq!(entries, expected.map(|(name, len)| (name.into(), len)));
        // After the last one nothing takes no room.
        assert_eq!(files.read(&mut disks(), root, 0), Ok(Read::Entry(Info::new())));
        assert_eq!(files.set_position(root, 0), Ok(()));
    }
}

#[test]
fn a_directory_has_no_position_but_its_start() {
    let (mut files, root) = opened();
    assert_eq!(files.position(root), Err(Status::UNSUPPORTED));
    for position in [1, END_OF_FILE] {
        assert_eq!(files.set_position(root, position), Err(Status::UNSUPPORTED));
    }
}

#[test]
fn nothing_is_written() {
    let (mut files, root) = opened();
    let file = open(&mut files, root, "kernel").unwrap();
    assert_eq!((files.write(root), files.write(file)), (Err(Status::UNSUPPORTED), Err(Status::WRITE_PROTECTED)));
    assert_eq!((files.flush(root), files.flush(file)), (Err(Status::WRITE_PROTECTED), Err(Status::WRITE_PROTECTED)));
    for (kind, least) in [(FileInfo::ID, 80), (FileSystemInfo::ID, 36), (FileSystemVolumeLabel::ID, 0)] {
        assert_eq!(files.set_info(file, kind, least), Err(Status::WRITE_PROTECTED));
        if least > 0 {
            assert_eq!(files.set_info(file, kind, least - 1), Err(Status::BAD_BUFFER_SIZE));
        }
    }
    assert_eq!(files.set_info(file, QEMU_LOADER, 0), Err(Status::UNSUPPORTED));
}

#[test]
fn information_has_its_exact_length() {
    let (mut files, root) = opened();
    let file = open(&mut files, root, "cmdline").unwrap();
    for (id, kind, len) in [
        (file, FileInfo::ID, 80 + 2 * 8),
        (root, FileInfo::ID, 80 + 2),
        (file, FileSystemInfo::ID, 36 + 2 * 11),
        (root, FileSystemVolumeLabel::ID, 2 * 11),
    ] {
        for room in [0, len - 1] {
            assert_eq!(files.info(&mut disks(), id, kind, room), Err(BufferError::TooSmall { needed: len }));
        }
        assert_eq!(files.info(&mut disks(), id, kind, len).unwrap().len() as u64, len);
    }
    assert_eq!(files.info(&mut disks(), file, QEMU_LOADER, 1000), Err(Status::UNSUPPORTED.into()));
}

#[test]
fn information_says_that_all_is_only_read() {
    let (mut files, root) = opened();
    let file = open(&mut files, root, "kernel").unwrap();
    let info = files.info(&mut disks(), file, FileInfo::ID, 200).unwrap();
    assert_eq!((number(&info, 0), number(&info, 8), number(&info, 16), number(&info, 72)), (94, 16, 16, 1));
    assert!(info[24..72].iter().all(|&byte| byte == 0), "no times");
    let info = files.info(&mut disks(), root, FileInfo::ID, 200).unwrap();
    assert_eq!((number(&info, 0), number(&info, 8), number(&info, 72), name(&info, 80)), (82, 0, 0x11, "".into()));
    let info = files.info(&mut disks(), root, FileSystemInfo::ID, 200).unwrap();
    let all = (SETUP.len() + CODE.len() + INITRD.len() + 6) as u64;
    assert_eq!((number(&info, 0), number(&info, 8), number(&info, 16), number(&info, 24)), (58, 1, all, 0));
    assert_eq!((&info[32..36], name(&info, 36)), (&[1, 0, 0, 0][..], "firstlight".into()));
    assert_eq!(name(&files.info(&mut disks(), root, FileSystemVolumeLabel::ID, 200).unwrap(), 0), "firstlight");
}

#[test]
fn paths_of_volume_and_file_are_ovmfs() {
    use crate::efi::device_path::DevicePath;
    use crate::efi::device_path::text::PathText;
    use std::string::ToString;

    let text = |bytes: &[u8]| PathText(DevicePath::parse(bytes).unwrap()).to_string();
    assert_eq!(text(&HostVolume::device_path().unwrap()), "VenMedia(1428F772-B64A-441E-B8C3-9EBDD7F893C7)");
    let volume = volume();
    assert_eq!(text(&HostVolume::file_path(volume.file(2).unwrap()).unwrap()), "cmdline");
}

#[test]
fn a_read_goes_from_the_items_straight_to_its_place() {
    let (setup, code): (Vec<u8>, Vec<u8>) = ((0..200).collect(), (0..3000_u32).map(|at| (at % 253) as u8).collect());
    let mut machine = FakeMachine::new().with(FakeFwCfg::new(true).with_item(0x18, &setup).with_item(0x11, &code));
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let part = |key, bytes: &[u8]| Blob::from(Item::new(Key::new(key), bytes.len() as u32));
    let mut volume = HostVolume::new();
    volume.add(HostFile::new("kernel", [part(0x18, &setup), part(0x11, &code)])).unwrap();
    let (mut files, root) = of_host(volume);
    let file = files.open(&mut disks(), root, &utf16("kernel"), FileMode::READ).unwrap();
    let whole = [setup, code].concat();
    for (start, room) in [(0, 64), (150, 100), (190, 5000), (3100, 5), (3200, 1)] {
        files.set_position(file, start).unwrap();
        let Read::Contents(pieces) = files.read(&mut disks(), file, room).unwrap() else { panic!() };
        let mut to = PhysAddr::new(0x20_0000);
        machine.memory.store(to.get(), &[0xee; 4000]);
        for piece in pieces {
            to = piece.load(&mut machine, &fw_cfg, to).unwrap().end();
        }
        let end = whole.len().min((start + room) as usize);
        let mut expected = whole[start as usize..end].to_vec();
        expected.resize(4000, 0xee);
        assert_eq!(machine.memory.bytes(0x20_0000, 4000), expected, "{start} {room}");
    }
}

#[test]
fn a_file_in_memory_may_be_longer_than_4_gib() {
    let module = PhysRange::new(PhysAddr::new(1 << 32), 10 << 30).unwrap();
    let mut volume = HostVolume::new();
    volume.add(HostFile::new("initrd", [Blob::Memory(module), Blob::default()])).unwrap();
    let (mut files, root) = of_host(volume);
    let file = files.open(&mut disks(), root, &utf16("initrd"), FileMode::READ).unwrap();
    files.set_position(file, 9 << 30).unwrap();
    let Read::Contents(pieces) = files.read(&mut disks(), file, 1 << 20).unwrap() else { panic!() };
    let expected = PhysRange::new(PhysAddr::new((1 << 32) + (9 << 30)), 1 << 20).unwrap();
    assert_eq!(pieces.as_slice(), [Blob::Memory(expected)]);
}

proptest! {
    #[test]
    fn a_file_read_in_any_pieces_is_whole(cut in 0_usize..60, rooms in prop::collection::vec(0_u64..20, 0..30)) {
        static BYTES: [u8; 60] = { let mut bytes = [0; 60]; let mut at = 0; while at < 60 { bytes[at] = at as u8; at += 1 } bytes };
        let (first, second) = BYTES.split_at(cut);
        let mut volume = HostVolume::new();
        volume.add(HostFile::new("kernel", [Blob::Bytes(first), Blob::Bytes(second)])).unwrap();
        let (mut files, root) = of_host(volume);
        let file = files.open(&mut disks(), root, &utf16("kernel"), FileMode::READ).unwrap();
        let mut all = Vec::new();
        for room in rooms {
            let read = files.read(&mut disks(), file, room).unwrap();
            prop_assert_eq!(read.len(), room.min((BYTES.len() - all.len()) as u64));
            all.extend(bytes(&read));
        }
        prop_assert_eq!(&all, &BYTES[..all.len()]);
        prop_assert_eq!(files.position(file), Ok(all.len() as u64));
    }

    #[test]
    fn any_name_is_found_or_not(path in prop::collection::vec(prop_oneof![Just(b'\\' as u16), Just(b'.' as u16), Just(0), any::<u16>()], 0..40)) {
        let (mut files, root) = opened();
        let file = files.open(&mut disks(), root, &path, FileMode::READ);
        prop_assert!(matches!(file, Ok(_) | Err(Status::NOT_FOUND)));
        let end = path.iter().position(|&unit| unit == 0).unwrap_or(path.len());
        prop_assert_eq!(files.open(&mut disks(), root, &path[..end], FileMode::READ).is_ok(), file.is_ok());
    }
}
