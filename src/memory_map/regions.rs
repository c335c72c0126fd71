//! The ordered list of regions, and the queries on it.

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use uefi_raw::table::boot::MemoryType;

use super::e820::{self, E820Entry};
use super::error::Error;
use super::kind::{is_ram, stricter};
use super::region::{CAPACITY, Region};
use super::whole::rounded_out;
use crate::addr::{PhysAddr, PhysRange};
use crate::heap;

/// A part of a map while it is rebuilt: on the stack, and larger than a map, so that only the map can be full.
type Pieces = ArrayVec<Region, { CAPACITY + 4 }>;

/// The known memory: regions sorted by address and disjoint; adjacent ones differ in kind. Everybody may query it;
/// [`HostMap`](super::HostMap) and [`MemoryMap`](super::MemoryMap) change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Regions {
    /// At most [`CAPACITY`]; the room for all is allocated at once.
    regions: Vec<Region>,
}

impl Regions {
    /// The regions by ascending address.
    pub fn regions(&self) -> impl DoubleEndedIterator<Item = Region> + '_ {
        self.regions.iter().copied()
    }

    /// How many regions there are: as many as e820 entries, or more.
    #[must_use]
    pub fn region_count(&self) -> usize {
        self.regions.len()
    }

    /// The map as e820 entries by ascending address, at most [`CAPACITY`].
    pub fn e820(&self) -> impl Iterator<Item = E820Entry> + '_ {
        e820::entries(&self.regions)
    }

    /// Fills `table` with the e820 entries in the form that `entry` gives them, as many as fit. Returns their number.
    pub fn fill_from_e820<T>(&self, table: &mut [T], entry: impl Fn(E820Entry) -> T) -> u32 {
        let mut count = 0_u32;
        for (place, e820) in table.iter_mut().zip(self.e820()) {
            *place = entry(e820);
            count = count.saturating_add(1);
        }
        count
    }

    /// Whether all of `range` is RAM to the kernel: free, or allocated until the kernel runs.
    #[must_use]
    pub fn is_ram(&self, range: PhysRange) -> bool {
        self.every(range, is_ram)
    }

    /// Whether all of `range` is RAM that nothing has taken.
    #[must_use]
    pub fn is_free(&self, range: PhysRange) -> bool {
        self.every(range, |kind| kind == MemoryType::CONVENTIONAL)
    }

    /// Whether all of `range` is known, and none of it is free.
    pub(super) fn is_allocated(&self, range: PhysRange) -> bool {
        self.every(range, |kind| kind != MemoryType::CONVENTIONAL)
    }

    /// Whether the kernel does not use any of `range`: every byte is described to it, and none is RAM.
    #[must_use]
    pub fn is_withheld(&self, range: PhysRange) -> bool {
        self.every(range, |kind| !is_ram(kind))
    }

    /// Whether some byte of `range` is loaded data: a kernel, the firmware's image, or a module of the host's.
    #[must_use]
    pub fn has_loaded(&self, range: PhysRange) -> bool {
        let is_loaded = |kind| matches!(kind, MemoryType::LOADER_CODE | MemoryType::LOADER_DATA);
        self.regions.iter().any(|region| is_loaded(region.kind) && region.range.overlaps(range))
    }

    /// How many bytes are RAM to the kernel.
    #[must_use]
    pub fn ram_bytes(&self) -> u64 {
        // The regions are disjoint, so the sum cannot wrap.
        self.ram().map(PhysRange::len).fold(0, u64::saturating_add)
    }

    /// One past the highest byte of RAM inside `within`; `None` if there is none.
    #[must_use]
    pub fn ram_end(&self, within: PhysRange) -> Option<PhysAddr> {
        self.ram().rev().find_map(|range| range.intersection(within)).map(PhysRange::end)
    }

    /// The end of the RAM that begins at the start of `within`, at most the end of `within`; the start if there is no RAM.
    #[must_use]
    pub fn ram_run_end(&self, within: PhysRange) -> PhysAddr {
        let mut end = within.start();
        // The first one that begins after the end leaves a gap.
        for range in self.ram() {
            if range.start() > end {
                break;
            }
            end = end.max(range.end());
        }
        end.min(within.end())
    }

    /// The KiB of RAM from the start of `within`, which has at most 4 GiB, to the first hole.
    #[must_use]
    pub fn ram_run_kib(&self, within: PhysRange) -> u32 {
        (self.ram_run_end(within).get().saturating_sub(within.start().get()) >> 10) as u32
    }

    /// The length in bytes of the longest free range inside `within`.
    #[must_use]
    pub fn largest_free(&self, within: PhysRange) -> u64 {
        self.regions.iter().filter_map(|region| region.free_part(within)).map(PhysRange::len).max().unwrap_or(0)
    }

    fn ram(&self) -> impl DoubleEndedIterator<Item = PhysRange> + '_ {
        self.regions.iter().filter(|region| is_ram(region.kind)).map(|region| region.range)
    }

    /// Whether every byte of `range` is in a region whose kind `accept`s; true for no bytes.
    fn every(&self, range: PhysRange, accept: impl Fn(MemoryType) -> bool) -> bool {
        let mut at = range.start();
        for region in &self.regions {
            if at >= range.end() {
                break;
            }
            if region.range.contains_addr(at) {
                if !accept(region.kind) {
                    return false;
                }
                at = region.range.end();
            }
        }
        at >= range.end()
    }

    /// Enters the kind of `range`, up to `capacity` regions, as [`HostMap::describe`](super::HostMap::describe).
    pub(super) fn describe(&mut self, range: PhysRange, kind: MemoryType, capacity: usize) -> Result<(), Error> {
        self.rewrite(range, capacity, &|old| Some(old.map_or(kind, |old| stricter(old, kind))))
    }

    /// Takes `range` out of the free memory for `kind`. Memory that already has a more restrictive kind keeps it. Holes
    /// become `kind` too, unless that is a kind of RAM, because RAM is never invented.
    ///
    /// A kind that the kernel does not get back takes whole pages, and whole KiB in the page from 0x9f000 on.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::HeapFull`]; the map is then unchanged.
    pub(super) fn reserve(&mut self, range: PhysRange, kind: MemoryType) -> Result<(), Error> {
        let (range, for_hole) = if is_ram(kind) { (range, None) } else { (rounded_out(range), Some(kind)) };
        self.rewrite(range, CAPACITY, &|old| old.map_or(for_hole, |old| Some(stricter(old, kind))))
    }

    /// Makes the RAM in `range` a hole; the rest of `range` is unchanged.
    pub(super) fn remove_ram(&mut self, range: PhysRange) -> Result<(), Error> {
        self.rewrite(range, CAPACITY, &|old| old.filter(|&kind| !is_ram(kind)))
    }

    /// Sets the kind of all of `range`, whatever it was.
    pub(super) fn set(&mut self, range: PhysRange, kind: MemoryType) -> Result<(), Error> {
        self.rewrite(range, CAPACITY, &|_| Some(kind))
    }

    /// Replaces the kind of every byte of `range` with the result of `change`. `None` is a hole.
    ///
    /// The part of the map that `range` touches is rebuilt and then replaced, so an error leaves the map unchanged.
    ///
    /// Not inlined: it has many callers, and hosts that translate or emulate code would translate each copy.
    #[inline(never)]
    fn rewrite(
        &mut self,
        range: PhysRange,
        capacity: usize,
        change: &dyn Fn(Option<MemoryType>) -> Option<MemoryType>,
    ) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        // Neighbours count as touched, because the new region may merge with them.
        let first = self.regions.iter().take_while(|region| region.range.end() < range.start()).count();
        let touched = self.regions.iter().skip(first).take_while(|region| region.range.start() <= range.end());
        let mut new = Pieces::new();
        let mut push = |start, end, kind| match kind {
            Some(kind) if start < end => push_merged(&mut new, start, end, kind),
            _ => Ok(()),
        };
        // Everything in `range` below this address is done.
        let mut done = range.start();
        let mut end = first;
        for &Region { range: old, kind } in touched {
            end = end.saturating_add(1);
            if old.start() > done {
                let hole_end = old.start().min(range.end());
                push(done, hole_end, change(None))?;
                done = done.max(hole_end);
            }
            let inside = old.intersection(range).unwrap_or_default();
            if inside.is_empty() {
                push(old.start(), old.end(), Some(kind))?;
            } else {
                push(old.start(), inside.start(), Some(kind))?;
                push(inside.start(), inside.end(), change(Some(kind)))?;
                push(inside.end(), old.end(), Some(kind))?;
                done = inside.end();
            }
        }
        push(done, range.end(), change(None))?;
        for &after in self.regions.get(end..).unwrap_or_default() {
            new.try_push(after).map_err(|_| Error::Full)?;
        }
        self.replace(first, &new, capacity)
    }

    /// Replaces the regions from `first` on with `new`.
    fn replace(&mut self, first: usize, new: &[Region], capacity: usize) -> Result<(), Error> {
        let len = first.saturating_add(new.len());
        if len > capacity {
            return Err(Error::Full);
        }
        if self.regions.capacity() < len {
            let old_len = self.regions.len();
            self.regions.try_reserve_exact(CAPACITY.saturating_sub(old_len)).map_err(|_| Error::HeapFull)?;
        }
        let filler = Region { range: PhysRange::default(), kind: MemoryType::RESERVED };
        self.regions.truncate(len);
        while self.regions.len() < len {
            heap::push_within_capacity(&mut self.regions, filler).map_err(|_| Error::Full)?;
        }
        if let Some(places) = self.regions.get_mut(first..)
            && places.len() == new.len()
        {
            places.copy_from_slice(new);
        }
        Ok(())
    }
}

/// Appends `start` to `end`, which is not empty. Merges it with the last region if it continues that.
/// Not inlined, because [`Regions::rewrite`] has six calls.
#[inline(never)]
fn push_merged(regions: &mut Pieces, start: PhysAddr, end: PhysAddr, kind: MemoryType) -> Result<(), Error> {
    let Some(range) = PhysRange::from_bounds(start, end) else {
        return Ok(());
    };
    if let Some(last) = regions.last_mut()
        && last.kind == kind
        && last.range.end() == start
        && let Some(both) = PhysRange::from_bounds(last.range.start(), end)
    {
        last.range = both;
        return Ok(());
    }
    regions.try_push(Region { range, kind }).map_err(|_| Error::Full)
}
