//! A board: what differs between the kinds of machines.
//!
//! Each board is a file in this folder with a type that implements [`Board`]. To add one, add such a file and a line in
//! [`super::detect`].

use core::fmt;

use super::isa::IsaDevices;
use crate::addr::{PhysAddr, PhysRange, constant};
use crate::fw_cfg::{FwCfg, HostKind};
use crate::pci::{Address, ChipsetFunction, ChipsetFunctions, ConfigSpace, EcamWindow, Pin, PortRange};

/// 00:00.0, the host bridge.
pub(super) const HOST_BRIDGE: Address = constant(Address::new(0, 0, 0));

/// Vendor and device (the vendor is the low half).
pub(super) const ID: u8 = 0x00;

/// A kind of machine. The defaults are those of a board that the firmware does not know.
pub trait Board: Sync {
    /// Its name, for the log.
    fn name(&self) -> &'static str;

    /// Its PC/AT devices.
    fn isa_devices(&self) -> IsaDevices;

    /// Its chipset, if it has one that the firmware programs.
    fn chipset(&self) -> Option<&'static Chipset> {
        None
    }

    /// Whether the host's files alone identify this board. Then no register is read to detect it.
    fn is_identified_by_files(&self, _fw_cfg: &FwCfg) -> bool {
        false
    }

    /// Opens the window of memory-mapped configuration space, through the `ports`. RAM below 4 GiB ends at `low_ram_end`. `None`
    /// if there is no such window, or no room for it.
    fn open_ecam(&self, _ports: &mut dyn ConfigSpace, _low_ram_end: PhysAddr, _host: HostKind) -> Option<EcamWindow> {
        None
    }

    /// Sets the chipset's registers in configuration space: power management, ACPI and interrupt routing. On hosts other than
    /// QEMU, checks first that an optional function exists.
    fn program(&self, _config: &mut dyn ConfigSpace, _host: HostKind) {}

    /// The aperture for PCI memory below 4 GiB. RAM below 4 GiB ends at `low_ram_end`. `None` if there is no room, or the
    /// firmware does not set up PCI.
    fn pci_memory(&self, _low_ram_end: PhysAddr) -> Option<PhysRange> {
        None
    }

    /// The interrupt of `pin` of a device on bus 0, by the routing registers. `None` if nothing is routed.
    fn interrupt(&self, _device: u8, _pin: Pin) -> Option<u8> {
        None
    }

    /// The chipset functions, for a scan.
    fn chipset_functions(&self, host: HostKind) -> ChipsetFunctions<'static> {
        let known = self.chipset();
        ChipsetFunctions {
            host_bridge: Some(HOST_BRIDGE),
            isa_bridge: known.map(|chipset| chipset.isa_bridge),
            functions: known.map_or(&[], |chipset| chipset.functions),
            is_qemu: host.is_qemu(),
        }
    }

    /// Whether the board is not QEMU's, so that its host may describe all of it.
    fn is_foreign(&self) -> bool {
        false
    }

    /// Whether it may have a TPM that neither a file nor the ACPI tables describe.
    fn may_have_unlisted_tpm(&self) -> bool {
        false
    }
}

/// The addresses of a chipset that the firmware programs.
#[derive(Debug)]
pub struct Chipset {
    /// The host bridge's vendor and device (the vendor is the low half).
    pub host_bridge_id: u32,
    /// The ISA bridge, function 0 of its device.
    pub isa_bridge: Address,
    /// Its vendor and device.
    pub isa_bridge_id: u32,
    /// The other chipset functions on bus 0, which every machine of this kind has.
    pub functions: &'static [ChipsetFunction],
    /// The offset of the host bridge's PAM0 register, which maps 0xf0000 to 0xfffff.
    pub pam0: u8,
    /// The I/O ports for PCI functions.
    pub ports: PortRange,
    /// The I/O ports for PCI functions if `ports` does not suffice.
    pub more_ports: PortRange,
}

impl PartialEq for dyn Board + '_ {
    /// The names are unique.
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl fmt::Debug for dyn Board + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
