//! Waking from suspend to RAM (ACPI's S3).
//!
//! The machine comes out of it by a reset that leaves RAM as it was: chipset registers are back at their reset values,
//! and the addresses that the host was told are forgotten. The firmware sets both again and goes on where the operating
//! system asked for, in real mode (ACPI specification 6.5, 16.3, "Initialization"). All RAM is the operating
//! system's then, but for [`layout::WAKE_RAM`], which the firmware runs in, and the [`Record`] that the boot left.
//!
//! The order of a wake is in `lib.rs`. Nothing that is found in memory is used unchecked: the record has a checksum and
//! names the memory that was kept, the tables have theirs, and the address to go on at is RAM below 1 MiB. What can be
//! had from the host is asked for again rather than remembered. A wake that cannot be carried out ends in a reset and a
//! boot from the start.
//!
//! Assumed: the host writes [`STATUS_WAKE`] to CMOS when the machine goes to sleep, as QEMU does (`hw/rtc/mc146818rtc.c`,
//! `rtc_notify_suspend`). Left out: the other shutdown codes of a PC/AT (5, 10 and more), with which programs for the
//! 80286 came back from protected mode; waking in protected mode (`X_Firmware_Waking_Vector`), which the tables of no known
//! host offer; configuration space of PCI functions, graphics modes, the clock's alarm and interrupt controllers, which
//! an operating system restores itself.
#![forbid(unsafe_code)]

mod error;
mod record;
#[cfg(test)]
mod tests;
mod vector;

pub use error::Error;
pub use record::{HostWrite, Record};
pub use vector::WakingVector;

use crate::cmos;
use crate::fw_cfg::FwCfg;
use crate::hal::{Machine, Memory, Ports};
use crate::layout;
use crate::logging::Few;
use crate::memory_map::MemoryMap;
use crate::tables::Tables;

/// Which sleep states the machine offers, six bytes (QEMU `hw/acpi/core.c`). Its name alone tells a machine with the
/// power management of a PC from others; what is in it is not asked for, because that would cost every boot a transfer.
const SYSTEM_STATES: &str = "etc/system-states";

/// CMOS: why the machine was reset (IBM PC/AT technical reference, "shutdown status byte").
const SHUTDOWN_STATUS: u8 = 0x0f;
/// The value for a wake from suspend.
pub const STATUS_WAKE: u8 = 0xfe;
const STATUS_NONE: u8 = 0;

/// Whether this machine can suspend, so that memory is kept for a wake.
#[must_use]
pub fn can_sleep(fw_cfg: &FwCfg) -> bool {
    fw_cfg.find(SYSTEM_STATES).is_some()
}

/// Leaves the record of a boot that loaded these tables, if all the memory is kept that a wake needs: a page of it alone
/// may be for a host's table beside it. Without ACPI tables no operating system suspends.
pub fn prepare(machine: &mut impl Memory, map: &MemoryMap, tables: Tables) {
    if let Some(rsdp) = tables.rsdp.filter(|_| map.is_withheld(layout::KEPT_RAM)) {
        Record { rsdp, writes: tables.told, has_tpm: tables.tpm_log.is_some() }.store(machine);
    }
}

/// Whether this reset is a wake. If not, a record of an earlier boot is removed.
///
/// CMOS is only read where there is a record: a machine that was just switched on has none, and this costs nothing.
pub fn is_pending(machine: &mut (impl Ports + Memory)) -> bool {
    if !record::is_present(machine) {
        return false;
    }
    let wakes = cmos::read(machine, SHUTDOWN_STATUS) == STATUS_WAKE;
    if wakes {
        // The next reset is one like any other, however this wake ends.
        cmos::write(machine, SHUTDOWN_STATUS, STATUS_NONE);
    } else {
        record::remove(machine);
    }
    wakes
}

/// Gives a wake up: the next start is a boot.
pub fn abandon(machine: &mut impl Memory) {
    record::remove(machine);
}

/// Writes to the host's files again what it was told at the boot.
pub fn tell_host<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, writes: &[HostWrite]) {
    let mut not_taken = Few::<4>::default();
    for write in writes {
        let file = write.file();
        let result = match fw_cfg.find(file) {
            Some(item) => fw_cfg.write(machine, item, write.offset(), write.bytes()),
            None => Err(crate::fw_cfg::Error::Absent),
        };
        if let Err(error) = result {
            not_taken.warn(format_args!("resume: the host did not take again what it asked for in {file}: {error}"));
        }
    }
    if let Some(rest) = not_taken.rest() {
        log::warn!("resume: the host did not take again {rest} more of what it asked for");
    }
}
