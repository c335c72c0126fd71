//! What a disk is, as its controller says.

use super::Error;

/// The length of a block in bytes: a power of two from 512 to 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLen(u32);

impl BlockLen {
    /// The usual length of a disk's.
    pub const DISK: Self = Self(512);
    /// The length of a CD's.
    pub const CD: Self = Self(2048);
    /// The greatest length.
    pub const MOST: Self = Self(4096);

    /// `None` for another number.
    #[must_use]
    pub const fn new(bytes: u32) -> Option<Self> {
        match bytes {
            512 | 1024 | 2048 | 4096 => Some(Self(bytes)),
            _ => None,
        }
    }

    /// The length.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The length in sectors of 512 bytes, as a power of two.
    #[must_use]
    pub const fn sectors_log2(self) -> u32 {
        (self.0 / 512).trailing_zeros()
    }

    /// How many whole blocks this many bytes are.
    #[must_use]
    pub const fn whole_blocks(self, bytes: u64) -> u64 {
        bytes.wrapping_shr(self.0.trailing_zeros())
    }

    /// The largest number of bytes up to this one that is a number of whole blocks.
    #[must_use]
    pub const fn round_down(self, bytes: u64) -> u64 {
        bytes & !(self.0 as u64).wrapping_sub(1)
    }
}

/// The medium in a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Media {
    /// The length of a block.
    pub block_len: BlockLen,
    /// The number of blocks. Zero if there is no medium.
    pub blocks: u64,
    /// Whether it can only be read.
    pub is_read_only: bool,
    /// Whether the drive's medium can be changed: a CD.
    pub is_removable: bool,
}

impl Media {
    /// The number of blocks in `len` bytes that are read from block `first` on.
    ///
    /// # Errors
    /// [`Error::NoMedium`]; [`Error::OutOfRange`] if it is not a number of whole blocks, or the medium does not have them.
    pub fn blocks_in(&self, first: u64, len: u64) -> Result<u64, Error> {
        if self.blocks == 0 {
            return Err(Error::NoMedium);
        }
        let blocks = self.block_len.whole_blocks(len);
        let is_there = first.checked_add(blocks).is_some_and(|end| end <= self.blocks);
        if is_there && self.block_len.round_down(len) == len { Ok(blocks) } else { Err(Error::OutOfRange) }
    }
}

/// A disk or a drive behind a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Which it is.
    pub address: UnitAddress,
    /// Its medium.
    pub media: Media,
}

/// Which disk or drive of a controller: what device paths and the host's boot order name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitAddress {
    /// The only one, of a virtio block device.
    Only,
    /// A target and its logical unit, of a SCSI controller.
    Scsi {
        /// The target.
        target: u16,
        /// The logical unit.
        lun: u16,
    },
    /// A namespace, of an NVMe controller.
    Namespace {
        /// Its number.
        id: u32,
        /// Its EUI-64, zeros without one.
        eui64: [u8; 8],
    },
    /// A port, of an AHCI controller.
    Port(u8),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_of_whole_blocks_that_the_medium_has() {
        let disk = |blocks| Media { block_len: BlockLen::DISK, blocks, is_read_only: true, is_removable: false };
        assert_eq!(disk(8).blocks_in(0, 4096), Ok(8));
        assert_eq!(disk(8).blocks_in(7, 512), Ok(1));
        assert_eq!(disk(8).blocks_in(8, 0), Ok(0));
        assert_eq!(disk(u64::MAX).blocks_in(u64::MAX - 1, 512), Ok(1));
        for (first, len) in [(0, 4608), (8, 512), (9, 0), (0, 511), (0, 1), (u64::MAX, 512)] {
            assert_eq!(disk(8).blocks_in(first, len), Err(Error::OutOfRange), "{first}, {len}");
        }
        assert_eq!(disk(u64::MAX).blocks_in(u64::MAX, 512), Err(Error::OutOfRange));
        assert_eq!(disk(0).blocks_in(0, 0), Err(Error::NoMedium));
    }
}
