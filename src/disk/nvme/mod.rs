//! Disks behind an NVMe controller: PCI class 01, subclass 08, programming interface 02.
//!
//! One pair of queues for reads. Their data goes straight into the caller's memory. A read is split at the controller's longest
//! transfer, and the pieces go to it together: the doorbell is the only access to a register for up to 2 MiB. The end of a command
//! is a bit in memory.
//!
//! Memory: queues, one page for data about namespaces, and one for lists of pages.
//!
//! Assumed: function 0 of the controller is the firmware's alone. Left out: blocks with metadata, zoned namespaces, interrupts,
//! controllers whose smallest page is larger than 4 KiB, and the notice before the power goes, because the machine stays on.
//!
//! Sources: NVM Express Base Specification 1.4; QEMU `hw/nvme/ctrl.c`.

mod command;
mod identify;
mod queue;
mod registers;
#[cfg(test)]
mod tests;

use arrayvec::ArrayVec;

use self::command::Command;
use self::identify::Namespace;
use self::queue::Queue;
use self::registers::Registers;
use super::{Controller, Error, Unit, UnitAddress};
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::hal::{BusMaster, Clock, DeviceRange};

/// The most namespaces of a controller that are looked at.
pub const MOST_NAMESPACES: usize = 32;

/// The length of a page, for the controller too.
const PAGE: u64 = 4096;
/// The addresses of pages that a list has room for.
const LIST_ENTRIES: u64 = PAGE / 8;
/// The most blocks of a command.
const MOST_BLOCKS: u64 = 1 << 16;
/// The number of the queues for reads.
const READS: u16 = 1;
/// The status of a command with a value that the controller does not know.
const INVALID_FIELD: u32 = 0x02;

/// A controller that is on.
#[derive(Debug)]
pub struct Nvme {
    registers: Registers,
    admin: Queue,
    reads: Queue,
    /// A page for data about namespaces, and for blocks whose final address the controller cannot write.
    aside: DeviceRange,
    /// A page for lists of pages.
    lists: DeviceRange,
    /// The longest transfer in bytes.
    longest: u64,
    /// Whether the controller may execute a command that nobody waits for.
    is_lost: bool,
}

impl Nvme {
    /// The memory that the driver needs, from a page on, in bytes.
    pub const ROOM: u64 = 6 * PAGE;

    /// Turns on the controller with these registers, those of BAR 0. `room` has [`Self::ROOM`] bytes and begins on a page.
    ///
    /// # Errors
    /// [`Error`]. The controller is off then. After [`Error::Timeout`] it may not be, and `room` is not used again.
    #[cold]
    pub fn start<M: BusMaster + Clock>(machine: &mut M, registers: PhysRange, room: PhysRange) -> Result<Self, Error> {
        let registers = Registers::new(machine, registers)?;
        registers.turn_off_if_on(machine)?;
        let mut this = Self::new(machine, registers, room)?;
        match this.set_up(machine) {
            Ok(()) => Ok(this),
            Err(error) => {
                registers.turn_off(machine)?;
                Err(error)
            }
        }
    }

    fn new<M: BusMaster>(machine: &mut M, registers: Registers, room: PhysRange) -> Result<Self, Error> {
        if room.len() < Self::ROOM || !room.start().is_aligned(Alignment::PAGE) {
            return Err(Error::NoRoom);
        }
        let mut rest = machine.lend(room)?;
        let mut page = || {
            let (page, after) = rest.split_at(PAGE);
            rest = after;
            page
        };
        let (admin, reads, aside, lists) = ((page(), page()), (page(), page()), page(), page());
        let admin = Queue::new(machine, registers, 0, admin)?;
        let reads = Queue::new(machine, registers, READS, reads)?;
        Ok(Self { registers, admin, reads, aside, lists, longest: PAGE, is_lost: false })
    }

