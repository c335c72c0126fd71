//! A split virtqueue (VIRTIO 1.2, 2.7) for requests that the driver waits for.
//!
//! The driver puts one or more requests into the queue, starts all of them by one write of a register, and waits in memory until all
//! are done. So requests use the descriptors from the first one on, and nothing has to be kept about which are free.
//!
//! The layout is that of the legacy interface, which a modern device takes as well: descriptors and the ring of available requests in
//! one page, the ring of used ones in the next.

use super::areas::{ALIGNMENT, Areas, Doorbell};
use super::place::Place;
use crate::addr::{PhysAddr, PhysRange};
use crate::disk::{Error, wait};
use crate::hal::{BusMaster, Clock, DeviceRange, Memory};

/// The most descriptors. A device can have fewer.
const MOST_DESCRIPTORS: u16 = 64;
/// The fewest descriptors that a device must have: for a request with data.
const FEWEST_DESCRIPTORS: u16 = 4;
/// The distance of the used ring from the descriptors.
const USED: u64 = ALIGNMENT.bytes();
/// The distance of the first byte after all rings from the descriptors. The used ring has at most 6 + 8 * 64 bytes.
const END: u64 = USED + 0x400;
/// The room that a queue with the driver's own structures needs.
pub const ROOM: u64 = 2 * ALIGNMENT.bytes();

/// A bit of the device's status (2.1).
const NEEDS_RESET: u8 = 1 << 6;

/// A descriptor: address (64 bits), length (32), flags and the next one's number (16 each).
const DESCRIPTOR_LEN: u64 = 16;
/// Descriptor flags (2.7.5): another one follows; the device writes the memory.
const NEXT: u16 = 1 << 0;
const WRITE: u16 = 1 << 1;
/// The available ring's first field (2.7.6): the device is not to send interrupts.
const NO_INTERRUPT: u16 = 1 << 0;
/// The position of the index in each of the two rings, and of the first element.
const INDEX: u64 = 2;
const ELEMENTS: u64 = 4;
/// The lengths of elements.
const AVAILABLE_LEN: u64 = 2;
const USED_LEN: u64 = 8;

/// A piece of memory of a request.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// The device reads it.
    Question(DeviceRange),
    /// The device writes it.
    Answer(DeviceRange),
}

/// A queue that is turned on.
#[derive(Debug)]
pub struct Queue {
    number: u16,
    doorbell: Doorbell,
    areas: Areas,
    /// The number of descriptors, a power of two.
    size: u16,
    /// The index of both rings before the requests that are put into the queue.
    index: u16,
    /// The requests that are put into the queue, and their descriptors.
    requests: u16,
    descriptors: u16,
    /// The most bytes that the device may write for one of them.
    most: u32,
    /// Whether the device broke the specification or did not answer.
    is_dead: bool,
}

impl Queue {
    /// Turns on the device's queue with this number. It takes the first bytes of `room`, which has [`ROOM`] bytes, starts on a page
    /// and is cleared. Returns the rest of [`ROOM`] too.
    pub fn turn_on(
        machine: &mut impl BusMaster,
        place: &Place,
        number: u16,
        room: PhysRange,
    ) -> Result<(Self, DeviceRange), Error> {
        if room.len() < ROOM || !room.start().is_aligned(ALIGNMENT) {
            return Err(Error::NoRoom);
        }
        let (rings, rest) = machine.lend(room)?.split_at(END);
        machine.fill(room, 0)?;
        let most = place.select_queue(machine, number)?.min(MOST_DESCRIPTORS.into()) as u16;
        if most < FEWEST_DESCRIPTORS {
            return Err(Error::Broken("its queue is absent or too short"));
        }
        // The largest power of two that is not larger.
        let size = 1_u16 << most.ilog2();
        let position = |distance| rings.start().checked_add(distance).ok_or(Error::NoRoom);
        let descriptors = position(0)?;
        let areas = Areas {
            descriptors,
            available: position(DESCRIPTOR_LEN.saturating_mul(size.into()))?,
            used: position(USED)?,
        };
        machine.write_register16(areas.available, NO_INTERRUPT)?;
        let doorbell = place.turn_on_queue(machine, size, &areas)?;
        let this =
            Self { number, doorbell, areas, size, index: 0, requests: 0, descriptors: 0, most: 0, is_dead: false };
        Ok((this, rest))
    }

