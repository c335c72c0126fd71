//! Errors of the memory map.

use super::region::CAPACITY;
use crate::addr::PhysRange;

/// Why a map could not be made or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The change needs more than [`CAPACITY`] regions, or the host's reservations fill the map.
    #[error("the memory map needs more than {CAPACITY} regions; give the machine fewer")]
    Full,
    /// The heap has no room for a map.
    #[error("the firmware's heap has no room for the memory map")]
    HeapFull,
    /// The range to release is a hole, or some of it is free.
    #[error("memory {range} was not allocated")]
    NotAllocated {
        /// The range to release.
        range: PhysRange,
    },
    /// `etc/e820` lists no RAM.
    #[error("the host's etc/e820 lists no RAM; give the machine memory")]
    NoRamInE820,
    /// The map of `hvm_start_info` lists no RAM.
    #[error("the memory map of hvm_start_info lists no RAM; give the machine memory")]
    NoRamInStartInfo,
    /// All RAM in the list reaches past the last address.
    #[error("all RAM in the memory map reaches past the last address; the host has to give its true size")]
    RamWraps,
    /// A module of `hvm_start_info` is where the map has no RAM.
    #[error(
        "PVH start: the host has put a module at {module}, which is not all RAM by the memory map; give the machine \
         more memory"
    )]
    ModuleNotInRam {
        /// The module.
        module: PhysRange,
    },
    /// `etc/e820` cannot be read.
    #[error("the host's etc/e820 cannot be read: {0}")]
    FwCfg(crate::fw_cfg::Error),
    /// There is no `etc/e820`, and CMOS has no plausible memory size.
    #[error("the host gives no memory size: no etc/e820, nothing usable in CMOS")]
    NoRamInCmos,
}
