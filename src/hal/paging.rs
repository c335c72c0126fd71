//! Page tables: memory above 4 GiB, and access rights of pages.
//!
//! `src/firmware/start` maps the low 4 GiB, which is enough for most boots. [`map`] maps memory above at its own
//! addresses in large pages. That takes a table for each GiB, and one more for each 512 GiB after the first.
//!
//! While the firmware runs, only its own code is executable, and all other mapped memory is data. [`give`] ends this for
//! the kernel: everything is mapped at its own address, writable and executable. An EFI program runs after that.
//! [`protect`] makes its pages code, constants or data. It splits a large page if only a part changes.
//!
//! The caller provides memory for tables. It stays in use until the kernel has tables of its own.
//!
//! Assumed: four levels of tables; `src/firmware/start` made the first two at [`layout::PAGE_TABLES`]. Left out: 1 GiB
//! pages, which not every CPU has, and rejoining the parts of a large page.

use alloc::vec::Vec;

use arrayvec::ArrayVec;

use crate::addr::{Alignment, PhysAddr, PhysRange, constant, constant_range as space};
use crate::heap;
use crate::layout;

/// The bits of a page table entry for another table: present, writable, accessed; and for a large page: also dirty,
/// large (Intel SDM volume 3, tables 4-15 to 4-18).
const TABLE: u64 = 1 << 0 | 1 << 1 | 1 << 5;
const LARGE_PAGE: u64 = TABLE | 1 << 6 | 1 << 7;
/// The same for a page: present, writable, accessed, dirty (table 4-20).
const PAGE: u64 = TABLE | 1 << 6;
/// The bit that makes an entry writable, and the one that distinguishes a large page from a table.
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
/// The bit that makes an entry not executable, if EFER.NXE is set.
const NO_EXECUTE: u64 = 1 << 63;
/// A bit that the CPU leaves to software. Here it means that pages below this entry were protected.
const PROTECTED: u64 = 1 << 9;
/// The bit that makes an entry valid.
const PRESENT: u64 = 1 << 0;
/// The address bits of an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Entries in a table.
const ENTRIES: u64 = 512;
/// An entry of the lowest table maps 4 KiB.
const PAGE_SHIFT: u32 = 12;
const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;
/// An entry of the table above maps 2 MiB.
const LARGE_SHIFT: u32 = 21;
const LARGE_SIZE: u64 = 1 << LARGE_SHIFT;
/// A table of large pages maps 1 GiB.
const TABLE_SHIFT: u32 = 30;
/// A table of those maps 512 GiB.
const DIRECTORY_SHIFT: u32 = 39;

/// The ranges that can be mapped, in the order in which to search them for room. The first 512 GiB share their table
/// with the program, which is at the end of the address space (see `src/firmware/start/reset.s`). From 64 TiB on, Linux
/// with four levels of tables uses no RAM (`arch/x86/include/asm/sparsemem.h`, `MAX_PHYSMEM_BITS`).
pub const SPACES: [PhysRange; 2] = [space(4 << TABLE_SHIFT, 510 << TABLE_SHIFT), space(1 << DIRECTORY_SHIFT, 1 << 46)];

/// Whether `range` is in the memory above 4 GiB that can be mapped.
#[must_use]
pub fn can_map(range: PhysRange) -> bool {
    SPACES.iter().any(|space| space.contains(range))
}

/// The most bytes that tables for `range` take: whole pages.
#[must_use]
pub fn room_for(range: PhysRange) -> u64 {
    let touched = |shift| {
        let numbers = touched(range, shift);
        numbers.end.saturating_sub(numbers.start)
    };
    touched(TABLE_SHIFT).saturating_add(touched(DIRECTORY_SHIFT)).saturating_mul(Alignment::PAGE.bytes())
}

/// The access rights of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Execute and read.
    Code,
    /// Read.
    Constants,
    /// Read and write. Initially all memory is data.
    Data,
    /// Read, write and execute: all memory that was given to a kernel or a program.
    Any,
}

impl Access {
    /// The bits of an entry that differ. If `no_execute` is zero, everything is executable.
    const fn bits(self, no_execute: u64) -> u64 {
        match self {
            Self::Code => 0,
            Self::Constants => no_execute,
            Self::Data => WRITABLE | no_execute,
            Self::Any => WRITABLE,
        }
    }

    const fn of(entry: u64) -> Self {
        match (entry & WRITABLE != 0, entry & NO_EXECUTE == 0) {
            (false, true) => Self::Code,
            (false, false) => Self::Constants,
            (true, false) => Self::Data,
            (true, true) => Self::Any,
        }
    }

