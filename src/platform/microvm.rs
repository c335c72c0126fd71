//! microvm: no chipset. If it has a PCI host bridge, that has no register at a known address.
//!
//! It is identified by its files, without reading a port: it describes its devices, and has neither the SMBIOS tables nor the
//! power management of a PC.

use super::board::Board;
use super::isa::{IsaDevices, Keyboard, Pic};
use crate::fw_cfg::FwCfg;
use crate::host;

/// QEMU's `microvm`.
pub struct Microvm;

impl Board for Microvm {
    fn name(&self) -> &'static str {
        "none (microvm)"
    }

    /// The interrupt controllers are only masked: KVM leaves them to QEMU on this machine, and each write is an exit.
    fn isa_devices(&self) -> IsaDevices {
        IsaDevices { bridge: false, keyboard: Keyboard::Absent, pic: Pic::Masked }
    }

    fn is_identified_by_files(&self, fw_cfg: &FwCfg) -> bool {
        !host::has_smbios(fw_cfg)
            && fw_cfg.host_kind().is_qemu()
            && host::describes_devices(fw_cfg)
            && !host::can_sleep(fw_cfg)
    }

    /// QEMU's tables for it list no TPM (`hw/i386/acpi-microvm.c`).
    fn may_have_unlisted_tpm(&self) -> bool {
        true
    }
}
