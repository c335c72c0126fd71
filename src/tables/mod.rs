//! The host's tables, from fw_cfg to guest memory: the glue between the device, the memory map and the interpreters.
//!
//! Tables go to the top of low RAM, reserved; what an operating system scans for goes to the F-segment
//! (0xf0000-0xfffff), as far as the host lets that be RAM, else below 640 KiB, where the RSDP is still found through
//! `boot_params`, and in the extended BIOS data area by kernels that have none.
//!
//! A host may have put tables into memory itself; those are found and kept ([`InMemory`]). On other hosts what an operating
//! system scans is cleared, since a guest that ran before a reset can have left tables there for the next.
//!
//! Assumed: the chipset is programmed, since QEMU makes the ACPI tables from its registers. Tables that cannot be set up
//! are warned about, and the kernel starts without them.

mod acpi;
mod bios_end;
mod in_memory;
mod smbios;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

pub use in_memory::InMemory;
use in_memory::hold_acpi;
use uefi_raw::table::boot::MemoryType;

use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::bios_data;
use crate::fw_cfg::{self, FwCfg, Item, Transport};
use crate::hal::{HostAccess, Memory, MemoryError};
use crate::host::{self, HostWrite, SMBIOS_ANCHOR, TABLE_LOADER};
use crate::layout::{CONVENTIONAL, EBDA_TABLES, F_SEGMENT_TABLES};
use crate::memory_map::{HostMap, MemoryMap, Placement};
use crate::start_info::Start;
use crate::state::Boot;
use crate::tpm::Presence;

/// The SMBIOS structures.
const SMBIOS_TABLES: &str = "etc/smbios/smbios-tables";

/// What was loaded, as far as later steps need it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// The address of the RSDP, if there is one.
    pub rsdp: Option<PhysAddr>,
    /// The addresses that the host asked for, as they were written into its files.
    pub writes: Vec<HostWrite>,
    /// What is known of a TPM. The log of one that is described is zero.
    pub tpm: Presence,
}

/// Which tables the host has, and where.
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    /// The script for the ACPI tables that are in fw_cfg.
    script: Option<Item>,
    /// What is in memory already.
    pub in_memory: InMemory,
}

/// Holds in `map` the ACPI tables that the host hands over, with a machine that it has set up. Gives their root pointer.
///
/// On QEMU it is one which its option ROM has found in memory. Without tables in fw_cfg QEMU has none for a firmware to put
/// there, and it may be a guest's.
pub fn hold_handed_over<M: Memory>(
    machine: &mut M,
    fw_cfg: &FwCfg,
    start: &Start,
    map: &mut HostMap,
) -> Option<PhysAddr> {
    let rsdp = start.info()?.rsdp?;
    let is_hosts = host::has_acpi(fw_cfg) || !fw_cfg.host_kind().is_qemu();
    if is_hosts { hold_acpi(machine, map, rsdp) } else { None }
}

impl Sources {
    /// Asks the host, and holds in `map` what is in memory.
    pub fn of_host<M: Memory>(machine: &mut M, fw_cfg: &FwCfg, map: &mut HostMap) -> Self {
        let script = fw_cfg.find(TABLE_LOADER);
        Self { script, in_memory: InMemory::of_host(machine, fw_cfg, script.is_none(), map) }
    }
}

impl Tables {
    /// Tables that are in memory already, and are left as they are.
    #[must_use]
    pub fn in_memory(rsdp: PhysAddr, fw_cfg: &FwCfg) -> Self {
        Self { rsdp: Some(rsdp), writes: Vec::new(), tpm: Presence::without_table(fw_cfg) }
    }
}

