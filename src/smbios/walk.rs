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
    /// Walks along the structures in `bytes`. The one that ends the tables may be missing, as it may before SMBIOS 2.2;
    /// what follows it is ignored.
    ///
    /// # Errors
    /// [`Error::Header`]; [`Error::Truncated`] when the last structure is not complete.
    pub fn of(bytes: &[u8]) -> Result<Self, Error> {
        let truncated = Error::Truncated(bytes.len());
        let mut summary = Self::default();
        let mut rest = bytes;
        while let Some(&kind) = rest.first() {
            let &formatted = rest.get(1).ok_or(truncated)?;
            if formatted < HEADER_LEN {
                return Err(Error::Header(summary.len));
            }
            let strings = rest.get(formatted.into()..).ok_or(truncated)?;
            let (_, next) = split_strings(strings).ok_or(truncated)?;
            summary.structures = summary.structures.saturating_add(1);
            summary.max_structure = summary.max_structure.max(rest.len().saturating_sub(next.len()));
            summary.len = bytes.len().saturating_sub(next.len());
            summary.has_firmware_information |= kind == TYPE_FIRMWARE_INFORMATION;
            if kind == TYPE_END {
                break;
            }
            rest = next;
        }
        Ok(summary)
    }

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

/// Splits behind the two zero bytes that end a structure's strings, with or without a string before them.
fn split_strings(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut zero_before = false;
    let end = bytes.iter().position(|&byte| {
        let ends = zero_before && byte == 0;
        zero_before = byte == 0;
        ends
    })?;
    bytes.split_at_checked(end.checked_add(1)?)
}
