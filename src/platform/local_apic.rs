//! The boot CPU's local APIC, as a guest without ACPI needs it: it lets the PIC's interrupts through.
//!
//! This is the "virtual wire" of the MultiProcessor Specification 1.4, section 3.6.2.2. After a reset both pins are masked,
//! and an operating system that knows of no APIC, as one without ACPI and MP tables, would never see its timer tick. One
//! with ACPI sets the pins itself.
//!
//! Assumed: the registers are at their address after a reset. Left out: the other CPUs, which have not started.
//!
//! Source: Intel SDM volume 3, table 11-1 (addresses), 11.5.1 (local vector table), 11.9 (spurious interrupts).
#![forbid(unsafe_code)]

use crate::addr::PhysAddr;
use crate::hal::Memory;

/// Spurious interrupt vector; bit 8 turns the APIC on, without which the pins stay masked.
const SPURIOUS: PhysAddr = PhysAddr::new(0xfee0_00f0);
/// On, with the vector that the register has after a reset.
const SPURIOUS_ON: u32 = 1 << 8 | 0xff;
/// Local vector table: the pin that the PIC is on, and the one for non-maskable interrupts.
const LINT0: PhysAddr = PhysAddr::new(0xfee0_0350);
const LINT1: PhysAddr = PhysAddr::new(0xfee0_0360);
/// Delivery mode ExtINT: the vector comes from the PIC.
const FROM_PIC: u32 = 7 << 8;
/// Delivery mode NMI.
const NON_MASKABLE: u32 = 4 << 8;

/// Lets interrupts of the PIC and non-maskable ones through.
pub fn wire_pic(memory: &mut impl Memory) {
    for (register, value) in [(SPURIOUS, SPURIOUS_ON), (LINT0, FROM_PIC), (LINT1, NON_MASKABLE)] {
        // A machine whose registers are elsewhere has ACPI, and there it is not needed.
        let _ = memory.write_register32(register, value);
    }
}
