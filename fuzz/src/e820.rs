//! The host's list of memory, `etc/e820`, and the map made from it.
//!
//! Input: a byte with the operations on the map, eight bytes for the allocation, and the list.

use firstlight::addr::{Alignment, PhysAddr, PhysRange};
use firstlight::memory_map::{E820Entry, HostMap, MemoryMap, Placement, Regions};
use uefi_raw::table::boot::MemoryType;

use crate::check;
use crate::input::Input;

/// Makes the map, cuts out a PC's holes, and allocates. Only memory that the list has as RAM, and as nothing else, is RAM.
/// Allocated memory is aligned, was free, and is free again after its release.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (sleeps, choice): (bool, u64) = (input.take(), input.take());
    let file = input.rest();
    let Ok(mut map) = HostMap::from_e820(file) else { return };
    check::map(&map);
    let records = records(file);
    ram_is_as_listed(&map, &records);
    assert_ne!(map.ram_bytes(), 0);

    let carved = if sleeps { map.carve_pc_that_sleeps() } else { map.carve_pc() };
    if carved.is_err() {
        return;
    }
    check::map(&map);
    ram_is_as_listed(&map, &records);
    allocate(&mut MemoryMap::new(map), choice);
}

/// Allocates what `choice` says: two bits of placement and kind, six of alignment, and the length.
fn allocate(map: &mut MemoryMap, choice: u64) {
    let placement = if choice & 1 == 0 { Placement::Top } else { Placement::Bottom };
    let kind = if choice & 2 == 0 { MemoryType::RESERVED } else { MemoryType::LOADER_DATA };
    let Some(alignment) = Alignment::new(1 << (choice >> 2 & 0x3f)) else { return };
    let len = choice >> 8;
    let before = map.clone();
    let Some(found) = map.allocate(len, alignment, PhysRange::LOW_4_GIB, placement, kind) else {
        assert_eq!(*map, before, "an allocation that failed changed the map");
        return;
    };
    assert!(before.is_free(found) && PhysRange::LOW_4_GIB.contains(found), "{found} was not free");
    assert!(found.len() == len && found.start().is_aligned(alignment), "{found}");
    check::map(map);
    assert_eq!(map.is_ram(found), kind == MemoryType::LOADER_DATA, "{found}");
    assert!(!map.is_free(found));
    // What the kernel does not get takes whole pages.
    map.release(if kind == MemoryType::LOADER_DATA { found } else { found.pages() }).unwrap();
    assert_eq!(*map, before, "what was given back is not as it was");
}

/// A record: its range and whether it is RAM. One that wraps is none where it is RAM, and else reaches to the end.
fn records(file: &[u8]) -> Vec<(PhysRange, bool)> {
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number: u64, &byte| number << 8 | u64::from(byte));
    let record = |record: &[u8]| {
        let (start, len, kind) = (number(&record[..8]), number(&record[8..16]), number(&record[16..]));
        let is_ram = kind == u64::from(E820Entry::RAM);
        let end = start.checked_add(len).or(if is_ram { None } else { Some(u64::MAX) })?;
        Some((PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end))?, is_ram))
    };
    file.chunks_exact(20).filter_map(record).collect()
}

fn ram_is_as_listed(map: &Regions, records: &[(PhysRange, bool)]) {
    for region in map.regions().filter(|region| map.is_ram(region.range)) {
        let mut rest = region.range.start();
        while rest < region.range.end() {
            let listed = records.iter().filter(|(range, is_ram)| *is_ram && range.contains_addr(rest));
            rest = listed.map(|(range, _)| range.end()).max().unwrap_or_else(|| panic!("RAM at {rest} is made up"));
        }
        let reserved = records.iter().find(|(range, is_ram)| !is_ram && range.overlaps(region.range));
        assert_eq!(reserved, None, "{region:?} is reserved");
    }
}

/// Lists of real machines.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for machine in crate::machines() {
        for choice in [0, 0x0010_0030, 0x0020_0003, 0xffff_ff32] {
            seeds.push([&[1], &u64::to_le_bytes(choice)[..], &machine["etc/e820"]].concat());
        }
    }
    seeds
}
