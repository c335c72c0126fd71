//! Errors of a wake.

use crate::acpi::NoTable;
use crate::addr::PhysRange;
use crate::layout::RESUME_RECORD;

/// Why the wake failed. The guest's memory is then lost, and the machine is reset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The record has a wrong checksum or invalid contents.
    #[error(
        "the firmware's record at {} was overwritten; the guest must not use reserved memory",
        RESUME_RECORD.start()
    )]
    Record,
    /// The record is from an image that reserved other memory for the wake.
    #[error("it was booted by another version of the firmware, which kept memory {0}")]
    OtherMemory(PhysRange),
    /// The heap has no room for the record.
    #[error("the firmware's heap is full")]
    HeapFull,
    /// There is no valid table at the expected address.
    #[error("{0}; the guest must not overwrite ACPI tables")]
    Table(#[from] NoTable),
    /// There is no FADT.
    #[error("no ACPI table is the FADT")]
    NoFadt,
    /// The operating system left no waking vector.
    #[error("it left no address to wake up at in the FACS")]
    NoVector,
    /// The waking vector is not in RAM below 1 MiB.
    #[error("{0:#x}, where it wants to wake up according to the FACS, is not in RAM below 1 MiB")]
    Vector(u32),
}
