//! The boot CPU's local APIC: its mode, and the two pins.
//!
//! After a reset both pins are masked. The 8259 interrupt controllers are connected to one of them, so an operating system
//! without an APIC driver would never get a timer interrupt. [`LocalApic::wire_pic`] unmasks the pins: the "virtual wire mode" of
//! the MultiProcessor Specification 1.4, section 3.6.2.2.
//!
//! The registers are in memory (xAPIC) or are model-specific registers (x2APIC). The module uses the mode that the CPU is in.
//!
//! Assumed: the registers in memory are at their address after a reset. Left out: switching between the modes; messages to the
//! other CPUs, which are [`crate::hal::startup`]'s; the local APICs of these, which have not started.
//!
//! Source: Intel SDM volume 3, table 11-1 and 11.12.1.2 (addresses), 11.4.4 (base), 11.5.1 (local vector table), 11.9 (spurious
//! interrupts).

use super::features::Features;
use crate::addr::PhysAddr;
use crate::hal::startup::LocalApic;
use crate::hal::{Cpu, Memory, MemoryError};
use crate::layout;

/// IA32_APIC_BASE: the address of the registers, and whether the APIC is enabled, in xAPIC or x2APIC mode.
const APIC_BASE: u32 = 0x1b;
const APIC_BASE_ON: u64 = 1 << 11;
const APIC_BASE_X2APIC: u64 = 1 << 10;
const APIC_BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The first x2APIC register. Each x2APIC register stands for 16 bytes of the xAPIC registers.
const X2APIC_BASE: u32 = 0x800;

/// Spurious interrupt vector. Bit 8 enables the APIC; otherwise the pins stay masked.
const SPURIOUS: u32 = 0xf0;
/// Enabled, with the vector that the register has after a reset.
const SPURIOUS_ON: u32 = 1 << 8 | 0xff;
/// Local vector table: the 8259s' pin, and the pin for non-maskable interrupts.
const LINT0: u32 = 0x350;
const LINT1: u32 = 0x360;
/// Delivery mode ExtINT: the vector comes from the 8259.
const FROM_PIC: u32 = 7 << 8;
/// Delivery mode NMI.
const NON_MASKABLE: u32 = 4 << 8;

impl LocalApic {
    /// The local APIC of this CPU, if there is one, it is enabled and its registers are where they are after a reset. The CPU has
    /// these `features`.
    pub fn of(cpu: &mut impl Cpu, features: Features) -> Option<Self> {
        if !features.has_local_apic() {
            return None;
        }
        let base = cpu.read_msr(APIC_BASE);
        match (base & APIC_BASE_ON != 0, base & APIC_BASE_X2APIC != 0) {
            (true, true) => Some(Self::X2Apic),
            (true, false) if base & APIC_BASE_ADDRESS == layout::LOCAL_APIC.start().get() => Some(Self::XApic),
            _ => None,
        }
    }

    /// Lets interrupts from the 8259s and non-maskable interrupts through.
    ///
    /// # Errors
    /// [`MemoryError`] if the firmware must not write to the registers' address.
    pub fn wire_pic<M: Memory + Cpu>(self, machine: &mut M) -> Result<(), MemoryError> {
        self.write(machine, SPURIOUS, SPURIOUS_ON)?;
        self.write(machine, LINT0, FROM_PIC)?;
        self.write(machine, LINT1, NON_MASKABLE)
    }

    /// Writes the register `offset` bytes from the first one in memory.
    fn write<M: Memory + Cpu>(self, machine: &mut M, offset: u32, value: u32) -> Result<(), MemoryError> {
        match self {
            // The base is page-aligned.
            Self::XApic => {
                machine.write_register32(PhysAddr::new(layout::LOCAL_APIC.start().get() | u64::from(offset)), value)
            }
            Self::X2Apic => {
                machine.write_msr(X2APIC_BASE | offset >> 4, value.into());
                Ok(())
            }
        }
    }
}
