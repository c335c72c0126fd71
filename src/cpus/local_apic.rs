//! The boot CPU's local APIC: messages to the other CPUs, and the two pins.
//!
//! After a reset both pins are masked. The 8259 interrupt controllers are connected to one of them, so an operating system
//! without an APIC driver would never get a timer interrupt. [`LocalApic::wire_pic`] unmasks the pins: the "virtual wire mode" of
//! the MultiProcessor Specification 1.4, section 3.6.2.2.
//!
//! The registers are in memory (xAPIC) or are model-specific registers (x2APIC). The module uses the mode that the CPU is in.
//!
//! Left out: switching between the modes, and the local APICs of the other CPUs, which have not started.
//!
//! Source: Intel SDM volume 3, table 11-1 and 11.12.1.2 (addresses), 11.4.4 (base), 11.5.1 (local vector table), 11.6.1
//! (interrupt command), 11.9 (spurious interrupts).

use super::features::Features;
use crate::addr::PhysAddr;
use crate::hal::{Cpu, Memory, MemoryError};

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
/// Interrupt command, low half.
const ICR: u32 = 0x300;
/// Local vector table: the 8259s' pin, and the pin for non-maskable interrupts.
const LINT0: u32 = 0x350;
const LINT1: u32 = 0x360;
/// Delivery mode ExtINT: the vector comes from the 8259.
const FROM_PIC: u32 = 7 << 8;
/// Delivery mode NMI.
const NON_MASKABLE: u32 = 4 << 8;

/// To all but the sender.
const ICR_ALL_OTHERS: u32 = 3 << 18;
const ICR_ASSERT: u32 = 1 << 14;

/// An enabled local APIC, by how its registers are accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalApic {
    /// In memory, at this base.
    XApic(PhysAddr),
    /// As model-specific registers.
    X2Apic,
}

impl LocalApic {
    /// The local APIC of this CPU, if there is one and it is enabled. The CPU has these `features`.
    pub fn of(cpu: &mut impl Cpu, features: Features) -> Option<Self> {
        if !features.has_local_apic() {
            return None;
        }
        let base = cpu.read_msr(APIC_BASE);
        match (base & APIC_BASE_ON != 0, base & APIC_BASE_X2APIC != 0) {
            (false, _) => None,
            (true, false) => Some(Self::XApic(PhysAddr::new(base & APIC_BASE_ADDRESS))),
            (true, true) => Some(Self::X2Apic),
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

    /// Sends a message (delivery mode, and vector if it has one) to all other CPUs.
    ///
    /// # Errors
    /// [`MemoryError`] if the firmware must not write to the registers' address.
    pub fn send<M: Memory + Cpu>(self, machine: &mut M, message: u32) -> Result<(), MemoryError> {
        self.write(machine, ICR, ICR_ALL_OTHERS | ICR_ASSERT | message)
    }

    /// Writes the register `offset` bytes from the first one in memory.
    fn write<M: Memory + Cpu>(self, machine: &mut M, offset: u32, value: u32) -> Result<(), MemoryError> {
        match self {
            // The base is page-aligned.
            Self::XApic(base) => machine.write_register32(PhysAddr::new(base.get() | u64::from(offset)), value),
            Self::X2Apic => {
                machine.write_msr(X2APIC_BASE | offset >> 4, value.into());
                Ok(())
            }
        }
    }
}
