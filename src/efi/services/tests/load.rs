//! `LoadImage` by a device path.

use uefi_raw::protocol::file_system::{FileInfo, SimpleFileSystemProtocol};
use uefi_raw::protocol::media::{LoadFile2Protocol, LoadFileProtocol};

use super::super::load::{Caller, read_file};
use super::*;
use crate::efi::device_path::{DevicePath, MEDIA, MEDIA_FILE, PathBuilder};
use crate::fakes::machine::FakeMachine;

const CONTENTS: &[u8] = b"contents";

/// A machine whose images have functions with these addresses.
const OPEN_VOLUME: u64 = 0x1000;
const OPEN: u64 = 0x1001;
const CLOSE: u64 = 0x1002;
const READ: u64 = 0x1003;
const GET_INFO: u64 = 0x1004;
const LOAD_FILE: u64 = 0x1005;
const LOAD_FILE2: u64 = 0x1006;

struct Images {
    test: Test,
    called: Vec<u64>,
    /// The names that were opened.
    opened: Vec<Vec<u8>>,
    /// The file's functions.
    file: u64,
    /// What a function returns instead of success.
    fails: Option<(u64, Status)>,
    is_directory: bool,
    /// The policy that `LoadFile` was called with.
    policy: Option<u64>,
}

impl Caller for Images {
    type Machine = FakeMachine;

    fn with<R>(
        &mut self,
        work: impl FnOnce(&mut FakeMachine, &mut Services) -> Result<R, Status>,
    ) -> Result<R, Status> {
        work(&mut self.test.machine, &mut self.test.services)
    }

    fn call(&mut self, function: u64, [this, a, b, c, d]: [u64; 5]) -> Status {
        self.called.push(function);
        if let Some((fails, status)) = self.fails
            && fails == function
        {
            return status;
        }
        let memory = &mut self.test.machine.memory;
        match function {
            OPEN_VOLUME => memory.store(a, &self.file.to_le_bytes()),
            OPEN => {
                assert_eq!((this, c, d), (self.file, 1, 0));
                let name = (0..).map(|index| memory.bytes(b + 2 * index, 2)).take_while(|unit| *unit != [0; 2]);
                self.opened.push(name.flatten().collect());
                memory.store(a, &self.file.to_le_bytes());
            }
            CLOSE => assert_eq!(this, self.file),
            READ => memory.store(b, CONTENTS),
            GET_INFO => {
                assert_eq!(memory.bytes(a, 16), FileInfo::ID.to_bytes());
                let mut info = [0; 82];
                info[8..16].copy_from_slice(&(CONTENTS.len() as u64).to_le_bytes());
                info[72] = if self.is_directory { 0x10 } else { 0 };
                return self.give(&info, b, c);
            }
            LOAD_FILE | LOAD_FILE2 => {
                self.policy = Some(b);
                return self.give(CONTENTS, c, d);
            }
            _ => panic!("a function at {function:#x}"),
        }
        Status::SUCCESS
    }
}

impl Images {
    fn new() -> Self {
        let mut test = Test::new();
        let mut file = [0; 72];
        for (offset, function) in [(8, OPEN), (16, CLOSE), (32, READ), (64, GET_INFO)] {
            file[offset..offset + 8].copy_from_slice(&function.to_le_bytes());
        }
        let file = test.put(&file);
        let (called, opened) = (Vec::new(), Vec::new());
        Self { test, called, opened, file, fails: None, is_directory: false, policy: None }
    }

    /// Bytes for a buffer, which may be too short.
    fn give(&mut self, bytes: &[u8], len_at: u64, buffer: u64) -> Status {
        let room = self.test.number(len_at);
        self.test.machine.memory.store(len_at, &(bytes.len() as u64).to_le_bytes());
        if room < bytes.len() as u64 {
            return Status::BUFFER_TOO_SMALL;
        }
        self.test.machine.memory.store(buffer, bytes);
        Status::SUCCESS
    }

    /// A device with a path and a protocol.
    fn device(&mut self, guid: Guid, functions: &[u64]) {
        let path = PathBuilder::new().vendor_media(ONE).unwrap().end().unwrap();
        let path = self.test.put(&path);
        let interface = self.test.put(functions.as_bytes());
        let device = self.test.services.install(None, crate::efi::services::DEVICE_PATH, path).unwrap();
        self.test.services.install(Some(device), guid, interface).unwrap();
    }

    /// The path of a file on the device.
    fn path(&mut self, names: &[&str]) -> u64 {
        let mut path = PathBuilder::new().vendor_media(ONE).unwrap();
        for name in names {
            let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
            path = path.node(MEDIA, MEDIA_FILE, &[&name]).unwrap();
        }
        self.test.put(&path.end().unwrap())
    }

    fn read(&mut self, path: u64, is_boot_policy: bool) -> Result<Vec<u8>, Status> {
        let (at, len) = read_file(self, path, is_boot_policy)?;
        let bytes = self.test.machine.memory.bytes(at, len as usize);
        self.test.services.free_pool(&mut self.test.machine, at).unwrap();
        Ok(bytes)
    }
}

