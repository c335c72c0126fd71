//! The whole boot, and a reset and a wake after it, on a machine that an input describes.
//!
//! Input: the captured machine to start from, its parts, and then changes to it: items, files, functions on PCI, registers,
//! memory. Without changes it boots Debian's kernel.

mod parameters;
mod reset;
mod script;
mod seeds;

use std::ops::Range;

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::boot::{Entry, Handover};
use firstlight::failure::{self, Failure};
use firstlight::fakes::machine::FakeMachine;
use firstlight::fw_cfg::{Error, FwCfg};
use firstlight::host;
use firstlight::memory_map::HostMap;
use firstlight::start_info::Start;
use firstlight::{layout, resume};

pub use self::script::{CHIPSETS, board};
pub use self::seeds::seeds;

use self::parameters::Parameters;
use self::script::{AtReset, KERNEL_SIZE, Script, is_usable};
use crate::cmos::Pm1;
use crate::input::Input;
use crate::one_line;

/// The addresses of PCI functions below 4 GiB, which include a display's memory.
const DISPLAYS: Range<u64> = 0x8000_0000..0xfec0_0000;

/// Boots, and wakes from suspend.
///
/// A boot ends in a handover, or in one line with the reason, which is shown on the display. It writes only RAM that the host's
/// map has and nobody reserves, the memory for a BIOS's tables, and the firmware's own. All parts that the kernel gets are RAM in
/// its map, disjoint, and have the host's bytes. A wake writes only the firmware's own memory. It continues in RAM below 1 MiB or
/// not at all, and only if the host says that the machine was asleep. A plain reset in between is a boot like the first, whatever
/// the operating system leaves. All of this takes a bounded number of accesses.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    let _ = boot(bytes);
}

/// The result.
#[derive(Debug)]
enum Outcome {
    /// The boot failed.
    Failed,
    /// The boot succeeded, and there was no wake.
    Booted,
    /// Boot and wake succeeded.
    Woken,
}

