//! A look at the structures: a header, a formatted area, then strings, one structure after the other (DSP0134 3.6, 6.1).

use super::Error;
use super::firmware_information::FIRMWARE_INFORMATION;

/// The length of a structure's header: type, length of the formatted area with the header, handle (6.1.2).
const HEADER_LEN: u8 = 4;
/// The type of the structure that describes the firmware (7.1).
pub(super) const TYPE_FIRMWARE_INFORMATION: u8 = 0;
/// The type of the structure that ends the tables (7.45).
const TYPE_END: u8 = 127;

/// What an anchor says about the structures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many there are.
    pub structures: usize,
    /// The length of the longest one in bytes, with its strings.
    pub max_structure: usize,
    /// The length of all of them in bytes, to the end of the last.
    pub len: usize,
    /// Whether one of them describes the firmware.
    pub has_firmware_information: bool,
}

impl Summary {
    /// The summary with [`FIRMWARE_INFORMATION`] put first.
    #[must_use]
    pub fn with_firmware_information(self) -> Self {
        let len = FIRMWARE_INFORMATION.len();
        Self {
            structures: self.structures.saturating_add(1),
            max_structure: self.max_structure.max(len),
            len: self.len.saturating_add(len),
            has_firmware_information: true,
        }
    }
}

/// Where in a structure the next byte is.
#[derive(Clone, Copy, Debug)]
enum State {
    /// Its type, which is its first byte.
    Type,
    /// The length of its formatted area.
    Length,
    /// This many bytes, not zero, before the end of the formatted area.
    Formatted(u8),
    /// In the strings. Two zero bytes end them, with or without a string before. Whether the last byte was zero.
    Strings(bool),
    /// After the structure that ends the tables.
    End,
}

/// A walk along the structures. The bytes come in chunks of any size, because there is no place where the firmware sees
/// all of them at once.
#[derive(Clone, Debug)]
pub struct Walk {
    state: State,
    kind: u8,
    /// How many bytes have been looked at.
    at: usize,
    /// The structures that are complete.
    summary: Summary,
}

impl Default for Walk {
    fn default() -> Self {
        Self::new()
    }
}

impl Walk {
    /// A walk that starts at the first structure.
    #[must_use]
    pub const fn new() -> Self {
        let summary = Summary { structures: 0, max_structure: 0, len: 0, has_firmware_information: false };
        Self { state: State::Type, kind: 0, at: 0, summary }
    }

    /// Walks on over the next bytes. What follows the end of the tables is ignored.
    ///
    /// # Errors
    /// [`Error::Header`].
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for &byte in bytes {
            self.state = match self.state {
                State::Type => {
                    self.kind = byte;
                    State::Length
                }
                State::Length => match byte.checked_sub(2) {
                    Some(left) if byte >= HEADER_LEN => State::Formatted(left),
                    _ => return Err(Error::Header(self.summary.len)),
                },
                State::Formatted(left) if left > 1 => State::Formatted(left.wrapping_sub(1)),
                State::Formatted(_) => State::Strings(false),
                State::Strings(true) if byte == 0 => self.complete(),
                State::Strings(_) => State::Strings(byte == 0),
                State::End => return Ok(()),
            };
            self.at = self.at.saturating_add(1);
        }
        Ok(())
    }

    /// Counts the structure whose last byte is being looked at.
    fn complete(&mut self) -> State {
        let end = self.at.saturating_add(1);
        let summary = &mut self.summary;
        summary.structures = summary.structures.saturating_add(1);
        summary.max_structure = summary.max_structure.max(end.saturating_sub(summary.len));
        summary.len = end;
        summary.has_firmware_information |= self.kind == TYPE_FIRMWARE_INFORMATION;
        if self.kind == TYPE_END { State::End } else { State::Type }
    }

    /// What there was. The structure that ends the tables may be missing, as it may before SMBIOS 2.2.
    ///
    /// # Errors
    /// [`Error::Truncated`] when the last structure is not complete.
    pub fn finish(self) -> Result<Summary, Error> {
        match self.state {
            State::Type | State::End => Ok(self.summary),
            _ => Err(Error::Truncated(self.at)),
        }
    }
}
