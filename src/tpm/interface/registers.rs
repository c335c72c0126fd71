//! The registers of locality 0, at the same address in both interfaces.
//!
//! The functions are not inlined: copies of them in both interfaces would be 2 KiB of code.

use crate::addr::{PhysAddr, PhysRange, constant_range};
use crate::hal::{Clock, Deadline, Memory};
use crate::tpm::error::{Error, Wait};

/// The parts of a machine that access to a TPM needs.
pub trait Host: Memory + Clock {}
impl<T: Memory + Clock> Host for T {}

/// The registers of locality 0 (PTP, table 17: "Allocation of Register Space").
pub const REGISTERS: PhysRange = constant_range(0xfed4_0000, 0xfed4_1000);
/// A register's address.
const fn register(offset: u64) -> PhysAddr {
    // The offsets are constants of this module, so this does not wrap.
    PhysAddr::new(REGISTERS.start().get().wrapping_add(offset))
}

/// Reads a register of 8 bits.
#[inline(never)]
pub fn read8(host: &mut dyn Host, offset: u64) -> Result<u8, Error> {
    Ok(host.read_register8(register(offset))?)
}

/// Reads a register of 32 bits.
#[inline(never)]
pub fn read32(host: &mut dyn Host, offset: u64) -> Result<u32, Error> {
    Ok(host.read_register32(register(offset))?)
}

/// Writes a register of 8 bits.
#[inline(never)]
pub fn write8(host: &mut dyn Host, offset: u64, value: u8) -> Result<(), Error> {
    Ok(host.write_register8(register(offset), value)?)
}

/// Writes a register of 32 bits.
#[inline(never)]
pub fn write32(host: &mut dyn Host, offset: u64, value: u32) -> Result<(), Error> {
    Ok(host.write_register32(register(offset), value)?)
}

/// Waits until the bits of `mask` in a 32-bit register are `value`.
#[inline(never)]
pub fn wait(
    host: &mut dyn Host,
    deadline: Deadline,
    what: Wait,
    offset: u64,
    mask: u32,
    value: u32,
) -> Result<(), Error> {
    while read32(host, offset)? & mask != value {
        if deadline.has_passed(host) {
            return Err(Error::Timeout(what));
        }
        core::hint::spin_loop();
    }
    Ok(())
}
