//! Each status of a call; the map and what is allocated agree whatever is called.

extern crate std;

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

const MIB: u64 = 1 << 20;

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
}

/// 0 to 0x9f000 and 1 MiB to 16 MiB of RAM, with the firmware's own, and 4 MiB above 4 GiB.
fn map() -> MemoryMap {
    let mut map = HostMap::default();
    map.describe(range(0, 0xa_0000), MemoryType::CONVENTIONAL).unwrap();
    map.describe(range(MIB, 16 * MIB), MemoryType::CONVENTIONAL).unwrap();
    map.describe(range(4096 * MIB, 4100 * MIB), MemoryType::CONVENTIONAL).unwrap();
    map.reserve(range(0x9_fc00, 0xa_0000), MemoryType::RESERVED).unwrap();
    map.reserve(range(0x4_0000, 0x8_0000), MemoryType::BOOT_SERVICES_DATA).unwrap();
    map.reserve(range(0xf_0000, 0x10_0000), MemoryType::RESERVED).unwrap();
    MemoryMap::new(map)
}

const DATA: MemoryType = MemoryType::LOADER_DATA;

#[test]
fn pages_are_the_highest_below_4_gib_and_then_the_highest_of_all() {
    let mut memory = Memory::new(map());
    assert_eq!(memory.allocate_pages(Wanted::AnyPages, DATA, 2), Ok(PhysAddr::new(16 * MIB - 0x2000)));
    assert_eq!(memory.allocate_pages(Wanted::AnyPages, DATA, 1), Ok(PhysAddr::new(16 * MIB - 0x3000)));
    let low = (15 * MIB - 0x3000) / 0x1000;
    assert_eq!(memory.allocate_pages(Wanted::AnyPages, DATA, low + 1), Err(Status::OUT_OF_RESOURCES));
    assert_eq!(memory.allocate_pages(Wanted::AnyPages, DATA, low), Ok(PhysAddr::new(MIB)));
    assert_eq!(memory.allocate_pages(Wanted::AnyPages, DATA, 0x200), Ok(PhysAddr::new(4098 * MIB)));
}

#[test]
fn pages_below_an_address_have_no_byte_above_it() {
    let mut memory = Memory::new(map());
    let mut below = |last, pages| memory.allocate_pages(Wanted::MaxAddress(last), DATA, pages).map(PhysAddr::get);
    assert_eq!(below(0x20_0fff, 1), Ok(0x20_0000));
    assert_eq!(below(0x20_0ffe, 1), Ok(0x1f_f000));
    assert_eq!(below(u64::MAX, 1), Ok(16 * MIB - 0x1000));
    assert_eq!(below(0xffff, 14), Ok(0x2000));
    assert_eq!(below(0xffff, 2), Err(Status::OUT_OF_RESOURCES));
    assert_eq!(below(0xffff, 1), Ok(0x1000), "the page at zero is nobody's");
    assert_eq!(below(0xffff, 1), Err(Status::OUT_OF_RESOURCES));
}

#[test]
fn pages_at_an_address_are_those_or_none() {
    let mut memory = Memory::new(map());
    let mut at = |at, pages| memory.allocate_pages(Wanted::Address(at), DATA, pages).map(PhysAddr::get);
    assert_eq!(at(0x20_0000, 4), Ok(0x20_0000));
    assert_eq!(at(0x20_0800, 4), Err(Status::INVALID_PARAMETER));
    for (start, pages) in
        [(0x20_3000, 1), (0x1f_f000, 2), (0x7_f000, 2), (0x9_f000, 1), (16 * MIB, 1), (u64::MAX - 0xfff, 1)]
    {
        assert_eq!(at(start, pages), Err(Status::NOT_FOUND), "{start:#x}");
    }
    assert_eq!(at(0x20_4000, 1), Ok(0x20_4000));
}

#[test]
fn a_number_of_pages_that_cannot_be_is_refused() {
    let mut memory = Memory::new(map());
    for pages in [0, 1 << 52, u64::MAX] {
        assert_eq!(memory.allocate_pages(Wanted::AnyPages, DATA, pages), Err(Status::OUT_OF_RESOURCES));
        assert_eq!(memory.allocate_pages(Wanted::MaxAddress(u64::MAX), DATA, pages), Err(Status::OUT_OF_RESOURCES));
        assert_eq!(memory.allocate_pages(Wanted::Address(MIB), DATA, pages), Err(Status::NOT_FOUND));
    }
}

