//! Directories: lists of entries of 32 bytes (FAT, "FAT Directory Structure").

use uefi_raw::protocol::file_system::FileAttribute;
use uefi_raw::time::Time;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use arrayvec::ArrayVec;

use super::chain::{Row, Table};
use super::name::{self, Long, Name};
use super::{Error, Fat, Kind, Place, Reader};
use crate::disk::Blocks;

/// A directory has at most this many bytes, those of 65,536 entries (FAT, "DIR_FileSize").
pub const MOST_DIRECTORY: u32 = 65_536 * SLOT_LEN;

const SLOT_LEN: u32 = 32;
/// How much of a directory is read at once.
const PIECE: usize = 512;

/// The first byte of an entry: neither this one nor one that follows is in use.
const END: u8 = 0;
/// The first byte of an entry that was deleted.
const DELETED: u8 = 0xe5;
/// Attributes: the volume's label.
const LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
/// Attributes of an entry with a piece of a long name, in the bits that have a meaning.
const LONG_NAME: u8 = 0x0f;
const ATTRIBUTES: u8 = 0x3f;

/// An entry as it is on the disk.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, PartialEq, Eq, Unaligned)]
#[repr(C)]
struct Slot {
    name: [u8; 11],
    attributes: u8,
    case: u8,
    created_tenths: u8,
    created_time: U16,
    created_date: U16,
    accessed_date: U16,
    cluster_high: U16,
    modified_time: U16,
    modified_date: U16,
    cluster_low: U16,
    len: U32,
}

impl Slot {
    /// That of the root directory, which is in no directory.
    const ROOT: Self = Self {
        name: [b' '; 11],
        attributes: DIRECTORY,
        case: 0,
        created_tenths: 0,
        created_time: U16::ZERO,
        created_date: U16::ZERO,
        accessed_date: U16::ZERO,
        cluster_high: U16::ZERO,
        modified_time: U16::ZERO,
        modified_date: U16::ZERO,
        cluster_low: U16::ZERO,
        len: U32::ZERO,
    };
}

/// A file or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    name: Name,
    slot: Slot,
    place: Place,
}

impl Entry {
    pub(super) const fn root(place: Place) -> Self {
        Self { name: Name::EMPTY, slot: Slot::ROOT, place }
    }

    pub(super) const fn place(&self) -> Place {
        self.place
    }

    /// The name in UTF-16, without a NUL: the long one if there is one. That of the root directory is empty.
    #[must_use]
    pub fn name(&self) -> &[u16] {
        self.name.units()
    }

    /// Whether it is a directory.
    #[must_use]
    pub const fn is_directory(&self) -> bool {
        self.slot.attributes & DIRECTORY != 0
    }

    /// The length of a file in bytes; of a directory zero.
    #[must_use]
    pub const fn len(&self) -> u32 {
        if self.is_directory() { 0 } else { self.slot.len.get() }
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The attributes, which have the same bits in UEFI (UEFI 13.5.16).
    #[must_use]
    pub const fn attributes(&self) -> FileAttribute {
        FileAttribute::from_bits_truncate(self.slot.attributes as u64 & !(LABEL as u64))
    }

    /// When it was made.
    #[must_use]
    pub fn created(&self) -> Time {
        time(self.slot.created_date.get(), self.slot.created_time.get())
    }

    /// The day when it was last read.
    #[must_use]
    pub fn accessed(&self) -> Time {
        time(self.slot.accessed_date.get(), 0)
    }

    /// When it was last written.
    #[must_use]
    pub fn modified(&self) -> Time {
        time(self.slot.modified_date.get(), self.slot.modified_time.get())
    }
}

/// A local time (FAT, "Date and Time Formats"). Zeros if nobody has set it, or if it does not exist.
pub(super) fn time(date: u16, time: u16) -> Time {
    let time = Time {
        year: (date >> 9).saturating_add(1980),
        month: (date >> 5 & 0xf) as u8,
        day: (date & 0x1f) as u8,
        hour: (time >> 11) as u8,
        minute: (time >> 5 & 0x3f) as u8,
        second: ((time & 0x1f) as u8).saturating_mul(2),
        time_zone: Time::UNSPECIFIED_TIMEZONE,
        ..Time::invalid()
    };
    if time.is_valid() { time } else { Time::invalid() }
}

/// How far a directory has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    at: u32,
    row: Row,
}

/// The label of a volume in UTF-16.
pub type Label = ArrayVec<u16, 11>;

/// A directory while it is read.
struct Scan {
    reader: Reader,
    table: Table,
    /// The next entry.
    at: u32,
    /// What was read from the disk, and where in the directory that begins.
    bytes: [u8; PIECE],
    start: u32,
    len: u32,
}

impl Scan {
    fn new(place: Place, position: Position) -> Self {
        Self {
            reader: Reader::new(place, MOST_DIRECTORY).in_row(position.row),
            table: Table::new(),
            at: position.at,
            bytes: [0; PIECE],
            start: 0,
            len: 0,
        }
    }

    const fn position(&self) -> Position {
        Position { at: self.at, row: self.reader.row() }
    }

