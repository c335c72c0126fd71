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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// No device responds at the TPM's registers.
    NoDevice,
    /// This event did not happen before the deadline.
    Timeout(Wait),
    /// The TPM reports that it has failed.
    Failed,
    /// The registers of the command response buffer interface have invalid values.
    Buffer,
    /// The TPM is a TPM 1.2.
    OldFamily,
    /// The TPM refused a command.
    Refused(Refusal),
    /// The response to this command is invalid.
    Response(Code),
    /// A command or its response is longer than any known one.
    TooLong,
    /// No active PCR bank has an algorithm that the firmware computes.
    NoBank,
    /// The firmware's heap has no room for a command line of this many bytes.
    HeapFull(u32),
    /// The kernel's setup code could not be read. The reason was logged.
    Setup,
    /// The tables that describe the TPM could not be set up. The reason was logged.
    NoTables,
    /// The firmware may not access the registers, the log, or what has to be measured.
    Memory,
}

impl Error {
    /// Whether the TPM can still execute commands after this error.
    pub(super) const fn still_answers(self) -> bool {
        !matches!(self, Self::NoDevice | Self::Timeout(_) | Self::Failed | Self::Buffer | Self::OldFamily)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoDevice => f.write_str("the host has a log for a TPM, but no TPM"),
            Self::Timeout(wait) => {
                write!(f, "the TPM does not answer: {wait} is missing; is the host's swtpm running?")
            }
            Self::Failed => f.write_str("the TPM has failed"),
            Self::Buffer => f.write_str("the TPM's registers do not describe a usable buffer for commands"),
            Self::OldFamily => f.write_str(
                "the TPM is one of version 1.2, which is left alone; give the machine a TPM 2.0 (swtpm --tpm2)",
            ),
            Self::Refused(refusal) => write!(f, "the TPM refused {refusal}"),
            Self::Response(command) => write!(f, "the TPM's response to {command} is broken"),
            Self::TooLong => {
                f.write_str("a command to the TPM or its response is longer than any that the firmware knows")
            }
            Self::NoBank => f.write_str("the TPM has no active PCR bank of SHA-1, SHA-256, SHA-384 or SHA-512"),
            Self::HeapFull(len) => write!(f, "the command line's {len} bytes do not fit the firmware's heap"),
            Self::Setup => f.write_str("the kernel's setup code cannot be read a second time"),
            Self::NoTables => f.write_str("the host's ACPI tables, which describe the TPM, could not be set up"),
            Self::Memory => {
                f.write_str("the TPM's registers, its log or a loaded file is where the firmware may not read or write")
            }
        }
    }
}

impl core::error::Error for Error {}

impl From<MemoryError> for Error {
    fn from(_: MemoryError) -> Self {
        Self::Memory
    }
}
