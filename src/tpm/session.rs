//! A TPM that programs use before the operating system: EFI's protocol is made of this.
//!
//! [`Session::open`] starts the TPM, records the firmware's version and the separators, and gives the platform hierarchy a password
//! that nobody knows. From then on, programs record what they load, and send commands of their own. [`Session::close`] hands the
//! TPM to the operating system.
//!
//! Left out: the command line and the initrd, which programs load and record themselves.

use alloc::vec::Vec;

use zerocopy::FromZeros;

use super::command::HEADER_LEN;
use super::error::Error;
use super::event_log::{EventLog, EventType};
use super::hash::{Algorithm, Hashes};
use super::interface::{self, Host};
use super::{FILE_PCR, Failure, Presence, Tpm, mark_unmeasured};
use crate::addr::{PhysAddr, PhysRange};
use crate::hal::Deadline;

/// The longest command and the longest response, in bytes: as QEMU's FIFO takes them (`hw/tpm/tpm_tis.h`, `TPM_TIS_BUFFER_MAX`).
pub const MOST_TRANSFERRED: usize = 4096;

/// Where the log of measurements is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPlace {
    /// The first event.
    pub start: PhysAddr,
    /// The last event.
    pub last: PhysAddr,
    /// Whether later events had no room.
    pub is_truncated: bool,
}

/// A TPM that is started.
pub struct Session {
    tpm: Tpm,
    log: EventLog,
    /// The memory for the log, if there is any.
    room: Option<PhysRange>,
}

impl Session {
    /// Starts the TPM of the machine. `None` if there is none, or if it cannot be used, which is a warning: it is marked
    /// unmeasured then.
    pub fn open(machine: &mut impl Host, presence: Presence) -> Option<Self> {
        let result = match presence {
            Presence::Described { log } => Self::try_open(machine, Some(log)).map(Some),
            Presence::Unknown if interface::is_present(machine) => Self::try_open(machine, None).map(Some),
            Presence::Undescribed => mark_unmeasured(machine).map(|()| None),
            Presence::Unknown | Presence::Absent => Ok(None),
        };
        result.unwrap_or_else(|failure| {
            failure.report("this boot is not measured");
            None
        })
    }

    fn try_open(machine: &mut impl Host, room: Option<PhysRange>) -> Result<Self, Failure> {
        let mut tpm = Tpm::open(machine)?;
        let mut log = room.map_or_else(EventLog::absent, EventLog::new);
        match tpm.prepare(machine, &mut log).and_then(|()| tpm.lock_platform(machine)) {
            Ok(()) => Ok(Self { tpm, log, room }),
            Err(error) => {
                tpm.finish(machine, Err(error))?;
                Err(error.into())
            }
        }
    }

    /// Records a program that the firmware has loaded, as other boots record their kernel (`docs/tpm.md`). `None` if that fails,
    /// which is a warning: the TPM is marked unmeasured then.
    pub fn with_program(mut self, machine: &mut impl Host, image: PhysRange) -> Option<Self> {
        match self.record(machine, FILE_PCR, EventType::Ipl as u32, image, Some(b"kernel\0")) {
            Ok(()) => Some(self),
            Err(error) => {
                if let Err(failure) = self.tpm.finish(machine, Err(error)) {
                    failure.report("this boot is not measured");
                }
                None
            }
        }
    }

    /// The algorithms of the active PCR banks that are measured.
    #[must_use]
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.tpm.banks.known
    }

    /// The log, if there is one.
    #[must_use]
    pub fn log(&self) -> Option<LogPlace> {
        let place = |last| Some(LogPlace { start: self.room?.start(), last, is_truncated: self.log.has_ended() });
        self.log.last().and_then(place)
    }

    /// Extends a PCR with the digests of `bytes`, which are in memory. If `data` is not `None`, appends an event with it to the log.
    ///
    /// # Errors
    /// What the TPM refuses, and [`Error::Memory`].
    pub fn record(
        &mut self,
        machine: &mut impl Host,
        pcr: u32,
        kind: u32,
        bytes: PhysRange,
        data: Option<&[u8]>,
    ) -> Result<(), Error> {
        let digests = self.tpm.hash_memory(machine, Hashes::new(&self.tpm.banks.known), bytes)?;
        match data {
            Some(data) => self.tpm.record(machine, &mut self.log, pcr, kind, &digests, &[data]),
            None => self.tpm.extend(machine, pcr, &digests),
        }
    }

    /// Sends a command as it is, and returns the response as it is. Its header has its length.
    ///
    /// # Errors
    /// [`Error::TooLong`] for a command that is shorter than its header, longer than its bytes or longer than
    /// [`MOST_TRANSFERRED`]; what goes wrong at the registers.
    pub fn submit(&mut self, machine: &mut impl Host, command: &[u8]) -> Result<Vec<u8>, Error> {
        let len = match command.first_chunk::<HEADER_LEN>() {
            Some([_, _, len @ .., _, _, _, _]) => u32::from_be_bytes(*len) as usize,
            None => return Err(Error::TooLong),
        };
        let command = command.get(..len).filter(|command| (HEADER_LEN..=MOST_TRANSFERRED).contains(&command.len()));
        let command = command.ok_or(Error::TooLong)?;
        let full = Error::HeapFull(MOST_TRANSFERRED as u32);
        let mut buffer = u8::new_vec_zeroed(MOST_TRANSFERRED).map_err(|_| full)?;
        let deadline = Deadline::start(machine);
        let len = self.tpm.interface.transmit(machine, deadline, command, &mut buffer)?.len();
        buffer.truncate(len);
        Ok(buffer)
    }

    /// Hands the TPM to the operating system. A failure is a warning.
    pub fn close(self, machine: &mut impl Host) {
        if let Err(error) = self.tpm.interface.close(machine) {
            log::warn!("the TPM is not released: {error}");
        }
    }
}
