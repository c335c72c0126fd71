//! The MP configuration table: CPUs and interrupts for a guest whose host has no ACPI tables (`-machine acpi=off`).
//!
//! Without it such a guest has one CPU and the two old interrupt controllers, and none at all on a microvm without these.
//! With ACPI tables it is not made: kernels look there first. The floating pointer goes to the start of the extended BIOS
//! data area, in the last KiB below 640 KiB, where a guest looks and where no chipset register must be set for it; the
//! table itself to the top of RAM below 4 GiB.
//!
//! Nor is it made on a board that is none of QEMU's, since the host knows what is on it.
//!
//! Assumed: a PC's one I/O APIC, whose inputs 0 to 15 are the ISA interrupts but for the timer's, which is input 2 (QEMU
//! `hw/intc/ioapic.c`). Left out: PCI root buses beside bus 0; the PIR table, whose routes a guest finds in the PCI
//! functions' interrupt lines.
//!
//! Source: Intel MultiProcessor Specification, version 1.4, chapter 4.

mod table;
#[cfg(test)]
mod tests;

use uefi_raw::table::boot::MemoryType;

use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::cpus::{self, Features};
use crate::fw_cfg::FwCfg;
use crate::hal::{Machine, MemoryError};
use crate::layout;
use crate::memory_map::Placement;
use crate::platform::Board;
use crate::state::Boot;
use table::FloatingPointer;

/// Where the pointer goes: the first KiB of the extended BIOS data area, which is the last below 640 KiB as well (chapter 4).
const POINTER: PhysAddr = layout::EBDA_TABLES.start();

/// The local APIC's version register: the version in the low byte (Intel SDM volume 3, 10.4.8).
const LOCAL_APIC_VERSION: PhysAddr = PhysAddr::new(table::LOCAL_APIC as u64 + 0x30);

/// Makes the table, on a host that has put none into memory itself ([`InMemory::mp_table`]). What fails is warned of: a
/// kernel runs without it.
///
/// [`InMemory::mp_table`]: crate::tables::InMemory::mp_table
pub fn load<M: Machine>(boot: &mut Boot<'_, M>, board: &dyn Board) {
    match try_load(boot, board) {
        Ok(true) => {}
        Ok(false) => log::warn!("no MP table: there is no RAM for it"),
        Err(error) => log::warn!("no MP table: {error}"),
    }
}

/// Whether there is a table now, or nothing for one to tell.
fn try_load<M: Machine>(boot: &mut Boot<'_, M>, board: &dyn Board) -> Result<bool, MemoryError> {
    if board.is_foreign() {
        // Another board than QEMU's, which its host describes itself if it likes: bhyve does so, at 0xf0000.
        return Ok(true);
    }
    let features = Features::read(boot.machine);
    if !features.has_local_apic() {
        // No local APIC, so neither other CPUs nor an I/O APIC that would reach it: there is nothing to tell.
        return Ok(true);
    }
    let Ok(table) = table::build(&processors(boot.machine, boot.fw_cfg, features)?, board) else { return Ok(false) };
    let within = PhysRange::LOW_4_GIB;
    let len = table.len() as u64;
    let place = boot.map.allocate(len, Alignment::PARAGRAPH, within, Placement::Top, MemoryType::RESERVED);
    let Some((place, pointer)) = place.and_then(|place| Some((place, FloatingPointer::to(place.start())?))) else {
        return Ok(false);
    };
    boot.machine.write(place.start(), &table)?;
    boot.machine.write(POINTER, zerocopy::IntoBytes::as_bytes(&pointer))?;
    Ok(true)
}

/// The CPUs, the boot CPU first; that one alone if the others cannot be asked.
fn processors<M: Machine>(
    machine: &mut M,
    fw_cfg: &FwCfg,
    features: Features,
) -> Result<table::Processors, MemoryError> {
    let [version, ..] = machine.read_register32(LOCAL_APIC_VERSION)?.to_le_bytes();
    let others = cpus::other_ids(machine, fw_cfg, features).unwrap_or_else(|error| {
        log::warn!("the guest gets one CPU: {error}");
        cpus::Ids::new()
    });
    let processor = |id, is_boot| table::Processor::new(id, is_boot, version, features.signature, features.edx);
    let mut processors = table::Processors::new();
    let all = others.iter().map(|&id| processor(id, false));
    for processor in core::iter::once(processor(features.apic_id, true)).chain(all) {
        // There is room for as many as have an identifier.
        let _ = processors.try_push(processor);
    }
    Ok(processors)
}
