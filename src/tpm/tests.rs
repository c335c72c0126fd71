//! Measured boots with TPMs that work, and with defective TPMs.

extern crate std;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::error::Wait;
use super::*;
use crate::addr::PhysAddr;
use crate::boot::Blob;
use crate::fakes::event_log::{Log, digest, extend};
use crate::fakes::fw_cfg::FakeFwCfg;
use crate::fakes::machine::{FakeMachine, FakeMemory, FakeRegisters};
use crate::fakes::tpm::{Defects, FakeTpm, Kind, State, plain, refuse};
use crate::fw_cfg::{Item, Key};
use crate::hal::Clock;

/// The first 1024 bytes of Debian's kernel.
const SETUP: &[u8] = include_bytes!("../boot/testdata/vmlinuz-6.1.0-56-cloud-amd64.setup");
const COMMAND_LINE: &[u8] = b"console=ttyS0 quiet";
const LOG: PhysRange = range(0x70_0000, 0x1_0000);

const SHA1: u16 = 0x04;
const SHA256: u16 = 0x0b;
const SHA384: u16 = 0x0c;
const SHA512: u16 = 0x0d;
const SM3: u16 = 0x12;

const fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

fn kernel() -> Vec<u8> {
    (0..9001_u32).map(|i| ((i * 13) ^ (i >> 8)) as u8).collect()
}

fn initrd() -> Vec<u8> {
    (0..70_003_u32).map(|i| ((i * 7) ^ (i >> 7)) as u8).collect()
}

/// A machine after loading, and its TPM's state.
struct Boot {
    machine: FakeMachine,
    fw_cfg: FwCfg,
    loaded: Images,
    log: PhysRange,
    tpm: Rc<RefCell<State>>,
}

impl Boot {
    fn new(kind: Kind, banks: &[u16], defects: Defects) -> Self {
        let (device, tpm) = FakeTpm::new(kind, banks, defects);
        let mut machine = FakeMachine::new().with(FakeFwCfg::new(true).with_item(0x18, SETUP));
        machine.registers.push(std::boxed::Box::new(device));
        machine.memory.store(0x100_0000, &kernel());
        machine.memory.store(0x500_0000, &initrd());
        // With two NULs, as when the host's text has one already.
        machine.memory.store(0x2_0000, COMMAND_LINE);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        let loaded = Images {
            setup: Some(Blob::from(Item::new(Key::SETUP_DATA, SETUP.len() as u32))),
            kernel: range(0x100_0000, kernel().len() as u64),
            initrd: Some(range(0x500_0000, initrd().len() as u64)),
            modules: Vec::new(),
            command_line: range(0x2_0000, COMMAND_LINE.len() as u64 + 2),
        };
        Self { machine, fw_cfg, loaded, log: LOG, tpm }
    }

    fn measure(&mut self) -> Result<(), Error> {
        try_measure(&mut self.machine, &self.fw_cfg, EventLog::new(self.log), &self.loaded)
            .map_err(|failure| failure.error)
    }

    fn log(&self) -> Log {
        let bytes = self.machine.memory.bytes(self.log.start().get(), self.log.len() as usize);
        Log::parse(&bytes).unwrap()
    }

    fn pcr(&self, bank: u16, pcr: usize) -> Vec<u8> {
        self.tpm.borrow().pcrs[&bank][pcr].clone()
    }
}

/// The value of a PCR after digests of these bytes.
fn extended(bank: u16, by: &[&[u8]]) -> Vec<u8> {
    let zero = vec![0; digest(bank, b"").len()];
    by.iter().fold(zero, |pcr, bytes| extend(bank, &pcr, &digest(bank, bytes)))
}

/// The setup code without the fields that a loader writes, by another method: the file has zeros there, except in
/// `heap_end_ptr`.
fn setup_as_measured() -> Vec<u8> {
    let mut setup = SETUP.to_vec();
    setup[0x224..0x226].fill(0);
    setup[0x1fa..0x1fc].fill(0);
    setup
}

