//! Waking from suspend to RAM (ACPI's S3).
//!
//! A wake begins with a reset that keeps RAM. Chipset registers have their reset values, and the host has lost the addresses that
//! the firmware wrote into its files. The firmware sets both again, and jumps to the operating system's waking vector in real
//! mode (ACPI specification 6.5, 16.3, "Initialization"). All RAM is then the operating system's, except [`layout::WAKE_RAM`], in
//! which the firmware runs, and the [`Record`] that the boot stored.
//!
//! The order of a wake is in `lib.rs`. A guest can write RAM and CMOS, and a plain reset keeps both. So neither decides that a
//! reset is a wake. They only request one ([`is_requested`]); the host decides:
//!
//! 1. it offers S3 (`etc/system-states`) and ACPI tables, without which no operating system suspends ([`host::can_wake`]);
//! 2. its power management says that the machine was asleep: WAK_STS in the PM1 status register
//!    ([`crate::platform::Platform::was_asleep`]). The host sets this bit, a guest can only clear it, and a reset clears it.
//!
//! Until then, the firmware writes only [`layout::WAKE_RAM`] and uses nothing from the record. Without both, the reset is a boot,
//! which continues in the same run.
//!
//! A wake checks everything that it uses from memory: the record has a checksum and names the reserved memory, the tables have
//! checksums, and the waking vector must be in RAM below 1 MiB. What the host can say is read again, not remembered. A wake that
//! fails ends in a reset and a boot.
//!
//! Assumed: the host writes [`STATUS_WAKE`] to CMOS when the machine is suspended, as QEMU does (`hw/rtc/mc146818rtc.c`,
//! `rtc_notify_suspend`), and clears PM1 status at a reset, as QEMU does on `q35`, and on `pc` from 6.0 on (`hw/acpi/piix4.c`,
//! `piix4_pm_reset`). Left out: the other shutdown codes of a PC/AT (5, 10 and more), with which programs for the 80286 returned
//! from protected mode; waking in protected mode (`X_Firmware_Waking_Vector`), which no known host's tables offer; configuration
//! space of PCI functions, graphics modes, the clock's alarm and interrupt controllers, which an operating system restores
//! itself.

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

/// CMOS: the reason of the reset (IBM PC/AT technical reference, "shutdown status byte").
const SHUTDOWN_STATUS: u8 = 0x0f;
/// The value for a wake from suspend.
pub const STATUS_WAKE: u8 = 0xfe;
const STATUS_NONE: u8 = 0;

/// Stores the record of a boot whose tables have their root pointer at `rsdp`, and which wrote `writes` into the host's files. It
/// is stored only if all the memory that a wake needs is reserved; a page of it alone may be reserved for an adjacent table of
/// the host's. Without ACPI tables, no operating system suspends. Returns how to clear the reserved memory that is not in use.
pub fn prepare<M: Memory + Dma>(boot: &mut Boot<'_, M>, rsdp: Option<PhysAddr>, writes: Vec<HostWrite>) -> Clears {
    let fw_cfg = boot.fw_cfg;
    // The firmware must have reserved it, not a host that uses it.
    if !host::can_sleep(fw_cfg) || !boot.map.is_withheld(layout::KEPT_RAM) {
        return Clears::Nothing;
    }
    match rsdp {
        Some(rsdp) => Record { rsdp, writes }.store(boot.machine),
        None => record::clear(boot.machine),
    }
    // Other hosts with QEMU's register may have an item with this key.
    let is_qemu = fw_cfg.host_kind().is_qemu() && fw_cfg.transport(boot.machine) == Transport::QemuDma;
    if is_qemu { Clears::ByDma } else { Clears::ByCpu }
}

/// Whether RAM and CMOS request a wake: a record in RAM, and the value for it in CMOS. If not, removes the record of an earlier
/// boot. Resets the value, so that the next reset requests nothing.
///
/// CMOS is only read if there is a record: a machine that was just switched on has none, and this costs it nothing.
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

/// Removes the record: the next start is a boot, and so is this one if it turns out to be no wake.
pub fn abandon(machine: &mut impl Memory) {
    record::remove(machine);
}

/// Writes to the host's files again what the boot wrote.
pub fn tell_host<M: HostAccess>(machine: &mut M, fw_cfg: &FwCfg, writes: &[HostWrite]) {
    let mut not_taken = RateLimited::<4>::default();
    for write in writes {
        let file = write.file();
        let result = match fw_cfg.find(file) {
            Some(item) => fw_cfg.write(machine, item, write.offset(), write.bytes()),
            None => Err(crate::fw_cfg::Error::Absent),
        };
        if let Err(error) = result {
            not_taken.warn(format_args!("resume: the address in {file} could not be written again: {error}"));
        }
    }
    if let Some(rest) = not_taken.rest() {
        crate::warn!("resume: {rest} more addresses could not be written again");
    }
}
