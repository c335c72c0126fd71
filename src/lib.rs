//! Firstlight: minimal x86-64 firmware for virtual machines, which boots Linux directly.
//!
//! The library has all the logic. It is `no_std`, and compiles and tests on the host. The firmware binary (`src/firmware`) adds
//! what executes on the machine: the entry code, the [`hal`], the heap. [`run`] is the boot order, [`wake`] the order of a wake
//! from suspend.
#![no_std]
#![forbid(unsafe_code)]
// No code in the image may panic. The build counts the remaining panic sites: tools/inspect/src/panics.rs.
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
pub mod bios_data;
pub mod boot;
pub mod checksum;
pub mod cmos;
pub mod cpus;
pub mod disk;
pub mod efi;
pub mod error;
pub mod failure;
#[cfg(any(test, feature = "fakes"))]
pub mod fakes;
pub mod framebuffer;
pub mod fw_cfg;
pub mod hal;
pub mod heap;
pub mod host;
pub mod image_size;
pub mod layout;
pub mod logging;
pub mod memory_map;
pub mod multiprocessor;
pub mod pci;
pub mod platform;
pub mod resume;
pub mod smbios;
pub mod start_info;
pub mod state;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod tpm;
pub mod trace;

use alloc::vec::Vec;

use addr::PhysAddr;
use bios_data::BiosData;
use boot::{Clears, Handover, Kernel, Payload, SystemInfo};
use disk::controllers::{self, Candidate};
use error::Error;
use failure::Failure;
use framebuffer::Framebuffer;
use fw_cfg::FwCfg;
use hal::Machine;
use memory_map::{HostMap, MemoryMap};
use pci::Devices;
use platform::microvm::{self, Microvm};
use platform::{Board, Platform};
use resume::{Record, WakingVector};
use start_info::Start;
use state::Boot;
use tables::Tables;
use tpm::Presence;
use trace::{Point, Trace};

/// Boots: from a machine at reset, or from a start by the PVH entry point with the address of `hvm_start_info`, to a kernel in
/// memory that is ready to be entered.
///
/// # Errors
/// [`Failure`], with what to do after it, as the host asks.
pub fn run(machine: &mut impl Machine, start: Start<PhysAddr>) -> Result<Handover, Failure> {
    let start = start.read(machine).map_err(|error| Failure::final_stop(error.into()))?;
    let fw_cfg = match FwCfg::probe(machine) {
        Err(fw_cfg::Error::NoDevice { .. }) if start.info().is_some() => FwCfg::absent(),
        result => result.map_err(|error| Failure::final_stop(error.into()))?,
    };
    match try_run(machine, &fw_cfg, &start) {
        Ok((handover, map)) => Ok(handover.with(map, fw_cfg)),
        Err(error) => Err(Failure::new(machine, &fw_cfg, error)),
    }
}

/// The boot order.
fn try_run<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, start: &Start) -> Result<(Handover, MemoryMap), Error> {
    logging::configure(machine, fw_cfg);
    let trace = Trace::of_host(machine, fw_cfg);
    trace.mark(machine, Point::FirmwareStart);
    // Tables and the kernel may already be in memory. They are reserved before anything is put there.
    let mut map = host::memory_map(machine, fw_cfg, start)?;
    let found = Found::of_host(machine, fw_cfg, start, &mut map);
    let payload = Payload::of_host(machine, fw_cfg, start, &mut map)?;
    let mut map = MemoryMap::new(map);
    let mut boot = Boot { machine, fw_cfg, map: &mut map, start };
    let wants_disks = matches!(payload.kernel, Kernel::OnDisk(_));
    let (tables, framebuffer, disks) = match found {
        Found::SetUp { rsdp } => {
            let disks = find_disks(&mut boot, &Devices::default(), wants_disks);
            (Tables::in_memory(rsdp, fw_cfg), None, disks)
        }
        Found::Bare(sources) => set_up(&mut boot, sources, wants_disks)?,
    };
    // All reservations are known now. After a start by the PVH entry point, page zero stays as the host left it.
    let bios_data = matches!(start, Start::Reset).then(|| BiosData::of(boot.map));
    trace.mark(boot.machine, Point::FirmwareDone);
    trace.mark(boot.machine, Point::KernelLoad);
    let efi = payload
        .wants_efi()
        .then(|| efi::information::Sources::of_machine(boot.machine, fw_cfg, tables.rsdp, tables.smbios));
    let system = SystemInfo { rsdp: tables.rsdp, framebuffer: framebuffer.as_ref(), efi: efi.as_ref(), disks: &disks };
    let mut loaded = payload.kernel.load(&mut boot, &payload.extras, &system)?;
    if tables.tpm != Presence::Absent && !loaded.handover.efi.give_tpm(tables.tpm) {
        tpm::measure(boot.machine, fw_cfg, tables.tpm, &loaded.images);
    }
    let clears = match start {
        Start::Reset => resume::prepare(&mut boot, tables.rsdp, tables.writes),
        Start::Pvh(_) => Clears::Nothing,
    };
    trace.mark(boot.machine, Point::KernelStart);
    Ok((Handover { bios_data, clears, ..loaded.handover }, map))
}

