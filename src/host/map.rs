//! The memory map of this host.

use super::offers::can_sleep;
use crate::fw_cfg::FwCfg;
use crate::hal::{HostAccess, Ports};
use crate::memory_map::{Error, HostMap};
use crate::start_info::{Start, StartInfo};

/// The host's list of RAM and reservations.
const E820: &str = "etc/e820";
/// The longest accepted list, in bytes: 1,024 entries.
const MOST: u32 = 20 << 10;

/// The map from the host's `etc/e820`, else from `hvm_start_info`, else from CMOS, with the holes of a PC cut out.
///
/// If `hvm_start_info` has ACPI tables, its own map comes first, because it reserves the tables' memory. The firmware's image and
/// the modules are reserved in it.
///
/// # Errors
/// [`Error::FwCfg`] if the list exists and cannot be read; [`Error::ModuleNotInRam`]; the errors of [`HostMap::from_e820`],
/// [`HostMap::from_start_info`], [`HostMap::from_cmos`] and [`HostMap::carve_pc`].
pub fn memory_map<M: HostAccess + Ports>(machine: &mut M, fw_cfg: &FwCfg, start: &Start) -> Result<HostMap, Error> {
    if let Start::Pvh(info) = start {
        return of_pvh_host(machine, fw_cfg, info);
    }
    let mut map = listed(machine, fw_cfg)?;
    if can_sleep(fw_cfg) {
        map.carve_pc_that_sleeps()?
    } else {
        map.carve_pc()?
    }
    Ok(map)
}

/// The map after a start by the PVH entry point. A wake from suspend never starts there.
#[cold]
fn of_pvh_host<M: HostAccess + Ports>(machine: &mut M, fw_cfg: &FwCfg, info: &StartInfo) -> Result<HostMap, Error> {
    let is_first = info.rsdp.is_some() || fw_cfg.find(E820).is_none();
    let mut map = if is_first && !info.memory_map.is_empty() {
        HostMap::from_start_info(&info.memory_map)?
    } else {
        listed(machine, fw_cfg)?
    };
    map.carve_pc()?;
    if let Some(&module) = info.modules.iter().find(|&&module| !map.is_ram(module)) {
        return Err(Error::ModuleNotInRam { module });
    }
    info.reserve(&mut map)?;
    Ok(map)
}

/// The map from `etc/e820`, else from CMOS.
#[inline(never)]
fn listed<M: HostAccess + Ports>(machine: &mut M, fw_cfg: &FwCfg) -> Result<HostMap, Error> {
    match fw_cfg.find(E820) {
        Some(item) => HostMap::from_e820(&fw_cfg.read_all(machine, item, MOST).map_err(Error::FwCfg)?),
        None => HostMap::from_cmos(machine),
    }
}
