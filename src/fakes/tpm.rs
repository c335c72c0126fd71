//! A TPM 2.0 behind either interface. Its PCRs can be read, and it has a choice of defects.

extern crate std;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use super::event_log::extend;
use super::machine::{FakeMemory, FakeRegisters};

const BASE: u64 = 0xfed4_0000;
/// The number of bytes that the FIFO accepts or provides at once. It is not a multiple of four, so that accesses of one
/// byte are needed.
const BURST: usize = 23;

/// The kind of interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Fifo,
    Crb,
}

/// The defects of a TPM.
#[derive(Clone, Debug, Default)]
pub struct Defects {
    /// Locality 0 is never granted.
    pub no_locality: bool,
    /// The TPM is never ready.
    pub never_ready: bool,
    /// It accepts no byte.
    pub no_room: bool,
    /// It expects more bytes than a command has.
    pub expects_more: bool,
    /// It answers no command from this one on, counted from zero.
    pub silent_from: Option<usize>,
    /// The status reports a failure.
    pub failed: bool,
    /// The FIFO provides only this many bytes of a response.
    pub dries_up: Option<usize>,
    /// It is a TPM 1.2.
    pub old_family: bool,
    /// It is already started.
    pub started: bool,
    /// It answers this many times that it is busy.
    pub busy: usize,
    /// Only the start works before a self-test.
    pub untested: bool,
    /// The responses to the commands with these codes.
    pub responses: BTreeMap<u32, Vec<u8>>,
    /// The buffer's address in the registers, and its size.
    pub buffer: Option<(u64, u32)>,
}

/// The state of the TPM. A test can read it while the machine owns the TPM.
#[derive(Default)]
pub struct State {
    /// The values of PCRs 0 to 23 by the bank's `TPM_ALG_ID`; a bank of zero-length values is not active.
    pub pcrs: BTreeMap<u16, Vec<Vec<u8>>>,
    /// The codes of the commands, in order.
    pub commands: Vec<u32>,
    /// The password of the platform hierarchy.
    pub password: Vec<u8>,
    /// What is left of the last command in the buffer.
    pub left: Vec<u8>,
    /// The hierarchies that were turned off.
    pub off: Vec<u32>,
    /// Whether locality 0 is taken.
    pub taken: bool,
    /// Whether there is a state to resume.
    pub saved: bool,
    /// Whether it refuses the next command.
    pub refuses_next: bool,
    started: bool,
    tested: bool,
}

pub struct FakeTpm {
    kind: Kind,
    defects: Defects,
    state: Rc<RefCell<State>>,
    ready: bool,
    command: Vec<u8>,
    response: Vec<u8>,
    given: usize,
    busy: usize,
}

/// The length of the digests of this bank.
fn digest_len(id: u16) -> usize {
    match id {
        0x04 => 20,
        0x0c | 0x28 => 48,
        0x0d | 0x29 => 64,
        _ => 32,
    }
}

impl FakeTpm {
    pub fn new(kind: Kind, banks: &[u16], defects: Defects) -> (Self, Rc<RefCell<State>>) {
        let pcrs = banks.iter().map(|&id| (id, vec![vec![0; digest_len(id)]; 24])).collect();
        let state = State { pcrs, started: defects.started, tested: !defects.untested, ..State::default() };
        let state = Rc::new(RefCell::new(state));
        let busy = defects.busy;
        let this = Self {
            kind,
            defects,
            state: state.clone(),
            ready: false,
            command: Vec::new(),
            response: Vec::new(),
            given: 0,
            busy,
        };
        (this, state)
    }

    fn size(&self) -> usize {
        self.command.get(2..6).map_or(usize::MAX, |size| u32::from_be_bytes(size.try_into().unwrap()) as usize)
    }

    fn go(&mut self) {
        let number = self.state.borrow().commands.len();
        let code = u32::from_be_bytes(self.command[6..10].try_into().unwrap());
        self.state.borrow_mut().commands.push(code);
        self.given = 0;
        self.response = if self.defects.silent_from.is_some_and(|first| number >= first) {
            Vec::new()
        } else if self.defects.old_family {
            vec![0, 0xc4, 0, 0, 0, 10, 0, 0, 0, 0x0a]
        } else if let Some(response) = self.defects.responses.get(&code) {
            response.clone()
        } else if core::mem::take(&mut self.state.borrow_mut().refuses_next) {
            refuse(0x182)
        } else if self.busy > 0 {
            self.busy -= 1;
            refuse(0x922)
        } else {
            let parameters = self.command[10..].to_vec();
            self.state.borrow_mut().execute(code, &parameters)
        };
        self.command.clear();
        self.ready = false;
    }

