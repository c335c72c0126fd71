//! The commands of ATA, and what a disk says about itself.
//!
//! Sources: ATA/ATAPI Command Set 3 ("ACS"), Serial ATA 3.0, 10.3.4 (the message of a command to the device).

use crate::disk::{BlockLen, Media};

/// Commands (ACS 7.12, 7.17, 7.21).
const IDENTIFY: u8 = 0xec;
const PACKET: u8 = 0xa0;
const READ_DMA_EXT: u8 = 0x25;

/// The kind of message; it is a command.
const HOST_TO_DEVICE: u8 = 0x27;
const IS_COMMAND: u8 = 0x80;
/// Addresses are numbers of blocks.
const LBA: u8 = 0x40;
/// The data of a packet goes by DMA.
const PACKET_DMA: u8 = 1;

/// The length of what IDENTIFY DEVICE returns.
pub(super) const IDENTITY_LEN: usize = 512;
/// The bytes of a message with a command.
pub(super) const MESSAGE_LEN: usize = 20;

/// A command as the message to the device.
pub(super) type Message = [u8; MESSAGE_LEN];

/// Asks a disk what it is.
pub(super) const fn identify() -> Message {
    message(IDENTIFY, 0, 0, 0, 0)
}

/// Reads blocks, 1 to 65,535, from `first` on, which is below 2^48.
pub(super) const fn read(first: u64, blocks: u16) -> Message {
    message(READ_DMA_EXT, 0, first, blocks, LBA)
}

/// Has a drive execute the packet beside the message.
pub(super) const fn packet() -> Message {
    message(PACKET, PACKET_DMA, 0, 0, 0)
}

const fn message(command: u8, feature: u8, first: u64, count: u16, device: u8) -> Message {
    let ([a, b, c, d, e, f, ..], [low, high]) = (first.to_le_bytes(), count.to_le_bytes());
    [HOST_TO_DEVICE, IS_COMMAND, command, feature, a, b, c, device, d, e, f, 0, low, high, 0, 0, 0, 0, 0, 0]
}

/// Words of a disk's identity (ACS 7.12.7): capabilities, supported commands, blocks by 48 bits, length of a block in words, whether
/// that is there.
const CAPABILITIES: usize = 49;
const COMMANDS: usize = 83;
const BLOCKS: usize = 100;
const SIZES: usize = 106;
const BLOCK_WORDS: usize = 117;
/// Capabilities: DMA, and numbers of blocks as addresses.
const DMA_AND_LBA: u16 = 3 << 8;
/// Commands: numbers of 48 bits.
const LBA48: u16 = 1 << 10;
/// Sizes: blocks are longer than 512 bytes.
const LONG_BLOCKS: u16 = 1 << 12;

/// The disk that `identity` describes.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn parse(identity: &[u8; IDENTITY_LEN]) -> Result<Media, &'static str> {
    let words = identity.as_chunks::<2>().0;
    let word = |at: usize| words.get(at).map_or(0, |bytes| u16::from_le_bytes(*bytes));
    // Words that hold this pattern in their upper two bits are there.
    let valid = |at| Some(word(at)).filter(|value| value >> 14 == 1).unwrap_or(0);
    if word(CAPABILITIES) & DMA_AND_LBA != DMA_AND_LBA {
        return Err("it has no DMA");
    }
    if valid(COMMANDS) & LBA48 == 0 {
        return Err("it has no addresses of 48 bits");
    }
    let blocks = (0..4).rev().fold(0, |sum, at| sum << 16 | u64::from(word(BLOCKS.saturating_add(at))));
    if blocks == 0 || blocks > 1 << 48 {
        return Err("it does not say how long it is");
    }
    let block_len = if valid(SIZES) & LONG_BLOCKS == 0 {
        Some(BlockLen::DISK)
    } else {
        let words = u32::from(word(BLOCK_WORDS)) | u32::from(word(BLOCK_WORDS + 1)) << 16;
        words.checked_mul(2).and_then(BlockLen::new)
    };
    let block_len = block_len.ok_or("its blocks are not of 512 to 4096 bytes")?;
    Ok(Media { block_len, blocks, is_read_only: false, is_removable: false })
}
