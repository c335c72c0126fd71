//! Errors of a wake.

use core::fmt;

use crate::acpi::NoTable;
use crate::addr::{PhysAddr, PhysRange};
use crate::layout::RESUME_RECORD;

/// Why the wake failed. The guest's memory is then lost, and the machine is reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The record has a wrong checksum or invalid contents.
    Record,
    /// The record is from an image that reserved other memory for the wake.
    OtherMemory(PhysRange),
    /// The heap has no room for the record.
    HeapFull,
    /// There is no valid table with this signature at the expected address.
    Table {
        /// The table's signature.
        signature: &'static str,
        /// The expected address.
        at: PhysAddr,
    },
    /// There is no FADT.
    NoFadt,
    /// The operating system left no waking vector.
    NoVector,
    /// The waking vector is not in RAM below 1 MiB.
    Vector(u32),
}

impl From<NoTable> for Error {
    fn from(NoTable { signature, at }: NoTable) -> Self {
        Self::Table { signature, at }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the guest cannot wake up from suspend and boots again: ")?;
        match self {
            Self::Record => write!(
                f,
                "the firmware's record at {} was overwritten; the guest must not use reserved memory",
                RESUME_RECORD.start()
            ),
            Self::OtherMemory(range) => {
                write!(f, "it was booted by another version of the firmware, which kept memory {range}")
            }
            Self::HeapFull => f.write_str("the firmware's heap is full"),
            Self::Table { signature, at } => {
                write!(f, "no valid {signature} at {at}; the guest must not overwrite ACPI tables")
            }
            Self::NoFadt => f.write_str("no ACPI table is the FADT"),
            Self::NoVector => f.write_str("it left no address to wake up at in the FACS"),
            Self::Vector(vector) => {
                write!(f, "{vector:#x}, where it wants to wake up according to the FACS, is not in RAM below 1 MiB")
            }
        }
    }
}

impl core::error::Error for Error {}
