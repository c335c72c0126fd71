//! A FAT volume: nodes of its tree, and files that are read from a disk into their place.
//!
//! The tree has no way up: a node knows the path of the directory that it is in, and `..` finds that from the root.

use alloc::vec::Vec;

use uefi_raw::Status;

use super::Source;
use super::info::{self, FileFields, Info};
use super::name::{self, Part};
use crate::addr::PhysRange;
use crate::disk::Blocks;
use crate::disk::fat::{Entry, Error, Fat, Label, Position, Reader};
use crate::efi::protocols::block_io::BlockId;
use crate::heap;

/// The longest path of a directory, in characters.
const MOST_PATH: usize = 1 << 12;

/// The volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FatVolume {
    block: BlockId,
    fat: Fat,
}

impl FatVolume {
    /// The file system `fat` on a disk or partition.
    #[must_use]
    pub const fn new(block: BlockId, fat: Fat) -> Self {
        Self { block, fat }
    }

    /// The disk or partition.
    #[must_use]
    pub const fn block(&self) -> BlockId {
        self.block
    }

    /// The root directory.
    pub(super) fn root(&self) -> FatNode {
        FatNode::new(&self.fat, self.fat.root(), Vec::new())
    }

    /// What a path leads to.
    ///
    /// # Errors
    /// `NOT_FOUND`, also for what is in a file or above the root; `OUT_OF_RESOURCES`; those of [`status_of`].
    pub(super) fn resolve(&self, blocks: &mut dyn Blocks, from: &FatNode, path: &[u16]) -> Result<FatNode, Status> {
        let (is_absolute, parts) = name::split(path);
        let mut node = if is_absolute { self.root() } else { from.try_clone()? };
        for part in parts {
            if !node.is_directory() {
                return Err(Status::NOT_FOUND);
            }
            node = match part {
                Part::Same => node,
                Part::Up => self.above(blocks, &node)?,
                Part::Name(name) => self.child(blocks, node, name)?,
            };
        }
        Ok(node)
    }

    /// The file or directory of a name in a directory.
    fn child(&self, blocks: &mut dyn Blocks, directory: FatNode, name: &[u16]) -> Result<FatNode, Status> {
        let found = self.fat.find(blocks, &directory.entry, name).map_err(status_of)?;
        let found = found.ok_or(Status::NOT_FOUND)?;
        let FatNode { entry, path: mut within, .. } = directory;
        if within.len().saturating_add(entry.name().len()) >= MOST_PATH {
            return Err(Status::NOT_FOUND);
        }
        if !entry.name().is_empty() {
            let separator = if within.is_empty() { None } else { Some(name::SEPARATOR) };
            let mut more = separator.into_iter().chain(entry.name().iter().copied());
            more.try_for_each(|unit| heap::push(&mut within, unit)).map_err(|_| Status::OUT_OF_RESOURCES)?;
        }
        Ok(FatNode::new(&self.fat, found, within))
    }

    /// The directory that a node is in.
    fn above(&self, blocks: &mut dyn Blocks, node: &FatNode) -> Result<FatNode, Status> {
        if node.entry.name().is_empty() {
            return Err(Status::NOT_FOUND);
        }
        let (_, parts) = name::split(&node.path);
        let mut above = self.root();
        for part in parts {
            // The path has names only.
            if let Part::Name(name) = part {
                above = self.child(blocks, above, name)?;
            }
        }
        Ok(above)
    }

    /// `EFI_FILE_INFO`.
    pub(super) fn file_info(&self, entry: &Entry) -> Info {
        let fields = FileFields {
            len: entry.len().into(),
            room: self.fat.room_of(entry.len()),
            times: [entry.created(), entry.accessed(), entry.modified()],
            attributes: entry.attributes(),
        };
        info::file(&fields, entry.name().iter().copied())
    }

    /// `EFI_FILE_SYSTEM_INFO`.
    ///
    /// # Errors
    /// Those of [`status_of`].
    pub(super) fn file_system_info(&self, blocks: &mut dyn Blocks) -> Result<Info, Status> {
        let label = self.fat.label(blocks).map_err(status_of)?;
        Ok(info::file_system(self.fat.len(), self.fat.cluster_len(), label.iter().copied()))
    }