#[test]
fn the_pcrs_and_the_log_record_what_is_booted() {
    for kind in [Kind::Fifo, Kind::Crb] {
        for banks in [[SHA256].as_slice(), &[SHA1, SHA256], &[SHA1, SHA256, SHA384, SHA512], &[SHA384]] {
            let mut boot = Boot::new(kind, banks, Defects::default());
            assert_eq!(boot.measure(), Ok(()));
            let log = boot.log();
            assert!(log.algorithms.keys().eq(banks));
            for &bank in banks {
                let pcrs = log.replay(bank);
                for number in 0..24 {
                    let zero = vec![0; digest(bank, b"").len()];
                    let replayed = pcrs.get(&(number as u32)).unwrap_or(&zero);
                    assert_eq!(replayed, &boot.pcr(bank, number), "{bank:#x} {number}");
                }
                let separated = extended(bank, &[&[0; 4]]);
                assert!((1..8).all(|number| boot.pcr(bank, number) == separated));
                assert_eq!(boot.pcr(bank, 8), extended(bank, &[COMMAND_LINE]));
                let kernel = [setup_as_measured(), kernel()].concat();
                assert_eq!(boot.pcr(bank, 9), extended(bank, &[&kernel, &initrd()]));
            }
            let kinds: Vec<_> = log.events.iter().map(|event| (event.pcr, event.kind)).collect();
            let separators = (0..8).map(|pcr| (pcr, 4));
            assert_eq!(
                kinds,
                [(0, 8)].into_iter().chain(separators).chain([(8, 13), (9, 13), (9, 13)]).collect::<Vec<_>>()
            );
            let data: Vec<_> = log.events[9..].iter().map(|event| event.data.as_slice()).collect();
            assert_eq!(data, [b"kernel_cmdline: console=ttyS0 quiet\0".as_slice(), b"kernel\0", b"initrd\0"]);
            let version: Vec<_> =
                log.events[0].data.chunks(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
            assert_eq!(std::string::String::from_utf16(&version).unwrap(), std::format!("{NAME}\0"));
        }
    }
}

#[test]
fn the_operating_system_gets_the_tpm_without_the_platform_hierarchy() {
    for kind in [Kind::Fifo, Kind::Crb] {
        let mut boot = Boot::new(kind, &[SHA256], Defects::default());
        assert_eq!(boot.measure(), Ok(()));
        let tpm = boot.tpm.borrow();
        assert!(!tpm.taken, "locality 0 is released");
        assert_eq!(tpm.password.len(), 20);
        assert_ne!(tpm.password, [0; 20]);
        assert_eq!(tpm.off, []);
        assert_eq!((tpm.commands[..2].to_vec(), tpm.commands.last()), (vec![0x144, 0x17a], Some(&0x129)));
    }
}

#[test]
fn no_password_stays_in_the_command_buffer() {
    let mut boot = Boot::new(Kind::Crb, &[SHA256], Defects::default());
    assert_eq!(boot.measure(), Ok(()));
    let tpm = boot.tpm.borrow();
    assert!(tpm.left.len() > tpm.password.len());
    assert!(tpm.left.iter().all(|&byte| byte == 0), "{:02x?}", tpm.left);
}

#[test]
fn fields_that_a_loader_writes_do_not_change_the_measurement() {
    let mut patched = SETUP.to_vec();
    for (at, bytes) in [
        (0x1fa, [0x17, 0x03].as_slice()),
        (0x210, &[0xb0, SETUP[0x211] | 0x80]),
        (0x218, &[1, 2, 3, 4, 5, 6, 7, 8]),
        (0x224, &[0, 0xfe]),
        (0x228, &[0, 0, 2, 0]),
        (0x250, &[9; 8]),
    ] {
        patched[at..at + bytes.len()].copy_from_slice(bytes);
    }
    let measure = |setup: &[u8]| {
        let mut setup = setup.to_vec();
        forget_loader(&mut setup);
        setup
    };
    assert_ne!(patched, SETUP);
    assert_eq!(measure(&patched), measure(SETUP));
    for at in [0x1f1, 0x211, 0x214, 0x22c, 0x236, 0x260, 0x3ff] {
        let mut other = SETUP.to_vec();
        other[at] ^= 1;
        assert_ne!(measure(&other), measure(SETUP), "{at:#x} is the file's");
    }
    measure(&[]);
    measure(&SETUP[..0x219]);
}

#[test]
fn an_elf_kernel_is_measured_as_it_is_in_memory() {
    let mut boot = Boot::new(Kind::Crb, &[SHA256], Defects::default());
    boot.loaded.setup = None;
    assert_eq!(boot.measure(), Ok(()));
    assert_eq!(boot.pcr(SHA256, 9), extended(SHA256, &[&kernel(), &initrd()]));
}

#[test]
fn a_kernel_without_an_initrd_is_measured_alone() {
    let mut boot = Boot::new(Kind::Crb, &[SHA256], Defects::default());
    boot.loaded.initrd = None;
    assert_eq!(boot.measure(), Ok(()));
    assert_eq!(boot.pcr(SHA256, 9), extended(SHA256, &[&[setup_as_measured(), kernel()].concat()]));
    assert_eq!(boot.log().events.len(), 11);
}

#[test]
fn a_busy_an_untested_and_a_started_tpm_work() {
    let busy = Defects { busy: 5, ..Defects::default() };
    let untested = Defects { untested: true, ..Defects::default() };
    let started = Defects { started: true, ..Defects::default() };
    for defects in [busy, untested, started] {
        let mut boot = Boot::new(Kind::Fifo, &[SHA256], defects);
        assert_eq!(boot.measure(), Ok(()));
        assert_eq!(boot.pcr(SHA256, 8), extended(SHA256, &[COMMAND_LINE]));
    }
}

#[test]
fn a_tpm_that_does_not_answer_is_waited_for_once() {
    let cases = [
        (Defects { no_locality: true, ..Defects::default() }, Wait::Locality),
        (Defects { never_ready: true, ..Defects::default() }, Wait::Readiness),
        (Defects { no_room: true, ..Defects::default() }, Wait::Room),
        (Defects { expects_more: true, ..Defects::default() }, Wait::EndOfCommand),
        (Defects { silent_from: Some(0), ..Defects::default() }, Wait::Response),
        (Defects { silent_from: Some(7), ..Defects::default() }, Wait::Response),
        (Defects { dries_up: Some(4), ..Defects::default() }, Wait::RestOfResponse),
    ];
    for (defects, wait) in cases {
        for kind in [Kind::Fifo, Kind::Crb] {
            if kind == Kind::Crb && matches!(wait, Wait::Room | Wait::EndOfCommand | Wait::RestOfResponse) {
                continue;
            }
            let mut boot = Boot::new(kind, &[SHA256], defects.clone());
            let before = boot.machine.ticks();
            let error = boot.measure().unwrap_err();
            assert_eq!(error, Error::Timeout(wait));
            assert!(error.to_string().starts_with("the TPM does not answer"), "{error}");
            let waited = boot.machine.ticks() - before;
            assert!(waited < Deadline::TICKS * 3 / 2, "{kind:?} {wait:?}: one deadline, not {waited}");
        }
    }
    let mut boot = Boot::new(Kind::Crb, &[SHA256], Defects { failed: true, ..Defects::default() });
    assert_eq!(boot.measure(), Err(Error::Failed));
}

/// A FIFO that accepts or provides nothing except at every ninth read, and then one byte.
struct Dribble {
    tpm: FakeTpm,
    looks: u32,
}

impl FakeRegisters for Dribble {
    fn claims(&self, at: u64) -> bool {
        self.tpm.claims(at)
    }

    fn read(&mut self, at: u64, size: u8) -> u64 {
        let value = self.tpm.read(at, size);
        if at & 0xfff != 0x18 || value & 0xff_ff00 == 0 {
            return value;
        }
        self.looks += 1;
        value & !0xff_ff00 | u64::from(self.looks.is_multiple_of(9)) << 8
    }

    fn write(&mut self, at: u64, size: u8, value: u64, memory: &mut FakeMemory) {
        self.tpm.write(at, size, value, memory);
    }
}

#[test]
fn a_slow_fifo_has_one_deadline_for_all_bytes() {
    let mut boot = Boot::new(Kind::Fifo, &[SHA256], Defects::default());
    let (tpm, state) = FakeTpm::new(Kind::Fifo, &[SHA256], Defects::default());
    boot.machine.registers = vec![std::boxed::Box::new(Dribble { tpm, looks: 0 })];
    boot.machine.ticks_per_look = Deadline::TICKS / 10;
    let before = boot.machine.ticks();
    assert!(matches!(boot.measure(), Err(Error::Timeout(_))));
    let waited = boot.machine.ticks() - before;
    assert!(waited < Deadline::TICKS * 3 / 2, "one deadline, not {}", waited / Deadline::TICKS);
    assert!(state.borrow().commands.len() <= 1);
}

#[test]
fn a_tpm_that_stays_busy_times_out() {
    let busy = Defects { busy: usize::MAX, ..Defects::default() };
    let mut boot = Boot::new(Kind::Fifo, &[SHA256], busy);
    let before = boot.machine.ticks();
    assert_eq!(boot.measure(), Err(Error::Refused(Refusal::new(Code::Startup, 0x922))));
    // And one for the first command that turns off a hierarchy.
    assert!(boot.machine.ticks() - before < Deadline::TICKS * 5 / 2);
}

#[test]
fn absent_registers_are_detected_without_a_wait() {
    let mut boot = Boot::new(Kind::Crb, &[SHA256], Defects::default());
    boot.machine.registers.clear();
    boot.machine.memory.store(0xfed4_0030, &[0xff; 4]);
    boot.machine.memory.store(0xfed4_0f00, &[0xff; 4]);
    assert_eq!(boot.measure(), Err(Error::NoDevice));
}

#[test]
fn a_tpm_1_2_is_left_alone() {
    let mut boot = Boot::new(Kind::Fifo, &[SHA1], Defects { old_family: true, ..Defects::default() });
    let error = boot.measure().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the TPM is one of version 1.2, which is left alone; give the machine a TPM 2.0 (swtpm --tpm2)"
    );
    assert_eq!(boot.tpm.borrow().commands.len(), 1);
}