    /// Turns the controller on, and creates the queues for reads.
    fn set_up<M: BusMaster + Clock>(&mut self, machine: &mut M) -> Result<(), Error> {
        machine.order();
        self.registers.turn_on(machine, self.admin.memory(), self.admin.entries().0)?;
        self.identify(machine, command::CONTROLLER, 0)?;
        let power = machine.read_register8(self.in_data(identify::LONGEST_TRANSFER)?)?;
        self.longest = identify::longest_transfer(power);
        // Before any queue is created (7.4.1). One that refuses has given the queues that it has: whether these are any, shows next.
        match self.admin_command(machine, &Command::one_pair_of_queues()) {
            Ok(()) | Err(Error::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        let (commands, completions) = self.reads.memory();
        let (command_entries, completion_entries) = self.reads.entries();
        self.admin_command(machine, &Command::create_completion_queue(READS, completions, completion_entries))?;
        self.admin_command(machine, &Command::create_submission_queue(READS, commands, command_entries))
    }

    fn admin_command<M: BusMaster + Clock>(&mut self, machine: &mut M, command: &Command) -> Result<(), Error> {
        self.admin.put(machine, command)?;
        let result = self.admin.execute(machine);
        self.note(machine, result)
    }

    /// Has what `kind` says in the page for data.
    fn identify<M: BusMaster + Clock>(&mut self, machine: &mut M, kind: u32, namespace: u32) -> Result<(), Error> {
        // A controller that writes nothing there does not describe the one before.
        machine.fill(self.aside.range(), 0)?;
        self.admin_command(machine, &Command::identify(kind, namespace, self.aside))
    }

    /// The numbers of the namespaces that are active, or may be.
    fn namespaces<M: BusMaster + Clock>(&mut self, machine: &mut M) -> Result<ArrayVec<u32, MOST_NAMESPACES>, Error> {
        let mut numbers = ArrayVec::new();
        match self.identify(machine, command::ACTIVE_NAMESPACES, 0) {
            Ok(()) => {}
            // A controller of version 1.0 has no list.
            Err(Error::Refused(INVALID_FIELD)) => {
                self.identify(machine, command::CONTROLLER, 0)?;
                let last = machine.read_register32(self.in_data(identify::LAST_NAMESPACE)?)?;
                // There is room for as many.
                (1..=last).take(MOST_NAMESPACES).for_each(|number| _ = numbers.try_push(number));
                return Ok(numbers);
            }
            Err(error) => return Err(error),
        }
        let mut before = 0;
        for at in (0..PAGE).step_by(4) {
            let number = machine.read_register32(self.in_data(at)?)?;
            if number == 0 {
                break;
            }
            if number <= before {
                return Err(Error::Broken("its list of namespaces is not in order"));
            }
            if numbers.try_push(number).is_err() {
                crate::warn!("NVMe: only the first {MOST_NAMESPACES} namespaces are used");
                break;
            }
            before = number;
        }
        Ok(numbers)
    }

    /// The namespace with this number. `None` if it is not active or cannot be read, with a warning.
    fn namespace<M: BusMaster + Clock>(&mut self, machine: &mut M, number: u32) -> Result<Option<Unit>, Error> {
        match self.identify(machine, command::NAMESPACE, number) {
            Ok(()) => {}
            Err(error @ Error::Refused(_)) => {
                crate::warn!("NVMe namespace {number}: {error}");
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let mut data = [0; identify::NAMESPACE_LEN];
        machine.read(self.aside.start(), &mut data)?;
        match Namespace::parse(&data) {
            Ok(found) => Ok(found.map(|Namespace { media, eui64 }| Unit {
                address: UnitAddress::Namespace { id: number, eui64 },
                media,
            })),
            Err(reason) => {
                crate::warn!("NVMe namespace {number} is left out: {reason}");
                Ok(None)
            }
        }
    }

    /// Reads blocks into memory that the controller can write: it begins at a multiple of 4.
    fn read_direct<M: BusMaster + Clock>(
        &mut self,
        machine: &mut M,
        (namespace, block_len): (u32, u64),
        first: u64,
        into: PhysRange,
    ) -> Result<(), Error> {
        let (mut first, mut rest) = (first, machine.lend(into)?);
        while !rest.is_empty() {
            // A round has at least one command: a queue has room for one, and an empty list for a block.
            let mut used = 0;
            while !rest.is_empty() && self.reads.has_room() {
                let longest = self.longest.min(block_len.saturating_mul(MOST_BLOCKS)).min(rest.len());
                let room = room_in_list(rest, used);
                if room < longest && used != 0 {
                    break;
                }
                let blocks = longest.min(room).checked_div(block_len).unwrap_or(1);
                let (piece, after) = rest.split_at(blocks.saturating_mul(block_len));
                let pages = (piece.start(), self.list_pages(machine, piece, &mut used)?);
                self.reads.put(machine, &Command::read(namespace, first, blocks, pages))?;
                first = first.saturating_add(blocks);
                rest = after;
            }
            let result = self.reads.execute(machine);
            self.note(machine, result)?;
        }
        Ok(())
    }

    /// The second address that a command has for `piece`: of its second page, or of a list of all pages from there on, in the
    /// memory for lists. `used` of its entries are in use, and then more.
    fn list_pages<M: BusMaster>(
        &mut self,
        machine: &mut M,
        piece: DeviceRange,
        used: &mut u64,
    ) -> Result<PhysAddr, Error> {
        let mut pages = pages_after_first(piece);
        let Some(second) = pages.next() else { return Ok(PhysAddr::new(0)) };
        if pages.next().is_none() {
            return Ok(second);
        }
        let list = entry(self.lists, *used)?;
        for page in pages_after_first(piece) {
            machine.write_register64(entry(self.lists, *used)?, page.get())?;
            *used = used.saturating_add(1);
        }
        Ok(list)
    }

    /// Reads blocks to any address, by way of a page.
    fn read_aside<M: BusMaster + Clock>(
        &mut self,
        machine: &mut M,
        unit: (u32, u64),
        first: u64,
        into: PhysRange,
    ) -> Result<(), Error> {
        let blocks_per_page = PAGE.checked_div(unit.1).unwrap_or(1);
        let (mut first, mut rest) = (first, into);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(PAGE);
            let (page, _) = self.aside.split_at(piece.len());
            self.read_direct(machine, unit, first, page.range())?;
            machine.copy(page.range(), piece.start())?;
            first = first.saturating_add(blocks_per_page);
            rest = after;
        }
        Ok(())
    }

    /// Gives up a controller that has not answered, or has answered what it was not asked. The latter may still execute a command.
    fn note<M: BusMaster + Clock>(&mut self, machine: &mut M, result: Result<(), Error>) -> Result<(), Error> {
        match result {
            Ok(()) | Err(Error::Refused(_)) => result,
            Err(error) => {
                self.is_lost = true;
                if error != Error::Timeout {
                    self.registers.turn_off(machine)?;
                }
                result
            }
        }
    }

    /// The address of a byte of the data about a namespace or the controller.
    fn in_data(&self, at: u64) -> Result<PhysAddr, Error> {
        self.aside.start().checked_add(at).ok_or(Error::NoRoom)
    }
}

impl<M: BusMaster + Clock> Controller<M> for Nvme {
    fn units(&mut self, machine: &mut M, found: &mut dyn FnMut(Unit)) -> Result<(), Error> {
        if self.is_lost {
            return Err(Error::Timeout);
        }
        let numbers = self.namespaces(machine)?;
        for &number in &numbers {
            if let Some(unit) = self.namespace(machine, number)? {
                found(unit);
            }
        }
        Ok(())
    }

    fn read(&mut self, machine: &mut M, unit: &Unit, first: u64, into: PhysRange) -> Result<(), Error> {
        unit.media.blocks_in(first, into.len())?;
        let UnitAddress::Namespace { id, .. } = unit.address else { return Err(Error::OutOfRange) };
        if self.is_lost {
            return Err(Error::Timeout);
        }
        let namespace = (id, u64::from(unit.media.block_len.get()));
        if into.start().is_aligned(Alignment::DWORD) {
            self.read_direct(machine, namespace, first, into)
        } else {
            self.read_aside(machine, namespace, first, into)
        }
    }

    fn stop(&mut self, machine: &mut M) -> Result<(), Error> {
        self.is_lost = true;
        let result = self.registers.turn_off(machine);
        result.inspect_err(|error| crate::warn!("NVMe: the controller cannot be turned off: {error}"))
    }
}

/// The bytes from the start of `rest` on that a command can name if `used` entries of the list are in use.
fn room_in_list(rest: DeviceRange, used: u64) -> u64 {
    let in_first_page = PAGE.saturating_sub(rest.start().get() & (PAGE - 1));
    in_first_page.saturating_add(LIST_ENTRIES.saturating_sub(used).saturating_mul(PAGE))
}

/// The pages of `piece` after the one that it begins in.
fn pages_after_first(piece: DeviceRange) -> impl Iterator<Item = PhysAddr> {
    let pages = piece.range().pages();
    (pages.start().get()..pages.end().get()).step_by(PAGE as usize).skip(1).map(PhysAddr::new)
}

/// The address of an entry of the list.
fn entry(lists: DeviceRange, number: u64) -> Result<PhysAddr, Error> {
    let at = number.checked_mul(8).filter(|&at| at < PAGE);
    at.and_then(|at| lists.start().checked_add(at)).ok_or(Error::NoRoom)
}