#[test]
fn memory_is_allocated_as_the_types_that_have_a_meaning_and_those_of_loaders() {
    let mut memory = Memory::new(map());
    for kind in [7, 14, 15, 16, 0x6fff_ffff].map(MemoryType) {
        assert_eq!(memory.allocate_pages(Wanted::AnyPages, kind, 1), Err(Status::INVALID_PARAMETER), "{kind:?}");
        assert_eq!(memory.allocate_pool(kind, 1), Err(Status::INVALID_PARAMETER), "{kind:?}");
    }
    for kind in (0..=13).filter(|&kind| kind != 7).chain([0x7000_0000, 0x8000_0000, 0xffff_ffff]).map(MemoryType) {
        let at = memory.allocate_pages(Wanted::AnyPages, kind, 1).unwrap();
        let shown = memory.descriptors().find(|descriptor| {
            descriptor.phys_start <= at.get() && at.get() < descriptor.phys_start + descriptor.page_count * 0x1000
        });
        assert_eq!(shown.unwrap().ty, kind);
        assert!(memory.allocate_pool(kind, 1).is_ok());
    }
}

#[test]
fn images_free_what_is_theirs_in_any_pieces() {
    let mut memory = Memory::new(map());
    let before: Vec<_> = memory.descriptors().collect();
    for kind in [DATA, MemoryType::RUNTIME_SERVICES_DATA, MemoryType::ACPI_RECLAIM] {
        memory.allocate_pages(Wanted::Address(0x20_0000), kind, 4).unwrap();
        memory.allocate_pages(Wanted::Address(0x20_4000), DATA, 4).unwrap();
        assert_eq!(memory.free_pages(0x20_3000, 2), Ok(()));
        assert_eq!(memory.free_pages(0x20_3000, 1), Err(Status::NOT_FOUND));
        assert_eq!(memory.free_pages(0x20_2000, 2), Err(Status::NOT_FOUND));
        assert_eq!(memory.free_pages(0x20_0000, 3), Ok(()));
        assert_eq!(memory.free_pages(0x20_5000, 3), Ok(()));
        assert_eq!(memory.descriptors().collect::<Vec<_>>(), before);
    }
}

/// The pages of each type that is shown, in `pages`.
fn kinds(memory: &Memory, pages: PhysRange) -> Vec<(u64, u64, MemoryType)> {
    let all = memory.descriptors().map(|shown| (shown.phys_start, shown.page_count, shown.ty));
    all.filter(|&(start, ..)| pages.contains_addr(PhysAddr::new(start))).collect()
}

#[test]
fn memory_that_a_device_may_still_write_is_never_used_again() {
    let mut memory = Memory::new(map());
    memory.allocate_pages(Wanted::Address(0x20_0000), DATA, 8).unwrap();
    let (key, lost) = (memory.key(), range(0x20_2800, 0x20_3800));
    assert_eq!(memory.give_up(lost), Ok(()));
    assert_ne!(memory.key(), key, "the map that is shown has changed");
    let pages = range(0x20_0000, 0x20_8000);
    let expected = [(0x20_0000, 2, DATA), (0x20_2000, 2, MemoryType::RESERVED), (0x20_4000, 4, DATA)];
    assert_eq!(kinds(&memory, pages), expected);
    // Its owner frees it, and gets it no more.
    assert_eq!(memory.free_pages(0x20_0000, 8), Ok(()));
    assert_eq!(kinds(&memory, pages), expected);
    for at in [0x20_2000, 0x20_3000] {
        assert_eq!(memory.allocate_pages(Wanted::Address(at), DATA, 1), Err(Status::NOT_FOUND));
    }
    // A part without any of it is free.
    assert_eq!(memory.free_pages(0x20_4000, 4), Ok(()));
    assert_eq!(memory.allocate_pages(Wanted::Address(0x20_4000), DATA, 4), Ok(PhysAddr::new(0x20_4000)));
    // The same of a pool.
    let pool = memory.allocate_pool(DATA, 0x3000).unwrap();
    assert_eq!(memory.give_up(range(pool.get(), pool.get() + 512)), Ok(()));
    assert_eq!(memory.free_pool(pool.get()), Ok(None));
    let others: Vec<_> = (0..1000).map_while(|_| memory.allocate_pool(DATA, 0x3000).ok()).collect();
    assert!(others.len() > 100 && others.iter().all(|&other| other != pool));
    // The firmware's own, and what a program took without asking.
    let own = memory.reserve_pages(1).unwrap();
    let free = range(0x50_0000, 0x50_1000);
    for pages in [own, free] {
        assert_eq!(memory.give_up(pages), Ok(()));
        assert_eq!(kinds(&memory, pages), [(pages.start().get(), 1, MemoryType::RESERVED)]);
    }
    assert_eq!(memory.allocate_pages(Wanted::Address(0x50_0000), DATA, 1), Err(Status::NOT_FOUND));
}