    /// `EFI_FILE_SYSTEM_VOLUME_LABEL`.
    ///
    /// # Errors
    /// Those of [`status_of`].
    pub(super) fn label(&self, blocks: &mut dyn Blocks) -> Result<Info, Status> {
        let label: Label = self.fat.label(blocks).map_err(status_of)?;
        Ok(info::label(label.iter().copied()))
    }

    /// The structure of a directory's next entry, and the position behind it; none at its end.
    ///
    /// # Errors
    /// Those of [`status_of`].
    pub(super) fn next(&self, blocks: &mut dyn Blocks, directory: &FatNode) -> Result<(Info, Position), Status> {
        let mut position = directory.position;
        let entry = self.fat.next(blocks, &directory.entry, &mut position).map_err(status_of)?;
        Ok((entry.map(|entry| self.file_info(&entry)).unwrap_or_default(), position))
    }

    /// What reads the file at `node`.
    pub(super) fn file(&self, node: &FatNode) -> FatFile {
        FatFile { block: self.block, fat: self.fat, reader: node.reader, len: node.entry.len() }
    }
}

/// A file or directory.
#[derive(Debug)]
pub(super) struct FatNode {
    entry: Entry,
    /// The path of the directory that it is in: names with separators between.
    path: Vec<u16>,
    /// Reads it, if it is a file.
    pub(super) reader: Reader,
    /// The next entry, if it is a directory.
    pub(super) position: Position,
}

impl FatNode {
    fn new(fat: &Fat, entry: Entry, path: Vec<u16>) -> Self {
        Self { reader: fat.reader(&entry), entry, path, position: Position::default() }
    }

    pub(super) const fn entry(&self) -> &Entry {
        &self.entry
    }

    pub(super) const fn is_directory(&self) -> bool {
        self.entry.is_directory()
    }

    fn try_clone(&self) -> Result<Self, Status> {
        let mut path = heap::with_capacity(self.path.len()).map_err(|_| Status::OUT_OF_RESOURCES)?;
        for &unit in &self.path {
            heap::push_within_capacity(&mut path, unit).map_err(|_| Status::OUT_OF_RESOURCES)?;
        }
        Ok(Self { entry: self.entry.clone(), path, reader: self.reader, position: self.position })
    }
}

/// A file on a FAT volume, for who reads it into memory of their own.
#[derive(Clone, Copy, Debug)]
pub struct FatFile {
    block: BlockId,
    fat: Fat,
    reader: Reader,
    len: u32,
}

impl FatFile {
    /// The length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.len as u64
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it is read next: what [`Self::load`] has found of its clusters.
    pub(super) const fn reader(&self) -> Reader {
        self.reader
    }

    /// Reads its bytes from `at` on.
    ///
    /// # Errors
    /// Those of [`status_of`].
    pub fn read(&mut self, source: &mut impl Source, at: u64, into: &mut [u8]) -> Result<(), Status> {
        let mut blocks = source.blocks(self.block).ok_or(Status::DEVICE_ERROR)?;
        self.fat.read(&mut blocks, &mut self.reader, at, into).map_err(status_of)
    }

    /// Puts its bytes from `at` on to all of `into`.
    ///
    /// # Errors
    /// Those of [`status_of`].
    pub fn load(&mut self, source: &mut impl Source, at: u64, into: PhysRange) -> Result<(), Status> {
        let mut blocks = source.blocks(self.block).ok_or(Status::DEVICE_ERROR)?;
        self.fat.load(&mut blocks, &mut self.reader, at, into).map_err(status_of)
    }
}

/// The status for a volume that cannot be read: `NO_MEDIA`, `VOLUME_CORRUPTED`, `INVALID_PARAMETER` for memory that no device may
/// write, else `DEVICE_ERROR`.
pub fn status_of(error: Error) -> Status {
    match error {
        Error::Disk(error) => disk_status(error),
        Error::Cluster(_) | Error::Circle | Error::Scattered | Error::CutOff => Status::VOLUME_CORRUPTED,
        Error::NotFat | Error::OutOfRange => Status::DEVICE_ERROR,
    }
}

/// The status for a disk that cannot be read, as [`status_of`].
pub fn disk_status(error: crate::disk::Error) -> Status {
    match error {
        crate::disk::Error::NoMedium => Status::NO_MEDIA,
        crate::disk::Error::Memory(_) => Status::INVALID_PARAMETER,
        _ => Status::DEVICE_ERROR,
    }
}
