//! Page tables for memory above 4 GiB.
//!
//! `src/firmware/start` maps the low 4 GiB, and a boot that stays there needs no more. What is to be put above is mapped when it is
//! known, at its own addresses and in large pages: a table for each gibibyte, and one more for each 512 GiB after the first.
//! Their memory is the caller's and stays in use until the kernel has tables of its own.
//!
//! While the firmware runs nothing but its code is executable, and page zero and the page under the stack are not mapped.
//! For the kernel [`give`] takes that back: everything is mapped then, and executable, at its own address.
//!
//! Assumed: four levels of tables, of which `src/firmware/start` made the first two at [`layout::PAGE_TABLES`]. Left out: pages of 1
//! GiB, which not every CPU has.

use crate::addr::{Alignment, PhysAddr, PhysRange, constant_range as space};
use crate::layout;

/// A page table entry for another table, and one for a large page: present, writable, accessed; dirty, large (Intel SDM
/// volume 3, tables 4-15 to 4-18).
const TABLE: u64 = 1 << 0 | 1 << 1 | 1 << 5;
const LARGE_PAGE: u64 = TABLE | 1 << 6 | 1 << 7;
/// The same for a page: present, writable, accessed, dirty (table 4-20).
const PAGE: u64 = TABLE | 1 << 6;
/// The bit of an entry that forbids to execute what it maps, if EFER.NXE is set.
const NO_EXECUTE: u64 = 1 << 63;
/// The bit of an entry that is in use.
const PRESENT: u64 = 1 << 0;
/// The bits of an entry that are an address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Entries in a table.
const ENTRIES: u64 = 512;
/// What an entry of the lowest table maps: 4 KiB.
const PAGE_SHIFT: u32 = 12;
/// What a table of large pages maps: 1 GiB.
const TABLE_SHIFT: u32 = 30;
/// What a table of those maps: 512 GiB.
const DIRECTORY_SHIFT: u32 = 39;

/// What can be mapped, in the order in which it is to be looked for room. The first 512 GiB share their table with the
/// program, which is at its end (see `src/firmware/start/reset.s`). From 64 TiB on Linux knows no RAM with four levels of tables
/// (`arch/x86/include/asm/sparsemem.h`, `MAX_PHYSMEM_BITS`).
pub const SPACES: [PhysRange; 2] = [space(4 << TABLE_SHIFT, 510 << TABLE_SHIFT), space(1 << DIRECTORY_SHIFT, 1 << 46)];

/// Whether `range` is all above 4 GiB, where something can be mapped.
#[must_use]
pub fn can_map(range: PhysRange) -> bool {
    SPACES.iter().any(|space| space.contains(range))
}

/// The bytes that tables for `range` take at most: whole pages.
#[must_use]
pub fn room_for(range: PhysRange) -> u64 {
    let touched = |shift: u32| match range.end().get().checked_sub(1) {
        Some(last) if !range.is_empty() => {
            (last >> shift).saturating_sub(range.start().get() >> shift).saturating_add(1)
        }
        _ => 0,
    };
    touched(TABLE_SHIFT).saturating_add(touched(DIRECTORY_SHIFT)).saturating_mul(Alignment::PAGE.bytes())
}

/// Access to the entries of page tables.
pub trait Entries {
    /// The entry at `at`, which is in [`layout::PAGE_TABLES`] or was set before.
    fn get(&mut self, at: PhysAddr) -> u64;
    /// Sets the entry at `at`, which is in [`layout::PAGE_TABLES`] or in the room for tables.
    fn set(&mut self, at: PhysAddr, entry: u64);
}

/// Maps `range` with tables in `room`, which starts on a page. What is mapped already stays as it is. `None`, with some of
/// it mapped, where there is too little room or where `range` is none that can be mapped.
pub fn map(entries: &mut impl Entries, range: PhysRange, room: PhysRange) -> Option<()> {
    if !can_map(range) || !room.start().is_aligned(Alignment::PAGE) {
        return None;
    }
    let mut free = room;
    // As it is for the low 4 GiB: there if the CPU has it.
    let no_execute = entries.get(slot(first_directory()?, 0)?) & NO_EXECUTE;
    let last = range.end().get().checked_sub(1).filter(|_| !range.is_empty())?;
    for gibibyte in range.start().get() >> TABLE_SHIFT..=last >> TABLE_SHIFT {
        let top = slot(layout::PAGE_TABLES.start(), gibibyte >> (DIRECTORY_SHIFT - TABLE_SHIFT))?;
        let directory = match entries.get(top) {
            entry if entry & PRESENT != 0 => PhysAddr::new(entry & ADDRESS),
            _ => {
                let directory = take(&mut free)?;
                fill(entries, directory, |_| 0)?;
                entries.set(top, directory.get() | TABLE);
                directory
            }
        };
        let upper = slot(directory, gibibyte)?;
        if entries.get(upper) & PRESENT == 0 {
            let table = take(&mut free)?;
            let start = gibibyte << TABLE_SHIFT;
            fill(entries, table, |i| start | i << 21 | LARGE_PAGE)?;
            entries.set(upper, table.get() | TABLE | no_execute);
        }
    }
    Some(())
}

