//! The registers of an NVMe controller.
//!
//! Left out: the time that a controller says it needs to become ready. It has as long as any disk has.
//!
//! Source: NVM Express Base Specification 1.4, chapter 3.

use crate::addr::{PhysAddr, PhysRange};
use crate::disk::{Error, wait};
use crate::hal::{Clock, DeviceRange, Memory};

/// Offsets: capabilities (64 bits), configuration, status, sizes of the admin queues, their addresses (64 bits).
const CAP: u64 = 0x00;
const CC: u64 = 0x14;
const CSTS: u64 = 0x1c;
const AQA: u64 = 0x24;
const ASQ: u64 = 0x28;
const ACQ: u64 = 0x30;
/// The first doorbell.
const DOORBELLS: u64 = 0x1000;

/// Configuration: the controller is on; entries of 2^6 bytes to it and of 2^4 bytes from it. The other fields are zero: NVM command
/// set, pages of 4 KiB, round robin.
const ENABLE: u32 = 1;
const ENTRY_LENS: u32 = 4 << 20 | 6 << 16;
/// Status: ready, a fatal error.
const READY: u32 = 1;
const FATAL: u32 = 1 << 1;
/// A register of a device that is gone.
const GONE: u32 = u32::MAX;

/// What a controller can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities(u64);

impl Capabilities {
    /// The most entries of a queue, at least 2.
    fn most_entries(self) -> Result<u32, Error> {
        match (self.0 & 0xffff) as u32 {
            0 => Err(Error::Broken("its queues have one entry")),
            less_one => Ok(less_one.saturating_add(1)),
        }
    }

    /// The bytes from a doorbell to the next.
    fn doorbell_step(self) -> u64 {
        4_u64 << (self.0 >> 32 & 0xf)
    }

    /// Refuses a controller without the NVM command set, or whose smallest page is not of 4 KiB.
    fn check(self) -> Result<(), Error> {
        if self.0 >> 37 & 1 == 0 {
            return Err(Error::Unsupported("an NVMe controller without the NVM command set"));
        }
        if self.0 >> 48 & 0xf != 0 {
            return Err(Error::Unsupported("an NVMe controller whose smallest page is larger than 4 KiB"));
        }
        Ok(())
    }
}

/// The registers, and what the controller can do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers {
    range: PhysRange,
    capabilities: Capabilities,
}

impl Registers {
    /// The registers in `range`.
    ///
    /// # Errors
    /// [`Error`] if they cannot be accessed, or the driver cannot use the controller.
    pub(super) fn new(machine: &mut impl Memory, range: PhysRange) -> Result<Self, Error> {
        let this = Self { range, capabilities: Capabilities(0) };
        let capabilities = Capabilities(machine.read_register64(this.at(CAP)?)?);
        capabilities.check()?;
        capabilities.most_entries()?;
        Ok(Self { range, capabilities })
    }

    /// The number of entries of a queue: the least of the controller's limit and `wanted`.
    pub(super) fn entries(self, wanted: u16) -> u16 {
        self.capabilities.most_entries().map_or(0, |most| most.min(wanted.into()) as u16)
    }

    /// The doorbells of a queue pair: of the queue to the controller, and of the one from it.
    pub(super) fn doorbells(self, queue: u16) -> Result<(PhysAddr, PhysAddr), Error> {
        let step = self.capabilities.doorbell_step();
        // A step has at most 2^17 bytes.
        let to = DOORBELLS.saturating_add(u64::from(queue).saturating_mul(2).saturating_mul(step));
        Ok((self.at(to)?, self.at(to.saturating_add(step))?))
    }

    /// Turns the controller on with these admin queues of `entries` entries each, and waits until it is ready.
    pub(super) fn turn_on(
        self,
        machine: &mut (impl Memory + Clock),
        queues: (DeviceRange, DeviceRange),
        entries: u16,
    ) -> Result<(), Error> {
        let last = u32::from(entries).saturating_sub(1);
        machine.write_register32(self.at(AQA)?, last << 16 | last)?;
        machine.write_register64(self.at(ASQ)?, queues.0.start().get())?;
        machine.write_register64(self.at(ACQ)?, queues.1.start().get())?;
        machine.write_register32(self.at(CC)?, ENTRY_LENS | ENABLE)?;
        self.wait(machine, true)
    }

    /// Turns the controller off, as after a reset, and waits until it is.
    pub(super) fn turn_off(self, machine: &mut (impl Memory + Clock)) -> Result<(), Error> {
        machine.write_register32(self.at(CC)?, 0)?;
        self.wait(machine, false)
    }

    /// Turns the controller off if somebody has left it on.
    pub(super) fn turn_off_if_on(self, machine: &mut (impl Memory + Clock)) -> Result<(), Error> {
        if machine.read_register32(self.at(CC)?)? & ENABLE == 0 { Ok(()) } else { self.turn_off(machine) }
    }

    /// Waits until the controller is ready or, if it was turned off, no longer is.
    fn wait(self, machine: &mut (impl Memory + Clock), ready: bool) -> Result<(), Error> {
        let status = self.at(CSTS)?;
        let look = |machine: &mut _| {
            let value = Memory::read_register32(machine, status)?;
            match value {
                GONE => Err(Error::Timeout),
                _ if (value & READY != 0) == ready => Ok(Some(())),
                _ if ready && value & FATAL != 0 => Err(Error::Refused(value)),
                _ => Ok(None),
            }
        };
        wait::until(machine, look, |_| Ok(()))
    }

    /// Refuses to wait longer for a controller that is gone, or that has failed.
    pub(super) fn check_alive(self, machine: &mut impl Memory) -> Result<(), Error> {
        // One that is gone has all bits.
        if machine.read_register32(self.at(CSTS)?)? & FATAL == 0 { Ok(()) } else { Err(Error::Timeout) }
    }

    /// The address of the register at `offset`, which is at most 8 bytes long.
    fn at(self, offset: u64) -> Result<PhysAddr, Error> {
        let at = self.range.start().checked_add(offset);
        at.filter(|&at| PhysRange::new(at, 8).is_some_and(|register| self.range.contains(register)))
            .ok_or(Error::Broken("its registers are cut off"))
    }
}