#[test]
fn what_is_no_image_s_is_not_freed() {
    let mut memory = Memory::new(map());
    for at in [0x4_0000, 0xf_0000, 0x9_f000, MIB, 32 * MIB, u64::MAX - 0xfff] {
        assert_eq!(memory.free_pages(at, 1), Err(Status::NOT_FOUND), "{at:#x}");
    }
    let at = memory.allocate_pages(Wanted::AnyPages, DATA, 1).unwrap().get();
    assert_eq!(memory.free_pages(at + 8, 1), Err(Status::INVALID_PARAMETER));
    assert_eq!(memory.free_pages(at, 0), Err(Status::INVALID_PARAMETER));
    assert_eq!(memory.free_pages(at, u64::MAX), Err(Status::NOT_FOUND));
    let pool = memory.allocate_pool(DATA, 8).unwrap().align_down(Alignment::PAGE).get();
    assert_eq!(memory.free_pages(pool, 1), Err(Status::NOT_FOUND));
    assert_eq!(memory.free_pages(at, 1), Ok(()));
}

#[test]
fn a_pool_has_pieces_at_multiples_of_eight_that_do_not_overlap() {
    let mut memory = Memory::new(map());
    let mut pieces = Vec::new();
    for len in [0, 1, 7, 8, 9, 100, 0x1000, 0x1_0000, 0x1_0001, 0x20_0000] {
        let at = memory.allocate_pool(DATA, len).unwrap().get();
        assert_eq!(at % 8, 0);
        assert!(pieces.iter().all(|&(other, end)| at >= end || at + len.max(1) <= other), "{len:#x}");
        pieces.push((at, at + len.max(1)));
    }
    for (at, _) in pieces {
        assert_eq!(memory.free_pool(at).map(|_| ()), Ok(()));
        assert_eq!(memory.free_pool(at), Err(Status::INVALID_PARAMETER));
    }
    for at in [0, 1, MIB, u64::MAX] {
        assert_eq!(memory.free_pool(at), Err(Status::INVALID_PARAMETER));
    }
    for len in [1 << 40, u64::MAX] {
        assert_eq!(memory.allocate_pool(DATA, len), Err(Status::OUT_OF_RESOURCES));
    }
}

#[test]
fn the_key_changes_with_the_map_that_is_shown() {
    let mut memory = Memory::new(map());
    let mut last = memory.key();
    let mut changed = |memory: &Memory| core::mem::replace(&mut last, memory.key()) != memory.key();
    let at = memory.allocate_pages(Wanted::AnyPages, DATA, 1).unwrap().get();
    assert!(changed(&memory));
    memory.free_pages(at, 1).unwrap();
    assert!(changed(&memory));
    let piece = memory.allocate_pool(DATA, 8).unwrap().get();
    assert!(changed(&memory));
    let other = memory.allocate_pool(DATA, 8).unwrap().get();
    assert!(!changed(&memory), "it fits what was taken before");
    memory.free_pool(piece).unwrap();
    memory.free_pool(other).unwrap();
    assert!(!changed(&memory));
    assert!(memory.allocate_pages(Wanted::Address(0), DATA, u64::MAX).is_err());
    assert!(memory.free_pages(0, 1).is_err());
    assert!(!changed(&memory));
}

#[test]
fn the_map_is_of_whole_pages_and_the_page_with_a_boundary_is_not_ram() {
    let memory = Memory::new(map());
    let shown: Vec<_> = memory.descriptors().map(|shown| (shown.phys_start, shown.page_count, shown.ty)).collect();
    let expected = [
        (0, 0x40, MemoryType::CONVENTIONAL),
        (0x4_0000, 0x40, MemoryType::BOOT_SERVICES_DATA),
        (0x8_0000, 0x1f, MemoryType::CONVENTIONAL),
        (0x9_f000, 1, MemoryType::RESERVED),
        (0xf_0000, 0x10, MemoryType::RESERVED),
        (MIB, 0xf00, MemoryType::CONVENTIONAL),
        (4096 * MIB, 0x400, MemoryType::CONVENTIONAL),
    ];
    assert_eq!(shown, expected);
    assert_eq!(memory.descriptors_len(), expected.len() * 48);
}

