//! The map as this host gives it.

use super::{Error, MemoryMap};
use crate::fw_cfg::FwCfg;
use crate::hal::Machine;
use crate::resume;

/// The host's list of RAM and reservations.
const E820: &str = "etc/e820";
/// The longest list that is read, in bytes: 1,024 entries.
const MOST: u32 = 20 << 10;

impl MemoryMap {
    /// The map of the host's `etc/e820`, else of CMOS, with the holes of a PC cut out.
    ///
    /// # Errors
    /// [`Error::FwCfg`] when the list is there and cannot be read; else what [`Self::from_e820`], [`Self::from_cmos`]
    /// and [`Self::carve_pc`] give.
    pub fn of_host<M: Machine>(machine: &mut M, fw_cfg: &FwCfg) -> Result<Self, Error> {
        let mut map = match fw_cfg.find(E820) {
            Some(item) => Self::from_e820(&fw_cfg.read_all(machine, item, MOST).map_err(Error::FwCfg)?)?,
            None => Self::from_cmos(machine)?,
        };
        if resume::can_sleep(fw_cfg) {
            map.carve_pc_that_sleeps()?
        } else {
            map.carve_pc()?
        }
        Ok(map)
    }
}
