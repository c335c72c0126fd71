//! Memory that images allocate, and the map that they are shown (UEFI 7.2).
//!
//! The pages come from the boot's [`MemoryMap`]. What images have taken is noted beside it, so that they can free that and
//! nothing else: neither the firmware's own memory nor what the host reserved. Pools are pieces of such pages (`pool`).
//!
//! The map key changes with every change of the map that is shown, and with no other.
//!
//! Assumed: all RAM in the map can be accessed by images. Left out: attributes that a host could have for parts of RAM
//! (`EFI_MEMORY_MORE_RELIABLE`, `EFI_MEMORY_SP`), and unaccepted memory.

mod pool;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use uefi_raw::Status;
use uefi_raw::table::boot::{MemoryAttribute, MemoryDescriptor, MemoryType};
use zerocopy::little_endian::U64;

pub use self::pool::PAGE_SHIFT;
use self::pool::Pools;
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::heap;
use crate::memory_map::{HostMap, MemoryMap, Placement, Region};

/// The bytes from one descriptor of the map to the next: more than a descriptor has (40), as in EDK II, so that nobody counts
/// on its length.
pub const DESCRIPTOR_LEN: usize = 48;

/// Where pages are wanted (UEFI 7.2, `AllocatePages`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Anywhere.
    AnyPages,
    /// With no byte above this address.
    MaxAddress(u64),
    /// At this address.
    Address(u64),
}

/// The memory of images.
#[derive(Debug)]
pub struct Memory {
    map: MemoryMap,
    /// What images have allocated: `LOADER_DATA`, whatever its type, without a boundary between what touches.
    taken: HostMap,
    pools: Pools,
    /// The firmware's own pages.
    own: Vec<PhysRange>,
    /// The stack that programs and the firmware's functions run on.
    stack: PhysRange,
    /// Pages that a device may write at any time.
    lost: Vec<PhysRange>,
    key: u64,
}

impl Memory {
    /// Images get what is free in `map`.
    #[must_use]
    pub fn new(map: MemoryMap) -> Self {
        Self {
            map,
            taken: HostMap::default(),
            pools: Pools::new(),
            own: Vec::new(),
            stack: PhysRange::default(),
            lost: Vec::new(),
            key: 1,
        }
    }

    /// The present map key.
    #[must_use]
    pub const fn key(&self) -> u64 {
        self.key
    }

    /// Takes `pages` pages of 4 KiB for `kind`, and returns where they are. Without a wish they are the highest below 4 GiB, and
    /// above only where these do not suffice; the page at zero is not among them.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a type that nothing is allocated as, and for an address that is not one of a page; `NOT_FOUND` for
    /// pages at an address that are not all free; `OUT_OF_RESOURCES`.
    pub fn allocate_pages(&mut self, wanted: Wanted, kind: MemoryType, pages: u64) -> Result<PhysAddr, Status> {
        check(kind)?;
        let none = match wanted {
            Wanted::Address(_) => Status::NOT_FOUND,
            Wanted::AnyPages | Wanted::MaxAddress(_) => Status::OUT_OF_RESOURCES,
        };
        let len = pages.checked_mul(Alignment::PAGE.bytes()).filter(|&len| len > 0).ok_or(none)?;
        let place = match wanted {
            Wanted::AnyPages => self.find(PhysRange::LOW_4_GIB, len).or_else(|| self.find(ALL, len)),
            Wanted::MaxAddress(last) => {
                // The end of pages whose last byte may be at `last`.
                let end = PhysAddr::new(last.saturating_add(1));
                let within = |room: PhysRange| PhysRange::from_bounds(room.start(), room.end().min(end));
                let find = |room| within(room).and_then(|room| self.find(room, len));
                find(PhysRange::LOW_4_GIB).or_else(|| find(ALL))
            }
            Wanted::Address(at) => {
                let at = PhysAddr::new(at);
                if !at.is_aligned(Alignment::PAGE) {
                    return Err(Status::INVALID_PARAMETER);
                }
                PhysRange::new(at, len).filter(|&range| self.map.is_free(range))
            }
        };
        let place = place.ok_or(none)?;
        self.take(place, kind)?;
        Ok(place.start())
    }

