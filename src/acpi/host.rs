//! What the interpreter needs of the machine: the host's files, and guest memory for them.

use core::fmt;

use crate::addr::{Alignment, PhysAddr, PhysRange};

/// The zone of guest memory for a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zone {
    /// Anywhere below 4 GiB.
    High,
    /// 0xf0000 to 0xfffff, where an operating system scans for entry points of tables.
    FSegment,
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::High => "below 4 GiB",
            Self::FSegment => "in the F-segment",
        })
    }
}

/// The host's files, by their names in fw_cfg, and guest memory. The names are bytes, as in the script.
pub trait Host {
    /// Why the host or the memory failed.
    type Error: fmt::Display;

    /// The length of a file in bytes. `None` if the host has no file of this name.
    fn len_of(&self, file: &[u8]) -> Option<u32>;

    /// Reserves `len` bytes, which the operating system will not use. The range has that length. `None` if the zone has
    /// no room.
    fn allocate(&mut self, len: u64, alignment: Alignment, zone: Zone) -> Option<PhysRange>;

    /// Loads a whole file to `to`, which has the file's length.
    ///
    /// # Errors
    /// If the host does not deliver the file, or the memory cannot be written.
    fn load(&mut self, file: &[u8], to: PhysRange) -> Result<(), Self::Error>;

    /// Copies guest memory to `into`.
    ///
    /// # Errors
    /// If the memory cannot be read.
    fn read(&mut self, from: PhysAddr, into: &mut [u8]) -> Result<(), Self::Error>;

    /// Passes the bytes of guest memory to `show` in place, in order, in one or more pieces.
    ///
    /// # Errors
    /// If the memory cannot be read.
    fn inspect(&mut self, range: PhysRange, show: &mut dyn FnMut(&[u8])) -> Result<(), Self::Error>;

    /// Copies `bytes` to guest memory.
    ///
    /// # Errors
    /// If the memory cannot be written.
    fn write(&mut self, to: PhysAddr, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Writes `bytes` into one of the host's files, from byte `offset` on. All of them are inside the file.
    ///
    /// # Errors
    /// If the host does not accept them, for example because its fw_cfg device has no DMA.
    fn write_file(&mut self, file: &[u8], offset: u32, bytes: &[u8]) -> Result<(), Self::Error>;
}
