//! The power management registers of a chipset: their address, and their state after a reset.

use crate::hal::Ports;

/// Their I/O base, with bit 0 set, as in an I/O BAR. It is below 0x1000, so that PCI can have the ports from there on. QEMU's
/// tables use any value.
pub const BASE: u32 = 0x600 | 1;
/// The PM1 status register, 16 bits, at the base (ICH9 data sheet, 13.8.3; 82371AB, 7.1.1).
const PM1_STATUS: u16 = (BASE & !1) as u16;
/// PM1 status: the machine was asleep and has woken (ACPI 6.5, 4.8.3.1.1).
const WAK_STS: u16 = 1 << 15;

/// Whether the machine was asleep before this reset: WAK_STS.
///
/// QEMU sets it when a machine wakes, after the reset of its devices, which clears it; a guest can only clear it
/// (`hw/acpi/core.c`: `acpi_notify_wakeup`, `acpi_pm1_evt_reset`, `acpi_pm1_evt_write_sts`).
pub fn was_asleep(ports: &mut impl Ports) -> bool {
    let status = ports.in16(PM1_STATUS);
    crate::debug!("PM1 status after a reset that asks for a wake: {status:#06x}");
    // An absent register reads as all ones, including reserved bits.
    status != u16::MAX && status & WAK_STS != 0
}
