//! A TPM that programs use before the operating system: EFI's protocol is made of this.
//!
//! [`Session::open`] starts the TPM, and records the firmware's version, that it calls a program, and the separators. After the
//! program is recorded, [`Session::lock`] gives the platform hierarchy a password that nobody knows. From then on, programs record
//! what they load, and send commands of their own. [`Session::close`] hands the TPM to the operating system.
//!
//! Left out: the command line and the initrd, which programs load and record themselves; "Returning from EFI Application from Boot
//! Option", because no program is called after one that returns.

use alloc::vec::Vec;

use zerocopy::FromZeros;

use super::command::HEADER_LEN;
use super::error::Error;
use super::event_log::{Action, EventLog, EventType};
use super::hash::{Algorithm, Digests, Hashes};
use super::interface::{self, Host};
use super::{Failure, Presence, Tpm, mark_unmeasured, write_event};
use crate::addr::{PhysAddr, PhysRange};
use crate::hal::{Deadline, Memory, MemoryError};

/// The longest command and the longest response, in bytes: as QEMU's FIFO takes them (`hw/tpm/tpm_tis.h`, `TPM_TIS_BUFFER_MAX`).
pub const MOST_TRANSFERRED: usize = 4096;

/// The memory for a log that no table describes, and for the events after the log was read, in bytes. The host's log has as much
/// (QEMU `hw/acpi/tpm.c`, `TPM_LOG_AREA_MINIMUM_SIZE`), and few events come after it was read.
const LOG_LEN: u64 = 64 << 10;
const FINAL_EVENTS_LEN: u64 = 16 << 10;
/// `EFI_TCG2_FINAL_EVENTS_TABLE_VERSION`, and the bytes of the version and the number before the events (TCG EFI Protocol
/// Specification 1.00, 7).
const FINAL_EVENTS_VERSION: u64 = 1;
const FINAL_EVENTS_START: u64 = 16;

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

/// Memory that a session needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// For the log, up to the end of boot services.
    Log,
    /// For the table of the events after the log was read, which the operating system reads.
    FinalEvents,
}

impl Room {
    /// The length in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Log => LOG_LEN,
            Self::FinalEvents => FINAL_EVENTS_LEN,
        }
    }
}

/// The events after the log was read (`EFI_TCG2_FINAL_EVENTS_TABLE`).
struct FinalEvents {
    table: PhysAddr,
    log: EventLog,
    count: u64,
}

impl FinalEvents {
    /// A table without events in `room`, which is all zeros.
    fn new(machine: &mut dyn Memory, room: PhysRange) -> Result<Self, MemoryError> {
        let (start, events) = room.split_at(FINAL_EVENTS_START);
        machine.write(start.start(), &FINAL_EVENTS_VERSION.to_le_bytes())?;
        Ok(Self { table: start.start(), log: EventLog::new(events), count: 0 })
    }

    fn add(
        &mut self,
        machine: &mut dyn Memory,
        pcr: u32,
        kind: u32,
        digests: &Digests,
        data: &[&[u8]],
    ) -> Result<(), Error> {
        write_event(machine, &mut self.log, pcr, kind, digests, data)?;
        if !self.log.has_ended() {
            self.count = self.count.saturating_add(1);
            let count_at = self.table.checked_add(size_of_val(&FINAL_EVENTS_VERSION) as u64).ok_or(Error::Memory)?;
            machine.write(count_at, &self.count.to_le_bytes())?;
        }
        Ok(())
    }
}

/// A TPM that is started.
pub struct Session {
    tpm: Tpm,
    log: EventLog,
    /// The memory for the log, if there is any.
    room: Option<PhysRange>,
    final_events: Option<FinalEvents>,
    /// Whether a program has read the log.
    was_read: bool,
    /// Whether the platform hierarchy has its password.
    is_locked: bool,
    /// Why something that the firmware does is not recorded.
    failure: Option<Error>,
}

impl Session {
    /// Starts the TPM of the machine. `None` if there is none, or if it cannot be used, which is a warning: it is marked
    /// unmeasured then. `allocate` returns memory that is all zeros; without it the session has no such log.
    pub fn open<M: Host>(
        machine: &mut M,
        presence: Presence,
        allocate: &mut dyn FnMut(&mut M, Room) -> Option<PhysRange>,
    ) -> Option<Self> {
        let result = match presence {
            Presence::Described { log } => Self::try_open(machine, Some(log), allocate).map(Some),
            Presence::Unknown if interface::is_present(machine) => {
                let log = allocate(machine, Room::Log);
                Self::try_open(machine, log, allocate).map(Some)
            }
            Presence::Undescribed => mark_unmeasured(machine).map(|()| None),
            Presence::Unknown | Presence::Absent => Ok(None),
        };
        result.unwrap_or_else(|failure| {
            failure.report(NOT_MEASURED);
            None
        })
    }

    fn try_open<M: Host>(
        machine: &mut M,
        room: Option<PhysRange>,
        allocate: &mut dyn FnMut(&mut M, Room) -> Option<PhysRange>,
    ) -> Result<Self, Failure> {
        let mut session = Self::start(machine, room)?;
        let table = allocate(machine, Room::FinalEvents);
        session.final_events = table.and_then(|table| FinalEvents::new(machine, table).ok());
        Ok(session)
    }

