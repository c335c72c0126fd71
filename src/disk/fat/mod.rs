//! FAT 12, 16 and 32, for reading.
//!
//! [`Fat::open`] reads the boot sector once into checked numbers. An [`Entry`] is a file or a directory, found by name
//! ([`Fat::find`]) or listed ([`Fat::next`]). A [`Reader`] is what reads an entry's bytes. Neighbouring clusters are one piece: a
//! file that is contiguous is loaded by one request.
//!
//! A sector of FAT is a unit of its own. The disk's blocks can be longer: a CD has blocks of 2048 bytes, and the file system on it
//! sectors of 512.
//!
//! The disk is not trusted. Every cluster is checked before it is used, a chain has no more clusters than there are, and a
//! directory no more than [`MOST_DIRECTORY`] bytes. A file whose clusters are scattered is read up to a number of steps.
//!
//! As Linux and edk2 do, a volume without a 16-bit length of its table is FAT32, even if it has so few clusters that Microsoft's
//! rule makes it FAT16: image builders make such small volumes.
//!
//! Left out: writing, repair, the second copy of the table, and exFAT.
//!
//! Source: Microsoft, "FAT: General Overview of On-Disk Format", 1.03, "FAT" below, with the section.

mod boot_sector;
mod chain;
mod directory;
mod name;
#[cfg(test)]
mod tests;

use core::num::NonZeroU32;

use zerocopy::FromBytes;

use self::boot_sector::BootSector;
pub use self::chain::Reader;
pub use self::directory::{Entry, Label, MOST_DIRECTORY, Position};
pub use self::name::is_same;
use super::{Blocks, Error as DiskError};
use crate::addr::PhysRange;

/// What goes wrong with a FAT file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The disk cannot be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The first sector is none of a FAT file system.
    #[error("it is no FAT file system")]
    NotFat,
    /// A file or the table of clusters names a cluster that does not exist or holds no data.
    #[error("the FAT file system is damaged: it leads to cluster {0:#x}; check it with fsck.fat")]
    Cluster(u32),
    /// The clusters of a file lead back to themselves.
    #[error("the FAT file system is damaged: a file's clusters are a circle; check it with fsck.fat")]
    Circle,
    /// Reading a file takes too many steps along its clusters.
    #[error("a file's clusters are scattered over the FAT file system; copy the file anew")]
    Scattered,
    /// A file has fewer clusters than its length needs.
    #[error("the FAT file system is damaged: a file ends before its length; check it with fsck.fat")]
    CutOff,
    /// Bytes behind the end of a file were asked for.
    #[error("bytes behind the end of a file")]
    OutOfRange,
}

/// The width of an entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

impl Kind {
    /// The bits of an entry.
    const fn bits(self) -> u64 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }

    /// The bits that number a cluster.
    const fn mask(self) -> u32 {
        match self {
            Self::Fat12 => 0xfff,
            Self::Fat16 => 0xffff,
            Self::Fat32 => 0xfff_ffff,
        }
    }
}

/// Where a file or a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a row, from byte `at` of the disk on: the root directory of FAT12 and FAT16.
    Row { at: u64, len: u32 },
    /// In a chain of clusters, which begins with this one.
    Chain(u32),
}

/// A FAT file system, whose boot sector has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fat {
    kind: Kind,
    /// The table's first byte on the disk.
    table: u64,
    /// Its length in bytes.
    table_len: u64,
    root: Place,
    /// The first byte of cluster 2, which is the first one.
    data: u64,
    cluster_len: NonZeroU32,
    /// How many clusters there are.
    clusters: u32,
    serial: u32,
    label: [u8; 11],
}

impl Fat {
    /// The file system that begins with the first byte of a disk or a partition.
    ///
    /// # Errors
    /// [`Error::NotFat`], [`Error::Disk`].
    pub fn open(blocks: &mut dyn Blocks) -> Result<Self, Error> {
        let mut bytes = [0; size_of::<BootSector>()];
        let len = blocks.blocks().saturating_mul(blocks.block_len().get().into());
        if len < bytes.len() as u64 {
            return Err(Error::NotFat);
        }
        blocks.read(0, &mut bytes)?;
        let sector = BootSector::ref_from_bytes(&bytes).map_err(|_| Error::NotFat)?;
        sector.volume().ok_or(Error::NotFat)
    }

    /// The root directory.
    #[must_use]
    pub const fn root(&self) -> Entry {
        Entry::root(self.root)
    }

    /// The length of a cluster in bytes: what `EFI_FILE_SYSTEM_INFO` has as the volume's block.
    #[must_use]
    pub const fn cluster_len(&self) -> u32 {
        self.cluster_len.get()
    }

    /// The length of all clusters in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        (self.clusters as u64).saturating_mul(self.cluster_len.get() as u64)
    }

    /// Whether there are none. A file system has at least one.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.clusters == 0
    }

    /// How many bytes of the disk a file of `len` bytes takes.
    #[must_use]
    pub fn room_of(&self, len: u32) -> u64 {
        u64::from(len.div_ceil(self.cluster_len.get())).saturating_mul(self.cluster_len.get().into())
    }

    /// The number that was given to the volume when it was formatted; zero without one.
    #[must_use]
    pub const fn serial(&self) -> u32 {
        self.serial
    }

    /// What reads a file.
    #[must_use]
    pub const fn reader(&self, file: &Entry) -> Reader {
        Reader::new(file.place(), file.len())
    }

    /// Puts the bytes of a file from byte `at` on into all of `into`: one request for each row of neighbouring clusters.
    ///
    /// # Errors
    /// [`Error`]; [`Error::OutOfRange`] behind the end of the file. What the memory has is then unknown.
    pub fn load(&self, blocks: &mut dyn Blocks, file: &mut Reader, at: u64, into: PhysRange) -> Result<(), Error> {
        let mut rest = into;
        self.pieces(blocks, file, at, into.len(), &mut |blocks, at, len| {
            let (piece, behind) = rest.split_at(len.into());
            rest = behind;
            blocks.load(at, piece)
        })
    }

    /// Reads bytes of a file from byte `at` on.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn read(&self, blocks: &mut dyn Blocks, file: &mut Reader, at: u64, into: &mut [u8]) -> Result<(), Error> {
        let len = into.len() as u64;
        let mut rest = into;
        self.pieces(blocks, file, at, len, &mut |blocks, at, len| {
            let Some((piece, behind)) = core::mem::take(&mut rest).split_at_mut_checked(len as usize) else {
                return Err(DiskError::OutOfRange);
            };
            rest = behind;
            blocks.read(at, piece)
        })
    }
}
