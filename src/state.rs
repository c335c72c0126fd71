//! The state that the steps of a boot work on, as one value.

use crate::fw_cfg::FwCfg;
use crate::memory_map::MemoryMap;
use crate::start_info::Start;

/// A boot, once the firmware may put something into memory.
#[derive(Debug)]
pub struct Boot<'a, M> {
    /// The machine.
    pub machine: &'a mut M,
    /// The host's fw_cfg device, with its directory.
    pub fw_cfg: &'a FwCfg,
    /// The memory map.
    pub map: &'a mut MemoryMap,
    /// How the firmware was started.
    pub start: &'a Start,
}
