//! Detects the board.

use super::board::{Board, Chipset, HOST_BRIDGE, ID};
use super::{microvm, none, pc, q35};
use crate::fw_cfg::FwCfg;
use crate::hal::Ports;
use crate::pci::{ConfigSpace as _, PortConfig};

/// The boards, in the order in which they are tried. All others are in [`none`].
static BOARDS: [&dyn Board; 3] = [&microvm::Microvm, &pc::Pc, &q35::Q35];

/// The board of this host.
pub(super) fn board(ports: &mut impl Ports, fw_cfg: &FwCfg) -> &'static dyn Board {
    let identified = BOARDS.into_iter().find(|board| board.is_identified_by_files(fw_cfg));
    identified.unwrap_or_else(|| with_host_bridge(ports, fw_cfg))
}

/// The board by its host bridge. If the host is not QEMU, the ISA bridge must be the chipset's too: crosvm's host bridge has the
/// IDs of the 440FX, without the rest of a PC.
fn with_host_bridge(ports: &mut impl Ports, fw_cfg: &FwCfg) -> &'static dyn Board {
    let mut config = PortConfig::new(ports);
    let id = config.read32(HOST_BRIDGE, ID);
    // Absent ports read as all ones; on crosvm and others as zero.
    if matches!(id, 0 | u32::MAX) {
        return none::without_pci(fw_cfg);
    }
    let mut has_isa_bridge = |chipset: &Chipset| {
        fw_cfg.host_kind().is_qemu() || config.read32(chipset.isa_bridge, ID) == chipset.isa_bridge_id
    };
    let mut is_it = |chipset: &Chipset| chipset.host_bridge_id == id && has_isa_bridge(chipset);
    let found = BOARDS.into_iter().find(|board| board.chipset().is_some_and(&mut is_it));
    found.unwrap_or_else(|| {
        crate::debug!("unknown host bridge {:04x}:{:04x}", id & 0xffff, id >> 16);
        none::FOREIGN
    })
}
