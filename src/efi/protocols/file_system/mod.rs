//! `EFI_SIMPLE_FILE_SYSTEM_PROTOCOL` and `EFI_FILE_PROTOCOL` (UEFI 13.4 and 13.5) over volumes that are only read: what the host
//! offers to boot ([`HostVolume`]), and FAT file systems on disks ([`FatVolume`]).
//!
//! [`FileSystem`] keeps the files that images have open, and where each is read next. It moves no bytes of files:
//! [`FileSystem::read`] returns which bytes go into the caller's buffer, for the caller to have the host or a disk write them there
//! ([`Blob::load`], [`FileSystem::load`]).
//!
//! Left out: whatever writes, and `EFI_FILE_PROTOCOL` of revision 2, whose reads come back later.

mod fat;
mod host;
mod info;
mod name;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use uefi_raw::protocol::file_system::{FileInfo, FileMode, FileSystemInfo, FileSystemVolumeLabel};
use uefi_raw::{Guid, Status};

use self::fat::FatNode;
pub use self::fat::{FatFile, FatVolume, disk_status, status_of};
use self::host::HostNode;
pub use self::host::{HostFile, HostVolume, MOST_FILES, QEMU_LOADER};
pub use self::info::Info;
use self::info::{FILE_INFO_LEN, FILE_SYSTEM_INFO_LEN};
use super::block_io::BlockId;
use super::{BufferError, check_room};
use crate::addr::PhysRange;
use crate::boot::Blob;
use crate::disk::Blocks;
use crate::disk::fat::Position;
use crate::heap;

/// As many files can be open at the same time.
pub const MOST_OPEN: usize = 128;
/// A position that is the end of the file (UEFI 13.5.11).
pub const END_OF_FILE: u64 = u64::MAX;

/// The disks that volumes are on.
pub trait Source {
    /// The blocks of a disk or partition. `None` if there is none of this number.
    fn blocks(&mut self, block: BlockId) -> Option<impl Blocks>;
}

/// The names that lead to a file, each from the directory of the one before.
pub type Names = Vec<Vec<u16>>;

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume<'a> {
    /// Of the host.
    Host(HostVolume<'a>),
    /// On a disk.
    Fat(FatVolume),
}

/// The number of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeId(u64);

impl VolumeId {
    /// The volume of this number. It need not exist.
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

/// What a path leads to.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it is in a list on the heap already, and a box cannot be refused")]
enum Node {
    Host(HostNode),
    Fat(FatNode),
}

impl Node {
    const fn is_directory(&self) -> bool {
        match self {
            Self::Host(node) => matches!(node, HostNode::Root),
            Self::Fat(node) => node.is_directory(),
        }
    }
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

#[derive(Debug)]
struct Open {
    id: FileId,
    volume: VolumeId,
    node: Node,
    /// In a directory the number of entries that were read.
    position: u64,
    /// In a directory of a FAT volume, where the last entry that was read begins.
    before: Position,
}

/// What `Read` puts into the buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "a box cannot be refused")]
pub enum Read<'a> {
    /// Bytes of a file of the host, in up to two pieces, one after the other. None at the end of the file.
    Contents(ArrayVec<Blob<'a>, 2>),
    /// Bytes of a file on a disk, for [`FileSystem::load`].
    OnDisk {
        /// The first.
        start: u64,
        /// How many.
        len: u64,
    },
    /// `EFI_FILE_INFO` of a file in a directory; empty after the last one.
    Entry(Info),
}

impl Read<'_> {
    /// How far it moves the position: by bytes in a file, by entries in a folder.
    fn step(&self) -> u64 {
        match self {
            Self::Contents(_) | Self::OnDisk { .. } => self.len(),
            Self::Entry(info) => u64::from(!info.is_empty()),
        }
    }

    /// How many bytes go into the buffer.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Contents(pieces) => pieces.iter().fold(0, |len, piece| len.saturating_add(piece.len())),
            Self::OnDisk { len, .. } => *len,
            Self::Entry(info) => info.len() as u64,
        }
    }

    /// Whether none do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The volumes and what is open of them. Each call that names a file that is not open is `INVALID_PARAMETER`.
#[derive(Debug, Default)]
pub struct FileSystem<'a> {
    volumes: Vec<Volume<'a>>,
    open: Vec<Open>,
    last: u64,
}