    fn status(&self) -> u32 {
        let complete = self.command.len() >= self.size() && !self.defects.expects_more;
        let left = self.response.len() - self.given;
        let dry = self.defects.dries_up.is_some_and(|limit| self.given >= limit);
        let burst = match (left, self.ready) {
            _ if dry => 0,
            (0, true) if self.defects.no_room => 0,
            (0, true) => BURST,
            (left, _) => left.min(BURST),
        };
        0x80 | u32::from(self.ready) << 6
            | u32::from(left != 0) << 4
            | u32::from(!self.command.is_empty() && !complete) << 3
            | (burst as u32) << 8
    }

    fn read_fifo(&mut self, offset: u64, size: u8) -> u64 {
        match (offset, size) {
            (0x00, 1) => 0x80 | u64::from(self.state.borrow().taken) << 5,
            (0x18, 4) if self.state.borrow().taken => self.status().into(),
            (0x24, 1 | 4) => (0..size).fold(0, |value, i| {
                let byte = self.response.get(self.given).copied();
                self.given += usize::from(byte.is_some());
                value | u64::from(byte.unwrap_or(0xff)) << (8 * i)
            }),
            (0x30, 4) if self.defects.old_family => 0xffff_ffff,
            (0x30, 4) => 0x2000_0a00,
            (0xf00, 4) => 0x0001_1014,
            _ => panic!("a read of {size} bytes at {offset:#x}"),
        }
    }

    fn write_fifo(&mut self, offset: u64, size: u8, value: u64) {
        match (offset, size, value) {
            (0x00, 1, 0x02) => self.state.borrow_mut().taken = !self.defects.no_locality,
            (0x00, 1, 0x20) => self.state.borrow_mut().taken = false,
            (0x18, 1, 0x40) => {
                self.ready = !self.defects.never_ready;
                self.command.clear();
                self.response.clear();
                self.given = 0;
            }
            (0x18, 1, 0x20) => {
                assert_eq!(self.command.len(), self.size(), "a command is executed that is not complete");
                self.go();
            }
            (0x24, 1 | 4, _) => {
                assert!(self.ready, "the TPM is not ready for a command");
                self.command.extend(&value.to_le_bytes()[..size.into()]);
                assert!(self.command.len() <= self.size(), "bytes behind a command");
            }
            _ => panic!("a write of {size} bytes at {offset:#x}"),
        }
    }

    fn read_crb(&mut self, offset: u64, size: u8) -> u64 {
        assert_eq!(size, 4, "an access at {offset:#x}");
        let (address, len) = self.defects.buffer.unwrap_or((BASE + 0x80, 0xf80));
        match offset {
            0x0c => self.state.borrow().taken.into(),
            0x30 => 0x11,
            0x40 => self.defects.never_ready.into(),
            0x44 => u64::from(self.defects.failed) | u64::from(!self.ready) << 1,
            // Zero once there is a response.
            0x4c => self.response.is_empty().into(),
            0x58 | 0x64 => len.into(),
            0x5c | 0x68 => address & 0xffff_ffff,
            0x60 | 0x6c => address >> 32,
            0x80.. => {
                let mut bytes = [0xff; 8];
                let at = offset as usize - 0x80;
                let there = self.response.get(at..).unwrap_or_default();
                bytes.iter_mut().zip(there).take(4).for_each(|(to, from)| *to = *from);
                u64::from_le_bytes(bytes) & 0xffff_ffff
            }
            _ => panic!("a read at {offset:#x}"),
        }
    }

    fn write_crb(&mut self, offset: u64, size: u8, value: u64) {
        assert_eq!(size, 4, "an access at {offset:#x}");
        match (offset, value) {
            (0x08, 1) => self.state.borrow_mut().taken = !self.defects.no_locality,
            (0x08, 2) => self.state.borrow_mut().taken = false,
            (0x40, 1) => {
                self.ready = true;
                self.command.clear();
            }
            (0x40, 2) => {
                self.ready = false;
                self.state.borrow_mut().left.clone_from(&self.command);
            }
            (0x4c, 1) => {
                self.command.truncate(self.size());
                self.go();
                self.ready = true;
            }
            (0x80.., _) => {
                let at = offset as usize - 0x80;
                assert!(at <= self.command.len(), "a write behind a command");
                match self.command.get_mut(at..).filter(|sent| !sent.is_empty()) {
                    Some(sent) => sent.iter_mut().zip(value.to_le_bytes()).take(4).for_each(|(to, from)| *to = from),
                    None => self.command.extend(&value.to_le_bytes()[..4]),
                }
            }
            _ => panic!("a write at {offset:#x}"),
        }
    }
}

