//! Transfers by a device that reads and writes memory on its own: fw_cfg's.
//!
//! A descriptor in memory says what is to be done, and a register takes the descriptor's address, which starts the device:
//! the doorbell. Both are the machine's alone. [`Dma`] checks the memory, fills the descriptor, rings the doorbell and waits,
//! in one call. So code that is safe cannot have the device write memory that is in use, and no buffer is seen by
//! two at a time. [`super::Ports`] refuses the doorbell's ports.
//!
//! Memory whose transfer does not end before its deadline belongs to the device for good: a buffer is not given back, and
//! there are no more transfers.
//!
//! Where fw_cfg's registers are in memory ([`super::registers`]), the doorbell is a register there, which is the machine's
//! alone as well: [`super::Memory`] refuses it.
//!
//! Left out: devices whose drivers come later. Each brings a doorbell of its own. Other devices than this one are told by no
//! module to write memory.
//!
//! Source: QEMU `docs/specs/fw_cfg.rst`, "Guest-side DMA Interface".

use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;

use super::{Clock, Deadline, MemoryError};
use crate::addr::{PhysAddr, PhysRange};

/// The descriptor's address on a PC, high half, big-endian.
pub const ADDRESS_HIGH: u16 = 0x514;
/// The descriptor's address on a PC, low half, big-endian; the write starts the transfer.
pub const ADDRESS_LOW: u16 = 0x518;
/// The ports of both.
const PORTS: RangeInclusive<u16> = ADDRESS_HIGH..=ADDRESS_LOW + 3;

/// As many bytes as one transfer copies, of [`Dma::read_bytes`] and [`Dma::write_bytes`].
pub const MOST_BYTES: usize = 64;

/// Whether an access of `size` bytes to `port` touches the doorbell.
#[must_use]
#[inline]
pub const fn is_doorbell(port: u16, size: u16) -> bool {
    port <= *PORTS.end() && port.saturating_add(size) > *PORTS.start()
}

/// What of a control word [`Dma::pass`] takes: the key, and the bits that select and skip. Nothing that reads or writes memory.
pub const PASSING: u32 = 0xffff << 16 | 1 << 3 | 1 << 2;

/// How the descriptor's address is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressWrite {
    /// In one access, below 4 GiB: enough for QEMU's device, which resets the high half to zero after each transfer. Before
    /// the first one see [`Dma::forget_address`].
    Once,
    /// The high half and then the low one, as every host with DMA takes it.
    Halves,
}

/// A transfer but for its memory.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// How the doorbell is rung.
    pub address_write: AddressWrite,
    /// The descriptor's first word, which says what is to be done.
    pub control: u32,
}

impl Transfer {
    /// The descriptor: three big-endian numbers.
    #[must_use]
    pub fn descriptor(&self, address: PhysAddr, len: u32) -> [u8; 16] {
        let control = u128::from(self.control) << 96;
        (control | u128::from(len) << 64 | u128::from(address.get())).to_be_bytes()
    }
}

/// A transfer that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The memory is none that a device may access; nothing was done.
    Memory(MemoryError),
    /// The error bit was set in the control word.
    Refused(u32),
    /// The control word was not zero before the deadline, or an earlier transfer has not ended.
    Timeout(u32),
}

impl From<MemoryError> for Fault {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(error) => error.fmt(f),
            Self::Refused(control) => write!(f, "the DMA transfer failed (control word {control:#x})"),
            Self::Timeout(control) => write!(f, "the DMA transfer did not end (control word {control:#x})"),
        }
    }
}

/// A machine with such a device. Each transfer is waited for, until its end or a deadline. All earlier writes to memory are
/// done before it, all later reads come after it.
pub trait Dma {
    /// A transfer without memory: `len` bytes are passed over. Of the control word only [`PASSING`] counts.
    ///
    /// # Errors
    /// [`Fault`].
    fn pass(&mut self, transfer: Transfer, len: u32) -> Result<(), Fault>;

    /// A transfer to guest memory.
    ///
    /// # Errors
    /// [`Fault`].
    fn load(&mut self, transfer: Transfer, to: PhysRange) -> Result<(), Fault>;

    /// A transfer to a list on the heap, as long as it is. After [`Fault::Timeout`] the list is empty: its memory is not used
    /// again.
    ///
    /// # Errors
    /// [`Fault`].
    fn read_list(&mut self, transfer: Transfer, into: &mut Vec<u8>) -> Result<(), Fault>;

    /// A transfer to `into`, [`MOST_BYTES`] at most. They are copied there, as they are the caller's again in any case.
    ///
    /// # Errors
    /// [`Fault`]; `into` is unchanged then.
    fn read_bytes(&mut self, transfer: Transfer, into: &mut [u8]) -> Result<(), Fault>;

    /// A transfer from `bytes`, [`MOST_BYTES`] at most.
    ///
    /// # Errors
    /// [`Fault`].
    fn write_bytes(&mut self, transfer: Transfer, bytes: &[u8]) -> Result<(), Fault>;

    /// Whether a transfer did not end: then there are no more, and each is [`Fault::Timeout`] at once.
    fn is_stuck(&self) -> bool;

    /// Forgets the high half of a descriptor's address that was written without the low half. QEMU keeps it over a reset
    /// (`hw/nvram/fw_cfg.c`, `fw_cfg_reset`): with what a guest has left there the first [`AddressWrite::Once`] would start a
    /// descriptor of the guest's above 4 GiB.
    fn forget_address(&mut self);

    /// Whether a device may read and write `range` directly: below 4 GiB and none of it the firmware's own, or mapped above
    /// by [`super::Memory::map`].
    ///
    /// # Errors
    /// [`MemoryError`] when it may not.
    fn check_device_range(&self, range: PhysRange) -> Result<(), MemoryError>;
}

/// The bit of the control word that the device sets when the transfer failed.
const ERROR: u32 = 1 << 0;

/// Waits until the device is done with the descriptor whose `control` word this reads, as the device left it.
///
/// # Errors
/// [`Fault::Refused`], [`Fault::Timeout`].
pub fn wait<M: Clock>(machine: &mut M, control: impl Fn(&mut M) -> u32) -> Result<(), Fault> {
    // Nothing is left but perhaps the error bit.
    let is_done = |control| control & !ERROR == 0;
    let failed = |control| control & ERROR != 0;
    // QEMU is done before the write returns.
    let mut seen = control(machine);
    if !is_done(seen) {
        let deadline = Deadline::start(machine);
        while !is_done(seen) {
            if deadline.has_passed(machine) {
                // Some hosts leave the command bits in place beside the error bit.
                return Err(if failed(seen) { Fault::Refused(seen) } else { Fault::Timeout(seen) });
            }
            core::hint::spin_loop();
            seen = control(machine);
        }
    }
    if failed(seen) { Err(Fault::Refused(seen)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_access_that_reaches_the_doorbell_is_known() {
        for port in 0..=u16::MAX {
            for size in [1, 2, 4] {
                let reaches = (port..port.saturating_add(size)).any(|byte| (0x514..0x51c).contains(&byte));
                assert_eq!(is_doorbell(port, size), reaches, "{port:#x}, {size}");
            }
        }
    }

    #[test]
    fn a_descriptor_is_three_big_endian_numbers() {
        let transfer = Transfer { address_write: AddressWrite::Once, control: 0x1122_000a };
        let expected = [0x11, 0x22, 0, 0x0a, 0, 0, 1, 0, 0, 0, 0, 0x12, 0x34, 0x56, 0x78, 0x9a];
        assert_eq!(transfer.descriptor(PhysAddr::new(0x12_3456_789a), 256), expected);
    }
}
