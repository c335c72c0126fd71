//! `EFI_TCG2_PROTOCOL` on a TPM 2.0 (TCG EFI Protocol Specification, family 2.0, 1.00, section 6; "TCG2" below).
//!
//! Programs measure what they load, read the log, and send commands to the TPM ([`Session`]).
//!
//! Left out: measurements of PE images by their parts (`PE_COFF_IMAGE`, which is `UNSUPPORTED`), other PCR banks than the active
//! ones, and the table of events after the log was read (TCG2 7), which the caller keeps.

use alloc::vec::Vec;

use uefi_raw::Status;
use uefi_raw::protocol::tcg::v2::{
    Tcg2BootServiceCapability, Tcg2EventLogBitmap, Tcg2HashAlgorithmBitmap, Tcg2HashLogExtendEventFlags, Tcg2Version,
};

use super::{BufferError, check_room};
use crate::addr::PhysRange;
use crate::hal::{Clock, Memory};
use crate::tpm::{Algorithm, Error, LogPlace, MOST_TRANSFERRED, Session};

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
}

impl Tcg2 {
    /// The protocol of a TPM that is started.
    #[must_use]
    pub const fn new(session: Session) -> Self {
        Self { session }
    }

    /// The TPM, to record what the firmware loads itself.
    pub const fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The TPM, to hand it to the operating system.
    #[must_use]
    pub fn into_session(self) -> Session {
        self.session
    }

    /// `GetCapability`, for a structure of `len` bytes, which its first byte says. The bytes that [`Tcg2BootServiceCapability::size`]
    /// of the result says are returned. A short structure is that of version 1.0.
    ///
    /// # Errors
    /// [`BufferError::TooSmall`], with the length for the structure's first byte.
    pub fn capability(&self, len: u8) -> Result<Tcg2BootServiceCapability, BufferError> {
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
            // Nobody has asked the TPM.
            manufacturer_id: 0,
            number_of_pcr_banks: banks.bits().count_ones(),
            active_pcr_banks: banks,
        };
        if (CAPABILITY_LEN_10..CAPABILITY_LEN).contains(&len) {
            return Ok(Tcg2BootServiceCapability { size: CAPABILITY_LEN_10, structure_version: version(0), ..whole });
        }
        check_room(CAPABILITY_LEN.into(), len.into())?;
        Ok(whole)
    }

    /// `GetEventLog`, in one format: where the log is. `None` if there is none; the addresses are zero then.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for another format than that of a TPM 2.0.
    pub fn event_log(&self, format: Tcg2EventLogBitmap) -> Result<Option<LogPlace>, Status> {
        if format == Tcg2EventLogBitmap::TCG_2 { Ok(self.session.log()) } else { Err(Status::INVALID_PARAMETER) }
    }

    /// `HashLogExtendEvent`: extends a PCR with the digests of `bytes`, and appends the event to the log.
    ///
    /// # Errors
    /// `UNSUPPORTED` for a PE image, `INVALID_PARAMETER` for unknown flags, `VOLUME_FULL` if the log has no room, after which the
    /// PCR is extended all the same; `OUT_OF_RESOURCES`, `DEVICE_ERROR`.
    pub fn hash_log_extend_event(
        &mut self,
        machine: &mut (impl Memory + Clock),
        flags: Tcg2HashLogExtendEventFlags,
        bytes: PhysRange,
        event: &Event<'_>,
    ) -> Result<(), Status> {
        if flags.contains(Tcg2HashLogExtendEventFlags::PE_COFF_IMAGE) {
            return Err(Status::UNSUPPORTED);
        }
        if !Tcg2HashLogExtendEventFlags::all().contains(flags) {
            return Err(Status::INVALID_PARAMETER);
        }
        let is_logged = !flags.contains(Tcg2HashLogExtendEventFlags::EFI_TCG2_EXTEND_ONLY);
        let data = is_logged.then_some(event.data);
        self.session.record(machine, event.pcr, event.kind, bytes, data).map_err(status)?;
        match self.session.log() {
            Some(log) if is_logged && log.is_truncated => Err(Status::VOLUME_FULL),
            _ => Ok(()),
        }
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
            error => status(error),
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
}

