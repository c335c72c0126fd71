//! Why there is no SMBIOS.

use core::fmt;

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
