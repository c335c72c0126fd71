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
mod error;
pub mod font;
mod mode;
mod ramfb;
#[cfg(test)]
mod tests;
mod text;

pub use error::Error;
pub use mode::{Framebuffer, Mode};

use crate::hal::HostAccess;
use crate::pci::Devices;
use crate::state::Boot;
use display::Display;

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
