//! Images on the disks of started controllers, and memory that a controller may still write.

use uefi_raw::Status;

use super::Disks;
use crate::addr::PhysRange;
use crate::disk::controllers::Started;
use crate::efi::memory::Memory;
use crate::efi::protocols::file_system::FatFile;
use crate::efi::services::ImageFile;
use crate::hal::{BusMaster, Clock, Ports};

/// An image's file, whose bytes go from the disk straight to their place.
pub struct OnDisk<'d> {
    /// The disks.
    pub disks: &'d mut Disks<Started>,
    /// The file on one of them.
    pub file: FatFile,
}

impl<M: BusMaster + Clock + Ports> ImageFile<M> for OnDisk<'_> {
    fn file_len(&self) -> u64 {
        self.file.len()
    }

    fn read(&mut self, machine: &mut M, at: u64, into: &mut [u8]) -> Result<(), Status> {
        self.file.read(&mut self.disks.on(machine), at, into)
    }

    fn load(&mut self, machine: &mut M, at: u64, into: PhysRange) -> Result<(), Status> {
        self.file.load(&mut self.disks.on(machine), at, into)
    }

    fn take_lost(&mut self) -> Option<PhysRange> {
        self.disks.take_lost()
    }
}

impl Disks<Started> {
    /// Takes a range of memory that a controller may write at any time, because it neither answered nor acknowledged its stop.
    #[cold]
    fn take_lost(&mut self) -> Option<PhysRange> {
        let lost = self.controllers.iter_mut().find_map(Started::take_lost)?;
        crate::warn!(
            "the memory at {lost} stays reserved: a controller of disks that does not stop may write it at any time"
        );
        Some(lost)
    }

    /// Keeps all such memory from everybody else. After each access to a disk that failed, before the buffer can be freed.
    #[cold]
    #[inline(never)]
    pub fn give_up_lost(&mut self, memory: &mut Memory) {
        while let Some(lost) = self.take_lost() {
            // There is nothing better to do.
            let _ = memory.give_up(lost);
        }
    }
}
