//! The protocol on TPMs that work.

extern crate std;

use std::boxed::Box;
use std::cell::RefCell;
use std::rc::Rc;
use std::vec;

use zerocopy::IntoBytes;

use super::*;
use crate::addr::PhysAddr;
use crate::boot::Blob;
use crate::efi::pe::Subsystem;
use crate::efi::pe::tests::{CODE, OPTIONAL, file_with, section};
use crate::efi::services::Placed;
use crate::fakes::event_log::{Log, digest, extend};
use crate::fakes::fw_cfg::FakeFwCfg;
use crate::fakes::machine::FakeMachine;
use crate::fakes::tpm::{Defects, FakeTpm, Kind, State};
use crate::fw_cfg::{FwCfg, Item, Key};
use crate::tpm::{Presence, Room};

const SHA1: u16 = 0x04;
const SHA256: u16 = 0x0b;
const BYTES: &[u8] = b"a section";
const FINAL_EVENTS: u64 = 0x73_0000;
const NONE: Tcg2HashLogExtendEventFlags = Tcg2HashLogExtendEventFlags::empty();

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

fn bytes() -> PhysRange {
    range(0x20_0000, BYTES.len() as u64)
}

/// Memory for what a session needs, as boot services would give it.
fn allocate(_: &mut FakeMachine, room: Room) -> Option<PhysRange> {
    match room {
        Room::Log => Some(range(0x71_0000, room.bytes())),
        Room::FinalEvents => Some(range(FINAL_EVENTS, room.bytes())),
    }
}

/// The table of final events: the number that it has, and the bytes of the events.
fn final_events(machine: &FakeMachine) -> (u64, Vec<u8>) {
    let number = |at| u64::from_le_bytes(machine.memory.bytes(at, 8).try_into().unwrap());
    assert_eq!(number(FINAL_EVENTS), 1, "the version");
    (number(FINAL_EVENTS + 8), machine.memory.bytes(FINAL_EVENTS + 16, 0x1000))
}

/// A machine with a TPM, its state, and the protocol.
fn opened(kind: Kind, log_len: u64) -> (FakeMachine, Rc<RefCell<State>>, Tcg2) {
    let (device, state) = FakeTpm::new(kind, &[SHA1, SHA256], Defects::default());
    let mut machine = FakeMachine::new();
    machine.registers.push(Box::new(device));
    machine.memory.store(bytes().start().get(), BYTES);
    let presence = Presence::Described { log: range(0x70_0000, log_len) };
    let session = Session::open(&mut machine, presence, &mut allocate).unwrap();
    let session = session.lock(&mut machine).unwrap();
    (machine, state, Tcg2::new(session))
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
    assert_eq!((Event::len_of([18, 0, 0, 0]), Event::len_of([17, 0, 0, 0])), (Ok(18), Err(Status::INVALID_PARAMETER)));
}

