//! The map of guest-physical memory: an ordered list of disjoint regions.
//!
//! It begins as a [`HostMap`], from which nothing can be allocated. The host's list fills it ([`HostMap::from_e820`], else
//! [`HostMap::from_cmos`]), a PC's holes are cut out ([`HostMap::carve_pc`]), and memory that the host has filled is reserved.
//! [`MemoryMap::new`] makes it the map from which the firmware allocates: tables, the kernel, the initrd. So the firmware
//! allocates nothing before all occupied memory is reserved. The kernel gets the map as e820 entries ([`Regions::e820`]).
//!
//! A region's kind is a UEFI memory type. UEFI types record the owner, and whether the kernel gets the memory back; e820 is
//! derived from them. Address space in no region is a hole: unknown, and never used as RAM. If two statements about a byte
//! disagree, the more restrictive one wins, so no order of entries can turn reserved memory into RAM. Memory that the kernel does
//! not get is rounded out to pages (`whole`).
//!
//! Assumed: the host's map is final when it is read. Left out: memory attributes (caching, speed), NUMA, and more than
//! [`CAPACITY`] regions.

mod e820;
mod error;
mod host_map;
mod kind;
mod pc;
mod region;
mod regions;
mod sources;
#[cfg(test)]
mod tests;
mod whole;

use core::ops::Deref;

use uefi_raw::table::boot::MemoryType;

pub use self::e820::E820Entry;
pub use self::error::Error;
pub use self::host_map::HostMap;
use self::kind::is_ram;
pub use self::region::{CAPACITY, Region};
pub use self::regions::Regions;
use crate::addr::{Alignment, PhysAddr, PhysRange};

/// The end of the free memory from which to allocate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// The highest address that fits.
    Top,
    /// The lowest address that fits.
    Bottom,
}

/// The map that the firmware allocates from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryMap {
    regions: Regions,
}

impl MemoryMap {
    /// Makes the map from a host's, in which all occupied memory is reserved.
    #[must_use]
    pub fn new(host: HostMap) -> Self {
        Self { regions: host.regions }
    }

    /// Takes `range` out of the free memory for `kind`, as [`HostMap::reserve`].
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::HeapFull`]; the map is unchanged then.
    pub fn reserve(&mut self, range: PhysRange, kind: MemoryType) -> Result<(), Error> {
        self.regions.reserve(range, kind)
    }

    /// Where [`Self::allocate`] would put `len` bytes; `None` for no bytes, or if no free memory fits.
    #[must_use]
    #[inline]
    pub fn find_free(
        &self,
        len: u64,
        alignment: Alignment,
        within: PhysRange,
        placement: Placement,
    ) -> Option<PhysRange> {
        if len == 0 {
            return None;
        }
        let fit = |free: PhysRange, start: PhysAddr| PhysRange::new(start, len).filter(|&found| free.contains(found));
        let at_top = |free: PhysRange| fit(free, free.end().checked_sub(len)?.align_down(alignment));
        let at_bottom = |free: PhysRange| fit(free, free.start().align_up(alignment)?);
        // Loops, because the search of an iterator is a call for each region.
        match placement {
            Placement::Top => {
                for region in self.regions().rev() {
                    if let Some(found) = region.free_part(within).and_then(at_top) {
                        return Some(found);
                    }
                }
            }
            Placement::Bottom => {
                for region in self.regions() {
                    if let Some(found) = region.free_part(within).and_then(at_bottom) {
                        return Some(found);
                    }
                }
            }
        }
        None
    }

    /// Allocates `len` bytes of free memory inside `within` for `kind`, which is any except `CONVENTIONAL`. The start is aligned.
    /// A kind that the kernel does not get back takes whole pages; for other kinds the length is exact. `None` for no bytes, or
    /// if no free memory fits.
    #[inline]
    pub fn allocate(
        &mut self,
        len: u64,
        alignment: Alignment,
        within: PhysRange,
        placement: Placement,
        kind: MemoryType,
    ) -> Option<PhysRange> {
        if kind == MemoryType::CONVENTIONAL {
            return None;
        }
        let taken = if is_ram(kind) {
            self.find_free(len, alignment, within, placement)?
        } else {
            let pages = PhysAddr::new(len).align_up(Alignment::PAGE)?.get();
            self.find_free(pages, alignment.max(Alignment::PAGE), within, placement)?
        };
        self.regions.set(taken, kind).ok()?;
        let (found, _) = taken.split_at(len);
        Some(found)
    }

    /// Releases memory that [`Self::allocate`] or [`Self::reserve`] took, or a part of it: it is free again. If they took whole
    /// pages, release whole pages.
    ///
    /// # Errors
    /// [`Error::NotAllocated`] if some byte of it is a hole or already free, [`Error::Full`]; the map is then unchanged.
    pub fn release(&mut self, range: PhysRange) -> Result<(), Error> {
        if !self.regions.is_allocated(range) {
            return Err(Error::NotAllocated { range });
        }
        self.regions.set(range, MemoryType::CONVENTIONAL)
    }

    /// Reserves memory for good that is taken or free, in one or more pieces: nobody uses it any more.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::HeapFull`]; the map is unchanged then.
    pub fn give_up(&mut self, range: PhysRange) -> Result<(), Error> {
        self.regions.set(range, MemoryType::RESERVED)
    }
}

impl Deref for MemoryMap {
    type Target = Regions;

    fn deref(&self) -> &Regions {
        &self.regions
    }
}
