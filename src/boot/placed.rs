//! Kernels whose place the host has chosen, as it does for all but bzImages.
//!
//! Such a place is not looked for but held, before anything else is put anywhere, and a kernel that lies where the firmware
//! is cannot be booted.

use uefi_raw::table::boot::MemoryType;

use super::error::Error;
use crate::addr::{PhysAddr, PhysRange};
use crate::layout;
use crate::memory_map::HostMap;

/// A kernel for one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacedKernel {
    /// What it needs, without a gap: from the first byte of its lowest segment to the last of its highest, with what it
    /// wants zero; of a kernel for Multiboot, with its modules behind it.
    pub image: PhysRange,
    /// Where it is entered; one of the bytes of `image`.
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

    /// Keeps everything else off it in `map`: it is `LOADER_DATA`, which is RAM to the kernel, to the ends of its pages.
    ///
    /// # Errors
    /// [`Error::KernelOverFirmware`], [`Error::KernelOutsideRam`], [`Error::MemoryMap`].
    pub fn hold(&self, map: &mut HostMap) -> Result<(), Error> {
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
