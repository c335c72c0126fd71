//! Tests of the TPM at a wake.

use std::boxed::Box;

use super::*;
use crate::fakes::event_log;
use crate::fakes::tpm::{Defects, FakeTpm, Kind, State};

const SHA256: u16 = 0x0b;
const TPM_LOG: &str = "etc/tpm/log";
const STARTUP: u32 = 0x144;

/// A machine that was woken, with a TPM whose log has this many bytes, and memory as the guest left it.
fn woken(memory: FakeMemory, log: Option<usize>, saved: bool) -> (FakeMachine, Rc<RefCell<State>>) {
    let (registers, tpm) = FakeTpm::new(Kind::Crb, &[SHA256], Defects::default());
    tpm.borrow_mut().saved = saved;
    let device = log.map_or_else(|| device("q35"), |len| device("q35").with_file(TPM_LOG, &vec![0; len]));
    let mut machine = reset(memory, device, Q35);
    machine.registers.push(Box::new(registers));
    (machine, tpm)
}

#[test]
fn the_host_says_whether_there_is_a_tpm_to_resume() {
    for (log, commands) in [(Some(0x1_0000), &[STARTUP][..]), (Some(0), &[]), (None, &[])] {
        let (mut machine, tpm) = woken(suspended("q35", Q35, 0x8000), log, true);
        wake_on(&mut machine).unwrap();
        assert_eq!(tpm.borrow().commands, commands, "{log:?}");
    }
}

/// Changes every bit of the record, and corrects its checksum. None has an effect on the TPM.
#[test]
fn the_tpm_is_started_whatever_the_record_says() {
    let intact = suspended("q35", Q35, 0x8000);
    let start = RESUME_RECORD.start().get();
    for bit in 0..8 * 16_u64 {
        let mut memory = intact.clone();
        let at = start + 16 + bit / 8;
        memory.store(at, &[memory.bytes(at, 1)[0] ^ 1 << (bit % 8)]);
        sum_up(&mut memory, 0);
        let (mut machine, tpm) = woken(memory, Some(0x1_0000), true);
        let _ = crate::wake(&mut machine);
        assert_eq!(tpm.borrow().commands, [STARTUP], "bit {bit}");
    }
    let mut memory = intact;
    memory.store(start + 8, &[0xff; 3064]);
    let (mut machine, tpm) = woken(memory, Some(0x1_0000), true);
    assert!(crate::wake(&mut machine).is_err());
    assert_eq!(tpm.borrow().commands, [STARTUP]);
}

/// An operating system may suspend without saving the TPM's state (`TPM2_Shutdown`), to have it started without measurements.
#[test]
fn a_tpm_whose_state_was_not_saved_says_so_and_is_closed() {
    let (mut machine, tpm) = woken(suspended("q35", Q35, 0x8000), Some(0x1_0000), false);
    wake_on(&mut machine).unwrap();
    let tpm = tpm.borrow();
    let separator = event_log::extend(SHA256, &[0; 32], &event_log::digest(SHA256, &[1, 0, 0, 0]));
    for (number, value) in tpm.pcrs[&SHA256][..10].iter().enumerate() {
        assert_eq!(*value, separator, "PCR {number}");
    }
    assert!(!tpm.password.is_empty(), "the platform hierarchy is open");
    assert_eq!(tpm.off, [0x4000_000b, 0x4000_0001], "the hierarchies of endorsement and owner");
}