#[test]
fn a_buffer_outside_the_registers_is_refused() {
    for buffer in [(0xfed4_0082, 0x100), (0xfed4_0080, 0xf81), (0x10_0000, 0x100), (0xfed4_0080 | 1 << 32, 0x100)] {
        let mut boot = Boot::new(Kind::Crb, &[SHA256], Defects { buffer: Some(buffer), ..Defects::default() });
        assert_eq!(boot.measure(), Err(Error::Buffer), "{buffer:x?}");
    }
    let small = Defects { buffer: Some((0xfed4_0080, 11)), ..Defects::default() };
    assert_eq!(Boot::new(Kind::Crb, &[SHA256], small).measure(), Err(Error::TooLong));
}

#[test]
fn an_invalid_response_stops_measuring_and_closes_the_tpm() {
    let broken = |command| Error::Response(command);
    let list = |banks: &[u8]| plain(banks);
    let cases = [
        (0x17a, refuse(0x101), Error::Refused(Refusal::new(Code::GetCapability, 0x101))),
        (0x17a, list(&[]), broken(Code::GetCapability)),
        (0x17a, list(&[1, 0, 0, 0, 5, 0, 0, 0, 0]), broken(Code::GetCapability)),
        (0x17a, list(&[0, 0, 0, 0, 6, 0, 0, 0, 0]), broken(Code::GetCapability)),
        (0x17a, list(&[0, 0, 0, 0, 5, 0, 0, 0, 17]), broken(Code::GetCapability)),
        (0x17a, list(&[0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff]), broken(Code::GetCapability)),
        (0x17a, list(&[0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 11, 5, 1, 1, 1, 1, 1]), broken(Code::GetCapability)),
        (0x17a, list(&[0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 11, 3, 1, 1]), broken(Code::GetCapability)),
        (0x17a, list(&[0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 11, 3, 1, 1, 1, 0]), broken(Code::GetCapability)),
        (0x17a, list(&[0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 11, 1, 1, 0, 11, 1, 1]), broken(Code::GetCapability)),
        (0x17a, list(&[0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 11, 3, 0, 0, 0]), Error::NoBank),
        // The tag of a response with a session; a size below the header's; a size beyond any buffer; a size beyond the
        // response.
        (0x17a, [&[0x80, 2], &plain(&[0; 9])[2..]].concat(), broken(Code::GetCapability)),
        (0x17a, [&[0x80, 1, 0, 0, 0, 9], &plain(&[])[6..]].concat(), broken(Code::GetCapability)),
        (0x17a, [&[0x80, 1, 0xff, 0xff, 0xff, 0xff], &plain(&[])[6..]].concat(), Error::TooLong),
        (0x17a, [&[0x80, 1, 0, 0, 1, 1], &plain(&[])[6..]].concat(), Error::TooLong),
        (0x182, plain(&[0; 9]), broken(Code::PcrExtend)),
        (0x182, refuse(0x95), Error::Refused(Refusal::new(Code::PcrExtend, 0x95))),
    ];
    for (command, response, expected) in cases {
        for kind in [Kind::Fifo, Kind::Crb] {
            let responses = BTreeMap::from([(command, response.clone())]);
            let mut boot = Boot::new(kind, &[SHA256], Defects { responses, ..Defects::default() });
            assert_eq!(boot.measure(), Err(expected), "{response:x?}");
            let tpm = boot.tpm.borrow();
            assert_eq!(tpm.off, [0x4000_000b, 0x4000_0001], "it can vouch for nothing");
            assert_eq!(tpm.password.len(), 20);
            assert!(!tpm.taken);
        }
    }
    let random = BTreeMap::from([(0x17b, plain(&[0, 2, 1, 2]))]);
    let mut boot = Boot::new(Kind::Crb, &[SHA256], Defects { responses: random, ..Defects::default() });
    assert_eq!(boot.measure(), Err(broken(Code::GetRandom)));
}

