//! Why there are no ACPI tables.

use core::fmt;

use super::Zone;

/// Why [`super::load`] returned no RSDP. `E` is the error of the [`super::Host`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error<E> {
    /// The script is invalid.
    Script(ScriptError),
    /// There is no memory for a file.
    NoRoom {
        /// The length of the file in bytes.
        len: u32,
        /// The zone of memory for the file.
        zone: Zone,
    },
    /// The host did not deliver a file, or guest memory could not be accessed.
    Host(E),
    /// The script ran, but none of its files is an RSDP with valid checksums.
    NoRsdp,
}

impl<E> From<ScriptError> for Error<E> {
    fn from(error: ScriptError) -> Self {
        Self::Script(error)
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Script(error) => error.fmt(f),
            Self::NoRoom { len, zone } => write!(f, "no room for an ACPI file of {len} bytes {zone}; add memory"),
            Self::Host(error) => write!(f, "an ACPI file could not be loaded: {error}"),
            Self::NoRsdp => f.write_str("the host's ACPI files have no valid RSDP among them"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for Error<E> {}

/// What is wrong with a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScriptError {
    /// Its length is not that of whole commands, or more than [`super::Plan::MAX_SCRIPT`]. The length in bytes.
    Length(usize),
    /// A command that cannot be executed.
    Command {
        /// The number of the command, from 0 on. Each has 128 bytes.
        number: u16,
        /// What is wrong with it.
        cause: Cause,
    },
    /// Its checksums cover many times the bytes that it loads. The firmware would sum for hours.
    Sums {
        /// The length of all files in bytes.
        loaded: u64,
        /// The bytes that the checksums cover together.
        summed: u64,
    },
    /// The firmware's heap has no room for the script's commands.
    HeapFull,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(len) => write!(f, "the host's etc/table-loader has an impossible length, {len} bytes"),
            Self::Command { number, cause } => write!(f, "the host's etc/table-loader, command {number}: {cause}"),
            Self::Sums { loaded, summed } => write!(
                f,
                "the host's etc/table-loader has checksums of {summed} bytes, but loads only {loaded}; sum each table once"
            ),
            Self::HeapFull => f.write_str("the host's etc/table-loader has more commands than fit the firmware's heap"),
        }
    }
}

impl core::error::Error for ScriptError {}

/// What is wrong with a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// A file name is empty or has no NUL.
    Name,
    /// The host does not have the file.
    Absent,
    /// An earlier command has already allocated the file.
    AllocatedTwice,
    /// No earlier command has allocated the file.
    NotAllocated,
    /// The requested alignment is not a power of two.
    Alignment(u32),
    /// The requested zone is unknown.
    Zone(u8),
    /// The size of the pointer in bytes is not 1, 2, 4 or 8.
    PointerSize(u8),
    /// An offset or a range is past the end of a file.
    PastEnd,
    /// The pointer to relocate contains this offset, which is past the end of the file that it points into.
    PointerPastEnd(u64),
    /// The relocated pointer does not fit into its size.
    PointerTooLarge(u64),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("bad file name"),
            Self::Absent => f.write_str("no such file"),
            Self::AllocatedTwice => f.write_str("file is allocated twice"),
            Self::NotAllocated => f.write_str("file is not allocated"),
            Self::Alignment(alignment) => write!(f, "alignment {alignment} is not a power of two"),
            Self::Zone(zone) => write!(f, "unknown zone {zone}"),
            Self::PointerSize(size) => write!(f, "pointer size {size} is not 1, 2, 4 or 8"),
            Self::PastEnd => f.write_str("reaches past the end of a file"),
            Self::PointerPastEnd(offset) => write!(f, "pointer to {offset:#x}, past the end of the file"),
            Self::PointerTooLarge(address) => write!(f, "address {address:#x} does not fit the pointer"),
        }
    }
}
