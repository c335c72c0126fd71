//! The registers of a virtio PCI function, by its capabilities (VIRTIO 1.2, 4.1).
//!
//! QEMU's transitional functions (`1af4:1001`, `1af4:1004`) have them beside the legacy interface.
//!
//! Left out: access to registers through configuration space, which a function would need whose BARs are above 4 GiB.

use super::areas::{Areas, Doorbell};
use super::registers::Registers;
use crate::addr::PhysRange;
use crate::disk::Error;
use crate::hal::Memory;
use crate::pci::{Address, ConfigSpace, register};

/// The most capabilities that are read. The list is in the upper 192 bytes, and each has at least four bytes.
const MOST: usize = 48;

/// The kinds of registers (4.1.4).
const COMMON: u8 = 1;
const NOTIFICATION: u8 = 2;
const DEVICE: u8 = 4;
/// The lengths of a capability: with the position of registers, and with the multiplier after it.
const LEN: u8 = 16;
const NOTIFICATION_LEN: u8 = 20;

/// The common registers (4.1.4.3).
const FEATURE_SELECT: u64 = 0x00;
const FEATURES: u64 = 0x04;
const ACCEPTED_SELECT: u64 = 0x08;
const ACCEPTED: u64 = 0x0c;
const STATUS: u64 = 0x14;
const GENERATION: u64 = 0x15;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_ENABLE: u64 = 0x1c;
const QUEUE_NOTIFY_OFFSET: u64 = 0x1e;
const QUEUE_DESCRIPTORS: [u64; 2] = [0x20, 0x24];
const QUEUE_AVAILABLE: [u64; 2] = [0x28, 0x2c];
const QUEUE_USED: [u64; 2] = [0x30, 0x34];
const COMMON_LEN: u64 = 0x38;

/// A function's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    common: Registers,
    notification: Registers,
    /// The distance of two queues' registers, in bytes for one step of a queue's number.
    multiplier: u32,
    device: Registers,
}

impl Function {
    /// The registers of the function at `address`. `memory` returns the place of a memory BAR by its number.
    ///
    /// # Errors
    /// [`Error::Broken`] if the capabilities do not describe registers inside the function's BARs, below 4 GiB.
    pub fn find(
        config: &mut dyn ConfigSpace,
        address: Address,
        memory: &dyn Fn(u8) -> Option<PhysRange>,
    ) -> Result<Self, Error> {
        let (mut common, mut notification, mut device) = (None, None, None);
        let has_list = config.read32(address, register::COMMAND) >> 16 & u32::from(register::STATUS_CAPABILITIES) != 0;
        let mut at = if has_list { config.read8(address, register::CAPABILITIES) & !3 } else { 0 };
        for _ in 0..MOST {
            // The list ends with 0; a pointer into the header is invalid.
            if at < 0x40 {
                break;
            }
            let [id, next, len, kind] = config.read32(address, at).to_le_bytes();
            if id == register::CAPABILITY_VENDOR {
                let mut found = || position(config, address, at, len, memory);
                // The first one of a kind is the one to use (4.1.4.1).
                match kind {
                    COMMON if common.is_none() => common = found(),
                    DEVICE if device.is_none() => device = found(),
                    NOTIFICATION if notification.is_none() && len >= NOTIFICATION_LEN => {
                        let multiplier = at.checked_add(LEN).map_or(0, |at| config.read32(address, at));
                        notification = position(config, address, at, len, memory).map(|range| (range, multiplier));
                    }
                    _ => {}
                }
            }
            at = next & !3;
        }
        let absent = Error::Broken("it has no registers of version 1 in a memory BAR");
        let (notification, multiplier) = notification.ok_or(absent)?;
        Ok(Self {
            common: Registers::new(common.ok_or(absent)?, COMMON_LEN)?,
            notification: Registers::new(notification, 2)?,
            multiplier,
            device: Registers::new(device.ok_or(absent)?, 8)?,
        })
    }

    pub(super) fn status(&self, machine: &mut impl Memory) -> Result<u8, Error> {
        self.common.read8(machine, STATUS)
    }

    pub(super) fn set_status(&self, machine: &mut impl Memory, status: u8) -> Result<(), Error> {
        self.common.write8(machine, STATUS, status)
    }

    pub(super) fn features(&self, machine: &mut impl Memory, half: u32) -> Result<u32, Error> {
        self.common.write32(machine, FEATURE_SELECT, half)?;
        self.common.read32(machine, FEATURES)
    }

    pub(super) fn accept(&self, machine: &mut impl Memory, half: u32, features: u32) -> Result<(), Error> {
        self.common.write32(machine, ACCEPTED_SELECT, half)?;
        self.common.write32(machine, ACCEPTED, features)
    }

    pub(super) fn select_queue(&self, machine: &mut impl Memory, queue: u16) -> Result<u16, Error> {
        self.common.write16(machine, QUEUE_SELECT, queue)?;
        self.common.read16(machine, QUEUE_SIZE)
    }

    pub(super) fn turn_on_queue(&self, machine: &mut impl Memory, size: u16, areas: &Areas) -> Result<Doorbell, Error> {
        let offset = u64::from(self.common.read16(machine, QUEUE_NOTIFY_OFFSET)?);
        let at = self.notification.at(offset.saturating_mul(self.multiplier.into()), 2)?;
        self.common.write16(machine, QUEUE_SIZE, size)?;
        self.common.write_halves(machine, QUEUE_DESCRIPTORS, areas.descriptors)?;
        self.common.write_halves(machine, QUEUE_AVAILABLE, areas.available)?;
        self.common.write_halves(machine, QUEUE_USED, areas.used)?;
        self.common.write16(machine, QUEUE_ENABLE, 1)?;
        Ok(Doorbell::Word(at))
    }

    pub(super) fn generation(&self, machine: &mut impl Memory) -> Result<u8, Error> {
        self.common.read8(machine, GENERATION)
    }

    pub(super) fn configuration(&self, machine: &mut impl Memory, offset: u64) -> Result<u32, Error> {
        self.device.read32(machine, offset)
    }
}

/// The registers that the capability at `at` describes. `None` if they are not inside a memory BAR (4.1.4).
fn position(
    config: &mut dyn ConfigSpace,
    address: Address,
    at: u8,
    len: u8,
    memory: &dyn Fn(u8) -> Option<PhysRange>,
) -> Option<PhysRange> {
    // It has to be inside configuration space.
    at.checked_add(len.max(LEN).wrapping_sub(1)).filter(|_| len >= LEN)?;
    let mut dword = |offset: u8| at.checked_add(offset).map_or(0, |at| config.read32(address, at));
    let [bar, ..] = dword(4).to_le_bytes();
    let (offset, len) = (dword(8), dword(12));
    let bar = memory(bar)?;
    let range = PhysRange::new(bar.start().checked_add(offset.into())?, len.into())?;
    bar.contains(range).then_some(range)
}
