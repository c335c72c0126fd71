//! Firstlight: firmware that boots a Linux guest first.
//!
//! The library holds all the logic. It is `no_std` and compiles and tests on the host; the firmware binary
//! (`src/main.rs`) adds the entry code and hands it the machine. [`run`] is the boot order, [`wake`] that of a wake from
//! suspend.
#![no_std]
// Nothing that goes into the image may panic. What the compiler leaves of it is counted in the image: xtask/src/panics.rs.
#![cfg_attr(
    feature = "firmware",
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::get_unwrap,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unimplemented,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

#[cfg(test)]
extern crate std;

extern crate alloc;

pub mod acpi;
pub mod addr;
pub mod boot;
pub mod checksum;
pub mod cmos;
pub mod cpus;
pub mod error;
pub mod failure;
pub mod framebuffer;
pub mod fw_cfg;
#[cfg(any(test, not(feature = "firmware")))]
pub mod golden;
pub mod hal;
pub mod heap;
pub mod layout;
pub mod logging;
pub mod memory_map;
pub mod multiprocessor;
pub mod pci;
pub mod platform;
pub mod resume;
pub mod smbios;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod tpm;
pub mod trace;

use boot::{Handover, Kernel};
use error::Error;
use failure::Failure;
use fw_cfg::FwCfg;
use hal::Machine;
use memory_map::MemoryMap;
use platform::Platform;
use resume::{Record, WakingVector};
use trace::{Point, Trace};

/// Boots: from a machine at reset to a kernel in memory that waits to be entered.
///
/// # Errors
/// [`Failure`], with what the host wants done then.
pub fn run(machine: &mut impl Machine) -> Result<Handover, Failure> {
    let fw_cfg = FwCfg::probe(machine).map_err(|error| Failure::final_stop(error.into()))?;
    boot(machine, &fw_cfg).map_err(|error| Failure::new(machine, &fw_cfg, error))
}

/// The boot order.
fn boot(machine: &mut impl Machine, fw_cfg: &FwCfg) -> Result<Handover, Error> {
    logging::configure(machine, fw_cfg);
    let trace = Trace::of_host(machine, fw_cfg);
    trace.mark(machine, Point::FirmwareStart);
    let mut map = MemoryMap::of_host(machine, fw_cfg)?;
    // Before anything is put into memory: tables and the kernel may be there already.
    let sources = tables::Sources::of_host(machine, fw_cfg, &mut map);
    let kernel = Kernel::of_host(machine, fw_cfg, &mut map)?;
    // Before the tables: the host makes them from the registers that are set here.
    let platform = Platform::set_up(machine, fw_cfg, &mut map)?;
    let framebuffer = framebuffer::set_up(machine, fw_cfg, &mut map, platform.display.as_ref());
    let tables = tables::load(machine, fw_cfg, &mut map, sources, platform.f_segment);
    if tables.rsdp.is_none() && !sources.in_memory.mp_table {
        multiprocessor::load(machine, fw_cfg, &mut map, platform.chipset);
    }
    trace.mark(machine, Point::FirmwareDone);
    trace.mark(machine, Point::KernelLoad);
    let loaded = boot::load(machine, fw_cfg, &mut map, &kernel, tables.rsdp, framebuffer.as_ref())?;
    tpm::measure(machine, fw_cfg, tables.tpm_log, &loaded);
    resume::prepare(machine, &map, tables);
    trace.mark(machine, Point::KernelStart);
    Ok(loaded.handover)
}

/// Wakes from suspend, where [`resume::is_pending`]: from a machine at reset whose memory is an operating system's to
/// one on which that operating system can go on.
///
/// # Errors
/// [`Failure`]; the machine then boots anew.
pub fn wake(machine: &mut impl Machine) -> Result<WakingVector, Failure> {
    resume(machine).map_err(|error| {
        resume::abandon(machine);
        Failure::restart(error)
    })
}

/// The order of a wake.
fn resume(machine: &mut impl Machine) -> Result<WakingVector, Error> {
    let record = Record::load(machine)?;
    let fw_cfg = FwCfg::probe(machine)?;
    logging::configure(machine, &fw_cfg);
    let map = MemoryMap::of_host(machine, &fw_cfg)?;
    // Before the tables are looked at: the RSDP may be in the F-segment.
    platform::restore(machine, &fw_cfg, &map);
    resume::tell_host(machine, &fw_cfg, &record.writes);
    tpm::resume(machine, record.has_tpm);
    Ok(WakingVector::find(machine, &map, record.rsdp)?)
}