    /// Frees pages that images have allocated, be they all of an allocation, a part or parts of several.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for an address that is not one of a page, and for no pages; `NOT_FOUND` when not all are an image's, or
    /// a pool is among them.
    pub fn free_pages(&mut self, at: u64, pages: u64) -> Result<(), Status> {
        let at = PhysAddr::new(at);
        if !at.is_aligned(Alignment::PAGE) || pages == 0 {
            return Err(Status::INVALID_PARAMETER);
        }
        let len = pages.checked_mul(Alignment::PAGE.bytes()).ok_or(Status::NOT_FOUND)?;
        let range = PhysRange::new(at, len).ok_or(Status::NOT_FOUND)?;
        if !self.taken.is_ram(range) || self.pools.overlap(range) {
            return Err(Status::NOT_FOUND);
        }
        if self.is_lost(range) { Ok(()) } else { self.give_back(range) }
    }

    /// Takes `len` bytes from a pool of `kind`, at a multiple of 8.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` as for [`Self::allocate_pages`]; `OUT_OF_RESOURCES`.
    pub fn allocate_pool(&mut self, kind: MemoryType, len: u64) -> Result<PhysAddr, Status> {
        check(kind)?;
        if let Some(found) = self.pools.allocate(kind, len)? {
            return Ok(found);
        }
        let pages = pool::pages_for(len).ok_or(Status::OUT_OF_RESOURCES)?;
        let at = self.allocate_pages(Wanted::AnyPages, kind, pages)?;
        let range = PhysRange::new(at, pages.saturating_mul(Alignment::PAGE.bytes())).unwrap_or_default();
        if self.pools.add(kind, range).is_err() {
            self.give_back(range)?;
            return Err(Status::OUT_OF_RESOURCES);
        }
        self.pools.allocate(kind, len)?.ok_or(Status::OUT_OF_RESOURCES)
    }

    /// Frees what [`Self::allocate_pool`] returned. Returns the pages that are free then, if all of a large pool is.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for any other address.
    pub fn free_pool(&mut self, at: u64) -> Result<Option<PhysRange>, Status> {
        if self.pools.piece(PhysAddr::new(at)).is_some_and(|piece| self.is_lost(piece)) {
            return Ok(None);
        }
        let pages = self.pools.free(PhysAddr::new(at))?;
        // The pool is gone. Pages that the map has no room to free stay taken.
        Ok(pages.filter(|&pages| self.give_back(pages).is_ok()))
    }

    /// Takes `pages` pages for the firmware's own data, below 4 GiB. No image can free them.
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES`.
    pub fn reserve_pages(&mut self, pages: u64) -> Result<PhysRange, Status> {
        let len = pages.saturating_mul(Alignment::PAGE.bytes());
        let place = self.find(PhysRange::LOW_4_GIB, len).ok_or(Status::OUT_OF_RESOURCES)?;
        self.own.try_reserve(1).map_err(|_| Status::OUT_OF_RESOURCES)?;
        self.map.reserve(place, MemoryType::BOOT_SERVICES_DATA).map_err(|_| Status::OUT_OF_RESOURCES)?;
        // There is room for it.
        let _ = heap::push_within_capacity(&mut self.own, place);
        self.key = self.key.wrapping_add(1);
        Ok(place)
    }

    /// Makes `stack` the firmware's own, which programs may write.
    pub const fn keep_stack(&mut self, stack: PhysRange) {
        self.stack = stack;
    }

    /// Whether a part of `range` is the firmware's own: [`Self::reserve_pages`], [`Self::keep_stack`].
    #[must_use]
    pub fn is_own(&self, range: PhysRange) -> bool {
        self.is_reserved(range) || self.stack.overlaps(range)
    }

    /// Whether a part of `range` is of [`Self::reserve_pages`].
    #[must_use]
    pub fn is_reserved(&self, range: PhysRange) -> bool {
        self.own.iter().any(|own| own.overlaps(range))
    }

    /// Gives up the pages of `range`, which a device may write at any time. Nobody gets them again, neither from boot services nor
    /// from an operating system: who frees them, or what they are a part of, frees nothing. The map has them as reserved.
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES`. They are in the map as before then, but nobody gets them from boot services if the heap had room.
    pub fn give_up(&mut self, range: PhysRange) -> Result<(), Status> {
        let pages = range.pages();
        heap::push(&mut self.lost, pages).map_err(|_| Status::OUT_OF_RESOURCES)?;
        self.map.give_up(pages).map_err(|_| Status::OUT_OF_RESOURCES)?;
        self.key = self.key.wrapping_add(1);
        Ok(())
    }

