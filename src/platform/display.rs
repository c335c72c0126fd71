//! The display of a machine on which nothing else will run: where a boot failed.
//!
//! Assumed: any state of the machine. The failure may have come before anything was set up, in the middle, or after all of
//! it. Left out: the chipset's registers, memory types and interrupts, which a picture does not need.

use super::{Chipset, EXTRA_ROOTS, physical_bits, read_number, unoccupied};
use crate::addr::{PhysAddr, PhysRange};
use crate::fw_cfg::FwCfg;
use crate::hal::Machine;
use crate::memory_map::Regions;
use crate::pci::{Display, Near, Windows};

/// Where RAM below 4 GiB ends at the most, unless the user has asked for more (QEMU `hw/i386/pc_piix.c`, the default of
/// `max-ram-below-4g`).
const MOST_RAM: PhysAddr = PhysAddr::new(0xe000_0000);

/// Gives PCI functions addresses for the sake of the first display, and gives that. All are below 4 GiB, where the firmware
/// can reach the display, and where `map` has no RAM; what has no room there gets no address, the largest first. A map
/// without RAM is taken for one that is not known.
///
/// `None` where there is no such display, or no chipset whose PCI the firmware sets up.
pub fn set_up_display<M: Machine>(machine: &mut M, fw_cfg: &FwCfg, map: &Regions) -> Option<Display> {
    let chipset = Chipset::of_host(machine, fw_cfg);
    let low_ram_end = map.ram_end(PhysRange::LOW_4_GIB).unwrap_or(MOST_RAM);
    let (ports, low) = chipset.low_windows(low_ram_end)?;
    // QEMU reserves nothing there.
    let free = if fw_cfg.host_kind().is_qemu() { low } else { unoccupied(map, low) };
    let near = Near::new(ports, free);
    // Nothing above 4 GiB.
    let bits = physical_bits(machine);
    let windows = || Windows::new(near, None, bits).or_ports(chipset.more_ports());
    let extra_roots = read_number(machine, fw_cfg, EXTRA_ROOTS).unwrap_or(0);
    // By the ports: whether the memory-mapped window is open is not known.
    chipset.configure_pci(machine, None, extra_roots, near, &windows, fw_cfg.host_kind()).display
}
