//! SMBIOS: completes the tables that the host describes the machine with.
//!
//! The host has two files: the structures, and an anchor that says where they are and how many. The firmware puts the
//! structures somewhere below 4 GiB and the anchor into the F-segment (0xf0000-0xfffff), on a 16-byte boundary, where
//! an operating system scans for it; and it adds what only it can know, a type 0 structure about itself, unless the
//! host has one. The bytes go this way:
//!
//! 1. [`Anchor::parse`] understands the host's anchor.
//! 2. The caller allocates room for the firmware's own structure and the host's in one piece, and has the host load its
//!    structures to their final place, after the firmware's own.
//! 3. [`Walk`] goes along them.
//! 4. [`Summary::has_firmware_information`] says whether the tables start at the host's structures, or at the
//!    firmware's, which is then written (`firmware_information`) and counted
//!    ([`Summary::with_firmware_information`]).
//! 5. [`Anchor::finish`] gives the anchor for that address.
//!
//! All of this is over bytes; the module touches no machine. It follows the SMBIOS reference specification, DMTF
//! DSP0134 3.6. Left out: the contents of the host's structures, which pass unchanged.

mod anchor;
mod firmware_information;
#[cfg(test)]
mod tests;
mod walk;

use core::fmt;

pub use anchor::{Anchor, MAX_ANCHOR};
pub use firmware_information::{FIRMWARE_INFORMATION_LEN, SHORT_RELEASE_DATE, firmware_information};
pub use walk::{Summary, Walk};

/// What to change where an anchor of SMBIOS 2.x cannot count what there is.
pub const USE_SMBIOS_3: &str = "have the host give SMBIOS 3 (QEMU: -machine smbios-entry-point-type=64)";

/// Why there is no SMBIOS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The host's anchor is none that is known, or is cut short.
    Anchor,
    /// A structure says it is shorter than its own header. The offset of the header in bytes.
    Header(usize),
    /// The structures end in the middle of one. Their length in bytes.
    Truncated(usize),
    /// There are more structures, or more bytes of them, than the anchor can count. The bytes.
    TooLarge(usize),
    /// The structures are at or above 4 GiB, where a 2.x anchor cannot point.
    TooHigh,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anchor => f.write_str("the host's SMBIOS anchor is neither a 2.x nor a 3.x one"),
            Self::Header(at) => write!(f, "the host's SMBIOS structure at offset {at} is shorter than its header"),
            Self::Truncated(len) => write!(f, "the host's SMBIOS structures break off after {len} bytes"),
            Self::TooLarge(len) => {
                write!(f, "{len} bytes of SMBIOS structures are too many; {USE_SMBIOS_3}")
            }
            Self::TooHigh => write!(f, "SMBIOS structures above 4 GiB; {USE_SMBIOS_3}"),
        }
    }
}

impl core::error::Error for Error {}
