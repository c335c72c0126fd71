//! Access to the pages of images.
//!
//! The sections of an image that allows it are code, constants or data ([`crate::efi::pe::Image::protection`]). All other memory
//! that images have can be written and executed: boot loaders load code of their own to pages and pools of any type, and Linux
//! unpacks the kernel to pages of loaders. An image changes that by `EFI_MEMORY_ATTRIBUTE_PROTOCOL`
//! ([`memory_attribute`]). Pages that are freed can be written and executed again.
//!
//! Page tables for this come from the firmware's own pages, some at a time. No image can free them.

use uefi_raw::Status;
use uefi_raw::table::boot::MemoryAttribute;

use super::Services;
use crate::addr::{Alignment, PhysRange};
use crate::efi::protocols::memory_attribute::{self, Change};
use crate::hal::Protect;
use crate::hal::paging::{self, Access};

/// As many pages are taken for page tables at a time: those of a few images.
const TABLES: u64 = 16;

impl Services {
    /// Sets the access to whole pages of RAM.
    ///
    /// # Errors
    /// `UNSUPPORTED` for memory whose access cannot be set, `OUT_OF_RESOURCES` without room for page tables.
    pub fn set_access(&mut self, machine: &mut impl Protect, range: PhysRange, access: Access) -> Result<(), Status> {
        if machine.access(range).map_err(unsupported)? == Some(access) {
            return Ok(());
        }
        if self.table_room.len() < paging::room_to_protect(range) {
            self.table_room = self.memory.reserve_pages(TABLES)?;
        }
        // The pages were free: they can be in the range itself, or an image has made them read-only. The next call takes others.
        let is_writable = machine.access(self.table_room).map_err(unsupported)?.is_some_and(Access::is_writable);
        if !is_writable || self.table_room.overlaps(range) {
            self.table_room = PhysRange::default();
            return Err(Status::OUT_OF_RESOURCES);
        }
        self.table_room = machine.protect(range, access, self.table_room).map_err(unsupported)?;
        Ok(())
    }

    /// Makes pages that are free now writable and executable.
    pub(super) fn end_protection(&mut self, machine: &mut impl Protect, freed: PhysRange) {
        // Where there is no room for tables, the pages stay as they are, which is an error of whoever writes there next.
        let _ = self.set_access(machine, freed, Access::Any);
    }

    /// `GetMemoryAttributes` of `EFI_MEMORY_ATTRIBUTE_PROTOCOL`.
    ///
    /// # Errors
    /// Those of [`memory_attribute::pages`]; `UNSUPPORTED` for memory that is no RAM, `NO_MAPPING` where the access is not
    /// everywhere the same.
    pub fn attributes(&self, machine: &mut impl Protect, base: u64, len: u64) -> Result<MemoryAttribute, Status> {
        let range = self.ram(base, len)?;
        let access = machine.access(range).map_err(unsupported)?.ok_or(Status::NO_MAPPING)?;
        Ok(memory_attribute::of(access))
    }

    /// `SetMemoryAttributes` and `ClearMemoryAttributes` of `EFI_MEMORY_ATTRIBUTE_PROTOCOL`.
    ///
    /// # Errors
    /// Those of [`memory_attribute::pages`] and [`memory_attribute::attributes`]; `UNSUPPORTED` for memory that is no RAM;
    /// `OUT_OF_RESOURCES`, when a part of the range may be changed.
    pub fn change_attributes(
        &mut self,
        machine: &mut impl Protect,
        base: u64,
        len: u64,
        bits: u64,
        change: Change,
    ) -> Result<(), Status> {
        let range = self.ram(base, len)?;
        let attributes = memory_attribute::attributes(bits, change)?;
        self.change(machine, range, &[Alignment::LARGE_PAGE, Alignment::PAGE], &|access| {
            memory_attribute::changed(access, attributes, change)
        })
    }

    /// Changes the access to `range`: in one piece if it is everywhere the same, else in pieces of these sizes.
    fn change(
        &mut self,
        machine: &mut impl Protect,
        range: PhysRange,
        sizes: &[Alignment],
        changed: &dyn Fn(Access) -> Access,
    ) -> Result<(), Status> {
        if let Some(access) = machine.access(range).map_err(unsupported)? {
            return self.set_access(machine, range, changed(access));
        }
        let (size, smaller) = sizes.split_first().ok_or(Status::UNSUPPORTED)?;
        let mut rest = range;
        while !rest.is_empty() {
            let start = rest.start();
            let len = size.bytes().saturating_sub(start.get().saturating_sub(start.align_down(*size).get()));
            let (part, behind) = rest.split_at(len);
            self.change(machine, part, smaller, changed)?;
            rest = behind;
        }
        Ok(())
    }

    /// The pages that a call names, if all of them are RAM and none is the firmware's own.
    fn ram(&self, base: u64, len: u64) -> Result<PhysRange, Status> {
        let range = memory_attribute::pages(base, len)?;
        let is_images = self.memory.map().is_ram(range) && !self.memory.is_own(range);
        if is_images { Ok(range) } else { Err(Status::UNSUPPORTED) }
    }
}

fn unsupported<E>(_: E) -> Status {
    Status::UNSUPPORTED
}
