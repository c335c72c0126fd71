//! Where everything goes.
//!
//! The kernel needs more memory than its file fills: it moves itself up inside its run range, unpacks there, and has
//! its first page tables and stack there, all before it looks at the memory map. So the whole run range is held, and
//! nothing else is in it; an initrd that starts right behind the file would be unpacked over.
//!
//! What does not fit below 4 GiB goes above, where the kernel allows it. There it has to be mapped, by page tables that the
//! plan has room for.

use alloc::vec::Vec;

use uefi_raw::table::boot::MemoryType;

use super::low::{self, LowBlock};
use super::setup_header::DEFAULT_ADDRESS;
use super::{Appended, Entry, Error, Handover, Loaded, Payload, Relocation, SetupHeader, Source};
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::hal::paging;
use crate::memory_map::{self, MemoryMap, Placement};

/// Where `boot_params` and the command line go: below 640 KiB, as the protocol wants it, and from 64 KiB on, because
/// hosts leave data for the firmware below (boot.rst, "The Kernel Command Line"; QEMU, crosvm).
const LOW_MEMORY: (u64, u64) = (0x1_0000, 0xa_0000);

/// The size of `boot_params`.
pub(super) const BOOT_PARAMS_LEN: u64 = 4096;

/// Where each part is to be put. No two overlap, and each is RAM that nothing else held. With [`Entry::LinuxLow`] that is
/// where it is made ready: see [`LowBlock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadPlan {
    /// The length in bytes of the kernel file's real-mode part, which is not loaded: 64-bit and 32-bit entry need none of
    /// it.
    pub setup_len: u32,
    /// The bytes of the protected-mode part of the kernel file.
    pub kernel: PhysRange,
    /// All that the kernel uses until it manages memory itself, above 1 MiB. Contains `kernel`, unless that is a zImage.
    pub kernel_run: PhysRange,
    /// The alignment that the kernel is to assume (`kernel_alignment`), where the plan has to choose one.
    pub kernel_alignment: Option<u32>,
    /// The bytes of the initrd, if there is one.
    pub initrd: Option<PhysRange>,
    /// The bytes of the command line as the host counts them, and one more for a NUL in any case.
    pub command_line: PhysRange,
    /// A page for [`super::BootParams`].
    pub boot_params: PhysRange,
    /// Room for the page tables of what is above 4 GiB, if anything is ([`Self::above_4_gib`]).
    pub page_tables: Option<PhysRange>,
    /// What the host has appended to the kernel for its `setup_data`, if it has.
    pub appended: Option<Appended>,
    /// Where the kernel is entered.
    pub entry: Entry,
}

impl LoadPlan {
    /// Finds a place for everything and holds it in `map` as `LOADER_DATA`, which is RAM to the kernel.
    ///
    /// # Errors
    /// [`Error::RealModeOnly`], [`Error::EntryMoved`], [`Error::FileTruncated`], [`Error::CommandLineTooLong`],
    /// [`Error::NoLowMemory`], [`Error::CommandLineDoesNotFit`], [`Error::KernelDoesNotFit`],
    /// [`Error::KernelOutOfReach`], [`Error::InitrdDoesNotFit`]; for a kernel in low memory [`Error::ZImageTooLong`],
    /// [`Error::NoPcMemory`]. Parts that fitted stay held in `map` then.
    pub fn new(header: &SetupHeader, payload: &Payload, map: &mut MemoryMap) -> Result<Self, Error> {
        let entry_offset = header.entry_offset(payload.kernel)?;
        // The header counts in 16 bytes.
        if payload.kernel.saturating_add(15) < header.kernel_len() {
            let seen = payload.kernel.saturating_add(header.setup_len().into());
            return Err(Error::FileTruncated { seen, needed: header.file_len() });
        }
        check_command_line(header, payload)?;
        if LowBlock::is_for(header) {
            return low::plan(header, payload, entry_offset, map);
        }
        let boot_params = allocate_low(map, BOOT_PARAMS_LEN)?;
        let command_line = allocate_command_line(map, payload.command_line)?;
        let kernel = place_kernel(header, payload, map)?;
        let initrd = match (payload.initrd, payload.initrd_place) {
            (0, _) => None,
            (_, Some(place)) if header.may_be_above_4_gib() || header.initrd_space().contains(place) => Some(place),
            (len, _) => Some(place_any_initrd(header, len, map)?),
        };
        let appended = if header.setup_data() == 0 { None } else { Appended::plan(header, payload, map) };
        let page_tables = place_page_tables(kernel.run, initrd, map)?;
        // One of the file's bytes.
        let entry = PhysAddr::new(kernel.file.start().get().saturating_add(entry_offset));
        let entry = if header.is_64_bit() { Entry::Linux64(entry) } else { Entry::Linux32(entry) };
        Ok(Self {
            setup_len: header.setup_len(),
            kernel: kernel.file,
            kernel_run: kernel.run,
            kernel_alignment: kernel.alignment,
            initrd,
            command_line,
            boot_params,
            page_tables,
            appended,
            entry,
        })
    }

