//! Where the firmware itself lives in guest-physical memory. `linker.ld` and `src/firmware/start` use the same figures.
//!
//! The image runs in place, at the top of the low 4 GiB where the host puts it; it does not need the host to show it
//! below 1 MiB as well. Its data, stack, heap and page tables are in low RAM, clear of what any known host leaves there
//! for firmware (page zero, 0x500-0xa000, the command line at 0x20000, the tables at 0x9fc00). The memory map hands it
//! back to the kernel, but for the part that a wake from suspend needs, on a machine that can sleep.

use crate::addr::{Alignment, PhysRange, constant_range as range};

/// The firmware's own RAM: heap, page tables, data and stack, 376 KiB.
pub const FIRMWARE_RAM: PhysRange = range(0x4_0000, 0x9_e000);

/// The upper part of [`FIRMWARE_RAM`]: page tables, stack, data and a small heap, 108 KiB. It is all that the firmware
/// runs in when the machine wakes from suspend, when every other byte is the operating system's.
pub const WAKE_RAM: PhysRange = range(0x8_3000, 0x9_e000);

/// The page tables that `src/firmware/start` makes (36 KiB): the top one first, then the one that it begins with, page directories
/// for each of the low 4 GiB and for the program, [`LOW_PAGES`], and the table of the image's pages. The kernel runs with
/// them until it has its own.
pub const PAGE_TABLES: PhysRange = range(0x8_3000, 0x8_c000);

/// The one of [`PAGE_TABLES`] that maps the first 2 MiB, in pages of 4 KiB.
pub const LOW_PAGES: PhysRange = range(0x8_a000, 0x8_b000);

/// The page below the stack. It is not mapped while the firmware runs, so a stack that is too small does no harm unseen.
pub const STACK_GUARD: PhysRange = range(0x8_c000, 0x8_d000);

/// The extended BIOS data area, at the usual place below 640 KiB: a guest that looks for one finds it reserved, and hosts
/// put tables there.
pub const EBDA: PhysRange = range(0x9_fc00, CONVENTIONAL.end().get());

/// What of [`EBDA`] is for tables: its first byte is its length.
pub const EBDA_TABLES: PhysRange = range(EBDA.start().get() + 0x10, EBDA.end().get());

/// What of [`F_SEGMENT`] is for tables; behind it is the end, which is a BIOS's.
pub const F_SEGMENT_TABLES: PhysRange = range(F_SEGMENT.start().get(), BIOS_END.start().get());

/// The end of [`F_SEGMENT`], where a BIOS has its entry, its date and the machine's model.
pub const BIOS_END: PhysRange = range(0xf_ffc0, F_SEGMENT.end().get());

/// The last 64 KiB below 1 MiB, where a PC has its BIOS, and where an operating system looks for tables.
pub const F_SEGMENT: PhysRange = range(0xf_0000, 0x10_0000);

/// Where a PC has RAM below the video memory: 640 KiB.
pub const CONVENTIONAL: PhysRange = range(0, 0xa_0000);

/// Where the boot leaves what a wake needs to know (see [`crate::resume`]): 3 KiB below the extended
/// BIOS data area.
pub const RESUME_RECORD: PhysRange = range(STARTUP_PAGE.end().get(), EBDA.start().get());

/// What the operating system leaves alone on a machine that can sleep: [`WAKE_RAM`], [`STARTUP_PAGE`] and
/// [`RESUME_RECORD`].
pub const KEPT_RAM: PhysRange = range(WAKE_RAM.start().get(), RESUME_RECORD.end().get());

/// All of low memory that the firmware may use until the kernel runs: [`FIRMWARE_RAM`], [`STARTUP_PAGE`] and
/// [`RESUME_RECORD`].
pub const BOOT_RAM: PhysRange = range(FIRMWARE_RAM.start().get(), RESUME_RECORD.end().get());

/// The space at the top of the low 4 GiB that the image may fill: 256 KiB, which are reserved as SeaBIOS does it
/// (`src/fw/paravirt.c`, `qemu_preinit`).
pub const FIRMWARE_ROM: PhysRange = range(0xfffc_0000, 0x1_0000_0000);

/// Where the image is in a start by the PVH entry: in RAM, where the ELF file says that a host is to load it. Nothing else
/// is put there, as the memory map holds it then. It ends on a large page, by which the end of the low 4 GiB, where the
/// program is linked for, is mapped to it; a kernel has the 15 MiB below it and all from 16 MiB on, where Linux likes to be.
pub const LOADED_IMAGE: PhysRange = range(0xfc_0000, 0x100_0000);

/// Where CPUs that are started begin, for that moment: a page below 640 KiB whose bytes are put back afterwards. In the end
/// the firmware leaves 64-bit mode there, where it does, as its image need not be where it is linked. Behind
/// the firmware's own RAM, as far from what hosts leave lower down; on a machine that sleeps it stays the firmware's too.
pub const STARTUP_PAGE: PhysRange = range(0x9_e000, 0x9_f000);

