//! Why there is no framebuffer.

use core::fmt;

use crate::fw_cfg;
use crate::hal::MemoryError;

/// Why a display has no framebuffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The display has no memory-mapped registers.
    NoRegisters,
    /// The version register has this value, which is not a version of the Bochs interface.
    Version(u16),
    /// The display has this many bytes of memory, too few for any mode.
    TooSmall(u64),
    /// The host's item has a length other than that of `struct RAMFBCfg`.
    ItemSize {
        /// Its length in bytes.
        seen: u32,
        /// The structure's.
        expected: usize,
    },
    /// There is no free memory of this many bytes.
    NoRoom(u32),
    /// The host did not accept the framebuffer's address.
    FwCfg(fw_cfg::Error),
    /// The firmware cannot access the registers or the framebuffer.
    Memory(MemoryError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRegisters => f.write_str("the display has no registers in its BAR 2; turn them on (QEMU: mmio=on)"),
            Self::Version(id) => {
                write!(f, "the display's version register reads {id:#06x}, not 0xb0cX as for the Bochs interface")
            }
            Self::TooSmall(bytes) => write!(f, "the display has only {} KiB of memory; give it 1 MiB", bytes >> 10),
            Self::ItemSize { seen, expected } => write!(f, "the host's etc/ramfb has {seen} bytes, not {expected}"),
            Self::NoRoom(bytes) => {
                write!(f, "no room for a framebuffer of {} KiB below 4 GiB; add memory", bytes >> 10)
            }
            Self::FwCfg(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {}

impl From<fw_cfg::Error> for Error {
    fn from(error: fw_cfg::Error) -> Self {
        Self::FwCfg(error)
    }
}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}
