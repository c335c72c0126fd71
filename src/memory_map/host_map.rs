//! The map before the firmware allocates: only present memory is entered.

use core::ops::Deref;

use uefi_raw::table::boot::MemoryType;

use super::error::Error;
use super::kind::{is_ram, strictness};
use super::region::{CAPACITY, HOST_CAPACITY};
use super::regions::Regions;
use super::whole::{granule, rounded_out};
use crate::addr::{PhysAddr, PhysRange};

/// The host's memory before the firmware puts anything into it. Present memory is described, reserved and cut out; nothing can be
/// allocated. [`MemoryMap::new`](super::MemoryMap::new) makes it the map that allocates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostMap {
    pub(super) regions: Regions,
}

impl HostMap {
    /// Enters the kind of `range`. A hole becomes `kind`; of two kinds, the more restrictive one stays.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::HeapFull`]; the map is then unchanged.
    pub fn describe(&mut self, range: PhysRange, kind: MemoryType) -> Result<(), Error> {
        self.regions.describe(range, kind, CAPACITY)
    }

    /// As [`Self::describe`], for one entry of a host's list. Leaves regions for the firmware's own needs.
    pub(super) fn describe_listed(&mut self, range: PhysRange, kind: MemoryType) -> Result<(), Error> {
        self.regions.describe(range, kind, HOST_CAPACITY)
    }

    /// Rounds the host's regions to pages: a page with a boundary in it gets the most restrictive kind in it, or reserved if that
    /// kind is RAM. If the map is full, the page is not RAM.
    pub(super) fn round_out(&mut self) {
        let mut done = PhysAddr::new(0);
        // Each iteration goes to a later boundary, and a region has two.
        for _ in 0..CAPACITY.saturating_mul(2) {
            let is_left = |at: &PhysAddr| *at > done && !at.is_aligned(granule(*at));
            let boundaries = self.regions().flat_map(|region| [region.range.start(), region.range.end()]);
            let Some(at) = boundaries.into_iter().find(is_left) else { return };
            let page = rounded_out(PhysRange::empty_at(at));
            let in_page = self.regions().filter(|region| region.range.overlaps(page)).map(|region| region.kind);
            let strictest = in_page.max_by_key(|&kind| strictness(kind)).filter(|&kind| !is_ram(kind));
            if self.describe_listed(page, strictest.unwrap_or(MemoryType::RESERVED)).is_err() {
                // The page has a boundary, so this splits no region.
                let _ = self.remove_ram(page);
            }
            done = page.end();
        }
    }

    /// Takes `range` out of the free memory for `kind`. Memory that already has a more restrictive kind keeps it. Holes
    /// become `kind` too, unless that is a kind of RAM, because RAM is never invented.
    ///
    /// A kind that the kernel does not get back takes whole pages, and whole KiB in the page from 0x9f000 on.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::HeapFull`]; the map is then unchanged.
    pub fn reserve(&mut self, range: PhysRange, kind: MemoryType) -> Result<(), Error> {
        self.regions.reserve(range, kind)
    }

    /// Makes the RAM in `range` a hole; the rest of `range` is unchanged.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::HeapFull`]; the map is then unchanged.
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