#[test]
fn a_session_begins_with_what_every_boot_records() {
    for kind in [Kind::Fifo, Kind::Crb] {
        let (machine, state, mut tcg2) = opened(kind, 0x1000);
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
    let (_, _, mut tcg2) = opened(Kind::Fifo, 0x1000);
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
    let (_, _, mut tcg2) = opened(Kind::Crb, 0x1000);
    for format in [Tcg2EventLogBitmap::TCG_1_2, Tcg2EventLogBitmap::empty(), Tcg2EventLogBitmap::all()] {
        assert_eq!(tcg2.event_log(format), Err(Status::INVALID_PARAMETER));
    }
}

#[test]
fn a_capability_is_as_long_as_the_caller_knows_it() {
    let (mut machine, _, mut tcg2) = opened(Kind::Fifo, 0x1000);
    let banks = Tcg2HashAlgorithmBitmap::SHA1 | Tcg2HashAlgorithmBitmap::SHA256;
    for len in [36, 37, 255] {
        let whole = tcg2.capability(&mut machine, len).unwrap();
        assert_eq!((whole.size, whole.structure_version.minor, whole.tpm_present_flag), (36, 1, 1));
        assert_eq!((whole.number_of_pcr_banks, whole.active_pcr_banks), (2, banks));
        assert_eq!(whole.manufacturer_id, u32::from_be_bytes(*b"FAKE"));
    }
    for len in [28, 35] {
        let short = tcg2.capability(&mut machine, len).unwrap();
        assert_eq!((short.size, short.structure_version.minor, short.hash_algorithm_bitmap), (28, 0, banks));
    }
    for len in [0, 27] {
        assert_eq!(tcg2.capability(&mut machine, len), Err(BufferError::TooSmall { needed: 36 }));
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
    for command in [&[][..], &[0x80, 1, 0, 0, 0, 10, 0, 0, 1], &[0x80, 1, 0, 0, 0, 11, 0, 0, 1, 0x7a], &[0; 10], &long]
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
    assert!(Session::open(&mut machine, Presence::Absent, &mut allocate).is_none());
    let (device, state) = FakeTpm::new(Kind::Fifo, &[0x12], Defects::default());
    machine.registers.push(Box::new(device));
    let presence = Presence::Described { log: range(0x70_0000, 0x1000) };
    assert!(Session::open(&mut machine, presence, &mut allocate).is_none());
    assert_eq!(state.borrow().off.len(), 2, "what could vouch for this boot is turned off");
}

/// A signed application without a device path, its file in memory, and the event that its loading is.
const IMAGE: u64 = 0x30_0000;

fn image() -> (PhysRange, Vec<u8>, Placed) {
    let sections = [section(0x1000, 0x200, 0x400, 0x200, CODE)];
    let placed = Placed {
        place: range(0x50_0000, 0x2000),
        len: 0x1200,
        entry: PhysAddr::new(0x50_1000),
        subsystem: Subsystem::Application,
    };
    let file = file_with(&sections, |_| {});
    (range(IMAGE, file.len() as u64), file, placed)
}

/// The bytes of the file that its digest covers, for a file whose sections are one after the other.
fn covered(file: &[u8]) -> Vec<u8> {
    let [checksum, directory] = [OPTIONAL + 64, OPTIONAL + 112 + 32];
    [&file[..checksum], &file[checksum + 4..directory], &file[directory + 8..]].concat()
}

fn extended(bank: u16, pcr: &[u8], bytes: &[u8]) -> Vec<u8> {
    extend(bank, pcr, &digest(bank, bytes))
}

#[test]
fn an_image_is_measured_by_the_digest_of_its_file() {
    const PATH: &[u8] = &[0x7f, 0xff, 4, 0];
    for (subsystem, pcr, kind) in [
        (Subsystem::Application, 4, 0x8000_0003_u32),
        (Subsystem::BootDriver, 2, 0x8000_0004),
        (Subsystem::RuntimeDriver, 2, 0x8000_0005),
    ] {
        let (mut machine, state, mut tcg2) = opened(Kind::Crb, 0x1000);
        let (source, file, placed) = image();
        machine.memory.store(IMAGE, &file);
        let before = state.borrow().pcrs.clone();
        let load = ImageLoad { placed: Placed { subsystem, ..placed }, path: PATH };
        tcg2.measure_image(&mut machine, source, &load).unwrap();
        for bank in [SHA1, SHA256] {
            assert_eq!(state.borrow().pcrs[&bank][pcr], extended(bank, &before[&bank][pcr], &covered(&file)));
        }
        let log = Log::parse(&machine.memory.bytes(0x70_0000, 0x1000)).unwrap();
        let event = log.events.last().unwrap();
        assert_eq!((event.pcr, event.kind), (pcr as u32, kind));
        let numbers = [0x50_0000_u64, 0x1200, 0, PATH.len() as u64];
        assert_eq!(event.data, [numbers.as_bytes(), PATH].concat());
    }
}

#[test]
fn an_image_without_a_digest_is_refused_and_not_recorded() {
    let (mut machine, state, mut tcg2) = opened(Kind::Crb, 0x1000);
    let (source, file, placed) = image();
    machine.memory.store(IMAGE, &file);
    let before = state.borrow().pcrs.clone();
    let load = ImageLoad { placed, path: &[] };
    let (cut, _) = source.split_at(0x500);
    assert_eq!(tcg2.measure_image(&mut machine, cut, &load), Err(Status::LOAD_ERROR));
    let outside = range(crate::layout::FIRMWARE_RAM.start().get(), 0x1000);
    assert_eq!(tcg2.measure_image(&mut machine, outside, &load), Err(Status::INVALID_PARAMETER));
    assert_eq!(state.borrow().pcrs, before);
}

#[test]
fn a_program_measures_a_pe_image_as_the_firmware_does() {
    let (mut machine, state, mut tcg2) = opened(Kind::Fifo, 0x1000);
    let (source, file, _) = image();
    machine.memory.store(IMAGE, &file);
    let before = state.borrow().pcrs[&SHA256][14].clone();
    let event = Event { pcr: 14, kind: 0xd, data: b"image" };
    let flags = Tcg2HashLogExtendEventFlags::PE_COFF_IMAGE;
    assert_eq!(tcg2.hash_log_extend_event(&mut machine, flags, source, &event), Ok(()));
    let first = extended(SHA256, &before, &covered(&file));
    assert_eq!(state.borrow().pcrs[&SHA256][14], first);
    let log = Log::parse(&machine.memory.bytes(0x70_0000, 0x1000)).unwrap();
    assert_eq!(log.events.last().unwrap().data, b"image");
    // Extended only.
    let flags = flags | Tcg2HashLogExtendEventFlags::EFI_TCG2_EXTEND_ONLY;
    assert_eq!(tcg2.hash_log_extend_event(&mut machine, flags, source, &event), Ok(()));
    assert_eq!(state.borrow().pcrs[&SHA256][14], extended(SHA256, &first, &covered(&file)));
    assert_eq!(Log::parse(&machine.memory.bytes(0x70_0000, 0x1000)).unwrap(), log);
}

#[test]
fn events_after_the_log_was_read_are_in_the_table_of_final_events_too() {
    for kind in [Kind::Fifo, Kind::Crb] {
        let (mut machine, _, mut tcg2) = opened(kind, 0x1000);
        assert_eq!(tcg2.final_events(), Some(PhysAddr::new(FINAL_EVENTS)));
        let event = Event { pcr: 11, kind: 0xd, data: b".linux" };
        tcg2.hash_log_extend_event(&mut machine, NONE, bytes(), &event).unwrap();
        assert_eq!(final_events(&machine).0, 0);
        let read = tcg2.event_log(Tcg2EventLogBitmap::TCG_2).unwrap().unwrap();
        for count in 1..3 {
            tcg2.hash_log_extend_event(&mut machine, NONE, bytes(), &event).unwrap();
            assert_eq!(final_events(&machine).0, count);
        }
        tcg2.record_action(&mut machine, Action::ExitSucceeded);
        let (count, events) = final_events(&machine);
        assert_eq!(count, 3);
        // They are as in the log, which has them behind the last one that was read.
        let log = Log::parse(&machine.memory.bytes(0x70_0000, 0x1000)).unwrap();
        let len = |data: &[u8]| 4 + 4 + 4 + 2 + 20 + 2 + 32 + 4 + data.len();
        let lengths: Vec<_> = log.events[log.events.len() - 3..].iter().map(|event| len(&event.data)).collect();
        let start = read.last.get() as usize + lengths[0];
        let total = lengths.iter().sum::<usize>();
        assert_eq!(events[..total], machine.memory.bytes(start as u64, total));
        assert_eq!(events[total..total + 8], [0; 8]);
    }
}

#[test]
fn events_that_are_too_many_for_the_table_of_final_events_are_in_the_pcrs() {
    let (mut machine, state, mut tcg2) = opened(Kind::Crb, 0x1_0000);
    tcg2.event_log(Tcg2EventLogBitmap::TCG_2).unwrap();
    let data = [0; 4000];
    let event = Event { pcr: 11, kind: 0xd, data: &data };
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(tcg2.hash_log_extend_event(&mut machine, NONE, bytes(), &event));
    }
    assert_eq!(statuses, [Ok(()), Ok(()), Ok(()), Ok(()), Err(Status::VOLUME_FULL)].map(|status| status));
    assert_eq!(final_events(&machine).0, 4);
    let five = (0..5).fold(vec![0; 32], |pcr, _| extended(SHA256, &pcr, BYTES));
    assert_eq!(state.borrow().pcrs[&SHA256][11], five);
}

#[test]
fn the_firmware_records_that_it_calls_a_program_and_how_boot_services_end() {
    let (mut machine, state, mut tcg2) = opened(Kind::Fifo, 0x1000);
    let events = |machine: &FakeMachine| Log::parse(&machine.memory.bytes(0x70_0000, 0x1000)).unwrap().events;
    let calls = &events(&machine)[1];
    assert_eq!(
        (calls.pcr, calls.kind, &calls.data[..]),
        (4, 0x8000_0007, &b"Calling EFI Application from Boot Option"[..])
    );
    assert_eq!(events(&machine).last().unwrap().pcr, 7, "the separators follow");
    let steps = [
        (Action::ExitInvoked, "Exit Boot Services Invocation"),
        (Action::ExitFailed, "Exit Boot Services Returned with Failure"),
        (Action::ExitInvoked, "Exit Boot Services Invocation"),
        (Action::ExitSucceeded, "Exit Boot Services Returned with Success"),
    ];
    let mut pcr = state.borrow().pcrs[&SHA256][5].clone();
    for (action, text) in steps {
        tcg2.record_action(&mut machine, action);
        pcr = extended(SHA256, &pcr, text.as_bytes());
        let last = events(&machine).pop().unwrap();
        assert_eq!((last.pcr, last.kind, &last.data[..]), (5, 0x8000_0007, text.as_bytes()));
    }
    assert_eq!(state.borrow().pcrs[&SHA256][5], pcr);
}

#[test]
fn a_tpm_that_no_table_lists_has_a_log_that_programs_find() {
    let (device, state) = FakeTpm::new(Kind::Fifo, &[SHA256], Defects::default());
    let mut machine = FakeMachine::new();
    machine.registers.push(Box::new(device));
    let mut tcg2 = Tcg2::new(Session::open(&mut machine, Presence::Unknown, &mut allocate).unwrap());
    let log = tcg2.event_log(Tcg2EventLogBitmap::TCG_2).unwrap().unwrap();
    assert_eq!((log.start.get(), log.is_truncated), (0x71_0000, false));
    let parsed = Log::parse(&machine.memory.bytes(0x71_0000, 0x1000)).unwrap();
    assert!(parsed.replay(SHA256).iter().all(|(pcr, value)| state.borrow().pcrs[&SHA256][*pcr as usize] == *value));
}

#[test]
fn a_session_without_memory_for_logs_measures_all_the_same() {
    let (device, state) = FakeTpm::new(Kind::Fifo, &[SHA256], Defects::default());
    let mut machine = FakeMachine::new();
    machine.registers.push(Box::new(device));
    machine.memory.store(bytes().start().get(), BYTES);
    let mut tcg2 = Tcg2::new(Session::open(&mut machine, Presence::Unknown, &mut |_, _| None).unwrap());
    assert_eq!((tcg2.event_log(Tcg2EventLogBitmap::TCG_2), tcg2.final_events()), (Ok(None), None));
    let event = Event { pcr: 11, kind: 0xd, data: b"" };
    assert_eq!(tcg2.hash_log_extend_event(&mut machine, NONE, bytes(), &event), Ok(()));
    assert_eq!(state.borrow().pcrs[&SHA256][11], extended(SHA256, &[0; 32], BYTES));
}

#[test]
fn a_tpm_whose_program_cannot_be_measured_cannot_vouch_for_it() {
    let (device, state) = FakeTpm::new(Kind::Crb, &[SHA256], Defects::default());
    let mut machine = FakeMachine::new();
    machine.registers.push(Box::new(device));
    Session::open(&mut machine, Presence::Unknown, &mut allocate).unwrap().give_up(&mut machine);
    assert_eq!(state.borrow().off.len(), 2);
    assert!(!state.borrow().taken && !state.borrow().password.is_empty());
}

/// Programs have used the TPM by then, and the password of the platform hierarchy is lost.
#[test]
fn an_action_that_is_not_recorded_shows_in_the_pcrs() {
    let (mut machine, state, mut tcg2) = opened(Kind::Crb, 0x1000);
    let before = state.borrow().pcrs[&SHA256].clone();
    state.borrow_mut().refuses_next = true;
    tcg2.record_action(&mut machine, Action::ExitSucceeded);
    tcg2.into_session().close(&mut machine);
    for (pcr, before) in before.iter().enumerate() {
        let expected = if pcr < 10 { extended(SHA256, before, &[1, 0, 0, 0]) } else { before.clone() };
        assert_eq!(state.borrow().pcrs[&SHA256][pcr], expected);
    }
    assert!(!state.borrow().taken);
}

/// The keys of a file's two parts.
const PARTS: [Key; 2] = [Key::SETUP_DATA, Key::KERNEL_DATA];

/// PCR 4 after the firmware has measured a program whose file the host has in two items.
fn measured(first: &[u8], second: &[u8], piece: u64) -> Vec<u8> {
    let (device, state) = FakeTpm::new(Kind::Crb, &[SHA256], Defects::default());
    let fake = FakeFwCfg::new(true).with_item(0x18, first).with_item(0x11, second);
    let mut machine = FakeMachine::new().with(fake);
    machine.registers.push(Box::new(device));
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let presence = Presence::Described { log: range(0x70_0000, 0x1000) };
    let mut tcg2 = Tcg2::new(Session::open(&mut machine, presence, &mut allocate).unwrap());
    let [setup, code] = PARTS;
    let file = [(setup, first), (code, second)].map(|(key, bytes)| Blob::from(Item::new(key, bytes.len() as u32)));
    let load = ImageLoad { placed: image().2, path: &[] };
    tcg2.measure_program(&mut machine, &fw_cfg, file, range(0x60_0000, piece), &load).unwrap();
    state.borrow().pcrs[&SHA256][4].clone()
}

/// PCR 4 with a program whose file is this.
fn with_program(file: &[u8]) -> Vec<u8> {
    let called = extended(SHA256, &[0; 32], Action::CallsProgram.text());
    extended(SHA256, &extended(SHA256, &called, &[0; 4]), &covered(file))
}

#[test]
fn a_program_is_measured_as_its_file_is_whatever_the_host_wrote_into_it() {
    let sections = [section(0x1000, 0x200, 0x400, 0x200, CODE), section(0x2000, 0x3000, 0x600, 0x3000, CODE)];
    // The line of a program that is no kernel is in its DOS header.
    let file = file_with(&sections, |_| {});
    let mut given = file.clone();
    given[0x20..0x24].copy_from_slice(&[0x3f, 0xa3, 0x80, 0xff]);
    // The parts are divided within a section, and a piece is shorter than a section.
    for (divided, piece) in [(0xa00, 0x1000), (0x400, 0x100), (0x410, 1 << 20)] {
        assert_eq!(measured(&given[..divided], &given[divided..], piece), with_program(&file));
    }
    // That of a kernel is in its setup header.
    let sections = [section(0x1000, 0x200, 0x400, 0x200, CODE)];
    let kernel = |line: u32, loader: u8| {
        let mut file = file_with(&sections, |_| {});
        file[0x202..0x208].copy_from_slice(&[b'H', b'd', b'r', b'S', 0x0f, 2]);
        file[0x210] = loader;
        file[0x228..0x22c].copy_from_slice(&line.to_le_bytes());
        file
    };
    let given = kernel(0x2_0000, 0xb0);
    assert_eq!(measured(&given[..0x400], &given[0x400..], 0x1000), with_program(&kernel(0, 0)));
}
