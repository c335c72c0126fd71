//! A group of a device's registers: each access is checked against its range.
//!
//! The functions are not inlined: copies of them would be most of the drivers' code.

use crate::addr::{PhysAddr, PhysRange};
use crate::disk::Error;
use crate::hal::Memory;

/// The registers, by offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers(PhysRange);

impl Registers {
    /// The registers in `range`, at least `least` bytes.
    ///
    /// # Errors
    /// [`Error::Broken`] if there are fewer, or if they are above 4 GiB.
    pub fn new(range: PhysRange, least: u64) -> Result<Self, Error> {
        if range.len() < least {
            return Err(Error::Broken("it has too few registers"));
        }
        if !PhysRange::LOW_4_GIB.contains(range) {
            return Err(Error::Broken("its registers are above 4 GiB"));
        }
        Ok(Self(range))
    }

    /// The address of the register at `offset` with this length.
    ///
    /// # Errors
    /// [`Error::Broken`] if it is not in the group.
    pub fn at(self, offset: u64, len: u64) -> Result<PhysAddr, Error> {
        let register = self.0.start().checked_add(offset).and_then(|at| PhysRange::new(at, len));
        let inside = register.filter(|&register| self.0.contains(register));
        inside.map(PhysRange::start).ok_or(Error::Broken("a register that its specification has is absent"))
    }

    /// Reads a register of 8 bits.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Memory`].
    #[inline(never)]
    pub fn read8(self, machine: &mut impl Memory, offset: u64) -> Result<u8, Error> {
        Ok(machine.read_register8(self.at(offset, 1)?)?)
    }

    /// Reads a register of 16 bits.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Memory`].
    #[inline(never)]
    pub fn read16(self, machine: &mut impl Memory, offset: u64) -> Result<u16, Error> {
        Ok(machine.read_register16(self.at(offset, 2)?)?)
    }

    /// Reads a register of 32 bits.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Memory`].
    #[inline(never)]
    pub fn read32(self, machine: &mut impl Memory, offset: u64) -> Result<u32, Error> {
        Ok(machine.read_register32(self.at(offset, 4)?)?)
    }

    /// Writes a register of 8 bits.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Memory`].
    #[inline(never)]
    pub fn write8(self, machine: &mut impl Memory, offset: u64, value: u8) -> Result<(), Error> {
        Ok(machine.write_register8(self.at(offset, 1)?, value)?)
    }

    /// Writes a register of 16 bits.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Memory`].
    #[inline(never)]
    pub fn write16(self, machine: &mut impl Memory, offset: u64, value: u16) -> Result<(), Error> {
        Ok(machine.write_register16(self.at(offset, 2)?, value)?)
    }

    /// Writes a register of 32 bits.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Memory`].
    #[inline(never)]
    pub fn write32(self, machine: &mut impl Memory, offset: u64, value: u32) -> Result<(), Error> {
        Ok(machine.write_register32(self.at(offset, 4)?, value)?)
    }

    /// Writes two registers of 32 bits: the low half of `value` first.
    ///
    /// # Errors
    /// [`Error::Broken`], [`Error::Memory`].
    pub fn write_halves(self, machine: &mut impl Memory, [low, high]: [u64; 2], value: PhysAddr) -> Result<(), Error> {
        self.write32(machine, low, value.get() as u32)?;
        self.write32(machine, high, (value.get() >> 32) as u32)
    }
}
