//! `EFI_TCG2_PROTOCOL` on a TPM 2.0 (TCG EFI Protocol Specification, family 2.0, 1.00, section 6; "TCG2" below).
//!
//! Programs measure what they load, read the log, and send commands to the TPM ([`Session`]). The firmware measures what it
//! loads itself ([`ImageLoad`]).
//!
//! Left out: other PCR banks than the active ones, and the log in the format of TPM 1.2.

mod images;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use uefi_raw::Status;
use uefi_raw::protocol::tcg::v2::{
    Tcg2BootServiceCapability, Tcg2EventLogBitmap, Tcg2HashAlgorithmBitmap, Tcg2HashLogExtendEventFlags, Tcg2Version,
};

pub use self::images::ImageLoad;
use super::{BufferError, check_room};
use crate::addr::{PhysAddr, PhysRange};
use crate::hal::{Clock, Memory};
use crate::logging::RateLimited;
use crate::tpm::{Action, Algorithm, Error, LogPlace, MOST_TRANSFERRED, Session};

/// The bytes of an event before its data: the size of all of it, and a header of its own length, version, PCR and type (TCG2
/// 6.6.3).
const EVENT_START: usize = 4 + EVENT_HEADER as usize;
const EVENT_HEADER: u32 = 14;
const EVENT_VERSION: u16 = 1;
/// The last PCR (TCG2 6.6.4, `INVALID_PARAMETER`).
const MOST_PCR: u32 = 23;
/// The bytes of the capability's structure, and of that of version 1.0, which ends before the number of banks (TCG2 6.4.3).
const CAPABILITY_LEN: u8 = size_of::<Tcg2BootServiceCapability>() as u8;
const CAPABILITY_LEN_10: u8 = core::mem::offset_of!(Tcg2BootServiceCapability, number_of_pcr_banks) as u8;

/// `TPM2_GetCapability` of one property, `TPM_PT_MANUFACTURER` (TPM 2.0 Library, parts 2 and 3).
const MANUFACTURER: [u8; 4] = 0x105_u32.to_be_bytes();
const GET_MANUFACTURER: [u8; 22] = {
    let [a, b, c, d] = MANUFACTURER;
    [0x80, 1, 0, 0, 0, 22, 0, 0, 1, 0x7a, 0, 0, 0, 6, a, b, c, d, 0, 0, 0, 1]
};
/// The bytes of the response: a header, whether there are more, the kind, a list of one property and its value.
const MANUFACTURER_LEN: usize = 10 + 1 + 4 + 4 + 8;

/// An event as a program passes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The PCR that is extended.
    pub pcr: u32,
    /// The event's type.
    pub kind: u32,
    /// The event's data, for the log.
    pub data: &'a [u8],
}

impl<'a> Event<'a> {
    /// The length of the event that begins with these bytes, if they may begin one.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` if it is shorter than its start.
    pub fn len_of(start: [u8; 4]) -> Result<u32, Status> {
        let len = u32::from_le_bytes(start);
        if len as usize >= EVENT_START { Ok(len) } else { Err(Status::INVALID_PARAMETER) }
    }

    /// The event in `bytes`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for one that is not whole, that has an unknown header, or a PCR that there is not.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Status> {
        let parsed = || {
            let (len, rest) = bytes.split_first_chunk()?;
            let len = Self::len_of(*len).ok()? as usize;
            let (header_len, rest) = rest.split_first_chunk()?;
            let (version, rest) = rest.split_first_chunk()?;
            let (pcr, rest) = rest.split_first_chunk()?;
            let (kind, rest) = rest.split_first_chunk()?;
            let is_known =
                u32::from_le_bytes(*header_len) == EVENT_HEADER && u16::from_le_bytes(*version) == EVENT_VERSION;
            let pcr = u32::from_le_bytes(*pcr);
            let data = rest.get(..len.checked_sub(EVENT_START)?)?;
            (is_known && pcr <= MOST_PCR).then_some(Self { pcr, kind: u32::from_le_bytes(*kind), data })
        };
        parsed().ok_or(Status::INVALID_PARAMETER)
    }
}

/// A TPM that programs use.
pub struct Tcg2 {
    session: Session,
    /// What programs can repeat without end.
    warnings: RateLimited<4>,
}

