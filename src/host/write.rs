//! What the firmware wrote into the host's files: the addresses that devices asked for.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The longest file name, as in fw_cfg's directory, and the most bytes that are written at a time.
const NAME_LEN: usize = 56;
const MOST_BYTES: usize = 8;

/// Bytes that were written into one of the host's files.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Eq, Unaligned)]
#[repr(C)]
pub struct HostWrite {
    /// In fw_cfg, padded with zeros.
    file: [u8; NAME_LEN],
    offset: U32,
    len: U32,
    bytes: [u8; MOST_BYTES],
}

impl HostWrite {
    /// Eight bytes at most, from `offset` on. `None` when they or the name are too long, or the name has a character
    /// that cannot be printed.
    #[must_use]
    pub fn new(file: &[u8], offset: u32, bytes: &[u8]) -> Option<Self> {
        let len = u32::try_from(bytes.len()).ok()?;
        let mut this = Self { file: [0; NAME_LEN], offset: offset.into(), len: len.into(), bytes: [0; MOST_BYTES] };
        this.file.get_mut(..file.len()).filter(|_| is_name(file))?.copy_from_slice(file);
        this.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(this)
    }

    /// The file's name; empty when it is none.
    #[must_use]
    pub fn file(&self) -> &str {
        let name = self.file.split(|&byte| byte == 0).next().filter(|name| is_name(name));
        name.and_then(|name| str::from_utf8(name).ok()).unwrap_or_default()
    }

    /// Where in the file.
    #[must_use]
    pub fn offset(&self) -> u32 {
        self.offset.get()
    }

    /// What was written.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len.get() as usize).unwrap_or_default()
    }

    /// Whether it has a file and bytes; one that comes from memory need not.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.file().is_empty() && !self.bytes().is_empty()
    }
}

/// Whether a name has only characters that can be printed. It is printed where a host does not know the file, and a guest
/// can have written it.
fn is_name(name: &[u8]) -> bool {
    name.iter().all(u8::is_ascii_graphic)
}
