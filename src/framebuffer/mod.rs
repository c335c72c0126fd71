//! A linear framebuffer for the kernel's first messages. The firmware sets a mode on the display, and passes the
//! framebuffer's address to the kernel (`boot::ScreenInfo`). No option ROM runs.
//!
//! The firmware uses the first PCI display if it has the Bochs registers (`dispi`), else the host's framebuffer in RAM
//! if there is one (`ramfb`). Without either, the host is asked nothing.
//!
//! A failed boot shows its error there ([`Framebuffer::show`]).
//!
//! Assumed: the display decodes the addresses that PCI assigned. It is in its reset state, or has one of these modes
//! already. Left out: other displays (cirrus, qxl, VMware's, virtio-gpu without VGA), a second display, the display's
//! preferred mode (its EDID is only passed on), text mode and VGA services.

mod dispi;
mod display;
mod error;
pub mod font;
mod mode;
mod ramfb;
#[cfg(test)]
mod tests;
mod text;

pub use dispi::EDID_LEN;
pub use error::Error;
pub use mode::{DisplayFunction, Framebuffer, Mode};

use crate::hal::{HostAccess, Memory};
use crate::pci::Devices;
use crate::state::Boot;
use display::Display;

/// Sets a mode on the first display of `devices`, or on the one in RAM. A failure is a warning, and the kernel starts
/// without a framebuffer.
pub fn set_up<M: HostAccess>(boot: &mut Boot<'_, M>, devices: &Devices) -> Option<Framebuffer> {
    set_up_on(boot, Display::first(devices).as_ref())
}

impl Framebuffer {
    /// The EDID of the display, if it has one.
    pub fn edid(&self, memory: &mut impl Memory) -> Option<[u8; EDID_LEN]> {
        dispi::edid(memory, self.function?.registers)
    }
}

fn set_up_on<M: HostAccess>(boot: &mut Boot<'_, M>, pci: Option<&Display>) -> Option<Framebuffer> {
    let result = match (pci, boot.fw_cfg.find(ramfb::ITEM)) {
        (Some(display), _) if dispi::is_present(display) => dispi::set_up(boot.machine, display),
        (_, Some(item)) => ramfb::set_up(boot, item),
        (Some(display), None) => {
            crate::info!("display {}: it has no framebuffer that the firmware can set up", display.address);
            return None;
        }
        (None, None) => return None,
    };
    match result {
        Ok(framebuffer) => {
            let mode = framebuffer.mode;
            crate::debug!("framebuffer: {}x{} in {}", mode.width(), mode.height(), framebuffer.memory);
            Some(framebuffer)
        }
        Err(error) => {
            crate::warn!("no framebuffer: {error}");
            None
        }
    }
}
