//! The TPM as an EFI program uses it: any calls, in any order, on a TPM with defects.
//!
//! Input: the size of the log, the TPM ([`crate::tpm`]), then calls. Each is a byte with its kind, and what it takes.

use std::cell::RefCell;
use std::rc::Rc;

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::efi::protocols::BufferError;
use firstlight::efi::protocols::tcg2::{Event, Tcg2};
use firstlight::fakes::event_log::Log;
use firstlight::fakes::machine::FakeMachine;
use firstlight::tpm::{MOST_TRANSFERRED, Presence, Room, Session};
use uefi_raw::Status;
use uefi_raw::protocol::tcg::v2::{Tcg2EventLogBitmap, Tcg2HashAlgorithmBitmap, Tcg2HashLogExtendEventFlags};

use crate::input::Input;
use crate::pe;
use crate::tpm::{Registers, Tpm};

/// The log that the tables describe, and the firmware's own log and table of final events.
const LOG: u64 = 0x700_0000;
const OWN_LOG: u64 = 0x710_0000;
const FINAL_EVENTS: u64 = 0x720_0000;
/// What a program measures.
const DATA: u64 = 0x100_0000;
/// More calls are not made: each may wait for the TPM.
const MOST_CALLS: u32 = 24;

/// Makes the calls. The log is in the form that verifiers read, and its last event is in it. What a program measures is not
/// changed, and nothing is written but the logs. A command goes to the TPM as it is, as far as its own length says.
///
/// # Panics
/// When that is not so.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let log_len = u64::from(input.take::<u16>() & 0xfff);
    let tpm = Rc::new(RefCell::new(Tpm::take(&mut input)));
    let executed = tpm.borrow().executed();
    let mut machine = FakeMachine::new();
    machine.registers.push(Box::new(Registers(tpm)));
    machine.keeps_accesses = false;
    machine.ticks_per_look = 1 << 31;
    machine.most_steps = 1_000_000;
    machine.memory.keep_stores();
    let range = |start, len| PhysRange::new(PhysAddr::new(start), len).expect("a range");
    let log = range(LOG, log_len);
    let place = |room: Room| range(if room == Room::Log { OWN_LOG } else { FINAL_EVENTS }, room.bytes());
    let mut allocate = |_: &mut FakeMachine, room: Room| Some(place(room));
    let session = Session::open(&mut machine, Presence::Described { log }, &mut allocate);
    let Some(session) = session.and_then(|session| session.lock(&mut machine)) else { return };
    let mut tcg2 = Tcg2::new(session);
    let mut data: &[u8] = &[];
    for _ in 0..MOST_CALLS {
        if input.is_empty() {
            break;
        }
        match input.take::<u8>() % 6 {
            0 => {
                let len = input.take();
                match tcg2.capability(&mut machine, len) {
                    Ok(capability) => assert!(capability.size <= len.max(36)),
                    Err(BufferError::TooSmall { needed }) => assert!(needed > len.into() && needed < 0x100),
                    Err(error) => panic!("{error:?}"),
                }
            }
            1 => {
                let format = Tcg2EventLogBitmap::from_bits_retain(input.take());
                match tcg2.event_log(format) {
                    Ok(place) => {
                        assert_eq!(format, Tcg2EventLogBitmap::TCG_2);
                        let has_last = |range: PhysRange, last| range.is_empty() || range.contains_addr(last);
                        let logs = [log, self::range_of(OWN_LOG, Room::Log)];
                        let is_known = |place: &firstlight::tpm::LogPlace| {
                            logs.iter().any(|log| log.start() == place.start && has_last(*log, place.last))
                        };
                        assert!(place.as_ref().is_none_or(is_known), "{place:x?}");
                    }
                    Err(status) => assert_eq!(status, Status::INVALID_PARAMETER),
                }
            }
            2 => {
                data = input.long();
                machine.memory.store(DATA, data);
            }
            3 => {
                let flags = Tcg2HashLogExtendEventFlags::from_bits_retain(input.take());
                let len = if input.take::<u8>() & 1 == 0 { data.len() as u64 } else { input.take::<u16>().into() };
                let event = input.short();
                if let Ok(event) = Event::parse(event) {
                    assert!(event.pcr < 24);
                    let _ = tcg2.hash_log_extend_event(&mut machine, flags, range(DATA, len), &event);
                }
            }
            4 => {
                let (command, room) = (input.short(), input.take::<u16>());
                let before = executed.borrow().len();
                if let Ok(response) = tcg2.submit_command(&mut machine, command, room.into()) {
                    assert!(response.len() <= MOST_TRANSFERRED.min(room.into()));
                    let executed = executed.borrow();
                    assert!(executed[before..].iter().all(|sent| command.starts_with(sent)), "{executed:x?}");
                }
            }
            _ => {
                let banks = Tcg2HashAlgorithmBitmap::from_bits_retain(input.take());
                if tcg2.set_active_banks(banks).is_ok() {
                    assert_eq!(banks, tcg2.active_banks());
                }
            }
        }
        assert_eq!(machine.memory.bytes(DATA, data.len()), data);
    }
    let allowed = [log, range_of(OWN_LOG, Room::Log), range_of(FINAL_EVENTS, Room::FinalEvents), range(DATA, 1 << 16)];
    for store in machine.memory.stores() {
        let is_in = |range: &PhysRange| range.start().get() <= store.start && store.end <= range.end().get();
        assert!(allowed.iter().chain(&[firstlight::layout::FIRMWARE_RAM]).any(is_in), "{store:x?} is written");
    }
    let written = machine.memory.bytes(LOG, log_len as usize);
    if written.iter().any(|&byte| byte != 0) {
        Log::parse(&written).expect("a log");
    }
}

fn range_of(start: u64, room: Room) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), room.bytes()).expect("a range")
}

/// A program that measures a section, one that measures an image, and one that reads the log and sends a command.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let event = |pcr: u32, text: &[u8]| {
        let len = (18 + text.len()) as u32;
        let header = [&len.to_le_bytes()[..], &14_u32.to_le_bytes(), &1_u16.to_le_bytes()].concat();
        [&header[..], &pcr.to_le_bytes(), &0xd_u32.to_le_bytes(), text].concat()
    };
    let data = |bytes: &[u8]| [&[2][..], &(bytes.len() as u16).to_le_bytes(), bytes].concat();
    let measure =
        |flags: u64, event: Vec<u8>| [&[3][..], &flags.to_le_bytes(), &[0, event.len() as u8], &event].concat();
    let read = [&[1][..], &2_u32.to_le_bytes()].concat();
    // TPM2_GetRandom of 8 bytes.
    let command = [4, 12, 0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 8, 0, 1];
    let mut seeds = Vec::new();
    for kind in [0, 1] {
        let start = [0xff, 0x0f, kind, 0, 0];
        seeds.push([&start[..], &data(b"a section"), &measure(0, event(11, b".linux\0")), &read].concat());
        let again = measure(0, event(12, b"second"));
        seeds.push([&start[..], &read, &data(b"a section"), &measure(1, event(11, b"")), &again, &again].concat());
        seeds.push([&start[..], &[0, 36, 0, 9, 0, 28], &read, &command, &[5], &2_u32.to_le_bytes()].concat());
        // The images of that target, without what it has before them.
        for image in pe::seeds().into_iter().skip(1) {
            seeds.push([&start[..], &data(&image[6..]), &measure(0x10, event(4, b"path"))].concat());
        }
    }
    seeds
}
