//! q35: the 82G33 host bridge and the ICH9.

use super::board::{Board, Chipset, HOST_BRIDGE};
use super::isa::IsaDevices;
use super::{pirq, power};
use crate::addr::{PhysAddr, PhysRange, constant};
use crate::cpus;
use crate::fw_cfg::HostKind;
use crate::pci::{Address, Bar, BarKind, ChipsetFunction, ConfigSpace, EcamWindow, LongestAccess, Pin, PortRange};

/// Host bridge: base of the memory-mapped configuration space, low dword (82G33 data sheet, PCIEXBAR).
const PCIEXBAR: u8 = 0x60;
/// PCIEXBAR bit 0: enabled. Length bits 1 and 2 are zero: 256 MiB, 256 buses.
const PCIEXBAR_ENABLE: u32 = 1;
/// The window's address: QEMU's reset value of the register, so that its high dword need not be written.
const ECAM_BASE: u64 = 0xb000_0000;
const ECAM_SIZE: u64 = 256 << 20;

/// The LPC bridge of the ICH9.
const LPC: Address = constant(Address::new(0, 0x1f, 0));

/// The functions that every `q35` has in addition to the host bridge and the LPC bridge, all on the ICH9. SATA has ports to
/// access its registers, and the registers in memory (ICH9 data sheet, BAR and ABAR). The SMBus has ports (SMB_BASE). QEMU's have
/// no other BARs (`hw/ide/ich.c`, `hw/i2c/smbus_ich9.c`).
static FUNCTIONS: [ChipsetFunction; 2] = [
    ChipsetFunction {
        address: constant(Address::new(0, 0x1f, 2)),
        id: 0x2922_8086,
        class: 0x01_0601,
        pin: Some(Pin::A),
        bars: &[
            Bar { register: 4, kind: BarKind::Io, order: 5 },
            Bar { register: 5, kind: BarKind::Memory32 { prefetchable: false }, order: 12 },
        ],
    },
    ChipsetFunction {
        address: constant(Address::new(0, 0x1f, 3)),
        id: 0x2930_8086,
        class: 0x0c_0500,
        pin: Some(Pin::A),
        bars: &[Bar { register: 4, kind: BarKind::Io, order: 6 }],
    },
];
/// LPC: base of the power management registers (ICH9 data sheet, 13.1.11, PMBASE).
const PMBASE: u8 = 0x40;
/// LPC: ACPI control (13.1.12, ACPI_CNTL). Bit 7 enables the registers at PMBASE. The low bits are zero: the SCI is interrupt 9.
const ACPI_CNTL: u8 = 0x44;
const _: () = assert!(ACPI_CNTL == PMBASE + 4);
const ACPI_CNTL_ENABLE: u32 = 1 << 7;
/// LPC: routes of PIRQA to PIRQD (13.1.15).
const PIRQ_A: u8 = 0x60;
/// LPC: routes of PIRQE to PIRQH (13.1.17).
const PIRQ_E: u8 = 0x68;

/// PCI memory below 4 GiB: from the end of the configuration window to the I/O APIC.
const MEMORY: (u64, u64) = (ECAM_BASE + ECAM_SIZE, 0xfec0_0000);

/// Devices up to this one rotate over PIRQE to PIRQH; those of the ICH9 have fixed routes.
const LAST_ROTATED_DEVICE: u8 = 24;

/// The chipset.
static CHIPSET: Chipset = Chipset {
    host_bridge_id: 0x29c0_8086,
    isa_bridge: LPC,
    isa_bridge_id: 0x2918_8086,
    functions: &FUNCTIONS,
    // 82G33 data sheet.
    pam0: 0x90,
    // Above the ports of QEMU's devices: its VMware port is 0x5658.
    ports: constant(PortRange::new(0x6000, 0x1_0000)),
    // All except the mainboard's. A function that gets QEMU's VMware port replaces it.
    more_ports: constant(PortRange::new(0x1000, 0x1_0000)),
};

/// QEMU's `q35`, and StratoVirt.
pub struct Q35;

impl Board for Q35 {
    fn name(&self) -> &'static str {
        "Q35 and ICH9 (q35)"
    }

    fn isa_devices(&self) -> IsaDevices {
        IsaDevices::OF_CHIPSET
    }

    fn chipset(&self) -> Option<&'static Chipset> {
        Some(&CHIPSET)
    }

    /// Without the window, the guest has no extended configuration space. Through it, each further register takes one access.
    /// StratoVirt's supports dwords only.
    fn open_ecam(&self, ports: &mut dyn ConfigSpace, low_ram_end: PhysAddr, host: HostKind) -> Option<EcamWindow> {
        let range = PhysRange::new(PhysAddr::new(ECAM_BASE), ECAM_SIZE).filter(|range| low_ram_end <= range.start());
        let Some(range) = range else {
            crate::warn!(
                "RAM reaches {low_ram_end}: no room for PCI Express configuration space; put less RAM below 4 GiB \
                 (QEMU: -machine max-ram-below-4g=2G)"
            );
            return None;
        };
        ports.write32(HOST_BRIDGE, PCIEXBAR, ECAM_BASE as u32 | PCIEXBAR_ENABLE);
        let longest = if host.is_qemu() { LongestAccess::Qword } else { LongestAccess::Dword };
        Some(EcamWindow { range, longest })
    }

    fn program(&self, config: &mut dyn ConfigSpace, _host: HostKind) {
        // Without these two writes the guest has no ACPI: no power-off, no interrupt routing, no hot-plug. ACPI_CNTL is the dword
        // after PMBASE: one access writes both, if the window supports eight bytes.
        config.write64(LPC, PMBASE, u64::from(ACPI_CNTL_ENABLE) << 32 | u64::from(power::BASE));
        // For guests that do not route interrupts themselves.
        config.write32(LPC, PIRQ_A, pirq::ROUTES);
        config.write32(LPC, PIRQ_E, pirq::ROUTES);
    }

    fn pci_memory(&self, low_ram_end: PhysAddr) -> Option<PhysRange> {
        let start = PhysAddr::new(MEMORY.0).max(cpus::devices_from(low_ram_end));
        PhysRange::from_bounds(start, PhysAddr::new(MEMORY.1))
    }

    fn interrupt(&self, device: u8, pin: Pin) -> Option<u8> {
        // Pin A to PIRQA and so on: the reset value of the ICH9's DnnIR registers.
        let steps = if device <= LAST_ROTATED_DEVICE { device } else { 0 };
        Some(pirq::rotated(steps, pin.index()))
    }
}