    /// What has to be mapped: that of kernel and initrd which is above 4 GiB.
    pub fn above_4_gib(&self) -> impl Iterator<Item = PhysRange> {
        parts_above_4_gib(self.kernel_run, self.initrd)
    }

    /// What there is once everything is in its place, the kernel from `source`.
    #[must_use]
    pub fn loaded(&self, source: Source) -> Loaded {
        Loaded {
            setup: Some(source.setup(self.setup_len)),
            kernel: self.kernel,
            initrd: self.initrd,
            modules: Vec::new(),
            command_line: self.command_line,
            handover: Handover::new(self.entry, self.at_entry(self.boot_params.start())),
        }
    }

    /// Where the byte that is at `address` now is when the kernel runs.
    pub(super) fn at_entry(&self, address: PhysAddr) -> PhysAddr {
        match self.entry {
            Entry::LinuxLow { block, .. } => block.at_entry(address),
            _ => address,
        }
    }

    /// Where the protected-mode part of the kernel begins when it runs, for a 32-bit entry that is elsewhere in it the
    /// entry (`code32_start`).
    pub(super) fn code32_start(&self) -> PhysAddr {
        match self.entry {
            Entry::Linux32(at) | Entry::LinuxLow { at, .. } => at,
            _ => self.kernel.start(),
        }
    }
}

/// A place for the kernel.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub file: PhysRange,
    pub run: PhysRange,
    alignment: Option<u32>,
}

impl Place {
    /// The place that loading at `load` would be, if it is possible there at all. `alignment` is what the kernel will
    /// take as `kernel_alignment`; `None` where it does not move by it.
    fn at(
        header: &SetupHeader,
        kernel_len: u64,
        load: PhysAddr,
        alignment: Option<Alignment>,
        within: PhysRange,
        map: &MemoryMap,
    ) -> Option<Self> {
        // boot.rst, `init_size`. What it does not say: a relocatable kernel never runs below its preferred address.
        let start = match alignment {
            Some(alignment) => load.align_up(alignment)?.max(header.preferred_address()),
            None => header.preferred_address(),
        };
        let file = PhysRange::new(load, kernel_len)?;
        let unpacked = PhysRange::new(start, header.run_len(kernel_len))?;
        let end = file.end().max(unpacked.end()).align_up(Alignment::PAGE)?;
        let run = PhysRange::from_bounds(file.start().min(start), end)?;
        let usable = load.is_aligned(Alignment::PAGE) && within.contains(run) && map.is_free(run);
        usable.then_some(Self { file, run, alignment: None })
    }
}

