//! Why there is no SMBIOS.

use core::fmt;

/// What to change if a 2.x entry point cannot describe the structures.
pub const USE_SMBIOS_3: &str = "make the host provide SMBIOS 3 (QEMU: -machine smbios-entry-point-type=64)";

/// Why there is no SMBIOS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// The host's entry point is unknown or truncated.
    EntryPoint,
    /// A structure's length is less than that of its own header. The offset of the header in bytes.
    Header(usize),
    /// The structures end in the middle of one. Their length in bytes.
    Truncated(usize),
    /// There are more structures, or more bytes of them, than the entry point can count. The number of bytes.
    TooLarge(usize),
    /// The structures are at or above 4 GiB, where a 2.x entry point cannot point.
    TooHigh,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EntryPoint => f.write_str("the host's SMBIOS entry point is neither 2.x nor 3.x"),
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
