//! A virtio SCSI host (VIRTIO 1.2, 5.6), with the disks and CD drives behind it.
//!
//! A target can have any of 256 numbers, and nothing lists them. So each is asked once whether it is ready. Up to 32 of these
//! questions are started by one access to a register: 8 accesses are enough for all targets. A target that is there is asked for its
//! logical units.
//!
//! Left out: targets that are plugged in later, and the queues for events and task management.

use core::ops::Range;

use super::device::Device;
use super::place::Place;
use super::queue::{self, Part};
use crate::addr::PhysRange;
use crate::disk::scsi::{self, Command, LogicalUnit, Outcome, Patience, Sense};
use crate::disk::{Controller, Error, Unit, UnitAddress};
use crate::hal::{BusMaster, Clock, DeviceRange};
use crate::logging::RateLimited;

/// Fields of the configuration (5.6.4): the most sectors of 512 bytes in a request (32 bits); the highest channel and target (16 bits
/// each).
const MAX_SECTORS: u64 = 8;
const MAX_CHANNEL_AND_TARGET: u64 = 28;
/// The first queue for requests; two are before it.
const QUEUE: u16 = 2;

/// A request (5.6.6.1): the logical unit (8 bytes), a tag (8), attribute, priority and a reserved byte, then the command with the
/// length that every device has after a reset.
const REQUEST_LEN: u64 = 19 + COMMAND_LEN as u64;
const COMMAND_LEN: usize = 32;
/// A response: length of the sense data and residual (32 bits each), a qualifier (16), status and response (8 each), then the sense
/// data with the length that every device has after a reset.
const RESPONSE_LEN: u64 = 12 + SENSE_LEN as u64;
const SENSE_LEN: usize = 96;
/// The sense data that are read.
const SENSE_READ: usize = 18;
const RESPONSE: u64 = 11;
const SENSE: u64 = 12;

/// Responses (5.6.6.1): the command was executed; nothing is at the address; try again, twice.
const OK: u8 = 0;
const BAD_TARGET: u8 = 3;
const RESET: u8 = 4;
const BUSY: u8 = 5;
/// A response that no device writes.
const NO_RESPONSE: u8 = 0xff;
/// SCSI statuses (SAM-5, 5.3.1).
const GOOD: u8 = 0x00;
const CHECK_CONDITION: u8 = 0x02;
const UNIT_BUSY: u8 = 0x08;
const TASK_SET_FULL: u8 = 0x28;

/// The most requests at a time, and the room of each for request and response.
const MOST_REQUESTS: u16 = 32;
const PLACE_LEN: u64 = 192;
/// The most disks and drives of a host, with those that do not say what they are. Others are left out.
const MOST_UNITS: u32 = 64;
/// The highest number of a target (5.6.6.1).
const HIGHEST_TARGET: u16 = 255;
/// The most bytes of a request. `vhost-scsi` takes 2048 pages (Linux `drivers/vhost/scsi.c`, `VHOST_SCSI_PREALLOC_SGLS`).
const MOST_BYTES: u64 = 4 << 20;
/// The most bytes after a longer request was refused. The disk may be one of the host's, whose controller takes less than the SCSI
/// host says (`scsi-block`; Linux `Documentation/ABI/stable/sysfs-block`, `max_segments`).
const CAREFUL_BYTES: u64 = 128 << 10;

/// A SCSI host that was started.
#[derive(Debug)]
pub struct ScsiHost {
    device: Device,
    /// The room for requests and responses, and for answers.
    places: DeviceRange,
    answers: PhysRange,
    highest_target: u16,
    /// The most bytes of a request.
    most_bytes: u64,
}

impl ScsiHost {
    /// The memory that [`Self::start`] takes, starting on a page.
    pub const ROOM: u64 = queue::ROOM + 4096;

    /// Starts the device.
    ///
    /// # Errors
    /// [`Error`]. The device is reset then, if it can be.
    #[cold]
    pub fn start(machine: &mut (impl BusMaster + Clock), place: Place, room: PhysRange) -> Result<Self, Error> {
        let (mut device, rest) = Device::start(machine, place, 0, QUEUE, room)?;
        let fields = device.configuration(machine, MAX_SECTORS).and_then(|sectors| {
            let targets = device.configuration(machine, MAX_CHANNEL_AND_TARGET)?;
            Ok((sectors, targets))
        });
        let (sectors, targets) = fields.inspect_err(|_| {
            // It has executed nothing.
            let _ = device.stop(machine);
        })?;
        let (places, rest) = rest.split_at(PLACE_LEN.saturating_mul(MOST_REQUESTS.into()));
        let (answers, _) = rest.split_at(scsi::LUNS_SCRATCH);
        Ok(Self {
            device,
            places,
            answers: own(answers)?,
            highest_target: ((targets >> 16) as u16).min(HIGHEST_TARGET),
            // No number is no limit, as Linux has it (`drivers/scsi/virtio_scsi.c`, `virtscsi_probe`).
            most_bytes: match sectors {
                0 => MOST_BYTES,
                sectors => u64::from(sectors).saturating_mul(512).min(MOST_BYTES),
            },
        })
    }

