//! The GUID partition table (UEFI 2.10, 5.3).
//!
//! The header is in block 1, with a copy in the last block. Each has a list of entries of its own. The copy counts if the first
//! header or its list is damaged.

use uefi_raw::Guid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Extent, List, MOST, Partition, Scheme, position, read};
use crate::checksum::Crc32;
use crate::disk::{BlockLen, Blocks, Error};

const SIGNATURE: [u8; 8] = *b"EFI PART";
/// The shortest header, which is all that is defined, and the longest: a block.
const HEADER_LEN: usize = 92;
const MOST_HEADER_LEN: usize = 4096;
/// The length of an entry is this, or this times a power of two (UEFI 2.10, table 5.5). Longer ones than a block are not known.
const ENTRY_LEN: usize = 128;
const MOST_ENTRY_LEN: usize = 4096;
/// The most bytes of a list of entries. All of them are summed. Partitioning programs make 16 KiB, and xorriso up to 32 KiB.
const MOST_LIST_LEN: u64 = 256 << 10;
/// The attribute of a partition that the firmware leaves alone (UEFI 2.10, table 5.8, "No Block IO Protocol").
const NO_BLOCK_IO: u64 = 1 << 1;

/// The header (UEFI 2.10, table 5.5).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    signature: [u8; 8],
    revision: U32,
    len: U32,
    crc: U32,
    reserved: U32,
    own_block: U64,
    other_block: U64,
    first_usable: U64,
    last_usable: U64,
    disk: [u8; 16],
    list_block: U64,
    entries: U32,
    entry_len: U32,
    list_crc: U32,
}

/// An entry (UEFI 2.10, table 5.6), without its name.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    kind: [u8; 16],
    unique: [u8; 16],
    first: U64,
    last: U64,
    attributes: U64,
}

/// Why a header does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Unreadable,
    Signature,
    Header,
    Entries,
}

impl Damage {
    const fn text(self) -> &'static str {
        match self {
            Self::Unreadable => "cannot be read",
            Self::Signature => "is none",
            Self::Header => "is damaged",
            Self::Entries => "has damaged entries",
        }
    }
}

/// Finds the partitions by the first header that is whole.
pub(super) fn find(blocks: &mut dyn Blocks, list: &mut List) -> Result<(), Error> {
    let first = match try_header(blocks, 1, list)? {
        Ok(()) => return Ok(()),
        Err(damage) => damage.text(),
    };
    *list = List::default();
    let last = blocks.blocks().saturating_sub(1);
    match try_header(blocks, last, list)? {
        Ok(()) => crate::warn!("GPT: the header in block 1 {first}; its copy in block {last} is used"),
        Err(damage) => {
            *list = List::default();
            // The GPT of a CD's image counts in blocks of 512 bytes, for a disk with the image: on a CD it is nowhere.
            if blocks.block_len() == BlockLen::CD {
                return Ok(());
            }
            let text = damage.text();
            crate::warn!("GPT: the header in block 1 {first}, and its copy in block {last} {text}: no partitions");
        }
    }
    Ok(())
}

