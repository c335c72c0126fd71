//! The bytes of a file that is booted, or of a piece of one, wherever they are.

use alloc::vec::Vec;

use zerocopy::FromZeros;

use super::error::Error;
use crate::addr::{PhysAddr, PhysRange};
use crate::fw_cfg::{self, FwCfg, Item, Key};
use crate::hal::Machine;

/// Where the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blob<'a> {
    /// In an item of fw_cfg, to be transferred.
    Item(Item),
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

impl Blob<'_> {
    /// The length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        match self {
            Self::Item(item) => item.len() as u64,
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
            Self::Item(_) | Self::Bytes(_) => None,
        }
    }

    /// The first `len` bytes, or as many as there are.
    #[must_use]
    pub fn first(&self, len: u32) -> Self {
        match *self {
            Self::Item(item) => Self::Item(Item::new(item.key(), item.len().min(len))),
            Self::Memory(range) => Self::Memory(range.split_at(len.into()).0),
            Self::Bytes(bytes) => Self::Bytes(bytes.get(..len as usize).unwrap_or(bytes)),
        }
    }

    /// Reads all of the bytes.
    ///
    /// # Errors
    /// [`Error::FwCfg`] for memory that the firmware may not read, and when the heap has no room.
    pub fn read<M: Machine>(&self, machine: &mut M, fw_cfg: &FwCfg) -> Result<Vec<u8>, Error> {
        let len = u32::try_from(self.len()).unwrap_or(u32::MAX);
        if let Self::Item(item) = self {
            return Ok(fw_cfg.read_all(machine, *item, len)?);
        }
        let full = fw_cfg::Error::HeapFull { key: Key::KERNEL_DATA, len };
        let mut bytes = u8::new_vec_zeroed(len as usize).map_err(|_| full)?;
        match self {
            Self::Item(_) => {}
            Self::Memory(range) => machine.read(range.start(), &mut bytes)?,
            Self::Bytes(source) => bytes.iter_mut().zip(*source).for_each(|(byte, read)| *byte = *read),
        }
        Ok(bytes)
    }

    /// Puts the bytes to `to`, unless they are there, and returns the range that they fill.
    ///
    /// # Errors
    /// [`Error::FwCfg`] for memory that the firmware may not access.
    #[inline(never)]
    pub fn load<M: Machine>(&self, machine: &mut M, fw_cfg: &FwCfg, to: PhysAddr) -> Result<PhysRange, Error> {
        match self {
            Self::Item(item) => return Ok(fw_cfg.load(machine, *item, to)?),
            Self::Memory(range) if range.is_empty() || range.start() == to => {}
            Self::Memory(range) => machine.copy(*range, to)?,
            Self::Bytes([]) => {}
            Self::Bytes(bytes) => machine.write(to, bytes)?,
        }
        // What was accessed does not wrap.
        Ok(PhysRange::new(to, self.len()).unwrap_or(PhysRange::empty_at(to)))
    }

    /// As [`Self::load`], of the bytes from `offset` on.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn load_from<M: Machine>(
        &self,
        machine: &mut M,
        fw_cfg: &FwCfg,
        offset: u32,
        to: PhysAddr,
    ) -> Result<PhysRange, Error> {
        match *self {
            Self::Item(item) => Ok(fw_cfg.load_from(machine, item, offset, to)?),
            Self::Memory(range) => Self::Memory(range.split_at(offset.into()).1).load(machine, fw_cfg, to),
            Self::Bytes(bytes) => {
                Self::Bytes(bytes.get(offset as usize..).unwrap_or_default()).load(machine, fw_cfg, to)
            }
        }
    }
}
