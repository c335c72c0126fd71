//! The directory of named items: a big-endian count and records of 64 bytes.
//!
//! A record is the length (32 bits, big-endian), the key (16 bits, big-endian), two reserved bytes and the name, 56
//! bytes padded with NULs. Records come in any order; where a name stands twice, the first counts.

use alloc::vec::Vec;

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Error, Item, Key};

const NAME_SIZE: usize = 56;
/// As much of a name as is compared first: enough to tell most apart.
const HEAD_SIZE: usize = 8;

/// As many files as are accepted: 64 KiB of records.
const MOST_FILES: u32 = 1024;
/// As many files as are usual on QEMU: a bare machine has 16, of the 32 that it has room for unless told otherwise
/// (`hw/nvram/fw_cfg.c`, `FW_CFG_FILE_SLOTS_DFLT`).
pub const USUAL_FILES: u32 = 24;

/// As much of the directory as tells it from another item: the count and the first record's length and key.
pub const FIRST_BYTES: usize = 12;

/// A file, as the host lists it.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Record {
    len: U32,
    key: U16,
    reserved: [u8; 2],
    name: [u8; NAME_SIZE],
}

impl Record {
    /// Whether this is the file called `name`, which is followed by a NUL or fills the field.
    fn is_called(&self, name: &[u8]) -> bool {
        self.name
            .split_at_checked(name.len())
            .is_some_and(|(start, rest)| start == name && matches!(rest, [] | [0, ..]))
    }
}

/// The directory as the host gave it.
#[derive(Debug, Default)]
pub struct Directory {
    /// Nothing, or the count and the records.
    bytes: Vec<u8>,
}

/// The bytes of the count.
const COUNT: usize = size_of::<U32>();

impl Directory {
    /// The bytes of the count and of the records of so many files.
    ///
    /// # Errors
    /// [`Error::TooManyFiles`].
    pub fn len_of(files: u32) -> Result<u32, Error> {
        if files > MOST_FILES {
            return Err(Error::TooManyFiles { files, limit: MOST_FILES });
        }
        Ok(files.saturating_mul(size_of::<Record>() as u32).saturating_add(COUNT as u32))
    }

    /// How many files there are by the count that the bytes of a directory begin with.
    #[must_use]
    pub fn count(bytes: &[u8]) -> u32 {
        bytes.first_chunk().map_or(0, |count| u32::from_be_bytes(*count))
    }

    /// The directory in these bytes, of which those behind the last file are left out.
    #[must_use]
    pub fn new(mut bytes: Vec<u8>) -> Self {
        let len = Self::len_of(Self::count(&bytes)).unwrap_or_default();
        bytes.truncate(len as usize);
        Self { bytes }
    }

    /// The files.
    fn files(&self) -> impl Iterator<Item = &Record> {
        let (records, _) = self.bytes.get(COUNT..).unwrap_or_default().as_chunks::<{ size_of::<Record>() }>();
        records.iter().map(|bytes| -> &Record { zerocopy::transmute_ref!(bytes) })
    }

    /// The directory's first bytes as the host gives them; zeros where it has no file.
    #[must_use]
    pub fn first_bytes(&self) -> [u8; FIRST_BYTES] {
        let mut bytes = [0; FIRST_BYTES];
        if let Some(first) = self.bytes.first_chunk() {
            bytes = *first;
        }
        bytes
    }

    /// The item called `name`.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<Item> {
        let mut records = self.files();
        let record = match name.first_chunk::<HEAD_SIZE>() {
            // Most records are passed over by this one comparison.
            Some(head) => records.find(|record| record.name.first_chunk() == Some(head) && record.is_called(name)),
            None => records.find(|record| record.is_called(name)),
        }?;
        Some(Item::new(Key::new(record.key.get()), record.len.get()))
    }
}
