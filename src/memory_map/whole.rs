//! Boundaries: between what is RAM to a kernel and what is not there is one only where a page begins.
//!
//! A kernel hands memory out by the page, and some read a map with pieces of pages in it wrongly. So what is kept from the
//! kernel is rounded out. The one exception is a PC's: the extended BIOS data area begins at 0x9fc00, since the BIOS data area
//! tells the size of low memory in KiB. In that page a boundary may be at any KiB.

use uefi_raw::table::boot::MemoryType;

use super::sources::HOST_CAPACITY;
use super::{CAPACITY, MemoryMap, is_ram_kind, strictness};
use crate::addr::{Alignment, PhysAddr, PhysRange, constant, constant_range};

/// The page in which the extended BIOS data area begins, and what boundaries in it are multiples of.
const EBDA_PAGE: PhysRange = constant_range(0x9_f000, 0xa_0000);
const KIB: Alignment = constant(Alignment::new(1 << 10));

/// What a boundary at `at` has to be a multiple of.
const fn granule(at: PhysAddr) -> Alignment {
    if EBDA_PAGE.contains_addr(at) { KIB } else { Alignment::PAGE }
}

/// `range` with the rest of its first and its last page. The last page of all ends a byte early, as a range cannot wrap.
pub(super) fn rounded_out(range: PhysRange) -> PhysRange {
    let (start, end) = (range.start(), range.end());
    let end = end.align_up(granule(end)).unwrap_or(PhysAddr::new(u64::MAX));
    PhysRange::from_bounds(start.align_down(granule(start)), end).unwrap_or(range)
}

impl MemoryMap {
    /// Rounds what a host has described: a page with a boundary in it is all of the most restrictive kind in it, and reserved
    /// where that is RAM. If the map is full, it has no RAM.
    pub(super) fn round_out(&mut self) {
        let mut done = PhysAddr::new(0);
        // Each turn goes to a later boundary, and a region has two.
        for _ in 0..CAPACITY.saturating_mul(2) {
            let is_left = |at: &PhysAddr| *at > done && !at.is_aligned(granule(*at));
            let boundaries = self.regions.iter().flat_map(|region| [region.range.start(), region.range.end()]);
            let Some(at) = boundaries.into_iter().find(is_left) else { return };
            let page = rounded_out(PhysRange::empty_at(at));
            let in_page = self.regions.iter().filter(|region| region.range.overlaps(page)).map(|region| region.kind);
            let strictest = in_page.max_by_key(|&kind| strictness(kind)).filter(|&kind| !is_ram_kind(kind));
            if self.describe_within(page, strictest.unwrap_or(MemoryType::RESERVED), HOST_CAPACITY).is_err() {
                // No region is split by it. It has a boundary in it.
                let _ = self.remove_ram(page);
            }
            done = page.end();
        }
    }
}
