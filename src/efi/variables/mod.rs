//! Variables: names with data that an operating system and its loaders set (UEFI 8.2).
//!
//! All variables are adjacent records in one array of bytes ([`Store`]), without pointers and without the heap. So the same code
//! serves boot services and runtime services, before and after `SetVirtualAddressMap`. All variables are lost at a reset, also
//! those with `NON_VOLATILE`.
//!
//! A running operating system can write anything to these bytes. So every use checks them again, and the list ends at the first
//! invalid record.
//!
//! Left out: authenticated variables and hardware error records (`UNSUPPORTED`); persistence.

mod record;
#[cfg(test)]
mod tests;

use uefi_raw::table::runtime::VariableAttributes;
use uefi_raw::{Guid, Status};

use self::record::{Header, Record, Records};

/// The size of a store in bytes, which is that of EDK II for volatile variables.
pub const STORE_LEN: usize = 64 << 10;
/// The limit for name and data of one variable, in bytes. The largest seen is shim's `MokListRT`, with 8,664 bytes.
pub const MOST_BYTES: usize = 32 << 10;

/// The caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A loader, while there are boot services.
    Boot,
    /// The operating system, after `ExitBootServices`.
    Runtime,
}

/// The name of a variable: UTF-16, little-endian, without its NUL. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a>(&'a [u8]);

impl<'a> Name<'a> {
    /// The name at the start of `bytes`, up to its NUL. `None` if it is empty or has no NUL.
    #[must_use]
    pub fn up_to_nul(bytes: &'a [u8]) -> Option<Self> {
        let (characters, _) = bytes.as_chunks::<2>();
        let len = characters.iter().position(|character| *character == [0, 0])?;
        bytes.get(..len.checked_mul(2)?).filter(|name| !name.is_empty()).map(Self)
    }

    /// The bytes, without a NUL: an even number, not zero.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        self.0
    }
}

/// A variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable<'a> {
    /// Its name.
    pub name: Name<'a>,
    /// The vendor, whose names are independent of others'.
    pub vendor: Guid,
    /// Its attributes, without `APPEND_WRITE`.
    pub attributes: VariableAttributes,
    /// Its data; never empty.
    pub data: &'a [u8],
}

/// What `QueryVariableInfo` returns, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The size of the store.
    pub storage: u64,
    /// How much of it is free.
    pub remaining: u64,
    /// The limit for one variable.
    pub most: u64,
}

/// The variables in `bytes`.
#[derive(Debug)]
pub struct Store<'a> {
    bytes: &'a mut [u8],
}

