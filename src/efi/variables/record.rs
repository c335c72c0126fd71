//! The record of a variable: a header, the name, the data, and zeros up to a multiple of eight bytes.

use uefi_raw::Guid;
use uefi_raw::table::runtime::VariableAttributes;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{MOST_BYTES, Name, Variable};

/// The header of a record.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`]. Another number ends the list.
    magic: U32,
    attributes: U32,
    vendor: [u8; 16],
    name_len: U32,
    data_len: U32,
}

/// "VAR1".
const MAGIC: u32 = u32::from_le_bytes(*b"VAR1");
/// The length of a record is a multiple of this.
const STEP: usize = 8;

impl Header {
    /// The length of a record with a name and data of these lengths. `None` if they exceed the limit for a variable.
    pub fn room_for(name_len: usize, data_len: usize) -> Option<usize> {
        let contents = name_len.checked_add(data_len).filter(|&len| len <= MOST_BYTES)?;
        contents.checked_add(size_of::<Self>())?.checked_next_multiple_of(STEP)
    }

    /// The header at the start of `record`.
    pub fn read(record: &[u8]) -> Option<Self> {
        Self::read_from_prefix(record).ok().map(|(header, _)| header).filter(|header| header.magic.get() == MAGIC)
    }

    /// The length of the name in bytes.
    pub const fn name_len(&self) -> usize {
        self.name_len.get() as usize
    }

    /// Writes the record of `variable` to `record`, whose length is that of [`Self::room_for`].
    pub fn write(record: &mut [u8], variable: &Variable<'_>) {
        let (name, data) = (variable.name.bytes(), variable.data);
        let header = Self {
            magic: MAGIC.into(),
            attributes: variable.attributes.bits().into(),
            vendor: variable.vendor.to_bytes(),
            name_len: (name.len() as u32).into(),
            data_len: (data.len() as u32).into(),
        };
        let rest = put(record, header.as_bytes());
        let rest = put(rest, name);
        put(rest, data).fill(0);
    }

    /// Replaces the data of `record`, which has this header, with its first `kept` bytes and `data`. The length of `record` is that
    /// of [`Self::room_for`] for both.
    pub fn extend(mut self, record: &mut [u8], kept: usize, data: &[u8]) {
        self.data_len = (kept.saturating_add(data.len()) as u32).into();
        let rest = put(record, self.as_bytes());
        let kept = self.name_len().saturating_add(kept);
        put(rest.get_mut(kept..).unwrap_or_default(), data).fill(0);
    }
}

/// Writes `bytes` to the start of `place`, and returns the rest.
fn put<'a>(place: &'a mut [u8], bytes: &[u8]) -> &'a mut [u8] {
    let (start, rest) = place.split_at_mut(bytes.len().min(place.len()));
    start.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    rest
}

/// A record of a list, from `start` to `end` exclusive.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    pub start: usize,
    pub end: usize,
    pub variable: Variable<'a>,
}

/// The records of a list, up to the first invalid one.
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        let record = self.bytes.get(start..)?;
        let header = Header::read(record)?;
        let (name_len, data_len) = (header.name_len(), header.data_len.get() as usize);
        let end = start.checked_add(Header::room_for(name_len, data_len)?)?;
        let contents = self.bytes.get(..end)?.get(start..)?.get(size_of::<Header>()..)?;
        let (name, rest) = contents.split_at_checked(name_len)?;
        let data = rest.get(..data_len)?;
        if name.is_empty() || !name_len.is_multiple_of(2) || data.is_empty() {
            return None;
        }
        self.at = end;
        let variable = Variable {
            name: Name(name),
            vendor: Guid::from_bytes(header.vendor),
            attributes: VariableAttributes::from_bits_retain(header.attributes.get()),
            data,
        };
        Some(Record { start, end, variable })
    }
}