    fn is_lost(&self, range: PhysRange) -> bool {
        self.lost.iter().any(|lost| lost.overlaps(range))
    }

    /// The map: by address, without overlaps, in whole pages, neighbours of one type joined.
    pub fn descriptors(&self) -> impl Iterator<Item = MemoryDescriptor> + '_ {
        descriptors(&self.map)
    }

    /// The map that the pages come from.
    #[must_use]
    pub const fn map(&self) -> &MemoryMap {
        &self.map
    }

    /// The bytes of memory that the map is written to.
    #[must_use]
    pub fn descriptors_len(&self) -> usize {
        heap::count(self.descriptors()).saturating_mul(DESCRIPTOR_LEN)
    }

    /// The highest pages for `len` bytes in `room`.
    fn find(&self, room: PhysRange, len: u64) -> Option<PhysRange> {
        // A null pointer is none of anybody's memory.
        let room = PhysRange::from_bounds(room.start().max(PhysAddr::new(Alignment::PAGE.bytes())), room.end())?;
        self.map.find_free(len, Alignment::PAGE, room, Placement::Top)
    }

    fn take(&mut self, place: PhysRange, kind: MemoryType) -> Result<(), Status> {
        self.taken.describe(place, MemoryType::LOADER_DATA).map_err(|_| Status::OUT_OF_RESOURCES)?;
        if self.map.reserve(place, kind).is_err() {
            // It splits nothing that was one before.
            let _ = self.taken.remove_ram(place);
            return Err(Status::OUT_OF_RESOURCES);
        }
        self.key = self.key.wrapping_add(1);
        Ok(())
    }

    fn give_back(&mut self, range: PhysRange) -> Result<(), Status> {
        self.taken.remove_ram(range).map_err(|_| Status::OUT_OF_RESOURCES)?;
        if self.map.release(range).is_err() {
            // There is room: it was described a moment ago.
            let _ = self.taken.describe(range, MemoryType::LOADER_DATA);
            return Err(Status::OUT_OF_RESOURCES);
        }
        self.key = self.key.wrapping_add(1);
        Ok(())
    }
}

/// The descriptors of a map: by address, without overlaps, in whole pages, neighbours of one type joined.
pub fn descriptors(map: &MemoryMap) -> impl Iterator<Item = MemoryDescriptor> + '_ {
    let whole = map.regions().filter_map(whole_pages);
    Joined { regions: whole.peekable() }.map(descriptor)
}

/// A descriptor as it is in a map: its fields, and zeros up to [`DESCRIPTOR_LEN`].
#[must_use]
pub fn descriptor_bytes(descriptor: &MemoryDescriptor) -> [u8; DESCRIPTOR_LEN] {
    let numbers: [U64; DESCRIPTOR_LEN / 8] = [
        u64::from(descriptor.ty.0),
        descriptor.phys_start,
        descriptor.virt_start,
        descriptor.page_count,
        descriptor.att.bits(),
        0,
    ]
    .map(U64::new);
    zerocopy::transmute!(numbers)
}

