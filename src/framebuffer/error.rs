//! Why there is no framebuffer.

use crate::fw_cfg;
use crate::hal::MemoryError;

/// Why a display has no framebuffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The display has no memory-mapped registers.
    #[error("the display has no registers in its BAR 2; turn them on (QEMU: mmio=on)")]
    NoRegisters,
    /// The version register has this value, which is not a version of the Bochs interface.
    #[error("the display's version register reads {0:#06x}, not 0xb0cX as for the Bochs interface")]
    Version(u16),
    /// The display has this many bytes of memory, too few for any mode.
    #[error("the display has only {} KiB of memory; give it 1 MiB", .0 >> 10)]
    TooSmall(u64),
    /// The host's item has a length other than that of `struct RAMFBCfg`.
    #[error("the host's etc/ramfb has {seen} bytes, not {expected}")]
    ItemSize {
        /// Its length in bytes.
        seen: u32,
        /// The structure's.
        expected: usize,
    },
    /// There is no free memory of this many bytes.
    #[error("no room for a framebuffer of {} KiB below 4 GiB; add memory", .0 >> 10)]
    NoRoom(u32),
    /// The host did not accept the framebuffer's address.
    #[error(transparent)]
    FwCfg(#[from] fw_cfg::Error),
    /// The firmware cannot access the registers or the framebuffer.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}
