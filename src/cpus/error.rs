//! Why the other CPUs could not be set up.

use core::fmt;

use crate::hal::MemoryError;

/// What stood in the way. Each prints as one sentence: what was asked, what was seen, what to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The boot CPU has no local APIC, or it is switched off, so no CPU can be started.
    NoLocalApic,
    /// Not all CPUs did their work in time.
    Missing {
        /// How many did.
        done: u32,
        /// How many there are, without the boot CPU.
        others: u32,
    },
    /// There are more CPUs than identifiers of 8 bits.
    TooMany {
        /// How many there are, without the boot CPU.
        others: u32,
    },
    /// The firmware may not touch memory that it needs for this.
    Memory(MemoryError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLocalApic => f.write_str(
                "the first CPU has no local APIC to start the others with; give the machine one CPU, or CPUs with one (QEMU: -cpu ...,apic=on)",
            ),
            Self::Missing { done, others } => write!(
                f,
                "{} of {others} CPUs beside the first did not answer in time; the host may be too busy for so many",
                others.saturating_sub(*done)
            ),
            Self::TooMany { others } => write!(
                f,
                "there are {others} CPUs beside the first, and 254 can be numbered without ACPI tables; give fewer, or \
                 have the host make these (QEMU: -machine acpi=on)"
            ),
            Self::Memory(error) => write!(f, "the other CPUs cannot be started: {error}"),
        }
    }
}

impl core::error::Error for Error {}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}
