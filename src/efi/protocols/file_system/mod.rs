//! `EFI_SIMPLE_FILE_SYSTEM_PROTOCOL` and `EFI_FILE_PROTOCOL` over what the host offers to boot (UEFI 13.4 and 13.5): a volume
//! that is only read, with the files `kernel`, `initrd`, `cmdline` and `shim` in one directory, as OVMF has it (edk2
//! `OvmfPkg/QemuKernelLoaderFsDxe`).
//!
//! [`FileSystem`] keeps the files that images have open, and where each is read next. It moves no bytes: [`FileSystem::read`]
//! returns which bytes go into the caller's buffer, for the caller to have the host write them there ([`Blob::load`]).
//!
//! fw_cfg has no position that can be set. A read behind the start of an item selects it and passes over what comes before,
//! which is one transfer on QEMU; on a host without that, everything up to there is transferred again at each read. Who reads
//! a file in one piece pays for none of this.
//!
//! Left out: whatever writes, and `EFI_FILE_PROTOCOL` of revision 2, whose reads come back later.

mod name;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use uefi_raw::protocol::file_system::{FileAttribute, FileInfo, FileMode, FileSystemInfo, FileSystemVolumeLabel};
use uefi_raw::{Guid, Status, guid};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::{BufferError, check_room};
use crate::boot::Blob;
use crate::efi::device_path::{MEDIA, MEDIA_FILE, PathBuilder};
use crate::heap::{self, HeapFull};

/// The vendor in the volume's device path (edk2 `OvmfPkg/Include/Guid/QemuKernelLoaderFsMedia.h`). systemd-boot knows it too.
pub const QEMU_LOADER: Guid = guid!("1428f772-b64a-441e-b8c3-9ebdd7f893c7");

/// As many files the volume has at most.
pub const MOST_FILES: usize = 4;
/// As many files can be open at the same time.
pub const MOST_OPEN: usize = 128;
/// A position that is the end of the file (UEFI 13.5.11).
pub const END_OF_FILE: u64 = u64::MAX;

/// The volume's label.
const LABEL: &str = "firstlight";
/// The longest structure with a name: that of a file, with eleven characters.
const MOST_INFO: usize = 80 + 2 * 11;

/// A file of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeFile<'a> {
    name: &'static str,
    parts: [Blob<'a>; 2],
}

impl<'a> VolumeFile<'a> {
    /// The file of a name, which is made of one or two parts.
    #[must_use]
    pub const fn new(name: &'static str, parts: [Blob<'a>; 2]) -> Self {
        Self { name, parts }
    }

    /// Its parts, one after the other.
    #[must_use]
    pub const fn parts(&self) -> [Blob<'a>; 2] {
        self.parts
    }

    /// The length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        let [first, second] = &self.parts;
        first.len().saturating_add(second.len())
    }

    /// Whether there is no byte in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At most `len` bytes from `start` on: what of them is in each part. No piece is empty.
    #[must_use]
    pub fn pieces(&self, mut start: u64, mut len: u64) -> ArrayVec<Blob<'a>, 2> {
        let mut pieces = ArrayVec::new();
        for part in self.parts {
            let piece = piece(part, start, len);
            start = start.saturating_sub(part.len());
            len = len.saturating_sub(piece.len());
            if !piece.is_empty() {
                // There are as many as there are parts.
                let _ = pieces.try_push(piece);
            }
        }
        pieces
    }
}

/// At most `len` bytes of `blob` from `start` on.
fn piece(mut blob: Blob<'_>, start: u64, len: u64) -> Blob<'_> {
    let mut left = start.min(blob.len());
    while left > 0 {
        let step = u32::try_from(left).unwrap_or(u32::MAX);
        (_, blob) = blob.split_at(step);
        left = left.saturating_sub(step.into());
    }
    let (piece, _) = blob.split_at(u32::try_from(len).unwrap_or(u32::MAX));
    piece
}

/// The volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume<'a> {
    files: ArrayVec<VolumeFile<'a>, MOST_FILES>,
}

impl<'a> Volume<'a> {
    /// A volume without files.
    #[must_use]
    pub const fn new() -> Self {
        Self { files: ArrayVec::new_const() }
    }