#[test]
fn a_start_that_fails_is_reported() {
    let responses = BTreeMap::from([(0x144, refuse(0x101))]);
    let mut boot = Boot::new(Kind::Fifo, &[SHA256], Defects { responses, ..Defects::default() });
    let failure = try_measure(&mut boot.machine, &boot.fw_cfg, EventLog::new(boot.log), &boot.loaded).unwrap_err();
    assert_eq!(failure.error.to_string(), "the TPM refused TPM2_Startup: response code 0x101");
    let turn_off_error = Error::Refused(Refusal::new(Code::HierarchyControl, 0x100));
    assert_eq!(failure.turn_off_error, Some(turn_off_error));
}

#[test]
fn pcrs_are_extended_even_if_the_log_is_full() {
    let mut boot = Boot::new(Kind::Crb, &[SHA1, SHA256], Defects::default());
    boot.log = range(0x70_0000, 500);
    // What follows the log is not overwritten.
    boot.machine.memory.store(0x70_0000 + 500, &[0xaa; 100]);
    assert_eq!(boot.measure(), Ok(()));
    assert_eq!(boot.pcr(SHA256, 8), extended(SHA256, &[COMMAND_LINE]));
    let log = boot.log();
    assert!(!log.events.is_empty() && log.events.len() < 12, "{}", log.events.len());
    assert_eq!(boot.machine.memory.bytes(0x70_0000 + 500, 100), [0xaa; 100]);

    let mut boot = Boot::new(Kind::Crb, &[SHA256], Defects::default());
    boot.log = range(0x70_0000, 0);
    assert_eq!(boot.measure(), Ok(()));
    assert_eq!(boot.pcr(SHA256, 8), extended(SHA256, &[COMMAND_LINE]));
}

