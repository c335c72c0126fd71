//! A port: commands that its device executes, one after the other.
//!
//! The end of a command is a message of the device, which the port writes to memory. So issuing it is the only access to a register.
//! The next command takes another slot, if there are two: the port may still be about to free the first one.
//!
//! Sources: Serial ATA AHCI 1.3.1, chapters 4 (structures in memory) and 5.5; Serial ATA 3.0, 10.3.5 (the message).

use super::ata::{self, Message};
use super::registers::{BUSY, DATA_REQUEST, ERROR, FAULT, PortRegisters};
use crate::addr::{PhysAddr, PhysRange};
use crate::disk::scsi::{Command, LogicalUnit, Outcome, Sense};
use crate::disk::{Error, wait};
use crate::hal::{BusMaster, Clock, DeviceRange};

/// The length of a list of commands, of which two are used, and of what the device sends.
pub(super) const LIST_LEN: u64 = 1024;
pub(super) const RECEIVED_LEN: u64 = 256;
/// The length of the table with a command, its packet and one range of memory.
pub(super) const TABLE_LEN: u64 = 0x90;

/// The most bytes of a command: those of a range of memory, of which there is one.
pub(super) const MOST_BYTES: u64 = 4 << 20;

/// Bytes of a command in the list.
const HEADER_LEN: u64 = 32;
/// In the table: the packet, the range.
const PACKET: u64 = 0x40;
const RANGE: u64 = 0x80;
/// In the header: the length of the message in dwords; there is a packet.
const MESSAGE_DWORDS: u32 = (ata::MESSAGE_LEN / 4) as u32;
const HAS_PACKET: u32 = 1 << 5;
/// In what the device sends: the message at the end of a command, and its first byte.
const ENDED: u64 = 0x40;
const DEVICE_TO_HOST: u32 = 0x34;
/// The bytes of a drive's answer about an error.
pub(super) const SENSE_LEN: u64 = 18;

/// A port that executes commands.
#[derive(Debug)]
pub(super) struct Port {
    registers: PortRegisters,
    list: DeviceRange,
    received: DeviceRange,
    /// The table of a command, for all ports.
    table: DeviceRange,
    /// Memory for a drive's answer about an error, for all ports.
    sense: DeviceRange,
    /// The next command's slot, and which bits of it change from one command to the next.
    slot: u8,
    other_slot: u8,
}

/// The memory of a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// Its list of commands, and what the device sends.
    pub(super) list: DeviceRange,
    pub(super) received: DeviceRange,
    /// For all ports: the table of a command, and a drive's answer about an error.
    pub(super) table: DeviceRange,
    pub(super) sense: DeviceRange,
}

/// How a command ended.
struct Ended {
    status: u8,
    error: u8,
    /// The bytes that were transferred.
    bytes: u64,
}

impl Ended {
    const fn has_failed(&self) -> bool {
        self.status & (ERROR | FAULT) != 0
    }

    fn refused(&self) -> Error {
        Error::Refused(u16::from_be_bytes([self.status, self.error]).into())
    }
}

/// How a command tells that it has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// By a message.
    Message,
    /// By a message if it fails.
    Silent,
}

impl Port {
    /// Starts a port. Returns its device's signature too.
    pub(super) fn start<M: BusMaster + Clock>(
        machine: &mut M,
        registers: PortRegisters,
        place: Place,
        has_two_slots: bool,
    ) -> Result<(Self, u32), Error> {
        registers.stop(machine)?;
        let Place { list, received, table, sense } = place;
        for range in [list, received] {
            machine.fill(range.range(), 0)?;
        }
        machine.order();
        let signature = registers.start(machine, list, received)?;
        Ok((Self { registers, list, received, table, sense, slot: 0, other_slot: has_two_slots.into() }, signature))
    }

    /// Asks a disk what it is, and puts the answer into `into`.
    pub(super) fn identify<M: BusMaster + Clock>(&mut self, machine: &mut M, into: DeviceRange) -> Result<(), Error> {
        self.data_command(machine, &ata::identify(), into, End::Silent)
    }

    /// Reads blocks of a disk into all of `into`, which has at most [`MOST_BYTES`].
    pub(super) fn read<M: BusMaster + Clock>(
        &mut self,
        machine: &mut M,
        first: u64,
        blocks: u16,
        into: DeviceRange,
    ) -> Result<(), Error> {
        self.data_command(machine, &ata::read(first, blocks), into, End::Message)
    }