    /// Adds a file, unless it is empty: the host does not have it then.
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES` beyond [`MOST_FILES`].
    pub fn add(&mut self, file: VolumeFile<'a>) -> Result<(), Status> {
        if file.is_empty() {
            return Ok(());
        }
        self.files.try_push(file).map_err(|_| Status::OUT_OF_RESOURCES)
    }

    /// The file of a name in UTF-16, as `Open` takes it from the root: that of a device path's last node as well.
    #[must_use]
    pub fn find(&self, name: &[u16]) -> Option<&VolumeFile<'a>> {
        match self.resolve(Node::Root, name)? {
            Node::File(index) => self.files.get(index),
            Node::Root => None,
        }
    }

    /// The device path of the volume's handle.
    ///
    /// # Errors
    /// [`HeapFull`].
    pub fn device_path() -> Result<Vec<u8>, HeapFull> {
        PathBuilder::new().vendor_media(QEMU_LOADER)?.end()
    }

    /// The device path of a file, without the volume's.
    ///
    /// # Errors
    /// [`HeapFull`].
    pub fn file_path(file: &VolumeFile<'_>) -> Result<Vec<u8>, HeapFull> {
        let mut name = ArrayVec::<u8, MOST_INFO>::new();
        for unit in file.name.encode_utf16().chain([0]) {
            name.try_extend_from_slice(&unit.to_le_bytes()).map_err(|_| HeapFull)?;
        }
        PathBuilder::new().node(MEDIA, MEDIA_FILE, &[&name])?.end()
    }

    /// What a path leads to.
    fn resolve(&self, from: Node, path: &[u16]) -> Option<Node> {
        name::resolve(from, path, |name| {
            self.files.iter().position(|file| name::is_same(name, file.name)).map(Node::File)
        })
    }

    fn len(&self) -> u64 {
        self.files.iter().fold(0, |len, file| len.saturating_add(file.len()))
    }

    /// `EFI_FILE_INFO` (UEFI 13.5.16). Nobody knows the times.
    fn file_info(&self, node: Node) -> Info {
        let (name, len, attributes) = match node {
            Node::Root => ("", 0, FileAttribute::READ_ONLY | FileAttribute::DIRECTORY),
            Node::File(index) => {
                let file = self.files.get(index);
                (file.map_or("", |file| file.name), file.map_or(0, VolumeFile::len), FileAttribute::READ_ONLY)
            }
        };
        const TIMES: usize = 3 * size_of::<uefi_raw::time::Time>();
        let numbers = [len, len].map(U64::new);
        info_with_name(&[numbers.as_bytes(), &[0; TIMES], &attributes.bits().to_le_bytes()], true, name)
    }

    /// `EFI_FILE_SYSTEM_INFO` (UEFI 13.5.17): read only, full, and with blocks of one byte.
    fn file_system_info(&self) -> Info {
        let read_only = U64::new(1);
        let sizes = [self.len(), 0].map(U64::new);
        info_with_name(&[read_only.as_bytes(), sizes.as_bytes(), U32::new(1).as_bytes()], true, LABEL)
    }
}

/// A structure that ends with a name, as `GetInfo` has it.
pub type Info = ArrayVec<u8, MOST_INFO>;

/// The structure of these fields and a name. One that has a length begins with it.
fn info_with_name(fields: &[&[u8]], has_length: bool, name: &str) -> Info {
    let mut info = Info::new();
    let mut append = |bytes: &[u8]| {
        // The longest name is known: see `MOST_INFO`.
        let _ = bytes.iter().try_for_each(|&byte| info.try_push(byte));
    };
    if has_length {
        append(&[0; size_of::<u64>()]);
    }
    fields.iter().for_each(|field| append(field));
    name.encode_utf16().chain([0]).for_each(|unit| append(&unit.to_le_bytes()));
    let len = info.len() as u64;
    if has_length && let Some(first) = info.first_chunk_mut() {
        *first = len.to_le_bytes();
    }
    info
}

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Root,
    File(usize),
}

/// A file or directory that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId(u64);

impl FileId {
    /// The file of this number. It need not be open.
    #[must_use]
    pub const fn from_raw(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }
}

#[derive(Clone, Copy, Debug)]
struct Open {
    id: FileId,
    node: Node,
    /// In a directory the number of entries that were read.
    position: u64,
}

/// What `Read` puts into the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// Bytes of a file, in up to two pieces, one after the other. None at the end of the file.
    Contents(ArrayVec<Blob<'a>, 2>),
    /// `EFI_FILE_INFO` of a file in a directory; empty after the last one.
    Entry(Info),
}

impl Read<'_> {
    /// How far it moves the position: by bytes in a file, by entries in a folder.
    fn step(&self) -> u64 {
        match self {
            Self::Contents(_) => self.len(),
            Self::Entry(info) => u64::from(!info.is_empty()),
        }
    }

    /// How many bytes go into the buffer.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Contents(pieces) => pieces.iter().fold(0, |len, piece| len.saturating_add(piece.len())),
            Self::Entry(info) => info.len() as u64,
        }
    }

    /// Whether none do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The volume and what is open of it. Each call that names a file that is not open is `INVALID_PARAMETER`.
#[derive(Debug)]
pub struct FileSystem<'a> {
    volume: Volume<'a>,
    open: Vec<Open>,
    last: u64,
}

impl<'a> FileSystem<'a> {
    /// Nothing is open yet.
    #[must_use]
    pub const fn new(volume: Volume<'a>) -> Self {
        Self { volume, open: Vec::new(), last: 0 }
    }

    /// The volume.
    #[must_use]
    pub const fn volume(&self) -> &Volume<'a> {
        &self.volume
    }

    /// `OpenVolume`: the root directory.
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES`.
    pub fn open_volume(&mut self) -> Result<FileId, Status> {
        self.open_node(Node::Root)
    }