impl State {
    fn execute(&mut self, code: u32, parameters: &[u8]) -> Vec<u8> {
        let u16_at = |at: usize| u16::from_be_bytes(parameters[at..at + 2].try_into().unwrap());
        let u32_at = |at: usize| u32::from_be_bytes(parameters[at..at + 4].try_into().unwrap());
        let authorized = |state: &Self| {
            assert_eq!(parameters[4..17], [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 1, 0, 0]);
            u32_at(0) < 24 || u32_at(0) == 0x4000_000c && state.password.is_empty()
        };
        match code {
            0x144 if self.started => refuse(0x100),
            0x144 => {
                let resumes = u16_at(0) == 1;
                if resumes && !self.saved {
                    return refuse(0x1c4);
                }
                self.started = true;
                plain(&[])
            }
            _ if !self.started => refuse(0x100),
            0x143 => {
                self.tested = true;
                plain(&[])
            }
            _ if !self.tested => refuse(0x153),
            // The manufacturer.
            0x17a if parameters == [0, 0, 0, 6, 0, 0, 1, 5, 0, 0, 0, 1] => {
                plain(&[0, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 1, 5, b'F', b'A', b'K', b'E'])
            }
            0x17a => {
                assert_eq!(parameters, [0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 16]);
                // One bank is there but has no PCR.
                let mut banks = vec![0, 0, 0, 0, 5, 0, 0, 0, self.pcrs.len() as u8 + 1, 0, 0x99, 3, 0, 0, 0];
                for id in self.pcrs.keys() {
                    banks.extend(id.to_be_bytes());
                    banks.extend([3, 0xff, 0xff, 0xff]);
                }
                plain(&banks)
            }
            0x17b => {
                let len = u16_at(0);
                let random = (0..len as u8).map(|i| i.wrapping_mul(41) ^ 0x5a);
                plain(&len.to_be_bytes().into_iter().chain(random).collect::<Vec<_>>())
            }
            0x182 => {
                assert!(authorized(self));
                let mut at = 21;
                for _ in 0..u32_at(17) {
                    let (id, len) = (u16_at(at), digest_len(u16_at(at)));
                    let by = &parameters[at + 2..at + 2 + len];
                    let pcr = &mut self.pcrs.get_mut(&id).expect("an active bank")[u32_at(0) as usize];
                    // An unknown algorithm's PCR at least shows the last digest.
                    *pcr = if len == 32 && id != 0x0b { by.to_vec() } else { extend(id, pcr, by) };
                    at += 2 + len;
                }
                assert_eq!(at, parameters.len());
                with_session()
            }
            0x129 => {
                if !authorized(self) {
                    return refuse(0x9a2);
                }
                assert_eq!(usize::from(u16_at(17)), parameters.len() - 19);
                self.password = parameters[19..].to_vec();
                with_session()
            }
            0x121 => {
                if !authorized(self) {
                    return refuse(0x9a2);
                }
                assert_eq!(parameters[21..], [0]);
                self.off.push(u32_at(17));
                with_session()
            }
            _ => refuse(0x143),
        }
    }
}

fn response(tag: u16, code: u32, parameters: &[u8]) -> Vec<u8> {
    let mut bytes = tag.to_be_bytes().to_vec();
    bytes.extend((10 + parameters.len() as u32).to_be_bytes());
    bytes.extend(code.to_be_bytes());
    bytes.extend(parameters);
    bytes
}

/// A response to a command without a session.
pub fn plain(parameters: &[u8]) -> Vec<u8> {
    response(0x8001, 0, parameters)
}

fn with_session() -> Vec<u8> {
    response(0x8002, 0, &[0, 0, 0, 0, 0, 0, 1, 0, 0])
}

/// A response that refuses a command.
pub fn refuse(code: u32) -> Vec<u8> {
    response(0x8001, code, &[])
}

impl FakeRegisters for FakeTpm {
    fn claims(&self, at: u64) -> bool {
        (BASE..BASE + 0x1000).contains(&at)
    }

    fn read(&mut self, at: u64, size: u8) -> u64 {
        match self.kind {
            Kind::Fifo => self.read_fifo(at - BASE, size),
            Kind::Crb => self.read_crb(at - BASE, size),
        }
    }

    fn write(&mut self, at: u64, size: u8, value: u64, _memory: &mut FakeMemory) {
        match self.kind {
            Kind::Fifo => self.write_fifo(at - BASE, size, value),
            Kind::Crb => self.write_crb(at - BASE, size, value),
        }
    }
}
