//! The partitions of a disk: whatever its tables say.
//!
//! Input: the length of a block, the number of blocks, then what is on the disk: a position, and bytes whose number a byte tells. A
//! checksum may be made right after that.

use firstlight::checksum::crc32;
use firstlight::disk::partition::{self, Partition, Scheme};
use firstlight::disk::{BlockLen, Blocks, Extent};
use firstlight::fakes::blocks::{FakeBlocks, Request};
use firstlight::fakes::golden;

use crate::input::Input;

/// The most reads of a search: the boot record; two headers with lists; the descriptors and a catalog; logical partitions.
const MOST_READS: usize = 1 + 2 * (1 + 2048) + 32 + 1 + partition::MOST;

/// Finds the partitions. Reads are bounded. Partitions have blocks that the disk has, and share none, except for images of a CD.
/// A logical partition is in its extended one.
///
/// # Panics
/// When that is not so.
pub fn run(bytes: &[u8]) {
    let mut disk = disk(&mut Input::new(bytes));
    let blocks = disk.blocks();
    let partitions = partition::find(&mut disk).expect("a disk that answers");
    assert!(disk.requests.len() <= MOST_READS, "{} reads", disk.requests.len());
    assert!(disk.requests.iter().all(|request| matches!(request, Request::Read(..))));
    assert!(partitions.len() <= partition::MOST);
    for (place, one) in partitions.iter().enumerate() {
        let Extent { first, blocks: count } = one.extent;
        assert!(count != 0 && first.checked_add(count).is_some_and(|end| end <= blocks), "{one:?}");
        let extended = one.extended.map(usize::from);
        if let Some(extended) = extended {
            let Extent { first: start, blocks } = partitions[extended].extent;
            assert!(extended < place && first > start && first + count <= start + blocks, "{one:?}");
        }
        for (other_place, other) in partitions[..place].iter().enumerate() {
            let may_overlap = extended == Some(other_place) || matches!(one.scheme, Scheme::ElTorito { .. });
            assert!(may_overlap || !overlaps(one, other), "{one:?} {other:?}");
        }
    }
}

fn overlaps(one: &Partition, other: &Partition) -> bool {
    let (one, other) = (one.extent, other.extent);
    one.first < other.first + other.blocks && other.first < one.first + one.blocks
}

/// The disk of an input.
fn disk(input: &mut Input<'_>) -> FakeBlocks {
    let block_len = BlockLen::new(input.pick(&[512, 1024, 2048, 4096])).expect("a length of a block");
    let (blocks, fixes): (u32, u8) = (input.take(), input.take());
    let mut disk = FakeBlocks::empty(block_len, blocks.into());
    while !input.is_empty() {
        let at: u64 = u32::into(input.take());
        disk.disk.store(at, input.short());
    }
    let block_len = u64::from(block_len.get());
    for (bit, header) in [(1, block_len), (2, u64::from(blocks).saturating_sub(1) * block_len)] {
        if fixes & bit != 0 {
            fix(&mut disk, header, block_len);
        }
    }
    if fixes & 4 != 0 {
        fix_catalog(&mut disk);
    }
    disk
}

/// Makes the checksums of a GPT header and its list right, if the list is not too long.
fn fix(disk: &mut FakeBlocks, at: u64, block_len: u64) {
    let number = |disk: &FakeBlocks, offset, len| {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&disk.disk.bytes(at + offset, len));
        u64::from_le_bytes(bytes)
    };
    let (list, entries, entry_len) = (number(disk, 72, 8), number(disk, 80, 4), number(disk, 84, 4));
    let list_len = entries.saturating_mul(entry_len);
    if list < 1 << 32 && list_len <= 1 << 19 {
        let list = disk.disk.bytes(list * block_len, list_len as usize);
        disk.disk.store(at + 88, &crc32(&list).to_le_bytes());
    }
    let len = number(disk, 12, 4).min(block_len);
    disk.disk.store(at + 16, &[0; 4]);
    let header = disk.disk.bytes(at, len as usize);
    disk.disk.store(at + 16, &crc32(&header).to_le_bytes());
}

/// Makes the sum of the catalog right that the second descriptor of a CD leads to.
fn fix_catalog(disk: &mut FakeBlocks) {
    let sector = disk.disk.bytes(17 * 2048 + 71, 4);
    let at = u64::from(u32::from_le_bytes(sector.try_into().expect("four bytes"))) * 2048;
    disk.disk.store(at + 28, &[0; 2]);
    let words = disk.disk.bytes(at, 32);
    let sum = words.as_chunks().0.iter().fold(0_u16, |sum, word| sum.wrapping_add(u16::from_le_bytes(*word)));
    disk.disk.store(at + 28, &sum.wrapping_neg().to_le_bytes());
}

/// The captured disks, with checksums as they are and made right.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let disks = golden::DISKS.into_iter().flat_map(|name| {
        let (disk, _) = golden::disk(name);
        let (block_len, blocks) = (disk.block_len().get(), disk.blocks() as u32);
        let mut parts = Vec::new();
        for at in (0..disk.blocks() * u64::from(block_len)).step_by(64) {
            // What these disks have is at their beginnings and ends, and where a CD's catalog is.
            let bytes = disk.disk.bytes(at, 64);
            if bytes.iter().any(|&byte| byte != 0) {
                parts.extend((at as u32).to_le_bytes());
                parts.push(64);
                parts.extend(bytes);
            }
        }
        [0, 7].map(|fixes| {
            let order = block_len.trailing_zeros() as u8 - 9;
            [&[order][..], &blocks.to_le_bytes(), &[fixes], &parts].concat()
        })
    });
    disks.collect()
}
