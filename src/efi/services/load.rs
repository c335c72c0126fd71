//! The file of an image by its device path (UEFI 7.4.1, `LoadImage`), for when an image passes no bytes.
//!
//! The file comes from the first of these that is on the path's device and has it: `EFI_SIMPLE_FILE_SYSTEM_PROTOCOL`,
//! `EFI_LOAD_FILE2_PROTOCOL` unless the boot manager asks, `EFI_LOAD_FILE_PROTOCOL`. Images can install all of them. So this calls
//! their functions with nothing borrowed ([`Caller`]), also those of the firmware's own volume.
//!
//! The file is read to a pool. Left out: `MemoryMapped` paths, and to read sections to their places without a copy.

use alloc::vec::Vec;

use uefi_raw::protocol::file_system::{FileAttribute, FileInfo, FileMode, SimpleFileSystemProtocol};
use uefi_raw::protocol::media::{LoadFile2Protocol, LoadFileProtocol};
use uefi_raw::table::boot::MemoryType;
use uefi_raw::{Guid, Status};

use super::pointers::{Pointers, rest_address};
use super::{Services, no_room};
use crate::efi::device_path::{DevicePath, MEDIA, MEDIA_FILE};
use crate::efi::protocols::file_system::Names;
use crate::hal::{Memory, Protect};
use crate::heap;

/// Where functions are in a volume and in a file (UEFI 13.4.1, 13.5.1), and the only one that loads a file (13.1.1).
const OPEN_VOLUME: u64 = 8;
const OPEN: u64 = 8;
const CLOSE: u64 = 16;
const READ: u64 = 32;
const GET_INFO: u64 = 64;
const LOAD_FILE: u64 = 0;

/// Where numbers are in `EFI_FILE_INFO` (UEFI 13.5.16).
const FILE_SIZE: u64 = core::mem::offset_of!(FileInfo, file_size) as u64;
const ATTRIBUTE: u64 = core::mem::offset_of!(FileInfo, attribute) as u64;

/// Calls of functions of images.
pub trait Caller {
    /// The machine.
    type Machine: Memory + Protect;

    /// Does something with the services.
    ///
    /// # Errors
    /// Those of `work`; `DEVICE_ERROR` without services.
    fn with<R>(
        &mut self,
        work: impl FnOnce(&mut Self::Machine, &mut Services) -> Result<R, Status>,
    ) -> Result<R, Status>;

    /// Calls a function with up to five arguments, with nothing borrowed.
    fn call(&mut self, function: u64, arguments: [u64; 5]) -> Status;
}

/// The address and the length of a pool.
type Bytes = (u64, u64);

/// Reads the file with the device path at `path` to a pool, which the caller frees.
///
/// # Errors
/// `NOT_FOUND` if no protocol has the file; `INVALID_PARAMETER` for no path; `OUT_OF_RESOURCES`; that of a protocol that has the
/// file and cannot read it.
pub fn read_file(caller: &mut impl Caller, path: u64, is_boot_policy: bool) -> Result<Bytes, Status> {
    // Two numbers for functions to return: an address and a length.
    let numbers = caller.with(|machine, services| services.pool_of(machine, &[0; 16]))?;
    let mut reader = Reader { caller, address: numbers, len: numbers.saturating_add(8), path };
    let file = reader.read(is_boot_policy);
    reader.free(numbers);
    file
}

