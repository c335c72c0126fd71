//! Kernels whose place the host has chosen. This is every kernel except a bzImage or zImage.
//!
//! Their memory is reserved first, before anything else is placed. A kernel that overlaps the firmware cannot be
//! booted.

use uefi_raw::table::boot::MemoryType;

use super::error::Error;
use crate::addr::{PhysAddr, PhysRange};
use crate::layout;
use crate::memory_map::HostMap;

/// A kernel with a fixed place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedKernel {
    /// Its memory without gaps, from the first byte of its lowest segment to the last byte of its highest, including
    /// the zeroed memory at the end. For Multiboot, the modules follow and are included.
    pub image: PhysRange,
    /// The entry point, inside `image`.
    pub entry: PhysAddr,
}

impl PlacedKernel {
    /// The kernel of `size` bytes at `start`.
    ///
    /// # Errors
    /// [`Error::EntryOutside`].
    pub fn new(start: PhysAddr, size: u32, entry: PhysAddr) -> Result<Self, Error> {
        PhysRange::new(start, size.into())
            .filter(|image| PhysRange::LOW_4_GIB.contains(*image) && image.contains_addr(entry))
            .map(|image| Self { image, entry })
            .ok_or(Error::EntryOutside { entry, start, size })
    }

    /// Reserves its pages in `map` as `LOADER_DATA`, which is RAM to the kernel.
    ///
    /// # Errors
    /// [`Error::KernelOverFirmware`], [`Error::KernelOutsideRam`], [`Error::MemoryMap`].
    pub fn reserve(&self, map: &mut HostMap) -> Result<(), Error> {
        let image = self.image;
        if image.overlaps(layout::BOOT_RAM) {
            return Err(Error::KernelOverFirmware { kernel: image, firmware: layout::BOOT_RAM });
        }
        if !map.is_free(image) {
            return Err(Error::KernelOutsideRam { kernel: image });
        }
        map.reserve(image.pages(), MemoryType::LOADER_DATA)?;
        Ok(())
    }
}