impl<'a> FileSystem<'a> {
    /// No volume yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { volumes: Vec::new(), open: Vec::new(), last: 0 }
    }

    /// Adds a volume.
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES`.
    pub fn add(&mut self, volume: Volume<'a>) -> Result<VolumeId, Status> {
        let id = VolumeId(self.volumes.len() as u64);
        heap::push(&mut self.volumes, volume).map_err(|_| Status::OUT_OF_RESOURCES)?;
        Ok(id)
    }

    fn volume(&self, id: VolumeId) -> Result<&Volume<'a>, Status> {
        let index = usize::try_from(id.0).map_err(|_| Status::INVALID_PARAMETER)?;
        self.volumes.get(index).ok_or(Status::INVALID_PARAMETER)
    }

    /// `OpenVolume`: the root directory.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the volume, `OUT_OF_RESOURCES`.
    pub fn open_volume(&mut self, volume: VolumeId) -> Result<FileId, Status> {
        let root = match self.volume(volume)? {
            Volume::Host(_) => Node::Host(HostNode::Root),
            Volume::Fat(fat) => Node::Fat(fat.root()),
        };
        self.open_node(volume, root)
    }

    /// `Open`: the file that `path` leads to from `from`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a mode that cannot be, `NOT_FOUND`, `WRITE_PROTECTED` to write or to make a file,
    /// `OUT_OF_RESOURCES`; those of [`status_of`].
    pub fn open(
        &mut self,
        source: &mut impl Source,
        from: FileId,
        path: &[u16],
        mode: FileMode,
    ) -> Result<FileId, Status> {
        let from = self.get(from)?;
        let read_write = FileMode::READ | FileMode::WRITE;
        if ![FileMode::READ, read_write, read_write | FileMode::CREATE].contains(&mode) {
            return Err(Status::INVALID_PARAMETER);
        }
        if mode.contains(FileMode::CREATE) {
            return Err(Status::WRITE_PROTECTED);
        }
        let node = match (self.volume(from.volume)?, &from.node) {
            (Volume::Host(volume), Node::Host(node)) => {
                Node::Host(volume.resolve(*node, path).ok_or(Status::NOT_FOUND)?)
            }
            (Volume::Fat(volume), Node::Fat(node)) => {
                let mut blocks = source.blocks(volume.block()).ok_or(Status::DEVICE_ERROR)?;
                Node::Fat(volume.resolve(&mut blocks, node, path)?)
            }
            _ => return Err(Status::INVALID_PARAMETER),
        };
        if mode.contains(FileMode::WRITE) {
            return Err(Status::WRITE_PROTECTED);
        }
        let volume = from.volume;
        self.open_node(volume, node)
    }

    /// The file on a FAT volume that `names` lead to from the root, to be read without being opened.
    /// `None` for another volume, and for a directory.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn find(&self, source: &mut impl Source, volume: VolumeId, names: &Names) -> Result<Option<FatFile>, Status> {
        let Volume::Fat(volume) = self.volume(volume)? else { return Ok(None) };
        let mut blocks = source.blocks(volume.block()).ok_or(Status::DEVICE_ERROR)?;
        let mut node = volume.root();
        for name in names {
            node = volume.resolve(&mut blocks, &node, name)?;
        }
        Ok((!node.is_directory()).then(|| volume.file(&node)))
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

    /// Closes all files that an image has left open, once no image is there.
    pub fn close_all(&mut self) {
        self.open.clear();
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
    /// one; those of [`status_of`] for a directory on a disk.
    pub fn read(&mut self, source: &mut impl Source, id: FileId, room: u64) -> Result<Read<'a>, BufferError> {
        let Open { node, position, volume, .. } = self.get(id)?;
        let position = *position;
        let mut behind = None;
        let read = match (self.volume(*volume)?, node) {
            (Volume::Host(volume), Node::Host(HostNode::File(index))) => {
                let file = volume.file(*index).ok_or(Status::DEVICE_ERROR)?;
                check_position(position, file.len())?;
                Read::Contents(file.pieces(position, room))
            }
            (Volume::Host(volume), Node::Host(HostNode::Root)) => {
                let entry = usize::try_from(position).ok().filter(|&index| volume.file(index).is_some());
                let info = entry.map(|index| volume.file_info(HostNode::File(index))).unwrap_or_default();
                check_room(info.len() as u64, room)?;
                Read::Entry(info)
            }
            (Volume::Fat(volume), Node::Fat(node)) if node.is_directory() => {
                let mut blocks = source.blocks(volume.block()).ok_or(Status::DEVICE_ERROR)?;
                let (info, position) = volume.next(&mut blocks, node)?;
                check_room(info.len() as u64, room)?;
                behind = Some(position);
                Read::Entry(info)
            }
            (Volume::Fat(_), Node::Fat(node)) => {
                let len = u64::from(node.entry().len());
                check_position(position, len)?;
                Read::OnDisk { start: position, len: room.min(len.saturating_sub(position)) }
            }
            _ => return Err(Status::INVALID_PARAMETER.into()),
        };
        let open = self.get_mut(id)?;
        open.position = position.saturating_add(read.step());
        if let (Node::Fat(node), Some(behind)) = (&mut open.node, behind) {
            open.before = core::mem::replace(&mut node.position, behind);
        }
        Ok(read)
    }

    /// Puts the bytes of a file on a disk that [`Self::read`] returned to all of `into`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the file; those of [`status_of`].
    pub fn load(&mut self, source: &mut impl Source, id: FileId, start: u64, into: PhysRange) -> Result<(), Status> {
        let open = self.get(id)?;
        let (Volume::Fat(volume), Node::Fat(node)) = (self.volume(open.volume)?, &open.node) else {
            return Err(Status::INVALID_PARAMETER);
        };
        let mut file = volume.file(node);
        let result = file.load(source, start, into);
        if let Node::Fat(node) = &mut self.get_mut(id)?.node {
            node.reader = file.reader();
        }
        result
    }

    /// Goes back to where [`Self::read`] began: the reader has not got what it returned.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` without the file.
    pub fn undo(&mut self, id: FileId, read: &Read<'_>) -> Result<(), Status> {
        let open = self.get_mut(id)?;
        open.position = open.position.saturating_sub(read.step());
        if let (Node::Fat(node), Read::Entry(_)) = (&mut open.node, read) {
            node.position = open.before;
        }
        Ok(())
    }

    /// `Write`.
    ///
    /// # Errors
    /// `UNSUPPORTED` to a directory, else `WRITE_PROTECTED`.
    pub fn write(&self, id: FileId) -> Result<(), Status> {
        let is_directory = self.get(id)?.node.is_directory();
        Err(if is_directory { Status::UNSUPPORTED } else { Status::WRITE_PROTECTED })
    }

    /// `GetPosition`: the next byte that is read.
    ///
    /// # Errors
    /// `UNSUPPORTED` in a directory.
    pub fn position(&self, id: FileId) -> Result<u64, Status> {
        let open = self.get(id)?;
        if open.node.is_directory() { Err(Status::UNSUPPORTED) } else { Ok(open.position) }
    }

    /// `SetPosition`: where the next byte is read. It may be behind the end; [`END_OF_FILE`] is the end.
    ///
    /// # Errors
    /// `UNSUPPORTED` in a directory, but for zero, which is its first entry.
    pub fn set_position(&mut self, id: FileId, position: u64) -> Result<(), Status> {
        let open = self.get(id)?;
        let is_directory = open.node.is_directory();
        if is_directory && position != 0 {
            return Err(Status::UNSUPPORTED);
        }
        let len = match (self.volume(open.volume)?, &open.node) {
            (Volume::Host(volume), Node::Host(HostNode::File(index))) => volume.file(*index).map_or(0, HostFile::len),
            (_, Node::Fat(node)) => node.entry().len().into(),
            _ => 0,
        };
        let open = self.get_mut(id)?;
        open.position = if position == END_OF_FILE { len } else { position };
        if let Node::Fat(node) = &mut open.node {
            node.position = Position::default();
        }
        Ok(())
    }

    /// `GetInfo`: the structure of a type, if it has room in `room` bytes.
    ///
    /// # Errors
    /// `UNSUPPORTED` for another type, [`BufferError::TooSmall`]; those of [`status_of`] for the label of a volume.
    pub fn info(&self, source: &mut impl Source, id: FileId, kind: Guid, room: u64) -> Result<Info, BufferError> {
        let open = self.get(id)?;
        let info = match (self.volume(open.volume)?, &open.node) {
            (Volume::Host(volume), Node::Host(node)) => match kind {
                FileInfo::ID => volume.file_info(*node),
                FileSystemInfo::ID => volume.file_system_info(),
                FileSystemVolumeLabel::ID => volume.label(),
                _ => return Err(Status::UNSUPPORTED.into()),
            },
            (Volume::Fat(volume), Node::Fat(node)) => {
                let mut blocks = source.blocks(volume.block()).ok_or(Status::DEVICE_ERROR)?;
                match kind {
                    FileInfo::ID => volume.file_info(node.entry()),
                    FileSystemInfo::ID => volume.file_system_info(&mut blocks)?,
                    FileSystemVolumeLabel::ID => volume.label(&mut blocks)?,
                    _ => return Err(Status::UNSUPPORTED.into()),
                }
            }
            _ => return Err(Status::INVALID_PARAMETER.into()),
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

    fn open_node(&mut self, volume: VolumeId, node: Node) -> Result<FileId, Status> {
        let number = self.last.checked_add(1).ok_or(Status::OUT_OF_RESOURCES)?;
        let id = FileId(number);
        if self.open.len() >= MOST_OPEN {
            return Err(Status::OUT_OF_RESOURCES);
        }
        let open = Open { id, volume, node, position: 0, before: Position::default() };
        heap::push(&mut self.open, open).map_err(|_| Status::OUT_OF_RESOURCES)?;
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

/// Refuses to read behind the end of a file (UEFI 13.5.9).
fn check_position(position: u64, len: u64) -> Result<(), Status> {
    if position > len { Err(Status::DEVICE_ERROR) } else { Ok(()) }
}
