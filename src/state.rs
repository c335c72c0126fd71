//! The state of a boot, which every step uses, as one value.

use crate::fw_cfg::FwCfg;
use crate::memory_map::MemoryMap;
use crate::start_info::Start;

/// A boot after the memory map is complete, so that the firmware may put data into memory.
#[derive(Debug)]
pub struct Boot<'a, M> {
    /// The machine.
    pub machine: &'a mut M,
    /// The host's fw_cfg device, with its directory.
    pub fw_cfg: &'a FwCfg,
    /// The memory map: what is in use, and what is free.
    pub map: &'a mut MemoryMap,
    /// How the firmware was started.
    pub start: &'a Start,
}
