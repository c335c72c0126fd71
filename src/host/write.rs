//! What the firmware writes into the host's files: the addresses that devices need.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The longest file name, as in the fw_cfg directory, and the most bytes in one write.
const NAME_LEN: usize = 56;
const MOST_BYTES: usize = 8;

/// Bytes written into one of the host's files.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Eq, Unaligned)]
#[repr(C)]
pub struct HostWrite {
    /// The name in fw_cfg, padded with zeros.
    file: [u8; NAME_LEN],
    offset: U32,
    len: U32,
    bytes: [u8; MOST_BYTES],
}

impl HostWrite {
    /// At most eight bytes, from `offset` on. `None` if the bytes or the name are too long, or the name has an unprintable
    /// character.
    #[must_use]
    pub fn new(file: &[u8], offset: u32, bytes: &[u8]) -> Option<Self> {
        let len = u32::try_from(bytes.len()).ok()?;
        let mut this = Self { file: [0; NAME_LEN], offset: offset.into(), len: len.into(), bytes: [0; MOST_BYTES] };
        this.file.get_mut(..file.len()).filter(|_| is_name(file))?.copy_from_slice(file);
        this.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(this)
    }

    /// The file's name; empty if it is invalid.
    #[must_use]
    pub fn file(&self) -> &str {
        let name = self.file.split(|&byte| byte == 0).next().filter(|name| is_name(name));
        name.and_then(|name| str::from_utf8(name).ok()).unwrap_or_default()
    }

    /// The offset in the file.
    #[must_use]
    pub fn offset(&self) -> u32 {
        self.offset.get()
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len.get() as usize).unwrap_or_default()
    }

    /// Whether it has a file and bytes; one read from memory may have none.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        !self.file().is_empty() && !self.bytes().is_empty()
    }
}

/// Whether a name has only printable characters. It is printed if the host does not have the file, and a guest may have written
/// it.
fn is_name(name: &[u8]) -> bool {
    name.iter().all(u8::is_ascii_graphic)
}
