//! Boards without a known chipset: `isapc`, other machines without PCI, and host bridges of other hosts.
//!
//! A machine without PCI may or may not have a keyboard controller, unless the host describes its devices. So on `isapc` the
//! firmware checks for one. The firmware does not set up PCI under an unknown host bridge: every known host with one assigns
//! addresses itself.

use super::board::Board;
use super::isa::{IsaDevices, Keyboard, Pic};
use crate::fw_cfg::FwCfg;
use crate::host;

/// A board without a known chipset.
struct Unknown {
    name: &'static str,
    keyboard: Keyboard,
    is_foreign: bool,
}

impl Board for Unknown {
    fn name(&self) -> &'static str {
        self.name
    }

    fn isa_devices(&self) -> IsaDevices {
        IsaDevices { bridge: false, keyboard: self.keyboard, pic: Pic::IfPresent }
    }

    fn is_foreign(&self) -> bool {
        self.is_foreign
    }
}

/// QEMU's `isapc`, and any other without PCI whose host does not describe its devices.
pub static ISAPC: &dyn Board =
    &Unknown { name: "none, no PCI (isapc)", keyboard: Keyboard::IfPresent, is_foreign: false };

/// No PCI, and a host that describes its devices.
pub static NO_PCI: &dyn Board = &Unknown { name: "none, no PCI", keyboard: Keyboard::Absent, is_foreign: false };

/// A host bridge that the firmware does not know.
pub static FOREIGN: &dyn Board = &Unknown { name: "unknown", keyboard: Keyboard::Absent, is_foreign: true };

/// The board of a machine without PCI.
pub(super) fn without_pci(fw_cfg: &FwCfg) -> &'static dyn Board {
    if host::describes_devices(fw_cfg) { NO_PCI } else { ISAPC }
}
