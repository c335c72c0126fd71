//! Devices on a bus that read and write memory themselves: disks' controllers.
//!
//! A driver puts the addresses of buffers into queues in memory, and a register of the device starts it. Each such address comes
//! from a [`DeviceRange`], which the machine makes after a check. So a driver cannot name memory that is the firmware's own, or that
//! may only be read.
//!
//! The queues themselves are in guest memory that the map gives to the driver. It accesses them by [`super::Memory`]'s registers, as
//! it does the device's registers, because the device writes them at any time.
//!
//! Left out: an IOMMU. A device can ignore what it is told, as the host can.

use super::{Memory, MemoryError};
use crate::addr::{PhysAddr, PhysRange};

/// A range of guest memory that a device may read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRange(PhysRange);

impl DeviceRange {
    /// The range, which the machine has checked. Only implementations of [`BusMaster`] make one.
    #[must_use]
    pub const fn checked(range: PhysRange) -> Self {
        Self(range)
    }

    /// The first byte.
    #[must_use]
    pub const fn start(self) -> PhysAddr {
        self.0.start()
    }

    /// The range itself, for the firmware's own accesses.
    #[must_use]
    pub const fn range(self) -> PhysRange {
        self.0
    }

    /// The length in bytes.
    #[must_use]
    pub const fn len(self) -> u64 {
        self.0.len()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The first `len` bytes, or all if there are fewer, and the rest.
    #[must_use]
    pub fn split_at(self, len: u64) -> (Self, Self) {
        let (first, rest) = self.0.split_at(len);
        (Self(first), Self(rest))
    }
}

/// A machine whose devices can be given memory.
pub trait BusMaster: Memory {
    /// The range for a device.
    ///
    /// # Errors
    /// [`MemoryError`] if the firmware may not write the range, see [`Memory::write`].
    fn lend(&mut self, range: PhysRange) -> Result<DeviceRange, MemoryError>;

    /// Every access to memory before this happens before every access after it: what the driver wrote into a queue before the
    /// register that starts the device, and the device's answer before the bytes that it wrote.
    fn order(&mut self);
}
