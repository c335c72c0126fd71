//! A board: what differs from one kind of machine to another.
//!
//! Each board is a file beside this one with a type that implements [`Board`]. A new one is such a file, and a line in
//! [`super::detect`].

use core::fmt;

use super::isa::IsaDevices;
use crate::addr::{PhysAddr, PhysRange, constant};
use crate::fw_cfg::{FwCfg, HostKind};
use crate::pci::{Address, ChipsetFunction, ChipsetFunctions, ConfigSpace, EcamWindow, Pin, PortRange};

/// 00:00.0, where the host bridge is.
pub(super) const HOST_BRIDGE: Address = constant(Address::new(0, 0, 0));

/// Vendor and device (the vendor is the low half).
pub(super) const ID: u8 = 0x00;

/// A kind of machine. What is not said of one is so on a board that the firmware knows nothing of.
pub trait Board: Sync {
    /// What it is, for the log.
    fn name(&self) -> &'static str;

    /// The devices of a PC/AT that it has.
    fn isa_devices(&self) -> IsaDevices;

    /// Its chipset, if it has one that the firmware programs.
    fn chipset(&self) -> Option<&'static Chipset> {
        None
    }

    /// Whether the host's files alone say that this is the board. Then no register is read to find out.
    fn is_told_by_files(&self, _fw_cfg: &FwCfg) -> bool {
        false
    }

    /// Opens the window of memory-mapped configuration space, through the `ports`. RAM below 4 GiB ends at `low_ram_end`.
    /// `None` where there is no such window, or no room for it.
    fn open_ecam(&self, _ports: &mut dyn ConfigSpace, _low_ram_end: PhysAddr, _host: HostKind) -> Option<EcamWindow> {
        None
    }

    /// Sets the chipset's registers in configuration space: power management, ACPI and interrupt routing. On a host other
    /// than QEMU a part that may be missing is looked for first.
    fn program(&self, _config: &mut dyn ConfigSpace, _host: HostKind) {}

    /// The memory below 4 GiB that PCI functions may have. RAM below 4 GiB ends at `low_ram_end`. `None` where there is no
    /// room, or the firmware does not set up PCI.
    fn pci_memory(&self, _low_ram_end: PhysAddr) -> Option<PhysRange> {
        None
    }

    /// The interrupt of `pin` of a device on bus 0, as the routing registers have it. `None` where nothing is routed.
    fn interrupt(&self, _device: u8, _pin: Pin) -> Option<u8> {
        None
    }

    /// The chipset's own functions, for a scan.
    fn chipset_functions(&self, host: HostKind) -> ChipsetFunctions<'static> {
        let known = self.chipset();
        ChipsetFunctions {
            host_bridge: Some(HOST_BRIDGE),
            isa_bridge: known.map(|chipset| chipset.isa_bridge),
            functions: known.map_or(&[], |chipset| chipset.functions),
            is_qemu: host.is_qemu(),
        }
    }

    /// Whether the host describes all of the board itself if it likes, as it is none of QEMU's.
    fn is_foreign(&self) -> bool {
        false
    }

    /// Whether it may have a TPM that neither a file nor the ACPI tables tell of.
    fn may_have_unlisted_tpm(&self) -> bool {
        false
    }
}

/// What is where on a chipset that the firmware programs.
#[derive(Debug)]
pub struct Chipset {
    /// The host bridge's vendor and device (the vendor is the low half).
    pub host_bridge_id: u32,
    /// The ISA bridge, function 0 of its device.
    pub isa_bridge: Address,
    /// Its vendor and device.
    pub isa_bridge_id: u32,
    /// The chipset's other functions on bus 0, which every machine of the kind has.
    pub functions: &'static [ChipsetFunction],
    /// The host bridge's PAM0 register: what 0xf0000 to 0xfffff is.
    pub pam0: u8,
    /// The I/O ports that PCI functions may have.
    pub ports: PortRange,
    /// The same when those do not suffice.
    pub more_ports: PortRange,
}

impl PartialEq for dyn Board + '_ {
    /// Each has a name of its own.
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl fmt::Debug for dyn Board + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