    /// Whether the page can be written.
    #[must_use]
    pub const fn is_writable(self) -> bool {
        matches!(self, Self::Data | Self::Any)
    }
}

/// The most bytes that [`protect`] takes for `range`: a table for each large page that is only partly in it.
#[must_use]
pub fn room_to_protect(range: PhysRange) -> u64 {
    let first = range.start().align_down(Alignment::LARGE_PAGE);
    let last = range.end().align_down(Alignment::LARGE_PAGE);
    let at_start = u64::from(!range.is_empty() && first != range.start());
    let at_end = u64::from(!range.is_empty() && last != range.end() && (at_start == 0 || last != first));
    at_start.saturating_add(at_end).saturating_mul(Alignment::PAGE.bytes())
}

/// The memory that was mapped above 4 GiB, and the tables that were made.
#[derive(Debug, Default)]
pub struct Added {
    /// The mapped memory.
    pub mapped: ArrayVec<PhysRange, 2>,
    /// The memory of the tables: one range if each call gets the room that the previous one left.
    pub tables: Vec<PhysRange>,
}

impl Added {
    /// Enters `room` for the tables of another range. `None`, with nothing changed, if it overlaps existing tables, if no more
    /// ranges can be mapped, or if the heap is full.
    pub fn add_room(&mut self, room: PhysRange) -> Option<()> {
        if self.mapped.is_full() || self.has_tables(room) {
            return None;
        }
        heap::push(&mut self.tables, room).ok()
    }

    /// Whether some of the tables are in `range`.
    #[must_use]
    pub fn has_tables(&self, range: PhysRange) -> bool {
        self.tables.iter().any(|tables| tables.overlaps(range))
    }
}

/// Access to the entries of page tables.
pub trait Entries {
    /// The entry at `at`, which is in [`layout::PAGE_TABLES`] or was set before.
    fn get(&mut self, at: PhysAddr) -> u64;
    /// Sets the entry at `at`, which is in [`layout::PAGE_TABLES`] or in the room for tables.
    fn set(&mut self, at: PhysAddr, entry: u64);
    /// Fills the table at `table`, which starts on a page of the room for tables: `first`, and `step` more in each entry.
    fn set_table(&mut self, table: PhysAddr, first: u64, step: u64) {
        let mut entry = first;
        for at in slots(table) {
            self.set(at, entry);
            entry = entry.wrapping_add(step);
        }
    }
}

/// Maps `range` with tables in `room`, which starts on a page. Existing mappings are kept. Returns `None`, with a part
/// of the range mapped, if there is too little room or if `range` cannot be mapped.
pub fn map(entries: &mut impl Entries, range: PhysRange, room: PhysRange) -> Option<()> {
    if !can_map(range) || !room.start().is_aligned(Alignment::PAGE) {
        return None;
    }
    let mut free = room;
    let no_execute = no_execute(entries);
    for gibibyte in touched(range, TABLE_SHIFT) {
        let top = slot(layout::PAGE_TABLES.start(), gibibyte >> (DIRECTORY_SHIFT - TABLE_SHIFT));
        let directory = match table_of(entries.get(top)) {
            Some(directory) => directory,
            None => add_table(entries, top, &mut free, 0, 0, 0)?,
        };
        let upper = slot(directory, gibibyte);
        if entries.get(upper) & PRESENT == 0 {
            let start = gibibyte << TABLE_SHIFT;
            add_table(entries, upper, &mut free, no_execute, start | LARGE_PAGE, LARGE_SIZE)?;
        }
    }
    Some(())
}

/// Whether every page of `range` is mapped at its own address, with an access that `allows` accepts.
pub fn all_pages(entries: &mut impl Entries, range: PhysRange, mut allows: impl FnMut(Access) -> bool) -> bool {
    large_pages(range.pages()).all(|part| {
        let Some(upper) = upper_slot(entries, part.start()) else { return false };
        let Some(at) = directory_slot(entries, part.start()) else { return false };
        let (upper, entry) = (entries.get(upper), entries.get(at));
        let inherited = (upper | entry) & NO_EXECUTE;
        let mut allows = |entry: u64, start| is_mapped_to(entry, start) && allows(Access::of(entry | inherited));
        match table_of(entry) {
            None => allows(entry, part.start().align_down(Alignment::LARGE_PAGE).get()),
            Some(table) => {
                page_numbers(part).all(|number| allows(entries.get(slot(table, number)), number << PAGE_SHIFT))
            }
        }
    })
}

