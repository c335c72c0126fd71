//! Memory services (UEFI 7.2).

use uefi_raw::Status;
use uefi_raw::table::boot::{AllocateType, MemoryDescriptor, MemoryType};

use super::Services;
use super::pointers::{Pointers, bytes};
use crate::addr::{Alignment, PhysRange};
use crate::efi::memory::{DESCRIPTOR_LEN, Wanted, descriptor_bytes};
use crate::hal::{Memory, Protect};

/// What `GetMemoryMap` writes, by address. The map itself may be null to ask for its length, the others if they are not asked for.
#[derive(Clone, Copy, Debug)]
pub struct MapPlaces {
    /// The length of the buffer, and then that of the map.
    pub len: u64,
    /// The map.
    pub map: u64,
    /// The map key.
    pub key: u64,
    /// The length of a descriptor.
    pub descriptor_len: u64,
    /// The version of descriptors, of 32 bits.
    pub version: u64,
}

impl Services {
    /// The `len` bytes at `at`, which an image passes, for a device.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` if a part is not in the memory map, or is registers: a device that cannot access its buffer may be of no use
    /// afterwards. Also if a part is the firmware's own, such as a page table, except for the stack.
    pub fn device_buffer(&self, at: u64, len: u64) -> Result<PhysRange, Status> {
        let range = bytes(at, len)?;
        let is_buffer = self.is_memory(range) && !self.memory.is_reserved(range);
        if is_buffer { Ok(range) } else { Err(Status::INVALID_PARAMETER) }
    }

    fn is_memory(&self, range: PhysRange) -> bool {
        let mut at = range.start();
        for region in self.memory.map().regions().filter(|region| region.kind != MemoryType::MMIO) {
            if at >= range.end() {
                break;
            }
            if region.range.contains_addr(at) {
                at = region.range.end();
            }
        }
        at >= range.end()
    }

    /// `AllocatePages`. The address is read from `at`, for the types that have one, and written there.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for an unknown type and a null pointer; those of [`crate::efi::memory::Memory::allocate_pages`].
    pub fn allocate_pages(
        &mut self,
        machine: &mut impl Memory,
        how: AllocateType,
        kind: MemoryType,
        pages: u64,
        at: u64,
    ) -> Result<(), Status> {
        let address = machine.check_number(at)?;
        let wanted = match how {
            AllocateType::ANY_PAGES => Wanted::AnyPages,
            AllocateType::MAX_ADDRESS => Wanted::MaxAddress(address),
            AllocateType::ADDRESS => Wanted::Address(address),
            _ => return Err(Status::INVALID_PARAMETER),
        };
        let pages = self.memory.allocate_pages(wanted, kind, pages)?;
        machine.set_number(at, pages.get())
    }

    /// `FreePages`.
    ///
    /// # Errors
    /// Those of [`crate::efi::memory::Memory::free_pages`].
    pub fn free_pages(&mut self, machine: &mut impl Protect, at: u64, pages: u64) -> Result<(), Status> {
        self.memory.free_pages(at, pages)?;
        let freed = bytes(at, pages.saturating_mul(Alignment::PAGE.bytes()))?;
        // shim loads programs without LoadImage.
        self.events.close_within(freed);
        self.end_protection(machine, freed);
        Ok(())
    }

    /// `GetMemoryMap`.
    ///
    /// # Errors
    /// `BUFFER_TOO_SMALL`, with the length that is needed; `INVALID_PARAMETER` without a place for the length, and for no buffer
    /// that is long enough.
    pub fn memory_map(&self, machine: &mut impl Memory, places: &MapPlaces) -> Result<(), Status> {
        let room = machine.number(places.len)?;
        let len = self.memory.descriptors_len() as u64;
        machine.set_optional(places.descriptor_len, DESCRIPTOR_LEN as u64)?;
        if places.version != 0 {
            machine.put(places.version, &MemoryDescriptor::VERSION.to_le_bytes())?;
        }
        machine.set_number(places.len, len)?;
        if room < len {
            return Err(Status::BUFFER_TOO_SMALL);
        }
        let mut at = bytes(places.map, len)?.start().get();
        for descriptor in self.memory.descriptors() {
            machine.put(at, &descriptor_bytes(&descriptor))?;
            at = at.saturating_add(DESCRIPTOR_LEN as u64);
        }
        machine.set_optional(places.key, self.memory.key())
    }

    /// `AllocatePool`. The address is written to `at`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a null pointer; those of [`crate::efi::memory::Memory::allocate_pool`].
    pub fn allocate_pool(
        &mut self,
        machine: &mut impl Memory,
        kind: MemoryType,
        len: u64,
        at: u64,
    ) -> Result<(), Status> {
        machine.check_number(at)?;
        let pool = self.memory.allocate_pool(kind, len)?;
        machine.set_number(at, pool.get())
    }

    /// `FreePool`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for anything but what [`Self::allocate_pool`] returned.
    pub fn free_pool(&mut self, machine: &mut impl Protect, at: u64) -> Result<(), Status> {
        if let Some(freed) = self.memory.free_pool(at)? {
            self.end_protection(machine, freed);
        }
        Ok(())
    }

    /// A pool with these bytes: an interface of the firmware's own, or what a service returns, which the image frees.
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES`.
    pub fn pool_of(&mut self, machine: &mut impl Memory, bytes: &[u8]) -> Result<u64, Status> {
        let at = self.memory.allocate_pool(MemoryType::BOOT_SERVICES_DATA, bytes.len() as u64)?.get();
        machine.put(at, bytes).map_err(super::no_room)?;
        Ok(at)
    }

    /// Pages of zeros for `len` bytes of the firmware's own.
    ///
    /// # Errors
    /// Those of [`crate::efi::memory::Memory::allocate_pages`].
    pub fn pages_for(&mut self, machine: &mut impl Memory, kind: MemoryType, len: u64) -> Result<PhysRange, Status> {
        let pages = len.div_ceil(Alignment::PAGE.bytes());
        let start = self.memory.allocate_pages(Wanted::AnyPages, kind, pages)?;
        let range = bytes(start.get(), pages.saturating_mul(Alignment::PAGE.bytes()))?;
        machine.fill(range, 0).map_err(super::no_room)?;
        Ok(range)
    }
}
