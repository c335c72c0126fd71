//! Checks for several targets.

use firstlight::addr::PhysRange;
use firstlight::memory_map::{CAPACITY, E820Entry, Regions};

/// Panics unless no two of `ranges` share a byte.
pub fn disjoint(ranges: &[PhysRange]) {
    let mut ranges: Vec<_> = ranges.iter().filter(|range| !range.is_empty()).collect();
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        assert!(pair[0].end() <= pair[1].start(), "{} and {} overlap", pair[0], pair[1]);
    }
}

/// Panics unless the map keeps its type's promises: sorted, disjoint, no empty region, no two regions that could be one. The e820
/// entries must have the same properties, and begin and end at pages, except at a PC's extended BIOS data area.
pub fn map(map: &Regions) {
    let regions: Vec<_> = map.regions().collect();
    assert!(regions.len() <= CAPACITY, "{} regions", regions.len());
    for pair in regions.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        assert!(first.range.end() <= second.range.start(), "{first:?} and {second:?}");
        assert!(first.range.end() < second.range.start() || first.kind != second.kind, "{first:?} and {second:?}");
    }
    assert!(regions.iter().all(|region| !region.range.is_empty()), "an empty region");
    let mut end = 0;
    for E820Entry { addr, size, .. } in map.e820() {
        assert!(addr.get() >= end && size.get() != 0, "an entry at {addr} of {size} after {end:#x}");
        end = addr.get() + size.get();
        for at in [addr.get(), end] {
            let is_whole =
                at.is_multiple_of(0x1000) || at / 0x1000 == 0x9f && at.is_multiple_of(0x400) || at == u64::MAX;
            assert!(is_whole, "an entry from {addr:#x} to {end:#x}");
        }
    }
}
