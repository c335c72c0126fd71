//! The CPUs' registers: memory types, and the features that firmware enables or locks.
//!
//! The boot CPU's MTRRs are set on every machine. The other CPUs stay in wait-for-SIPI, except on hosts that offer
//! `etc/msr_feature_control`. Linux copies the boot CPU's memory types to each CPU that it starts, so starting the CPUs here
//! would only cost time, and more with each CPU. IA32_FEATURE_CONTROL is different: VMX, SGX and local machine checks are usable
//! only if every CPU has them enabled, and a kernel that finds the register locked on some CPUs only does not use them. So only
//! then each CPU is started once (`startup`), sets its MTRRs and that register, and returns to wait-for-SIPI.
//!
//! The module keeps no state: [`set_up`] can be called again after a sleep, with the registers at their reset values.
//!
//! Assumed: all CPUs are of one model. Left out: CPUs that are plugged in later, microcode, and the choice between xAPIC and
//! x2APIC: CPUs stay in their reset mode, and Linux switches all of them.

mod error;
mod feature_control;
mod features;
mod local_apic;
mod mtrr;
mod startup;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use feature_control::FeatureControl;
pub use features::Features;
pub use mtrr::{MemoryTypes, Write, devices_from};
pub use startup::Ids;

use core::mem;

use crate::addr::PhysAddr;
use crate::fw_cfg::{FwCfg, Key};
use crate::hal::startup::MOST_IDS;
use crate::hal::{HostAccess, Machine};

/// Sets the registers of CPUs with these `features`. The address space of devices below 4 GiB begins at `devices`. Physical
/// addresses have `physical_bits` bits.
///
/// A failure is only a warning: a kernel runs without these settings.
pub fn set_up<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, features: Features, devices: PhysAddr, physical_bits: u8) {
    let memory_types = MemoryTypes::plan(machine, features, devices, physical_bits);
    memory_types.set(machine);
    let Some(control) = FeatureControl::of_host(machine, fw_cfg, features) else { return };
    control.set(machine);
    let others = others(machine, fw_cfg);
    if others == 0 {
        return;
    }
    match startup::run(machine, features, others, &memory_types, Some(control)) {
        Ok(_) => crate::debug!("CPUs: {others} others have the memory types and features of the first"),
        Err(error) => crate::warn!("VMX, SGX or LMCE may stay off on all CPUs but the first: {error}"),
    }
}

/// The 8-bit APIC identifiers of the CPUs other than the boot CPU, in ascending order. Each CPU is started once to report its
/// own. The boot CPU has these `features`.
///
/// # Errors
/// If some did not report it, or there are too many.
pub fn other_ids<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, features: Features) -> Result<Ids, Error> {
    let others = others(machine, fw_cfg);
    if others == 0 {
        return Ok(Ids::new());
    }
    if others as usize > MOST_IDS {
        return Err(Error::TooMany { others });
    }
    let mut ids = startup::run(machine, features, others, &MemoryTypes::default(), None)?;
    sort(&mut ids);
    Ok(ids)
}

/// Puts numbers into ascending order, in as many steps as there are pairs of them: 256 at most. The sort of `core` takes 3 KiB of the
/// image.
fn sort(mut numbers: &mut [u8]) {
    while let Some((first, others)) = mem::take(&mut numbers).split_first_mut() {
        for other in others.iter_mut() {
            (*first, *other) = ((*first).min(*other), (*first).max(*other));
        }
        numbers = others;
    }
}

/// How many CPUs there are without the boot CPU.
fn others<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg) -> u32 {
    fw_cfg.read_u32(machine, Key::NB_CPUS).saturating_sub(1)
}