#[test]
fn a_file_on_a_volume_is_opened_name_by_name_and_read() {
    let mut images = Images::new();
    images.device(SimpleFileSystemProtocol::GUID, &[0, OPEN_VOLUME]);
    let path = images.path(&["\\EFI", "a.efi"]);
    for is_boot_policy in [false, true] {
        images.called.clear();
        assert_eq!(images.read(path, is_boot_policy).unwrap(), CONTENTS);
        assert_eq!(images.called, [OPEN_VOLUME, OPEN, CLOSE, OPEN, CLOSE, GET_INFO, GET_INFO, READ, CLOSE]);
    }
    let text = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    assert_eq!(images.opened[..2], [text("\\EFI"), text("a.efi")]);
}

#[test]
fn a_file_that_no_protocol_has_is_not_found() {
    let mut images = Images::new();
    let path = images.path(&["a.efi"]);
    assert_eq!(images.read(path, false), Err(Status::NOT_FOUND), "no device");
    images.device(SimpleFileSystemProtocol::GUID, &[0, OPEN_VOLUME]);
    for function in [OPEN_VOLUME, OPEN] {
        images.fails = Some((function, Status::DEVICE_ERROR));
        assert_eq!(images.read(path, false), Err(Status::NOT_FOUND));
    }
    images.fails = None;
    images.is_directory = true;
    assert_eq!(images.read(path, false), Err(Status::NOT_FOUND), "a directory");
    let volume = images.path(&[]);
    assert_eq!(images.read(volume, false), Err(Status::NOT_FOUND), "no name");
}

#[test]
fn a_file_that_cannot_be_read_has_the_status_of_its_protocol() {
    let mut images = Images::new();
    images.device(SimpleFileSystemProtocol::GUID, &[0, OPEN_VOLUME]);
    let path = images.path(&["a.efi"]);
    for function in [GET_INFO, READ] {
        images.fails = Some((function, Status::VOLUME_CORRUPTED));
        assert_eq!(images.read(path, false), Err(Status::VOLUME_CORRUPTED));
        assert_eq!(images.called.last(), Some(&CLOSE));
    }
}

#[test]
fn the_boot_manager_does_not_ask_load_file_2() {
    let mut images = Images::new();
    images.device(LoadFile2Protocol::GUID, &[LOAD_FILE2]);
    images.device(LoadFileProtocol::GUID, &[LOAD_FILE]);
    let path = images.path(&[]);
    for (is_boot_policy, function) in [(false, LOAD_FILE2), (true, LOAD_FILE)] {
        images.called.clear();
        assert_eq!(images.read(path, is_boot_policy).unwrap(), CONTENTS);
        assert_eq!(images.called, [function, function]);
        assert_eq!(images.policy, Some(is_boot_policy.into()));
    }
    images.fails = Some((LOAD_FILE2, Status::NOT_FOUND));
    images.called.clear();
    assert_eq!(images.read(path, false).unwrap(), CONTENTS);
    assert_eq!(images.called, [LOAD_FILE2, LOAD_FILE, LOAD_FILE]);
    images.fails = Some((LOAD_FILE2, Status::DEVICE_ERROR));
    assert_eq!(images.read(path, false), Err(Status::DEVICE_ERROR));
}

#[test]
fn a_volume_comes_before_load_file() {
    let mut images = Images::new();
    images.device(LoadFile2Protocol::GUID, &[LOAD_FILE2]);
    images.device(SimpleFileSystemProtocol::GUID, &[0, OPEN_VOLUME]);
    let path = images.path(&["a.efi"]);
    assert_eq!(images.read(path, false).unwrap(), CONTENTS);
    assert!(!images.called.contains(&LOAD_FILE2));
    images.fails = Some((OPEN, Status::NOT_FOUND));
    assert_eq!(images.read(path, false).unwrap(), CONTENTS);
    assert_eq!(images.called.last(), Some(&LOAD_FILE2));
}

#[test]
fn what_is_read_by_a_path_leaves_no_memory_behind() {
    let mut images = Images::new();
    images.device(SimpleFileSystemProtocol::GUID, &[0, OPEN_VOLUME]);
    let path = images.path(&["a.efi"]);
    let first = images.test.services.pool_of(&mut images.test.machine, &[0; 8]).unwrap();
    images.read(path, false).unwrap();
    images.fails = Some((READ, Status::DEVICE_ERROR));
    assert_eq!(images.read(path, false), Err(Status::DEVICE_ERROR));
    let next = images.test.services.pool_of(&mut images.test.machine, &[0; 8]).unwrap();
    assert_eq!(next, first + 8);
}

#[test]
fn the_volume_of_a_path_is_found_with_the_names_behind_it() {
    let mut images = Images::new();
    images.device(SimpleFileSystemProtocol::GUID, &[0, OPEN_VOLUME]);
    let mut find = |names: &[&str]| {
        let at = images.path(names);
        let Test { machine, services, .. } = &mut images.test;
        let path = machine.path(at).unwrap();
        services.volume_of(machine, DevicePath::parse(&path).unwrap()).unwrap()
    };
    let utf16 = |text: &str| text.encode_utf16().chain([0]).collect::<Vec<_>>();
    let (interface, names) = find(&["\\EFI", "a.efi"]).unwrap();
    assert_eq!(names, [utf16("\\EFI"), utf16("a.efi")]);
    assert!(find(&[]).is_none(), "no name");
    assert_eq!(images.test.numbers(interface, 2), [0, OPEN_VOLUME]);
    let other = PathBuilder::new().vendor_media(TWO).unwrap().end().unwrap();
    let Test { machine, services, .. } = &mut images.test;
    assert!(services.volume_of(machine, DevicePath::parse(&other).unwrap()).unwrap().is_none(), "no volume");
}
