//! Where the firmware itself lives in guest-physical memory. `linker.ld` and `src/start` use the same figures.
//!
//! The image runs in place, at the top of the low 4 GiB where the host puts it; it does not need the host to show it
//! below 1 MiB as well. Its data, stack, heap and page tables are in low RAM, clear of what any known host leaves there
//! for firmware (page zero, 0x500-0xa000, the command line at 0x20000, the tables at 0x9fc00). The memory map hands all
//! of it back to the kernel.
#![forbid(unsafe_code)]

use crate::addr::{PhysAddr, PhysRange};

/// The firmware's own RAM: page tables, data, stack and heap, 320 KiB.
pub const FIRMWARE_RAM: PhysRange = range(0x4_0000, 0x9_0000);

/// The space at the top of the low 4 GiB that the image may fill: 128 KiB.
pub const FIRMWARE_ROM: PhysRange = range(0xfffe_0000, 0x1_0000_0000);

/// Page zero: the real-mode vectors and BIOS data. Nothing of ours goes there, and a null pointer stays invalid.
pub const PAGE_ZERO: PhysRange = range(0, 0x1000);

/// Whether the firmware may read, write or let a device write `range`: all of it is below 4 GiB, where the page tables
/// map it, and none of it is page zero or the firmware's own.
#[must_use]
pub const fn may_access(range: PhysRange) -> bool {
    PhysRange::LOW_4_GIB.contains(range)
        && !PAGE_ZERO.contains_addr(range.start())
        && !FIRMWARE_RAM.overlaps(range)
        && !FIRMWARE_ROM.overlaps(range)
}

const fn range(start: u64, end: u64) -> PhysRange {
    match PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)) {
        Some(range) => range,
        None => unreachable!(),
    }
}
