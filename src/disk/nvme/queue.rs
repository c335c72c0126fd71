//! A pair of queues: commands to the controller, and its completions.
//!
//! The controller writes the completions at any time, so each field is read once. A completion that is not of this queue, or whose
//! command is not under way, means that the controller works on commands that nobody knows: it is not used again.
//!
//! The doorbell of completions tells the controller only which entries are free. It is rung when the controller would run out of
//! them, not after each completion: it is an exit.
//!
//! Source: NVM Express Base Specification 1.4, chapter 4.

use super::command::Command;
use super::registers::Registers;
use crate::addr::PhysAddr;
use crate::disk::{Error, wait};
use crate::hal::{BusMaster, Clock, DeviceRange};

/// The bytes of a command, and of a completion.
const COMMAND_LEN: u64 = 64;
const COMPLETION_LEN: u64 = 16;
/// The most commands in a queue: one less than these can be under way.
const COMMANDS: u16 = 16;
/// The most completions in a queue: a page of them.
const COMPLETIONS: u16 = 256;

/// In the last dword of a completion: the status without flags.
const STATUS: u32 = 0x7ff;

/// The pair.
#[derive(Debug)]
pub(super) struct Queue {
    registers: Registers,
    number: u16,
    commands: DeviceRange,
    completions: DeviceRange,
    command_doorbell: PhysAddr,
    completion_doorbell: PhysAddr,
    /// The number of entries.
    command_entries: u16,
    completion_entries: u16,
    /// The next command's entry, which is its identifier too.
    tail: u16,
    /// The next completion's entry, and the phase bit that it will have.
    head: u16,
    phase: u32,
    /// The commands under way, a bit each.
    waiting: u16,
    /// The completions since the doorbell was last rung for them.
    unreported: u16,
}

impl Queue {
    /// The pair with this number, in two pages, which are cleared. The entries of the admin queues (`number` 0) are as many in both.
    pub(super) fn new<M: BusMaster>(
        machine: &mut M,
        registers: Registers,
        number: u16,
        (commands, completions): (DeviceRange, DeviceRange),
    ) -> Result<Self, Error> {
        let (command_doorbell, completion_doorbell) = registers.doorbells(number)?;
        for page in [commands, completions] {
            machine.fill(page.range(), 0)?;
        }
        Ok(Self {
            registers,
            number,
            commands,
            completions,
            command_doorbell,
            completion_doorbell,
            command_entries: registers.entries(COMMANDS),
            completion_entries: registers.entries(if number == 0 { COMMANDS } else { COMPLETIONS }),
            tail: 0,
            head: 0,
            phase: 1,
            waiting: 0,
            unreported: 0,
        })
    }

    /// The memory of commands and of completions.
    pub(super) const fn memory(&self) -> (DeviceRange, DeviceRange) {
        (self.commands, self.completions)
    }

    /// The number of entries for commands and for completions.
    pub(super) const fn entries(&self) -> (u16, u16) {
        (self.command_entries, self.completion_entries)
    }

    /// Whether another command can be put into the queue.
    pub(super) const fn has_room(&self) -> bool {
        self.waiting.count_ones() < self.command_entries.saturating_sub(1) as u32
    }

    /// Puts a command into the queue. There is room.
    pub(super) fn put<M: BusMaster>(&mut self, machine: &mut M, command: &Command) -> Result<(), Error> {
        let entry = entry(self.commands, self.tail, COMMAND_LEN)?;
        machine.write(entry, &command.bytes(self.tail))?;
        self.waiting |= bit(self.tail);
        self.tail = next(self.tail, self.command_entries);
        Ok(())
    }

    /// Has the controller execute the commands in the queue, and waits for all of them.
    ///
    /// # Errors
    /// [`Error::Refused`] with the status of a command that failed. After any other error, the controller may still execute some.
    pub(super) fn execute<M: BusMaster + Clock>(&mut self, machine: &mut M) -> Result<(), Error> {
        // One entry stays free: a queue that is full would look empty.
        if u32::from(self.unreported).saturating_add(self.waiting.count_ones()) >= self.completion_entries.into() {
            machine.write_register32(self.completion_doorbell, self.head.into())?;
            self.unreported = 0;
        }
        machine.order();
        machine.write_register32(self.command_doorbell, self.tail.into())?;
        let mut result = Ok(());
        while self.waiting != 0 {
            let status = self.completion(machine)?;
            if status != 0 {
                result = Err(Error::Refused(status));
            }
        }
        result
    }

    /// Waits for a completion, and returns its status.
    fn completion<M: BusMaster + Clock>(&mut self, machine: &mut M) -> Result<u32, Error> {
        let entry = entry(self.completions, self.head, COMPLETION_LEN)?;
        let field = |offset| entry.checked_add(offset).ok_or(Error::NoRoom);
        let (queue_field, status_field) = (field(8)?, field(12)?);
        let (phase, registers) = (self.phase, self.registers);
        let look = |machine: &mut M| {
            let status = machine.read_register32(status_field)?;
            Ok(Some(status).filter(|status| status >> 16 & 1 == phase))
        };
        let status = wait::until(machine, look, |machine| registers.check_alive(machine))?;
        // The phase bit says that the rest of the entry, and the data, are there.
        machine.order();
        let queue = machine.read_register32(queue_field)?;
        let (head, number, command) = (queue as u16, (queue >> 16) as u16, status as u16);
        if number != self.number || head >= self.command_entries {
            return Err(Error::Broken("a completion of another queue"));
        }
        if command >= self.command_entries || self.waiting & bit(command) == 0 {
            return Err(Error::Broken("a completion of a command that it was not given"));
        }
        self.waiting &= !bit(command);
        self.unreported = self.unreported.saturating_add(1);
        self.head = next(self.head, self.completion_entries);
        if self.head == 0 {
            self.phase ^= 1;
        }
        Ok(status >> 17 & STATUS)
    }
}

/// The bit of a command. It is less than [`COMMANDS`].
const fn bit(command: u16) -> u16 {
    1_u16.wrapping_shl(command as u32)
}

/// The entry after this one.
const fn next(entry: u16, entries: u16) -> u16 {
    let next = entry.saturating_add(1);
    if next < entries { next } else { 0 }
}

fn entry(memory: DeviceRange, number: u16, len: u64) -> Result<PhysAddr, Error> {
    memory.start().checked_add(u64::from(number).saturating_mul(len)).ok_or(Error::NoRoom)
}
