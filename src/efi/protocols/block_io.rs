//! `EFI_BLOCK_IO_PROTOCOL` of disks and their partitions, as values (UEFI 13.9).
//!
//! [`BlockIo`] checks what an image asks for, and says which bytes of the disk or partition that is.
//!
//! Left out: writing, and a drive whose medium is changed while boot services run: its number stays the same.

use uefi_raw::protocol::block::{BlockIoMedia, BlockIoProtocol};
use uefi_raw::{Boolean, Status};

use crate::disk::Media;

/// The revision: without what later ones tell of a disk's inside, but with the room for it.
pub const REVISION: u64 = BlockIoProtocol::REVISION;
/// The number of every medium.
pub const MEDIA_ID: u32 = 0;

/// The bytes of `EFI_BLOCK_IO_MEDIA`.
pub const MEDIA_LEN: usize = size_of::<BlockIoMedia>();

/// The number of a disk or partition that has the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockId(u64);

impl BlockId {
    /// That of this number. It need not exist.
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

/// A disk, or a partition on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockIo {
    /// The medium, with as many blocks as the disk or the partition has.
    media: Media,
    is_partition: bool,
}

/// Bytes of a disk or a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// The first.
    pub start: u64,
    /// How many.
    pub len: u64,
}

impl BlockIo {
    /// A whole disk.
    #[must_use]
    pub const fn disk(media: Media) -> Self {
        Self { media, is_partition: false }
    }

    /// A partition of `blocks` blocks on a disk.
    #[must_use]
    pub const fn partition(disk: Media, blocks: u64) -> Self {
        Self { media: Media { blocks, ..disk }, is_partition: true }
    }

    /// `EFI_BLOCK_IO_MEDIA`. A drive without a medium has one block that cannot be read.
    #[must_use]
    pub const fn media(&self) -> BlockIoMedia {
        let Media { block_len, blocks, is_read_only, is_removable } = self.media;
        BlockIoMedia {
            media_id: MEDIA_ID,
            removable_media: boolean(is_removable),
            media_present: boolean(blocks > 0),
            logical_partition: boolean(self.is_partition),
            read_only: boolean(is_read_only),
            write_caching: Boolean::FALSE,
            block_size: block_len.get(),
            // Any address will do.
            io_align: 0,
            last_block: blocks.saturating_sub(1),
            lowest_aligned_lba: 0,
            logical_blocks_per_physical_block: 0,
            optimal_transfer_length_granularity: 0,
        }
    }

    /// [`Self::media`] as it is in memory.
    #[must_use]
    pub fn media_bytes(&self) -> [u8; MEDIA_LEN] {
        let media = self.media();
        let mut bytes = [0; MEDIA_LEN];
        let mut set = |at: usize, field: &[u8]| {
            bytes.iter_mut().skip(at).zip(field).for_each(|(to, from)| *to = *from);
        };
        set(core::mem::offset_of!(BlockIoMedia, media_id), &media.media_id.to_le_bytes());
        let flags =
            [media.removable_media, media.media_present, media.logical_partition, media.read_only, media.write_caching];
        set(core::mem::offset_of!(BlockIoMedia, removable_media), &flags.map(|flag| flag.0));
        set(core::mem::offset_of!(BlockIoMedia, block_size), &media.block_size.to_le_bytes());
        set(core::mem::offset_of!(BlockIoMedia, io_align), &media.io_align.to_le_bytes());
        set(core::mem::offset_of!(BlockIoMedia, last_block), &media.last_block.to_le_bytes());
        bytes
    }

    /// `ReadBlocks` of `len` bytes from block `first` on, to `buffer`. Nothing is read if there are no bytes.
    ///
    /// # Errors
    /// `NO_MEDIA`, `MEDIA_CHANGED` for another medium's number, `BAD_BUFFER_SIZE` for a part of a block, `INVALID_PARAMETER` for
    /// blocks that there are not, and for a null pointer.
    pub fn read(&self, media_id: u32, first: u64, len: u64, buffer: u64) -> Result<Bytes, Status> {
        let Media { block_len, blocks, .. } = self.media;
        let block_len = u64::from(block_len.get());
        if blocks == 0 {
            return Err(Status::NO_MEDIA);
        }
        if media_id != MEDIA_ID {
            return Err(Status::MEDIA_CHANGED);
        }
        let start = first.checked_mul(block_len).ok_or(Status::INVALID_PARAMETER)?;
        if len == 0 {
            return Ok(Bytes { start, len });
        }
        if !len.is_multiple_of(block_len) {
            return Err(Status::BAD_BUFFER_SIZE);
        }
        let count = len.checked_div(block_len).ok_or(Status::BAD_BUFFER_SIZE)?;
        let is_within = first.checked_add(count).is_some_and(|end| end <= blocks);
        if is_within && buffer != 0 { Ok(Bytes { start, len }) } else { Err(Status::INVALID_PARAMETER) }
    }

