//! q35: the 82G33 host bridge and the ICH9.

use super::{HOST_BRIDGE, PIRQ_INTERRUPTS, PIRQ_ROUTES, PM_BASE, a20, address, keyboard, rotated, set_level_triggered};
use crate::addr::{PhysAddr, PhysRange, constant};
use crate::cpus;
use crate::fw_cfg::HostKind;
use crate::hal::{Memory, Ports};
use crate::pci::{
    Address, Bar, BarKind, ConfigSpace, EcamWindow, LongestAccess, OwnFunction, Pin, PortConfig, PortRange,
};

/// Host bridge: base of the memory-mapped configuration space, low dword (82G33 data sheet, PCIEXBAR).
const PCIEXBAR: u8 = 0x60;
/// PCIEXBAR bit 0: on. Length bits 1 and 2 at zero: 256 MiB, 256 buses.
const PCIEXBAR_ENABLE: u32 = 1;
/// Where the window goes: QEMU's reset value of the register, so that its high dword need not be written.
const ECAM_BASE: u64 = 0xb000_0000;
const ECAM_SIZE: u64 = 256 << 20;
/// Host bridge: PAM0 (82G33 data sheet).
pub const PAM0: u8 = 0x90;

/// The LPC bridge of the ICH9.
pub const LPC: Address = address(0x1f, 0);
/// Its vendor and device.
pub const LPC_ID: u32 = 0x2918_8086;
/// The functions that every `q35` has beside the host bridge and the LPC bridge, all on the ICH9. SATA has ports to reach its
/// registers by, and the registers in memory (ICH9 data sheet, BAR and ABAR); the SMBus has ports (SMB_BASE). QEMU's have no
/// others (`hw/ide/ich.c`, `hw/i2c/smbus_ich9.c`).
pub const FUNCTIONS: [OwnFunction; 2] = [
    OwnFunction {
        address: address(0x1f, 2),
        id: 0x2922_8086,
        class: 0x01_0601,
        pin: Some(Pin::A),
        bars: &[
            Bar { register: 4, kind: BarKind::Io, order: 5 },
            Bar { register: 5, kind: BarKind::Memory32 { prefetchable: false }, order: 12 },
        ],
    },
    OwnFunction {
        address: address(0x1f, 3),
        id: 0x2930_8086,
        class: 0x0c_0500,
        pin: Some(Pin::A),
        bars: &[Bar { register: 4, kind: BarKind::Io, order: 6 }],
    },
];
/// LPC: base of the power management registers (ICH9 data sheet, 13.1.11, PMBASE).
const PMBASE: u8 = 0x40;
/// LPC: ACPI control (13.1.12, ACPI_CNTL); bit 7 turns the registers at PMBASE on. The low bits at zero give the SCI
/// interrupt 9.
const ACPI_CNTL: u8 = 0x44;
const _: () = assert!(ACPI_CNTL == PMBASE + 4);
const ACPI_CNTL_ENABLE: u32 = 1 << 7;
/// LPC: routes of PIRQA to PIRQD (13.1.15).
const PIRQ_A: u8 = 0x60;
/// LPC: routes of PIRQE to PIRQH (13.1.17).
const PIRQ_E: u8 = 0x68;

/// PCI memory below 4 GiB: from the end of the configuration window to the I/O APIC.
const LOW_WINDOW: (u64, u64) = (ECAM_BASE + ECAM_SIZE, 0xfec0_0000);
/// Ports for PCI: above the ones QEMU's devices have (its VMware port is 0x5658).
const PORTS: (u32, u32) = (0x6000, 0x1_0000);
/// When those do not suffice: all but the mainboard's. A function that gets QEMU's VMware port takes it over.
pub const MORE_PORTS: PortRange = constant(PortRange::new(0x1000, 0x1_0000));

/// Devices up to here rotate over PIRQE to PIRQH; the ICH9's own have fixed routes.
const LAST_ROTATED_DEVICE: u8 = 24;

/// Programs the chipset; the result is the configuration window.
///
/// The window comes first: without it the guest has no extended configuration space, and through it each further
/// register takes one access. StratoVirt has this chipset too, and its window takes dwords alone.
pub fn program<M: Ports + Memory>(machine: &mut M, low_ram_end: PhysAddr, host: HostKind) -> Option<EcamWindow> {
    let range = PhysRange::new(PhysAddr::new(ECAM_BASE), ECAM_SIZE).filter(|range| low_ram_end <= range.start());
    let longest = if host.is_qemu() { LongestAccess::Qword } else { LongestAccess::Dword };
    let ecam = range.map(|range| EcamWindow { range, longest });
    match ecam {
        Some(window) => {
            let value = ECAM_BASE as u32 | PCIEXBAR_ENABLE;
            PortConfig::new(machine).write32(HOST_BRIDGE, PCIEXBAR, value);
            window.with(machine, |config| program_lpc(config));
        }
        None => {
            log::warn!(
                "RAM reaches {}: no room for PCI Express configuration space; let less of it be below 4 GiB (QEMU: -machine \
                 max-ram-below-4g=2G)",
                low_ram_end
            );
            program_lpc(&mut PortConfig::new(machine));
        }
    }
    set_level_triggered(machine);
    keyboard::translate(machine);
    a20::tell(machine);
    ecam
}

fn program_lpc(config: &mut dyn ConfigSpace) {
    // Without these two the guest has no ACPI: no power-off, no interrupt routing, no hot-plug.
    // ACPI_CNTL is the dword after PMBASE: one access takes both, where the window takes eight bytes.
    config.write64(LPC, PMBASE, u64::from(ACPI_CNTL_ENABLE) << 32 | u64::from(PM_BASE));
    // For guests that do not route interrupts themselves.
    config.write32(LPC, PIRQ_A, PIRQ_ROUTES);
    config.write32(LPC, PIRQ_E, PIRQ_ROUTES);
}

/// The room for PCI.
pub fn windows(low_ram_end: PhysAddr) -> Option<(PortRange, PhysRange)> {
    let start = PhysAddr::new(LOW_WINDOW.0).max(cpus::devices_from(low_ram_end));
    Some((PortRange::new(PORTS.0, PORTS.1)?, PhysRange::from_bounds(start, PhysAddr::new(LOW_WINDOW.1))?))
}

/// The interrupt of a device's pin.
pub fn interrupt(device: u8, pin: Pin) -> u8 {
    if device <= LAST_ROTATED_DEVICE {
        rotated(device, pin.index())
    } else {
        // Pin A to PIRQA and so on: the reset value of the ICH9's DnnIR registers.
        PIRQ_INTERRUPTS.get(usize::from(pin.index())).copied().unwrap_or(PIRQ_INTERRUPTS[0])
    }
}
