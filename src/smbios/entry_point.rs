//! The entry point, through which an operating system finds the structures (DSP0134 3.6, 5.2).

use arrayvec::ArrayVec;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::Error;
use super::walk::Summary;
use crate::addr::{PhysAddr, PhysRange};
use crate::checksum;

/// The length of the longest entry point in bytes.
pub const MAX_ENTRY_POINT: usize = size_of::<EntryPoint2>();

/// The entry point of SMBIOS 2.1 and later, 31 bytes (5.2.1).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct EntryPoint2 {
    /// [`Self::SIGNATURE`].
    signature: [u8; 4],
    /// Makes the sum of all 31 bytes zero.
    checksum: u8,
    length: u8,
    major: u8,
    minor: u8,
    /// The length of the longest structure with its strings.
    max_structure: U16,
    revision: u8,
    formatted: [u8; 5],
    /// The second half, which can be used as an entry point itself.
    intermediate: Intermediate,
}

/// The part of [`EntryPoint2`] that older software looks for.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Intermediate {
    /// [`Self::SIGNATURE`].
    signature: [u8; 5],
    /// Makes the sum of these 15 bytes zero.
    checksum: u8,
    table_len: U16,
    table: U32,
    structures: U16,
    bcd_revision: u8,
}

/// The entry point of SMBIOS 3.0 and later, 24 bytes (5.2.2).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct EntryPoint3 {
    /// [`Self::SIGNATURE`].
    signature: [u8; 5],
    /// Makes the sum of all 24 bytes zero.
    checksum: u8,
    length: u8,
    major: u8,
    minor: u8,
    document: u8,
    revision: u8,
    reserved: u8,
    /// At least the length of the structures.
    max_table_len: U32,
    table: U64,
}

impl EntryPoint2 {
    const SIGNATURE: [u8; 4] = *b"_SM_";
}

impl Intermediate {
    const SIGNATURE: [u8; 5] = *b"_DMI_";
}

impl EntryPoint3 {
    const SIGNATURE: [u8; 5] = *b"_SM3_";
}

/// An entry point from the host, without valid addresses.
#[derive(Clone, Copy, Debug)]
pub struct EntryPoint(Kind);

#[derive(Clone, Copy, Debug)]
enum Kind {
    V2(EntryPoint2),
    V3(EntryPoint3),
}

impl EntryPoint {
    /// Parses the host's entry point, whose signature identifies its kind. Addresses, counts and checksums in it are
    /// not used; bytes after it are ignored.
    ///
    /// # Errors
    /// [`Error::EntryPoint`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if let Ok((entry_point, _)) = EntryPoint2::read_from_prefix(bytes)
            && entry_point.signature == EntryPoint2::SIGNATURE
            && entry_point.intermediate.signature == Intermediate::SIGNATURE
        {
            return Ok(Self(Kind::V2(entry_point)));
        }
        match EntryPoint3::read_from_prefix(bytes) {
            Ok((entry_point, _)) if entry_point.signature == EntryPoint3::SIGNATURE => Ok(Self(Kind::V3(entry_point))),
            _ => Err(Error::EntryPoint),
        }
    }

    /// The range of the structures for an entry point in memory with valid checksums. A 3.x entry point only has their
    /// maximum length.
    ///
    /// # Errors
    /// [`Error::EntryPoint`].
    pub fn locate(bytes: &[u8]) -> Result<PhysRange, Error> {
        let summed = |entry_point: &[u8]| checksum::sum(entry_point) == 0;
        let place = match Self::parse(bytes)?.0 {
            Kind::V2(entry_point) if summed(entry_point.as_bytes()) && summed(entry_point.intermediate.as_bytes()) => {
                let part = entry_point.intermediate;
                PhysRange::new(PhysAddr::new(part.table.get().into()), part.table_len.get().into())
            }
            Kind::V3(entry_point) if summed(entry_point.as_bytes()) => {
                PhysRange::new(PhysAddr::new(entry_point.table.get()), entry_point.max_table_len.get().into())
            }
            _ => None,
        };
        place.ok_or(Error::EntryPoint)
    }

    /// The entry point for structures at `table`, with counts and checksums.
    ///
    /// # Errors
    /// [`Error::TooHigh`] and [`Error::TooLarge`] if a field of the entry point is too narrow.
    pub fn finish(self, table: PhysAddr, summary: &Summary) -> Result<ArrayVec<u8, MAX_ENTRY_POINT>, Error> {
        let too_large = |_| Error::TooLarge(summary.len);
        let mut bytes = ArrayVec::new();
        match self.0 {
            Kind::V2(mut entry_point) => {
                entry_point.length = size_of::<EntryPoint2>() as u8;
                entry_point.max_structure = u16::try_from(summary.max_structure).map_err(too_large)?.into();
                let part = &mut entry_point.intermediate;
                part.table_len = u16::try_from(summary.len).map_err(too_large)?.into();
                part.table = table.get32().ok_or(Error::TooHigh)?.into();
                part.structures = u16::try_from(summary.structures).map_err(too_large)?.into();
                part.checksum = 0;
                part.checksum = checksum::sum(part.as_bytes()).wrapping_neg();
                entry_point.checksum = 0;
                entry_point.checksum = checksum::sum(entry_point.as_bytes()).wrapping_neg();
                bytes.try_extend_from_slice(entry_point.as_bytes()).map_err(|_| Error::TooLarge(summary.len))?;
            }
            Kind::V3(mut entry_point) => {
                entry_point.length = size_of::<EntryPoint3>() as u8;
                entry_point.max_table_len = u32::try_from(summary.len).map_err(too_large)?.into();
                entry_point.table = table.get().into();
                entry_point.checksum = 0;
                entry_point.checksum = checksum::sum(entry_point.as_bytes()).wrapping_neg();
                bytes.try_extend_from_slice(entry_point.as_bytes()).map_err(|_| Error::TooLarge(summary.len))?;
            }
        }
        Ok(bytes)
    }
}
