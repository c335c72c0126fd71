//! IA32_FEATURE_CONTROL: what firmware opens for the operating system, and locks.
//!
//! The fw_cfg file `etc/msr_feature_control` has the value that the host wants in the register (64 bits, little-endian; QEMU
//! `hw/i386/fw_cfg.c`, `fw_cfg_build_feature_control`). The register exists only on a CPU with one of the features that it
//! controls. Accessing a missing register, or setting the bit of a missing feature, raises a fault. So the value is checked
//! against CPUID first.
//!
//! Source: Intel SDM volume 4, table 2-2, register 3Ah, and the enumeration of each feature in volume 2, CPUID.

use bitflags::bitflags;

use super::features::Features;
use crate::fw_cfg::FwCfg;
use crate::hal::{Cpu, HostAccess};

/// The file with the register's value.
const FILE: &str = "etc/msr_feature_control";

const REGISTER: u32 = 0x3a;

bitflags! {
    /// The register's bits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Bits: u64 {
        /// Locks the register until a reset.
        const LOCK = 1 << 0;
        /// VMX in SMX operation.
        const VMX_IN_SMX = 1 << 1;
        /// VMX outside SMX operation.
        const VMX = 1 << 2;
        /// SENTER: its functions, and the instruction itself.
        const SENTER = 0xff << 8;
        /// SGX: the registers with the hash of the launch key are writable.
        const SGX_LAUNCH_CONTROL = 1 << 17;
        /// SGX.
        const SGX = 1 << 18;
        /// Local machine checks.
        const LMCE = 1 << 20;
    }
}

/// CPUID: the highest leaf in EAX.
const HIGHEST_LEAF: u32 = 0;
const MORE_FEATURES: u32 = 7;
/// Leaf 7, EBX.
const FEATURE_SGX: u32 = 1 << 2;
/// Leaf 7, ECX.
const FEATURE_SGX_LAUNCH_CONTROL: u32 = 1 << 30;

/// IA32_MCG_CAP, and its bit for local machine checks (Intel SDM volume 3, 15.3.1.1).
const MCG_CAP: u32 = 0x179;
const MCG_CAP_LMCE: u64 = 1 << 27;

impl Bits {
    /// The bits that can be set on this CPU. Empty if it does not have the register.
    fn of_cpu(cpu: &mut impl Cpu, features: Features) -> Self {
        let mut bits = Self::empty();
        if features.has_vmx() {
            bits |= Self::VMX;
        }
        if features.has_smx() {
            bits |= Self::SENTER;
            bits.set(Self::VMX_IN_SMX, bits.contains(Self::VMX));
        }
        if features.has_machine_checks() && cpu.read_msr(MCG_CAP) & MCG_CAP_LMCE != 0 {
            bits |= Self::LMCE;
        }
        if cpu.cpuid(HIGHEST_LEAF, 0).eax >= MORE_FEATURES {
            let more = cpu.cpuid(MORE_FEATURES, 0);
            bits.set(Self::SGX, more.ebx & FEATURE_SGX != 0);
            bits.set(Self::SGX_LAUNCH_CONTROL, more.ecx & FEATURE_SGX_LAUNCH_CONTROL != 0);
        }
        bits.set(Self::LOCK, !bits.is_empty());
        bits
    }
}

/// The value of the register on every CPU. It is not zero, and has only bits that this CPU supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureControl(Bits);

impl FeatureControl {
    /// The host's value, without the bits that this CPU does not support, which are warned about; `None` if nothing remains or
    /// the host has no value.
    pub fn of_host<M: HostAccess + Cpu>(machine: &mut M, fw_cfg: &FwCfg, features: Features) -> Option<Self> {
        let value = u64::from_le_bytes(fw_cfg.read_file(machine, FILE)?);
        Self::new(machine, features, value)
    }

    /// The bits of `value` that a CPU with these `features` supports; `None` if there are none.
    pub fn new(cpu: &mut impl Cpu, features: Features, value: u64) -> Option<Self> {
        if value == 0 {
            return None;
        }
        let taken = Bits::of_cpu(cpu, features).intersection(Bits::from_bits_retain(value));
        let left_out = value & !taken.bits();
        if left_out != 0 {
            crate::warn!(
                "{FILE} asks for {value:#x}, but this CPU has no feature for {left_out:#x}: check its model (QEMU: -cpu)"
            );
        }
        // The lock alone would only keep the operating system from setting the register.
        (!taken.difference(Bits::LOCK).is_empty()).then_some(Self(taken))
    }

    /// The register's value.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.bits()
    }

    /// Writes the register of this CPU, unless it is already locked.
    pub fn set(self, cpu: &mut impl Cpu) {
        if cpu.read_msr(REGISTER) & Bits::LOCK.bits() == 0 {
            cpu.write_msr(REGISTER, self.get());
        }
    }
}
