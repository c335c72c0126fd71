//! A device's registers, of whichever kind: what [`super::device`] needs of them.

use super::areas::{Areas, Doorbell};
use super::{mmio, pci};
use crate::disk::Error;
use crate::hal::Memory;

/// Where a device's registers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In BARs of a PCI function.
    Pci(pci::Function),
    /// In a slot of a machine without PCI.
    Mmio(mmio::Slot),
}

impl Place {
    /// Whether it has the interface from before version 1 of the specification.
    pub const fn is_legacy(&self) -> bool {
        matches!(self, Self::Mmio(slot) if slot.is_legacy)
    }

    /// Reads the device's status.
    pub fn status(&self, machine: &mut impl Memory) -> Result<u8, Error> {
        match self {
            Self::Pci(function) => function.status(machine),
            Self::Mmio(slot) => slot.status(machine),
        }
    }

    /// Writes the device's status. Zero resets it.
    pub fn set_status(&self, machine: &mut impl Memory, status: u8) -> Result<(), Error> {
        match self {
            Self::Pci(function) => function.set_status(machine, status),
            Self::Mmio(slot) => slot.set_status(machine, status),
        }
    }

    /// Reads half of what the device can do: bits 31:0 for 0, bits 63:32 for 1.
    pub fn features(&self, machine: &mut impl Memory, half: u32) -> Result<u32, Error> {
        match self {
            Self::Pci(function) => function.features(machine, half),
            Self::Mmio(slot) => slot.features(machine, half),
        }
    }

    /// Writes half of what the driver uses of it.
    pub fn accept(&self, machine: &mut impl Memory, half: u32, features: u32) -> Result<(), Error> {
        match self {
            Self::Pci(function) => function.accept(machine, half, features),
            Self::Mmio(slot) => slot.accept(machine, half, features),
        }
    }

    /// Selects a queue, and returns the most descriptors that it can have. Zero if there is no such queue.
    pub fn select_queue(&self, machine: &mut impl Memory, queue: u16) -> Result<u32, Error> {
        match self {
            Self::Pci(function) => function.select_queue(machine, queue).map(u32::from),
            Self::Mmio(slot) => slot.select_queue(machine, queue),
        }
    }

    /// Turns on the selected queue with `size` descriptors. Returns the register that starts its requests.
    pub fn turn_on_queue(&self, machine: &mut impl Memory, size: u16, areas: &Areas) -> Result<Doorbell, Error> {
        match self {
            Self::Pci(function) => function.turn_on_queue(machine, size, areas),
            Self::Mmio(slot) => slot.turn_on_queue(machine, size, areas),
        }
    }

    /// Reads the number that changes when the device's configuration does. A legacy device has none: zero.
    pub fn generation(&self, machine: &mut impl Memory) -> Result<u32, Error> {
        match self {
            Self::Pci(function) => function.generation(machine).map(u32::from),
            Self::Mmio(slot) => slot.generation(machine),
        }
    }

    /// Reads 32 bits of the device's configuration. `offset` is a multiple of 4.
    pub fn configuration(&self, machine: &mut impl Memory, offset: u64) -> Result<u32, Error> {
        match self {
            Self::Pci(function) => function.configuration(machine, offset),
            Self::Mmio(slot) => slot.configuration(machine, offset),
        }
    }
}