/// Lets everything that is mapped at its own address, the low 4 GiB and these ranges, be executed, and maps what was left out
/// of the low 4 GiB.
pub fn give(entries: &mut impl Entries, ranges: &[PhysRange]) -> Option<()> {
    for page in [layout::PAGE_ZERO, layout::STACK_GUARD] {
        let start = page.start().get();
        entries.set(slot(layout::LOW_PAGES.start(), start >> PAGE_SHIFT)?, start | PAGE);
    }
    for range in [PhysRange::LOW_4_GIB].iter().chain(ranges) {
        let last = range.end().get().checked_sub(1).filter(|_| !range.is_empty())?;
        for gibibyte in range.start().get() >> TABLE_SHIFT..=last >> TABLE_SHIFT {
            let top = slot(layout::PAGE_TABLES.start(), gibibyte >> (DIRECTORY_SHIFT - TABLE_SHIFT))?;
            let upper = slot(PhysAddr::new(entries.get(top) & ADDRESS), gibibyte)?;
            let entry = entries.get(upper);
            entries.set(upper, entry & !NO_EXECUTE);
        }
    }
    Some(())
}

/// The table that the top one begins with.
fn first_directory() -> Option<PhysAddr> {
    layout::PAGE_TABLES.start().checked_add(Alignment::PAGE.bytes())
}

/// The place of the entry with this number, or of as much of the number as counts, in `table`.
fn slot(table: PhysAddr, number: u64) -> Option<PhysAddr> {
    table.checked_add((number % ENTRIES) << 3)
}

/// A page of the room.
fn take(free: &mut PhysRange) -> Option<PhysAddr> {
    let page = PhysRange::new(free.start(), Alignment::PAGE.bytes()).filter(|page| free.contains(*page))?;
    *free = PhysRange::from_bounds(page.end(), free.end())?;
    Some(page.start())
}