fn boot(bytes: &[u8]) -> Outcome {
    let script = Script::take(&mut Input::new(bytes));
    let map = host_map(&script);
    let ram: Vec<_> = map.iter().flat_map(|map| map.regions()).map(|region| region.range).collect();
    let ram: Vec<_> = ram.into_iter().filter(|range| map.as_ref().is_some_and(|map| map.is_ram(*range))).collect();
    let mut machine = script.machine(ram.clone(), AtReset::PLAIN);
    machine.memory.keep_stores();
    let result = start(&mut machine, script.start);
    let first = reset::Seen::of(&script, &machine, &result);
    let may_be_written = |store: &Range<u64>| {
        let store = range(store.start, store.end);
        // The memory for the firmware's tables, which may have entry points of lost tables.
        let bios = range(0xe_0000, 0x10_0000);
        let is_image = script.start != Start::Reset && store.overlaps(layout::LOADED_IMAGE);
        layout::BOOT_RAM.contains(store)
            || range(0x9_fc00, 0xa_0000).contains(store)
            || bios.contains(store)
            || map.as_ref().is_some_and(|map| map.is_ram(store)) && !is_image
    };
    for store in machine.memory.stores() {
        assert!(may_be_written(store), "{store:x?} is written; RAM is {ram:?}");
    }
    let image = script.kernel_address().map_or_else(PhysRange::default, |at| range_of(at, script.number(KERNEL_SIZE)));
    let is_over_image = |store: &Range<u64>| range(store.start, store.end).overlaps(image);
    let over_image = machine.memory.stores().iter().find(|store| is_over_image(store)).cloned();
    // Configuration space that reads differently each time leads to different boots.
    if script.resets && script.start == Start::Reset && script.pci.is_settled() {
        reset::check(&script, &first, &machine, &ram);
    }
    let handover = match result {
        Ok(handover) => handover,
        Err(failure) => {
            one_line(&failure.error.to_string());
            machine.memory.keep_stores();
            machine.steps = 0;
            failure::show(&mut machine, script.start, &failure.error);
            let is_display = |store: &Range<u64>| {
                // RAM is not known if the map cannot be read, or if only the data of a start by the PVH entry point has it.
                let is_ram_known = map.is_some() && script.start == Start::Reset;
                let is_ram = ram.iter().any(|ram| ram.overlaps(range(store.start, store.end)));
                DISPLAYS.start <= store.start && store.end <= DISPLAYS.end && !(is_ram_known && is_ram)
            };
            for store in machine.memory.stores() {
                assert!(may_be_written(store) || is_display(store), "{store:x?} is drawn on; RAM is {ram:?}");
            }
            return Outcome::Failed;
        }
    };
    if let Entry::LinuxLow { block, .. } = handover.entry {
        // As the last jump does.
        let bytes = machine.memory.bytes(block.staged.start().get(), block.staged.len() as usize);
        machine.memory.store(block.place.get(), &bytes);
    }
    assert!(!matches!(handover.entry, Entry::Pvh(_)) || over_image.is_none(), "{over_image:x?} is over the kernel");
    let parameters = Parameters::of(&script, &machine, &handover);
    parameters.check(&script, &machine, map.as_ref().expect("no kernel without a map"));

    let mut asleep = script.machine(ram, AtReset { shutdown_status: Some(0xfe), pm1: Pm1::WOKEN, dma_address: None });
    asleep.memory = machine.memory;
    for (at, bytes) in script.later.iter().filter(|(at, _)| is_usable(*at)) {
        asleep.memory.store(*at, bytes);
    }
    asleep.memory.keep_stores();
    if !resume::is_requested(&mut asleep) {
        return Outcome::Booted;
    }
    let woken = firstlight::wake(&mut asleep);
    for store in asleep.memory.stores() {
        assert!(layout::BOOT_RAM.contains(range(store.start, store.end)), "{store:x?} is written in a wake");
    }
    match woken {
        Ok(Some(vector)) => {
            let at = u64::from(vector.get());
            let is_ram = map.as_ref().is_some_and(|map| map.is_ram(range(at, at + 1)));
            assert!(at != 0 && at < 1 << 20 && is_ram, "{at:#x}");
            Outcome::Woken
        }
        Ok(None) => Outcome::Booted,
        Err(failure) => {
            one_line(&failure.error.to_string());
            Outcome::Booted
        }
    }
}

/// The start of the program on a machine that was not suspended.
fn start(machine: &mut FakeMachine, from: Start<PhysAddr>) -> Result<Handover, Failure> {
    if from == Start::Reset && resume::is_requested(machine) {
        let woken = firstlight::wake(machine).map_err(|failure| failure.error.to_string());
        assert_eq!(woken, Ok(None), "a wake of a machine that did not sleep");
    }
    firstlight::run(machine, from)
}

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
}

fn range_of(start: u32, len: u32) -> PhysRange {
    PhysRange::new(PhysAddr::new(start.into()), len.into()).unwrap()
}

/// The firmware's map of the host's data, with a PC's holes cut out.
fn host_map(script: &Script) -> Option<HostMap> {
    let mut machine = script.machine(Vec::new(), AtReset::PLAIN);
    let start = script.start.read(&mut machine).ok()?;
    let fw_cfg = match FwCfg::probe(&mut machine) {
        Err(Error::NoDevice { .. }) if start.info().is_some() => FwCfg::absent(),
        result => result.ok()?,
    };
    host::memory_map(&mut machine, &fw_cfg, &start).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_boot_and_wake() {
        let outcomes: Vec<_> = seeds().iter().map(|seed| boot(seed)).collect();
        let count = |wanted: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| wanted(outcome)).count();
        let woken = count(|outcome| matches!(outcome, Outcome::Woken));
        let failed = count(|outcome| matches!(outcome, Outcome::Failed));
        // Three seeds have neither map nor CMOS, one a kernel that is larger than memory, one a module outside RAM; two have a
        // display and no kernel.
        assert!(woken >= 14 && failed == 7, "{outcomes:#?}");
    }
}
