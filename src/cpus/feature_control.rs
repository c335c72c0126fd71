//! IA32_FEATURE_CONTROL: what firmware opens for the operating system, and locks.
//!
//! The host says in the fw_cfg file `etc/msr_feature_control` what the register shall hold (64 bits, little-endian;
//! QEMU `hw/i386/fw_cfg.c`, `fw_cfg_build_feature_control`). The register exists only with one of the features it
//! controls, and a bit of a feature that is not there cannot be set: both raise a fault. So what the host asks for is
//! held against CPUID first.
//!
//! Source: Intel SDM volume 4, table 2-2, register 3Ah, and the enumeration of each feature in volume 2, CPUID.

use bitflags::bitflags;

use super::features::Features;
use crate::fw_cfg::FwCfg;
use crate::hal::{Cpu, HostAccess};

/// What the register shall hold.
const FILE: &str = "etc/msr_feature_control";

const REGISTER: u32 = 0x3a;

bitflags! {
    /// The register's bits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Bits: u64 {
        /// No later write, until a reset.
        const LOCK = 1 << 0;
        /// VMX in SMX operation.
        const VMX_IN_SMX = 1 << 1;
        /// VMX outside SMX operation.
        const VMX = 1 << 2;
        /// SENTER: its functions, and all of it.
        const SENTER = 0xff << 8;
        /// SGX: the launch key's registers can be written.
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
    /// What this CPU lets be set. Nothing: it does not have the register.
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

/// What the register shall hold on every CPU: no bit that this CPU does not take, and not nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureControl(Bits);

impl FeatureControl {
    /// What the host wants, as far as the CPU has it; `None` when the host wants nothing. What is left out is warned of.
    pub fn of_host<M: HostAccess + Cpu>(machine: &mut M, fw_cfg: &FwCfg, features: Features) -> Option<Self> {
        let item = fw_cfg.find(FILE)?;
        let mut bytes = [0; 8];
        fw_cfg.read(machine, item, &mut bytes);
        Self::new(machine, features, u64::from_le_bytes(bytes))
    }

    /// The bits of `value` that a CPU with these `features` takes; `None` when these are none.
    pub fn new(cpu: &mut impl Cpu, features: Features, value: u64) -> Option<Self> {
        if value == 0 {
            return None;
        }
        let taken = Bits::of_cpu(cpu, features).intersection(Bits::from_bits_retain(value));
        let left_out = value & !taken.bits();
        if left_out != 0 {
            log::warn!(
                "{FILE} asks for {value:#x}, but this CPU has no feature for {left_out:#x}: check its model (QEMU: -cpu)"
            );
        }
        // The lock alone would only take from the operating system what it can still open itself.
        (!taken.difference(Bits::LOCK).is_empty()).then_some(Self(taken))
    }

    /// The register's value.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.bits()
    }

    /// Sets the register of this CPU, unless it is locked already.
    pub fn set(self, cpu: &mut impl Cpu) {
        if cpu.read_msr(REGISTER) & Bits::LOCK.bits() == 0 {
            cpu.write_msr(REGISTER, self.get());
        }
    }
}
