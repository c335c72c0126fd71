//! The registers of an AHCI controller and of its ports.
//!
//! Source: Serial ATA AHCI 1.3.1, chapter 3.

use crate::addr::{PhysAddr, PhysRange};
use crate::disk::{Error, wait};
use crate::hal::{Clock, DeviceRange, Memory};

/// Offsets: capabilities, control, implemented ports.
const CAP: u64 = 0x00;
const GHC: u64 = 0x04;
const PI: u64 = 0x0c;
/// The first port's registers, and the bytes from one port's to the next.
const PORTS: u64 = 0x100;
const PORT_LEN: u64 = 0x80;

/// Capabilities: addresses of 64 bits; the number of slots less one.
const WIDE: u32 = 1 << 31;
const SLOTS: u32 = 0x1f << 8;
/// Control: a reset, and the use by AHCI drivers.
const RESET: u32 = 1;
const AHCI_ENABLE: u32 = 1 << 31;

/// A port's registers: the addresses of its commands and of what its device sends, 64 bits each; interrupt status and enable;
/// command; task file; signature; state and control of the link; errors; issued commands.
const CLB: u64 = 0x00;
const FB: u64 = 0x08;
const IS: u64 = 0x10;
const IE: u64 = 0x14;
const CMD: u64 = 0x18;
const TFD: u64 = 0x20;
const SIG: u64 = 0x24;
const SSTS: u64 = 0x28;
const SCTL: u64 = 0x2c;
const SERR: u64 = 0x30;
const CI: u64 = 0x38;

/// Command: execute commands; spin up; power on; receive from the device; what the device sends is received; commands are executed;
/// the link is active.
const START: u32 = 1;
const SPIN_UP: u32 = 1 << 1;
const POWER_ON: u32 = 1 << 2;
const RECEIVE: u32 = 1 << 4;
const RECEIVES: u32 = 1 << 14;
const EXECUTES: u32 = 1 << 15;
const ACTIVE: u32 = 1 << 28;
const ON: u32 = SPIN_UP | POWER_ON | RECEIVE | ACTIVE;
/// Interrupt status: errors after which the port executes nothing (6.1.2), except a device's own.
const FATAL: u32 = 1 << 27 | 1 << 28 | 1 << 29;
/// State of the link: a device with which the port communicates.
const DETECTED: u32 = 3;
/// Control of the link: it is set up anew as long as this is there, for a millisecond at least (10.4.2).
const SET_UP_ANEW: u32 = 1;
/// Ticks that are more than a millisecond: four at 4 GHz.
const MILLISECONDS: u64 = 1 << 24;
/// A register of a controller that is gone.
const GONE: u32 = u32::MAX;

/// The status of a device (ATA8-ACS 4.1, the status field): error, data request, fault, busy.
pub(super) const ERROR: u8 = 1;
pub(super) const DATA_REQUEST: u8 = 1 << 3;
pub(super) const FAULT: u8 = 1 << 5;
pub(super) const BUSY: u8 = 1 << 7;

/// What a controller can do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Capabilities {
    /// Addresses of 64 bits.
    pub(super) is_wide: bool,
    /// Two commands at once.
    pub(super) has_two_slots: bool,
}

/// The registers of the controller.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers(PhysRange);

impl Registers {
    /// The registers in `range`, and what the controller can do. It is made one for AHCI drivers if it is not.
    pub(super) fn new(machine: &mut impl Memory, range: PhysRange) -> Result<(Self, Capabilities), Error> {
        let this = Self(range);
        let control = machine.read_register32(this.at(GHC)?)?;
        if control == GONE {
            return Err(Error::Timeout);
        }
        if control & AHCI_ENABLE == 0 {
            machine.write_register32(this.at(GHC)?, AHCI_ENABLE)?;
        }
        let bits = machine.read_register32(this.at(CAP)?)?;
        Ok((this, Capabilities { is_wide: bits & WIDE != 0, has_two_slots: bits & SLOTS != 0 }))
    }

    /// The ports that a device is connected to, a bit each.
    pub(super) fn connected(self, machine: &mut impl Memory) -> Result<u32, Error> {
        let mut connected = machine.read_register32(self.at(PI)?)?;
        for number in 0..32 {
            let bit = 1_u32.wrapping_shl(number);
            // A port whose registers are cut off is none.
            let is_connected = connected & bit != 0
                && self.port(number as u8).is_ok_and(|port| port.is_connected(machine).unwrap_or(false));
            if !is_connected {
                connected &= !bit;
            }
        }
        Ok(connected)
    }

    /// The registers of a port.
    pub(super) fn port(self, number: u8) -> Result<PortRegisters, Error> {
        let offset = u64::from(number).saturating_mul(PORT_LEN).saturating_add(PORTS);
        self.at(offset.saturating_add(PORT_LEN - 4))?;
        Ok(PortRegisters(self.at(offset)?))
    }

    /// Resets the controller with all ports, and waits until that is done.
    pub(super) fn reset(self, machine: &mut (impl Memory + Clock)) -> Result<(), Error> {
        let at = self.at(GHC)?;
        machine.write_register32(at, AHCI_ENABLE | RESET)?;
        until(machine, at, RESET)
    }

    /// The address of the register at `offset`.
    fn at(self, offset: u64) -> Result<PhysAddr, Error> {
        let at = self.0.start().checked_add(offset);
        at.filter(|&at| PhysRange::new(at, 4).is_some_and(|register| self.0.contains(register)))
            .ok_or(Error::Broken("its registers are cut off"))
    }
}

