//! Disks and CD drives behind an AHCI controller: PCI class 01, subclass 06, programming interface 01.
//!
//! A port without a device costs a read of a register, and no memory. Of the others one executes a command at a time, which reads
//! up to 4 MiB straight into the caller's memory. The end of a command is in memory, so its start is the only access to a register.
//!
//! Memory: a list of commands for each port and what its device sends, one table for a command, and a page for answers.
//!
//! Assumed: links are up, as they are in virtual machines after a reset. Left out: port multipliers, native command queueing,
//! disks without addresses of 48 bits, the hand-over from a BIOS (CAP2.BOH), which no virtual machine has, and IDE.
//!
//! Sources: Serial ATA AHCI 1.3.1; QEMU `hw/ide/ahci.c`.

mod ata;
mod port;
mod registers;
#[cfg(test)]
mod tests;

use arrayvec::ArrayVec;

use self::port::{LIST_LEN, MOST_BYTES, Place, Port, RECEIVED_LEN, SENSE_LEN, TABLE_LEN};
use self::registers::Registers;
use super::scsi::{self, Patience};
use super::{Controller, Error, Media, Unit, UnitAddress};
use crate::addr::{Alignment, PhysRange};
use crate::hal::{BusMaster, Clock, DeviceRange};

/// The most ports with a device.
pub const MOST_PORTS: usize = 8;

const PAGE: u64 = 4096;
/// In the room: the lists, what devices send, the table, answers about errors, the page for answers.
const LISTS: u64 = 0;
const RECEIVED: u64 = LISTS + MOST_PORTS as u64 * LIST_LEN;
const TABLE: u64 = RECEIVED + MOST_PORTS as u64 * RECEIVED_LEN;
const SENSE: u64 = TABLE + 0x100;
const ASIDE: u64 = 3 * PAGE;
const _: () = assert!(TABLE_LEN <= SENSE - TABLE && SENSE + SENSE_LEN <= ASIDE && ASIDE + PAGE == Ahci::ROOM);

/// The signatures of devices (Serial ATA AHCI 1.3.1, 3.3.9; Serial ATA 3.0, 11.1).
const DISK: u32 = 0x0000_0101;
const PACKET_DRIVE: u32 = 0xeb14_0101;

/// A controller whose ports are started.
#[derive(Debug)]
pub struct Ahci {
    registers: Registers,
    devices: ArrayVec<Device, MOST_PORTS>,
    /// A page for answers, and for blocks whose final address the controller cannot write.
    aside: DeviceRange,
    /// Whether it can write memory above 4 GiB.
    is_wide: bool,
    /// Whether a port may execute a command that nobody waits for.
    is_lost: bool,
}

/// A device behind a port.
#[derive(Debug)]
struct Device {
    number: u8,
    is_disk: bool,
    port: Port,
}

impl Ahci {
    /// The memory that the driver needs, from a page on, in bytes.
    pub const ROOM: u64 = 4 * PAGE;

    /// Starts the ports with a device, of the controller with these registers, those of BAR 5. `room` has [`Self::ROOM`] bytes and
    /// begins on a page. A port that does not start is left out, with a warning.
    ///
    /// # Errors
    /// [`Error`]. After [`Error::Timeout`] a port may still write `room`, which is not used again.
    #[cold]
    pub fn start<M: BusMaster + Clock>(machine: &mut M, registers: PhysRange, room: PhysRange) -> Result<Self, Error> {
        if room.len() < Self::ROOM || !room.start().is_aligned(Alignment::PAGE) {
            return Err(Error::NoRoom);
        }
        let room = machine.lend(room)?;
        let (registers, capabilities) = Registers::new(machine, registers)?;
        let mut this = Self {
            registers,
            devices: ArrayVec::new(),
            aside: part(room, ASIDE, PAGE),
            is_wide: capabilities.is_wide,
            is_lost: false,
        };
        let mut places = (0..MOST_PORTS as u64).map(|index| Place {
            list: part(room, LISTS.saturating_add(index.saturating_mul(LIST_LEN)), LIST_LEN),
            received: part(room, RECEIVED.saturating_add(index.saturating_mul(RECEIVED_LEN)), RECEIVED_LEN),
            table: part(room, TABLE, TABLE_LEN),
            sense: part(room, SENSE, SENSE_LEN),
        });
        let connected = registers.connected(machine)?;
        for number in (0..32_u8).filter(|&number| connected & 1_u32.wrapping_shl(number.into()) != 0) {
            let Some(place) = places.next() else {
                crate::warn!("AHCI: only the first {MOST_PORTS} ports with a device are used");
                break;
            };
            match Port::start(machine, registers.port(number)?, place, capabilities.has_two_slots) {
                Ok((port, signature @ (DISK | PACKET_DRIVE))) => {
                    // There are as many places.
                    _ = this.devices.try_push(Device { number, is_disk: signature == DISK, port });
                }
                Ok((_, signature)) => {
                    crate::debug!("AHCI port {number}: no disk or CD drive (signature {signature:#x})");
                    this.give_up(machine, number)?;
                }
                Err(error) => {
                    crate::warn!("AHCI port {number} is left out: {error}");
                    this.give_up(machine, number)?;
                }
            }
        }
        Ok(this)
    }