    /// A session without a table of final events.
    fn start(machine: &mut dyn Host, room: Option<PhysRange>) -> Result<Self, Failure> {
        let mut tpm = Tpm::open(machine)?;
        let mut log = room.map_or_else(EventLog::absent, EventLog::new);
        match tpm.prepare(machine, &mut log, Some(Action::CallsProgram)) {
            Ok(()) => Ok(Self { tpm, log, room, final_events: None, was_read: false, is_locked: false, failure: None }),
            Err(error) => {
                tpm.finish(machine, Err(error))?;
                Err(error.into())
            }
        }
    }

    /// Sets a random password for the platform hierarchy, which nobody knows: programs have the TPM from now on. `None` if that
    /// fails, which is a warning: the TPM is marked unmeasured then.
    pub fn lock(mut self, machine: &mut dyn Host) -> Option<Self> {
        match self.tpm.lock_platform(machine) {
            Ok(()) => {
                self.is_locked = true;
                Some(self)
            }
            Err(error) => {
                self.failure = Some(error);
                self.close(machine);
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

    /// A program reads the log: later events are in the table of final events too.
    pub const fn note_reading(&mut self) {
        self.was_read = true;
    }

    /// The table of the events after the log was read, if there is one.
    #[must_use]
    pub fn final_events(&self) -> Option<PhysAddr> {
        self.final_events.as_ref().map(|events| events.table)
    }

    /// Whether an event had no room in the log, or in the table of final events.
    #[must_use]
    pub fn has_lost_events(&self) -> bool {
        let is_lost = |log: &EventLog| log.has_ended();
        (self.room.is_some() && is_lost(&self.log))
            || self.final_events.as_ref().is_some_and(|events| is_lost(&events.log))
    }

    /// Hashes of no bytes, for the active banks.
    #[must_use]
    pub(crate) fn hashes(&self) -> Hashes {
        Hashes::new(&self.tpm.banks.known)
    }

    /// Extends a PCR with the digests of `bytes`, which are in memory. If `data` is not `None`, appends an event with it to the log.
    ///
    /// # Errors
    /// What the TPM refuses, and [`Error::Memory`].
    pub fn record(
        &mut self,
        machine: &mut dyn Host,
        pcr: u32,
        kind: u32,
        bytes: PhysRange,
        data: Option<&[u8]>,
    ) -> Result<(), Error> {
        let digests = self.tpm.hash_memory(machine, self.hashes(), bytes)?;
        self.record_digests(machine, pcr, kind, &digests, data.as_ref().map(core::slice::from_ref))
    }

    /// Extends a PCR with `digests`. If `data` is not `None`, appends an event to the log whose data are its parts, two at most.
    ///
    /// # Errors
    /// What the TPM refuses, and [`Error::Memory`].
    pub(crate) fn record_digests(
        &mut self,
        machine: &mut dyn Host,
        pcr: u32,
        kind: u32,
        digests: &Digests,
        data: Option<&[&[u8]]>,
    ) -> Result<(), Error> {
        let Some(data) = data else { return self.tpm.extend(machine, pcr, digests) };
        self.tpm.record(machine, &mut self.log, pcr, kind, digests, data)?;
        match &mut self.final_events {
            Some(events) if self.was_read => events.add(machine, pcr, kind, digests, data),
            _ => Ok(()),
        }
    }

    /// Records what the firmware does. A failure is reported by [`Self::close`].
    pub fn record_action(&mut self, machine: &mut dyn Host, action: Action) {
        let text = action.text();
        let mut hashes = self.hashes();
        hashes.update(text);
        let digests = hashes.finish();
        let result = self.record_digests(machine, action.pcr(), EventType::EfiAction as u32, &digests, Some(&[text]));
        self.failure = self.failure.or(result.err());
    }

    /// Sends a command as it is, and returns the response as it is. Its header has its length.
    ///
    /// # Errors
    /// [`Error::TooLong`] for a command that is shorter than its header, longer than its bytes or longer than
    /// [`MOST_TRANSFERRED`]; what goes wrong at the registers.
    pub fn submit(&mut self, machine: &mut dyn Host, command: &[u8]) -> Result<Vec<u8>, Error> {
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

    /// Hands the TPM to the operating system, marked as unmeasured if something is not recorded. A failure is a warning.
    pub fn close(self, machine: &mut dyn Host) {
        let result = match self.failure {
            // Only who knows the platform's password can turn off the others.
            Some(error) if self.is_locked => Err(Failure { error, turn_off_error: self.tpm.cap(machine).err() }),
            failure => self.tpm.finish(machine, failure.map_or(Ok(()), Err)),
        };
        if let Err(failure) = result {
            failure.report(NOT_MEASURED);
        }
    }

    /// As [`Self::close`], after what the firmware calls could not be recorded.
    pub fn give_up(mut self, machine: &mut dyn Host) {
        self.failure = Some(Error::Program);
        self.close(machine);
    }
}

/// What a failure means for the user.
const NOT_MEASURED: &str = "this boot is not measured, or not all of it";
