//! The MP configuration table: CPUs and interrupts for a guest whose host has no ACPI tables (`-machine acpi=off`).
//!
//! Without the table, such a guest has one CPU and the two 8259 interrupt controllers; on a microvm without these it
//! has no interrupt controller. If there are ACPI tables, no MP table is made, because kernels look for ACPI first. The
//! floating pointer goes to the start of the extended BIOS data area, in the last KiB below 640 KiB, where guests look
//! for it and where no chipset register has to be set. The table goes to the top of RAM below 4 GiB.
//!
//! No table is made on a board that is not QEMU's, because only the host knows its devices.
//!
//! Assumed: a PC's one I/O APIC, whose inputs 0 to 15 are the ISA interrupts, except that of the timer, which is input
//! 2 (QEMU `hw/intc/ioapic.c`). Left out: PCI root buses other than bus 0; the PIR table, because guests find its
//! routes in the PCI functions' interrupt lines.
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

/// The address of the pointer: in the first KiB of the extended BIOS data area, which is also the last KiB below 640
/// KiB (chapter 4).
const POINTER: PhysAddr = layout::EBDA_TABLES.start();

/// The local APIC's version register: the version in the low byte (Intel SDM volume 3, 10.4.8).
const LOCAL_APIC_VERSION: PhysAddr = PhysAddr::new(layout::LOCAL_APIC.start().get() + 0x30);

/// Makes the table, unless the host has put one into memory ([`InMemory::mp_table`]). A failure is a warning, because a
/// kernel runs without the table.
///
/// [`InMemory::mp_table`]: crate::tables::InMemory::mp_table
pub fn load<M: Machine>(boot: &mut Boot<'_, M>, board: &dyn Board) {
    match try_load(boot, board) {
        Ok(true) => {}
        Ok(false) => crate::warn!("no MP table: there is no RAM for it"),
        Err(error) => crate::warn!("no MP table: {error}"),
    }
}

/// Whether the table was made or is not needed. `false` if there is no RAM for it.
fn try_load<M: Machine>(boot: &mut Boot<'_, M>, board: &dyn Board) -> Result<bool, MemoryError> {
    if board.is_foreign() {
        // The board is not QEMU's. Its host can make the table itself: bhyve does so, at 0xf0000.
        return Ok(true);
    }
    let features = Features::read(boot.machine);
    if !features.has_local_apic() {
        // Without a local APIC there are no other CPUs, and no I/O APIC can reach the CPU. The table is not needed.
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

/// The CPUs, the boot CPU first. Only the boot CPU if the others cannot be started.
fn processors<M: Machine>(
    machine: &mut M,
    fw_cfg: &FwCfg,
    features: Features,
) -> Result<table::Processors, MemoryError> {
    let [version, ..] = machine.read_register32(LOCAL_APIC_VERSION)?.to_le_bytes();
    let others = cpus::other_ids(machine, fw_cfg, features).unwrap_or_else(|error| {
        crate::warn!("the guest gets one CPU: {error}");
        cpus::Ids::new()
    });
    let processor = |id, is_boot| table::Processor::new(id, is_boot, version, features.signature, features.edx);
    let mut processors = table::Processors::new();
    let all = others.iter().map(|&id| processor(id, false));
    for processor in core::iter::once(processor(features.apic_id, true)).chain(all) {
        // There is room for every identifier.
        let _ = processors.try_push(processor);
    }
    Ok(processors)
}