    /// Puts a command into the queue, as the `number`th. Returns where the response will be.
    fn put(
        &mut self,
        machine: &mut (impl BusMaster + Clock),
        number: u16,
        (target, lun): (u8, u16),
        command: Command,
        into: Option<DeviceRange>,
    ) -> Result<DeviceRange, Error> {
        let (_, rest) = self.places.split_at(PLACE_LEN.saturating_mul(number.into()));
        let (question, rest) = rest.split_at(REQUEST_LEN);
        let (response, _) = rest.split_at(RESPONSE_LEN);
        if response.len() < RESPONSE_LEN {
            return Err(Error::NoRoom);
        }
        // One level of logical units, flat (5.6.6.1; SAM 4.7.7.4).
        let [high, low] = lun.to_be_bytes();
        let address = [1, target, 0x40 | high & 0x3f, low, 0, 0, 0, 0];
        let mut request = [0; REQUEST_LEN as usize];
        let (to, rest) = request.split_at_mut(address.len());
        to.copy_from_slice(&address);
        let (tag, rest) = rest.split_at_mut(8);
        tag.copy_from_slice(&u64::from(number).to_le_bytes());
        let (_, rest) = rest.split_at_mut(3);
        rest.iter_mut().zip(command.0).for_each(|(to, byte)| *to = byte);
        machine.write(question.start(), &request)?;
        machine.fill(own(response)?, NO_RESPONSE)?;
        let parts = [Part::Question(question), Part::Answer(response), Part::Answer(into.unwrap_or(response))];
        let (without, _) = parts.split_at(2);
        self.device.queue().put(machine, if into.is_some() { &parts } else { without })?;
        Ok(response)
    }

    /// Which of at most [`MOST_REQUESTS`] targets are there, as bits from the first one on.
    fn find_targets(&mut self, machine: &mut (impl BusMaster + Clock), targets: Range<u16>) -> Result<u32, Error> {
        for (number, target) in (0..MOST_REQUESTS).zip(targets.clone()) {
            self.put(machine, number, (target as u8, 0), Command::TEST_UNIT_READY, None)?;
        }
        self.device.run(machine)?;
        let mut found = 0;
        for (number, _) in (0..MOST_REQUESTS).zip(targets) {
            let (_, place) = self.places.split_at(PLACE_LEN.saturating_mul(number.into()));
            let (_, response) = place.split_at(REQUEST_LEN.saturating_add(RESPONSE));
            match machine.read_register8(response.start())? {
                BAD_TARGET => {}
                NO_RESPONSE => return Err(NO_ANSWER),
                _ => found |= bit(number),
            }
        }
        Ok(found)
    }

    /// Shows the units of a target that is there. False if there are more than the search may find.
    fn units_of<M: BusMaster + Clock>(
        &mut self,
        machine: &mut M,
        target: u8,
        search: &mut Search,
        found: &mut dyn FnMut(Unit),
    ) -> Result<bool, Error> {
        let answers = self.answers;
        let luns = scsi::luns(&mut Lun { host: self, target, lun: 0 }, machine, answers)?;
        for &lun in &luns {
            if search.left == 0 {
                crate::warn!("virtio-scsi: there are more disks than {MOST_UNITS}");
                return Ok(false);
            }
            match scsi::identify(&mut Lun { host: self, target, lun }, machine, answers, &mut search.patience) {
                Ok(Some(media)) => found(Unit { address: UnitAddress::Scsi { target: target.into(), lun }, media }),
                Ok(None) => continue,
                Err(error) => {
                    search.failed.warn(format_args!("virtio-scsi: target {target}, unit {lun}: {error}"));
                    if error == Error::Timeout {
                        // Its answer may come at any time.
                        return Err(error);
                    }
                }
            }
            search.left = search.left.saturating_sub(1);
        }
        Ok(true)
    }

