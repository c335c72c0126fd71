//! What the interpreter needs of the machine: the host's files and guest memory to put them in.

use core::fmt;

use crate::addr::{Alignment, PhysAddr, PhysRange};

/// Where in guest memory a file belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zone {
    /// Anywhere below 4 GiB.
    High,
    /// 0xf0000 to 0xfffff, where an operating system scans for anchors.
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

/// The host's files, by their names in fw_cfg, and guest memory. The names are bytes as the script has them.
pub trait Host {
    /// Why the host or the memory failed.
    type Error: fmt::Display;

    /// The length of a file in bytes, or `None` when the host has no file of that name.
    fn len_of(&self, file: &[u8]) -> Option<u32>;

    /// Sets `len` bytes aside, which the operating system will keep its hands off, or gives `None` when the zone has no
    /// room for them. The range has that length.
    fn allocate(&mut self, len: u64, alignment: Alignment, zone: Zone) -> Option<PhysRange>;

    /// Loads all of a file into `to`, which has the file's length.
    ///
    /// # Errors
    /// When the host does not deliver the file or the memory cannot be written.
    fn load(&mut self, file: &[u8], to: PhysRange) -> Result<(), Self::Error>;

    /// Copies guest memory to `into`.
    ///
    /// # Errors
    /// When that memory cannot be read.
    fn read(&mut self, from: PhysAddr, into: &mut [u8]) -> Result<(), Self::Error>;

    /// Shows guest memory in place, in order, in one or more pieces.
    ///
    /// # Errors
    /// When that memory cannot be read.
    fn inspect(&mut self, range: PhysRange, show: &mut dyn FnMut(&[u8])) -> Result<(), Self::Error>;

    /// Copies `bytes` to guest memory.
    ///
    /// # Errors
    /// When that memory cannot be written.
    fn write(&mut self, to: PhysAddr, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Writes `bytes` into one of the host's files, from byte `offset` on. All of them lie inside the file.
    ///
    /// # Errors
    /// When the host does not take them, for instance because its fw_cfg device has no DMA.
    fn write_file(&mut self, file: &[u8], offset: u32, bytes: &[u8]) -> Result<(), Self::Error>;
}