impl Tcg2 {
    /// The protocol of a TPM that is started.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self { session, warnings: RateLimited::default() }
    }

    /// The table of the events after the log was read, if there is one. It is a configuration table.
    #[must_use]
    pub fn final_events(&self) -> Option<PhysAddr> {
        self.session.final_events()
    }

    /// Records what the firmware does.
    pub fn record_action(&mut self, machine: &mut (impl Memory + Clock), action: Action) {
        self.session.record_action(machine, action);
    }

    /// The TPM, to hand it to the operating system.
    #[must_use]
    pub fn into_session(self) -> Session {
        if let Some(rest) = self.warnings.rest() {
            crate::warn!("measurements and commands of an EFI program: {rest} more warnings");
        }
        self.session
    }

    /// `GetCapability`, for a structure of `len` bytes, which its first byte says. The bytes that [`Tcg2BootServiceCapability::size`]
    /// of the result says are returned. A short structure is that of version 1.0.
    ///
    /// # Errors
    /// [`BufferError::TooSmall`], with the length for the structure's first byte.
    pub fn capability(
        &mut self,
        machine: &mut (impl Memory + Clock),
        len: u8,
    ) -> Result<Tcg2BootServiceCapability, BufferError> {
        if len < CAPABILITY_LEN_10 {
            check_room(CAPABILITY_LEN.into(), len.into())?;
        }
        let banks = self.active_banks();
        let version = |minor| Tcg2Version { major: 1, minor };
        let whole = Tcg2BootServiceCapability {
            size: CAPABILITY_LEN,
            structure_version: version(1),
            protocol_version: version(1),
            hash_algorithm_bitmap: banks,
            supported_event_logs: Tcg2EventLogBitmap::TCG_2,
            tpm_present_flag: 1,
            max_command_size: MOST_TRANSFERRED as u16,
            max_response_size: MOST_TRANSFERRED as u16,
            manufacturer_id: self.manufacturer(machine).unwrap_or_default(),
            number_of_pcr_banks: banks.bits().count_ones(),
            active_pcr_banks: banks,
        };
        if (CAPABILITY_LEN_10..CAPABILITY_LEN).contains(&len) {
            return Ok(Tcg2BootServiceCapability { size: CAPABILITY_LEN_10, structure_version: version(0), ..whole });
        }
        Ok(whole)
    }

    /// The manufacturer as the TPM says.
    fn manufacturer(&mut self, machine: &mut (impl Memory + Clock)) -> Option<u32> {
        let response = self.session.submit(machine, &GET_MANUFACTURER).ok()?;
        let (start, number) = response.split_last_chunk()?;
        (response.len() == MANUFACTURER_LEN && start.ends_with(&MANUFACTURER)).then_some(u32::from_be_bytes(*number))
    }

    /// `GetEventLog`, in one format: where the log is. `None` if there is none; the addresses are zero then. From now on, events
    /// are in the table of final events too (TCG2 7).
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for another format than that of a TPM 2.0.
    pub fn event_log(&mut self, format: Tcg2EventLogBitmap) -> Result<Option<LogPlace>, Status> {
        if format != Tcg2EventLogBitmap::TCG_2 {
            return Err(Status::INVALID_PARAMETER);
        }
        self.session.note_reading();
        Ok(self.session.log())
    }

    /// `HashLogExtendEvent`: extends a PCR with the digests of `bytes`, or of the PE image that they are, and appends the event to
    /// the log.
    ///
    /// # Errors
    /// `UNSUPPORTED` for what is no PE image, `INVALID_PARAMETER` for unknown flags, `VOLUME_FULL` if the log has no room, after
    /// which the PCR is extended all the same; `OUT_OF_RESOURCES`, `DEVICE_ERROR`.
    pub fn hash_log_extend_event(
        &mut self,
        machine: &mut (impl Memory + Clock),
        flags: Tcg2HashLogExtendEventFlags,
        bytes: PhysRange,
        event: &Event<'_>,
    ) -> Result<(), Status> {
        if !Tcg2HashLogExtendEventFlags::all().contains(flags) {
            return Err(Status::INVALID_PARAMETER);
        }
        let is_logged = !flags.contains(Tcg2HashLogExtendEventFlags::EFI_TCG2_EXTEND_ONLY);
        let data = is_logged.then_some(event.data);
        if flags.contains(Tcg2HashLogExtendEventFlags::PE_COFF_IMAGE) {
            let digests = self.hash_image(machine, bytes).map_err(|_| Status::UNSUPPORTED)?;
            let data = data.as_ref().map(core::slice::from_ref);
            let recorded = self.session.record_digests(machine, event.pcr, event.kind, &digests, data);
            recorded.map_err(|error| self.status(error))?;
        } else {
            let recorded = self.session.record(machine, event.pcr, event.kind, bytes, data);
            recorded.map_err(|error| self.status(error))?;
        }
        if is_logged && self.session.has_lost_events() { Err(Status::VOLUME_FULL) } else { Ok(()) }
    }

    /// `SubmitCommand`: the response to a command, if it has room in `room` bytes.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a command that is none, [`BufferError::TooSmall`], `OUT_OF_RESOURCES`, `DEVICE_ERROR`.
    pub fn submit_command(
        &mut self,
        machine: &mut (impl Memory + Clock),
        command: &[u8],
        room: u64,
    ) -> Result<Vec<u8>, BufferError> {
        let response = self.session.submit(machine, command).map_err(|error| match error {
            Error::TooLong => Status::INVALID_PARAMETER,
            error => self.status(error),
        })?;
        check_room(response.len() as u64, room)?;
        Ok(response)
    }

    /// `GetActivePcrBanks`.
    #[must_use]
    pub fn active_banks(&self) -> Tcg2HashAlgorithmBitmap {
        self.session
            .algorithms()
            .iter()
            .map(|algorithm| match algorithm {
                Algorithm::Sha1 => Tcg2HashAlgorithmBitmap::SHA1,
                Algorithm::Sha256 => Tcg2HashAlgorithmBitmap::SHA256,
                Algorithm::Sha384 => Tcg2HashAlgorithmBitmap::SHA384,
                Algorithm::Sha512 => Tcg2HashAlgorithmBitmap::SHA512,
            })
            .collect()
    }

    /// `SetActivePcrBanks`: only those that are active.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for no bank and for one that the firmware does not know, `UNSUPPORTED` for others than the active ones.
    pub fn set_active_banks(&self, banks: Tcg2HashAlgorithmBitmap) -> Result<(), Status> {
        let active = self.active_banks();
        if banks.is_empty() || !active.contains(banks) {
            return Err(Status::INVALID_PARAMETER);
        }
        if banks == active { Ok(()) } else { Err(Status::UNSUPPORTED) }
    }

    /// The status of what went wrong at the TPM.
    fn status(&mut self, error: Error) -> Status {
        self.warnings.warn(format_args!("a measurement or a command of an EFI program failed: {error}"));
        match error {
            Error::HeapFull(_) => Status::OUT_OF_RESOURCES,
            _ => Status::DEVICE_ERROR,
        }
    }
}
