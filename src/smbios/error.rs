//! Why there is no SMBIOS.

/// What to change if a 2.x entry point cannot describe the structures.
pub const USE_SMBIOS_3: &str = "make the host provide SMBIOS 3 (QEMU: -machine smbios-entry-point-type=64)";

/// Why there is no SMBIOS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The host's entry point is unknown or truncated.
    #[error("the host's SMBIOS entry point is neither 2.x nor 3.x")]
    EntryPoint,
    /// A structure's length is less than that of its own header. The offset of the header in bytes.
    #[error("the host's SMBIOS structure at offset {0} is shorter than its header")]
    Header(usize),
    /// The structures end in the middle of one. Their length in bytes.
    #[error("the host's SMBIOS structures break off after {0} bytes")]
    Truncated(usize),
    /// There are more structures, or more bytes of them, than the entry point can count. The number of bytes.
    #[error("{0} bytes of SMBIOS structures are too many; {USE_SMBIOS_3}")]
    TooLarge(usize),
    /// The structures are at or above 4 GiB, where a 2.x entry point cannot point.
    #[error("SMBIOS structures above 4 GiB; {USE_SMBIOS_3}")]
    TooHigh,
}
