//! The display of a machine whose boot failed.
//!
//! The machine may be in any state: the failure may have come before, during or after its setup. Left out: the chipset's
//! registers, memory types and interrupts, which a picture does not need.

use super::detect;
use super::root::Root;
use crate::addr::{PhysAddr, PhysRange};
use crate::fw_cfg::FwCfg;
use crate::hal::Machine;
use crate::memory_map::Regions;
use crate::pci::{ConfigAccess, Devices};

/// The highest end of RAM below 4 GiB, unless the user has asked for more (QEMU `hw/i386/pc_piix.c`, the default of
/// `max-ram-below-4g`).
const MOST_RAM: PhysAddr = PhysAddr::new(0xe000_0000);

/// Assigns addresses to PCI functions, for the first display. All are below 4 GiB, where the firmware can access the display, and
/// where `map` has no RAM. What does not fit gets no address, the largest first. A map without RAM counts as unknown.
///
/// Returns no devices if the firmware does not set up PCI on this board.
pub fn set_up_for_display<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, map: &Regions) -> Devices {
    let board = detect::board(machine, fw_cfg);
    let low_ram_end = map.ram_end(PhysRange::LOW_4_GIB).unwrap_or(MOST_RAM);
    let root = Root::of(board, low_ram_end);
    // Uses the ports, because the memory-mapped window may not be open.
    root.map_or_else(Devices::default, |root| root.configure(machine, fw_cfg, map, ConfigAccess::Ports, None))
}
