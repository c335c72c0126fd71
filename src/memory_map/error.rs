//! Errors of the memory map.

use core::fmt;

use super::region::CAPACITY;
use crate::addr::PhysRange;

/// Why a map could not be made or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The change needs more than [`CAPACITY`] regions, or the host's reservations fill the map.
    Full,
    /// The heap has no room for a map.
    HeapFull,
    /// The range to release is a hole, or some of it is free.
    NotAllocated {
        /// The range to release.
        range: PhysRange,
    },
    /// `etc/e820` lists no RAM.
    NoRamInE820,
    /// The map of `hvm_start_info` lists no RAM.
    NoRamInStartInfo,
    /// All RAM in the list reaches past the last address.
    RamWraps,
    /// A module of `hvm_start_info` is where the map has no RAM.
    ModuleNotInRam {
        /// The module.
        module: PhysRange,
    },
    /// `etc/e820` cannot be read.
    FwCfg(crate::fw_cfg::Error),
    /// There is no `etc/e820`, and CMOS has no plausible memory size.
    NoRamInCmos,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(f, "the memory map needs more than {CAPACITY} regions; give the machine fewer"),
            Self::HeapFull => f.write_str("the firmware's heap has no room for the memory map"),
            Self::NotAllocated { range } => write!(f, "memory {range} was not allocated"),
            Self::FwCfg(error) => write!(f, "the host's etc/e820 cannot be read: {error}"),
            Self::NoRamInE820 => f.write_str("the host's etc/e820 lists no RAM; give the machine memory"),
            Self::NoRamInStartInfo => {
                f.write_str("the memory map of hvm_start_info lists no RAM; give the machine memory")
            }
            Self::RamWraps => f.write_str(
                "all RAM in the memory map reaches past the last address; the host has to give its true size",
            ),
            Self::ModuleNotInRam { module } => write!(
                f,
                "PVH start: the host has put a module at {module}, which is not all RAM by the memory map; give the machine \
                 more memory"
            ),
            Self::NoRamInCmos => f.write_str("the host gives no memory size: no etc/e820, nothing usable in CMOS"),
        }
    }
}

impl core::error::Error for Error {}
