//! What goes wrong with a disk.

use crate::hal::MemoryError;

/// A disk that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The firmware may not access the memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The device has not answered before the deadline.
    #[error("the device does not answer")]
    Timeout,
    /// The device says that it failed; the number is the status in its own terms.
    #[error("the device reports an error (status {0:#x})")]
    Refused(u32),
    /// The device does what its specification does not allow; the text says what.
    #[error("the device breaks its specification: {0}")]
    Broken(&'static str),
    /// The device or its medium is of a kind that the driver does not know; the text says which.
    #[error("not supported: {0}")]
    Unsupported(&'static str),
    /// The blocks are beyond the last one, or a length is not a multiple of the block's.
    #[error("blocks that the disk does not have")]
    OutOfRange,
    /// The drive is empty.
    #[error("no medium is in the drive")]
    NoMedium,
    /// The firmware's heap or the memory for the driver is full.
    #[error("no memory is left for the disk")]
    NoRoom,
}