#[test]
fn the_log_ends_before_the_first_event_that_does_not_fit() {
    // The events with room for `room` bytes. `None` if not even the first event, which describes the log, fits.
    let events = |room: u64| {
        let mut boot = Boot::new(Kind::Crb, &[SHA256], Defects::default());
        boot.log = range(LOG.start().get(), room);
        let command_line = [b'x'; 2000];
        boot.machine.memory.store(0x2_0000, &command_line);
        boot.loaded.command_line = range(0x2_0000, command_line.len() as u64 + 1);
        assert_eq!(boot.measure(), Ok(()));
        let is_empty = boot.machine.memory.bytes(LOG.start().get(), room as usize).iter().all(|&byte| byte == 0);
        (!is_empty).then(|| boot.log().events)
    };
    let all = events(0x1_0000).unwrap();
    // Version, separators, command line, kernel and initrd. The last two are shorter than the command line.
    assert_eq!(all.len(), 1 + 8 + 1 + 2);
    let mut lens = Vec::new();
    for room in (0..3000).step_by(11) {
        let Some(events) = events(room) else { continue };
        assert_eq!(all[..events.len()], events, "{room} bytes");
        lens.push(events.len());
    }
    lens.dedup();
    assert_eq!(lens, (0..=12).collect::<Vec<_>>());
}

/// Collects log messages, separately for each thread.
struct Listener;

std::thread_local! {
    static LINES: RefCell<Vec<std::string::String>> = const { RefCell::new(Vec::new()) };
}

impl log::Log for Listener {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
    }
    fn flush(&self) {}
}

#[test]
fn sixteen_banks_with_unknown_hashes_are_one_warning() {
    log::set_logger(&Listener).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let banks: Vec<u16> = (0x100..0x10f).chain([SHA256]).collect();
    let list = banks.iter().flat_map(|id| [id.to_be_bytes().as_slice(), &[3, 0xff, 0xff, 0xff]].concat());
    let list: Vec<u8> = [0, 0, 0, 0, 5, 0, 0, 0, 16].into_iter().chain(list).collect();
    let responses = BTreeMap::from([(0x17a, plain(&list))]);
    let mut boot = Boot::new(Kind::Crb, &[SHA256], Defects { responses, ..Defects::default() });
    LINES.take();
    assert_eq!(boot.measure(), Ok(()));
    let lines = LINES.take();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(banks[..15].iter().all(|id| lines[0].contains(&std::format!(" {id:#x}"))), "{lines:?}");
}

