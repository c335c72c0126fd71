//! Where the bytes of a part of what is to be booted are.

use alloc::vec::Vec;

use zerocopy::FromZeros;

use super::Error;
use crate::addr::{PhysAddr, PhysRange};
use crate::fw_cfg::{self, FwCfg, Item, Key};
use crate::hal::Machine;

/// The bytes of a kernel file, an initrd or a command line, or of a piece of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The host's, to be transferred.
    Item(Item),
    /// In memory, where the host put it.
    Memory(PhysRange),
    /// In the firmware's own memory.
    Bytes(&'a [u8]),
}

impl Part<'_> {
    /// The length in bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        match self {
            Self::Item(item) => item.len() as u64,
            Self::Memory(range) => range.len(),
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where it is in memory already.
    #[must_use]
    pub const fn place(&self) -> Option<PhysRange> {
        match self {
            Self::Memory(range) => Some(*range),
            Self::Item(_) | Self::Bytes(_) => None,
        }
    }

    /// Reads the first `len` bytes, or as many as there are.
    ///
    /// # Errors
    /// [`Error::FwCfg`] for memory that the firmware may not read, and when the heap has no room.
    pub fn read<M: Machine>(&self, machine: &mut M, fw_cfg: &FwCfg, len: u32) -> Result<Vec<u8>, Error> {
        let len = u32::try_from(self.len()).map_or(len, |there| there.min(len));
        if let Self::Item(item) = self {
            return Ok(fw_cfg.read_all(machine, Item::new(item.key(), len), len)?);
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

    /// Puts it to `to`, unless it is there, and gives the range it fills.
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
}