    /// Shows the units of all targets, up to the limit of the search.
    fn search<M: BusMaster + Clock>(
        &mut self,
        machine: &mut M,
        search: &mut Search,
        found: &mut dyn FnMut(Unit),
    ) -> Result<(), Error> {
        // Each question takes two descriptors.
        let step = (self.device.queue().size() / 2).min(MOST_REQUESTS);
        let mut next = 0;
        while next <= self.highest_target {
            let end = next.saturating_add(step).min(self.highest_target.saturating_add(1));
            let there = self.find_targets(machine, next..end)?;
            for target in (next..end).filter(|target| there & bit(target.saturating_sub(next)) != 0) {
                if !self.units_of(machine, target as u8, search, found)? {
                    return Ok(());
                }
            }
            next = end;
        }
        Ok(())
    }

    /// Executes a command of a unit.
    fn execute(
        &mut self,
        machine: &mut (impl BusMaster + Clock),
        address: (u8, u16),
        command: Command,
        into: PhysRange,
    ) -> Result<Outcome, Error> {
        let into = if into.is_empty() { None } else { Some(machine.lend(into)?) };
        let response = self.put(machine, 0, address, command, into)?;
        self.device.run(machine)?;
        let mut bytes = [0; SENSE as usize + SENSE_READ];
        machine.read(response.start(), &mut bytes)?;
        let [a, b, c, d, e, f, g, h, _, _, status, response, sense @ ..] = bytes;
        let sense_len = u32::from_le_bytes([a, b, c, d]) as usize;
        let residual = u64::from(u32::from_le_bytes([e, f, g, h]));
        match (response, status) {
            (OK, GOOD) => {
                let len = into.map_or(0, DeviceRange::len);
                let written = len.checked_sub(residual);
                written.map(Outcome::Good).ok_or(Error::Broken("it has written fewer bytes than none"))
            }
            (OK, CHECK_CONDITION) => Ok(Outcome::Check(Sense::parse(sense.get(..sense_len).unwrap_or(&sense)))),
            (OK, UNIT_BUSY | TASK_SET_FULL) | (RESET | BUSY, _) => Ok(Outcome::Busy),
            (OK, status) => Err(Error::Refused(status.into())),
            (NO_RESPONSE, _) => Err(NO_ANSWER),
            (response, _) => Err(Error::Refused(u32::from(response) << 8)),
        }
    }
}

impl<M: BusMaster + Clock> Controller<M> for ScsiHost {
    #[cold]
    fn units(&mut self, machine: &mut M, found: &mut dyn FnMut(Unit)) -> Result<(), Error> {
        let mut search = Search { left: MOST_UNITS, patience: Patience::default(), failed: RateLimited::default() };
        let result = self.search(machine, &mut search, found);
        if let Some(rest) = search.failed.rest() {
            crate::warn!("virtio-scsi: {rest} more units do not say what they are");
        }
        result
    }

    #[cold]
    fn read(&mut self, machine: &mut M, unit: &Unit, first: u64, into: PhysRange) -> Result<(), Error> {
        let UnitAddress::Scsi { target, lun } = unit.address else { return Err(Error::OutOfRange) };
        let target = u8::try_from(target).map_err(|_| Error::OutOfRange)?;
        let most = self.most_bytes;
        let result = scsi::read(&mut Lun { host: self, target, lun }, machine, &unit.media, first, into, most);
        if !matches!(result, Err(Error::Refused(_))) || most <= CAREFUL_BYTES {
            return result;
        }
        self.most_bytes = CAREFUL_BYTES;
        scsi::read(&mut Lun { host: self, target, lun }, machine, &unit.media, first, into, CAREFUL_BYTES)
    }

    fn stop(&mut self, machine: &mut M) -> Result<(), Error> {
        self.device.stop(machine)
    }
}

/// A search for units.
struct Search {
    /// How many more it may find.
    left: u32,
    patience: Patience,
    /// Warnings about units that do not say what they are.
    failed: RateLimited<4>,
}

/// A logical unit.
struct Lun<'h> {
    host: &'h mut ScsiHost,
    target: u8,
    lun: u16,
}

impl<M: BusMaster + Clock> LogicalUnit<M> for Lun<'_> {
    fn execute(&mut self, machine: &mut M, command: Command, into: PhysRange) -> Result<Outcome, Error> {
        self.host.execute(machine, (self.target, self.lun), command, into)
    }
}

/// The error of a device that says it has executed a request, and has not.
const NO_ANSWER: Error = Error::Broken("it has executed a request and written no response");

/// The bit for a request with this number.
const fn bit(number: u16) -> u32 {
    1_u32.wrapping_shl(number as u32)
}

/// The range as the driver's own memory.
fn own(range: DeviceRange) -> Result<PhysRange, Error> {
    PhysRange::new(range.start(), range.len()).ok_or(Error::NoRoom)
}
