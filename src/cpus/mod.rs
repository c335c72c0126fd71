//! The CPUs' own registers: memory types, and the features that firmware opens or locks.
//!
//! The boot CPU gets its MTRRs on every machine. The other CPUs are left as they are, waiting for the kernel,
//! on all machines but those whose host offers `etc/msr_feature_control`: Linux gives each CPU it starts the memory types
//! of the boot CPU, so starting them here would cost time that grows with their number for nothing. But
//! IA32_FEATURE_CONTROL differs: VMX, SGX and local machine checks are of use only if every CPU has them open, and a
//! kernel that finds it unlocked on some and locked on others gives the features up. So then, and only then, each CPU is
//! started once (`startup`), sets its MTRRs and that register, and goes back to waiting.
//!
//! Nothing is kept: [`set_up`] can be called again after a sleep, with the registers at their reset values.
//!
//! Assumed: every CPU is of the boot CPU's kind. Left out: CPUs that are plugged in later, microcode, and the kernel's
//! choice between xAPIC and x2APIC mode: the CPUs are left in the mode they reset to, from which Linux moves all of them.

mod error;
mod feature_control;
mod features;
mod local_apic;
mod mtrr;
pub(crate) mod startup;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use feature_control::FeatureControl;
pub use features::Features;
pub use local_apic::LocalApic;
pub use mtrr::{MemoryTypes, Write, devices_from};
pub use startup::Ids;

use crate::addr::PhysAddr;
use crate::fw_cfg::{FwCfg, Key};
use crate::hal::{HostAccess, Machine};

/// Sets the registers of CPUs with these `features`. `devices` is where the address space of devices begins below 4 GiB; the
/// CPU's addresses have `physical_bits` bits.
///
/// What fails is warned of: a kernel runs without it.
pub fn set_up<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, features: Features, devices: PhysAddr, physical_bits: u8) {
    let memory_types = MemoryTypes::plan(machine, features, devices, physical_bits);
    memory_types.set(machine);
    let Some(control) = FeatureControl::of_host(machine, fw_cfg, features) else { return };
    control.set(machine);
    let others = others(machine, fw_cfg);
    if others == 0 {
        return;
    }
    let started = startup::run(machine, features, others, &memory_types, Some(control));
    match started.and_then(|started| started.all(others)) {
        Ok(()) => log::debug!("CPUs: {others} others have the memory types and features of the first"),
        Err(error) => log::warn!("VMX, SGX or LMCE may stay off on CPUs but the first: {error}"),
    }
}

/// The APIC identifiers of the CPUs beside the first, in ascending order: those of 8 bits. Each CPU is started to tell its
/// own, as above. The boot CPU has these `features`.
///
/// # Errors
/// When not all of them told, or there are too many.
pub fn other_ids<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, features: Features) -> Result<Ids, Error> {
    let others = others(machine, fw_cfg);
    if others == 0 {
        return Ok(Ids::new());
    }
    if others as usize > startup::MOST_IDS {
        return Err(Error::TooMany { others });
    }
    let mut started = startup::run(machine, features, others, &MemoryTypes::default(), None)?;
    started.all(others)?;
    started.ids.sort_unstable();
    Ok(started.ids)
}

/// How many CPUs there are beside the first.
fn others<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg) -> u32 {
    fw_cfg.read_u32(machine, Key::NB_CPUS).saturating_sub(1)
}
