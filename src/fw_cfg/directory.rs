//! The directory of named items: a big-endian count, then records of 64 bytes.
//!
//! A record is the length (32 bits, big-endian), the key (16 bits, big-endian), two reserved bytes and the name, 56
//! bytes padded with NULs. Records come in any order. If a name occurs twice, the first record counts.

use alloc::vec::Vec;

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Error, Item, Key};

const NAME_SIZE: usize = 56;
/// The first bytes of a name. They differ between most names.
type Head = [u8; 8];

/// The limit on files: 64 KiB of records.
const MOST_FILES: u32 = 1024;
/// The usual limit on files in QEMU. A bare machine has 16, with room for 32 unless configured otherwise
/// (`hw/nvram/fw_cfg.c`, `FW_CFG_FILE_SLOTS_DFLT`).
pub const USUAL_FILES: u32 = 24;

/// The bytes that identify the directory: the count, and the first record's length and key.
pub const FIRST_BYTES: usize = 12;

/// A file in the host's list.
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

/// The directory as the host provides it, with an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    /// Empty, or the count and the records.
    bytes: Vec<u8>,
    /// The number of the first file with each hash, at most [`MOST_INDEXED`], or [`NO_FILE`].
    first: [u8; HASHES],
}

impl Default for Directory {
    fn default() -> Self {
        Self { bytes: Vec::new(), first: [NO_FILE; HASHES] }
    }
}

const HASHES: usize = 64;
const NO_FILE: u8 = u8::MAX;
const MOST_INDEXED: u8 = NO_FILE - 1;

/// A hash of a name, from its head. Most names have one of their own.
#[inline]
const fn hash(head: Head) -> usize {
    // 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming, 6.4).
    (u64::from_le_bytes(head).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize
}

/// The size of the count in bytes.
const COUNT: usize = size_of::<U32>();

impl Directory {
    /// The bytes of the count and of the records of this many files.
    ///
    /// # Errors
    /// [`Error::TooManyFiles`].
    pub fn len_of(files: u32) -> Result<u32, Error> {
        if files > MOST_FILES {
            return Err(Error::TooManyFiles { files, limit: MOST_FILES });
        }
        Ok(files.saturating_mul(size_of::<Record>() as u32).saturating_add(COUNT as u32))
    }

    /// The number of files by the count at the start of a directory's bytes.
    #[must_use]
    pub fn count(bytes: &[u8]) -> u32 {
        bytes.first_chunk().map_or(0, |count| u32::from_be_bytes(*count))
    }

    /// The directory in these bytes. Bytes behind the last file are dropped.
    #[must_use]
    pub fn new(mut bytes: Vec<u8>) -> Self {
        let len = Self::len_of(Self::count(&bytes)).unwrap_or_default();
        bytes.truncate(len as usize);
        let mut first = [NO_FILE; HASHES];
        for (file, number) in Self::files(&bytes).iter().zip(0_usize..) {
            let place = file.name.first_chunk().and_then(|head| first.get_mut(hash(*head)));
            if let Some(place) = place.filter(|place| **place == NO_FILE) {
                *place = number.min(MOST_INDEXED.into()) as u8;
            }
        }
        Self { bytes, first }
    }

    /// The files in a directory's bytes.
    fn files(bytes: &[u8]) -> &[Record] {
        let (records, _) = bytes.get(COUNT..).unwrap_or_default().as_chunks::<{ size_of::<Record>() }>();
        <[Record]>::ref_from_bytes(records.as_flattened()).unwrap_or_default()
    }

    /// The directory's first bytes as the host provides them. Zeros if it has no file.
    #[must_use]
    pub fn first_bytes(&self) -> [u8; FIRST_BYTES] {
        let mut bytes = [0; FIRST_BYTES];
        if let Some(first) = self.bytes.first_chunk() {
            bytes = *first;
        }
        bytes
    }

    /// The item called `name`. For most files that the host does not offer, no name is compared.
    #[must_use]
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<Item> {
        match name.first_chunk() {
            Some(head) => match self.first.get(hash(*head)) {
                None | Some(&NO_FILE) => None,
                Some(&first) => self.search(name, first.into()),
            },
            None => self.search(name, 0),
        }
    }

    /// The item called `name` from the file with the number `first` on.
    #[inline(never)]
    fn search(&self, name: &[u8], first: usize) -> Option<Item> {
        let head: Option<&Head> = name.first_chunk();
        // One comparison skips most files.
        let may_be = |file: &Record| head.is_none_or(|head| file.name.first_chunk() == Some(head));
        let files = Self::files(&self.bytes).get(first..)?;
        let file = files.iter().find(|file| may_be(file) && file.is_called(name))?;
        Some(Item::new(Key::new(file.key.get()), file.len.get()))
    }
}
