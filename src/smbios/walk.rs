//! Parses the structures: each has a header, a formatted area and strings (DSP0134 3.6, 6.1).

use super::error::Error;
use super::firmware_information::{FIRMWARE_INFORMATION_LEN, TYPE_FIRMWARE_INFORMATION};

/// The length of a structure's header: type, length of the formatted area with the header, handle (6.1.2).
const HEADER_LEN: usize = 4;
/// The type of the structure that ends the tables (7.45).
const TYPE_END: u8 = 127;
/// The highest handle that a structure may have (6.1.2).
const LAST_HANDLE: u16 = 0xfeff;

/// A summary of the structures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of structures.
    pub structures: usize,
    /// The length of the longest one in bytes, with its strings.
    pub max_structure: usize,
    /// The length of all of them in bytes, to the end of the last.
    pub len: usize,
    /// Whether one of them describes the firmware.
    pub has_firmware_information: bool,
    /// Whether one of them has the handle 0.
    pub has_handle_zero: bool,
    /// The highest handle.
    pub last_handle: u16,
}

impl Summary {
    /// The summary with the firmware's own structure added as the first.
    #[must_use]
    pub fn with_firmware_information(self) -> Self {
        Self {
            structures: self.structures.saturating_add(1),
            max_structure: self.max_structure.max(FIRMWARE_INFORMATION_LEN),
            len: self.len.saturating_add(FIRMWARE_INFORMATION_LEN),
            has_firmware_information: true,
            ..self
        }
    }

    /// A handle that no structure has: 0, which QEMU leaves free, else the one after the highest. If the highest is the
    /// last possible one, that one is used twice.
    #[must_use]
    pub fn free_handle(&self) -> u16 {
        if self.has_handle_zero { self.last_handle.saturating_add(1).min(LAST_HANDLE) } else { 0 }
    }
}

/// A parser of structures whose bytes come in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk {
    summary: Summary,
    /// How many bytes of the current structure were read.
    at: usize,
    /// Its header, as far as it was read.
    header: [u8; HEADER_LEN],
    /// The length of its formatted area, in bytes.
    formatted: usize,
    /// Whether the last byte of its strings was zero.
    zero_before: bool,
    /// Whether the structure that ends the tables was read.
    ended: bool,
    /// The offset of a structure that is shorter than its header.
    broken: Option<usize>,
}

impl Walk {
    /// Parses the next bytes. Bytes after the structure that ends the tables are ignored.
    #[inline]
    pub fn add(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while !(rest.is_empty() || self.ended || self.broken.is_some()) {
            // Usually there is one piece, which has every structure whole.
            let whole = if self.at == 0 { self.whole(rest) } else { None };
            let taken = whole.unwrap_or_else(|| self.part(rest));
            rest = rest.get(taken..).unwrap_or_default();
        }
    }

    /// Parses the structure at the start of the bytes, if they contain all of it. Returns its length.
    #[inline]
    fn whole(&mut self, bytes: &[u8]) -> Option<usize> {
        let header = bytes.first_chunk::<HEADER_LEN>()?;
        let [_, formatted, ..] = header.map(usize::from);
        let strings = bytes.get(formatted..).filter(|_| formatted >= HEADER_LEN)?;
        let (len, true) = strings_len(strings, &mut false) else { return None };
        (self.header, self.at) = (*header, formatted);
        self.end_structure(len);
        Some(formatted.saturating_add(len))
    }

    /// Parses the rest of the current structure's header, formatted area or strings, as far as the bytes contain it.
    /// Returns the number of bytes used.
    ///
    /// Not inlined: nearly all structures are skipped whole, and the loop that does that is shorter without this.
    #[cold]
    #[inline(never)]
    fn part(&mut self, bytes: &[u8]) -> usize {
        let taken = match self.at {
            at if at < HEADER_LEN => self.header(bytes),
            at if at < self.formatted => bytes.len().min(self.formatted.saturating_sub(at)),
            _ => {
                let (len, ends) = strings_len(bytes, &mut self.zero_before);
                if ends {
                    self.end_structure(len);
                    return len;
                }
                len
            }
        };
        self.at = self.at.saturating_add(taken);
        taken
    }

    /// Parses a header, as far as the bytes contain it. Returns the number of bytes used.
    fn header(&mut self, bytes: &[u8]) -> usize {
        let mut taken: usize = 0;
        for (place, &byte) in self.header.iter_mut().skip(self.at).zip(bytes) {
            *place = byte;
            taken = taken.saturating_add(1);
        }
        let [_, formatted, ..] = self.header;
        self.formatted = formatted.into();
        if self.at.saturating_add(taken) > 1 && self.formatted < HEADER_LEN {
            self.broken = Some(self.summary.len);
        }
        taken
    }

    /// Counts the current structure, with its last `taken` bytes, and starts the next.
    #[inline]
    fn end_structure(&mut self, taken: usize) {
        let len = self.at.saturating_add(taken);
        let [kind, _, handle @ ..] = self.header;
        let handle = u16::from_le_bytes(handle);
        let summary = &mut self.summary;
        summary.structures = summary.structures.saturating_add(1);
        summary.max_structure = summary.max_structure.max(len);
        summary.len = summary.len.saturating_add(len);
        summary.has_firmware_information |= kind == TYPE_FIRMWARE_INFORMATION;
        summary.has_handle_zero |= handle == 0;
        summary.last_handle = summary.last_handle.max(handle);
        self.ended = kind == TYPE_END;
        (self.at, self.zero_before) = (0, false);
    }

    /// The summary. The structure that ends the tables may be missing, as is allowed before SMBIOS 2.2.
    ///
    /// # Errors
    /// [`Error::Header`]; [`Error::Truncated`] if the last structure is not complete.
    pub fn finish(self) -> Result<Summary, Error> {
        match self.broken {
            Some(at) => Err(Error::Header(at)),
            None if self.at != 0 => Err(Error::Truncated(self.summary.len.saturating_add(self.at))),
            None => Ok(self.summary),
        }
    }
}

/// How many of the bytes are strings of one structure, and whether it ends there: with two zero bytes, with or without
/// a string before them. `zero_before` says whether the byte before was zero. It is set to whether the last byte was
/// zero.
///
/// Tables can have tens of kilobytes, mostly strings, so this processes eight bytes at a time.
#[inline]
pub(super) fn strings_len(bytes: &[u8], zero_before: &mut bool) -> (usize, bool) {
    /// All bits of each byte except the highest.
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    const HIGH: u64 = 0x80;

    let (words, rest) = bytes.as_chunks::<8>();
    // The highest bit of a byte stands for a zero byte. This one is for the byte before.
    let mut before = if *zero_before { HIGH } else { 0 };
    for (word, number) in words.iter().zip(0_usize..) {
        let word = u64::from_le_bytes(*word);
        // A byte other than zero has its highest bit set, or the addition sets it.
        let zeros = !((word & LOW).wrapping_add(LOW) | word | LOW);
        let second = zeros & (zeros << 8 | before);
        if second != 0 {
            let last = second.trailing_zeros() / u8::BITS;
            return (number.saturating_mul(8).saturating_add(last as usize).saturating_add(1), true);
        }
        before = zeros >> 56;
    }
    let mut zero = before != 0;
    for (&byte, number) in rest.iter().zip(1_usize..) {
        if zero && byte == 0 {
            return (words.as_flattened().len().saturating_add(number), true);
        }
        zero = byte == 0;
    }
    *zero_before = zero;
    (bytes.len(), false)
}