/// The access to all of `range`. `None` if it is not everywhere the same, or if a part is not mapped at its own address.
pub fn access(entries: &mut impl Entries, range: PhysRange) -> Option<Access> {
    let mut seen = None;
    let is_same = all_pages(entries, range, |access| *seen.get_or_insert(access) == access);
    seen.filter(|_| is_same)
}

/// Sets the access to `range`: whole pages that are mapped at their own addresses, outside the firmware. Tables are
/// made at the start of `room`, which is writable, starts on a page and is not in `range`. Returns the rest of `room`;
/// [`room_to_protect`] bytes are always enough. Large pages that have the access already stay whole.
///
/// Returns `None`, with nothing changed, if `room` is too small or part of `range` is not mapped.
pub fn protect(entries: &mut impl Entries, range: PhysRange, access: Access, room: PhysRange) -> Option<PhysRange> {
    let is_in_pages = [range.start(), range.end(), room.start()].iter().all(|at| at.is_aligned(Alignment::PAGE));
    if !is_in_pages || range.overlaps(room) {
        return None;
    }
    let no_execute = no_execute(entries);
    let has_access = |entry: u64| entry & (WRITABLE | NO_EXECUTE) == access.bits(no_execute);
    // The first pass only checks.
    let mut rest = room;
    for part in large_pages(range) {
        let upper = upper_slot(entries, part.start())?;
        let inherited = entries.get(upper) & NO_EXECUTE;
        let at = directory_slot(entries, part.start())?;
        let entry = entries.get(at);
        if let Some(table) = table_of(entry) {
            for number in page_numbers(part) {
                let page = entries.get(slot(table, number));
                is_mapped_to(page, number << PAGE_SHIFT).then_some(())?;
            }
        } else {
            is_mapped_to(entry, part.start().align_down(Alignment::LARGE_PAGE).get()).then_some(())?;
            if part.len() != LARGE_SIZE && !has_access(entry | inherited) {
                take(&mut rest)?;
            }
        }
    }
    let mut free = room;
    for part in large_pages(range) {
        let upper = upper_slot(entries, part.start())?;
        hand_down(entries, upper, PROTECTED);
        let at = directory_slot(entries, part.start())?;
        let entry = entries.get(at);
        let with_access = |entry: u64| entry & !(WRITABLE | NO_EXECUTE) | access.bits(no_execute);
        let table = match table_of(entry) {
            None if has_access(entry) => continue,
            None if part.len() == LARGE_SIZE => {
                entries.set(at, with_access(entry));
                continue;
            }
            // All other bits mean the same for a page and a large page.
            None => add_table(entries, at, &mut free, 0, entry & !LARGE, PAGE_SIZE)?,
            Some(table) => {
                hand_down(entries, at, 0);
                table
            }
        };
        for number in page_numbers(part) {
            let at = slot(table, number);
            let page = entries.get(at);
            entries.set(at, with_access(page));
        }
    }
    Some(free)
}

/// Makes everything that is mapped at its own address writable and executable: the low 4 GiB and these ranges. Also
/// maps what was left out of the low 4 GiB.
pub fn give(entries: &mut impl Entries, ranges: &[PhysRange]) {
    for page in [layout::PAGE_ZERO, layout::STACK_GUARD] {
        let start = page.start().get();
        entries.set(slot(layout::LOW_PAGES.start(), start >> PAGE_SHIFT), start | PAGE);
    }
    for range in [PhysRange::LOW_4_GIB].iter().chain(ranges) {
        for gibibyte in touched(*range, TABLE_SHIFT) {
            // Without the entry, nothing is mapped there.
            let Some(at) = upper_slot(entries, PhysAddr::new(gibibyte << TABLE_SHIFT)) else { continue };
            let entry = entries.get(at);
            if entry & PROTECTED != 0 {
                give_protected(entries, PhysAddr::new(entry & ADDRESS));
            }
            entries.set(at, entry & !(NO_EXECUTE | PROTECTED));
        }
    }
}

/// Maps page zero, which [`give`] mapped, or takes its mapping away.
pub fn map_page_zero(entries: &mut impl Entries, is_mapped: bool) {
    entries.set(layout::LOW_PAGES.start(), if is_mapped { PAGE } else { 0 });
}

/// The same for the tables below a directory.
fn give_protected(entries: &mut impl Entries, directory: PhysAddr) {
    for at in slots(directory) {
        let entry = entries.get(at);
        if let Some(table) = table_of(entry) {
            change_present(entries, table, |page| (page | WRITABLE) & !NO_EXECUTE);
        }
    }
    change_present(entries, directory, |entry| (entry | WRITABLE) & !NO_EXECUTE);
}

