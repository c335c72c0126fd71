//! The parts of a PC's address space that a host's list of RAM does not show.

use uefi_raw::table::boot::MemoryType;

use super::error::Error;
use super::host_map::HostMap;
use crate::addr::{PhysRange, constant_range as range};
use crate::layout;

/// The extended BIOS data area and, on a machine that can sleep, the memory of a wake and its record, 115 KiB below it.
const EBDA_AND_WAKE_RAM: PhysRange = range(layout::KEPT_RAM.start().get(), layout::EBDA.end().get());
/// Video memory and option ROMs: not RAM on a PC, whatever the host has there.
const VIDEO_AND_OPTION_ROMS: PhysRange = range(layout::CONVENTIONAL.end().get(), layout::F_SEGMENT.start().get());

impl HostMap {
    /// Cuts out of the host's RAM what is not RAM on a PC, and reserves the firmware's own memory.
    ///
    /// QEMU reports one range of RAM from zero to the end of low memory. Other hosts have already cut out the holes, and cutting
    /// them again changes nothing. The firmware's RAM and page zero stay RAM to the kernel.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub fn carve_pc(&mut self) -> Result<(), Error> {
        self.carve(layout::EBDA)
    }

    /// As [`Self::carve_pc`], and reserves the memory that a wake from suspend runs in.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub fn carve_pc_that_sleeps(&mut self) -> Result<(), Error> {
        self.carve(EBDA_AND_WAKE_RAM)
    }

    fn carve(&mut self, ebda: PhysRange) -> Result<(), Error> {
        self.remove_ram(VIDEO_AND_OPTION_ROMS)?;
        self.reserve(layout::F_SEGMENT, MemoryType::RESERVED)?;
        self.reserve(ebda, MemoryType::RESERVED)?;
        self.reserve(layout::FIRMWARE_ROM, MemoryType::RESERVED)?;
        self.reserve(layout::PAGE_ZERO, MemoryType::BOOT_SERVICES_DATA)?;
        self.reserve(layout::BOOT_RAM, MemoryType::BOOT_SERVICES_DATA)
    }
}
