//! The log of measurements, in the format for several PCR banks. All numbers are little-endian.
//!
//! Source: TCG PC Client Platform Firmware Profile (PFP) 1.05, section 10: "Event Logging".

use arrayvec::ArrayVec;

use super::bytes::Bytes;
use super::error::Error;
use super::hash::{ALGORITHMS, Algorithm, Digest};
use crate::addr::{PhysAddr, PhysRange};

/// The type of an event (PFP 10.4.1, "Event Types").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventType {
    /// `EV_NO_ACTION`: no PCR is extended.
    NoAction = 0x03,
    /// `EV_SEPARATOR`: the firmware is done with a PCR.
    Separator = 0x04,
    /// `EV_S_CRTM_VERSION`: the version of the firmware.
    FirmwareVersion = 0x08,
    /// `EV_IPL`: what is booted.
    Ipl = 0x0d,
    /// `EV_EFI_BOOT_SERVICES_APPLICATION`: an EFI application that is loaded.
    EfiApplication = 0x8000_0003,
    /// `EV_EFI_BOOT_SERVICES_DRIVER`.
    EfiBootDriver = 0x8000_0004,
    /// `EV_EFI_RUNTIME_SERVICES_DRIVER`.
    EfiRuntimeDriver = 0x8000_0005,
    /// `EV_EFI_ACTION`: what the firmware does.
    EfiAction = 0x8000_0007,
}

/// What the firmware does (PFP 1.05, 10.4.4, "EV_EFI_ACTION Event Types").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It calls a program.
    CallsProgram,
    /// The program has returned.
    ProgramReturned,
    /// A program has called `ExitBootServices`.
    ExitInvoked,
    /// `ExitBootServices` returns an error.
    ExitFailed,
    /// Boot services have ended.
    ExitSucceeded,
}

impl Action {
    /// The PCR that records it.
    #[must_use]
    pub const fn pcr(self) -> u32 {
        match self {
            Self::CallsProgram | Self::ProgramReturned => 4,
            Self::ExitInvoked | Self::ExitFailed | Self::ExitSucceeded => 5,
        }
    }

    /// The event's data, without a NUL.
    #[must_use]
    pub const fn text(self) -> &'static [u8] {
        match self {
            Self::CallsProgram => b"Calling EFI Application from Boot Option",
            Self::ProgramReturned => b"Returning from EFI Application from Boot Option",
            Self::ExitInvoked => b"Exit Boot Services Invocation",
            Self::ExitFailed => b"Exit Boot Services Returned with Failure",
            Self::ExitSucceeded => b"Exit Boot Services Returned with Success",
        }
    }
}

/// The signature of the first event (PFP 10.4.5.1, `TCG_EfiSpecIdEvent`).
const SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";
/// `platformClass`: a client.
const CLIENT: u32 = 0;
/// `specVersionMinor`, `specVersionMajor`, `specErrata`: 2.0 for TPM 2.0; and `uintnSize`: 2 for 64 bits.
const VERSION: [u8; 4] = [0, 2, 0, 2];

/// The log in guest memory, and how much of it is used.
///
/// A log has no gaps: it ends before the first event that does not fit, even if shorter ones follow.
#[derive(Debug)]
pub struct EventLog {
    left: PhysRange,
    ended: bool,
    /// Where the last event begins.
    last: Option<PhysAddr>,
}

impl EventLog {
    /// An empty log in `room`, which is all zeros. For readers, zeros are the end of the log.
    #[must_use]
    pub const fn new(room: PhysRange) -> Self {
        Self { left: room, ended: false, last: None }
    }

    /// No log: nothing is written, and nothing is logged about it.
    #[must_use]
    pub fn absent() -> Self {
        Self { left: PhysRange::default(), ended: true, last: None }
    }

    /// Takes `len` bytes for an event. `None` if they do not fit, or an earlier event did not fit.
    pub fn take(&mut self, len: usize) -> Option<PhysAddr> {
        if self.ended {
            return None;
        }
        let Some(taken) = PhysRange::new(self.left.start(), len as u64).filter(|&taken| self.left.contains(taken))
        else {
            crate::warn!(
                "the TPM's event log has no room for an event of {len} bytes: it ends there, and does not match the PCRs"
            );
            self.ended = true;
            return None;
        };
        self.left = PhysRange::from_bounds(taken.end(), self.left.end())?;
        self.last = Some(taken.start());
        self.last
    }

    /// Where the last event begins, if there is one.
    pub const fn last(&self) -> Option<PhysAddr> {
        self.last
    }

    /// Whether an event did not fit, or there is no log.
    pub const fn has_ended(&self) -> bool {
        self.ended
    }
}

/// The first event of a log, which describes the digests of the others (`TCG_PCClientPCREvent` with a
/// `TCG_EfiSpecIdEvent`).
pub fn first_event(algorithms: &ArrayVec<Algorithm, ALGORITHMS>) -> Result<Bytes, Error> {
    let count = algorithms.len() as u32;
    // `vendorInfoSize`, a byte, ends the event.
    const FIXED_LEN: u32 = (SIGNATURE.len() + 4 + VERSION.len() + 4 + 1) as u32;
    let data_len = FIXED_LEN.saturating_add(count.saturating_mul(4));
    let mut event = Bytes::default();
    for number in [0, EventType::NoAction as u32] {
        event.put(&number.to_le_bytes())?;
    }
    event.put(&[0; 20])?;
    event.put(&data_len.to_le_bytes())?;
    event.put(SIGNATURE)?;
    event.put(&CLIENT.to_le_bytes())?;
    event.put(&VERSION)?;
    event.put(&count.to_le_bytes())?;
    for algorithm in algorithms {
        event.put(&algorithm.id().to_le_bytes())?;
        event.put(&algorithm.digest_len().to_le_bytes())?;
    }
    event.put(&[0])?;
    Ok(event)
}

/// The start of an event of the type `kind`, followed by `data_len` bytes of data (`TCG_PCR_EVENT2`).
pub fn event_start(pcr: u32, kind: u32, digests: &[Digest], data_len: u32) -> Result<Bytes, Error> {
    let mut event = Bytes::default();
    for number in [pcr, kind, digests.len() as u32] {
        event.put(&number.to_le_bytes())?;
    }
    for digest in digests {
        event.put(&digest.id.to_le_bytes())?;
        event.put(digest.bytes())?;
    }
    event.put(&data_len.to_le_bytes())?;
    Ok(event)
}
