//! Boundaries between RAM and other memory are page-aligned in the kernel's map.
//!
//! A kernel allocates memory in pages, and some kernels misread a map with partial pages. So memory that the kernel does not get
//! is rounded out. The one exception is a PC's extended BIOS data area, which begins at 0x9fc00, because the BIOS data area has
//! the size of low memory in KiB. In that page a boundary may be at any KiB.

use crate::addr::{Alignment, PhysAddr, PhysRange, constant, constant_range};
use crate::layout;

/// The page in which the extended BIOS data area begins; boundaries in it are multiples of 1 KiB.
const EBDA_PAGE: PhysRange = constant_range(layout::RESUME_RECORD.start().get(), layout::EBDA.end().get());
const KIB: Alignment = constant(Alignment::new(1 << 10));

/// The alignment that a boundary at `at` must have.
pub const fn granule(at: PhysAddr) -> Alignment {
    if EBDA_PAGE.contains_addr(at) { KIB } else { Alignment::PAGE }
}

/// `range`, extended to whole pages. The last page of the address space ends a byte early, because a range cannot wrap.
pub fn rounded_out(range: PhysRange) -> PhysRange {
    let (start, end) = (range.start(), range.end());
    let end = end.align_up(granule(end)).unwrap_or(PhysAddr::new(u64::MAX));
    PhysRange::from_bounds(start.align_down(granule(start)), end).unwrap_or(range)
}