    /// The next 32 bytes, unless that is the end.
    fn slot(&mut self, fat: &Fat, blocks: &mut dyn Blocks) -> Result<Option<[u8; 32]>, Error> {
        loop {
            let read = self.bytes.get(..self.len as usize).unwrap_or_default();
            let offset = self.at.checked_sub(self.start).map(|offset| offset as usize);
            let slot: Option<&[u8; 32]> = offset.and_then(|offset| read.get(offset..)?.first_chunk());
            if let Some(slot) = slot {
                // What follows the end is not read, so it stays the end.
                if slot.first() == Some(&END) {
                    return Ok(None);
                }
                self.at = self.at.saturating_add(SLOT_LEN);
                return Ok(Some(*slot));
            }
            let most = MOST_DIRECTORY.saturating_sub(self.at).min(PIECE as u32);
            if most == 0 {
                return Ok(None);
            }
            let Some((start, len)) = fat.piece(blocks, &mut self.table, &mut self.reader, self.at, most)? else {
                return Ok(None);
            };
            (self.start, self.len) = (self.at, 0);
            blocks.read(start, self.bytes.get_mut(..len as usize).unwrap_or_default())?;
            self.len = len;
        }
    }

    /// The next file or directory.
    fn next(&mut self, fat: &Fat, blocks: &mut dyn Blocks) -> Result<Option<Entry>, Error> {
        let mut long = Long::new();
        while let Some(bytes) = self.slot(fat, blocks)? {
            let Ok(slot) = Slot::read_from_bytes(&bytes) else { return Ok(None) };
            let is_deleted = bytes.first() == Some(&DELETED);
            if !is_deleted && slot.attributes & ATTRIBUTES == LONG_NAME {
                long.add(&bytes);
                continue;
            }
            if is_deleted || slot.attributes & LABEL != 0 {
                long.forget();
                continue;
            }
            let name = long.finish(&slot.name).or_else(|| Name::new(&name::short(&slot.name, slot.case)));
            let name = name.unwrap_or(Name::EMPTY);
            return Ok(Some(Entry { name, slot, place: fat.place_of(&slot) }));
        }
        Ok(None)
    }
}

impl Fat {
    /// Where an entry says that its bytes are. A cluster that does not exist is found when it is read.
    fn place_of(&self, slot: &Slot) -> Place {
        // The upper half is another thing in FAT12 and FAT16 on some systems.
        let high = if self.kind == Kind::Fat32 { slot.cluster_high.get() } else { 0 };
        let cluster = (u32::from(high) << 16 | u32::from(slot.cluster_low.get())) & self.kind.mask();
        match cluster {
            // `..` in a directory of the root (FAT, "Directory Creation").
            0 if slot.attributes & DIRECTORY != 0 && slot.name.starts_with(b"..") => self.root,
            cluster => Place::Chain(cluster),
        }
    }

    /// The file or directory of a name in UTF-16 in a directory: its long or its short name, in any case ([`super::is_same`]). `.`
    /// and `..` are found where the directory lists them, which the root does not. `None` also in a file.
    ///
    /// # Errors
    /// [`Error`].
    #[inline(never)]
    pub fn find(&self, blocks: &mut dyn Blocks, directory: &Entry, name: &[u16]) -> Result<Option<Entry>, Error> {
        let name = name::trimmed(name);
        if !directory.is_directory() || name.is_empty() {
            return Ok(None);
        }
        let mut scan = Scan::new(directory.place, Position::default());
        while let Some(entry) = scan.next(self, blocks)? {
            if name::is_same(entry.name(), name) || name::is_same(&name::short(&entry.slot.name, 0), name) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// The next file or directory of a directory, from a position on that starts as `Position::default()`, or `None` at the end.
    /// `.` and `..` are among them. A file has none.
    ///
    /// # Errors
    /// [`Error`]; then the position has not changed.
    pub fn next(
        &self,
        blocks: &mut dyn Blocks,
        directory: &Entry,
        position: &mut Position,
    ) -> Result<Option<Entry>, Error> {
        if !directory.is_directory() {
            return Ok(None);
        }
        let mut scan = Scan::new(directory.place, *position);
        let entry = scan.next(self, blocks)?;
        *position = scan.position();
        Ok(entry)
    }

    /// The volume's label: the root directory's entry for it, else the boot sector's, which some tools do not change.
    ///
    /// # Errors
    /// [`Error`].
    pub fn label(&self, blocks: &mut dyn Blocks) -> Result<Label, Error> {
        let text = |bytes: &[u8; 11]| {
            let mut label = Label::new();
            for &byte in name::without_spaces(bytes) {
                // There is room for all of it.
                let _ = label.try_push(byte.into());
            }
            label
        };
        let mut scan = Scan::new(self.root, Position::default());
        while let Some(bytes) = scan.slot(self, blocks)? {
            let Ok(slot) = Slot::read_from_bytes(&bytes) else { break };
            let is_label = slot.attributes & (LABEL | DIRECTORY) == LABEL && slot.attributes & ATTRIBUTES != LONG_NAME;
            if is_label && !bytes.starts_with(&[DELETED]) {
                return Ok(text(&slot.name));
            }
        }
        Ok(if self.label == *b"NO NAME    " { Label::new() } else { text(&self.label) })
    }
}
