//! The directory of named items: a big-endian count and records of 64 bytes.
//!
//! A record is the length (32 bits, big-endian), the key (16 bits, big-endian), two reserved bytes and the name, 56
//! bytes padded with NULs. Records come in any order; where a name stands twice, the first counts.

use alloc::vec::Vec;

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

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
    /// None, or one that is no file's and then those of the files. The count, which the host gives before the records, is the
    /// end of the first: so both come in one piece, and every record is where it belongs.
    records: Vec<Record>,
}

/// Where the count is in the first record.
const COUNT: usize = size_of::<Record>() - size_of::<U32>();

impl Directory {
    /// A directory with room for the count and the records of so many files.
    ///
    /// # Errors
    /// [`Error::TooManyFiles`], [`Error::HeapFull`].
    pub fn with_room(files: u32) -> Result<Self, Error> {
        if files > MOST_FILES {
            return Err(Error::TooManyFiles { files, limit: MOST_FILES });
        }
        let heap_full =
            || Error::HeapFull { key: Key::FILE_DIR, len: files.saturating_mul(size_of::<Record>() as u32) };
        let records = (files as usize).saturating_add(1);
        Record::new_vec_zeroed(records).map(|records| Self { records }).map_err(|_| heap_full())
    }

    /// The bytes of the count and of the records, to be read from the host.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.records.as_mut_bytes().get_mut(COUNT..).unwrap_or_default()
    }

    /// How many files there are by the count that was read.
    #[must_use]
    pub fn count(&self) -> u32 {
        let count = self.records.first().and_then(|first| first.as_bytes().last_chunk());
        count.map_or(0, |count| u32::from_be_bytes(*count))
    }

    /// Forgets the room for more than so many files.
    pub fn truncate(&mut self, files: u32) {
        self.records.truncate((files as usize).saturating_add(1));
    }

    /// The files.
    fn files(&self) -> &[Record] {
        self.records.get(1..).unwrap_or_default()
    }

    /// The directory's first bytes as the host gives them; zeros where it has no file.
    #[must_use]
    pub fn first_bytes(&self) -> [u8; FIRST_BYTES] {
        let mut bytes = [0; FIRST_BYTES];
        let (count, record) = bytes.split_at_mut(size_of::<U32>());
        let files = self.files();
        if let Some((head, _)) = files.first().and_then(|first| first.as_bytes().split_at_checked(record.len())) {
            // No more files than `MOST_FILES`.
            count.copy_from_slice(U32::new(files.len() as u32).as_bytes());
            record.copy_from_slice(head);
        }
        bytes
    }

    /// The item called `name`.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<Item> {
        let mut records = self.files().iter();
        let record = match name.first_chunk::<HEAD_SIZE>() {
            // Most records are passed over by this one comparison.
            Some(head) => records.find(|record| record.name.first_chunk() == Some(head) && record.is_called(name)),
            None => records.find(|record| record.is_called(name)),
        }?;
        Some(Item::new(Key::new(record.key.get()), record.len.get()))
    }
}