/// Moves the bit that forbids execution from the entry at `at` to each entry of its table, and sets `mark` in it. In
/// this order, nothing becomes executable for a moment.
fn hand_down(entries: &mut impl Entries, at: PhysAddr, mark: u64) {
    let entry = entries.get(at);
    if let Some(table) = table_of(entry).filter(|_| entry & NO_EXECUTE != 0) {
        change_present(entries, table, |page| page | NO_EXECUTE);
    }
    entries.set(at, entry & !NO_EXECUTE | mark);
}

/// Changes every valid entry of `table`.
fn change_present(entries: &mut impl Entries, table: PhysAddr, change: impl Fn(u64) -> u64) {
    for at in slots(table) {
        let entry = entries.get(at);
        if entry & PRESENT != 0 {
            entries.set(at, change(entry));
        }
    }
}

/// `range`, split at the borders of large pages.
fn large_pages(range: PhysRange) -> impl Iterator<Item = PhysRange> {
    let mut rest = range;
    core::iter::from_fn(move || {
        let len = LARGE_SIZE.checked_sub(rest.start().get() % LARGE_SIZE)?;
        let (part, behind) = rest.split_at(len);
        rest = behind;
        Some(part).filter(|part| !part.is_empty())
    })
}

/// The page numbers of a range.
fn page_numbers(range: PhysRange) -> core::ops::Range<u64> {
    range.start().get() >> PAGE_SHIFT..range.end().get() >> PAGE_SHIFT
}

/// The bit that forbids execution, if the CPU supports it. The program's own RAM is mapped with it
/// (`src/firmware/start/reset.s`).
fn no_execute(entries: &mut impl Entries) -> u64 {
    entries.get(PROGRAM) & NO_EXECUTE
}

/// The first entry of the table that maps the program's RAM.
const PROGRAM: PhysAddr = constant(layout::PAGE_TABLES.start().checked_add(6 * Alignment::PAGE.bytes()));

/// The address of the entry for the GiB that contains `address`, if there is one.
fn upper_slot(entries: &mut impl Entries, address: PhysAddr) -> Option<PhysAddr> {
    let top = slot(layout::PAGE_TABLES.start(), address.get() >> DIRECTORY_SHIFT);
    Some(slot(table_of(entries.get(top))?, address.get() >> TABLE_SHIFT))
}

/// The address of the entry for the large page that contains `address`, if there is one.
fn directory_slot(entries: &mut impl Entries, address: PhysAddr) -> Option<PhysAddr> {
    let upper = upper_slot(entries, address)?;
    Some(slot(table_of(entries.get(upper))?, address.get() >> LARGE_SHIFT))
}

/// Whether an entry maps memory at `address`.
fn is_mapped_to(entry: u64, address: u64) -> bool {
    entry & PRESENT != 0 && entry & ADDRESS == address
}

/// The table that an entry is for.
fn table_of(entry: u64) -> Option<PhysAddr> {
    (entry & (PRESENT | LARGE) == PRESENT).then(|| PhysAddr::new(entry & ADDRESS))
}

/// The address of the entry with this number, modulo the size of the table, in `table`, which starts on a page.
const fn slot(table: PhysAddr, number: u64) -> PhysAddr {
    PhysAddr::new(table.get() | (number % ENTRIES) << 3)
}

/// The addresses of all entries of `table`, in their order.
pub fn slots(table: PhysAddr) -> impl Iterator<Item = PhysAddr> {
    (0..ENTRIES).map(move |number| slot(table, number))
}

/// Takes a page from the room.
fn take(free: &mut PhysRange) -> Option<PhysAddr> {
    let page = PhysRange::new(free.start(), Alignment::PAGE.bytes()).filter(|page| free.contains(*page))?;
    *free = PhysRange::from_bounds(page.end(), free.end())?;
    Some(page.start())
}

/// Makes a table in the room, as [`Entries::set_table`] does, and sets the entry at `at` to it, with `bits`.
fn add_table(
    entries: &mut impl Entries,
    at: PhysAddr,
    free: &mut PhysRange,
    bits: u64,
    first: u64,
    step: u64,
) -> Option<PhysAddr> {
    let table = take(free)?;
    entries.set_table(table, first, step);
    entries.set(at, table.get() | TABLE | bits);
    Some(table)
}

/// The numbers of the areas of two to the power of `shift` bytes that `range` touches.
fn touched(range: PhysRange, shift: u32) -> core::ops::Range<u64> {
    let end = if range.is_empty() { 0 } else { (range.end().get().saturating_sub(1) >> shift).saturating_add(1) };
    range.start().get() >> shift..end
}

#[cfg(test)]
mod tests;
