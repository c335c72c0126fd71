//! DMA: a descriptor in memory, and a register write that makes the device carry it out.
//!
//! A device that writes memory on its own: the descriptor and the buffers go through [`crate::hal::Dma`], which keeps
//! the compiler from moving accesses across the doorbell. The wait for completion has a deadline.

use bitflags::bitflags;

use super::registers::{Doorbell, Registers};
use super::{Error, Host, Key};
use crate::addr::PhysAddr;
use crate::hal::Deadline;

bitflags! {
    /// The control word, without the key in bits 16 to 31.
    #[derive(Clone, Copy)]
    struct Control: u32 {
        /// Set by the device when the transfer failed.
        const ERROR = 1 << 0;
        const READ = 1 << 1;
        const SKIP = 1 << 2;
        /// Select the item of the key first.
        const SELECT = 1 << 3;
        const WRITE = 1 << 4;
    }
}

impl Control {
    /// The control word as the device left it.
    fn of(host: &mut impl Host) -> Self {
        Self::from_bits_retain(u32::from_be_bytes(host.read_descriptor_control()))
    }

    /// Whether the device is done: nothing is left but perhaps the error bit.
    const fn is_done(self) -> bool {
        self.difference(Self::ERROR).is_empty()
    }

    const fn failed(self) -> bool {
        self.contains(Self::ERROR)
    }
}

/// What the device is to do.
#[derive(Clone, Copy)]
pub enum Operation {
    /// Copy from the item to memory.
    Read,
    /// Move on within the item.
    Skip,
    /// Copy from memory to the item.
    Write,
}

impl Operation {
    const fn control(self) -> Control {
        match self {
            Self::Read => Control::READ,
            Self::Skip => Control::SKIP,
            Self::Write => Control::WRITE,
        }
    }
}

/// One transfer.
pub struct Descriptor {
    control: u32,
    len: u32,
    address: PhysAddr,
}

impl Descriptor {
    /// A transfer from the start of `key`, which the descriptor selects.
    pub const fn selecting(key: Key, operation: Operation, address: PhysAddr, len: u32) -> Self {
        let control = operation.control().union(Control::SELECT).bits() | (key.get() as u32) << 16;
        Self { control, len, address }
    }

    /// A transfer from where the selected item stands.
    pub const fn continuing(operation: Operation, address: PhysAddr, len: u32) -> Self {
        Self { control: operation.control().bits(), len, address }
    }

    /// As the device wants it: three big-endian numbers.
    fn bytes(&self) -> [u8; 16] {
        let control = u128::from(self.control) << 96;
        let len = u128::from(self.len) << 64;
        (control | len | u128::from(self.address.get())).to_be_bytes()
    }
}

/// A transfer that failed, with the control word that was seen.
pub enum Fault {
    /// The error bit was set.
    Refused(u32),
    /// It was not zero before the deadline.
    Timeout(u32),
}

impl Fault {
    /// The error for the item of `key`.
    pub const fn of(self, key: Key) -> Error {
        match self {
            Self::Refused(control) => Error::Refused { key, control },
            Self::Timeout(control) => Error::Timeout { key, control },
        }
    }
}

/// Carries out one transfer.
pub fn transfer(host: &mut impl Host, doorbell: Doorbell, descriptor: Descriptor) -> Result<(), Fault> {
    let at = host.write_descriptor(descriptor.bytes());
    host.write_dma_address(at, doorbell);

    // QEMU is done before the write returns.
    let mut control = Control::of(host);
    if !control.is_done() {
        let deadline = Deadline::start(host);
        while !control.is_done() {
            if deadline.has_passed(host) {
                // Some hosts leave the command bits in place beside the error bit.
                let fault = if control.failed() { Fault::Refused } else { Fault::Timeout };
                return Err(fault(control.bits()));
            }
            core::hint::spin_loop();
            control = Control::of(host);
        }
    }
    if control.failed() { Err(Fault::Refused(control.bits())) } else { Ok(()) }
}

/// Whether the address register reads as "QEMU CFG", as QEMU's does (`hw/nvram/fw_cfg.c`, `fw_cfg_dma_mem_read`). Its high
/// half is enough to tell: on other hosts it reads as an address.
pub fn has_qemu_signature(host: &mut impl Registers) -> bool {
    host.read_dma_address_high() == *b"QEMU"
}
