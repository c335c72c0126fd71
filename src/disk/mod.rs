//! Disks: the devices that read blocks, and what is on them.
//!
//! A [`Controller`] is one device with its driver; a [`Unit`] is a disk or a drive behind it. [`Blocks`] is how code reads that
//! parses what is on a disk: any bytes, from any position on.
//!
//! Nothing here is used by a boot that has a kernel.
//!
//! Left out: writing.

pub mod ahci;
pub mod cache;
pub mod controllers;
mod error;
pub mod fat;
mod media;
pub mod nvme;
pub mod partition;
pub mod scsi;
pub mod virtio;
mod wait;

pub use self::cache::{Disk, Extent};
pub use self::error::Error;
pub use self::media::{BlockLen, Media, Unit, UnitAddress};
use crate::addr::PhysRange;
use crate::hal::{BusMaster, Clock};

/// A device that reads blocks into memory, with its driver.
///
/// Each function waits until the device has answered or a deadline has passed.
pub trait Controller<M: BusMaster + Clock> {
    /// Shows the disks and drives behind it, each with its medium, in the order in which a PC's firmware tries them.
    ///
    /// # Errors
    /// [`Error`] if the controller does not answer. A unit that does not answer is left out, with a warning.
    fn units(&mut self, machine: &mut M, found: &mut dyn FnMut(Unit)) -> Result<(), Error>;

    /// Reads the blocks from `first` on into all of `into`, whose length is a multiple of the block's, at any address.
    ///
    /// # Errors
    /// [`Error`]. What the memory has is then unknown. After [`Error::Timeout`] the device may still write it, and the controller is
    /// not used again.
    fn read(&mut self, machine: &mut M, unit: &Unit, first: u64, into: PhysRange) -> Result<(), Error>;

    /// Makes the device quiet: it is reset, and accesses no memory from now on.
    ///
    /// # Errors
    /// [`Error`] if it does not acknowledge that, with a warning. Then it may access memory at any time.
    fn stop(&mut self, machine: &mut M) -> Result<(), Error>;
}

/// A disk or a part of one, for code that reads tables and file systems.
pub trait Blocks {
    /// The length of a block.
    fn block_len(&self) -> BlockLen;

    /// The number of blocks.
    fn blocks(&self) -> u64;

    /// Reads bytes from byte `at` on.
    ///
    /// # Errors
    /// [`Error`]; [`Error::OutOfRange`] beyond the last block.
    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Error>;

    /// Puts the bytes from byte `at` on into all of `into`.
    ///
    /// # Errors
    /// As for [`Self::read`].
    fn load(&mut self, at: u64, into: PhysRange) -> Result<(), Error>;
}
