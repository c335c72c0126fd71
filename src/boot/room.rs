//! Room for an initrd, a command line and parameters, taken from the memory map.

use uefi_raw::table::boot::MemoryType;

use super::error::Error;
use crate::addr::{Alignment, PhysRange, constant_range};
use crate::memory_map::{self, MemoryMap, Placement};

/// The place of parameters, the command line and page tables: below 640 KiB, as the Linux protocol requires, and above
/// 64 KiB, because hosts leave data for the firmware below that (boot.rst, "The Kernel Command Line"; QEMU, crosvm).
const LOW_MEMORY: PhysRange = constant_range(0x1_0000, 0xa_0000);

/// Reserves low memory for a command line of `len` bytes and a NUL, to the end of its last page.
///
/// # Errors
/// [`Error::CommandLineDoesNotFit`], [`Error::MemoryMap`].
pub fn allocate_command_line(map: &mut MemoryMap, len: u64) -> Result<PhysRange, Error> {
    let needed = len.saturating_add(1);
    find_low(map, needed, Error::CommandLineDoesNotFit { needed })
}

/// Reserves `len` bytes of low memory, to the end of their last page.
///
/// # Errors
/// [`Error::NoLowMemory`], [`Error::MemoryMap`].
pub fn allocate_low(map: &mut MemoryMap, len: u64) -> Result<PhysRange, Error> {
    find_low(map, len, Error::NoLowMemory { needed: len })
}

/// Fails with `no_room`, or with [`Error::MemoryMap`] if there is room but the map is full.
fn find_low(map: &mut MemoryMap, len: u64, no_room: Error) -> Result<PhysRange, Error> {
    let Some(pages) = len.checked_next_multiple_of(Alignment::PAGE.bytes()) else { return Err(no_room) };
    let found = map.allocate(pages, Alignment::PAGE, LOW_MEMORY, Placement::Bottom, MemoryType::LOADER_DATA);
    match found.and_then(|found| PhysRange::new(found.start(), len)) {
        Some(found) => Ok(found),
        None if map.find_free(pages, Alignment::PAGE, LOW_MEMORY, Placement::Bottom).is_some() => {
            Err(Error::MemoryMap(memory_map::Error::Full))
        }
        None => Err(no_room),
    }
}

/// Reserves room for an initrd of `len` bytes, as high in `space` as possible, because the kernel grows from below. It
/// starts on a large page, which the host can back by one, if that moves it by less than a large page.
///
/// # Errors
/// [`Error::InitrdDoesNotFit`], [`Error::MemoryMap`].
#[inline(never)]
pub fn place_initrd(space: PhysRange, len: u64, map: &mut MemoryMap) -> Result<PhysRange, Error> {
    let low = PhysRange::LOW_1_MIB.end();
    let limit = Some(space.end());
    let space = PhysRange::from_bounds(space.start().max(low), space.end()).unwrap_or_default();
    let find = |len, alignment| map.find_free(len, alignment, space, Placement::Top);
    // Whole pages, because the kernel frees whole pages.
    let pages = len.checked_next_multiple_of(Alignment::PAGE.bytes());
    let Some(found) = pages.and_then(|len| find(len, Alignment::PAGE)) else {
        let free = map.largest_free(space);
        return Err(Error::InitrdDoesNotFit { size: len, limit, free });
    };
    let on_large_page = find(found.len(), Alignment::LARGE_PAGE)
        .filter(|large| large.start().checked_add(Alignment::LARGE_PAGE.bytes()) > Some(found.start()));
    let held = on_large_page.unwrap_or(found);
    map.reserve(held, MemoryType::LOADER_DATA)?;
    // `len` is not longer than the found range.
    Ok(PhysRange::new(held.start(), len).unwrap_or(held))
}
