extern crate std;

use std::collections::BTreeMap;
use std::vec::Vec;

use super::*;
use crate::fakes::machine::FakeMachine;
use crate::hal::Memory;

const GIB: u64 = 1 << 30;
const ROOM: PhysRange = space(0x1_2000, 0x1_8000);
const TOP: u64 = layout::PAGE_TABLES.start().get();

/// The tables as `src/firmware/start` leaves them, with all later writes.
struct Fake(BTreeMap<u64, u64>);

/// The address that an address maps to, and the access rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapped {
    to: u64,
    writable: bool,
    executable: bool,
}

impl Fake {
    fn new() -> Self {
        Self::with(0)
    }

    /// Tables with this bit for memory that is not executable.
    fn with(no_execute: u64) -> Self {
        let mut entries = BTreeMap::from([(TOP, (TOP + 0x1000) | TABLE)]);
        for i in 0..4 {
            entries.insert(TOP + 0x1000 + i * 8, (TOP + 0x2000 + i * 0x1000) | TABLE | no_execute);
            entries.extend((0..512).map(|j| (TOP + 0x2000 + (i * 512 + j) * 8, i << 30 | j << 21 | LARGE_PAGE)));
        }
        let low = layout::LOW_PAGES.start().get();
        entries.insert(TOP + 0x2000, low | TABLE);
        entries.insert(TOP + 0x6000, low | TABLE | no_execute);
        entries.extend((1..512).map(|i| (low + i * 8, i << 12 | PAGE)));
        entries.remove(&(low + layout::STACK_GUARD.start().get() / 4096 * 8));
        Self(entries)
    }

    /// The CPU's translation of an address (Intel SDM volume 3, figures 4-8 and 4-9, and 4.6.1).
    fn look_up(&self, address: u64) -> Option<Mapped> {
        let (mut table, mut writable, mut executable) = (TOP, true, true);
        for shift in [39, 30, 21, 12] {
            let entry = *self.0.get(&(table + (address >> shift & 511) * 8)).filter(|entry| *entry & 1 != 0)?;
            writable &= entry & 1 << 1 != 0;
            executable &= entry & 1 << 63 == 0;
            if shift == 12 || entry & 1 << 7 != 0 {
                assert!(shift < 30, "a page of 1 GiB");
                let below = (1 << shift) - 1;
                return Some(Mapped { to: entry & ADDRESS & !below | address & below, writable, executable });
            }
            table = entry & ADDRESS;
        }
        unreachable!()
    }

    fn translate(&self, address: u64) -> Option<u64> {
        self.look_up(address).map(|mapped| mapped.to)
    }

    /// The access to an address, which must be mapped to itself.
    fn access(&self, address: u64) -> Option<Access> {
        let mapped = self.look_up(address)?;
        assert_eq!(mapped.to, address);
        match (mapped.writable, mapped.executable) {
            (false, true) => Some(Access::Code),
            (false, false) => Some(Access::Constants),
            (true, false) => Some(Access::Data),
            (true, true) => Some(Access::Any),
        }
    }
}

impl Entries for Fake {
    fn get(&mut self, at: PhysAddr) -> u64 {
        self.0.get(&at.get()).copied().unwrap_or(0)
    }
    fn set(&mut self, at: PhysAddr, entry: u64) {
        let table = PhysRange::new(at, 8).unwrap();
        let own = [space(TOP, TOP + 0x6000), layout::LOW_PAGES];
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
            let low = (gibibyte < 4).then_some(gibibyte * GIB);
            assert_eq!(fake.translate(gibibyte * GIB), low, "{range}: {gibibyte}");
        }
    }
}

#[test]
fn mapped_memory_becomes_executable_for_the_kernel() {
    let ranges = [space(5 * GIB - 1, 5 * GIB + 1), space(600 * GIB, 600 * GIB + 1)];
    // The entries that decide: for the first 512 GiB in the first table, for the others in the room's.
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
        give(&mut fake, &ranges);
        assert!(uppers(&fake).iter().all(|entry| entry & (NO_EXECUTE | PRESENT) == PRESENT));
        for page in [layout::PAGE_ZERO, layout::STACK_GUARD] {
            let start = page.start().get();
            assert_eq!(fake.0[&(layout::LOW_PAGES.start().get() + start / 4096 * 8)], start | PAGE);
        }
    }
}

#[test]
fn mapping_a_second_range_keeps_the_first() {
    for (first, second) in [(5 * GIB, 5 * GIB + 4096), (600 * GIB, 601 * GIB), (6 * GIB, 600 * GIB)] {
        let mut fake = Fake::new();
        map(&mut fake, space(first, first + 4096), space(0x1_2000, 0x1_4000)).unwrap();
        map(&mut fake, space(second, second + 4096), space(0x1_4000, 0x1_6000)).unwrap();
        assert_eq!((fake.translate(first), fake.translate(second)), (Some(first), Some(second)));
    }
}

