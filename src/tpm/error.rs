//! Why a boot is not measured.

use core::fmt;

use super::code::{Code, Refusal};
use crate::hal::MemoryError;

/// The event that was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Wait {
    /// Locality 0 is granted.
    Locality,
    /// The TPM is ready for a command.
    Readiness,
    /// The TPM accepts bytes of a command.
    Room,
    /// The TPM has the whole command.
    EndOfCommand,
    /// The TPM has a response.
    Response,
    /// The TPM provides bytes of the response.
    RestOfResponse,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Locality => "locality 0",
            Self::Readiness => "readiness for a command",
            Self::Room => "room for a command",
            Self::EndOfCommand => "the acceptance of a command",
            Self::Response => "the response to a command",
            Self::RestOfResponse => "the rest of a response",
        })
    }
}

/// What is wrong with the TPM, or with what has to be measured.
///
/// The value in a variant has at most 32 bits, so that the error fits in registers: nearly every function here returns
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No device responds at the TPM's registers.
    #[error("the host has a log for a TPM, but no TPM")]
    NoDevice,
    /// This event did not happen before the deadline.
    #[error("the TPM does not answer: {0} is missing; is the host's swtpm running?")]
    Timeout(Wait),
    /// The TPM reports that it has failed.
    #[error("the TPM has failed")]
    Failed,
    /// The registers of the command response buffer interface have invalid values.
    #[error("the TPM's registers do not describe a usable buffer for commands")]
    Buffer,
    /// The TPM is a TPM 1.2.
    #[error("the TPM is one of version 1.2, which is left alone; give the machine a TPM 2.0 (swtpm --tpm2)")]
    OldFamily,
    /// The TPM refused a command.
    #[error("the TPM refused {0}")]
    Refused(Refusal),
    /// The response to this command is invalid.
    #[error("the TPM's response to {0} is broken")]
    Response(Code),
    /// A command or its response is longer than any known one.
    #[error("a command to the TPM or its response is longer than any that the firmware knows")]
    TooLong,
    /// No active PCR bank has an algorithm that the firmware computes.
    #[error("the TPM has no active PCR bank of SHA-1, SHA-256, SHA-384 or SHA-512")]
    NoBank,
    /// The firmware's heap has no room for a command line of this many bytes.
    #[error("the command line's {0} bytes do not fit the firmware's heap")]
    HeapFull(u32),
    /// The kernel's setup code could not be read. The reason was logged.
    #[error("the kernel's setup code cannot be read a second time")]
    Setup,
    /// An EFI program cannot be measured, as a warning has said.
    #[error("the EFI program cannot be measured; the line before says why")]
    Program,
    /// The tables that describe the TPM could not be set up. The reason was logged.
    #[error("the host's ACPI tables, which describe the TPM, could not be set up")]
    NoTables,
    /// The firmware may not access the registers, the log, or what has to be measured.
    #[error("the TPM's registers, its log or a loaded file is where the firmware may not read or write")]
    Memory,
}

impl Error {
    /// Whether the TPM can still execute commands after this error.
    pub(super) const fn still_answers(self) -> bool {
        !matches!(self, Self::NoDevice | Self::Timeout(_) | Self::Failed | Self::Buffer | Self::OldFamily)
    }
}

impl From<MemoryError> for Error {
    fn from(_: MemoryError) -> Self {
        Self::Memory
    }
}
