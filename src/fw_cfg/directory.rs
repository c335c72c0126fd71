//! The directory of named items: a big-endian count and records of 64 bytes.
//!
//! A record is the length (32 bits, big-endian), the key (16 bits, big-endian), two reserved bytes and the name, 56
//! bytes padded with NULs. Records come in any order; where a name stands twice, the first counts.
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use zerocopy::FromZeros;

use super::{Error, Item, Key};

/// Bytes of the count.
pub const COUNT_SIZE: usize = 4;
const RECORD_SIZE: usize = 64;
const NAME_OFFSET: usize = 8;
const NAME_SIZE: usize = 56;

/// As many files as are accepted: 64 KiB of records. QEMU has about thirty.
const MOST_FILES: u32 = 1024;

/// The directory as the host gave it.
#[derive(Debug, Default)]
pub struct Directory {
    records: Vec<u8>,
}

/// A zeroed buffer for the records of `files` files.
pub fn buffer(files: u32) -> Result<Vec<u8>, Error> {
    let len = files.saturating_mul(RECORD_SIZE as u32);
    let too_large = Error::TooLarge { key: Key::FILE_DIR, len, limit: MOST_FILES.saturating_mul(RECORD_SIZE as u32) };
    if files > MOST_FILES {
        return Err(too_large);
    }
    u8::new_vec_zeroed(len as usize).map_err(|_| too_large)
}

impl Directory {
    /// The directory of the records' bytes. A record that the bytes do not hold whole is left out.
    pub const fn new(records: Vec<u8>) -> Self {
        Self { records }
    }

    /// The item called `name`.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<Item> {
        if name.len() > NAME_SIZE {
            return None;
        }
        self.records.chunks_exact(RECORD_SIZE).find_map(|record| {
            let (head, field) = record.split_at_checked(NAME_OFFSET)?;
            let (start, rest) = field.split_at_checked(name.len())?;
            // The field ends with a NUL, or is full.
            if start != name || rest.first().is_some_and(|&byte| byte != 0) {
                return None;
            }
            let &[a, b, c, d, e, f, ..] = head else { return None };
            Some(Item::new(Key::new(u16::from_be_bytes([e, f])), u32::from_be_bytes([a, b, c, d])))
        })
    }
}