    /// `Open`: the file that `path` leads to from `from`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a mode that cannot be, `NOT_FOUND`, `WRITE_PROTECTED` to write or to make a file,
    /// `OUT_OF_RESOURCES`.
    pub fn open(&mut self, from: FileId, path: &[u16], mode: FileMode) -> Result<FileId, Status> {
        let from = self.get(from)?.node;
        let read_write = FileMode::READ | FileMode::WRITE;
        if ![FileMode::READ, read_write, read_write | FileMode::CREATE].contains(&mode) {
            return Err(Status::INVALID_PARAMETER);
        }
        if mode.contains(FileMode::CREATE) {
            return Err(Status::WRITE_PROTECTED);
        }
        let node = self.volume.resolve(from, path).ok_or(Status::NOT_FOUND)?;
        if mode.contains(FileMode::WRITE) {
            return Err(Status::WRITE_PROTECTED);
        }
        self.open_node(node)
    }

    /// `Close`.
    ///
    /// # Errors
    /// Only that for a file that is not open.
    pub fn close(&mut self, id: FileId) -> Result<(), Status> {
        self.get(id)?;
        self.open.retain(|open| open.id != id);
        Ok(())
    }

    /// `Delete`: closes the file, which stays.
    ///
    /// # Errors
    /// `WARN_DELETE_FAILURE` always, after which it is closed.
    pub fn delete(&mut self, id: FileId) -> Result<(), Status> {
        self.close(id)?;
        Err(Status::WARN_DELETE_FAILURE)
    }

