//! The firmware's own place in guest-physical memory. `linker.ld` and `src/firmware/start` use the same addresses.
//!
//! The image runs in place, at the top of the low 4 GiB where the host puts it. The host need not show it below 1 MiB
//! as well. Its data, stack, heap and page tables are in low RAM, away from everything that known hosts leave there for
//! firmware (page zero, 0x500-0xa000, the command line at 0x20000, the tables at 0x9fc00). The memory map returns this
//! RAM to the kernel, except the part for a wake from suspend on a machine that can sleep.

use crate::addr::{Alignment, PhysAddr, PhysRange, constant_range as range};
use crate::image_size::IMAGE_SIZE;

/// The firmware's own RAM: heap, page tables, data and stack, 376 KiB.
pub const FIRMWARE_RAM: PhysRange = range(0x4_0000, 0x9_e000);

/// The upper part of [`FIRMWARE_RAM`]: page tables, stack, data and a small heap, 108 KiB. The firmware uses nothing
/// else after a wake from suspend, when all other memory is the operating system's.
pub const WAKE_RAM: PhysRange = range(0x8_3000, 0x9_e000);

/// The page tables that `src/firmware/start` makes (36 KiB): the top one, the one for its first entry, page directories
/// for each of the low 4 GiB and for the program, [`LOW_PAGES`], and the table of the image's pages. The kernel runs
/// with them until it has its own.
pub const PAGE_TABLES: PhysRange = range(0x8_3000, 0x8_c000);

/// The table in [`PAGE_TABLES`] that maps the first 2 MiB, in pages of 4 KiB.
pub const LOW_PAGES: PhysRange = range(0x8_a000, 0x8_b000);

/// The page below the stack. It is not mapped while the firmware runs, so a stack overflow is an exception.
pub const STACK_GUARD: PhysRange = range(0x8_c000, 0x8_d000);

/// The extended BIOS data area, at the usual place below 640 KiB. A guest that looks for it finds it reserved, and
/// hosts put tables there.
pub const EBDA: PhysRange = range(0x9_fc00, CONVENTIONAL.end().get());

/// The part of [`EBDA`] for tables. The first byte of the area is its length.
pub const EBDA_TABLES: PhysRange = range(EBDA.start().get() + 0x10, EBDA.end().get());

/// The part of [`F_SEGMENT`] for tables. [`BIOS_END`] follows it.
pub const F_SEGMENT_TABLES: PhysRange = range(F_SEGMENT.start().get(), BIOS_END.start().get());

/// The end of [`F_SEGMENT`], where a BIOS has its entry point, its date and the machine's model.
pub const BIOS_END: PhysRange = range(0xf_ffc0, F_SEGMENT.end().get());

/// The last 64 KiB below 1 MiB, where a PC has its BIOS, and where an operating system looks for tables.
pub const F_SEGMENT: PhysRange = range(0xf_0000, 0x10_0000);

/// A PC's RAM below the video memory: 640 KiB.
pub const CONVENTIONAL: PhysRange = range(0, 0xa_0000);

/// A PC's extended memory below 4 GiB.
pub const EXTENDED: PhysRange = range(1 << 20, 1 << 32);

/// The record for a wake (see [`crate::resume`]): 3 KiB below the extended BIOS data area.
pub const RESUME_RECORD: PhysRange = range(STARTUP_PAGE.end().get(), EBDA.start().get());

/// The memory that the operating system does not use on a machine that can sleep: [`WAKE_RAM`], [`STARTUP_PAGE`] and
/// [`RESUME_RECORD`].
pub const KEPT_RAM: PhysRange = range(WAKE_RAM.start().get(), RESUME_RECORD.end().get());

/// All low memory that the firmware uses until the kernel runs: [`FIRMWARE_RAM`], [`STARTUP_PAGE`] and
/// [`RESUME_RECORD`].
pub const BOOT_RAM: PhysRange = range(FIRMWARE_RAM.start().get(), RESUME_RECORD.end().get());

/// The room for the image at the top of the low 4 GiB, which is reserved as SeaBIOS does it with the last 256 KiB
/// (`src/fw/paravirt.c`, `qemu_preinit`).
pub const FIRMWARE_ROM: PhysRange = range(0x1_0000_0000 - IMAGE_SIZE, 0x1_0000_0000);

/// The image after a start by the PVH entry point: in RAM, where the ELF file tells the host to load it. The memory map
/// then reserves it. It ends on a large page, because the large page at the end of the low 4 GiB, for which the program
/// is linked, is mapped to it. A kernel has the 15 MiB below it, and everything from 16 MiB on, which Linux prefers.
pub const LOADED_IMAGE: PhysRange = range(0x100_0000 - IMAGE_SIZE, 0x100_0000);

