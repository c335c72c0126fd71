//! What every step of a boot works on, as one value.

use crate::fw_cfg::FwCfg;
use crate::memory_map::MemoryMap;
use crate::start_info::Start;

/// A boot from the moment on at which the firmware may put something into memory.
#[derive(Debug)]
pub struct Boot<'a, M> {
    /// The machine.
    pub machine: &'a mut M,
    /// The host's device, with its directory.
    pub fw_cfg: &'a FwCfg,
    /// What is where in memory, and what is free.
    pub map: &'a mut MemoryMap,
    /// How the firmware was started.
    pub start: &'a Start,
}
