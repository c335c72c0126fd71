//! Loads the host's tables from fw_cfg into guest memory: connects the device, the memory map and the interpreters.
//!
//! Tables go to the top of low RAM, reserved. What an operating system scans goes to the F-segment (0xf0000-0xfffff), if the host
//! lets that be RAM. Otherwise it goes below 640 KiB, where the RSDP is still found through `boot_params`, and in the extended
//! BIOS data area by kernels without it.
//!
//! A host may have put tables into memory itself; those are found and reserved ([`InMemory`]). On other hosts, the memory that an
//! operating system scans is cleared, because a guest that ran before a reset may have left tables there.
//!
//! Assumed: the chipset is programmed, because QEMU builds the ACPI tables from its registers. Tables that cannot be set up are
//! warned about, and the kernel starts without them.

mod acpi;
mod bios_end;
mod in_memory;
mod place;
mod smbios;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

pub use in_memory::InMemory;
use in_memory::reserve_acpi;
use place::Place;

use crate::addr::{PhysAddr, PhysRange};
use crate::bios_data;
use crate::fw_cfg::{FwCfg, Item};
use crate::hal::{HostAccess, Memory};
use crate::host::{self, HostWrite, SMBIOS_ANCHOR, TABLE_LOADER};
use crate::layout::{EBDA_TABLES, F_SEGMENT_TABLES};
use crate::memory_map::HostMap;
use crate::start_info::Start;
use crate::state::Boot;
use crate::tpm::Presence;

/// The SMBIOS structures.
const SMBIOS_TABLES: &str = "etc/smbios/smbios-tables";

/// What later steps need from the loaded tables.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// The address of the RSDP, if there is one.
    pub rsdp: Option<PhysAddr>,
    /// The address of the SMBIOS entry point, if the firmware has put one into memory.
    pub smbios: Option<PhysAddr>,
    /// The addresses that were written into the host's files.
    pub writes: Vec<HostWrite>,
    /// Whether there is a TPM. The log of one that is described is zero.
    pub tpm: Presence,
}

/// The sources of the host's tables.
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    /// The script for the ACPI tables in fw_cfg.
    script: Option<Item>,
    /// The tables that are already in memory.
    pub in_memory: InMemory,
}

/// Reserves in `map` the ACPI tables that the host passes if it has set up the machine. Returns their root pointer.
///
/// On QEMU, its option ROM has found the root pointer in memory. Without tables in fw_cfg, QEMU has none, and it may be a
/// guest's.
pub fn reserve_handed_over<M: Memory>(
    machine: &mut M,
    fw_cfg: &FwCfg,
    start: &Start,
    map: &mut HostMap,
) -> Option<PhysAddr> {
    let rsdp = start.info()?.rsdp?;
    let is_hosts = host::has_acpi(fw_cfg) || !fw_cfg.host_kind().is_qemu();
    if is_hosts { reserve_acpi(machine, map, rsdp) } else { None }
}

impl Sources {
    /// Finds the tables, and reserves those in memory in `map`.
    pub fn of_host<M: Memory>(machine: &mut M, fw_cfg: &FwCfg, map: &mut HostMap) -> Self {
        let script = fw_cfg.find(TABLE_LOADER);
        Self { script, in_memory: InMemory::of_host(machine, fw_cfg, script.is_none(), map) }
    }
}

impl Tables {
    /// Tables that are already in memory, and stay unchanged.
    #[must_use]
    pub fn in_memory(rsdp: PhysAddr, fw_cfg: &FwCfg) -> Self {
        Self { rsdp: Some(rsdp), smbios: None, writes: Vec::new(), tpm: Presence::without_table(fw_cfg) }
    }
}

/// Loads the host's ACPI and SMBIOS tables, except those in memory. `f_segment` says whether 0xf0000 to 0xfffff is RAM.
pub fn load<M: HostAccess>(boot: &mut Boot<'_, M>, sources: Sources, f_segment: bool) -> Tables {
    let Sources { script, in_memory } = sources;
    let scanned = if f_segment {
        if let Err(error) = bios_end::write(boot.machine) {
            crate::warn!("a jump to f000:fff0 does not restart the machine: {error}");
        }
        F_SEGMENT_TABLES
    } else if script.is_some() && !in_memory.in_ebda {
        EBDA_TABLES
    } else {
        PhysRange::empty_at(EBDA_TABLES.end())
    };
    let fw_cfg = boot.fw_cfg;
    let mut place = Place::new(&mut *boot.machine, fw_cfg, &mut *boot.map, scanned);
    if scanned != EBDA_TABLES && !fw_cfg.host_kind().puts_tables_into_memory() {
        place.clear(EBDA_TABLES);
    }
    if !in_memory.in_ebda
        && let Err(error) = bios_data::mark_ebda(place.machine)
    {
        crate::warn!("the extended BIOS data area does not have its length: {error}");
    }
    let rsdp = script.and_then(|script| match acpi::load(&mut place, script) {
        Ok(rsdp) => Some(rsdp),
        Err(error) => {
            crate::warn!("no ACPI tables: {error}");
            None
        }
    });
    place.clear_stale();
    let smbios = match (fw_cfg.find(SMBIOS_ANCHOR), fw_cfg.find(SMBIOS_TABLES)) {
        (Some(entry_point), Some(tables)) => smbios::load(&mut place, entry_point, tables)
            .inspect_err(|error| crate::warn!("no SMBIOS tables: {error}"))
            .ok(),
        _ => None,
    };
    let rsdp = rsdp.or(in_memory.rsdp);
    let tpm = match (rsdp, place.tpm_log) {
        (Some(_), Some(log)) => Presence::Described { log },
        (Some(_), None) => Presence::Absent,
        // Tables that could not be linked do not describe it.
        (None, _) if host::has_tpm(fw_cfg) => Presence::Undescribed,
        (None, _) => Presence::without_table(fw_cfg),
    };
    Tables { rsdp, smbios, writes: place.writes, tpm }
}