    /// Stops a port that is not used. If it does not stop, the whole controller is reset and not used.
    fn give_up<M: BusMaster + Clock>(&mut self, machine: &mut M, number: u8) -> Result<(), Error> {
        let stopped = self.registers.port(number).and_then(|port| port.stop(machine));
        stopped.or_else(|_| {
            self.is_lost = true;
            self.registers.reset(machine)?;
            Err(Error::Broken("a port does not stop"))
        })
    }

    fn read_from<M: BusMaster + Clock>(
        &mut self,
        machine: &mut M,
        unit: &Unit,
        first: u64,
        into: PhysRange,
    ) -> Result<(), Error> {
        let UnitAddress::Port(number) = unit.address else { return Err(Error::OutOfRange) };
        let device = self.devices.iter_mut().find(|device| device.number == number).ok_or(Error::OutOfRange)?;
        let is_in_reach = self.is_wide || PhysRange::LOW_4_GIB.contains(into);
        if is_in_reach && into.start().is_aligned(Alignment::WORD) {
            return device.read(machine, &unit.media, first, into);
        }
        let blocks_per_page = PAGE.checked_div(unit.media.block_len.get().into()).unwrap_or(1);
        let (mut first, mut rest) = (first, into);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(PAGE);
            let (page, _) = self.aside.range().split_at(piece.len());
            device.read(machine, &unit.media, first, page)?;
            machine.copy(page, piece.start())?;
            first = first.saturating_add(blocks_per_page);
            rest = after;
        }
        Ok(())
    }
}

impl Device {
    /// Its medium. `None` if it is neither a disk nor a CD drive.
    fn media<M: BusMaster + Clock>(
        &mut self,
        machine: &mut M,
        aside: DeviceRange,
        patience: &mut Patience,
    ) -> Result<Option<Media>, Error> {
        if !self.is_disk {
            let (scratch, _) = aside.range().split_at(scsi::SCRATCH);
            return scsi::identify(&mut self.port, machine, scratch, patience);
        }
        let (into, _) = aside.split_at(ata::IDENTITY_LEN as u64);
        self.port.identify(machine, into)?;
        let mut identity = [0; ata::IDENTITY_LEN];
        machine.read(into.start(), &mut identity)?;
        ata::parse(&identity).map(Some).map_err(Error::Unsupported)
    }

    /// Reads blocks to memory that the controller can write.
    fn read<M: BusMaster + Clock>(
        &mut self,
        machine: &mut M,
        media: &Media,
        first: u64,
        into: PhysRange,
    ) -> Result<(), Error> {
        if !self.is_disk {
            return scsi::read(&mut self.port, machine, media, first, into, MOST_BYTES);
        }
        let (mut first, mut rest) = (first, machine.lend(into)?);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(MOST_BYTES);
            // At most 8192.
            let blocks = piece.len().checked_div(media.block_len.get().into()).unwrap_or(0) as u16;
            self.port.read(machine, first, blocks, piece)?;
            first = first.saturating_add(blocks.into());
            rest = after;
        }
        Ok(())
    }
}

impl<M: BusMaster + Clock> Controller<M> for Ahci {
    fn units(&mut self, machine: &mut M, found: &mut dyn FnMut(Unit)) -> Result<(), Error> {
        if self.is_lost {
            return Err(Error::Timeout);
        }
        let mut patience = Patience::default();
        let mut devices = core::mem::take(&mut self.devices);
        while let Some(mut device) = devices.pop_at(0) {
            let number = device.number;
            match device.media(machine, self.aside, &mut patience) {
                Ok(Some(media)) => {
                    found(Unit { address: UnitAddress::Port(number), media });
                    // There is room: it comes from there.
                    _ = self.devices.try_push(device);
                }
                Ok(None) => self.give_up(machine, number)?,
                Err(error) => {
                    crate::warn!("AHCI port {number} is left out: {error}");
                    self.give_up(machine, number)?;
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, machine: &mut M, unit: &Unit, first: u64, into: PhysRange) -> Result<(), Error> {
        unit.media.blocks_in(first, into.len())?;
        if self.is_lost {
            return Err(Error::Timeout);
        }
        let result = self.read_from(machine, unit, first, into);
        self.is_lost |= result == Err(Error::Timeout);
        result
    }

    fn stop(&mut self, machine: &mut M) -> Result<(), Error> {
        let was_lost = core::mem::replace(&mut self.is_lost, true);
        let mut stopped = self.devices.iter().map(|device| device.port.stop(machine));
        let is_stopped = stopped.all(|result| result.is_ok());
        if !was_lost && is_stopped {
            return Ok(());
        }
        let result = self.registers.reset(machine);
        result.inspect_err(|error| crate::warn!("AHCI: the controller cannot be stopped: {error}"))
    }
}

/// The `len` bytes at `offset` of the room, which has them.
fn part(room: DeviceRange, offset: u64, len: u64) -> DeviceRange {
    room.split_at(offset).1.split_at(len).0
}
