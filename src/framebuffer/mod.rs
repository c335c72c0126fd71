//! A linear framebuffer for the kernel's first messages: a mode is set on the display, and the kernel is told where the
//! picture is (`boot::ScreenInfo`). No option ROM runs.
//!
//! The first PCI display is taken if it has the Bochs registers (`dispi`); else the one that the host keeps in RAM, if
//! it has one (`ramfb`). Without either nothing is asked of the host.
//!
//! A failed boot shows its error there ([`Framebuffer::show`]).
//!
//! Assumed: the display decodes the addresses that PCI gave it. It is as after a reset, or has one of these modes already.
//! Left out: other displays (cirrus, qxl, VMware's, virtio-gpu without VGA), a second display, the display's own idea of a
//! good mode (EDID), text mode and VGA services.

mod dispi;
mod display;
pub mod font;
mod mode;
mod ramfb;
#[cfg(test)]
mod tests;
mod text;

use core::fmt;

pub use mode::Mode;

use crate::addr::PhysRange;
use crate::fw_cfg;
use crate::hal::{HostAccess, MemoryError};
use crate::pci::Devices;
use crate::state::Boot;
use display::Display;

/// A framebuffer that the display shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framebuffer {
    /// The video memory. The picture is at its start.
    pub memory: PhysRange,
    /// How the picture lies there.
    pub mode: Mode,
}

/// Why a display has no framebuffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The display has no memory-mapped registers.
    NoRegisters,
    /// The first register reads as this, which is no version of the Bochs interface.
    Version(u16),
    /// The display has this many bytes of memory, too few for any mode.
    TooSmall(u64),
    /// The host's item has this many bytes.
    ItemSize(u32),
    /// There is no free memory of this many bytes.
    NoRoom(u32),
    /// The host did not take the framebuffer's address.
    FwCfg(fw_cfg::Error),
    /// The registers or the framebuffer are where the firmware cannot reach them.
    Memory(MemoryError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRegisters => f.write_str("the display has no registers in its BAR 2; turn them on (QEMU: mmio=on)"),
            Self::Version(id) => {
                write!(f, "the display's registers begin with {id:#06x}, and the Bochs interface with 0xb0cX")
            }
            Self::TooSmall(bytes) => write!(f, "the display has only {} KiB of memory, give it 1 MiB", bytes >> 10),
            Self::ItemSize(bytes) => write!(f, "the host's etc/ramfb has {bytes} bytes, not {}", ramfb::ITEM_SIZE),
            Self::NoRoom(bytes) => write!(f, "no room for {} KiB of picture below 4 GiB; add memory", bytes >> 10),
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

/// Sets a mode on the first display of `devices`, or on the one in RAM. If that fails there is a warning, and the kernel starts
/// without.
pub fn set_up<M: HostAccess>(boot: &mut Boot<'_, M>, devices: &Devices) -> Option<Framebuffer> {
    set_up_on(boot, Display::first(devices).as_ref())
}

fn set_up_on<M: HostAccess>(boot: &mut Boot<'_, M>, pci: Option<&Display>) -> Option<Framebuffer> {
    let result = match (pci, boot.fw_cfg.find(ramfb::ITEM)) {
        (Some(display), _) if dispi::is_present(display) => dispi::set_up(boot.machine, display),
        (_, Some(item)) => ramfb::set_up(boot, item),
        (Some(display), None) => {
            log::info!("display {}: not one that gets a framebuffer", display.address);
            return None;
        }
        (None, None) => return None,
    };
    match result {
        Ok(framebuffer) => {
            let mode = framebuffer.mode;
            log::debug!("framebuffer: {}x{} in {}", mode.width(), mode.height(), framebuffer.memory);
            Some(framebuffer)
        }
        Err(error) => {
            log::warn!("no framebuffer: {error}");
            None
        }
    }
}
