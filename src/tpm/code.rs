//! The codes of commands, and the response codes of refused commands.
//!
//! Source: TCG TPM 2.0 Library, part 2.

use core::fmt;

/// A command's code, `TPM_CC`: 32 bits, of which the upper 16 are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Code {
    /// `TPM2_HierarchyControl`.
    HierarchyControl = 0x121,
    /// `TPM2_HierarchyChangeAuth`.
    HierarchyChangeAuth = 0x129,
    /// `TPM2_SelfTest`.
    SelfTest = 0x143,
    /// `TPM2_Startup`.
    Startup = 0x144,
    /// `TPM2_GetCapability`.
    GetCapability = 0x17a,
    /// `TPM2_GetRandom`.
    GetRandom = 0x17b,
    /// `TPM2_PCR_Extend`.
    PcrExtend = 0x182,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HierarchyControl => "TPM2_HierarchyControl",
            Self::HierarchyChangeAuth => "TPM2_HierarchyChangeAuth",
            Self::SelfTest => "TPM2_SelfTest",
            Self::Startup => "TPM2_Startup",
            Self::GetCapability => "TPM2_GetCapability",
            Self::GetRandom => "TPM2_GetRandom",
            Self::PcrExtend => "TPM2_PCR_Extend",
        })
    }
}

/// A command that a TPM did not execute, and the reason, `TPM_RC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    command: Code,
    response: u16,
}

impl Refusal {
    /// `TPM_RC_INITIALIZE`: the TPM is already started, or not yet.
    pub const INITIALIZE: u16 = 0x100;
    /// `TPM_RC_NEEDS_TEST`: the command requires a self-test first.
    pub const NEEDS_TEST: u16 = 0x153;

    /// A refusal with this response code. TPMs' codes have 12 bits. A code of more than 16 bits becomes all ones here.
    #[must_use]
    pub fn new(command: Code, response: u32) -> Self {
        Self { command, response: u16::try_from(response).unwrap_or(u16::MAX) }
    }

    /// The response code.
    #[must_use]
    pub const fn response(self) -> u16 {
        self.response
    }

    /// Whether the same command may be sent again: `TPM_RC_YIELDED`, `TPM_RC_TESTING`, `TPM_RC_RETRY`.
    #[must_use]
    pub const fn is_busy(self) -> bool {
        matches!(self.response(), 0x908 | 0x90a | 0x922)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: response code {:#x}", self.command, self.response)
    }
}