#[test]
fn what_is_held_has_the_whole_of_its_pages_and_of_two_in_a_page_one() {
    let mut map = map();
    for (start, end, kind) in [
        (0x20_0800, 0x20_1800, MemoryType::LOADER_DATA),
        (0x20_1800, 0x20_1900, MemoryType::LOADER_CODE),
        (0x20_1a00, 0x20_3000, MemoryType::LOADER_DATA),
        (0x30_0800, 0x30_0900, MemoryType::LOADER_DATA),
    ] {
        map.reserve(range(start, end), kind).unwrap();
    }
    let shown: Vec<_> = descriptors(&map)
        .filter(|shown| shown.phys_start >= MIB && shown.phys_start < 4 * MIB)
        .map(|shown| (shown.phys_start, shown.page_count, shown.ty))
        .collect();
    let expected = [
        (MIB, 0x100, MemoryType::CONVENTIONAL),
        (0x20_0000, 3, MemoryType::LOADER_DATA),
        (0x20_3000, 0xfd, MemoryType::CONVENTIONAL),
        (0x30_0000, 1, MemoryType::LOADER_DATA),
        (0x30_1000, 0xcff, MemoryType::CONVENTIONAL),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn attributes_say_what_is_memory_and_what_the_system_maps() {
    let mut memory = Memory::new(map());
    let mut attributes = |kind| {
        let at = memory.allocate_pages(Wanted::AnyPages, kind, 1).unwrap().get();
        let shown = memory.descriptors().find(|shown| shown.phys_start == at).unwrap();
        assert_eq!(shown.virt_start, 0);
        shown.att.bits()
    };
    assert_eq!(attributes(DATA), 0xf);
    assert_eq!(attributes(MemoryType::ACPI_RECLAIM), 0xf);
    assert_eq!(attributes(MemoryType::RUNTIME_SERVICES_CODE), 1 << 63 | 0xf);
    assert_eq!(attributes(MemoryType::RUNTIME_SERVICES_DATA), 1 << 63 | 0xf);
    assert_eq!(attributes(MemoryType::RESERVED), 0);
}

#[derive(Clone, Debug)]
enum Call {
    Pages(MemoryType, u64),
    PagesAt(u64, u64),
    FreePages(usize),
    Pool(MemoryType, u64),
    FreePool(usize),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let kind = prop::sample::select([2, 1, 4, 5, 6, 9].map(MemoryType).to_vec());
    let call = prop_oneof![
        (kind.clone(), 1..200_u64).prop_map(|(kind, pages)| Call::Pages(kind, pages)),
        (0..0x1100_u64, 1..20_u64).prop_map(|(page, pages)| Call::PagesAt(page * 0x1000, pages)),
        any::<usize>().prop_map(Call::FreePages),
        (kind, 0..0x2_0000_u64).prop_map(|(kind, len)| Call::Pool(kind, len)),
        any::<usize>().prop_map(Call::FreePool),
    ];
    prop::collection::vec(call, 0..80)
}

proptest! {
    #[test]
    fn whatever_is_called_nothing_is_given_twice_and_all_can_be_given_back(calls in calls()) {
        let map = map();
        let free = map.largest_free(range(0, 16 * MIB));
        let mut memory = Memory::new(map);
        let before: Vec<_> = memory.descriptors().collect();
        let mut taken = BTreeMap::<u64, u64>::new();
        let (mut pages, mut pieces) = (Vec::new(), Vec::new());
        for call in calls {
            let result = match call {
                Call::Pages(kind, count) => memory.allocate_pages(Wanted::AnyPages, kind, count).map(|at| (at, count * 0x1000, true)),
                Call::PagesAt(at, count) => {
                    memory.allocate_pages(Wanted::Address(at), DATA, count).map(|at| (at, count * 0x1000, true))
                }
                Call::Pool(kind, len) => memory.allocate_pool(kind, len).map(|at| (at, len.max(1), false)),
                Call::FreePages(index) => {
                    if !pages.is_empty() {
                        let (at, len): (u64, u64) = pages.swap_remove(index % pages.len());
                        prop_assert_eq!(memory.free_pages(at, len / 0x1000), Ok(()));
                        taken.remove(&at);
                    }
                    continue;
                }
                Call::FreePool(index) => {
                    if !pieces.is_empty() {
                        let at: u64 = pieces.swap_remove(index % pieces.len());
                        prop_assert_eq!(memory.free_pool(at).map(|_| ()), Ok(()));
                        taken.remove(&at);
                    }
                    continue;
                }
            };
            if let Ok((at, len, is_pages)) = result {
                let at = at.get();
                let last = taken.range(..at + len).next_back();
                prop_assert!(last.is_none_or(|(&other, &len)| other + len <= at));
                taken.insert(at, len);
                if is_pages { pages.push((at, len)) } else { pieces.push(at) }
            }
            let shown: Vec<_> = memory.descriptors().collect();
            prop_assert!(shown.is_sorted_by(|a, b| a.phys_start + a.page_count * 0x1000 <= b.phys_start));
        }
        for (at, len) in pages {
            prop_assert_eq!(memory.free_pages(at, len / 0x1000), Ok(()));
        }
        for at in pieces {
            prop_assert_eq!(memory.free_pool(at).map(|_| ()), Ok(()));
        }
        // What pools keep for the next piece.
        let after: u64 = memory.descriptors().map(|shown| shown.page_count).sum();
        prop_assert_eq!(after, before.iter().map(|shown| shown.page_count).sum::<u64>());
        prop_assert!(free > 0);
    }
}
