//! Why a boot is not measured.

use core::fmt;

use super::code::{Code, Refusal};
use crate::hal::MemoryError;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Wait {
    /// Locality 0 is granted.
    Locality,
    /// The TPM is ready for a command.
    Readiness,
    /// It takes bytes of a command.
    Room,
    /// It has all of the command.
    EndOfCommand,
    /// It has a response.
    Response,
    /// It gives bytes of the response.
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

/// What is wrong with the TPM, or with what was to be measured.
///
/// What a variant holds is 32 bits in all of them: nearly every function here returns this, and so it fits registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Nothing answers at the TPM's registers.
    NoDevice,
    /// This wait was too long.
    Timeout(Wait),
    /// The TPM says that it has failed.
    Failed,
    /// The registers of the command response buffer interface say what cannot be.
    Buffer,
    /// The TPM is one of the family 1.2.
    OldFamily,
    /// The TPM refused a command.
    Refused(Refusal),
    /// The response to this command is not one.
    Response(Code),
    /// A command or its response is longer than any that is known.
    TooLong,
    /// No PCR bank is active whose hash is known here.
    NoBank,
    /// The firmware's heap has no room for a command line of this many bytes.
    HeapFull(u32),
    /// The kernel's setup code is not to be had. The reason was logged.
    Setup,
    /// The tables that tell of the TPM could not be set up. The reason was logged.
    NoTables,
    /// Registers, log, or what is to be measured are where the firmware may not read or write.
    Memory,
}

impl Error {
    /// Whether another command makes sense after this one.
    pub(super) const fn still_answers(self) -> bool {
        !matches!(self, Self::NoDevice | Self::Timeout(_) | Self::Failed | Self::Buffer | Self::OldFamily)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoDevice => f.write_str("the host has a log for a TPM, but no TPM"),
            Self::Timeout(wait) => {
                write!(f, "the TPM does not answer, {wait} is missing; is the host's swtpm running?")
            }
            Self::Failed => f.write_str("the TPM has failed"),
            Self::Buffer => f.write_str("the TPM's registers give no usable buffer for commands"),
            Self::OldFamily => f.write_str(
                "the TPM is one of version 1.2, which is left alone; give the machine a TPM 2.0 (swtpm --tpm2)",
            ),
            Self::Refused(refusal) => write!(f, "the TPM refused {refusal}"),
            Self::Response(command) => write!(f, "the TPM's response to {command} is broken"),
            Self::TooLong => f.write_str("a command to the TPM or its response is longer than the firmware knows any"),
            Self::NoBank => f.write_str("the TPM has no active PCR bank of SHA-1, SHA-256, SHA-384 or SHA-512"),
            Self::HeapFull(len) => write!(f, "the command line's {len} bytes do not fit the firmware's heap"),
            Self::Setup => f.write_str("the kernel's setup code cannot be read a second time"),
            Self::NoTables => f.write_str("the host's ACPI tables, which tell of the TPM, could not be set up"),
            Self::Memory => f.write_str("something is where the firmware may not read or write"),
        }
    }
}

impl core::error::Error for Error {}

impl From<MemoryError> for Error {
    fn from(_: MemoryError) -> Self {
        Self::Memory
    }
}
