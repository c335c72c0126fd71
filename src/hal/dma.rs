//! Transfers by a device that reads and writes memory itself: fw_cfg's.
//!
//! A descriptor in memory describes the transfer. A register, the doorbell, takes the descriptor's address and starts
//! the device. Only the machine has access to both. [`Dma`] checks the memory, fills the descriptor, rings the doorbell
//! and waits, in one call. So safe code cannot make the device write memory that is in use, and a buffer is never
//! visible to the device and to code at the same time. [`super::Ports`] refuses the doorbell's ports.
//!
//! If a transfer does not end before its deadline, its memory belongs to the device for good: the buffer is not
//! returned, and there are no more transfers.
//!
//! If fw_cfg's registers are in memory ([`super::registers`]), the doorbell is a register there. [`super::Memory`]
//! refuses it.
//!
//! Left out: other devices that write memory ([`super::bus_master`]).
//!
//! Source: QEMU `docs/specs/fw_cfg.rst`, "Guest-side DMA Interface".

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use super::{Clock, Deadline, MemoryError};
use crate::addr::{PhysAddr, PhysRange};

/// The descriptor's address on a PC, high half, big-endian.
pub const ADDRESS_HIGH: u16 = 0x514;
/// The descriptor's address on a PC, low half, big-endian; the write starts the transfer.
pub const ADDRESS_LOW: u16 = 0x518;
/// The ports of both halves.
const PORTS: RangeInclusive<u16> = ADDRESS_HIGH..=ADDRESS_LOW + 3;

/// The longest transfer of [`Dma::read_bytes`] and [`Dma::write_bytes`], in bytes.
pub const MOST_BYTES: usize = 64;

/// Whether an access of `size` bytes to `port` touches the doorbell.
#[must_use]
#[inline]
pub const fn is_doorbell(port: u16, size: u16) -> bool {
    port <= *PORTS.end() && port.saturating_add(size) > *PORTS.start()
}

/// The bits of a control word that [`Dma::pass`] accepts: the key, and the bits for select and skip. None of them reads
/// or writes memory.
pub const PASSING: u32 = 0xffff << 16 | 1 << 3 | 1 << 2;

/// How the descriptor's address is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressWrite {
    /// In one access, below 4 GiB. QEMU's device needs no more, because it resets the high half to zero after each
    /// transfer. See [`Dma::forget_address`] for the first transfer.
    Once,
    /// The high half, then the low half. Every host with DMA accepts this.
    Halves,
}

/// A transfer without its memory.
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// How the doorbell is rung.
    pub address_write: AddressWrite,
    /// The descriptor's first word, which says what to do.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A device may not access the memory. Nothing was done.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The error bit was set in the control word.
    #[error("the DMA transfer failed (control word {0:#x})")]
    Refused(u32),
    /// The control word did not become zero before the deadline, or an earlier transfer has not ended.
    #[error("the DMA transfer did not end (control word {0:#x})")]
    Timeout(u32),
}

/// A machine with such a device. Each call waits until the transfer ends or a deadline passes. All earlier writes to
/// memory happen before the transfer, and all later reads after it.
pub trait Dma {
    /// A transfer without memory, which skips `len` bytes. Only the [`PASSING`] bits of the control word count.
    ///
    /// # Errors
    /// [`Fault`].
    fn pass(&mut self, transfer: Transfer, len: u32) -> Result<(), Fault>;

    /// A transfer to guest memory.
    ///
    /// # Errors
    /// [`Fault`].
    fn load(&mut self, transfer: Transfer, to: PhysRange) -> Result<(), Fault>;

    /// A transfer that fills a list on the heap. After [`Fault::Timeout`] the list is empty, and its memory is not used
    /// again.
    ///
    /// # Errors
    /// [`Fault`].
    fn read_list(&mut self, transfer: Transfer, into: &mut Vec<u8>) -> Result<(), Fault>;

    /// A transfer to `into`, at most [`MOST_BYTES`]. The bytes are copied there from a buffer of the machine's, so
    /// `into` is never lent to the device.
    ///
    /// # Errors
    /// [`Fault`]; then `into` is unchanged.
    fn read_bytes(&mut self, transfer: Transfer, into: &mut [u8]) -> Result<(), Fault>;

    /// A transfer from `bytes`, at most [`MOST_BYTES`].
    ///
    /// # Errors
    /// [`Fault`].
    fn write_bytes(&mut self, transfer: Transfer, bytes: &[u8]) -> Result<(), Fault>;

    /// Whether a transfer did not end. Then every further one is [`Fault::Timeout`] at once.
    fn is_stuck(&self) -> bool;

    /// Forgets the high half of a descriptor's address that was written without the low half. QEMU keeps it over a
    /// reset (`hw/nvram/fw_cfg.c`, `fw_cfg_reset`). With a half that a guest has left, the first [`AddressWrite::Once`]
    /// would start the guest's descriptor above 4 GiB.
    fn forget_address(&mut self);

    /// Checks that a device may read and write `range` directly. It must be below 4 GiB and outside the firmware's own
    /// memory, or mapped above by [`super::Memory::map`], and neither code nor constants ([`super::Protect`]).
    ///
    /// # Errors
    /// [`MemoryError`] if a device may not.
    fn check_device_range(&self, range: PhysRange) -> Result<(), MemoryError>;
}

/// The device sets this bit of the control word if the transfer failed.
const ERROR: u32 = 1 << 0;

/// Waits until the device is done with the descriptor. `control` reads the descriptor's control word, which the device
/// changes.
///
/// The error bit ends a transfer, whatever other bits the device leaves set.
///
/// # Errors
/// [`Fault::Refused`], [`Fault::Timeout`].
pub fn wait<M: Clock>(machine: &mut M, control: impl Fn(&mut M) -> u32) -> Result<(), Fault> {
    let mut deadline = None;
    loop {
        let seen = control(machine);
        if seen == 0 {
            return Ok(());
        }
        if seen & ERROR != 0 {
            return Err(Fault::Refused(seen));
        }
        if deadline.get_or_insert_with(|| Deadline::start(machine)).has_passed(machine) {
            return Err(Fault::Timeout(seen));
        }
        core::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_access_that_reaches_the_doorbell_is_detected() {
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
