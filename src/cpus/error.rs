//! Why the other CPUs could not be set up.

use core::fmt;

use crate::hal::MemoryError;

/// Why it failed. Each variant prints as one sentence: what was asked, what was seen, what to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The boot CPU has no local APIC, or it is switched off, so no CPU can be started.
    NoLocalApic,
    /// Not all CPUs finished in time.
    Missing {
        /// How many finished.
        done: u32,
        /// How many there are, without the boot CPU.
        others: u32,
    },
    /// There are more CPUs than 8-bit APIC identifiers.
    TooMany {
        /// How many there are, without the boot CPU.
        others: u32,
    },
    /// The firmware must not access memory that it needs to start the CPUs.
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
                "{} of {others} CPUs other than the first did not answer in time; the host may be too busy for so many",
                others.saturating_sub(*done)
            ),
            Self::TooMany { others } => write!(
                f,
                "there are {others} CPUs other than the first, and 254 can be listed without ACPI tables; use fewer, or \
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
