//! Waking from suspend to RAM (ACPI's S3).
//!
//! The machine comes out of it by a reset that leaves RAM as it was: chipset registers are back at their reset values,
//! and the addresses that the host was told are forgotten. The firmware sets both again and goes on where the operating
//! system asked for, in real mode (ACPI specification 6.5, 16.3, "Initialization"). All RAM is the operating
//! system's then, but for [`layout::WAKE_RAM`], which the firmware runs in, and the [`Record`] that the boot left.
//!
//! The order of a wake is in `lib.rs`. A guest can write RAM and CMOS, and a plain reset keeps both. So neither decides
//! that a reset is a wake. They only ask for one ([`is_requested`]); the host decides:
//!
//! 1. it offers S3 (`etc/system-states`) and ACPI tables, without which no operating system suspends ([`host::can_wake`]);
//! 2. its power management says that the machine was asleep: WAK_STS in the PM1 status register
//!    ([`crate::platform::Platform::was_asleep`]). The host sets this bit, a guest can only clear it, and a reset clears it.
//!
//! Until then only [`layout::WAKE_RAM`] is written and nothing is taken from the record. Without both the reset is a
//! boot, which goes on in the same run.
//!
//! In a wake nothing that is found in memory is used unchecked: the record has a checksum and
//! names the memory that was kept, the tables have theirs, and the address to go on at is RAM below 1 MiB. What can be
//! had from the host is asked for again rather than remembered. A wake that cannot be carried out ends in a reset and a
//! boot from the start.
//!
//! Assumed: the host writes [`STATUS_WAKE`] to CMOS when the machine goes to sleep, as QEMU does (`hw/rtc/mc146818rtc.c`,
//! `rtc_notify_suspend`), and clears PM1 status at a reset, as QEMU does on `q35`, and on `pc` from 6.0 on
//! (`hw/acpi/piix4.c`, `piix4_pm_reset`). Left out: the other shutdown codes of a PC/AT (5, 10 and more), with which programs
//! for the 80286 came back from protected mode; waking in protected mode (`X_Firmware_Waking_Vector`), which the tables of
//! no known host offer; configuration space of PCI functions, graphics modes, the clock's alarm and interrupt controllers,
//! which an operating system restores itself.

mod error;
mod record;
#[cfg(test)]
mod tests;
mod vector;

pub use error::Error;
pub use record::Record;
pub use vector::WakingVector;

use alloc::vec::Vec;

use crate::addr::PhysAddr;
use crate::boot::Clears;
use crate::cmos;
use crate::fw_cfg::{FwCfg, Transport};
use crate::hal::{Dma, HostAccess, Memory, Ports};
use crate::host::{self, HostWrite};
use crate::layout;
use crate::logging::RateLimited;
use crate::state::Boot;

/// CMOS: why the machine was reset (IBM PC/AT technical reference, "shutdown status byte").
const SHUTDOWN_STATUS: u8 = 0x0f;
/// The value for a wake from suspend.
pub const STATUS_WAKE: u8 = 0xfe;
const STATUS_NONE: u8 = 0;

/// Leaves the record of a boot whose tables have their root pointer at `rsdp`, and that wrote `writes` into the host's files, if
/// all the memory is kept that a wake needs: a page of it alone
/// may be for a host's table beside it. Without ACPI tables no operating system suspends. Gives how what is kept and is not in
/// use is to be cleared.
pub fn prepare<M: Memory + Dma>(boot: &mut Boot<'_, M>, rsdp: Option<PhysAddr>, writes: Vec<HostWrite>) -> Clears {
    let fw_cfg = boot.fw_cfg;
    // Reserved by the firmware, and not by a host that has something there.
    if !host::can_sleep(fw_cfg) || !boot.map.is_withheld(layout::KEPT_RAM) {
        return Clears::Nothing;
    }
    match rsdp {
        Some(rsdp) => Record { rsdp, writes }.store(boot.machine),
        None => record::clear(boot.machine),
    }
    // Others that have the register of QEMU may take the key for an item.
    let is_qemu = fw_cfg.host_kind().is_qemu() && fw_cfg.transport(boot.machine) == Transport::QemuDma;
    if is_qemu { Clears::ByDma } else { Clears::ByCpu }
}

/// Whether what the guest left asks for a wake: a record in RAM, and the value for it in CMOS. If not, the record of an
/// earlier boot is removed. The value is set back, so the next reset asks for nothing.
///
/// CMOS is only read where there is a record: a machine that was just switched on has none, and this costs nothing.
pub fn is_requested(machine: &mut (impl Ports + Memory)) -> bool {
    if !record::is_present(machine) {
        return false;
    }
    let requested = cmos::read(machine, SHUTDOWN_STATUS) == STATUS_WAKE;
    if requested {
        cmos::write(machine, SHUTDOWN_STATUS, STATUS_NONE);
    } else {
        record::remove(machine);
    }
    requested
}

/// Removes the record: the next start is a boot, and so is this one where it turns out to be no wake.
pub fn abandon(machine: &mut impl Memory) {
    record::remove(machine);
}

/// Writes to the host's files again what it was told at the boot.
pub fn tell_host<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg, writes: &[HostWrite]) {
    let mut not_taken = RateLimited::<4>::default();
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
