//! Reads ahead of who reads a disk in small pieces.
//!
//! Each request to a controller is an exit to the host, and loaders ask for a kernel in pieces of 32 KiB. So a [`Disk`] has a
//! window of memory with what was read last and what follows it:
//!
//! - Who goes on where the last read ended gets all of the window in one request.
//! - A small read elsewhere, as of a table or a directory, gets the first 64 KiB from there on.
//! - A piece of a file elsewhere gets a whole window at first, and then half as much each time that nobody wanted the rest.
//! - Large pieces, and whole blocks that nothing follows, go straight to where the caller wants them.
//!
//! If a request ahead fails, only what was asked for is tried, once.
//!
//! Assumed: nothing else writes the disk meanwhile, or who does so accepts that others read the old bytes. Left out: more than one
//! window for a disk.

use super::{BlockLen, Blocks, Controller, Error, Unit};
use crate::addr::PhysRange;
use crate::hal::{BusMaster, Clock, Memory};

/// Part of a disk, in its blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first block.
    pub first: u64,
    /// The number of blocks.
    pub blocks: u64,
}

/// A disk with its window.
#[derive(Debug)]
pub struct Disk {
    unit: Unit,
    /// The memory of the window: whole blocks.
    window: PhysRange,
    /// Memory for one block: the first or the last of a large piece, of which only a part is wanted.
    edge: PhysRange,
    /// What is in the window.
    held: Held,
    /// Where the last read ended, in bytes.
    next: Option<u64>,
    /// How many bytes a piece of a file elsewhere gets.
    ahead: u64,
    /// Whether the device has not answered. Then it may still write its memory.
    is_dead: bool,
}

/// The contents of the window, in bytes of the disk.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    start: u64,
    len: u64,
    /// How many bytes were asked for when it was filled, from `start` on.
    asked: u64,
    /// Whether it was filled for a piece of a file elsewhere, and nobody has wanted the rest yet.
    is_unused: bool,
}

impl Disk {
    /// The memory that a disk should have: a window of 1 MiB, and a block.
    pub const ROOM: u64 = (1 << 20) + Self::LEAST_ROOM / 2;
    /// The least that it must have. With it there is no reading ahead.
    pub const LEAST_ROOM: u64 = 2 * BlockLen::MOST.get() as u64;
    /// From this length on, a piece of a file is not a small read: as long as one of GRUB's.
    const PIECE: u64 = 32 << 10;
    /// From this length on, a piece is large: a copy takes longer than an exit.
    const LARGE: u64 = 256 << 10;
    /// What a small read gets: a GPT with its entries, or the first part of a FAT.
    const SMALL: u64 = 64 << 10;

    /// The disk, with memory that devices may write.
    ///
    /// # Errors
    /// [`Error::NoRoom`] if the memory is less than [`Self::LEAST_ROOM`].
    pub fn new(unit: Unit, room: PhysRange) -> Result<Self, Error> {
        if room.len() < Self::LEAST_ROOM {
            return Err(Error::NoRoom);
        }
        let (edge, rest) = room.split_at(BlockLen::MOST.get().into());
        let (window, _) = rest.split_at(whole_blocks(rest.len(), unit.media.block_len));
        let ahead = window.len();
        Ok(Self { unit, window, edge, held: Held::default(), next: None, ahead, is_dead: false })
    }

    /// The disk or drive.
    #[must_use]
    pub const fn unit(&self) -> &Unit {
        &self.unit
    }

    /// All of its blocks.
    #[must_use]
    pub const fn whole(&self) -> Extent {
        Extent { first: 0, blocks: self.unit.media.blocks }
    }

