//! The registers of a virtio device on a machine without PCI, version 1 ("legacy") and 2 (VIRTIO 1.2, 4.2).

use super::areas::{ALIGNMENT, Areas, Doorbell};
use super::registers::Registers;
use crate::addr::{PhysAddr, PhysRange};
use crate::disk::Error;
use crate::hal::Memory;

/// The bytes that a slot takes on QEMU (`hw/virtio/virtio-mmio.c`, `virtio_mmio_realizefn`).
const SLOT_LEN: u64 = 0x200;
/// The first slot of QEMU's `microvm` (`include/hw/i386/microvm.h`, `VIRTIO_MMIO_BASE`).
const MICROVM_START: PhysAddr = PhysAddr::new(0xfeb0_0000);
/// The slots of QEMU's `microvm` (`hw/i386/microvm.c`, `microvm_devices_init`): 8 without a second I/O APIC, else 24. Where there
/// is no slot, registers read as zeros.
const MICROVM_SLOTS: u64 = 24;

/// The registers (4.2.2, 4.2.4).
const MAGIC: u64 = 0x000;
const VERSION: u64 = 0x004;
const DEVICE_ID: u64 = 0x008;
const FEATURES: u64 = 0x010;
const FEATURE_SELECT: u64 = 0x014;
const ACCEPTED: u64 = 0x020;
const ACCEPTED_SELECT: u64 = 0x024;
const LEGACY_PAGE_SIZE: u64 = 0x028;
const QUEUE_SELECT: u64 = 0x030;
const QUEUE_MOST: u64 = 0x034;
const QUEUE_SIZE: u64 = 0x038;
const LEGACY_QUEUE_ALIGNMENT: u64 = 0x03c;
const LEGACY_QUEUE_PAGE: u64 = 0x040;
const QUEUE_READY: u64 = 0x044;
const QUEUE_NOTIFY: u64 = 0x050;
const STATUS: u64 = 0x070;
const QUEUE_DESCRIPTORS: [u64; 2] = [0x080, 0x084];
const QUEUE_AVAILABLE: [u64; 2] = [0x090, 0x094];
const QUEUE_USED: [u64; 2] = [0x0a0, 0x0a4];
const GENERATION: u64 = 0x0fc;
const CONFIGURATION: u64 = 0x100;

/// What [`MAGIC`] reads as: "virt".
const IS_VIRTIO: u32 = 0x7472_6976;
/// The version of the interface from before VIRTIO 1.0, and the present one.
const LEGACY: u32 = 1;
const MODERN: u32 = 2;

/// A slot with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    registers: Registers,
    /// Whether it has version 1 of the registers.
    pub(super) is_legacy: bool,
}

/// Where slots of QEMU's `microvm` are, in the order of their addresses.
///
/// Only its ACPI tables describe them, in code; the addresses are constants of the machine.
pub fn microvm_slots() -> impl DoubleEndedIterator<Item = PhysRange> {
    (0..MICROVM_SLOTS).filter_map(|slot| {
        let start = MICROVM_START.checked_add(slot.saturating_mul(SLOT_LEN))?;
        PhysRange::new(start, SLOT_LEN)
    })
}

impl Slot {
    /// The device in the slot, and what kind of device it is (VIRTIO 1.2, 5). `None` if the slot is empty: that takes one read.
    ///
    /// # Errors
    /// [`Error::Memory`] if the firmware may not read it.
    pub fn find(machine: &mut impl Memory, range: PhysRange) -> Result<Option<(Self, u32)>, Error> {
        let registers = Registers::new(range, SLOT_LEN)?;
        let device = registers.read32(machine, DEVICE_ID)?;
        // A slot that is not there reads as zeros or as ones.
        if matches!(device, 0 | u32::MAX) || registers.read32(machine, MAGIC)? != IS_VIRTIO {
            return Ok(None);
        }
        Ok(match registers.read32(machine, VERSION)? {
            LEGACY => Some((Self { registers, is_legacy: true }, device)),
            MODERN => Some((Self { registers, is_legacy: false }, device)),
            _ => None,
        })
    }

    pub(super) fn status(&self, machine: &mut impl Memory) -> Result<u8, Error> {
        // The status has eight bits.
        Ok(self.registers.read32(machine, STATUS)? as u8)
    }

    pub(super) fn set_status(&self, machine: &mut impl Memory, status: u8) -> Result<(), Error> {
        self.registers.write32(machine, STATUS, status.into())
    }

    pub(super) fn features(&self, machine: &mut impl Memory, half: u32) -> Result<u32, Error> {
        self.registers.write32(machine, FEATURE_SELECT, half)?;
        self.registers.read32(machine, FEATURES)
    }

    pub(super) fn accept(&self, machine: &mut impl Memory, half: u32, features: u32) -> Result<(), Error> {
        self.registers.write32(machine, ACCEPTED_SELECT, half)?;
        self.registers.write32(machine, ACCEPTED, features)
    }

    pub(super) fn select_queue(&self, machine: &mut impl Memory, queue: u16) -> Result<u32, Error> {
        if self.is_legacy {
            self.registers.write32(machine, LEGACY_PAGE_SIZE, ALIGNMENT.bytes() as u32)?;
        }
        self.registers.write32(machine, QUEUE_SELECT, queue.into())?;
        self.registers.read32(machine, QUEUE_MOST)
    }

    pub(super) fn turn_on_queue(&self, machine: &mut impl Memory, size: u16, areas: &Areas) -> Result<Doorbell, Error> {
        self.registers.write32(machine, QUEUE_SIZE, size.into())?;
        if self.is_legacy {
            self.registers.write32(machine, LEGACY_QUEUE_ALIGNMENT, ALIGNMENT.bytes() as u32)?;
            let page = areas.descriptors.get().checked_div(ALIGNMENT.bytes()).unwrap_or(0) as u32;
            self.registers.write32(machine, LEGACY_QUEUE_PAGE, page)?;
        } else {
            self.registers.write_halves(machine, QUEUE_DESCRIPTORS, areas.descriptors)?;
            self.registers.write_halves(machine, QUEUE_AVAILABLE, areas.available)?;
            self.registers.write_halves(machine, QUEUE_USED, areas.used)?;
            self.registers.write32(machine, QUEUE_READY, 1)?;
        }
        Ok(Doorbell::Dword(self.registers.at(QUEUE_NOTIFY, 4)?))
    }

    pub(super) fn generation(&self, machine: &mut impl Memory) -> Result<u32, Error> {
        if self.is_legacy { Ok(0) } else { self.registers.read32(machine, GENERATION) }
    }

    pub(super) fn configuration(&self, machine: &mut impl Memory, offset: u64) -> Result<u32, Error> {
        self.registers.read32(machine, CONFIGURATION.saturating_add(offset))
    }
}
