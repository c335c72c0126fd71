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
    /// The firmware may not touch memory that it needs for this.
    Memory(MemoryError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLocalApic => f.write_str(
                "VMX, SGX or LMCE stays off on all CPUs but the first: it has no local APIC to start them with; give \
                 QEMU one CPU or a -cpu with apic",
            ),
            Self::Missing { done, others } => write!(
                f,
                "VMX, SGX or LMCE may stay off on {} of {others} CPUs beside the first: they did not answer in time; \
                 the host may be too busy for so many",
                others.saturating_sub(*done)
            ),
            Self::Memory(error) => write!(f, "the other CPUs cannot be set up: {error}"),
        }
    }
}

impl core::error::Error for Error {}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}