impl<'a> Store<'a> {
    /// The store in `bytes`. Zeros are an empty store.
    #[must_use]
    pub const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes }
    }

    /// The variable with this name and vendor.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub fn get(&self, name: Name<'_>, vendor: Guid, phase: Phase) -> Result<Variable<'_>, Status> {
        let found = self.find(name, vendor).filter(|record| is_visible(record.variable.attributes, phase));
        found.map(|record| record.variable).ok_or(Status::NOT_FOUND)
    }

    /// The variable after `last`; the first one if that is `None`.
    ///
    /// # Errors
    /// `NOT_FOUND` at the end, `INVALID_PARAMETER` if `last` does not exist.
    pub fn next(&self, last: Option<(Name<'_>, Guid)>, phase: Phase) -> Result<Variable<'_>, Status> {
        let mut variables =
            self.records().map(|record| record.variable).filter(|variable| is_visible(variable.attributes, phase));
        if let Some((name, vendor)) = last {
            let is_last = |variable: &Variable<'_>| variable.name == name && variable.vendor == vendor;
            variables.find(is_last).ok_or(Status::INVALID_PARAMETER)?;
        }
        variables.next().ok_or(Status::NOT_FOUND)
    }

    /// Sets, extends or deletes a variable.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for invalid attributes, for others than the variable has, and for more data than any variable has;
    /// `NOT_FOUND` if the variable to delete does not exist; `WRITE_PROTECTED` for one that a running system may only read;
    /// `OUT_OF_RESOURCES`; `UNSUPPORTED` for authenticated variables and hardware error records.
    pub fn set(
        &mut self,
        name: Name<'_>,
        vendor: Guid,
        attributes: VariableAttributes,
        data: &[u8],
        phase: Phase,
    ) -> Result<(), Status> {
        check(attributes)?;
        if Header::room_for(name.bytes().len(), data.len()).is_none() {
            return Err(Status::INVALID_PARAMETER);
        }
        let appends = attributes.contains(VariableAttributes::APPEND_WRITE);
        let attributes = attributes.difference(VariableAttributes::APPEND_WRITE);
        let deletes = !appends && data.is_empty() || !attributes.intersects(ACCESS);
        let old = self.find(name, vendor).filter(|record| is_visible(record.variable.attributes, phase));
        let Some(old) = old else {
            if deletes {
                return Err(Status::NOT_FOUND);
            }
            if data.is_empty() {
                return Ok(());
            }
            // A running system may set only what has the attribute of a persistent variable.
            if phase == Phase::Runtime && !attributes.contains(RUNTIME_WRITABLE) {
                return Err(Status::INVALID_PARAMETER);
            }
            // The name is in use, even if a running system does not see the variable.
            if self.find(name, vendor).is_some() {
                return Err(Status::INVALID_PARAMETER);
            }
            return self.append_record(Variable { name, vendor, attributes, data });
        };
        if phase == Phase::Runtime && !old.variable.attributes.contains(RUNTIME_WRITABLE) {
            return Err(Status::WRITE_PROTECTED);
        }
        let is_other = attributes != old.variable.attributes;
        if is_other && (!deletes || attributes.intersects(ACCESS)) {
            return Err(Status::INVALID_PARAMETER);
        }
        let (start, end) = (old.start, old.end);
        if deletes {
            self.remove(start, end);
            return Ok(());
        }
        let kept = if appends { old.variable.data.len() } else { 0 };
        self.replace(start, end, kept, data)
    }

    /// The room for variables with these attributes.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for invalid attributes; `UNSUPPORTED` as for [`Self::set`].
    pub fn info(&self, attributes: VariableAttributes, phase: Phase) -> Result<Info, Status> {
        check(attributes)?;
        let is_invisible = phase == Phase::Runtime && !attributes.contains(VariableAttributes::RUNTIME_ACCESS);
        if !attributes.intersects(ACCESS) || is_invisible {
            return Err(Status::INVALID_PARAMETER);
        }
        Ok(Info {
            storage: self.bytes.len() as u64,
            remaining: self.bytes.len().saturating_sub(self.end()) as u64,
            most: MOST_BYTES as u64,
        })
    }

    fn records(&self) -> Records<'_> {
        Records::new(self.bytes)
    }

    fn find(&self, name: Name<'_>, vendor: Guid) -> Option<Record<'_>> {
        self.records().find(|record| record.variable.name == name && record.variable.vendor == vendor)
    }

    /// Where the last record ends.
    fn end(&self) -> usize {
        self.records().last().map_or(0, |record| record.end)
    }

    fn append_record(&mut self, variable: Variable<'_>) -> Result<(), Status> {
        let start = self.end();
        let len = Header::room_for(variable.name.bytes().len(), variable.data.len()).ok_or(Status::OUT_OF_RESOURCES)?;
        let end = start.checked_add(len).ok_or(Status::OUT_OF_RESOURCES)?;
        let place = self.bytes.get_mut(start..end).ok_or(Status::OUT_OF_RESOURCES)?;
        Header::write(place, &variable);
        Ok(())
    }

    /// Replaces the data of the record from `start` to `end` with its first `kept` bytes and `data`. The record becomes the last.
    fn replace(&mut self, start: usize, end: usize, kept: usize, data: &[u8]) -> Result<(), Status> {
        let header = self.bytes.get(start..end).and_then(Header::read).ok_or(Status::DEVICE_ERROR)?;
        let data_len = kept.checked_add(data.len()).ok_or(Status::OUT_OF_RESOURCES)?;
        let len = Header::room_for(header.name_len(), data_len).ok_or(Status::OUT_OF_RESOURCES)?;
        let list_end = self.end();
        let new_end = list_end.saturating_sub(end.saturating_sub(start)).saturating_add(len);
        if new_end > self.bytes.len() {
            return Err(Status::OUT_OF_RESOURCES);
        }
        // Moves the record to the end of the list, where it can change its length.
        if let Some(records) = self.bytes.get_mut(start..list_end) {
            move_to_end(records, end.saturating_sub(start));
        }
        let new_start = new_end.saturating_sub(len);
        let place = self.bytes.get_mut(new_start..).unwrap_or_default();
        let (record, rest) = place.split_at_mut(len.min(place.len()));
        header.extend(record, kept, data);
        // If the list is shorter now, clears the bytes after its end.
        let rest_len = list_end.saturating_sub(new_end).min(rest.len());
        rest.get_mut(..rest_len).unwrap_or_default().fill(0);
        Ok(())
    }

    /// Removes the record from `start` to `end`.
    fn remove(&mut self, start: usize, end: usize) {
        let list_end = self.end();
        if let Some(records) = self.bytes.get_mut(start..list_end) {
            let len = end.saturating_sub(start).min(records.len());
            move_to_end(records, len);
            let last = records.len().saturating_sub(len);
            records.get_mut(last..).unwrap_or_default().fill(0);
        }
    }
}

/// Moves the first `len` bytes behind the others.
///
/// `rotate_left` does the same and can panic, and takes 800 bytes.
fn move_to_end(bytes: &mut [u8], len: usize) {
    let (first, rest) = bytes.split_at_mut(len.min(bytes.len()));
    first.reverse();
    rest.reverse();
    bytes.reverse();
}

/// Every variable has at least one of these.
const ACCESS: VariableAttributes = VariableAttributes::BOOTSERVICE_ACCESS.union(VariableAttributes::RUNTIME_ACCESS);
/// A running system may write a variable that has both (UEFI 8.2, `SetVariable`).
const RUNTIME_WRITABLE: VariableAttributes = VariableAttributes::RUNTIME_ACCESS.union(VariableAttributes::NON_VOLATILE);
/// The supported attributes.
const KNOWN: VariableAttributes = ACCESS.union(RUNTIME_WRITABLE).union(VariableAttributes::APPEND_WRITE);

fn check(attributes: VariableAttributes) -> Result<(), Status> {
    if attributes.bits() & !VariableAttributes::all().bits() != 0 {
        return Err(Status::INVALID_PARAMETER);
    }
    if !KNOWN.contains(attributes) {
        return Err(Status::UNSUPPORTED);
    }
    // Runtime access needs boot-service access.
    if attributes.intersection(ACCESS) == VariableAttributes::RUNTIME_ACCESS {
        return Err(Status::INVALID_PARAMETER);
    }
    Ok(())
}

fn is_visible(attributes: VariableAttributes, phase: Phase) -> bool {
    phase == Phase::Boot || attributes.contains(VariableAttributes::RUNTIME_ACCESS)
}