    /// The most pieces of memory that all requests together can have.
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// Puts a request into the queue, after those that are there.
    ///
    /// # Errors
    /// [`Error::NoRoom`] if there are not enough descriptors; [`Error::Timeout`] if the device is dead.
    pub fn put(&mut self, machine: &mut impl Memory, parts: &[Part]) -> Result<(), Error> {
        if self.is_dead {
            return Err(Error::Timeout);
        }
        let head = self.descriptors;
        let mut at = slot(self.areas.descriptors, 0, head, DESCRIPTOR_LEN)?;
        let (mut number, mut most) = (head, 0_u64);
        for (position, part) in parts.iter().enumerate() {
            number = number.saturating_add(1);
            if number > self.size {
                return Err(Error::NoRoom);
            }
            let follows = if position.saturating_add(1) < parts.len() { NEXT } else { 0 };
            let (range, flags) = match *part {
                Part::Question(range) => (range, follows),
                Part::Answer(range) => (range, follows | WRITE),
            };
            if flags & WRITE != 0 {
                most = most.saturating_add(range.len());
            }
            let mut descriptor = [0; DESCRIPTOR_LEN as usize];
            let (address, rest) = descriptor.split_at_mut(8);
            let (len, rest) = rest.split_at_mut(4);
            let (flag, next) = rest.split_at_mut(2);
            address.copy_from_slice(&range.start().get().to_le_bytes());
            len.copy_from_slice(&u32::try_from(range.len()).map_err(|_| Error::NoRoom)?.to_le_bytes());
            flag.copy_from_slice(&flags.to_le_bytes());
            next.copy_from_slice(&number.to_le_bytes());
            machine.write(at, &descriptor)?;
            at = at.checked_add(DESCRIPTOR_LEN).ok_or(Error::NoRoom)?;
        }
        let ring = self.index.wrapping_add(self.requests);
        machine.write_register16(self.element(self.areas.available, ring, AVAILABLE_LEN)?, head)?;
        self.requests = self.requests.saturating_add(1);
        self.descriptors = number;
        self.most = self.most.max(u32::try_from(most).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Has the device execute all requests, and waits until it has. Returns how many bytes it says it has written for the last one,
    /// which some devices say wrongly (2.7.8.2), but not more than there are.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Broken`]: the device is dead then.
    pub fn run(&mut self, machine: &mut (impl BusMaster + Clock), place: &Place) -> Result<u32, Error> {
        if self.is_dead {
            return Err(Error::Timeout);
        }
        self.is_dead = true;
        let written = self.start_and_wait(machine, place)?;
        self.is_dead = false;
        Ok(written)
    }

    fn start_and_wait(&mut self, machine: &mut (impl BusMaster + Clock), place: &Place) -> Result<u32, Error> {
        let (before, descriptors, most) = (self.index, self.descriptors, self.most);
        self.index = before.wrapping_add(self.requests);
        (self.requests, self.descriptors, self.most) = (0, 0, 0);
        let (wanted, all) = (self.index, self.index.wrapping_sub(before));
        // The requests are in memory before the index, and the index before the register.
        machine.order();
        machine.write_register16(slot(self.areas.available, INDEX, 0, 0)?, wanted)?;
        machine.order();
        match self.doorbell {
            Doorbell::Word(at) => machine.write_register16(at, self.number)?,
            Doorbell::Dword(at) => machine.write_register32(at, self.number.into())?,
        }
        let used = slot(self.areas.used, INDEX, 0, 0)?;
        let look = |machine: &mut _| {
            let index = Memory::read_register16(machine, used)?;
            if index.wrapping_sub(before) > all {
                return Err(Error::Broken("it says that it has executed requests that there were not"));
            }
            Ok((index == wanted).then_some(()))
        };
        // A device that needs a reset executes nothing more (2.1.1).
        let is_alive = |machine: &mut _| match place.status(machine)? & NEEDS_RESET {
            0 => Ok(()),
            _ => Err(Error::Broken("it needs a reset")),
        };
        wait::until(machine, look, is_alive)?;
        machine.order();
        let mut len = 0;
        for number in 0..all {
            let at = self.element(self.areas.used, before.wrapping_add(number), USED_LEN)?;
            let head = machine.read_register32(at)?;
            len = machine.read_register32(at.checked_add(4).ok_or(Error::NoRoom)?)?;
            if head >= descriptors.into() {
                return Err(Error::Broken("it says that it has executed a request that there was not"));
            }
            if len > most {
                return Err(Error::Broken("it says that it has written more than it was given"));
            }
        }
        Ok(len)
    }

    /// The address of an element of a ring. `number` counts on and on.
    fn element(&self, ring: PhysAddr, number: u16, len: u64) -> Result<PhysAddr, Error> {
        slot(ring, ELEMENTS, number & self.size.wrapping_sub(1), len)
    }
}

/// The address of an element with this number and length, of a list that starts `from` bytes after `area`.
fn slot(area: PhysAddr, from: u64, number: u16, len: u64) -> Result<PhysAddr, Error> {
    let distance = u64::from(number).saturating_mul(len).saturating_add(from);
    area.checked_add(distance).ok_or(Error::NoRoom)
}
