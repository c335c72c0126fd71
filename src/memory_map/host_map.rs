//! The map while only what is there is entered.

use core::ops::Deref;

use uefi_raw::table::boot::MemoryType;

use super::error::Error;
use super::kind::{is_ram, strictness};
use super::region::{CAPACITY, HOST_CAPACITY};
use super::regions::Regions;
use super::whole::{granule, rounded_out};
use crate::addr::{PhysAddr, PhysRange};

/// What the host says is where, before the firmware puts anything into memory: what is there is described, held and cut out,
/// and nothing can be allocated. [`MemoryMap::new`](super::MemoryMap::new) makes of it the map that allocates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostMap {
    pub(super) regions: Regions,
}

impl HostMap {
    /// Enters what is known of `range`. What was a hole becomes `kind`; where something was known, the more restrictive
    /// of the two stays.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::HeapFull`]; the map is unchanged then.
    pub fn describe(&mut self, range: PhysRange, kind: MemoryType) -> Result<(), Error> {
        self.regions.describe(range, kind, CAPACITY)
    }

    /// As [`Self::describe`], for one entry of a host's list, which leaves room for what the firmware needs.
    pub(super) fn describe_listed(&mut self, range: PhysRange, kind: MemoryType) -> Result<(), Error> {
        self.regions.describe(range, kind, HOST_CAPACITY)
    }

    /// Rounds what a host has described: a page with a boundary in it is all of the most restrictive kind in it, and reserved
    /// where that is RAM. If the map is full, it has no RAM.
    pub(super) fn round_out(&mut self) {
        let mut done = PhysAddr::new(0);
        // Each turn goes to a later boundary, and a region has two.
        for _ in 0..CAPACITY.saturating_mul(2) {
            let is_left = |at: &PhysAddr| *at > done && !at.is_aligned(granule(*at));
            let boundaries = self.regions().flat_map(|region| [region.range.start(), region.range.end()]);
            let Some(at) = boundaries.into_iter().find(is_left) else { return };
            let page = rounded_out(PhysRange::empty_at(at));
            let in_page = self.regions().filter(|region| region.range.overlaps(page)).map(|region| region.kind);
            let strictest = in_page.max_by_key(|&kind| strictness(kind)).filter(|&kind| !is_ram(kind));
            if self.describe_listed(page, strictest.unwrap_or(MemoryType::RESERVED)).is_err() {
                // No region is split by it. It has a boundary in it.
                let _ = self.remove_ram(page);
            }
            done = page.end();
        }
    }

    /// Takes `range` out of the free memory for `kind`. Where memory is already held for something more restrictive it
    /// stays that. Holes become `kind` too, unless that is a kind of RAM: no RAM is made up.
    ///
    /// A kind that the kernel does not get takes whole pages, and whole KiB in the page from 0x9f000 on.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::HeapFull`]; the map is unchanged then.
    pub fn reserve(&mut self, range: PhysRange, kind: MemoryType) -> Result<(), Error> {
        self.regions.reserve(range, kind)
    }

    /// Makes a hole where `range` was RAM; the rest of it stays what it was.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::HeapFull`]; the map is unchanged then.
    pub fn remove_ram(&mut self, range: PhysRange) -> Result<(), Error> {
        self.regions.remove_ram(range)
    }
}

impl Deref for HostMap {
    type Target = Regions;

    fn deref(&self) -> &Regions {
        &self.regions
    }
}
