//! The bytes of a file to boot, or of a part of one, wherever they are.

use alloc::vec::Vec;

use zerocopy::FromZeros;

use super::error::Error;
use crate::addr::{PhysAddr, PhysRange};
use crate::fw_cfg::{self, FwCfg, Item, Key};
use crate::hal::HostAccess;

/// Where the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blob<'a> {
    /// In an item of fw_cfg, to be transferred.
    Item {
        /// The item, which ends with the bytes.
        item: Item,
        /// The offset of the first byte in the item.
        offset: u32,
    },
    /// In memory, where the host put them.
    Memory(PhysRange),
    /// In the firmware's own memory.
    Bytes(&'a [u8]),
}

impl Default for Blob<'_> {
    fn default() -> Self {
        Self::Bytes(&[])
    }
}

impl From<Item> for Blob<'_> {
    fn from(item: Item) -> Self {
        Self::Item { item, offset: 0 }
    }
}

impl Blob<'_> {
    /// The length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        match self {
            Self::Item { item, offset } => item.len().saturating_sub(*offset) as u64,
            Self::Memory(range) => range.len(),
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Whether there are no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The range that the host has put them in.
    #[must_use]
    pub const fn place(&self) -> Option<PhysRange> {
        match self {
            Self::Memory(range) => Some(*range),
            Self::Item { .. } | Self::Bytes(_) => None,
        }
    }

    /// The first `len` bytes, or as many as there are, and the rest.
    #[must_use]
    pub fn split_at(self, len: u32) -> (Self, Self) {
        match self {
            Self::Item { item, offset } => {
                let at = offset.saturating_add(len).min(item.len());
                (Self::Item { item: Item::new(item.key(), at), offset }, Self::Item { item, offset: at })
            }
            Self::Memory(range) => {
                let (first, rest) = range.split_at(len.into());
                (Self::Memory(first), Self::Memory(rest))
            }
            Self::Bytes(bytes) => {
                let (first, rest) = bytes.split_at_checked(len as usize).unwrap_or((bytes, &[]));
                (Self::Bytes(first), Self::Bytes(rest))
            }
        }
    }

    /// Reads all bytes.
    ///
    /// # Errors
    /// [`Error::FwCfg`] if the firmware may not read the memory, or if the heap is full.
    pub fn read<M: HostAccess>(&self, machine: &mut M, fw_cfg: &FwCfg) -> Result<Vec<u8>, Error> {
        let len = u32::try_from(self.len()).unwrap_or(u32::MAX);
        if let Self::Item { item, offset: 0 } = self {
            return Ok(fw_cfg.read_all(machine, *item, len)?);
        }
        let full = fw_cfg::Error::HeapFull { key: Key::KERNEL_DATA, len };
        let mut bytes = u8::new_vec_zeroed(len as usize).map_err(|_| full)?;
        match self {
            Self::Item { item, offset } => fw_cfg.read_at(machine, *item, *offset, &mut bytes),
            Self::Memory(range) => machine.read(range.start(), &mut bytes)?,
            Self::Bytes(source) => bytes.iter_mut().zip(*source).for_each(|(byte, read)| *byte = *read),
        }
        Ok(bytes)
    }

    /// Copies the bytes to `to`, unless they are there already. Returns the range that they fill.
    ///
    /// # Errors
    /// [`Error::FwCfg`] if the firmware may not access the memory.
    #[inline(never)]
    pub fn load<M: HostAccess>(&self, machine: &mut M, fw_cfg: &FwCfg, to: PhysAddr) -> Result<PhysRange, Error> {
        match self {
            Self::Item { item, offset: 0 } => return Ok(fw_cfg.load(machine, *item, to)?),
            Self::Item { item, offset } => return Ok(fw_cfg.load_from(machine, *item, *offset, to)?),
            Self::Memory(range) if range.is_empty() || range.start() == to => {}
            Self::Memory(range) => machine.copy(*range, to)?,
            Self::Bytes([]) => {}
            Self::Bytes(bytes) => machine.write(to, bytes)?,
        }
        // The range was accessed, so it does not wrap.
        Ok(PhysRange::new(to, self.len()).unwrap_or(PhysRange::empty_at(to)))
    }
}

#[cfg(test)]
mod tests;