    /// `Read`: what goes into a buffer of `room` bytes. The position moves behind it at once.
    ///
    /// # Errors
    /// `DEVICE_ERROR` behind the end of a file; [`BufferError::TooSmall`] for a directory's next entry, which stays the next
    /// one.
    pub fn read(&mut self, id: FileId, room: u64) -> Result<Read<'a>, BufferError> {
        let Open { node, position, .. } = *self.get(id)?;
        let read = match node {
            Node::File(index) => {
                let file = self.volume.files.get(index).ok_or(Status::DEVICE_ERROR)?;
                if position > file.len() {
                    return Err(Status::DEVICE_ERROR.into());
                }
                Read::Contents(file.pieces(position, room))
            }
            Node::Root => {
                let entry = usize::try_from(position).ok().filter(|&index| index < self.volume.files.len());
                let info = entry.map(|index| self.volume.file_info(Node::File(index))).unwrap_or_default();
                check_room(info.len() as u64, room)?;
                Read::Entry(info)
            }
        };
        self.get_mut(id)?.position = position.saturating_add(read.step());
        Ok(read)
    }

    /// Goes back to where [`Self::read`] began: the reader has not got what it returned.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the file.
    pub fn undo(&mut self, id: FileId, read: &Read<'_>) -> Result<(), Status> {
        let open = self.get_mut(id)?;
        open.position = open.position.saturating_sub(read.step());
        Ok(())
    }

    /// `Write`.
    ///
    /// # Errors
    /// `UNSUPPORTED` to a directory, else `WRITE_PROTECTED`.
    pub fn write(&self, id: FileId) -> Result<(), Status> {
        match self.get(id)?.node {
            Node::Root => Err(Status::UNSUPPORTED),
            Node::File(_) => Err(Status::WRITE_PROTECTED),
        }
    }

    /// `GetPosition`: the next byte that is read.
    ///
    /// # Errors
    /// `UNSUPPORTED` in a directory.
    pub fn position(&self, id: FileId) -> Result<u64, Status> {
        let open = self.get(id)?;
        match open.node {
            Node::Root => Err(Status::UNSUPPORTED),
            Node::File(_) => Ok(open.position),
        }
    }

    /// `SetPosition`: where the next byte is read. It may be behind the end; [`END_OF_FILE`] is the end.
    ///
    /// # Errors
    /// `UNSUPPORTED` in a directory, but for zero, which is its first entry.
    pub fn set_position(&mut self, id: FileId, position: u64) -> Result<(), Status> {
        let position = match (self.get(id)?.node, position) {
            (Node::Root, 0) => 0,
            (Node::Root, _) => return Err(Status::UNSUPPORTED),
            (Node::File(index), END_OF_FILE) => self.volume.files.get(index).map_or(0, VolumeFile::len),
            (Node::File(_), position) => position,
        };
        self.get_mut(id)?.position = position;
        Ok(())
    }

    /// `GetInfo`: the structure of a type, if it has room in `room` bytes.
    ///
    /// # Errors
    /// `UNSUPPORTED` for another type, [`BufferError::TooSmall`].
    pub fn info(&self, id: FileId, kind: Guid, room: u64) -> Result<Info, BufferError> {
        let node = self.get(id)?.node;
        let info = match kind {
            FileInfo::ID => self.volume.file_info(node),
            FileSystemInfo::ID => self.volume.file_system_info(),
            FileSystemVolumeLabel::ID => info_with_name(&[], false, LABEL),
            _ => return Err(Status::UNSUPPORTED.into()),
        };
        check_room(info.len() as u64, room)?;
        Ok(info)
    }

    /// `SetInfo`, of a type, from `len` bytes.
    ///
    /// # Errors
    /// `UNSUPPORTED` for another type, `BAD_BUFFER_SIZE` for fewer bytes than the type has without a name, else
    /// `WRITE_PROTECTED`.
    pub fn set_info(&self, id: FileId, kind: Guid, len: u64) -> Result<(), Status> {
        self.get(id)?;
        let least = match kind {
            FileInfo::ID => FILE_INFO_LEN,
            FileSystemInfo::ID => FILE_SYSTEM_INFO_LEN,
            FileSystemVolumeLabel::ID => 0,
            _ => return Err(Status::UNSUPPORTED),
        };
        Err(if len < least { Status::BAD_BUFFER_SIZE } else { Status::WRITE_PROTECTED })
    }

    /// `Flush`.
    ///
    /// # Errors
    /// `WRITE_PROTECTED`.
    pub fn flush(&self, id: FileId) -> Result<(), Status> {
        self.get(id)?;
        Err(Status::WRITE_PROTECTED)
    }

    fn open_node(&mut self, node: Node) -> Result<FileId, Status> {
        let number = self.last.checked_add(1).ok_or(Status::OUT_OF_RESOURCES)?;
        let id = FileId(number);
        if self.open.len() >= MOST_OPEN {
            return Err(Status::OUT_OF_RESOURCES);
        }
        heap::push(&mut self.open, Open { id, node, position: 0 }).map_err(|_| Status::OUT_OF_RESOURCES)?;
        self.last = number;
        Ok(id)
    }

    fn get(&self, id: FileId) -> Result<&Open, Status> {
        self.open.iter().find(|open| open.id == id).ok_or(Status::INVALID_PARAMETER)
    }

    fn get_mut(&mut self, id: FileId) -> Result<&mut Open, Status> {
        self.open.iter_mut().find(|open| open.id == id).ok_or(Status::INVALID_PARAMETER)
    }
}

/// Without a name.
const FILE_INFO_LEN: u64 = core::mem::offset_of!(FileInfo, file_name) as u64;
const FILE_SYSTEM_INFO_LEN: u64 = core::mem::offset_of!(FileSystemInfo, volume_label) as u64;
const _: () = assert!(FILE_INFO_LEN == 80 && FILE_SYSTEM_INFO_LEN == 36);
