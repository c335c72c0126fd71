//! CPUID leaf 1: the CPU's model and features.
//!
//! Each CPUID is an exit inside a hypervisor, so a boot reads the leaf once and passes it on.
//!
//! Source: Intel SDM volume 2, CPUID, leaf 01H, tables 3-10 and 3-11.

use crate::hal::Cpu;

const LEAF: u32 = 1;

/// ECX.
const VMX: u32 = 1 << 5;
const SMX: u32 = 1 << 6;
/// EDX. Machine checks are two features: the exception, and the architecture of its registers.
const LOCAL_APIC: u32 = 1 << 9;
const MTRR: u32 = 1 << 12;
const MACHINE_CHECKS: u32 = 1 << 7 | 1 << 14;

/// The leaf, as read on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Type, family, model and stepping (EAX).
    pub signature: u32,
    /// The initial APIC identifier (EBX, bits 24 to 31).
    pub apic_id: u8,
    /// The features in ECX.
    pub ecx: u32,
    /// The features in EDX.
    pub edx: u32,
}

impl Features {
    /// Reads the leaf.
    pub fn read(cpu: &mut impl Cpu) -> Self {
        let leaf = cpu.cpuid(LEAF, 0);
        let [.., apic_id] = leaf.ebx.to_le_bytes();
        Self { signature: leaf.eax, apic_id, ecx: leaf.ecx, edx: leaf.edx }
    }

    /// Whether the CPU has a local APIC.
    #[must_use]
    pub const fn has_local_apic(self) -> bool {
        self.edx & LOCAL_APIC != 0
    }

    /// Whether the CPU has memory type range registers.
    #[must_use]
    pub const fn has_mtrrs(self) -> bool {
        self.edx & MTRR != 0
    }

    /// Whether the CPU has machine checks, with their architecture.
    #[must_use]
    pub const fn has_machine_checks(self) -> bool {
        self.edx & MACHINE_CHECKS == MACHINE_CHECKS
    }

    /// Whether the CPU has VMX.
    #[must_use]
    pub const fn has_vmx(self) -> bool {
        self.ecx & VMX != 0
    }

    /// Whether the CPU has SMX.
    #[must_use]
    pub const fn has_smx(self) -> bool {
        self.ecx & SMX != 0
    }
}