/// Loads the host's ACPI and SMBIOS tables, but for those in memory. `f_segment` says whether 0xf0000 to 0xfffff is RAM.
pub fn load<M: HostAccess>(boot: &mut Boot<'_, M>, sources: Sources, f_segment: bool) -> Tables {
    let Sources { script, in_memory } = sources;
    let scanned = if f_segment {
        if let Err(error) = bios_end::write(boot.machine) {
            log::warn!("a jump to f000:fff0 does not restart the machine: {error}");
        }
        F_SEGMENT_TABLES
    } else if script.is_some() && !in_memory.in_ebda {
        EBDA_TABLES
    } else {
        PhysRange::empty_at(EBDA_TABLES.end())
    };
    let fw_cfg = boot.fw_cfg;
    let mut place = Place {
        machine: &mut *boot.machine,
        fw_cfg,
        map: &mut *boot.map,
        scanned,
        stale: scanned,
        writes: Vec::new(),
        tpm_log: None,
    };
    if scanned != EBDA_TABLES && !fw_cfg.host_kind().puts_tables_into_memory() {
        place.clear(EBDA_TABLES);
    }
    if !in_memory.in_ebda
        && let Err(error) = bios_data::mark_ebda(place.machine)
    {
        log::warn!("the extended BIOS data area does not tell its length: {error}");
    }
    let rsdp = script.and_then(|script| match acpi::load(&mut place, script) {
        Ok(rsdp) => Some(rsdp),
        Err(error) => {
            log::warn!("no ACPI tables: {error}");
            None
        }
    });
    place.clear(place.stale);
    if let (Some(anchor), Some(tables)) = (fw_cfg.find(SMBIOS_ANCHOR), fw_cfg.find(SMBIOS_TABLES))
        && let Err(error) = smbios::load(&mut place, anchor, tables)
    {
        log::warn!("no SMBIOS tables: {error}");
    }
    let rsdp = rsdp.or(in_memory.rsdp);
    let tpm = match (rsdp, place.tpm_log) {
        (Some(_), Some(log)) => Presence::Described { log },
        (Some(_), None) => Presence::Absent,
        // Tables that could not be linked describe nothing.
        (None, _) if host::has_tpm(fw_cfg) => Presence::Undescribed,
        (None, _) => Presence::without_table(fw_cfg),
    };
    Tables { rsdp, writes: place.writes, tpm }
}

/// The machine, with what is left of the F-segment and of RAM.
struct Place<'a, M> {
    machine: &'a mut M,
    fw_cfg: &'a FwCfg,
    map: &'a mut MemoryMap,
    /// What is free of the memory that an operating system scans; empty where there is none.
    scanned: PhysRange,
    /// The memory that is scanned, while it still has what it had at the reset: a guest of before may have left tables there.
    /// Nothing is loaded to it before it is cleared.
    stale: PhysRange,
    /// What the host was told.
    writes: Vec<HostWrite>,
    /// Where the log of a TPM was put.
    tpm_log: Option<PhysRange>,
}

impl<M: HostAccess> Place<'_, M> {
    /// Memory at the top of RAM below 4 GiB.
    ///
    /// Reserved, not ACPI reclaimable or non-volatile: among the files are some that devices go on writing, which must
    /// neither be reused nor written back on resume.
    fn high(&mut self, len: u64, alignment: Alignment) -> Option<PhysRange> {
        let within = PhysRange::LOW_4_GIB;
        self.map.allocate(len, alignment, within, Placement::Top, MemoryType::RESERVED)
    }

    /// Memory that is scanned, or in its stead below 640 KiB.
    fn scanned(&mut self, len: u64, alignment: Alignment) -> Option<PhysRange> {
        let start = self.scanned.start().align_up(alignment.max(Alignment::PARAGRAPH))?;
        match PhysRange::new(start, len).filter(|&found| self.scanned.contains(found)) {
            Some(found) => {
                self.scanned = PhysRange::from_bounds(found.end(), self.scanned.end())?;
                Some(found)
            }
            None => self.map.allocate(len, alignment, CONVENTIONAL, Placement::Top, MemoryType::RESERVED),
        }
    }

    /// Loads `item` to `to`. What is the first of the memory that is scanned clears the rest of it: on QEMU by the same
    /// transfer, which gives zeros for what is behind an item's end.
    fn load(&mut self, item: Item, to: PhysAddr) -> Result<(), fw_cfg::Error> {
        let rest = PhysRange::from_bounds(to, self.stale.end()).filter(|rest| self.stale.contains(*rest));
        let Some(rest) = rest.filter(|rest| !rest.is_empty()) else {
            return self.fw_cfg.load(self.machine, item, to).map(|_| ());
        };
        let before = PhysRange::from_bounds(self.stale.start(), to).unwrap_or_default();
        if self.fw_cfg.transport(self.machine) == Transport::QemuDma && item.len() <= rest.len() as u32 {
            self.fill(before)?;
            self.fw_cfg.load(self.machine, Item::new(item.key(), rest.len() as u32), to)?;
        } else {
            self.fill(self.stale)?;
            self.fw_cfg.load(self.machine, item, to)?;
        }
        self.stale = PhysRange::default();
        Ok(())
    }

    /// Clears memory that is scanned.
    fn clear(&mut self, range: PhysRange) {
        if let Err(error) = self.fill(range) {
            log::warn!("tables of before the reset may be found: {error}");
        }
    }

    /// Sets a range, which may be empty, to zero.
    fn fill(&mut self, range: PhysRange) -> Result<(), MemoryError> {
        if range.is_empty() { Ok(()) } else { self.machine.fill(range, 0) }
    }
}
