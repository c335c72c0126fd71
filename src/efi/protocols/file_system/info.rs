//! Structures that end with a name, as `GetInfo` and the reading of a directory return them (UEFI 13.5.16 to 13.5.18).

use arrayvec::ArrayVec;
use uefi_raw::protocol::file_system::{FileAttribute, FileInfo, FileSystemInfo};
use uefi_raw::time::Time;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

/// The longest name, in characters: that of a file on a FAT volume.
const MOST_NAME: usize = 255;
/// The longest structure: that of a file.
const MOST_INFO: usize = FILE_INFO_LEN as usize + 2 * (MOST_NAME + 1);

/// The lengths of structures without their names.
pub const FILE_INFO_LEN: u64 = core::mem::offset_of!(FileInfo, file_name) as u64;
pub const FILE_SYSTEM_INFO_LEN: u64 = core::mem::offset_of!(FileSystemInfo, volume_label) as u64;
const _: () = assert!(FILE_INFO_LEN == 80 && FILE_SYSTEM_INFO_LEN == 36);

/// A structure.
pub type Info = ArrayVec<u8, MOST_INFO>;

/// What `EFI_FILE_INFO` says of a file or directory, besides its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileFields {
    /// The length in bytes; of a directory zero.
    pub len: u64,
    /// How many bytes of the volume it takes.
    pub room: u64,
    /// When it was made, last read and last written; zeros if nobody knows.
    pub times: [Time; 3],
    /// Its attributes.
    pub attributes: FileAttribute,
}

/// `EFI_FILE_INFO` (UEFI 13.5.16).
pub fn file(fields: &FileFields, name: impl Iterator<Item = u16>) -> Info {
    let numbers = [fields.len, fields.room].map(U64::new);
    let times = fields.times.map(time_bytes);
    with_name(&[numbers.as_bytes(), times.as_flattened(), &fields.attributes.bits().to_le_bytes()], true, name)
}

/// `EFI_FILE_SYSTEM_INFO` (UEFI 13.5.17) of a full volume that is only read: the bytes of it and of its blocks, and its label.
pub fn file_system(len: u64, block_len: u32, label: impl Iterator<Item = u16>) -> Info {
    let read_only = U64::new(1);
    let sizes = [len, 0].map(U64::new);
    with_name(&[read_only.as_bytes(), sizes.as_bytes(), U32::new(block_len).as_bytes()], true, label)
}

/// `EFI_FILE_SYSTEM_VOLUME_LABEL` (UEFI 13.5.18).
pub fn label(label: impl Iterator<Item = u16>) -> Info {
    with_name(&[], false, label)
}

/// The bytes of `EFI_TIME` (UEFI 8.3).
fn time_bytes(time: Time) -> [u8; 16] {
    let [y, yy] = time.year.to_le_bytes();
    let [a, b, c, d] = time.nanosecond.to_le_bytes();
    let [z, zz] = time.time_zone.to_le_bytes();
    [y, yy, time.month, time.day, time.hour, time.minute, time.second, 0, a, b, c, d, z, zz, time.daylight.bits(), 0]
}

/// The structure of these fields and a name. One that has a length begins with it.
fn with_name(fields: &[&[u8]], has_length: bool, name: impl Iterator<Item = u16>) -> Info {
    let mut info = Info::new();
    let mut append = |bytes: &[u8]| {
        // The longest name is known: see `MOST_INFO`.
        let _ = bytes.iter().try_for_each(|&byte| info.try_push(byte));
    };
    if has_length {
        append(&[0; size_of::<u64>()]);
    }
    fields.iter().for_each(|field| append(field));
    name.take(MOST_NAME).chain([0]).for_each(|unit| append(&unit.to_le_bytes()));
    let len = info.len() as u64;
    if has_length && let Some(first) = info.first_chunk_mut() {
        *first = len.to_le_bytes();
    }
    info
}