    /// A part of it, or all, to be read by `controller`, which is the disk's. Blocks that the disk does not have are left out.
    pub fn view<'d, M, C: ?Sized>(
        &'d mut self,
        machine: &'d mut M,
        controller: &'d mut C,
        part: Extent,
    ) -> View<'d, M, C> {
        let block_len = u64::from(self.unit.media.block_len.get());
        // So every position in bytes is a number of 64 bits.
        let most = self.unit.media.blocks.min(u64::MAX.checked_div(block_len).unwrap_or(0));
        let first = part.first.min(most);
        let blocks = part.blocks.min(most.saturating_sub(first));
        View { disk: self, machine, controller, part: Extent { first, blocks } }
    }

    /// The memory with the bytes from `at` on, up to the end of the window.
    fn find(&self, at: u64) -> Option<PhysRange> {
        let offset = at.checked_sub(self.held.start).filter(|&offset| offset < self.held.len)?;
        let (held, _) = self.window.split_at(self.held.len);
        Some(held.split_at(offset).1)
    }

    /// How many bytes to read for `asked` bytes at `at` that are not in the window.
    fn plan(&mut self, at: u64, asked: u64) -> u64 {
        let all = self.window.len();
        if core::mem::take(&mut self.held.is_unused) {
            self.ahead = (self.ahead / 2).max(Self::SMALL).min(all);
        }
        let end = self.held.start.checked_add(self.held.len).filter(|_| self.held.len != 0);
        if self.next == Some(at) || end == Some(at) {
            self.ahead = all;
            return all;
        }
        if asked < Self::PIECE {
            return Self::SMALL.min(all);
        }
        self.ahead
    }
}

/// The largest number of bytes up to `len` that is whole blocks.
const fn whole_blocks(len: u64, block_len: BlockLen) -> u64 {
    // The length of a block is a power of two.
    len & !(block_len.get() as u64).wrapping_sub(1)
}

/// A part of a disk, with what reads it.
#[derive(Debug)]
pub struct View<'d, M, C: ?Sized> {
    disk: &'d mut Disk,
    machine: &'d mut M,
    controller: &'d mut C,
    part: Extent,
}

/// Where bytes go.
enum Target<'t> {
    Bytes(&'t mut [u8]),
    Memory(PhysRange),
}

impl Target<'_> {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Memory(range) => range.len(),
        }
    }

    /// Copies all of `from`, which is not longer. The rest of the target is left.
    fn fill(&mut self, machine: &mut impl Memory, from: PhysRange) -> Result<(), Error> {
        match self {
            Self::Bytes(bytes) => {
                let (part, rest) = core::mem::take(bytes)
                    .split_at_mut_checked(usize::try_from(from.len()).unwrap_or(usize::MAX))
                    .ok_or(Error::OutOfRange)?;
                machine.read(from.start(), part)?;
                *bytes = rest;
            }
            Self::Memory(range) => {
                let (part, rest) = range.split_at(from.len());
                machine.copy(from, part.start())?;
                *range = rest;
            }
        }
        Ok(())
    }
}