    /// `WriteBlocks`, with the same arguments.
    ///
    /// # Errors
    /// Those of [`Self::read`], else `WRITE_PROTECTED` always.
    pub fn write(&self, media_id: u32, first: u64, len: u64, buffer: u64) -> Result<(), Status> {
        self.read(media_id, first, len, buffer)?;
        Err(Status::WRITE_PROTECTED)
    }
}

const fn boolean(is: bool) -> Boolean {
    if is { Boolean::TRUE } else { Boolean::FALSE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::BlockLen;

    const DISK: Media = Media { block_len: BlockLen::DISK, blocks: 100, is_read_only: false, is_removable: false };
    const BUFFER: u64 = 0x10_0001;

    fn disk() -> BlockIo {
        BlockIo::disk(DISK)
    }

    #[test]
    fn blocks_are_read_into_any_buffer() {
        assert_eq!(disk().read(0, 0, 512, BUFFER), Ok(Bytes { start: 0, len: 512 }));
        assert_eq!(disk().read(0, 99, 512, BUFFER), Ok(Bytes { start: 99 * 512, len: 512 }));
        assert_eq!(disk().read(0, 0, 100 * 512, 1), Ok(Bytes { start: 0, len: 100 * 512 }));
        let large = BlockIo::disk(Media { block_len: BlockLen::new(4096).unwrap(), ..DISK });
        assert_eq!(large.read(0, 2, 8192, BUFFER), Ok(Bytes { start: 8192, len: 8192 }));
        assert_eq!(large.read(0, 2, 512, BUFFER), Err(Status::BAD_BUFFER_SIZE));
    }

    #[test]
    fn no_bytes_are_a_success() {
        assert_eq!(disk().read(0, 5, 0, BUFFER).map(|bytes| bytes.len), Ok(0));
        assert_eq!(disk().read(0, 5, 0, 0).map(|bytes| bytes.len), Ok(0));
    }

    #[test]
    fn a_part_of_a_block_is_a_bad_size() {
        for len in [1, 511, 513, 1023, 100 * 512 + 1, u64::MAX] {
            assert_eq!(disk().read(0, 0, len, BUFFER), Err(Status::BAD_BUFFER_SIZE), "{len}");
        }
    }

    #[test]
    fn blocks_beyond_the_last_are_an_invalid_parameter() {
        for (first, len) in [(100, 512), (99, 1024), (0, 101 * 512), (u64::MAX, 512), (1 << 55, 512), (0, !511)] {
            assert_eq!(disk().read(0, first, len, BUFFER), Err(Status::INVALID_PARAMETER), "{first} {len}");
        }
        assert_eq!(disk().read(0, 0, 512, 0), Err(Status::INVALID_PARAMETER));
    }

    #[test]
    fn another_medium_is_changed_and_no_medium_is_none() {
        assert_eq!(disk().read(1, 0, 512, BUFFER), Err(Status::MEDIA_CHANGED));
        assert_eq!(disk().read(1, 0, 0, BUFFER), Err(Status::MEDIA_CHANGED));
        let empty = BlockIo::disk(Media { blocks: 0, ..DISK });
        assert_eq!(empty.read(0, 0, 512, BUFFER), Err(Status::NO_MEDIA));
        assert_eq!(empty.write(0, 0, 512, BUFFER), Err(Status::NO_MEDIA));
        assert_eq!((empty.media().media_present, empty.media().last_block), (Boolean::FALSE, 0));
    }

    #[test]
    fn a_write_is_checked_and_refused() {
        assert_eq!(disk().write(0, 0, 512, BUFFER), Err(Status::WRITE_PROTECTED));
        assert_eq!(disk().write(0, 0, 511, BUFFER), Err(Status::BAD_BUFFER_SIZE));
        assert_eq!(disk().write(0, 100, 512, BUFFER), Err(Status::INVALID_PARAMETER));
        assert_eq!(disk().write(1, 0, 512, BUFFER), Err(Status::MEDIA_CHANGED));
    }

    #[test]
    fn a_partition_has_blocks_of_its_own() {
        let partition = BlockIo::partition(DISK, 10);
        assert_eq!(partition.read(0, 9, 512, BUFFER), Ok(Bytes { start: 9 * 512, len: 512 }));
        assert_eq!(partition.read(0, 10, 512, BUFFER), Err(Status::INVALID_PARAMETER));
        let (partition, whole) = (partition.media(), disk().media());
        assert_eq!((partition.logical_partition, whole.logical_partition), (Boolean::TRUE, Boolean::FALSE));
        assert_eq!((partition.last_block, whole.last_block), (9, 99));
    }

    #[test]
    fn the_medium_has_the_bytes_of_the_specification() {
        let cd = Media { block_len: BlockLen::CD, blocks: 0x1_0000_0002, is_read_only: true, is_removable: true };
        let expected = [
            &[0, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0][..],
            &2048_u32.to_le_bytes(),
            &[0; 4],
            &[0; 4],
            &0x1_0000_0001_u64.to_le_bytes(),
            &[0; 16],
        ];
        assert_eq!(BlockIo::disk(cd).media_bytes(), *expected.concat());
    }
}
