//! What all virtio devices have in common: the start, features, one queue, and the reset.

use super::place::Place;
use super::queue::{Part, Queue};
use crate::addr::PhysRange;
use crate::disk::{Error, wait};
use crate::hal::{BusMaster, Clock, DeviceRange, Memory};

/// Bits of the status (VIRTIO 1.2, 2.1).
const ACKNOWLEDGE: u8 = 1 << 0;
const DRIVER: u8 = 1 << 1;
const DRIVER_OK: u8 = 1 << 2;
const FEATURES_OK: u8 = 1 << 3;

/// Features of every device (6): the interface is not the legacy one; the device uses addresses that an IOMMU may translate, which
/// nobody has turned on; the device needs barriers that this driver has in any case.
const VERSION_1: u64 = 1 << 32;
const ACCESS_PLATFORM: u64 = 1 << 33;
const ORDER_PLATFORM: u64 = 1 << 36;

/// How often a configuration that changes is read.
const MOST_READS: u32 = 8;

/// A device with one queue turned on.
#[derive(Debug)]
pub struct Device {
    place: Place,
    features: u64,
    queue: Queue,
}

impl Device {
    /// Resets the device and starts it with those of the features `wanted` that it has, and the queue of this number. Returns memory
    /// for the driver's own structures, which is cleared.
    #[cold]
    pub fn start(
        machine: &mut (impl BusMaster + Clock),
        place: Place,
        wanted: u64,
        queue: u16,
        room: PhysRange,
    ) -> Result<(Self, DeviceRange), Error> {
        reset(machine, &place)?;
        Self::set_up(machine, place, wanted, queue, room).inspect_err(|_| {
            // It may know of the room already.
            let _ = reset(machine, &place);
        })
    }

    /// The order of steps is the specification's (3.1.1).
    fn set_up(
        machine: &mut impl BusMaster,
        place: Place,
        wanted: u64,
        queue: u16,
        room: PhysRange,
    ) -> Result<(Self, DeviceRange), Error> {
        let mut status = ACKNOWLEDGE;
        place.set_status(machine, status)?;
        status |= DRIVER;
        place.set_status(machine, status)?;
        let mut features = u64::from(place.features(machine, 0)?);
        if !place.is_legacy() {
            features |= u64::from(place.features(machine, 1)?) << 32;
            if features & VERSION_1 == 0 {
                return Err(Error::Broken("it does not have version 1 of the interface"));
            }
        }
        features &= wanted | VERSION_1 | ACCESS_PLATFORM | ORDER_PLATFORM;
        place.accept(machine, 0, features as u32)?;
        if !place.is_legacy() {
            place.accept(machine, 1, (features >> 32) as u32)?;
            status |= FEATURES_OK;
            place.set_status(machine, status)?;
            if place.status(machine)? & FEATURES_OK == 0 {
                return Err(Error::Broken("it refuses the features that it has"));
            }
        }
        let (queue, rest) = Queue::turn_on(machine, &place, queue, room)?;
        place.set_status(machine, status | DRIVER_OK)?;
        Ok((Self { place, features, queue }, rest))
    }

    /// Whether the device has a feature and the driver uses it.
    pub const fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// The device's queue.
    pub const fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// Executes what is in the queue, see [`Queue::run`]. A device that breaks the specification may have requests under way that nobody
    /// waits for: it is reset.
    ///
    /// # Errors
    /// Those of [`Queue::run`]; [`Error::Timeout`] also if such a device cannot be reset.
    pub fn run(&mut self, machine: &mut (impl BusMaster + Clock)) -> Result<u32, Error> {
        let result = self.queue.run(machine, &self.place);
        if result.is_err() && result != Err(Error::Timeout) {
            reset(machine, &self.place).map_err(|_| Error::Timeout)?;
        }
        result
    }

    /// Executes one request.
    pub fn request(&mut self, machine: &mut (impl BusMaster + Clock), parts: &[Part]) -> Result<u32, Error> {
        self.queue.put(machine, parts)?;
        self.run(machine)
    }

    /// Reads 32 bits of the device's configuration. `offset` is a multiple of 4.
    pub fn configuration(&self, machine: &mut impl Memory, offset: u64) -> Result<u32, Error> {
        self.place.configuration(machine, offset)
    }

    /// Reads 64 bits of the device's configuration, all at the same time (2.5.1). `offset` is a multiple of 8.
    pub fn configuration64(&self, machine: &mut impl Memory, offset: u64) -> Result<u64, Error> {
        let mut generation = self.place.generation(machine)?;
        for _ in 0..MOST_READS {
            let low = self.configuration(machine, offset)?;
            let high = self.configuration(machine, offset.saturating_add(4))?;
            let before = core::mem::replace(&mut generation, self.place.generation(machine)?);
            if before == generation {
                return Ok(u64::from(high) << 32 | u64::from(low));
            }
        }
        Err(Error::Broken("its configuration changes all the time"))
    }

    /// Resets the device: it accesses no memory from now on.
    pub fn stop(&mut self, machine: &mut (impl Memory + Clock)) -> Result<(), Error> {
        reset(machine, &self.place).inspect_err(|error| crate::warn!("virtio: a device cannot be reset: {error}"))
    }
}

/// Resets the device and waits until it has done so (2.4).
fn reset(machine: &mut (impl Memory + Clock), place: &Place) -> Result<(), Error> {
    place.set_status(machine, 0)?;
    let look = |machine: &mut _| Ok((place.status(machine)? == 0).then_some(()));
    wait::until(machine, look, |_| Err(Error::Timeout))
}