/// Places the kernel.
pub(super) fn place_kernel(header: &SetupHeader, payload: &Payload, map: &mut MemoryMap) -> Result<Place, Error> {
    let place = match header.relocation() {
        Relocation::Fixed => Place::at(header, payload.kernel, DEFAULT_ADDRESS, None, PhysRange::LOW_4_GIB, map),
        Relocation::Movable { alignment, least } => {
            let find = |space| find_place(header, payload.kernel, (alignment, least), space, map);
            find(PhysRange::LOW_4_GIB).or_else(|| spaces_above(header).iter().copied().find_map(find))
        }
    };
    let place = place.ok_or_else(|| does_not_fit(header, payload.kernel, map))?;
    map.reserve(place.run, MemoryType::LOADER_DATA)?;
    Ok(place)
}

/// Why there is no place for the kernel: the machine has too little memory, or no machine could have enough.
#[cold]
pub(super) fn does_not_fit(header: &SetupHeader, kernel_len: u64, map: &MemoryMap) -> Error {
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

/// The lowest place for a relocatable kernel in `space`, at or above its preferred address, aligned as it prefers, else as
/// little less as there is room for.
#[inline(never)]
fn find_place(
    header: &SetupHeader,
    kernel_len: u64,
    (preferred, least): (Alignment, Alignment),
    space: PhysRange,
    map: &MemoryMap,
) -> Option<Place> {
    let within = PhysRange::from_bounds(header.preferred_address().max(space.start()), space.end())?;
    // Whole pages, whatever the kernel would take.
    let len = header.run_len(kernel_len).max(kernel_len).checked_next_multiple_of(Alignment::PAGE.bytes())?;
    let least = least.max(Alignment::PAGE);
    let mut alignment = preferred;
    loop {
        let found = map.find_free(len, alignment.max(least), within, Placement::Bottom);
        if let Some(place) = found.and_then(|at| Place::at(header, kernel_len, at.start(), Some(alignment), space, map))
        {
            let changed = if alignment == preferred { None } else { u32::try_from(alignment.bytes()).ok() };
            return Some(Place { alignment: changed, ..place });
        }
        if alignment <= least {
            return None;
        }
        alignment = Alignment::new(alignment.bytes() >> 1)?;
    }
}

/// Where above 4 GiB what goes with this kernel can be.
fn spaces_above(header: &SetupHeader) -> &'static [PhysRange] {
    if header.may_be_above_4_gib() { &paging::SPACES } else { &[] }
}

fn parts_above_4_gib(kernel: PhysRange, initrd: Option<PhysRange>) -> impl Iterator<Item = PhysRange> {
    [Some(kernel), initrd].into_iter().flatten().filter(|part| part.end() > PhysRange::LOW_4_GIB.end())
}

/// Room for the page tables of what is above 4 GiB.
fn place_page_tables(
    kernel: PhysRange,
    initrd: Option<PhysRange>,
    map: &mut MemoryMap,
) -> Result<Option<PhysRange>, Error> {
    // Nearly always all is below, and that takes two comparisons.
    if kernel.end().max(initrd.unwrap_or_default().end()) <= PhysRange::LOW_4_GIB.end() {
        return Ok(None);
    }
    place_page_tables_above(kernel, initrd, map)
}

/// As [`place_page_tables`], where one of them ends above 4 GiB.
#[cold]
fn place_page_tables_above(
    kernel: PhysRange,
    initrd: Option<PhysRange>,
    map: &mut MemoryMap,
) -> Result<Option<PhysRange>, Error> {
    match parts_above_4_gib(kernel, initrd).map(paging::room_for).fold(0, u64::saturating_add) {
        0 => Ok(None),
        len => allocate_low(map, len).map(Some),
    }
}

/// Below 4 GiB where that is possible, else above where the kernel allows it.
fn place_any_initrd(header: &SetupHeader, len: u64, map: &mut MemoryMap) -> Result<PhysRange, Error> {
    match place_initrd(header.initrd_space(), len, map) {
        Err(error) => place_initrd_above(header, len, map, error),
        place => place,
    }
}