/// The status of what went wrong at the TPM.
fn status(error: Error) -> Status {
    log::warn!("a measurement or a command of an EFI program failed: {error}");
    match error {
        Error::HeapFull(_) => Status::OUT_OF_RESOURCES,
        _ => Status::DEVICE_ERROR,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::boxed::Box;
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::vec;

    use super::*;
    use crate::addr::PhysAddr;
    use crate::fakes::event_log::{Log, digest, extend};
    use crate::fakes::machine::FakeMachine;
    use crate::fakes::tpm::{Defects, FakeTpm, Kind, State};
    use crate::tpm::Presence;

    const SHA1: u16 = 0x04;
    const SHA256: u16 = 0x0b;
    const BYTES: &[u8] = b"a section";
    const NONE: Tcg2HashLogExtendEventFlags = Tcg2HashLogExtendEventFlags::empty();

    fn range(start: u64, len: u64) -> PhysRange {
        PhysRange::new(PhysAddr::new(start), len).unwrap()
    }

    fn bytes() -> PhysRange {
        range(0x20_0000, BYTES.len() as u64)
    }

    /// A machine with a TPM, its state, and the protocol.
    fn opened(kind: Kind, log_len: u64) -> (FakeMachine, Rc<RefCell<State>>, Tcg2) {
        let (device, state) = FakeTpm::new(kind, &[SHA1, SHA256], Defects::default());
        let mut machine = FakeMachine::new();
        machine.registers.push(Box::new(device));
        machine.memory.store(bytes().start().get(), BYTES);
        let presence = Presence::Described { log: range(0x70_0000, log_len) };
        let tcg2 = Tcg2::new(Session::open(&mut machine, presence).unwrap());
        (machine, state, tcg2)
    }

    fn event(pcr: u32, data: &[u8]) -> Vec<u8> {
        let len = (EVENT_START + data.len()) as u32;
        let start = [&len.to_le_bytes()[..], &14_u32.to_le_bytes(), &1_u16.to_le_bytes(), &pcr.to_le_bytes()].concat();
        [&start[..], &0xd_u32.to_le_bytes(), data].concat()
    }

    #[test]
    fn an_event_has_a_known_header_and_a_pcr_that_there_is() {
        let whole = event(11, b".linux\0");
        let parsed = Event { pcr: 11, kind: 0xd, data: b".linux\0" };
        assert_eq!(Event::parse(&whole), Ok(parsed));
        assert_eq!(Event::parse(&[&whole[..], b"more"].concat()), Ok(parsed));
        assert!(Event::parse(&event(23, b"")).is_ok());
        for cut in 0..whole.len() {
            assert_eq!(Event::parse(&whole[..cut]), Err(Status::INVALID_PARAMETER), "{cut}");
        }
        for (at, byte) in [(0, 17), (3, 0x80), (4, 15), (8, 2), (10, 24), (13, 1)] {
            let mut broken = whole.clone();
            broken[at] = byte;
            assert_eq!(Event::parse(&broken), Err(Status::INVALID_PARAMETER), "{at}");
        }
        assert_eq!(
            (Event::len_of([18, 0, 0, 0]), Event::len_of([17, 0, 0, 0])),
            (Ok(18), Err(Status::INVALID_PARAMETER))
        );
    }

    #[test]
    fn a_session_begins_with_what_every_boot_records() {
        for kind in [Kind::Fifo, Kind::Crb] {
            let (machine, state, tcg2) = opened(kind, 0x1000);
            let log = tcg2.event_log(Tcg2EventLogBitmap::TCG_2).unwrap().unwrap();
            assert_eq!((log.start.get(), log.is_truncated), (0x70_0000, false));
            let parsed = Log::parse(&machine.memory.bytes(0x70_0000, 0x1000)).unwrap();
            for bank in [SHA1, SHA256] {
                let pcrs = parsed.replay(bank);
                assert!((0..8).all(|pcr| pcrs[&pcr] == state.borrow().pcrs[&bank][pcr as usize]));
            }
            assert!(!state.borrow().password.is_empty(), "the platform hierarchy is closed");
            // The last event is a separator of PCR 7.
            assert_eq!(machine.memory.bytes(log.last.get(), 8), [7, 0, 0, 0, 4, 0, 0, 0]);
        }
    }

    #[test]
    fn the_program_that_the_firmware_loads_is_in_pcr_9_and_in_the_log() {
        let (mut machine, state, tcg2) = opened(Kind::Crb, 0x1000);
        let session = tcg2.into_session().with_program(&mut machine, bytes()).unwrap();
        for bank in [SHA1, SHA256] {
            let zero = vec![0; digest(bank, b"").len()];
            assert_eq!(state.borrow().pcrs[&bank][9], extend(bank, &zero, &digest(bank, BYTES)));
        }
        assert_eq!(machine.memory.bytes(session.log().unwrap().last.get(), 8), [9, 0, 0, 0, 0xd, 0, 0, 0]);
    }

    #[test]
    fn a_program_that_cannot_be_measured_gets_no_tpm() {
        let (mut machine, _, tcg2) = opened(Kind::Crb, 0x1000);
        let nowhere = range(crate::layout::FIRMWARE_RAM.start().get(), 1);
        assert!(tcg2.into_session().with_program(&mut machine, nowhere).is_none());
    }

    #[test]
    fn what_a_program_measures_is_in_its_pcr_and_in_the_log() {
        for kind in [Kind::Fifo, Kind::Crb] {
            let (mut machine, state, mut tcg2) = opened(kind, 0x1000);
            let bytes_of_event = event(11, b".linux\0");
            let parsed = Event::parse(&bytes_of_event).unwrap();
            tcg2.hash_log_extend_event(&mut machine, NONE, bytes(), &parsed).unwrap();
            for bank in [SHA1, SHA256] {
                let zero = vec![0; digest(bank, b"").len()];
                assert_eq!(state.borrow().pcrs[&bank][11], extend(bank, &zero, &digest(bank, BYTES)));
            }
            let log = tcg2.event_log(Tcg2EventLogBitmap::TCG_2).unwrap().unwrap();
            assert_eq!(machine.memory.bytes(log.last.get(), 8), [11, 0, 0, 0, 0xd, 0, 0, 0]);
            // Without the log, only the PCR changes.
            let only = Tcg2HashLogExtendEventFlags::EFI_TCG2_EXTEND_ONLY;
            let before = state.borrow().pcrs[&SHA256][11].clone();
            tcg2.hash_log_extend_event(&mut machine, only, bytes(), &parsed).unwrap();
            assert_ne!(state.borrow().pcrs[&SHA256][11], before);
            assert_eq!(tcg2.event_log(Tcg2EventLogBitmap::TCG_2), Ok(Some(log)));
        }
    }

    #[test]
    fn measurements_that_cannot_be_made_are_refused() {
        let (mut machine, state, mut tcg2) = opened(Kind::Fifo, 0x1000);
        let before = state.borrow().pcrs.clone();
        let event = Event { pcr: 4, kind: 1, data: b"" };
        for (flags, status) in [
            (Tcg2HashLogExtendEventFlags::PE_COFF_IMAGE, Status::UNSUPPORTED),
            (Tcg2HashLogExtendEventFlags::from_bits_retain(2), Status::INVALID_PARAMETER),
        ] {
            assert_eq!(tcg2.hash_log_extend_event(&mut machine, flags, bytes(), &event), Err(status));
        }
        let outside = range(crate::layout::FIRMWARE_RAM.start().get(), 1);
        assert_eq!(tcg2.hash_log_extend_event(&mut machine, NONE, outside, &event), Err(Status::DEVICE_ERROR));
        assert_eq!(state.borrow().pcrs, before);
    }

    #[test]
    fn an_event_without_room_in_the_log_is_in_the_pcr() {
        let (_, _, tcg2) = opened(Kind::Fifo, 0x1000);
        let used = tcg2.event_log(Tcg2EventLogBitmap::TCG_2).unwrap().unwrap();
        let (mut machine, state, mut tcg2) = opened(Kind::Fifo, used.last.get() - used.start.get() + 0x80);
        let before = state.borrow().pcrs[&SHA256][11].clone();
        let event = Event { pcr: 11, kind: 0xd, data: &[1; 200] };
        assert_eq!(tcg2.hash_log_extend_event(&mut machine, NONE, bytes(), &event), Err(Status::VOLUME_FULL));
        assert_ne!(state.borrow().pcrs[&SHA256][11], before);
        assert!(tcg2.event_log(Tcg2EventLogBitmap::TCG_2).unwrap().unwrap().is_truncated);
    }

    #[test]
    fn there_is_a_log_of_a_tpm_2_0_and_no_other() {
        let (_, _, tcg2) = opened(Kind::Crb, 0x1000);
        for format in [Tcg2EventLogBitmap::TCG_1_2, Tcg2EventLogBitmap::empty(), Tcg2EventLogBitmap::all()] {
            assert_eq!(tcg2.event_log(format), Err(Status::INVALID_PARAMETER));
        }
    }

    #[test]
    fn a_capability_is_as_long_as_the_caller_knows_it() {
        let (_, _, tcg2) = opened(Kind::Fifo, 0x1000);
        let banks = Tcg2HashAlgorithmBitmap::SHA1 | Tcg2HashAlgorithmBitmap::SHA256;
        for len in [36, 37, 255] {
            let whole = tcg2.capability(len).unwrap();
            assert_eq!((whole.size, whole.structure_version.minor, whole.tpm_present_flag), (36, 1, 1));
            assert_eq!((whole.number_of_pcr_banks, whole.active_pcr_banks), (2, banks));
        }
        for len in [28, 35] {
            let short = tcg2.capability(len).unwrap();
            assert_eq!((short.size, short.structure_version.minor, short.hash_algorithm_bitmap), (28, 0, banks));
        }
        for len in [0, 27] {
            assert_eq!(tcg2.capability(len), Err(BufferError::TooSmall { needed: 36 }));
        }
    }

    #[test]
    fn a_command_and_its_response_are_passed_as_they_are() {
        // TPM2_GetCapability of the banks.
        let command = [0x80, 1, 0, 0, 0, 22, 0, 0, 1, 0x7a, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 16];
        for kind in [Kind::Fifo, Kind::Crb] {
            let (mut machine, _, mut tcg2) = opened(kind, 0x1000);
            let response = tcg2.submit_command(&mut machine, &command, 4096).unwrap();
            assert_eq!((&response[..2], response[5] as usize), (&[0x80, 1][..], response.len()));
            let needed = response.len() as u64;
            let refused = tcg2.submit_command(&mut machine, &command, needed - 1);
            assert_eq!(refused, Err(BufferError::TooSmall { needed }));
            // What follows the command is not part of it.
            let longer = [&command[..], &[1, 2, 3]].concat();
            assert_eq!(tcg2.submit_command(&mut machine, &longer, needed).unwrap(), response);
        }
    }

    #[test]
    fn bytes_that_are_no_command_are_not_sent() {
        let (mut machine, state, mut tcg2) = opened(Kind::Fifo, 0x1000);
        let sent = state.borrow().commands.len();
        let mut long = vec![0; 5000];
        long[..10].copy_from_slice(&[0x80, 1, 0, 0, 0x13, 0x88, 0, 0, 1, 0x7a]);
        for command in
            [&[][..], &[0x80, 1, 0, 0, 0, 10, 0, 0, 1], &[0x80, 1, 0, 0, 0, 11, 0, 0, 1, 0x7a], &[0; 10], &long]
        {
            let refused = tcg2.submit_command(&mut machine, command, 4096);
            assert_eq!(refused, Err(Status::INVALID_PARAMETER.into()), "{command:x?}");
        }
        assert_eq!(state.borrow().commands.len(), sent);
    }

    #[test]
    fn only_the_active_banks_can_be_set() {
        let (_, _, tcg2) = opened(Kind::Fifo, 0x1000);
        let active = tcg2.active_banks();
        assert_eq!(tcg2.set_active_banks(active), Ok(()));
        assert_eq!(tcg2.set_active_banks(Tcg2HashAlgorithmBitmap::SHA256), Err(Status::UNSUPPORTED));
        for banks in [Tcg2HashAlgorithmBitmap::empty(), Tcg2HashAlgorithmBitmap::SM3_256 | active] {
            assert_eq!(tcg2.set_active_banks(banks), Err(Status::INVALID_PARAMETER));
        }
    }

    #[test]
    fn the_operating_system_gets_a_tpm_that_nobody_holds() {
        for kind in [Kind::Fifo, Kind::Crb] {
            let (mut machine, state, tcg2) = opened(kind, 0x1000);
            tcg2.into_session().close(&mut machine);
            assert!(!state.borrow().taken);
        }
    }

    #[test]
    fn a_tpm_that_cannot_be_used_has_no_protocol() {
        let mut machine = FakeMachine::new();
        assert!(Session::open(&mut machine, Presence::Absent).is_none());
        let (device, state) = FakeTpm::new(Kind::Fifo, &[0x12], Defects::default());
        machine.registers.push(Box::new(device));
        let presence = Presence::Described { log: range(0x70_0000, 0x1000) };
        assert!(Session::open(&mut machine, presence).is_none());
        assert_eq!(state.borrow().off.len(), 2, "what could vouch for this boot is turned off");
    }
}