    /// Executes a command that fills all of `into`.
    fn data_command<M: BusMaster + Clock>(
        &mut self,
        machine: &mut M,
        message: &Message,
        into: DeviceRange,
        end: End,
    ) -> Result<(), Error> {
        let ended = self.execute(machine, message, None, into, end)?;
        if ended.has_failed() {
            self.registers.recover(machine)?;
            return Err(ended.refused());
        }
        if ended.bytes == into.len() {
            Ok(())
        } else {
            Err(Error::Broken("it has read fewer bytes than it was asked for"))
        }
    }

    /// Executes a command, whose data goes to `into`.
    fn execute<M: BusMaster + Clock>(
        &mut self,
        machine: &mut M,
        message: &Message,
        packet: Option<&[u8; 16]>,
        into: DeviceRange,
        end: End,
    ) -> Result<Ended, Error> {
        machine.write(self.table.start(), message)?;
        let mut flags = MESSAGE_DWORDS;
        if let Some(packet) = packet {
            machine.write(at(self.table, PACKET)?, packet)?;
            flags |= HAS_PACKET;
        }
        if !into.is_empty() {
            flags |= 1 << 16;
            machine.write_register64(at(self.table, RANGE)?, into.start().get())?;
            // Its length less one.
            machine.write_register64(at(self.table, RANGE + 8)?, into.len().saturating_sub(1) << 32)?;
        }
        let header = at(self.list, u64::from(self.slot).saturating_mul(HEADER_LEN))?;
        let table = self.table.start().get();
        // The number of bytes that were transferred is in the upper half of the first quadword.
        for (offset, value) in [(0, u64::from(flags)), (8, table)] {
            machine.write_register64(header.checked_add(offset).ok_or(Error::NoRoom)?, value)?;
        }
        let ended = at(self.received, ENDED)?;
        machine.write_register32(ended, 0)?;
        machine.order();
        self.registers.issue(machine, self.slot)?;

        let (registers, slot) = (self.registers, self.slot);
        let look = |machine: &mut M| {
            let message = machine.read_register32(ended)?;
            let is_there = message & 0xff == DEVICE_TO_HOST;
            match message >> 16 {
                status if is_there && status as u8 & (BUSY | DATA_REQUEST) == 0 => Ok(Some(status)),
                _ if end == End::Silent => registers.ended(machine, slot),
                _ => Ok(None),
            }
        };
        let [status, error, ..] = wait::until(machine, look, |machine| registers.check_alive(machine))?.to_le_bytes();
        machine.order();
        self.slot ^= self.other_slot;
        let bytes = machine.read_register32(header.checked_add(4).ok_or(Error::NoRoom)?)?.into();
        Ok(Ended { status, error, bytes })
    }

    /// Stops the port: afterwards it accesses no memory.
    pub(super) fn stop<M: BusMaster + Clock>(&self, machine: &mut M) -> Result<(), Error> {
        self.registers.stop(machine)
    }
}

impl<M: BusMaster + Clock> LogicalUnit<M> for Port {
    fn execute(&mut self, machine: &mut M, command: Command, into: PhysRange) -> Result<Outcome, Error> {
        let into = machine.lend(into)?;
        match self.packet(machine, command, into)? {
            Ok(written) => Ok(Outcome::Good(written)),
            Err(_) => {
                machine.fill(self.sense.range(), 0)?;
                let request = Command::request_sense(SENSE_LEN as u8);
                self.packet(machine, request, self.sense)?.map_err(|ended| ended.refused())?;
                let mut answer = [0; SENSE_LEN as usize];
                machine.read(self.sense.start(), &mut answer)?;
                Ok(Outcome::Check(Sense::parse(&answer)))
            }
        }
    }
}

impl Port {
    /// Has a drive execute a command. Returns the bytes that it has written, or how it has failed.
    fn packet<M: BusMaster + Clock>(
        &mut self,
        machine: &mut M,
        Command(packet): Command,
        into: DeviceRange,
    ) -> Result<Result<u64, Ended>, Error> {
        let [.., a, b, c, d] = packet;
        if [a, b, c, d] != [0; 4] {
            return Err(Error::Unsupported("a CD with more than 2^32 blocks"));
        }
        let ended = self.execute(machine, &ata::packet(), Some(&packet), into, End::Message)?;
        if ended.has_failed() {
            self.registers.recover(machine)?;
            return Ok(Err(ended));
        }
        Ok(Ok(ended.bytes))
    }
}

fn at(range: DeviceRange, offset: u64) -> Result<PhysAddr, Error> {
    range.start().checked_add(offset).ok_or(Error::NoRoom)
}