/// The registers of a port, all of which can be accessed.
#[derive(Clone, Copy, Debug)]
pub(super) struct PortRegisters(PhysAddr);

impl PortRegisters {
    fn is_connected(self, machine: &mut impl Memory) -> Result<bool, Error> {
        let state = self.read(machine, SSTS)?;
        Ok(state != GONE && state & 0xf == DETECTED)
    }

    /// Has the port execute commands in `list` from now on and write what its device sends to `received`. Returns the signature of
    /// the device. The port is stopped.
    pub(super) fn start(
        self,
        machine: &mut (impl Memory + Clock),
        list: DeviceRange,
        received: DeviceRange,
    ) -> Result<u32, Error> {
        for (register, value) in [(CLB, list.start()), (FB, received.start())] {
            self.write(machine, register, value.get() as u32)?;
            self.write(machine, register.saturating_add(4), (value.get() >> 32) as u32)?;
        }
        self.write(machine, IE, 0)?;
        self.clear_errors(machine)?;
        // The signature is in the first thing that the device sends.
        self.write(machine, CMD, ON)?;
        until(machine, self.at(TFD)?, (BUSY | DATA_REQUEST).into())?;
        let signature = self.read(machine, SIG)?;
        self.write(machine, CMD, ON | START)?;
        Ok(signature)
    }

    /// Stops the port, if it is not: afterwards it accesses no memory.
    pub(super) fn stop(self, machine: &mut (impl Memory + Clock)) -> Result<(), Error> {
        let command = self.read(machine, CMD)?;
        if command == GONE {
            return Err(Error::Timeout);
        }
        let mut is_under_way = false;
        if command & (START | EXECUTES) != 0 {
            is_under_way = self.read(machine, CI)? != 0;
            self.write(machine, CMD, command & !START)?;
            until(machine, self.at(CMD)?, EXECUTES)?;
        }
        if command & (RECEIVE | RECEIVES) != 0 {
            self.write(machine, CMD, command & !(START | RECEIVE))?;
            until(machine, self.at(CMD)?, RECEIVES)?;
        }
        if is_under_way {
            // A port that executes no more commands still writes the data of the last one. Only this ends that.
            self.write(machine, SCTL, SET_UP_ANEW)?;
            let start = machine.ticks();
            while machine.ticks().wrapping_sub(start) < MILLISECONDS {
                core::hint::spin_loop();
            }
            self.write(machine, SCTL, 0)?;
        }
        Ok(())
    }

    /// Has the port execute commands again after one that failed (6.2.2.1).
    pub(super) fn recover(self, machine: &mut (impl Memory + Clock)) -> Result<(), Error> {
        self.write(machine, CMD, ON)?;
        until(machine, self.at(CMD)?, EXECUTES)?;
        self.clear_errors(machine)?;
        until(machine, self.at(TFD)?, (BUSY | DATA_REQUEST).into())?;
        self.write(machine, CMD, ON | START)
    }

    fn clear_errors(self, machine: &mut impl Memory) -> Result<(), Error> {
        self.write(machine, SERR, u32::MAX)?;
        self.write(machine, IS, u32::MAX)
    }

    /// Issues the command in a slot.
    pub(super) fn issue(self, machine: &mut impl Memory, slot: u8) -> Result<(), Error> {
        self.write(machine, CI, bit(slot))
    }

    /// The status of the device if the command in a slot has ended without a message from the device, as one that transfers its
    /// data by single words does.
    pub(super) fn ended(self, machine: &mut impl Memory, slot: u8) -> Result<Option<u32>, Error> {
        if self.read(machine, CI)? & bit(slot) != 0 {
            return Ok(None);
        }
        let task_file = self.read(machine, TFD)?;
        Ok(Some(task_file).filter(|&status| status as u8 & (BUSY | DATA_REQUEST) == 0))
    }

    /// Refuses to wait longer for a port that has failed, or whose device is gone.
    pub(super) fn check_alive(self, machine: &mut impl Memory) -> Result<(), Error> {
        if !self.is_connected(machine)? {
            return Err(Error::Timeout);
        }
        if self.read(machine, IS)? & FATAL != 0 {
            return Err(Error::Timeout);
        }
        Ok(())
    }

    fn read(self, machine: &mut impl Memory, offset: u64) -> Result<u32, Error> {
        Ok(machine.read_register32(self.at(offset)?)?)
    }

    fn write(self, machine: &mut impl Memory, offset: u64, value: u32) -> Result<(), Error> {
        Ok(machine.write_register32(self.at(offset)?, value)?)
    }

    fn at(self, offset: u64) -> Result<PhysAddr, Error> {
        self.0.checked_add(offset).ok_or(Error::NoRoom)
    }
}

/// The bit of a slot, of which there are 32.
const fn bit(slot: u8) -> u32 {
    1_u32.wrapping_shl(slot as u32)
}

/// Waits until the register at `at` has none of `bits`.
fn until(machine: &mut (impl Memory + Clock), at: PhysAddr, bits: u32) -> Result<(), Error> {
    let look = |machine: &mut _| {
        let value = Memory::read_register32(machine, at)?;
        if value == GONE { Err(Error::Timeout) } else { Ok((value & bits == 0).then_some(())) }
    };
    wait::until(machine, look, |_| Ok(()))
}
