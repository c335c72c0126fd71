//! Where the bytes of a part of what is to be booted are.

use super::Error;
use super::placement::place_initrd;
use crate::addr::{PhysAddr, PhysRange};
use crate::fw_cfg::{FwCfg, Item};
use crate::hal::Machine;
use crate::memory_map::MemoryMap;

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

    /// The same in memory, which is held in `map` if it was not there before.
    ///
    /// # Errors
    /// [`Error::InitrdDoesNotFit`]; else as [`Self::load`].
    pub fn into_memory<M: Machine>(
        self,
        machine: &mut M,
        fw_cfg: &FwCfg,
        map: &mut MemoryMap,
    ) -> Result<PhysRange, Error> {
        let place = match self.place() {
            Some(place) => place,
            None => place_initrd(PhysRange::LOW_4_GIB, self.len(), map)?,
        };
        self.load(machine, fw_cfg, place.start())
    }

    /// Reads the first bytes: as many as there are, or `into` has. The rest of `into` is set to zero.
    ///
    /// # Errors
    /// [`Error::FwCfg`] for memory that the firmware may not read.
    pub fn read<M: Machine>(&self, machine: &mut M, fw_cfg: &FwCfg, into: &mut [u8]) -> Result<(), Error> {
        let there = usize::try_from(self.len()).unwrap_or(usize::MAX).min(into.len());
        let (target, rest) = into.split_at_mut(there);
        rest.fill(0);
        match self {
            Self::Item(item) => fw_cfg.read(machine, *item, target),
            Self::Memory(range) => machine.read(range.start(), target)?,
            Self::Bytes(bytes) => target.copy_from_slice(bytes.get(..there).unwrap_or_default()),
        }
        Ok(())
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
