//! Boundaries: between what is RAM to a kernel and what is not there is one only where a page begins.
//!
//! A kernel hands memory out by the page, and some read a map with pieces of pages in it wrongly. So what is kept from the
//! kernel is rounded out. The one exception is a PC's: the extended BIOS data area begins at 0x9fc00, since the BIOS data area
//! tells the size of low memory in KiB. In that page a boundary may be at any KiB.

use crate::addr::{Alignment, PhysAddr, PhysRange, constant, constant_range};
use crate::layout;

/// The page in which the extended BIOS data area begins, and what boundaries in it are multiples of.
const EBDA_PAGE: PhysRange = constant_range(layout::RESUME_RECORD.start().get(), layout::EBDA.end().get());
const KIB: Alignment = constant(Alignment::new(1 << 10));

/// What a boundary at `at` has to be a multiple of.
pub const fn granule(at: PhysAddr) -> Alignment {
    if EBDA_PAGE.contains_addr(at) { KIB } else { Alignment::PAGE }
}

/// `range` with the rest of its first and its last page. The last page of all ends a byte early, as a range cannot wrap.
pub fn rounded_out(range: PhysRange) -> PhysRange {
    let (start, end) = (range.start(), range.end());
    let end = end.align_up(granule(end)).unwrap_or(PhysAddr::new(u64::MAX));
    PhysRange::from_bounds(start.align_down(granule(start)), end).unwrap_or(range)
}
