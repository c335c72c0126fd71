//! Names of files: short ones of eight and three characters, long ones in entries before that of the short one (FAT, "Long File
//! Name Implementation"), and how names are compared.

use arrayvec::ArrayVec;

/// The characters of a long name at most (FAT, "Long File Name Limits").
pub const MOST_CHARACTERS: usize = 255;
/// A long name has this many characters in each of its entries.
const IN_AN_ENTRY: usize = 13;
/// A long name has this many entries at most.
const MOST_ENTRIES: u8 = 20;
/// In an entry's number: it is the last piece of the name, which comes first.
const LAST: u8 = 0x40;

/// The letters before and after the dot are lower-case ones (`DIR_NTRes` of Windows NT, which FAT calls reserved; Linux
/// `CASE_LOWER_BASE` and `CASE_LOWER_EXT`).
const LOWER_BASE: u8 = 0x08;
const LOWER_EXTENSION: u8 = 0x10;

const DOT: u16 = b'.' as u16;
const SPACE: u16 = b' ' as u16;

/// A name in UTF-16. It is no [`ArrayVec`], because one of these is copied by code that can panic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    units: [u16; MOST_CHARACTERS],
    len: u8,
}

impl Name {
    /// That of the root directory.
    pub const EMPTY: Self = Self { units: [0; MOST_CHARACTERS], len: 0 };

    /// `None` for more than [`MOST_CHARACTERS`].
    pub fn new(units: &[u16]) -> Option<Self> {
        let mut this = Self { len: u8::try_from(units.len()).ok()?, ..Self::EMPTY };
        this.units.iter_mut().zip(units).for_each(|(to, &unit)| *to = unit);
        Some(this)
    }

    /// Its characters.
    pub fn units(&self) -> &[u16] {
        self.units.get(..self.len.into()).unwrap_or_default()
    }
}

/// Whether two names in UTF-16 are those of the same file: letters are the same in upper and lower case.
///
/// The letters are those of Latin-1, as in edk2's collation for English (`UnicodeCollationDxe`).
#[must_use]
pub fn is_same(one: &[u16], other: &[u16]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(&one, &other)| lower(one) == lower(other))
}

/// A letter in lower case. `÷` is where a letter would be.
const fn lower(unit: u16) -> u16 {
    match unit {
        0x41..=0x5a | 0xc0..=0xd6 | 0xd8..=0xde => unit | 0x20,
        _ => unit,
    }
}

/// A name as it is looked for: without spaces at its start, and without dots and spaces at its end, as edk2 does it.
pub fn trimmed(name: &[u16]) -> &[u16] {
    if matches!(name, [DOT] | [DOT, DOT]) {
        return name;
    }
    let start = name.iter().position(|&unit| unit != SPACE).unwrap_or(name.len());
    let end = name.iter().rposition(|&unit| unit != SPACE && unit != DOT).map_or(0, |last| last.saturating_add(1));
    name.get(start..end).unwrap_or_default()
}

/// The text of a short name, with the letters that `flags` says. Its bytes are taken for Latin-1, as edk2 takes them: whoever
/// writes other letters writes a long name beside it.
pub fn short(name: &[u8; 11], flags: u8) -> ArrayVec<u16, 12> {
    let (base, extension) = name.split_at(8);
    let mut text = ArrayVec::new();
    // There is room for all of it.
    let mut append = |bytes: &[u8], is_lower: bool| {
        for &byte in bytes {
            let unit = if is_lower { lower(byte.into()) } else { byte.into() };
            let _ = text.try_push(unit);
        }
    };
    append(without_spaces(base), flags & LOWER_BASE != 0);
    let extension = without_spaces(extension);
    if !extension.is_empty() {
        append(b".", false);
        append(extension, flags & LOWER_EXTENSION != 0);
    }
    // 0xe5 is the mark of a deleted entry, so a name that begins with it begins with 5 (FAT, "DIR_Name[0]").
    if let Some(first) = text.first_mut().filter(|first| **first == 5) {
        *first = 0xe5;
    }
    text
}

/// What comes before a NUL, without the spaces at its end.
pub fn without_spaces(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    let end = bytes.iter().rposition(|&byte| byte != b' ').map_or(0, |last| last.saturating_add(1));
    bytes.get(..end).unwrap_or_default()
}

/// A long name, while its entries are read, the last piece first.
pub struct Long {
    units: [u16; IN_AN_ENTRY * MOST_ENTRIES as usize],
    /// How many entries it has; zero if none is being read.
    entries: u8,
    /// How many of them are still to come.
    left: u8,
    /// The sum of the short name that it belongs to.
    sum: u8,
}

impl Long {
    /// No entry has been read.
    pub const fn new() -> Self {
        Self { units: [0; IN_AN_ENTRY * MOST_ENTRIES as usize], entries: 0, left: 0, sum: 0 }
    }

    /// The entry that was read is none of a long name.
    pub const fn forget(&mut self) {
        self.entries = 0;
    }

    /// An entry of a long name. One that does not follow the last one ends the name.
    pub fn add(&mut self, entry: &[u8; 32]) {
        let &[
            number,
            ref first @ ..,
            _,
            _,
            sum,
            m0,
            m1,
            m2,
            m3,
            m4,
            m5,
            m6,
            m7,
            m8,
            m9,
            m10,
            m11,
            _,
            _,
            l0,
            l1,
            l2,
            l3,
        ] = entry;
        if number & LAST != 0 {
            let entries = number & !LAST;
            (self.entries, self.left, self.sum) = (if entries <= MOST_ENTRIES { entries } else { 0 }, entries, sum);
        }
        if self.entries == 0 || self.left == 0 || number & !LAST != self.left || sum != self.sum {
            return self.forget();
        }
        self.left = self.left.saturating_sub(1);
        let middle = [m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11];
        let last = [l0, l1, l2, l3];
        let pairs = first.chunks_exact(2).chain(middle.chunks_exact(2)).chain(last.chunks_exact(2));
        let start = usize::from(self.left).saturating_mul(IN_AN_ENTRY);
        let units = self.units.get_mut(start..).unwrap_or_default();
        for (unit, pair) in units.iter_mut().zip(pairs) {
            *unit = pair.first_chunk().map_or(0, |pair| u16::from_le_bytes(*pair));
        }
    }

    /// The name, if it is whole and that of the short name that follows.
    pub fn finish(&mut self, short: &[u8; 11]) -> Option<Name> {
        let entries = core::mem::take(&mut self.entries);
        if entries == 0 || self.left != 0 || self.sum != sum(short) {
            return None;
        }
        let units = self.units.get(..usize::from(entries).saturating_mul(IN_AN_ENTRY))?;
        let name = units.split(|&unit| unit == 0).next()?;
        if name.is_empty() { None } else { Name::new(name) }
    }
}

/// The sum of a short name, in the entries of the long one (FAT, "Long File Name Implementation", `ChkSum`).
fn sum(short: &[u8; 11]) -> u8 {
    short.iter().fold(0_u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte))
}