#[test]
fn ranges_that_cannot_be_mapped_are_refused() {
    let room = |pages: u64| PhysRange::new(ROOM.start(), pages * 4096).unwrap();
    for range in [space(4 * GIB - 1, 4 * GIB), space(510 * GIB - 1, 510 * GIB + 1), space(1 << 46, (1 << 46) + 1)] {
        assert_eq!(map(&mut Fake::new(), range, room(3)), None, "{range}");
    }
    assert_eq!(map(&mut Fake::new(), space(5 * GIB, 7 * GIB), room(1)), None);
    assert_eq!(map(&mut Fake::new(), space(5 * GIB, 6 * GIB), space(0x1_2001, 0x1_8000)), None);
}

#[test]
fn a_programs_pages_are_code_constants_and_data_and_its_neighbours_stay_data() {
    // Within a large page, across the border of two, in the low 2 MiB, whole large pages, above 4 GiB.
    for start in [0x40_3000, 0x5f_f000, 0x10_0000, 0x60_0000, 6 * GIB + 0x1000] {
        let mut fake = Fake::with(NO_EXECUTE);
        map(&mut fake, space(5 * GIB, 6 * GIB + 1), space(0x1_6000, 0x1_8000)).unwrap();
        let [code, constants, data, end] = [0, 0x3000, 0x5000, 0x20_9000].map(|offset| start + offset);
        let mut room = space(0x1_2000, 0x1_6000);
        for (range, access) in [
            (space(code, constants), Access::Code),
            (space(constants, data), Access::Constants),
            (space(data, end), Access::Code),
            (space(data, end), Access::Data),
        ] {
            let rest = protect(&mut fake, range, access, room).unwrap();
            assert!(room.len() - rest.len() <= room_to_protect(range) && rest.end() == room.end());
            room = rest;
        }
        for page in (start - 0x6_0000..end + 0x20_0000).step_by(4096) {
            let wanted = match page {
                _ if (code..constants).contains(&page) => Access::Code,
                _ if (constants..data).contains(&page) => Access::Constants,
                _ => Access::Data,
            };
            assert_eq!(fake.access(page), Some(wanted), "{page:#x} of {start:#x}");
        }
        // The program's own view of low memory is unchanged.
        assert_eq!(fake.0[&(TOP + 0x6000)] & NO_EXECUTE, NO_EXECUTE);
    }
}

#[test]
fn all_pages_of_a_program_become_executable_for_the_kernel() {
    for no_execute in [NO_EXECUTE, 0] {
        let mut fake = Fake::with(no_execute);
        let high = space(6 * GIB, 6 * GIB + 1);
        map(&mut fake, high, space(0x1_7000, 0x1_8000)).unwrap();
        let mut room = space(0x1_2000, 0x1_7000);
        for (start, access) in [
            (0x10_0000, Access::Code),
            (0x40_0000, Access::Code),
            (GIB, Access::Constants),
            (6 * GIB, Access::Constants),
            (6 * GIB + 0x40_0000, Access::Code),
        ] {
            room = protect(&mut fake, space(start, start + 0x20_1000), access, room).unwrap();
            assert!(!fake.look_up(start).unwrap().writable);
            assert!(no_execute == 0 || fake.access(start) == Some(access));
        }
        give(&mut fake, &[high]);
        let low = (0..0xa0_0000).step_by(4096).chain((0xa0_0000..4 * GIB).step_by(1 << 21));
        for page in low.chain((6 * GIB..6 * GIB + 0xa0_0000).step_by(4096)) {
            assert_eq!(fake.look_up(page), Some(Mapped { to: page, writable: true, executable: true }), "{page:#x}");
        }
        assert!(fake.0.values().all(|entry| entry & PROTECTED == 0));
    }
}

#[test]
fn memory_that_was_given_is_protected_and_given_back() {
    for no_execute in [NO_EXECUTE, 0] {
        let mut fake = Fake::with(no_execute);
        let high = space(6 * GIB, 6 * GIB + 1);
        map(&mut fake, high, space(0x1_7000, 0x1_8000)).unwrap();
        give(&mut fake, &[high]);
        for start in [0x10_0000, 0x40_0000, 0x60_3000, 6 * GIB + 0x1000] {
            let whole = space(start, start + 0x20_5000);
            assert_eq!(super::access(&mut fake, whole), Some(Access::Any));
            let mut room = space(0x1_2000, 0x1_7000);
            let parts = [
                (0, 0x1000, Access::Constants),
                (0x1000, 0x20_2000, Access::Code),
                (0x20_2000, 0x20_5000, Access::Data),
            ];
            for (from, to, access) in parts {
                room = protect(&mut fake, space(start + from, start + to), access, room).unwrap();
            }
            for (from, to, access) in parts {
                let seen = match (access, no_execute) {
                    (Access::Constants, 0) => Access::Code,
                    (Access::Data, 0) => Access::Any,
                    (access, _) => access,
                };
                assert_eq!(super::access(&mut fake, space(start + from, start + to - 1)), Some(seen));
                assert!((from..to).step_by(4096).all(|at| fake.access(start + at) == Some(seen)));
            }
            assert_eq!(super::access(&mut fake, whole), None);
            assert_eq!(fake.access(start - 1), Some(Access::Any));
            assert_eq!(fake.access(start + 0x20_5000), Some(Access::Any));
            // No more tables for what has them, and none for what is so already.
            let none = PhysRange::empty_at(ROOM.start());
            assert!(protect(&mut fake, whole, Access::Any, none).is_some());
            assert!(protect(&mut fake, space(0x2000_1000, 0x2000_2000), Access::Any, none).is_some());
            assert_eq!(super::access(&mut fake, whole), Some(Access::Any));
            fake = Fake::with(no_execute);
            map(&mut fake, high, space(0x1_7000, 0x1_8000)).unwrap();
            give(&mut fake, &[high]);
        }
        assert_eq!(super::access(&mut fake, space(8 * GIB, 8 * GIB + 1)), None, "not mapped");
    }
}