/// What of [`STARTUP_PAGE`] is used. crosvm has its MP table behind it, from 0x9e800 on.
pub const STARTUP_CODE: PhysRange = range(0x9_e000, 0x9_e800);

/// Page zero: the real-mode vectors and BIOS data. Nothing of ours goes there, and it is not mapped while the firmware runs:
/// a null pointer is an exception. After a start by the PVH entry it can be read.
pub const PAGE_ZERO: PhysRange = range(0, 0x1000);

/// Whether the firmware may read, write or let a device write `range`: all of it is below 4 GiB, where the page tables
/// map it, and none of it is page zero or the firmware's own.
#[must_use]
pub const fn may_access(range: PhysRange) -> bool {
    may_access_below(range, FIRMWARE_ROM)
}

/// As [`may_access`], where `range` ends below the image at `image` as well.
#[must_use]
pub const fn may_access_below(range: PhysRange, image: PhysRange) -> bool {
    // Four comparisons: this stands before every access to memory and registers.
    let (start, end) = (range.start().get(), range.end().get());
    start >= PAGE_ZERO.end().get()
        && end <= image.start().get()
        && (end <= FIRMWARE_RAM.start().get() || start >= FIRMWARE_RAM.end().get())
}

/// Whether the firmware may read `range`: where [`may_access`], and [`may_read_page_zero`].
#[must_use]
pub const fn may_read(range: PhysRange) -> bool {
    may_access(range) || may_read_page_zero(range)
}

/// Whether `range` is in page zero behind the real-mode vectors, which in a start by the PVH entry may hold what the one
/// before left (QEMU's `pvh.bin` has its memory map there).
#[must_use]
pub const fn may_read_page_zero(range: PhysRange) -> bool {
    range.start().get() >= VECTORS_END && range.end().get() <= PAGE_ZERO.end().get()
}

/// The end of the real-mode interrupt vectors.
const VECTORS_END: u64 = 0x400;

const _: () = assert!(FIRMWARE_RAM.contains(WAKE_RAM) && FIRMWARE_RAM.end().get() == WAKE_RAM.end().get());
const _: () = assert!(WAKE_RAM.contains(PAGE_TABLES) && PAGE_TABLES.start().get() == WAKE_RAM.start().get());
const _: () = assert!(PAGE_TABLES.contains(LOW_PAGES) && STACK_GUARD.start().get() == PAGE_TABLES.end().get());
const _: () = assert!(may_access(RESUME_RECORD) && may_access(EBDA) && STARTUP_PAGE.contains(STARTUP_CODE));
const _: () = assert!(STARTUP_CODE.start().get() == STARTUP_PAGE.start().get());
const _: () = assert!(LOADED_IMAGE.len() == FIRMWARE_ROM.len() && LOADED_IMAGE.end().is_aligned(Alignment::LARGE_PAGE));
const _: () = assert!(FIRMWARE_RAM.end().get() == STARTUP_PAGE.start().get());
const _: () = assert!(FIRMWARE_ROM.end().get() == PhysRange::LOW_4_GIB.end().get());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmware_touches_neither_itself_nor_page_zero_nor_what_is_not_mapped() {
        let may = |start, end| may_access(range(start, end));
        for (start, end) in [(0x1000, 0x4_0000), (0x9_e000, 0xa_0000), (0x10_0000, 0xfffc_0000), (0x1000, 0x1000)] {
            assert!(may(start, end), "{start:#x}");
        }
        for range in [PAGE_ZERO, FIRMWARE_RAM, FIRMWARE_ROM] {
            let (start, end) = (range.start().get(), range.end().get());
            assert!(!may(start, start + 1) && !may(end - 1, end) && !may(start, end), "{range}");
        }
        assert!(!may(0xfff, 0x1001) && !may(0x3_ffff, 0x4_0001) && !may(0x9_dfff, 0x9_e001));
        assert!(!may(0x1000, 0x1_0000_0000) && !may(1 << 32, (1 << 32) + 1) && !may(0xfffb_ffff, 0xfffc_0001));
        assert!(!may(0x1000, u64::MAX));
    }

    #[test]
    fn page_zero_is_read_behind_the_vectors_only() {
        for (start, end, may) in
            [(0x400, 0x1000, true), (0x3ff, 0x1000, false), (0, 1, false), (0x1000, 0x4_0000, true)]
        {
            assert_eq!(may_read(range(start, end)), may, "{start:#x}");
        }
        assert!(!may_read(FIRMWARE_RAM) && !may_read(range(0xff0, 0x1001)) && !may_access(range(0x400, 0x1000)));
    }
}