/// The page where started CPUs begin, below 640 KiB. Its bytes are restored afterwards. At the end, the firmware leaves
/// 64-bit mode in it, because the image may not be at the address that it is linked for. It follows the firmware's own
/// RAM, away from what hosts leave lower down. On a machine that can sleep, it stays reserved too.
pub const STARTUP_PAGE: PhysRange = range(0x9_e000, 0x9_f000);

/// The part of [`STARTUP_PAGE`] that is used. crosvm has its MP table behind it, from 0x9e800 on.
pub const STARTUP_CODE: PhysRange = range(0x9_e000, 0x9_e800);

/// The local APIC's registers, at their address after a reset (Intel SDM volume 3, table 11-1).
pub const LOCAL_APIC: PhysRange = range(0xfee0_0000, 0xfee0_1000);

/// Its interrupt command register, low half, which can start the other CPUs ([`crate::hal::startup`]).
pub const INTERRUPT_COMMAND: PhysRange = range(0xfee0_0300, 0xfee0_0310);

/// Page zero: the real-mode vectors and BIOS data. The firmware has nothing there, and does not map it while it runs,
/// so a null pointer is an exception. After a start by the PVH entry point it can be read.
pub const PAGE_ZERO: PhysRange = range(0, 0x1000);

/// Whether the firmware may read or write `range`, or let a device write it: the range is below 4 GiB, where the page
/// tables map it, and contains neither page zero nor the firmware's own memory nor [`INTERRUPT_COMMAND`].
#[must_use]
pub const fn may_access(range: PhysRange) -> bool {
    may_access_below(range, FIRMWARE_ROM.start()) && !range.overlaps(INTERRUPT_COMMAND)
}

/// As [`may_access`], except that the range must also be below `limit`, which is the start of the image, or of
/// [`INTERRUPT_COMMAND`] if that is lower.
#[must_use]
pub const fn may_access_below(range: PhysRange, limit: PhysAddr) -> bool {
    // Four comparisons, because this runs before every access to memory and registers.
    let (start, end) = (range.start().get(), range.end().get());
    start >= PAGE_ZERO.end().get()
        && end <= limit.get()
        && (end <= FIRMWARE_RAM.start().get() || start >= FIRMWARE_RAM.end().get())
}

/// Whether `range` is in page zero above the real-mode vectors. After a start by the PVH entry point, and only then, it is
/// mapped, and can hold data of an earlier firmware (QEMU's `pvh.bin` has its memory map there).
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
const _: () = assert!(IMAGE_SIZE.is_multiple_of(64 << 10) && LOADED_IMAGE.end().is_aligned(Alignment::LARGE_PAGE));
const _: () = assert!(FIRMWARE_RAM.end().get() == STARTUP_PAGE.start().get());
const _: () = assert!(FIRMWARE_ROM.end().get() == PhysRange::LOW_4_GIB.end().get());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_firmware_may_not_access_itself_page_zero_or_unmapped_memory() {
        let may = |start, end| may_access(range(start, end));
        for (start, end) in [(0x1000, 0x4_0000), (0x9_e000, 0xa_0000), (0x10_0000, 0xfee0_0300), (0x1000, 0x1000)] {
            assert!(may(start, end), "{start:#x}");
        }
        assert!(may(INTERRUPT_COMMAND.end().get(), FIRMWARE_ROM.start().get()));
        for range in [PAGE_ZERO, FIRMWARE_RAM, FIRMWARE_ROM, INTERRUPT_COMMAND] {
            let (start, end) = (range.start().get(), range.end().get());
            assert!(!may(start, start + 1) && !may(end - 1, end) && !may(start, end), "{range}");
        }
        assert!(!may(0xfff, 0x1001) && !may(0x3_ffff, 0x4_0001) && !may(0x9_dfff, 0x9_e001));
        assert!(!may(0x1000, 0x1_0000_0000) && !may(1 << 32, (1 << 32) + 1) && !may(0xfff7_ffff, 0xfff8_0001));
        assert!(!may(0x1000, u64::MAX));
    }

    #[test]
    fn page_zero_may_be_read_only_above_the_vectors() {
        for (start, end, may) in [(0x400, 0x1000, true), (0x3ff, 0x1000, false), (0, 1, false), (0xff0, 0x1001, false)]
        {
            assert_eq!(may_read_page_zero(range(start, end)), may, "{start:#x}");
        }
        assert!(!may_read_page_zero(FIRMWARE_RAM) && !may_access(range(0x400, 0x1000)));
    }
}