#[test]
fn memory_mapped_after_a_program_was_protected_is_not_executable() {
    let mut fake = Fake::with(NO_EXECUTE);
    protect(&mut fake, space(0x40_0000, 0x60_0000), Access::Code, PhysRange::empty_at(ROOM.start())).unwrap();
    map(&mut fake, space(5 * GIB, 5 * GIB + 1), ROOM).unwrap();
    assert_eq!(fake.access(5 * GIB), Some(Access::Data));
}

#[test]
fn a_failure_to_protect_changes_nothing() {
    let mut fake = Fake::with(NO_EXECUTE);
    // After a start by the PVH entry point, a part of the last large page is mapped elsewhere.
    fake.0.insert(TOP + 0x6000 - 8, 0xe0_0000 | LARGE_PAGE);
    let before = fake.0.clone();
    let room = |pages: u64| PhysRange::new(ROOM.start(), pages * 4096).unwrap();
    for (range, room) in [
        (space(0x40_1000, 0x60_1000), room(1)),
        (space(0x40_0001, 0x40_1000), room(2)),
        (space(0x40_0000, 0x40_1001), room(2)),
        (space(0x40_0000, 0x40_1000), space(0x1_2001, 0x1_4000)),
        (space(0x1_0000, 0x1_3000), room(2)),
        (space(5 * GIB, 5 * GIB + 0x1000), room(2)),
        (space(600 * GIB, 600 * GIB + 0x1000), room(2)),
        (space(4 * GIB - 0x1000, 4 * GIB + 0x1000), room(2)),
        (space(4 * GIB - 0x20_0000, 4 * GIB), room(2)),
        (space(0, 0x2000), room(2)),
        (layout::STACK_GUARD, room(2)),
    ] {
        assert_eq!(protect(&mut fake, range, Access::Code, room), None, "{range}");
        assert!(fake.0 == before, "{range}");
    }
}

#[test]
fn room_to_protect_is_a_table_for_each_partial_large_page() {
    for (start, end, tables) in [
        (0x40_0000, 0x40_0000, 0),
        (0x40_1000, 0x40_1000, 0),
        (0x40_0000, 0x60_0000, 0),
        (0x40_0000, 0x40_1000, 1),
        (0x40_1000, 0x60_0000, 1),
        (0x40_1000, 0x40_2000, 1),
        (0x40_1000, 0x60_1000, 2),
        (0x40_1000, 0x80_1000, 2),
    ] {
        assert_eq!(room_to_protect(space(start, end)), tables * 4096, "{start:#x}");
    }
}

#[test]
fn room_to_map_is_for_as_many_tables_as_are_used() {
    assert_eq!(room_for(space(5 * GIB, 5 * GIB)), 0);
    assert_eq!(room_for(space(5 * GIB, 6 * GIB)), 2 * 4096);
    assert_eq!(room_for(space(6 * GIB - 1, 6 * GIB + 1)), 3 * 4096);
    assert_eq!(room_for(space(1023 * GIB, 1025 * GIB)), 4 * 4096);
}

#[test]
fn a_machine_maps_two_ranges_each_with_tables_of_its_own() {
    let range = |gib: u64| space(gib * GIB, gib * GIB + 4096);
    let room = |number: u64| space(0x1_2000 + number * 0x3000, 0x1_5000 + number * 0x3000);
    let mut machine = FakeMachine::new();
    machine.map(range(5), room(0)).unwrap();
    let tables = |machine: &FakeMachine| [machine.memory.bytes(TOP, 0x9000), machine.memory.bytes(0x1_2000, 0x9000)];
    let before = tables(&machine);
    // Tables of the first range would be overwritten.
    assert!(machine.map(range(6), room(0)).is_err());
    assert!(machine.map(range(6), space(0x1_4000, 0x1_7000)).is_err());
    assert!(tables(&machine) == before);
    machine.map(range(6), room(1)).unwrap();
    let before = tables(&machine);
    assert!(machine.map(range(7), room(2)).is_err());
    assert!(tables(&machine) == before);
    assert!(machine.inspect(range(6), &mut |_| {}).is_ok() && machine.inspect(range(7), &mut |_| {}).is_err());
}
