//! The master boot record (UEFI 2.10, 5.2), with logical partitions.
//!
//! It has four entries. A logical partition is described by a record of its own inside an extended partition, and each of these
//! records leads to the next.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{Extent, List, MOST, Partition, Scheme, position, read};
use crate::disk::{Blocks, Error};

/// The length of a record.
pub(super) const LEN: usize = 512;

const SIGNATURE: u16 = 0xaa55;
/// The type of the entry that protects a GPT.
const PROTECTIVE: u8 = 0xee;
/// The types of extended partitions: with positions in cylinders, in blocks, and Linux's own.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// A record.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Record {
    code: [u8; 440],
    disk: U32,
    unknown: [u8; 2],
    entries: [Entry; 4],
    signature: U16,
}

/// An entry.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    boot: u8,
    first_chs: [u8; 3],
    kind: u8,
    last_chs: [u8; 3],
    first: U32,
    blocks: U32,
}

impl Entry {
    fn is_used(&self) -> bool {
        self.kind != 0 && self.blocks.get() != 0
    }

    fn is_extended(&self) -> bool {
        self.is_used() && EXTENDED.contains(&self.kind)
    }

    /// Its blocks, counted from block `base` on.
    fn extent(&self, base: u64) -> Extent {
        Extent { first: base.saturating_add(self.first.get().into()), blocks: self.blocks.get().into() }
    }
}

impl Record {
    /// `None` if it has not the signature of a boot record. A boot sector of FAT has it too.
    pub(super) fn parse(bytes: &[u8; LEN]) -> Option<&Self> {
        let record: &Self = zerocopy::transmute_ref!(bytes);
        (record.signature.get() == SIGNATURE).then_some(record)
    }

    /// Whether it protects a GPT. The length of the protected blocks may be anything.
    pub(super) fn is_protective(&self) -> bool {
        self.entries.iter().any(|entry| entry.kind == PROTECTIVE && entry.first.get() == 1)
    }

    /// The entries that describe partitions, each with its number.
    fn partitions(&self) -> impl Iterator<Item = (u32, &Entry)> {
        (1..u32::MAX).zip(&self.entries).filter(|(_, entry)| entry.is_used() && entry.kind != PROTECTIVE)
    }
}

/// Adds the partitions of a record in block 0, if all of its entries are partitions of this disk. The text and the code in a boot
/// sector of FAT are not.
pub(super) fn find(blocks: &mut dyn Blocks, record: &Record, list: &mut List) -> Result<(), Error> {
    for (number, entry) in record.partitions() {
        let extent = entry.extent(0);
        // mtools puts an entry from block 0 on into the boot sector of a file system.
        let is_within = extent.first != 0 && extent.first.saturating_add(extent.blocks) <= blocks.blocks();
        if !is_within || list.partitions.iter().any(|other| other.extent.overlaps(&extent)) {
            *list = List::default();
            return Ok(());
        }
        let scheme = Scheme::Mbr { number, kind: entry.kind, signature: record.disk.get() };
        list.add(Partition { extent, scheme, extended: None });
    }
    for place in 0..4 {
        match list.partitions.get(usize::from(place)) {
            Some(Partition { extent, scheme: Scheme::Mbr { kind, .. }, extended: None }) if EXTENDED.contains(kind) => {
                find_logical(blocks, *extent, place, list)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Adds the logical partitions of an extended one.
#[inline(never)]
fn find_logical(blocks: &mut dyn Blocks, extended: Extent, place: u8, list: &mut List) -> Result<(), Error> {
    let is_inside = |extent: &Extent| {
        extent.first > extended.first
            && extent.first.saturating_add(extent.blocks) <= extended.first.saturating_add(extended.blocks)
    };
    let mut at = extended.first;
    let mut number = 1;
    // Each record that does not end the search has a partition or is counted with those that are left out.
    for _ in 0..MOST {
        let mut bytes = [0; LEN];
        let Some(position) = position(blocks, at) else { break };
        let record = match read(blocks, position, &mut bytes)? {
            Some(()) => Record::parse(&bytes),
            None => None,
        };
        // The other entries are not used.
        let Some(Record { entries: [first, second, ..], .. }) = record else { break };
        let mut next = None;
        for entry in [first, second].into_iter().filter(|entry| entry.is_used()) {
            if entry.is_extended() {
                next = next.or(Some(entry.extent(extended.first).first));
                continue;
            }
            let extent = entry.extent(at);
            let mut others = list.partitions.iter().filter(|other| other.extended == Some(place));
            // A chain that leads back to itself ends here.
            if !is_inside(&extent) || others.any(|other| other.extent.overlaps(&extent)) {
                return Ok(());
            }
            let scheme = Scheme::Mbr { number, kind: entry.kind, signature: 0 };
            list.add(Partition { extent, scheme, extended: Some(place) });
            number = number.saturating_add(1);
        }
        match next {
            Some(next) if is_inside(&Extent { first: next, blocks: 1 }) => at = next,
            _ => break,
        }
    }
    Ok(())
}