/// The state in which the firmware finds the machine.
enum Found {
    /// Set up by the host, which passes the ACPI tables that describe it: their root pointer is at `rsdp`.
    SetUp { rsdp: PhysAddr },
    /// In the reset state, with the sources of its tables.
    Bare(tables::Sources),
}

impl Found {
    /// Finds the tables, and reserves those in memory in `map`.
    fn of_host<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, start: &Start, map: &mut HostMap) -> Self {
        match tables::reserve_handed_over(machine, fw_cfg, start, map) {
            Some(rsdp) => Self::SetUp { rsdp },
            None => Self::Bare(tables::Sources::of_host(machine, fw_cfg, map)),
        }
    }
}

/// Sets up the machine and loads its tables: what a host leaves to firmware.
///
/// Not inlined into [`try_run`]: a boot takes 450 instructions fewer.
#[inline(never)]
fn set_up<M: Machine>(
    boot: &mut Boot<'_, M>,
    sources: tables::Sources,
    wants_disks: bool,
) -> Result<(Tables, Option<Framebuffer>, Vec<Candidate>), Error> {
    // Before the tables, because the host builds them from the registers that are set here.
    let platform = Platform::program(boot.machine, boot.fw_cfg, boot.map);
    let devices = platform.set_up_pci(boot)?;
    platform.set_up_cpus(boot.machine, boot.fw_cfg);
    let framebuffer = framebuffer::set_up(boot, &devices);
    let disks = find_disks(boot, &devices, wants_disks);
    // The tables need the heap.
    drop(devices);
    let mut tables = tables::load(boot, sources, platform.f_segment);
    // The board's tables would not describe one.
    if platform.board.may_have_unlisted_tpm() && tables.tpm == Presence::Absent {
        tables.tpm = Presence::without_table(boot.fw_cfg);
    }
    if tables.rsdp.is_none() && !sources.in_memory.mp_table {
        multiprocessor::load(boot, platform.board);
    }
    Ok((tables, framebuffer, disks))
}

/// The controllers that may have disks, if they are wanted: a boot with a kernel looks for none.
fn find_disks<M: Machine>(boot: &mut Boot<'_, M>, devices: &Devices, are_wanted: bool) -> Vec<Candidate> {
    if !are_wanted {
        return Vec::new();
    }
    if Microvm.is_identified_by_files(boot.fw_cfg) {
        let devices = microvm::set_up_pci(boot.machine);
        return controllers::find(boot.machine, &devices, true);
    }
    controllers::find(boot.machine, devices, false)
}

/// Wakes from suspend, if [`resume::is_requested`]: from a machine at reset, whose memory may be an operating system's, to one on
/// which that operating system can continue. `None` if the host says that this reset is no wake: then [`run`] comes next, and
/// only the firmware's own memory was written ([`layout::WAKE_RAM`]).
///
/// # Errors
/// [`Failure`]; the machine is then reset and boots.
pub fn wake(machine: &mut impl Machine) -> Result<Option<WakingVector>, Failure> {
    let result = try_wake(machine);
    if !matches!(result, Ok(Some(_))) {
        resume::abandon(machine);
    }
    result.map_err(Failure::restart)
}

/// The order of a wake.
fn try_wake(machine: &mut impl Machine) -> Result<Option<WakingVector>, Error> {
    // First read what the host says. An error here recurs in the boot, which reports it, unless the boot's larger heap avoids it.
    let lost = |error: Error| {
        crate::warn!("if the guest was suspended, it is lost: {error}");
        Ok(None)
    };
    let fw_cfg = match FwCfg::probe(machine) {
        Err(fw_cfg::Error::NoDevice { .. }) => return Ok(None),
        Err(error) => return lost(error.into()),
        Ok(fw_cfg) => fw_cfg,
    };
    if !host::can_wake(machine, &fw_cfg) {
        return Ok(None);
    }
    logging::configure(machine, &fw_cfg);
    let map = match host::memory_map(machine, &fw_cfg, &Start::Reset) {
        Err(error) => return lost(error.into()),
        Ok(map) => map,
    };
    // Before the tables are read, because the RSDP may be in the F-segment.
    let platform = Platform::program(machine, &fw_cfg, &map);
    if !platform.was_asleep(machine) {
        return Ok(None);
    }
    // Before anything from the guest is read, so that no record can prevent it.
    tpm::resume(machine, host::has_tpm(&fw_cfg));
    platform.set_up_cpus(machine, &fw_cfg);
    let record = Record::load(machine)?;
    resume::tell_host(machine, &fw_cfg, &record.writes);
    Ok(Some(WakingVector::find(machine, &map, record.rsdp)?))
}
