//! Why there are no ACPI tables.

use super::Zone;

/// Why [`super::load`] returned no RSDP. `E` is the error of the [`super::Host`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error<E> {
    /// The script is invalid.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// There is no memory for a file.
    #[error("no room for an ACPI file of {len} bytes {zone}; add memory")]
    NoRoom {
        /// The length of the file in bytes.
        len: u32,
        /// The zone of memory for the file.
        zone: Zone,
    },
    /// The host did not deliver a file, or guest memory could not be accessed.
    #[error("an ACPI file could not be loaded: {0}")]
    Host(E),
    /// The script ran, but none of its files is an RSDP with valid checksums.
    #[error("the host's ACPI files have no valid RSDP among them")]
    NoRsdp,
}

/// What is wrong with a script.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScriptError {
    /// Its length is not that of whole commands, or more than [`super::Plan::MAX_SCRIPT`]. The length in bytes.
    #[error("the host's etc/table-loader has an impossible length, {0} bytes")]
    Length(usize),
    /// A command that cannot be executed.
    #[error("the host's etc/table-loader, command {number}: {cause}")]
    Command {
        /// The number of the command, from 0 on. Each has 128 bytes.
        number: u16,
        /// What is wrong with it.
        cause: Cause,
    },
    /// Its checksums cover many times the bytes that it loads. The firmware would sum for hours.
    #[error(
        "the host's etc/table-loader has checksums of {summed} bytes, but loads only {loaded}; sum each table once"
    )]
    Sums {
        /// The length of all files in bytes.
        loaded: u64,
        /// The bytes that the checksums cover together.
        summed: u64,
    },
    /// The firmware's heap has no room for the script's commands.
    #[error("the host's etc/table-loader has more commands than fit the firmware's heap")]
    HeapFull,
}

/// What is wrong with a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Cause {
    /// A file name is empty or has no NUL.
    #[error("bad file name")]
    Name,
    /// The host does not have the file.
    #[error("no such file")]
    Absent,
    /// An earlier command has already allocated the file.
    #[error("file is allocated twice")]
    AllocatedTwice,
    /// No earlier command has allocated the file.
    #[error("file is not allocated")]
    NotAllocated,
    /// The requested alignment is not a power of two.
    #[error("alignment {0} is not a power of two")]
    Alignment(u32),
    /// The requested zone is unknown.
    #[error("unknown zone {0}")]
    Zone(u8),
    /// The size of the pointer in bytes is not 1, 2, 4 or 8.
    #[error("pointer size {0} is not 1, 2, 4 or 8")]
    PointerSize(u8),
    /// An offset or a range is past the end of a file.
    #[error("reaches past the end of a file")]
    PastEnd,
    /// The pointer to relocate contains this offset, which is past the end of the file that it points into.
    #[error("pointer to {0:#x}, past the end of the file")]
    PointerPastEnd(u64),
    /// The relocated pointer does not fit into its size.
    #[error("address {0:#x} does not fit the pointer")]
    PointerTooLarge(u64),
}
