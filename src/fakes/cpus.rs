//! A machine with several CPUs, for tests. The other CPUs react to messages from the boot CPU's local APIC, execute the
//! AP mailbox in memory as `src/firmware/machine/startup.s` does, and can misbehave on purpose.

extern crate std;

use std::boxed::Box;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::Vec;

use super::machine::{FakeMachine, FakeMemory};
use crate::hal::Cpuid;
use crate::hal::startup::CODE_LEN;

/// The state of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Reset: after power-on or after INIT.
    Waiting,
    /// It has executed the start-up code and has halted.
    Halted,
}

/// A CPU other than the boot CPU.
pub struct FakeCpu {
    pub state: State,
    pub id: u8,
    pub msrs: BTreeMap<u32, u64>,
    /// It ignores start-up messages.
    pub deaf: bool,
}

/// The CPUs other than the boot CPU.
#[derive(Default)]
pub struct FakeCpus {
    pub cpus: Vec<FakeCpu>,
    /// The messages that they got, with the register that each was written to.
    pub messages: Vec<(u64, u32)>,
    /// The code at the start of their page when they began there.
    pub code: Vec<u8>,
}

/// A machine whose local APIC has `base` in IA32_APIC_BASE, and `others` CPUs besides the boot CPU.
pub fn machine(others: usize, base: u64) -> (FakeMachine, Rc<RefCell<FakeCpus>>) {
    // The last one comes first, and identifiers have gaps.
    let cpu = |id: usize| FakeCpu { state: State::Waiting, id: id as u8, msrs: BTreeMap::new(), deaf: false };
    let cpus = FakeCpus { cpus: (0..others).rev().map(|i| cpu(2 * i + 1)).collect(), ..FakeCpus::default() };
    let cpus = Rc::new(RefCell::new(cpus));
    let mut machine = FakeMachine::new();
    machine.cpuid.insert((1, 0), Cpuid { edx: 1 << 9, ..Cpuid::default() });
    machine.msrs.insert(0x1b, base);
    let hearers = cpus.clone();
    machine.on_message =
        Some(Box::new(move |register, message, memory| hearers.borrow_mut().hear(register, message, memory)));
    (machine, cpus)
}

impl FakeCpus {
    fn hear(&mut self, register: u64, message: u32, memory: &mut FakeMemory) {
        self.messages.push((register, message));
        match message & 0x700 {
            0x500 => self.cpus.iter_mut().for_each(|cpu| cpu.state = State::Waiting),
            0x600 => {
                let page = u64::from(message & 0xff) << 12;
                self.code = memory.bytes(page, CODE_LEN);
                self.cpus.iter_mut().for_each(|cpu| cpu.run(page + CODE_LEN as u64, memory));
            }
            _ => panic!("an unknown message {message:#x}"),
        }
    }
}

impl FakeCpu {
    /// What `startup.s` does.
    fn run(&mut self, mailbox: u64, memory: &mut FakeMemory) {
        if self.deaf || self.state != State::Waiting {
            return;
        }
        let u16_at = |at: u64| u16::from_le_bytes(memory.bytes(mailbox + at, 2).try_into().unwrap());
        let u32_at = |at: u64| u32::from_le_bytes(memory.bytes(mailbox + at, 4).try_into().unwrap());
        let u64_at = |at: u64| u64::from_le_bytes(memory.bytes(mailbox + at, 8).try_into().unwrap());
        for write in 0..u64::from(u32_at(4)) {
            let at = 20 + 12 * write;
            self.msrs.insert(u32_at(at), u64_at(at + 4));
        }
        let locked = self.msrs.get(&0x3a).is_some_and(|value| value & 1 != 0);
        if !locked && u32_at(8) != 0 {
            self.msrs.insert(0x3a, u64_at(8));
        }
        let (next, most) = (u16_at(16), u16_at(18));
        let done = u32_at(0) + 1;
        memory.store(mailbox + 16, &(next + 1).to_le_bytes());
        if next < most {
            memory.store(mailbox + 20 + 12 * 20 + u64::from(next), &[self.id]);
        }
        memory.store(mailbox, &done.to_le_bytes());
        self.state = State::Halted;
    }
}
