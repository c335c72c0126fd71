//! The PCI root of a board: the inputs for the configuration of all functions.

use super::aperture::{high_apertures, unoccupied};
use super::board::{Board, Chipset};
use crate::addr::{PhysAddr, PhysRange};
use crate::fw_cfg::FwCfg;
use crate::hal::Machine;
use crate::memory_map::Regions;
use crate::pci::{self, Apertures, ConfigAccess, Devices, HostBridge, LowApertures};

/// The number of root buses other than bus 0, 64 bits, little-endian.
const EXTRA_ROOTS: &str = "etc/extra-pci-roots";

/// The end of the host's space above RAM for memory that is plugged in later, 64 bits, little-endian.
const RESERVED_MEMORY_END: &str = "etc/reserved-memory-end";

/// The root of a board whose PCI the firmware sets up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Root {
    board: &'static dyn Board,
    chipset: &'static Chipset,
    /// The aperture for PCI memory below 4 GiB.
    pub(super) memory: PhysRange,
}

impl Root {
    /// The root of `board`. RAM below 4 GiB ends at `low_ram_end`.
    pub(super) fn of(board: &'static dyn Board, low_ram_end: PhysAddr) -> Option<Self> {
        let chipset = board.chipset()?;
        Some(Self { board, chipset, memory: board.pci_memory(low_ram_end)? })
    }

    /// Assigns addresses to all functions, where `map` has nothing: below 4 GiB and, unless `high_bits` is `None`, above it
    /// within so many address bits.
    pub(super) fn configure<M: Machine>(
        &self,
        machine: &mut M,
        fw_cfg: &FwCfg,
        map: &Regions,
        access: ConfigAccess,
        high_bits: Option<u8>,
    ) -> Devices {
        // QEMU reserves nothing there.
        let free = if fw_cfg.host_kind().is_qemu() { self.memory } else { unoccupied(map, self.memory) };
        let low = LowApertures::new(self.chipset.ports, free);
        let mut read_number = |name| fw_cfg.read_file(machine, name).map(u64::from_le_bytes);
        let high = high_bits.map(|bits| (bits, read_number(RESERVED_MEMORY_END).map(PhysAddr::new)));
        let apertures = || {
            let all = match high {
                Some((bits, reserved)) => Apertures::new(low, high_apertures(map, reserved, bits), bits),
                None => Apertures::new(low, None, 0),
            };
            all.or_ports(self.chipset.more_ports)
        };
        let host = HostBridge {
            extra_roots: read_number(EXTRA_ROOTS).unwrap_or(0),
            chipset: self.board.chipset_functions(fw_cfg.host_kind()),
            low,
            apertures: &apertures,
            routing: &|device, pin| self.board.interrupt(device, pin),
        };
        access.with(machine, |config| pci::configure(config, access, &host))
    }
}