/// Adds the partitions of a header. The list is to be cleared if it does not count.
fn try_header(blocks: &mut dyn Blocks, block: u64, list: &mut List) -> Result<Result<(), Damage>, Error> {
    let header = match read_header(blocks, block)? {
        Ok(header) => header,
        Err(damage) => return Ok(Err(damage)),
    };
    let (Some(start), Some(entry_len)) = (position(blocks, header.list_block.get()), entry_len(&header)) else {
        return Ok(Err(Damage::Header));
    };
    let usable = (header.first_usable.get(), header.last_usable.get().min(blocks.blocks().saturating_sub(1)));
    let mut crc = Crc32::default();
    let mut bytes = [0; MOST_ENTRY_LEN];
    let mut unusable = 0_u32;
    for number in 1..=header.entries.get() {
        let Some((bytes, _)) = bytes.split_at_mut_checked(entry_len) else { return Ok(Err(Damage::Header)) };
        let offset = u64::from(number.saturating_sub(1)).saturating_mul(entry_len as u64);
        let at = start.saturating_add(offset);
        if read(blocks, at, bytes)?.is_none() {
            return Ok(Err(Damage::Unreadable));
        }
        crc.add(bytes);
        let Ok((entry, _)) = Entry::read_from_prefix(bytes) else { return Ok(Err(Damage::Header)) };
        if entry.kind == [0; 16] || entry.attributes.get() & NO_BLOCK_IO != 0 {
            continue;
        }
        match Extent::between(entry.first.get(), entry.last.get()) {
            Some(extent) if entry.first.get() >= usable.0 && entry.last.get() <= usable.1 => {
                let scheme = Scheme::Gpt {
                    number,
                    kind: Guid::from_bytes(entry.kind),
                    unique: Guid::from_bytes(entry.unique),
                    attributes: entry.attributes.get(),
                };
                list.add(Partition { extent, scheme, extended: None });
            }
            _ => unusable = unusable.saturating_add(1),
        }
    }
    if crc.value() != header.list_crc.get() {
        return Ok(Err(Damage::Entries));
    }
    let overlapping = remove_overlapping(list);
    if unusable != 0 || overlapping != 0 {
        crate::warn!(
            "GPT: {unusable} partitions are not where partitions can be, and {overlapping} overlap; they are left out"
        );
    }
    Ok(Ok(()))
}

/// Reads a header, and checks it.
fn read_header(blocks: &mut dyn Blocks, block: u64) -> Result<Result<Header, Damage>, Error> {
    let mut bytes = [0; MOST_HEADER_LEN];
    let (bytes, _) = bytes.split_at_mut((blocks.block_len().get() as usize).min(MOST_HEADER_LEN));
    let Some(at) = position(blocks, block) else { return Ok(Err(Damage::Unreadable)) };
    if read(blocks, at, bytes)?.is_none() {
        return Ok(Err(Damage::Unreadable));
    }
    let Ok((header, _)) = Header::read_from_prefix(bytes) else { return Ok(Err(Damage::Header)) };
    if header.signature != SIGNATURE {
        return Ok(Err(Damage::Signature));
    }
    let len = header.len.get() as usize;
    let rest = bytes.get(HEADER_LEN..len);
    let is_whole = rest.is_some_and(|rest| {
        // The checksum is of the header with zero in its place.
        let mut crc = Crc32::default();
        crc.add(Header { crc: U32::ZERO, ..header }.as_bytes());
        crc.add(rest);
        crc.value() == header.crc.get()
    });
    Ok(if is_whole && header.own_block.get() == block { Ok(header) } else { Err(Damage::Header) })
}

/// The length of an entry, if the list is not too long.
fn entry_len(header: &Header) -> Option<usize> {
    let len = header.entry_len.get() as usize;
    let all = u64::from(header.entries.get()).saturating_mul(len as u64);
    let is_known = len.is_power_of_two() && (ENTRY_LEN..=MOST_ENTRY_LEN).contains(&len);
    (is_known && all <= MOST_LIST_LEN).then_some(len)
}

/// Removes all partitions that share a block with another. Returns how many.
fn remove_overlapping(list: &mut List) -> usize {
    // A bit for each, which the list has no more of.
    const _: () = assert!(MOST <= u128::BITS as usize);
    let (mut overlapping, mut bit) = (0_u128, 1_u128);
    for one in &list.partitions {
        let mut other_bit = 1_u128;
        for other in &list.partitions {
            if other_bit != bit && one.extent.overlaps(&other.extent) {
                overlapping |= bit;
            }
            other_bit <<= 1;
        }
        bit <<= 1;
    }
    let before = list.partitions.len();
    list.partitions.retain(|_| {
        let stays = overlapping & 1 == 0;
        overlapping >>= 1;
        stays
    });
    before.saturating_sub(list.partitions.len())
}