#[test]
fn a_bank_with_an_unknown_hash_is_capped() {
    let mut boot = Boot::new(Kind::Crb, &[SHA256, SM3, 0x77], Defects::default());
    assert_eq!(boot.measure(), Ok(()));
    assert!((0..10).all(|pcr| boot.pcr(SM3, pcr) == [0xff; 32]));
    assert_eq!(boot.pcr(SM3, 10), [0; 32]);
    assert_eq!(boot.pcr(SHA256, 8), extended(SHA256, &[COMMAND_LINE]));
    assert!(boot.log().algorithms.keys().eq(&[SHA256]));

    let mut boot = Boot::new(Kind::Crb, &[SM3], Defects::default());
    assert_eq!(boot.measure(), Err(Error::NoBank));
    assert_eq!(boot.pcr(SM3, 9), [0xff; 32]);
    assert_eq!(boot.tpm.borrow().off.len(), 2);
}

#[test]
fn setup_code_that_cannot_be_read_is_an_error() {
    let mut boot = Boot::new(Kind::Crb, &[SHA256], Defects::default());
    boot.loaded.setup = Some(Blob::from(Item::new(Key::SETUP_DATA, MAX_SETUP as u32 + 1)));
    assert_eq!(boot.measure(), Err(Error::Setup));
    assert_eq!(boot.tpm.borrow().off.len(), 2);
}

#[test]
fn after_a_suspend_the_state_is_resumed() {
    for kind in [Kind::Fifo, Kind::Crb] {
        let mut boot = Boot::new(kind, &[SHA256], Defects::default());
        boot.tpm.borrow_mut().saved = true;
        assert_eq!(try_resume(&mut boot.machine), Ok(()));
        let tpm = boot.tpm.borrow();
        assert_eq!((tpm.commands.as_slice(), tpm.taken), ([0x144].as_slice(), false));
    }
}

#[test]
fn without_a_saved_state_the_pcrs_show_an_error_after_a_suspend() {
    let mut boot = Boot::new(Kind::Fifo, &[SHA256], Defects::default());
    let expected = Error::Refused(Refusal::new(Code::Startup, 0x1c4));
    assert_eq!(try_resume(&mut boot.machine), Err(expected.into()));
    let error_separator = extended(SHA256, &[&[1, 0, 0, 0]]);
    assert!((0..10).all(|pcr| boot.pcr(SHA256, pcr) == error_separator));
    assert_eq!(boot.tpm.borrow().off.len(), 2);
    assert_eq!(boot.tpm.borrow().password.len(), 20);
}

#[test]
fn commands_have_the_bytes_of_the_specification() {
    assert_eq!(Command::startup(Startup::Clear).unwrap().bytes(), [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0]);
    assert_eq!(Command::startup(Startup::State).unwrap().bytes(), [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 1]);
    let off = Command::turn_off(command::OWNER).unwrap();
    let expected = [
        [0x80, 2, 0, 0, 0, 32, 0, 0, 1, 0x21, 0x40, 0, 0, 0x0c, 0, 0].as_slice(),
        &[0, 9, 0x40, 0, 0, 9, 0, 0, 1, 0, 0, 0x40, 0, 0, 1, 0],
    ];
    assert_eq!(off.bytes(), expected.concat());
    // All possible banks fit.
    let ones = [SHA1, SHA256, SHA384, SHA512].map(|id| Digest::ones(id, 64));
    assert_eq!(Command::extend(9, &ones).unwrap().bytes().len(), 31 + 4 * 66);
}

proptest! {
    #[test]
    fn any_response_is_survived(response: Vec<u8>) {
        let command = Command::list_banks().unwrap();
        let _ = command.parse(&response).and_then(Banks::parse);
        let _ = Banks::parse(&response);
        let _ = check_random(&response);
    }

    #[test]
    fn any_list_of_banks_is_survived(banks in proptest::collection::vec((any::<u16>(), 0_u8..6, any::<u8>()), 0..20)) {
        let mut bytes = vec![0, 0, 0, 0, 5, 0, 0, 0, banks.len() as u8];
        for (id, len, bits) in banks {
            bytes.extend(id.to_be_bytes());
            bytes.push(len);
            bytes.extend((0..len).map(|_| bits));
        }
        if let Ok(banks) = Banks::parse(&bytes) {
            prop_assert!(banks.known.len() <= 4 && banks.others.len() <= 16);
        }
    }
}
