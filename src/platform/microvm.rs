//! microvm: no chipset. With `pcie=on` it has a PCI host bridge without registers, which is set up for boots from disk only.
//!
//! It is identified by its files, without reading a port: it describes its devices, and has neither the SMBIOS tables nor the
//! power management of a PC.

use super::board::{Board, HOST_BRIDGE, ID};
use super::isa::{IsaDevices, Keyboard, Pic};
use crate::addr::{PhysAddr, PhysRange, constant};
use crate::fw_cfg::{FwCfg, HostKind};
use crate::hal::{Memory, Ports};
use crate::host;
use crate::pci::{
    self, Apertures, ConfigAccess, Devices, EcamWindow, HostBridge, LongestAccess, LowApertures, PortRange,
};

/// The host bridge's vendor and device, the vendor in the low half (QEMU `docs/specs/pci-ids`).
const HOST_BRIDGE_ID: u32 = 0x0008_1b36;
/// Its configuration space and its memory for functions. RAM below 4 GiB ends before them (QEMU `include/hw/i386/microvm.h`,
/// `PCIE_ECAM_BASE` and `PCIE_MMIO_BASE`).
const CONFIGURATION: PhysRange = constant(PhysRange::new(PhysAddr::new(0xe000_0000), 256 << 20));
const MEMORY: PhysRange = constant(PhysRange::new(PhysAddr::new(0xc000_0000), 512 << 20));

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

/// Assigns addresses to the PCI functions of a microvm, of which it has some with `pcie=on` only. Without, one register is read.
///
/// Only a boot from disk needs this: an operating system assigns the addresses itself, for which it has the ACPI tables.
#[cold]
pub fn set_up_pci(machine: &mut (impl Memory + Ports)) -> Devices {
    let access = ConfigAccess::Ecam(EcamWindow { range: CONFIGURATION, longest: LongestAccess::Qword });
    if access.with(machine, |config| config.read32(HOST_BRIDGE, ID)) != HOST_BRIDGE_ID {
        return Devices::default();
    }
    let low = LowApertures::new(PortRange::NONE, MEMORY);
    let host = HostBridge {
        extra_roots: 0,
        chipset: Microvm.chipset_functions(HostKind::Qemu),
        low,
        apertures: &|| Apertures::new(low, None, 0),
        routing: &|_, _| None,
    };
    access.with(machine, |config| pci::configure(config, access, &host))
}
