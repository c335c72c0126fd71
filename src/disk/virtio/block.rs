//! A virtio block device (VIRTIO 1.2, 5.2).
//!
//! Requests go straight into the caller's memory, and one reads as much as the device takes.

use arrayvec::ArrayVec;

use super::device::Device;
use super::place::Place;
use super::queue::{self, Part};
use crate::addr::PhysRange;
use crate::disk::{BlockLen, Controller, Error, Media, Unit, UnitAddress};
use crate::hal::{BusMaster, Clock, DeviceRange};

/// Features (5.2.3): the most bytes of a segment, the most segments of a request, the device is read-only, the length of a block.
const SIZE_MAX: u64 = 1 << 1;
const SEG_MAX: u64 = 1 << 2;
const READ_ONLY: u64 = 1 << 5;
const BLOCK_SIZE: u64 = 1 << 6;

/// Fields of the configuration (5.2.4): the number of sectors (64 bits), and what the features say is there (32 bits).
const CAPACITY: u64 = 0;
const SIZE_MAX_FIELD: u64 = 8;
const SEG_MAX_FIELD: u64 = 12;
const BLOCK_SIZE_FIELD: u64 = 20;

/// The length of a sector, in which capacity and positions are counted, whatever the length of a block (5.2.4).
const SECTOR: u32 = 512;
/// The only queue that is used.
const QUEUE: u16 = 0;

/// A request's header (5.2.6): type, a reserved field, the first sector. The status follows it here.
const HEADER_LEN: u64 = 16;
/// The type of a request that reads.
const READ: u32 = 0;
/// The status of a request that succeeded.
const OK: u8 = 0;
/// A status that no device writes.
const NO_STATUS: u8 = 0xff;

/// The most bytes of a request. A longer one would save little, and take longer than a device may.
const MOST_BYTES: u64 = 16 << 20;
/// The most pieces that the data of a request are divided into.
const MOST_PIECES: usize = 32;

/// A block device that was started.
#[derive(Debug)]
pub struct Block {
    device: Device,
    media: Media,
    /// A request's header, and its status.
    header: DeviceRange,
    status: DeviceRange,
    /// The most bytes of a piece of data, and of all pieces of a request: a multiple of the block's length.
    most_piece: u64,
    most_bytes: u64,
}

impl Block {
    /// The memory that [`Self::start`] takes, starting on a page.
    pub const ROOM: u64 = queue::ROOM;

    /// Starts the device.
    ///
    /// # Errors
    /// [`Error`]. The device is reset then, if it can be.
    #[cold]
    pub fn start(machine: &mut (impl BusMaster + Clock), place: Place, room: PhysRange) -> Result<Self, Error> {
        let wanted = SIZE_MAX | SEG_MAX | READ_ONLY | BLOCK_SIZE;
        let (mut device, room) = Device::start(machine, place, wanted, QUEUE, room)?;
        let (header, rest) = room.split_at(HEADER_LEN);
        let (status, _) = rest.split_at(1);
        match Self::measure(machine, &mut device) {
            Ok((media, most_piece, most_bytes)) => Ok(Self { device, media, header, status, most_piece, most_bytes }),
            Err(error) => {
                // It has executed nothing.
                let _ = device.stop(machine);
                Err(error)
            }
        }
    }

    /// The medium, the most bytes of a piece of data, and the most bytes of a request.
    fn measure(machine: &mut impl BusMaster, device: &mut Device) -> Result<(Media, u64, u64), Error> {
        let sectors = device.configuration64(machine, CAPACITY)?;
        let mut field = |feature, offset, otherwise| match device.has(feature) {
            true => device.configuration(machine, offset),
            false => Ok(otherwise),
        };
        let block_len = field(BLOCK_SIZE, BLOCK_SIZE_FIELD, SECTOR)?;
        let block_len = BlockLen::new(block_len).ok_or(Error::Broken("the length of its blocks is not supported"))?;
        let most_piece = u64::from(field(SIZE_MAX, SIZE_MAX_FIELD, u32::MAX)?).min(MOST_BYTES);
        let segments = field(SEG_MAX, SEG_MAX_FIELD, 1)?.max(1) as usize;
        // Two descriptors are for header and status.
        let descriptors = usize::from(device.queue().size().saturating_sub(2));
        let pieces = segments.min(descriptors).min(MOST_PIECES) as u64;
        let most_bytes = most_piece.saturating_mul(pieces).min(MOST_BYTES);
        let media = Media {
            block_len,
            blocks: sectors.wrapping_shr(block_len.sectors_log2()),
            is_read_only: device.has(READ_ONLY),
            is_removable: false,
        };
        match block_len.round_down(most_bytes) {
            0 => Err(Error::Broken("it does not take requests of a whole block")),
            most_bytes => Ok((media, most_piece, most_bytes)),
        }
    }

    /// Reads from a sector on into all of `into`, at most [`Self::most_bytes`].
    fn request(&mut self, machine: &mut (impl BusMaster + Clock), sector: u64, into: DeviceRange) -> Result<(), Error> {
        let mut header = [0; HEADER_LEN as usize + 1];
        let (kind, rest) = header.split_at_mut(8);
        let (position, status) = rest.split_at_mut(8);
        kind.copy_from_slice(&u64::from(READ).to_le_bytes());
        position.copy_from_slice(&sector.to_le_bytes());
        status.fill(NO_STATUS);
        machine.write(self.header.start(), &header)?;
        let mut parts = ArrayVec::<_, { MOST_PIECES + 2 }>::new();
        let full = |_| Error::NoRoom;
        parts.try_push(Part::Question(self.header)).map_err(full)?;
        let mut rest = into;
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(self.most_piece);
            parts.try_push(Part::Answer(piece)).map_err(full)?;
            rest = more;
        }
        parts.try_push(Part::Answer(self.status)).map_err(full)?;
        self.device.request(machine, &parts)?;
        match machine.read_register8(self.status.start())? {
            OK => Ok(()),
            NO_STATUS => Err(Error::Broken("it has executed a request and written no status")),
            status => Err(Error::Refused(status.into())),
        }
    }
}

impl<M: BusMaster + Clock> Controller<M> for Block {
    fn units(&mut self, _: &mut M, found: &mut dyn FnMut(Unit)) -> Result<(), Error> {
        found(Unit { address: UnitAddress::Only, media: self.media });
        Ok(())
    }

    #[cold]
    fn read(&mut self, machine: &mut M, _: &Unit, first: u64, into: PhysRange) -> Result<(), Error> {
        self.media.blocks_in(first, into.len())?;
        // The device has the blocks, so their sectors have 64-bit numbers.
        let mut sector = first.wrapping_shl(self.media.block_len.sectors_log2());
        let mut rest = machine.lend(into)?;
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(self.most_bytes);
            self.request(machine, sector, piece)?;
            sector = sector.saturating_add(piece.len().checked_div(SECTOR.into()).unwrap_or(0));
            rest = more;
        }
        Ok(())
    }

    fn stop(&mut self, machine: &mut M) -> Result<(), Error> {
        self.device.stop(machine)
    }
}
