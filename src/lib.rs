//! Firstlight: firmware that boots a Linux guest first.
//!
//! The library holds all the logic. It is `no_std` and compiles and tests on the host; the firmware binary
//! (`src/main.rs`) adds the entry code and hands it the machine. [`run`] is the boot order.
#![no_std]

#[cfg(test)]
extern crate std;

extern crate alloc;

pub mod acpi;
pub mod addr;
pub mod boot;
pub mod checksum;
pub mod cpus;
pub mod error;
pub mod failure;
pub mod framebuffer;
pub mod fw_cfg;
#[cfg(test)]
mod golden;
pub mod hal;
pub mod layout;
pub mod logging;
pub mod memory_map;
pub mod pci;
pub mod platform;
pub mod smbios;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod trace;

use boot::Handover;
use error::Error;
use failure::Failure;
use fw_cfg::FwCfg;
use hal::Machine;
use memory_map::MemoryMap;
use platform::Platform;
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
    // Before the tables: the host makes them from the registers that are set here.
    let platform = Platform::set_up(machine, fw_cfg, &mut map)?;
    let framebuffer = framebuffer::set_up(machine, fw_cfg, &mut map, platform.display.as_ref());
    let rsdp = tables::load(machine, fw_cfg, &mut map, platform.f_segment);
    trace.mark(machine, Point::FirmwareDone);
    trace.mark(machine, Point::KernelLoad);
    let handover = boot::load(machine, fw_cfg, &mut map, rsdp, framebuffer.as_ref())?;
    trace.mark(machine, Point::KernelStart);
    Ok(handover)
}