/// Above 4 GiB, if the kernel allows it. `below` is why it is not below.
#[cold]
fn place_initrd_above(header: &SetupHeader, len: u64, map: &mut MemoryMap, below: Error) -> Result<PhysRange, Error> {
    let mut result = below;
    for &space in spaces_above(header) {
        match (place_initrd(space, len, map), result) {
            // Nothing but the room is limited.
            (Err(Error::InitrdDoesNotFit { size, free, .. }), Error::InitrdDoesNotFit { free: other, .. }) => {
                result = Error::InitrdDoesNotFit { size, limit: None, free: free.max(other) };
            }
            (place, _) => return place,
        }
    }
    Err(result)
}

/// As high in `space` as it fits: that is as far as can be from where the kernel grows. It starts on a large page, which
/// the host may back by one, where that costs less than one.
#[inline(never)]
pub(super) fn place_initrd(space: PhysRange, len: u64, map: &mut MemoryMap) -> Result<PhysRange, Error> {
    let low = PhysRange::LOW_1_MIB.end();
    let limit = Some(space.end());
    let space = PhysRange::from_bounds(space.start().max(low), space.end()).unwrap_or_default();
    let find = |len, alignment| map.find_free(len, alignment, space, Placement::Top);
    // Whole pages: the kernel frees them all when it is done.
    let pages = len.checked_next_multiple_of(Alignment::PAGE.bytes());
    let Some(found) = pages.and_then(|len| find(len, Alignment::PAGE)) else {
        let free = map.largest_free(space);
        return Err(Error::InitrdDoesNotFit { size: len, limit, free });
    };
    let on_large_page = find(found.len(), Alignment::LARGE_PAGE)
        .filter(|large| large.start().checked_add(Alignment::LARGE_PAGE.bytes()) > Some(found.start()));
    let held = on_large_page.unwrap_or(found);
    map.reserve(held, MemoryType::LOADER_DATA)?;
    // No longer than what was found.
    Ok(PhysRange::new(held.start(), len).unwrap_or(held))
}

fn check_command_line(header: &SetupHeader, payload: &Payload) -> Result<(), Error> {
    // The host counts the NUL.
    let len = payload.command_line.saturating_sub(1);
    let limit = header.command_line_limit();
    if len > limit { Err(Error::CommandLineTooLong { len, limit }) } else { Ok(()) }
}

/// Low memory for a command line of `len` bytes and a NUL, held to the end of its last page.
pub(super) fn allocate_command_line(map: &mut MemoryMap, len: u64) -> Result<PhysRange, Error> {
    let needed = len.saturating_add(1);
    find_low(map, needed, Error::CommandLineDoesNotFit { needed })
}

/// `len` bytes of low memory, held to the end of their last page.
pub(super) fn allocate_low(map: &mut MemoryMap, len: u64) -> Result<PhysRange, Error> {
    find_low(map, len, Error::NoLowMemory { needed: len })
}

/// `no_room`, or that the map is full where there is room.
fn find_low(map: &mut MemoryMap, len: u64, no_room: Error) -> Result<PhysRange, Error> {
    let (start, end) = LOW_MEMORY;
    let low = PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap_or_default();
    let Some(pages) = len.checked_next_multiple_of(Alignment::PAGE.bytes()) else { return Err(no_room) };
    let found = map.allocate(pages, Alignment::PAGE, low, Placement::Bottom, MemoryType::LOADER_DATA);
    match found.and_then(|found| PhysRange::new(found.start(), len)) {
        Some(found) => Ok(found),
        None if map.find_free(pages, Alignment::PAGE, low, Placement::Bottom).is_some() => {
            Err(Error::MemoryMap(memory_map::Error::Full))
        }
        None => Err(no_room),
    }
}

#[cfg(test)]
mod tests;