/// All memory.
const ALL: PhysRange = crate::addr::constant_range(0, u64::MAX);

/// Whether memory may be allocated as `kind`: the types that have a meaning, and those of makers of firmware and of loaders
/// (UEFI 7.2, "Memory Type Usage").
fn check(kind: MemoryType) -> Result<(), Status> {
    const MAKERS: u32 = 0x7000_0000;
    let is_known = kind < MemoryType::PERSISTENT_MEMORY && kind != MemoryType::CONVENTIONAL;
    if is_known || kind.0 >= MAKERS { Ok(()) } else { Err(Status::INVALID_PARAMETER) }
}

/// Whether memory of this type is RAM to an operating system.
fn is_ram(kind: MemoryType) -> bool {
    MemoryType::LOADER_CODE <= kind && kind <= MemoryType::BOOT_SERVICES_DATA || kind == MemoryType::CONVENTIONAL
}

/// The region in whole pages: what is free without the pages that it has in part, and all else with these.
fn whole_pages(region: Region) -> Option<Region> {
    let (start, end) = (region.range.start(), region.range.end());
    let range = if region.kind == MemoryType::CONVENTIONAL {
        PhysRange::from_bounds(start.align_up(Alignment::PAGE)?, end.align_down(Alignment::PAGE))?
    } else {
        region.range.pages()
    };
    Some(Region { range, ..region }).filter(|region| !region.range.is_empty())
}

/// Whole pages without those of one type that touch, and without two types in a page: what is no RAM has the page, and else
/// the one that comes first.
struct Joined<I: Iterator<Item = Region>> {
    regions: core::iter::Peekable<I>,
}

impl<I: Iterator<Item = Region>> Iterator for Joined<I> {
    type Item = Region;

    fn next(&mut self) -> Option<Region> {
        let mut region = self.regions.next()?;
        while let Some(next) = self.regions.peek_mut() {
            let (start, end) = (region.range.start(), region.range.end());
            if next.kind == region.kind && next.range.start() <= end {
                region.range = PhysRange::from_bounds(start, end.max(next.range.end()))?;
                self.regions.next();
            } else if next.range.start() >= end {
                break;
            } else if is_ram(region.kind) && !is_ram(next.kind) {
                // Both are in this page.
                region.range = PhysRange::from_bounds(start, next.range.start())?;
                if !region.range.is_empty() {
                    break;
                }
                region = self.regions.next()?;
            } else {
                next.range = PhysRange::from_bounds(end.min(next.range.end()), next.range.end())?;
                if !next.range.is_empty() {
                    break;
                }
                self.regions.next();
            }
        }
        Some(region)
    }
}

fn descriptor(region: Region) -> MemoryDescriptor {
    // Of registers in memory only those are in the map that the runtime services use.
    let is_runtime =
        matches!(region.kind, MemoryType::RUNTIME_SERVICES_CODE | MemoryType::RUNTIME_SERVICES_DATA | MemoryType::MMIO);
    let is_memory = !matches!(
        region.kind,
        MemoryType::RESERVED | MemoryType::MMIO | MemoryType::MMIO_PORT_SPACE | MemoryType::UNUSABLE
    );
    let mut att = match region.kind {
        MemoryType::MMIO => MemoryAttribute::UNCACHEABLE,
        _ if is_memory => CACHEABLE,
        _ => MemoryAttribute::empty(),
    };
    if is_runtime {
        att |= MemoryAttribute::RUNTIME;
    }
    MemoryDescriptor {
        ty: region.kind,
        padding: 0,
        phys_start: region.range.start().get(),
        virt_start: 0,
        page_count: region.range.len() >> PAGE_SHIFT,
        att,
    }
}

/// How RAM can be cached.
const CACHEABLE: MemoryAttribute = MemoryAttribute::UNCACHEABLE
    .union(MemoryAttribute::WRITE_COMBINE)
    .union(MemoryAttribute::WRITE_THROUGH)
    .union(MemoryAttribute::WRITE_BACK);