fn fill(entries: &mut impl Entries, table: PhysAddr, entry: impl Fn(u64) -> u64) -> Option<()> {
    for number in 0..ENTRIES {
        entries.set(slot(table, number)?, entry(number));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::BTreeMap;
    use std::vec::Vec;

    use super::*;

    const GIB: u64 = 1 << 30;
    const ROOM: PhysRange = space(0x1_2000, 0x1_8000);
    const TOP: u64 = layout::PAGE_TABLES.start().get();

    /// The tables as `src/firmware/start` leaves them, and what is written to them.
    struct Fake(BTreeMap<u64, u64>);

    impl Fake {
        fn new() -> Self {
            Self::with(0)
        }

        /// With this bit for what is not to be executed.
        fn with(no_execute: u64) -> Self {
            let mut entries = BTreeMap::from([(TOP, (TOP + 0x1000) | TABLE)]);
            entries.extend((0..4).map(|i| (TOP + 0x1000 + i * 8, (TOP + 0x2000 + i * 0x1000) | TABLE | no_execute)));
            Self(entries)
        }

        /// Where an address is mapped to, as the CPU finds it (Intel SDM volume 3, figure 4-9).
        fn translate(&self, address: u64) -> Option<u64> {
            let mut table = TOP;
            for shift in [39, 30, 21] {
                let entry =
                    *self.0.get(&(table + (address >> shift & 511) * 8)).filter(|entry| *entry & PRESENT != 0)?;
                if entry & (1 << 7) != 0 {
                    assert_eq!(shift, 21, "a page of 1 GiB");
                    return Some(entry & ADDRESS & !0x1f_ffff | address & 0x1f_ffff);
                }
                table = entry & ADDRESS;
            }
            panic!("no large page");
        }
    }

    impl Entries for Fake {
        fn get(&mut self, at: PhysAddr) -> u64 {
            self.0.get(&at.get()).copied().unwrap_or(0)
        }
        fn set(&mut self, at: PhysAddr, entry: u64) {
            let table = PhysRange::new(at, 8).unwrap();
            let own = [space(TOP, TOP + 0x2000), layout::LOW_PAGES];
            assert!(own.iter().chain([&ROOM]).any(|part| part.contains(table)), "an entry at {at}");
            self.0.insert(at.get(), entry);
        }
    }

    #[test]
    fn every_byte_is_mapped_at_its_own_address() {
        for range in [
            space(4 * GIB, 4 * GIB + 1),
            space(5 * GIB - 1, 5 * GIB + 1),
            space(7 * GIB + 4096, 9 * GIB),
            space(509 * GIB, 510 * GIB),
            space(512 * GIB, 513 * GIB + 1),
            space(1023 * GIB, 1025 * GIB),
        ] {
            let mut fake = Fake::new();
            let room = PhysRange::new(ROOM.start(), room_for(range)).unwrap();
            map(&mut fake, range, room).unwrap();
            for at in (range.start().get()..range.end().get()).step_by(1 << 20).chain([range.end().get() - 1]) {
                assert_eq!(fake.translate(at), Some(at), "{range}");
            }
            for gibibyte in [range.start().get() / GIB - 1, range.end().get().div_ceil(GIB)] {
                assert_eq!(fake.translate(gibibyte * GIB), None, "{range}: {gibibyte}");
            }
        }
    }

    #[test]
    fn what_is_mapped_is_executable_once_it_is_given() {
        let ranges = [space(5 * GIB - 1, 5 * GIB + 1), space(600 * GIB, 600 * GIB + 1)];
        // The entries that decide: of the first 512 GiB in the first table, of the others in the room's.
        let uppers = |fake: &Fake| -> Vec<u64> {
            let first = [0, 1, 2, 3, 4, 5].map(|i| TOP + 0x1000 + i * 8);
            let other = fake.0[&(TOP + 8)] & ADDRESS;
            first.into_iter().chain([other + (600 - 512) * 8]).map(|at| fake.0[&at]).collect()
        };
        for no_execute in [NO_EXECUTE, 0] {
            let mut fake = Fake::with(no_execute);
            map(&mut fake, ranges[0], space(0x1_2000, 0x1_5000)).unwrap();
            map(&mut fake, ranges[1], space(0x1_5000, 0x1_8000)).unwrap();
            assert!(uppers(&fake).iter().all(|entry| entry & (NO_EXECUTE | PRESENT) == no_execute | PRESENT));
            give(&mut fake, &ranges).unwrap();
            assert!(uppers(&fake).iter().all(|entry| entry & (NO_EXECUTE | PRESENT) == PRESENT));
            for page in [layout::PAGE_ZERO, layout::STACK_GUARD] {
                let start = page.start().get();
                assert_eq!(fake.0[&(layout::LOW_PAGES.start().get() + start / 4096 * 8)], start | PAGE);
            }
        }
    }

    #[test]
    fn a_second_range_keeps_the_first() {
        for (first, second) in [(5 * GIB, 5 * GIB + 4096), (600 * GIB, 601 * GIB), (6 * GIB, 600 * GIB)] {
            let mut fake = Fake::new();
            map(&mut fake, space(first, first + 4096), space(0x1_2000, 0x1_4000)).unwrap();
            map(&mut fake, space(second, second + 4096), space(0x1_4000, 0x1_6000)).unwrap();
            assert_eq!((fake.translate(first), fake.translate(second)), (Some(first), Some(second)));
        }
    }

    #[test]
    fn what_cannot_be_mapped_is_not() {
        let room = |pages: u64| PhysRange::new(ROOM.start(), pages * 4096).unwrap();
        for range in [space(4 * GIB - 1, 4 * GIB), space(510 * GIB - 1, 510 * GIB + 1), space(1 << 46, (1 << 46) + 1)] {
            assert_eq!(map(&mut Fake::new(), range, room(3)), None, "{range}");
        }
        assert_eq!(map(&mut Fake::new(), space(5 * GIB, 7 * GIB), room(1)), None);
        assert_eq!(map(&mut Fake::new(), space(5 * GIB, 6 * GIB), space(0x1_2001, 0x1_8000)), None);
    }

    #[test]
    fn room_is_for_as_many_tables_as_are_touched() {
        assert_eq!(room_for(space(5 * GIB, 5 * GIB)), 0);
        assert_eq!(room_for(space(5 * GIB, 6 * GIB)), 2 * 4096);
        assert_eq!(room_for(space(6 * GIB - 1, 6 * GIB + 1)), 3 * 4096);
        assert_eq!(room_for(space(1023 * GIB, 1025 * GIB)), 4 * 4096);
    }
}
