//! What can go wrong with fw_cfg.

use super::{Key, SIGNATURE};
use crate::hal::MemoryError;

/// Why an item was not transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The signature item does not read as "QEMU".
    #[error(
        "no fw_cfg device: its signature reads as {:#010x}, not as {:#010x} (\"QEMU\"); turn it on in the host, or \
         use a machine that has one, such as QEMU's q35 and pc",
        u32::from_be_bytes(*seen),
        u32::from_be_bytes(SIGNATURE)
    )]
    NoDevice {
        /// The bytes that were read.
        seen: [u8; 4],
    },
    /// The device set the error bit of the DMA descriptor.
    #[error("fw_cfg: the host refused the transfer of item {key}, control word {control:#x}")]
    Refused {
        /// The item.
        key: Key,
        /// The control word after the transfer.
        control: u32,
    },
    /// The device did not finish a DMA transfer before the deadline.
    #[error(
        "fw_cfg: the transfer of item {key} did not end, control word {control:#x}; turn its DMA off (QEMU: -global \
         fw_cfg.dma_enabled=off)"
    )]
    Timeout {
        /// The item.
        key: Key,
        /// The control word at the end of the wait.
        control: u32,
    },
    /// An item is longer than its limit.
    #[error("fw_cfg: item {key} has {len} bytes, and the limit is {limit}")]
    TooLarge {
        /// The item.
        key: Key,
        /// Its length in bytes.
        len: u32,
        /// The limit in bytes.
        limit: u32,
    },
    /// The firmware's heap has no room for an item.
    #[error("fw_cfg: the firmware's heap has no room for the {len} bytes of item {key}")]
    HeapFull {
        /// The item.
        key: Key,
        /// Its length in bytes.
        len: u32,
    },
    /// The directory lists more files than the limit.
    #[error("fw_cfg: the host lists {files} files, and the limit is {limit}; give it fewer")]
    TooManyFiles {
        /// How many it lists.
        files: u32,
        /// The limit.
        limit: u32,
    },
    /// The host offers no way to write this range of the item.
    #[error("fw_cfg: no way to write {len} bytes at {offset} of item {key}: it needs QEMU's DMA and a writable item")]
    NotWritable {
        /// The item.
        key: Key,
        /// First byte.
        offset: u32,
        /// Number of bytes.
        len: usize,
    },
    /// There is no item of this name.
    #[error("fw_cfg: the host has no item of that name")]
    Absent,
    /// The firmware may not write at the item's destination.
    #[error("fw_cfg: {0}")]
    Memory(#[from] MemoryError),
}
