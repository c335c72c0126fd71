//! The memory that a kernel uses until it manages memory itself.
//!
//! A kernel needs more memory than its file: before it reads the memory map, it moves itself up inside its run range,
//! unpacks there, and uses its first page tables and stack there. So the whole run range is reserved, and nothing else
//! is in it. An initrd directly behind the file would be overwritten.

use uefi_raw::table::boot::MemoryType;

use super::setup_header::{DEFAULT_ADDRESS, Relocation, SetupHeader};
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::boot::error::Error;
use crate::hal::paging;
use crate::memory_map::{MemoryMap, Placement};

/// A place for the kernel.
#[derive(Clone, Copy)]
pub struct Place {
    /// The loaded bytes of the file.
    pub file: PhysRange,
    /// All memory that the kernel uses, including the file.
    pub run: PhysRange,
    /// The alignment that the kernel has to assume, if it is not the preferred one.
    pub alignment: Option<u32>,
}

/// Searches a place for a kernel.
struct Search<'a> {
    header: &'a SetupHeader,
    /// The number of loaded bytes.
    kernel_len: u64,
    map: &'a MemoryMap,
}

impl Search<'_> {
    /// The place for a kernel loaded at `load`, if it fits there. `alignment` is what the kernel will read as
    /// `kernel_alignment`; `None` for a kernel that does not align itself.
    fn at(&self, load: PhysAddr, alignment: Option<Alignment>, within: PhysRange) -> Option<Place> {
        let Self { header, kernel_len, map } = *self;
        // boot.rst, `init_size`. In addition, a relocatable kernel never runs below its preferred address.
        let start = match alignment {
            Some(alignment) => load.align_up(alignment)?.max(header.preferred_address()),
            None => header.preferred_address(),
        };
        let file = PhysRange::new(load, kernel_len)?;
        let unpacked = PhysRange::new(start, header.run_len(kernel_len))?;
        let end = file.end().max(unpacked.end()).align_up(Alignment::PAGE)?;
        let run = PhysRange::from_bounds(file.start().min(start), end)?;
        let usable = load.is_aligned(Alignment::PAGE) && within.contains(run) && map.is_free(run);
        usable.then_some(Place { file, run, alignment: None })
    }

    /// The lowest place for a relocatable kernel in `space`, at or above its preferred address. It has the preferred
    /// alignment if there is room, else the largest smaller one that has room, but at least `least`.
    fn aligned(&self, preferred: Alignment, least: Alignment, space: PhysRange) -> Option<Place> {
        let Self { header, kernel_len, map } = *self;
        let within = PhysRange::from_bounds(header.preferred_address().max(space.start()), space.end())?;
        // Whole pages, even if the kernel uses part of the last one.
        let len = header.run_len(kernel_len).max(kernel_len).checked_next_multiple_of(Alignment::PAGE.bytes())?;
        let least = least.max(Alignment::PAGE);
        let mut alignment = preferred;
        loop {
            let found = map.find_free(len, alignment.max(least), within, Placement::Bottom);
            if let Some(place) = found.and_then(|at| self.at(at.start(), Some(alignment), space)) {
                let changed = if alignment == preferred { None } else { u32::try_from(alignment.bytes()).ok() };
                return Some(Place { alignment: changed, ..place });
            }
            if alignment <= least {
                return None;
            }
            alignment = Alignment::new(alignment.bytes() >> 1)?;
        }
    }
}

/// Finds a place for a kernel with `kernel_len` loaded bytes, and reserves it.
///
/// # Errors
/// [`Error::KernelDoesNotFit`], [`Error::KernelOutOfReach`], [`Error::MemoryMap`].
pub fn place_kernel(header: &SetupHeader, kernel_len: u64, map: &mut MemoryMap) -> Result<Place, Error> {
    let search = Search { header, kernel_len, map };
    let place = match header.relocation() {
        Relocation::Fixed => search.at(DEFAULT_ADDRESS, None, PhysRange::LOW_4_GIB),
        Relocation::Movable { alignment, least } => {
            let find = |space| search.aligned(alignment, least, space);
            find(PhysRange::LOW_4_GIB).or_else(|| spaces_above(header).iter().copied().find_map(find))
        }
    };
    let place = place.ok_or_else(|| does_not_fit(header, kernel_len, map))?;
    map.reserve(place.run, MemoryType::LOADER_DATA)?;
    Ok(place)
}

/// Why there is no place for the kernel: either this machine has too little memory, or every machine has.
pub fn does_not_fit(header: &SetupHeader, kernel_len: u64, map: &MemoryMap) -> Error {
    let needed = header.run_len(kernel_len).max(kernel_len);
    let at = header.preferred_address();
    let above = match header.relocation() {
        Relocation::Fixed => None,
        Relocation::Movable { .. } => spaces_above(header).last(),
    };
    let limit = above.unwrap_or(&PhysRange::LOW_4_GIB).end();
    if PhysRange::new(at, needed).is_some_and(|run| run.end() <= limit) {
        Error::KernelDoesNotFit { needed, at, ram: map.ram_bytes() }
    } else {
        Error::KernelOutOfReach { needed, at, limit }
    }
}

/// The ranges above 4 GiB for this kernel and its initrd.
pub fn spaces_above(header: &SetupHeader) -> &'static [PhysRange] {
    if header.may_be_above_4_gib() { &paging::SPACES } else { &[] }
}
