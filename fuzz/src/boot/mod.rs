//! The whole boot, a reset and a wake after it, on a machine that an input makes up.
//!
//! Input: which captured machine it is like, what it has, and then orders that change it, to the end: items, files,
//! functions on PCI, registers, memory. Without any it boots Debian's kernel.

mod reset;
mod script;
mod seeds;
mod told;

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

use self::script::{AtReset, KERNEL_SIZE, Script, is_usable};
use self::told::Told;
use crate::cmos::Pm1;
use crate::input::Input;
use crate::one_line;

/// Where PCI functions below 4 GiB can be, and with them a display's memory.
const DISPLAYS: Range<u64> = 0x8000_0000..0xfec0_0000;

/// Boots, and wakes up again.
///
/// A boot ends in a handover or in one line that says why not, and that is shown on the display. It writes only to RAM that the
/// host's map has and nobody holds, to where a BIOS has its tables, and to what is the firmware's own; the kernel gets a map in
/// which all that it is handed is RAM and apart, with the bytes that the host has for it. A wake writes only to the firmware's
/// own memory, and goes on in RAM below 1 MiB or not at all, and only where the host says that the machine was asleep. A plain
/// reset between the two is a boot like the first, whatever the operating system leaves ([`reset`]). None of it takes more than
/// a bounded number of accesses.
///
/// # Panics
/// When that is not so.
pub fn run(bytes: &[u8]) {
    let _ = boot(bytes);
}

/// How it went.
#[derive(Debug)]
enum Outcome {
    /// No boot.
    Failed,
    /// A boot, and no wake.
    Booted,
    /// Both.
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
        // Where tables of the firmware go, and entry points may be whose tables are lost.
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
    // Configuration space that answers otherwise each time makes for other boots too.
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
                // Where the map cannot be read, or only what a start by the PVH entry hands over has it, RAM is not known.
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
    let told = Told::of(&script, &machine, handover);
    told.check(&script, &machine, map.as_ref().expect("no kernel without a map"));

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

/// As the program starts on a machine of which nothing says that it slept.
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

/// The map as the firmware makes it of what the host says, with a PC's holes cut out.
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
        // One has neither map nor CMOS, in three seeds, one a kernel that is larger than memory, and one a module outside;
        // two have a display and no kernel.
        assert!(woken >= 14 && failed == 7, "{outcomes:#?}");
    }
}
