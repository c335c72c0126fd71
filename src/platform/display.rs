//! The display of a machine on which nothing else will run: where a boot failed.
//!
//! Assumed: any state of the machine. The failure may have come before anything was set up, in the middle, or after all of
//! it. Left out: the chipset's registers, memory types and interrupts, which a picture does not need.

use super::detect;
use super::root::Root;
use crate::addr::{PhysAddr, PhysRange};
use crate::fw_cfg::FwCfg;
use crate::hal::Machine;
use crate::memory_map::Regions;
use crate::pci::{ConfigAccess, Devices};

/// Where RAM below 4 GiB ends at the most, unless the user has asked for more (QEMU `hw/i386/pc_piix.c`, the default of
/// `max-ram-below-4g`).
const MOST_RAM: PhysAddr = PhysAddr::new(0xe000_0000);

/// Gives PCI functions addresses for the sake of the first display. All are below 4 GiB, where the firmware can reach the
/// display, and where `map` has no RAM; what has no room there gets no address, the largest first. A map without RAM is
/// taken for one that is not known.
///
/// Nothing where there is no chipset whose PCI the firmware sets up.
pub fn set_up_for_display<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, map: &Regions) -> Devices {
    let board = detect::board(machine, fw_cfg);
    let low_ram_end = map.ram_end(PhysRange::LOW_4_GIB).unwrap_or(MOST_RAM);
    let root = Root::of(board, low_ram_end);
    // By the ports: whether the memory-mapped window is open is not known.
    root.map_or_else(Devices::default, |root| root.configure(machine, fw_cfg, map, ConfigAccess::Ports, None))
}
