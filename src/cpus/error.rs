//! Why the other CPUs could not be set up.

use crate::hal::MemoryError;

/// Why it failed. Each variant prints as one sentence: what was asked, what was seen, what to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The boot CPU has no local APIC, or it is switched off, so no CPU can be started.
    #[error(
        "the first CPU has no local APIC to start the others with; give the machine one CPU, or CPUs with one (QEMU: \
         -cpu ...,apic=on)"
    )]
    NoLocalApic,
    /// Not all CPUs finished in time.
    #[error(
        "{} of {others} CPUs other than the first did not answer in time; the host may be too busy for so many",
        others.saturating_sub(*done)
    )]
    Missing {
        /// How many finished.
        done: u32,
        /// How many there are, without the boot CPU.
        others: u32,
    },
    /// There are more CPUs than 8-bit APIC identifiers.
    #[error(
        "there are {others} CPUs other than the first, and 254 can be listed without ACPI tables; use fewer, or have \
         the host make these (QEMU: -machine acpi=on)"
    )]
    TooMany {
        /// How many there are, without the boot CPU.
        others: u32,
    },
    /// The firmware must not access memory that it needs to start the CPUs.
    #[error("the other CPUs cannot be started: {0}")]
    Memory(#[from] MemoryError),
}
