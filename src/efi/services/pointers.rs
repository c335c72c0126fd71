//! What is at the addresses that an image passes.
//!
//! An address is checked when it is used: memory that an image may not access, and page zero with the null pointer, is
//! `INVALID_PARAMETER`. Addresses need not be aligned.
//!
//! These functions are not inlined: a third of the services' code would be copies of them.

use alloc::vec::Vec;

use uefi_raw::{Guid, Status};

use super::super::device_path::{self, DevicePath};
use crate::addr::{PhysAddr, PhysRange};
use crate::hal::{Memory, MemoryError};
use crate::heap;

/// The status for an address that an image may not pass.
fn refused(_: MemoryError) -> Status {
    Status::INVALID_PARAMETER
}

/// Memory by the addresses of images.
pub trait Pointers: Memory {
    /// The bytes at `at`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`.
    fn get<const LEN: usize>(&mut self, at: u64) -> Result<[u8; LEN], Status> {
        let mut bytes = [0; LEN];
        self.read(PhysAddr::new(at), &mut bytes).map_err(refused)?;
        Ok(bytes)
    }

    /// Writes bytes to `at`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`.
    #[inline(never)]
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<(), Status> {
        self.write(PhysAddr::new(at), bytes).map_err(refused)
    }

    /// The number at `at`: `UINTN`, a handle or an address.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`.
    #[inline(never)]
    fn number(&mut self, at: u64) -> Result<u64, Status> {
        self.get(at).map(u64::from_le_bytes)
    }

    /// Writes a number to `at`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`.
    #[inline(never)]
    fn set_number(&mut self, at: u64, number: u64) -> Result<(), Status> {
        self.put(at, &number.to_le_bytes())
    }

    /// Writes a number to `at`, unless that is null.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`.
    fn set_optional(&mut self, at: u64, number: u64) -> Result<(), Status> {
        if at == 0 { Ok(()) } else { self.set_number(at, number) }
    }

    /// Checks that a number can be read from `at` and written there, before a service takes what it will return there. Returns
    /// the number.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`.
    fn check_number(&mut self, at: u64) -> Result<u64, Status> {
        let number = self.number(at)?;
        self.set_number(at, number)?;
        Ok(number)
    }

    /// The GUID at `at`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`.
    #[inline(never)]
    fn guid(&mut self, at: u64) -> Result<Guid, Status> {
        self.get(at).map(Guid::from_bytes)
    }

    /// The bytes of the device path at `at`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`, also for a path that does not end within [`device_path::MOST_BYTES`]; `OUT_OF_RESOURCES`.
    #[inline(never)]
    fn path(&mut self, at: u64) -> Result<Vec<u8>, Status> {
        let mut path = Vec::new();
        loop {
            let start = at.checked_add(path.len() as u64).ok_or(Status::INVALID_PARAMETER)?;
            let header: [u8; device_path::HEADER_LEN] = self.get(start)?;
            let [_, _, low, high] = header;
            let len = usize::from(u16::from_le_bytes([low, high]));
            let end = path.len().saturating_add(len);
            if len < header.len() || end > device_path::MOST_BYTES {
                return Err(Status::INVALID_PARAMETER);
            }
            let mut at = start;
            let node_end = start.saturating_add(len as u64);
            while at < node_end {
                let [byte] = self.get(at)?;
                heap::push(&mut path, byte).map_err(|_| Status::OUT_OF_RESOURCES)?;
                at = at.saturating_add(1);
            }
            if device_path::ends(&header) {
                return Ok(path);
            }
        }
    }

    /// The characters from `at` on, up to a NUL, `most` of them at most.
    ///
    /// # Errors
    /// `INVALID_PARAMETER`, also for a text that does not end by then; `OUT_OF_RESOURCES`.
    #[inline(never)]
    fn text(&mut self, at: u64, most: usize) -> Result<Vec<u16>, Status> {
        let mut text = Vec::new();
        for index in 0..most as u64 {
            let place = at.checked_add(index.saturating_mul(2)).ok_or(Status::INVALID_PARAMETER)?;
            let character = u16::from_le_bytes(self.get(place)?);
            if character == 0 {
                return Ok(text);
            }
            heap::push(&mut text, character).map_err(|_| Status::OUT_OF_RESOURCES)?;
        }
        Err(Status::INVALID_PARAMETER)
    }
}

impl<M: Memory + ?Sized> Pointers for M {}

/// The rest of a path at `at` that has `rest` after it.
pub fn rest_address(at: u64, path: DevicePath<'_>, rest: DevicePath<'_>) -> u64 {
    at.saturating_add((path.bytes().len() as u64).saturating_sub(rest.bytes().len() as u64))
}

/// `len` bytes at `at`, if they do not wrap.
///
/// # Errors
/// `INVALID_PARAMETER`.
pub fn bytes(at: u64, len: u64) -> Result<PhysRange, Status> {
    PhysRange::new(PhysAddr::new(at), len).ok_or(Status::INVALID_PARAMETER)
}