impl Services {
    /// The interface of the volume that a device path is on, and the names of the path's file there. `None` if the path is on no
    /// volume, or has other nodes than names behind the volume's.
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES`.
    pub fn volume_of(&self, machine: &mut impl Memory, path: DevicePath<'_>) -> Result<Option<(u64, Names)>, Status> {
        let Some((device, rest)) = self.device_of(machine, SimpleFileSystemProtocol::GUID, path)? else {
            return Ok(None);
        };
        let interface = self.handles.interface(device, SimpleFileSystemProtocol::GUID)?;
        let mut names = Names::new();
        for node in rest.nodes() {
            if (node.kind, node.sub_kind) != (MEDIA, MEDIA_FILE) {
                return Ok(None);
            }
            let mut name = Vec::new();
            for unit in node.data.as_chunks::<2>().0 {
                heap::push(&mut name, u16::from_le_bytes(*unit)).map_err(no_room)?;
            }
            heap::push(&mut names, name).map_err(no_room)?;
        }
        Ok(Some((interface, names)).filter(|(_, names)| !names.is_empty()))
    }
}

/// A protocol on the device of a path.
struct Found {
    /// Its interface.
    interface: u64,
    /// The address of the rest of the path.
    rest: u64,
    /// The names in that, with a NUL; none if it has other nodes too.
    names: Vec<Vec<u8>>,
}

struct Reader<'a, C> {
    caller: &'a mut C,
    address: u64,
    len: u64,
    path: u64,
}

impl<C: Caller> Reader<'_, C> {
    fn read(&mut self, is_boot_policy: bool) -> Result<Bytes, Status> {
        if let Some(file) = self.on_volume()? {
            return Ok(file);
        }
        if !is_boot_policy && let Some(file) = self.of_loader(LoadFile2Protocol::GUID, false)? {
            return Ok(file);
        }
        self.of_loader(LoadFileProtocol::GUID, is_boot_policy)?.ok_or(Status::NOT_FOUND)
    }

    /// The protocol on the path's device.
    fn find(&mut self, guid: Guid) -> Result<Option<Found>, Status> {
        let at = self.path;
        self.caller.with(|machine, services| {
            let bytes = machine.path(at)?;
            let path = DevicePath::parse(&bytes).ok_or(Status::INVALID_PARAMETER)?;
            let Some((device, rest)) = services.device_of(machine, guid, path)? else { return Ok(None) };
            let interface = services.handles.interface(device, guid)?;
            let mut names = Vec::new();
            let are_names = rest.nodes().all(|node| (node.kind, node.sub_kind) == (MEDIA, MEDIA_FILE));
            for node in rest.nodes().filter(|_| are_names) {
                let mut name = Vec::new();
                heap::extend(&mut name, node.data).and_then(|()| heap::extend(&mut name, &[0; 2])).map_err(no_room)?;
                heap::push(&mut names, name).map_err(no_room)?;
            }
            Ok(Some(Found { interface, rest: rest_address(at, path, rest), names }))
        })
    }

    /// The file on a volume. `None` without the volume or the file.
    fn on_volume(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(Found { interface: volume, names, .. }) = self.find(SimpleFileSystemProtocol::GUID)? else {
            return Ok(None);
        };
        if names.is_empty() || self.call(volume, OPEN_VOLUME, [self.address, 0, 0, 0])?.is_error() {
            return Ok(None);
        }
        let mut file = self.number(self.address)?;
        for name in names {
            let name = self.caller.with(|machine, services| services.pool_of(machine, &name))?;
            let opened = self.call(file, OPEN, [self.address, name, FileMode::READ.bits(), 0]);
            self.free(name);
            let _ = self.call(file, CLOSE, [0; 4]);
            if opened?.is_error() {
                return Ok(None);
            }
            file = self.number(self.address)?;
        }
        let bytes = self.contents(file);
        let _ = self.call(file, CLOSE, [0; 4]);
        bytes
    }

    /// The contents of an open file. `None` for a directory.
    fn contents(&mut self, file: u64) -> Result<Option<Bytes>, Status> {
        let kind = FileInfo::ID.to_bytes();
        let kind = self.caller.with(|machine, services| services.pool_of(machine, &kind))?;
        let info = self.fill(|reader, buffer| reader.call(file, GET_INFO, [kind, reader.len, buffer, 0]));
        self.free(kind);
        let (info, _) = info?;
        let numbers = self.number(info.saturating_add(FILE_SIZE));
        let attribute = self.number(info.saturating_add(ATTRIBUTE));
        self.free(info);
        let (len, attribute) = (numbers?, attribute?);
        if attribute & FileAttribute::DIRECTORY.bits() != 0 {
            return Ok(None);
        }
        let buffer = self.allocate(len)?;
        self.set_len(len)?;
        let status = self.call(file, READ, [self.len, buffer, 0, 0]);
        self.filled(buffer, status).map(Some)
    }

    /// The file from a protocol that loads files. `None` without the protocol, or if it does not have the file.
    fn of_loader(&mut self, guid: Guid, is_boot_policy: bool) -> Result<Option<Bytes>, Status> {
        let Some(Found { interface: loader, rest, .. }) = self.find(guid)? else { return Ok(None) };
        let policy = is_boot_policy.into();
        match self.fill(|reader, buffer| reader.call(loader, LOAD_FILE, [rest, policy, reader.len, buffer])) {
            Err(Status::NOT_FOUND) => Ok(None),
            result => result.map(Some),
        }
    }

    /// What a function writes to a buffer, which it is asked the length of first.
    fn fill(&mut self, function: impl Fn(&mut Self, u64) -> Result<Status, Status>) -> Result<Bytes, Status> {
        self.set_len(0)?;
        match function(self, 0)? {
            Status::BUFFER_TOO_SMALL => {}
            status if status.is_error() => return Err(status),
            _ => return Err(Status::DEVICE_ERROR),
        }
        let len = self.number(self.len)?;
        let buffer = self.allocate(len)?;
        let status = function(self, buffer);
        self.filled(buffer, status)
    }

    /// The buffer, and how much of it a function says that it has filled. The buffer is freed if it has failed.
    fn filled(&mut self, buffer: u64, status: Result<Status, Status>) -> Result<Bytes, Status> {
        let result = match status {
            Ok(status) if status.is_error() => Err(status),
            Ok(_) => self.number(self.len),
            Err(status) => Err(status),
        };
        result.map(|len| (buffer, len)).inspect_err(|_| self.free(buffer))
    }

    fn allocate(&mut self, len: u64) -> Result<u64, Status> {
        let pool = |_: &mut C::Machine, services: &mut Services| {
            services.memory.allocate_pool(MemoryType::BOOT_SERVICES_DATA, len)
        };
        self.caller.with(pool).map(crate::addr::PhysAddr::get)
    }

    fn free(&mut self, pool: u64) {
        // A function of an image may have freed it.
        let _ = self.caller.with(|machine, services| services.free_pool(machine, pool));
    }

    fn number(&mut self, at: u64) -> Result<u64, Status> {
        self.caller.with(|machine, _| machine.number(at))
    }

    fn set_len(&mut self, len: u64) -> Result<(), Status> {
        let at = self.len;
        self.caller.with(|machine, _| machine.set_number(at, len))
    }

    /// Calls the function at `offset` in an interface, whose address is its first argument.
    fn call(&mut self, interface: u64, offset: u64, [a, b, c, d]: [u64; 4]) -> Result<Status, Status> {
        let function = self.number(interface.saturating_add(offset))?;
        Ok(self.caller.call(function, [interface, a, b, c, d]))
    }
}