impl<M: BusMaster + Clock, C: Controller<M> + ?Sized> View<'_, M, C> {
    /// Where byte `at` of the part is on the disk, if `len` bytes from there on are within the part.
    fn place(&self, at: u64, len: u64) -> Result<u64, Error> {
        // `Disk::view` has made sure that neither of the two products overflows.
        let block_len = u64::from(self.disk.unit.media.block_len.get());
        let [first, part] = [self.part.first, self.part.blocks].map(|blocks| blocks.saturating_mul(block_len));
        at.checked_add(len).filter(|&end| end <= part).ok_or(Error::OutOfRange)?;
        first.checked_add(at).ok_or(Error::OutOfRange)
    }

    /// Reads the bytes from byte `at` of the disk on into all of `target`.
    fn transfer(&mut self, mut at: u64, mut target: Target<'_>) -> Result<(), Error> {
        let block_len = self.disk.unit.media.block_len;
        let mut is_large = target.len() >= Disk::LARGE;
        if let Some(held) = self.disk.find(at).filter(|_| self.disk.held.is_unused) {
            let end = self.disk.held.len.saturating_sub(held.len()).saturating_add(target.len());
            self.disk.held.is_unused = end <= self.disk.held.asked;
        }
        while target.len() != 0 {
            let (asked, is_whole) = (target.len(), whole_blocks(at, block_len) == at);
            let done = if let Some(held) = self.disk.find(at) {
                let (part, _) = held.split_at(asked);
                target.fill(self.machine, part)?;
                part.len()
            } else if is_large && (!is_whole || asked < block_len.get().into()) {
                self.read_edge(at, &mut target)?
            } else {
                let ahead = self.disk.plan(at, asked);
                let whole = whole_blocks(asked, block_len);
                let is_followed = self.disk.next == Some(at);
                match &mut target {
                    Target::Memory(into)
                        if is_whole
                            && whole != 0
                            && (is_large || ahead <= whole || (asked < Disk::PIECE && !is_followed)) =>
                    {
                        let (part, rest) = into.split_at(whole);
                        self.request(at, part)?;
                        *into = rest;
                        is_large = true;
                        whole
                    }
                    _ => {
                        self.fill(at, asked, ahead)?;
                        continue;
                    }
                }
            };
            at = at.saturating_add(done);
            self.disk.next = Some(at);
        }
        Ok(())
    }

    /// Reads a block of which only a part is wanted. Returns how many bytes of it.
    fn read_edge(&mut self, at: u64, target: &mut Target<'_>) -> Result<u64, Error> {
        let block_len = self.disk.unit.media.block_len;
        let start = whole_blocks(at, block_len);
        let (block, _) = self.disk.edge.split_at(block_len.get().into());
        self.request(start, block)?;
        let (part, _) = block.split_at(at.saturating_sub(start)).1.split_at(target.len());
        target.fill(self.machine, part)?;
        Ok(part.len())
    }

    /// Fills the window with `ahead` bytes, or as many as the disk has. If that fails, with as many as were asked for.
    fn fill(&mut self, at: u64, asked: u64, ahead: u64) -> Result<(), Error> {
        let block_len = self.disk.unit.media.block_len;
        let start = whole_blocks(at, block_len);
        let disk_end = self.disk.unit.media.blocks.saturating_mul(block_len.get().into());
        let most = whole_blocks(disk_end.saturating_sub(start), block_len).min(self.disk.window.len());
        let mut asked = at.saturating_sub(start).saturating_add(asked);
        asked = whole_blocks(asked.saturating_add(u64::from(block_len.get()).wrapping_sub(1)), block_len).min(most);
        let mut len = whole_blocks(ahead, block_len).clamp(asked, most);
        self.disk.held = Held::default();
        if len == 0 {
            return Err(Error::OutOfRange);
        }
        let mut result = self.request(start, self.disk.window.split_at(len).0);
        if result.is_err() && !self.disk.is_dead && len > asked {
            len = asked;
            result = self.request(start, self.disk.window.split_at(len).0);
        }
        result?;
        let is_unused = asked >= Disk::PIECE && len > asked;
        self.disk.held = Held { start, len, asked, is_unused };
        Ok(())
    }

    /// One request: whole blocks.
    fn request(&mut self, at: u64, into: PhysRange) -> Result<(), Error> {
        if self.disk.is_dead {
            return Err(Error::Timeout);
        }
        let block_len = u64::from(self.disk.unit.media.block_len.get());
        let first = at.checked_div(block_len).ok_or(Error::OutOfRange)?;
        let result = self.controller.read(self.machine, &self.disk.unit, first, into);
        if result.is_err() {
            self.disk.next = None;
            self.disk.is_dead = result == Err(Error::Timeout);
        }
        result
    }

    /// After an error nothing that was read before is believed.
    fn checked(&mut self, result: Result<(), Error>) -> Result<(), Error> {
        if result.is_err() {
            self.disk.held = Held::default();
        }
        result
    }
}

impl<M: BusMaster + Clock, C: Controller<M> + ?Sized> Blocks for View<'_, M, C> {
    fn block_len(&self) -> BlockLen {
        self.disk.unit.media.block_len
    }

    fn blocks(&self) -> u64 {
        self.part.blocks
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Error> {
        let at = self.place(at, into.len() as u64)?;
        let result = self.transfer(at, Target::Bytes(into));
        self.checked(result)
    }

    fn load(&mut self, at: u64, into: PhysRange) -> Result<(), Error> {
        let at = self.place(at, into.len())?;
        let result = self.transfer(at, Target::Memory(into));
        self.checked(result)
    }
}

#[cfg(test)]
mod tests;
