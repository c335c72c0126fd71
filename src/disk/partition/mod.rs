//! The partitions of a disk: GPT, the boot images of a CD (El Torito), MBR with logical partitions.
//!
//! [`find`] tries these tables in the order of UEFI 2.10, 13.3.2, and takes the first that is there. A disk without any has no
//! partitions; it may be a file system as a whole.
//!
//! The disk is not trusted: a partition has only blocks that the disk has, and two partitions of a table share none. The number of
//! reads is bounded, whatever is on the disk.
//!
//! Assumed: a table counts in blocks of the disk. Left out: tables inside partitions, except for extended ones; UDF; Apple's and BSD's
//! tables.
//!
//! `gpt_disk_types` could parse GPT. But checksums, bounds, the copy at the end of the disk and everything else here remain to be
//! done with it or without, so it is the second reader of the tests.

mod el_torito;
mod gpt;
mod mbr;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use uefi_raw::Guid;

use super::{Blocks, Error, Extent};
use crate::heap;

/// The most partitions of a disk.
pub const MOST: usize = 128;

/// A partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its blocks. A boot image of a CD can end within the last one.
    pub extent: Extent,
    /// What its table says of it.
    pub scheme: Scheme,
    /// The extended partition that a logical one is in, by its place in the list.
    pub extended: Option<u8>,
}

/// The kind of table, with what it says of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// GUID partition table (UEFI 2.10, 5.3).
    Gpt {
        /// The number of the entry, from 1 on.
        number: u32,
        /// The type.
        kind: Guid,
        /// The partition's own GUID.
        unique: Guid,
        /// The attributes.
        attributes: u64,
    },
    /// Master boot record (UEFI 2.10, 5.2).
    Mbr {
        /// The number of the entry, from 1 on. Logical partitions are counted from 1 on too, as edk2 does.
        number: u32,
        /// The type.
        kind: u8,
        /// The disk's signature; zero for a logical partition, as in edk2.
        signature: u32,
    },
    /// A boot image of a CD (El Torito 1.0).
    ElTorito {
        /// The number of the bootable entry in the catalog: 0 for the default one.
        entry: u32,
        /// The platform: 0 for a BIOS, 0xef for UEFI.
        platform: u8,
    },
}

/// Finds the partitions of a disk, in the order of their table.
///
/// A table that is damaged is as absent, with a warning if it is a GPT.
///
/// # Errors
/// [`Error::Timeout`] if the disk does not answer; [`Error::NoRoom`] if the heap is full. If a block cannot be read, what is in it
/// is absent.
#[cold]
pub fn find(blocks: &mut dyn Blocks) -> Result<Vec<Partition>, Error> {
    let mut list = List::default();
    let mut first = [0; mbr::LEN];
    if let Some(()) = read(blocks, 0, &mut first)? {
        let record = mbr::Record::parse(&first);
        if record.is_some_and(mbr::Record::is_protective) {
            gpt::find(blocks, &mut list)?;
        }
        if list.partitions.is_empty() {
            el_torito::find(blocks, &mut list)?;
        }
        if let Some(record) = record.filter(|_| list.partitions.is_empty()) {
            mbr::find(blocks, record, &mut list)?;
        }
    }
    if list.left_out != 0 {
        crate::warn!("a disk has more than {MOST} partitions, or memory is full: {} are left out", list.left_out);
    }
    Ok(list.partitions)
}

/// Reads bytes. `None` if the disk does not have them, or cannot read them.
#[inline(never)]
fn read(blocks: &mut dyn Blocks, at: u64, into: &mut [u8]) -> Result<Option<()>, Error> {
    match blocks.read(at, into) {
        Ok(()) => Ok(Some(())),
        Err(Error::Timeout) => Err(Error::Timeout),
        Err(_) => Ok(None),
    }
}

/// The position of a block in bytes. `None` if no disk has it.
fn position(blocks: &dyn Blocks, block: u64) -> Option<u64> {
    block.checked_mul(blocks.block_len().get().into()).filter(|_| block < blocks.blocks())
}

/// The partitions that were found.
#[derive(Default)]
struct List {
    partitions: Vec<Partition>,
    /// How many there was no room for.
    left_out: u16,
}

impl List {
    /// Adds a partition. Returns its place.
    #[inline(never)]
    fn add(&mut self, partition: Partition) -> Option<u8> {
        let place = u8::try_from(self.partitions.len()).ok();
        if self.partitions.len() >= MOST || heap::push(&mut self.partitions, partition).is_err() {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        place
    }
}

impl Extent {
    /// The blocks from `first` to `last`. `None` if there is none.
    const fn between(first: u64, last: u64) -> Option<Self> {
        match last.checked_sub(first) {
            Some(more) => match more.checked_add(1) {
                Some(blocks) => Some(Self { first, blocks }),
                None => None,
            },
            None => None,
        }
    }

    /// Whether it has a block in common with another. Both end below 2^64.
    const fn overlaps(&self, other: &Self) -> bool {
        self.first < other.first.saturating_add(other.blocks) && other.first < self.first.saturating_add(self.blocks)
    }
}
