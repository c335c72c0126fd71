//! A TPM's registers and responses.
//!
//! Input: the interface, the size of the log, and the defects: registers that read as something else, and changed bytes of
//! responses. Without defects, the TPM works.

use std::cell::RefCell;
use std::rc::Rc;

use arbitrary::Arbitrary;
use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::boot::{Blob, BootModule, Images};
use firstlight::fakes::event_log::Log;
use firstlight::fakes::fw_cfg::FakeFwCfg;
use firstlight::fakes::machine::{FakeMachine, FakeMemory, FakeRegisters};
use firstlight::fw_cfg::{FwCfg, Item, Key};
use firstlight::tpm::{self, Presence};

use crate::device::Override;
use crate::input::Input;

/// The registers of locality 0.
const REGISTERS: std::ops::Range<u64> = 0xfed4_0000..0xfed4_1000;
/// The offset and length of a buffer.
const BUFFER: usize = 0x80;
const BUFFER_LEN: usize = 0xf00;

/// The interface for commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Crb,
    Fifo,
}

/// A changed byte of a response.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
struct Patch {
    command: u8,
    at: u8,
    value: u8,
}

/// Commands that were executed, in order.
pub type Executed = Rc<RefCell<Vec<Vec<u8>>>>;

/// The TPM.
#[derive(Clone, Debug)]
pub struct Tpm {
    kind: Kind,
    overrides: Vec<Override<u16>>,
    patches: Vec<Patch>,
    /// Reads so far.
    reads: u32,
    /// Commands so far.
    commands: u8,
    /// These commands, also of the TPMs that were cloned from this one.
    executed: Executed,
    buffer: [u8; BUFFER_LEN],
    /// Of the FIFO: bytes of the command, then those of the response that are left.
    command: Vec<u8>,
    response: Vec<u8>,
    idle: bool,
}

impl Tpm {
    /// The TPM that `input` describes.
    pub fn take(input: &mut Input<'_>) -> Self {
        let (kind, overrides, patches): (u8, u8, u8) = (input.take(), input.take(), input.take());
        Self {
            kind: if kind & 1 == 0 { Kind::Crb } else { Kind::Fifo },
            overrides: (0..overrides & 7).map(|_| input.take()).collect(),
            patches: (0..patches & 15).map(|_| input.take()).collect(),
            reads: 0,
            commands: 0,
            executed: Executed::default(),
            buffer: [0; BUFFER_LEN],
            command: Vec::new(),
            response: Vec::new(),
            idle: true,
        }
    }

    /// The commands that this TPM, and those that were cloned from it, have executed.
    #[must_use]
    pub fn executed(&self) -> Executed {
        self.executed.clone()
    }

    /// The response to a command.
    fn execute(&mut self, command: &[u8]) -> Vec<u8> {
        // A command has its length; the buffer is longer.
        let len = command.get(2..6).map_or(0, |len| u32::from_be_bytes(len.try_into().unwrap()) as usize);
        self.executed.borrow_mut().push(command.get(..len).unwrap_or(command).to_vec());
        let tag = command.get(..2).map_or([0x80, 1], |tag| [tag[0], tag[1]]);
        let code = command.get(6..10).map_or(0, |code| u32::from_be_bytes(code.try_into().unwrap()));
        let parameters: &[u8] = match code {
            // SHA-1, SHA-256 and one that is not known.
            0x17a => &[0, 0, 0, 0, 5, 0, 0, 0, 3, 0, 4, 3, 255, 255, 255, 0, 11, 3, 255, 255, 255, 0, 0x12, 3, 1, 0, 0],
            0x17b => &[0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20],
            _ => &[],
        };
        let len = (10 + parameters.len()) as u32;
        let mut response = [&tag[..], &len.to_be_bytes(), &[0; 4], parameters].concat();
        for patch in self.patches.iter().filter(|patch| patch.command == self.commands) {
            response.iter_mut().skip(patch.at.into()).take(1).for_each(|byte| *byte = patch.value);
        }
        self.commands = self.commands.wrapping_add(1);
        response
    }

    fn buffer(&mut self, at: usize) -> &mut [u8] {
        self.buffer.get_mut(at.wrapping_sub(BUFFER)..).unwrap_or_default()
    }

    fn register(&mut self, at: usize) -> u32 {
        match (self.kind, at) {
            (Kind::Crb, 0x0c) => 1,
            (Kind::Crb, 0x30) => 1,
            (Kind::Crb, 0x44) => u32::from(self.idle) << 1,
            (Kind::Crb, 0x58 | 0x64) => BUFFER_LEN as u32,
            (Kind::Crb, 0x5c | 0x68) => REGISTERS.start as u32 + BUFFER as u32,
            (Kind::Crb, BUFFER..) => {
                let bytes = self.buffer(at).first_chunk().copied().unwrap_or_default();
                u32::from_le_bytes(bytes)
            }
            (Kind::Fifo, 0x00) => 0xa0,
            (Kind::Fifo, 0x18) => {
                let wanted =
                    self.command.get(2..6).map_or(10, |len| u32::from_be_bytes(len.try_into().unwrap()) as usize);
                let expects = self.command.len() < wanted;
                let answers = !self.response.is_empty();
                0x40 << 8 | 0xc0 | u32::from(answers) << 4 | u32::from(expects) << 3
            }
            _ => 0,
        }
    }
}

/// The TPM where the machine has it.
pub struct Registers(pub Rc<RefCell<Tpm>>);

impl FakeRegisters for Registers {
    fn claims(&self, at: u64) -> bool {
        REGISTERS.contains(&at)
    }

