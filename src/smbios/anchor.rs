//! The anchor, or entry point: what an operating system finds first (DSP0134 3.6, 5.2).

use arrayvec::ArrayVec;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::Error;
use super::walk::Summary;
use crate::addr::{PhysAddr, PhysRange};
use crate::checksum;

/// The length of the longest anchor in bytes.
pub const MAX_ANCHOR: usize = size_of::<Anchor2>();

/// The anchor of SMBIOS 2.1 and later, 31 bytes (5.2.1).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Anchor2 {
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
    /// The second half, an anchor of its own.
    intermediate: Intermediate,
}

/// The part of [`Anchor2`] that older software looks for.
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

/// The anchor of SMBIOS 3.0 and later, 24 bytes (5.2.2).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Anchor3 {
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
    /// No less than the length of the structures.
    max_table_len: U32,
    table: U64,
}

impl Anchor2 {
    const SIGNATURE: [u8; 4] = *b"_SM_";
}

impl Intermediate {
    const SIGNATURE: [u8; 5] = *b"_DMI_";
}

impl Anchor3 {
    const SIGNATURE: [u8; 5] = *b"_SM3_";
}

/// An anchor from the host, not yet pointing anywhere.
#[derive(Clone, Copy, Debug)]
pub struct Anchor(Kind);

#[derive(Clone, Copy, Debug)]
enum Kind {
    V2(Anchor2),
    V3(Anchor3),
}

impl Anchor {
    /// Understands the host's anchor, which its signature tells. Addresses, counts and checksums in it mean nothing
    /// yet; bytes that follow it are ignored.
    ///
    /// # Errors
    /// [`Error::Anchor`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        if let Ok((anchor, _)) = Anchor2::read_from_prefix(bytes)
            && anchor.signature == Anchor2::SIGNATURE
            && anchor.intermediate.signature == Intermediate::SIGNATURE
        {
            return Ok(Self(Kind::V2(anchor)));
        }
        match Anchor3::read_from_prefix(bytes) {
            Ok((anchor, _)) if anchor.signature == Anchor3::SIGNATURE => Ok(Self(Kind::V3(anchor))),
            _ => Err(Error::Anchor),
        }
    }

    /// Where the structures are that an anchor in memory tells of: one with valid checksums. Of a 3.x anchor it is as
    /// much as they may be.
    ///
    /// # Errors
    /// [`Error::Anchor`].
    pub fn locate(bytes: &[u8]) -> Result<PhysRange, Error> {
        let summed = |anchor: &[u8]| checksum::sum(anchor) == 0;
        let place = match Self::parse(bytes)?.0 {
            Kind::V2(anchor) if summed(anchor.as_bytes()) && summed(anchor.intermediate.as_bytes()) => {
                let part = anchor.intermediate;
                PhysRange::new(PhysAddr::new(part.table.get().into()), part.table_len.get().into())
            }
            Kind::V3(anchor) if summed(anchor.as_bytes()) => {
                PhysRange::new(PhysAddr::new(anchor.table.get()), anchor.max_table_len.get().into())
            }
            _ => None,
        };
        place.ok_or(Error::Anchor)
    }

    /// The anchor for structures at `table`, with counts and checksums.
    ///
    /// # Errors
    /// [`Error::TooHigh`] and [`Error::TooLarge`], as far as the anchor's fields are too narrow.
    pub fn finish(self, table: PhysAddr, summary: &Summary) -> Result<ArrayVec<u8, MAX_ANCHOR>, Error> {
        let too_large = |_| Error::TooLarge(summary.len);
        let mut bytes = ArrayVec::new();
        match self.0 {
            Kind::V2(mut anchor) => {
                anchor.length = size_of::<Anchor2>() as u8;
                anchor.max_structure = u16::try_from(summary.max_structure).map_err(too_large)?.into();
                let part = &mut anchor.intermediate;
                part.table_len = u16::try_from(summary.len).map_err(too_large)?.into();
                part.table = table.get32().ok_or(Error::TooHigh)?.into();
                part.structures = u16::try_from(summary.structures).map_err(too_large)?.into();
                part.checksum = 0;
                part.checksum = checksum::sum(part.as_bytes()).wrapping_neg();
                anchor.checksum = 0;
                anchor.checksum = checksum::sum(anchor.as_bytes()).wrapping_neg();
                bytes.try_extend_from_slice(anchor.as_bytes()).map_err(|_| Error::TooLarge(summary.len))?;
            }
            Kind::V3(mut anchor) => {
                anchor.length = size_of::<Anchor3>() as u8;
                anchor.max_table_len = u32::try_from(summary.len).map_err(too_large)?.into();
                anchor.table = table.get().into();
                anchor.checksum = 0;
                anchor.checksum = checksum::sum(anchor.as_bytes()).wrapping_neg();
                bytes.try_extend_from_slice(anchor.as_bytes()).map_err(|_| Error::TooLarge(summary.len))?;
            }
        }
        Ok(bytes)
    }
}
