//! How `ResetSystem` turns the machine off: what the ACPI tables say, which an operating system that has no driver for ACPI would
//! do.
//!
//! What is written is in the tables' code (`\_S5`), which is not run here. It is known for QEMU (`hw/i386/acpi-build.c`,
//! `hw/acpi/generic_event_device.c`), and only there this is used.

use super::runtime::PowerOff;
use crate::acpi::{HEADER_LEN, TableReader};
use crate::addr::{PhysAddr, PhysRange};
use crate::hal::Memory;
use crate::memory_map::Regions;

/// Offsets in a FADT (ACPI 6.5, table 5.9): the port of the PM1a control register, the flags, and the address of the sleep
/// control register.
const PM1A_CONTROL: u64 = 64;
const FLAGS: u64 = 112;
const SLEEP_CONTROL_SPACE: u64 = 244;
const SLEEP_CONTROL: u64 = 248;
/// The flag of a machine without the registers of a PC, and the address space of registers in memory.
const HARDWARE_REDUCED: u64 = 1 << 20;
const SYSTEM_MEMORY: u64 = 0;

/// `SLP_EN` with type 0, which is S5 on QEMU's PCs (ACPI 6.5, table 4.19).
const PM1_OFF: u16 = 1 << 13;
/// `SLP_EN` with type 5, which is S5 on QEMU's machines without the registers of a PC (ACPI 6.5, table 4.24).
const SLEEP_OFF: u16 = 1 << 5 | 5 << 2;

/// How the machine with these tables is turned off.
pub fn find(memory: &mut dyn Memory, map: &Regions, rsdp: PhysAddr) -> Option<PowerOff> {
    let is_table = |range: PhysRange| map.is_withheld(range);
    let mut tables = TableReader::new(memory, &is_table);
    let root = tables.root(rsdp).ok()?;
    let mut index = 0_u64;
    let fadt = loop {
        let at = tables.entry(&root, index)?;
        match tables.any_table(at, HEADER_LEN) {
            Some((name, range)) if name == *b"FACP" => break range,
            _ => index = index.saturating_add(1),
        }
    };
    let mut number = |offset, len| tables.number(fadt, offset, len);
    if number(FLAGS, 4)? & HARDWARE_REDUCED == 0 {
        let port = u16::try_from(number(PM1A_CONTROL, 4)?).ok().filter(|&port| port != 0)?;
        return Some(PowerOff { port, value: PM1_OFF, ..PowerOff::default() });
    }
    let register = number(SLEEP_CONTROL, 8).filter(|&register| register != 0)?;
    let is_memory = number(SLEEP_CONTROL_SPACE, 1)? == SYSTEM_MEMORY;
    is_memory.then(|| PowerOff { register, value: SLEEP_OFF, ..PowerOff::default() })
}