    fn read(&mut self, at: u64, size: u8) -> u64 {
        let at = (at - REGISTERS.start) as usize;
        let tpm = &mut *self.0.borrow_mut();
        tpm.reads += 1;
        let mut value = if tpm.kind == Kind::Fifo && at == 0x24 {
            let len = tpm.response.len().min(size.into());
            tpm.response.drain(..len).rev().fold(0, |value, byte| value << 8 | u32::from(byte))
        } else {
            tpm.register(at)
        };
        for other in &tpm.overrides {
            if usize::from(other.register & 0xfff) == at {
                value = other.apply(tpm.reads, value.into()) as u32;
            }
        }
        value.into()
    }

    fn write(&mut self, at: u64, size: u8, value: u64, _memory: &mut FakeMemory) {
        let at = (at - REGISTERS.start) as usize;
        let tpm = &mut *self.0.borrow_mut();
        match (tpm.kind, at) {
            (Kind::Crb, 0x40) => tpm.idle = value & 2 != 0,
            (Kind::Crb, 0x4c) => {
                let command = tpm.buffer;
                let response = tpm.execute(&command);
                tpm.buffer[..response.len()].copy_from_slice(&response);
            }
            (Kind::Crb, BUFFER..) => {
                tpm.buffer(at).iter_mut().zip(value.to_le_bytes()).take(size.into()).for_each(|(to, from)| *to = from);
            }
            (Kind::Fifo, 0x18) if value & 0x40 != 0 => {
                tpm.command.clear();
                tpm.response.clear();
            }
            (Kind::Fifo, 0x18) if value & 0x20 != 0 => {
                let command = core::mem::take(&mut tpm.command);
                tpm.response = tpm.execute(&command);
            }
            (Kind::Fifo, 0x24) => tpm.command.extend(&value.to_le_bytes()[..size.into()]),
            _ => {}
        }
    }
}

/// The address of the log and of the measured data.
const LOG: u64 = 0x7ff_0000;
const KERNEL: u64 = 0x100_0000;
const INITRD: u64 = 0x200_0000;
const COMMAND_LINE: u64 = 0x2_0000;

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

/// Measures a boot, resumes after a suspend, and marks a boot as unmeasured. Only the log is written, in whole events in the form
/// that verifiers read.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (flags, log_len): (u8, u16) = (input.take(), input.take());
    let log_len = log_len & 0xfff;
    let tpm = Rc::new(RefCell::new(Tpm::take(&mut input)));
    let device = FakeFwCfg::new(true).with_item(0x18, &[0x55; 1024]);
    let mut machine = FakeMachine::new().with(device);
    machine.registers.push(Box::new(Registers(tpm.clone())));
    machine.keeps_accesses = false;
    machine.ticks_per_look = 1 << 31;
    machine.most_steps = 100_000;
    machine.memory.store(COMMAND_LINE, b"console=ttyS0\0");
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    machine.memory.keep_stores();
    let module = BootModule { bytes: range(INITRD, 50), command_line: range(COMMAND_LINE, 14) };
    let loaded = Images {
        setup: Some(Blob::from(Item::new(Key::SETUP_DATA, 1024))),
        kernel: range(KERNEL, 100),
        initrd: (flags & 2 != 0).then_some(range(INITRD, 100)),
        modules: (flags & 4 != 0).then_some(module).into_iter().collect(),
        command_line: range(COMMAND_LINE, 14),
    };
    if flags & (1 | 8) != 0 {
        if flags & 1 != 0 {
            tpm::resume(&mut machine, true)
        } else {
            tpm::measure(&mut machine, &fw_cfg, Presence::Undescribed, &loaded)
        }
        assert!(machine.memory.stores().iter().all(own));
        return;
    }
    let log = range(LOG, log_len.into());
    tpm::measure(&mut machine, &fw_cfg, Presence::Described { log }, &loaded);
    for store in machine.memory.stores() {
        let is_log = log.start().get() <= store.start && store.end <= log.end().get();
        assert!(is_log || own(store), "{store:x?} is written");
    }
    let written = machine.memory.bytes(LOG, log_len.into());
    if written.iter().any(|&byte| byte != 0) {
        Log::parse(&written).unwrap();
    }
}

/// Whether a store is to the memory that the firmware lends to devices.
fn own(store: &std::ops::Range<u64>) -> bool {
    let own = firstlight::layout::FIRMWARE_RAM;
    own.start().get() <= store.start && store.end <= own.end().get()
}

/// TPMs without defects, and with a refusal at each command.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for kind in [0, 1] {
        for flags in [0, 1, 2, 4, 8] {
            for log in [0_u16, 100, 0xffff] {
                seeds.push([&[flags], &log.to_le_bytes()[..], &[kind, 0, 0]].concat());
            }
        }
        for command in 0..20 {
            // TPM_RC_INITIALIZE, and TPM_RC_RETRY.
            for (high, low) in [(0x01, 0x00), (0x09, 0x22)] {
                seeds.push(vec![2, 0xff, 0xff, kind, 0, 2, command, 8, high, command, 9, low]);
            }
        }
        let register = |register: u16, value: u32| {
            [&[2, 0xff, 0xff, kind, 1, 0], &register.to_le_bytes()[..], &[0], &[0xff; 4], &value.to_le_bytes()].concat()
        };
        seeds
            .extend([0x00, 0x0c, 0x18, 0x30, 0x40, 0x44, 0x4c, 0x58, 0x5c, 0x60, 0x64, 0x68].map(|at| register(at, 0)));
        seeds.extend(
            [0x00, 0x0c, 0x18, 0x30, 0x40, 0x44, 0x4c, 0x58, 0x5c, 0x60, 0x64, 0x68].map(|at| register(at, u32::MAX)),
        );
    }
    seeds
}
