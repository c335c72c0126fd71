//! Memory that is lent to a device.

use core::cell::UnsafeCell;
use core::ptr;

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::hal::{Dma, MemoryError};

use super::{PcMachine, VIRTUAL_OFFSET};

/// Where the one DMA descriptor lives: 16-byte aligned, in the firmware's RAM and so below 4 GiB.
#[repr(C, align(16))]
struct DescriptorCell(UnsafeCell<[u8; 16]>);

// SAFETY: one CPU runs and nothing interrupts it, so there is one access at a time.
unsafe impl Sync for DescriptorCell {}

static DESCRIPTOR: DescriptorCell = DescriptorCell(UnsafeCell::new([0; 16]));

/// The physical address of a Rust object, which lives in the firmware's RAM window.
fn physical(pointer: *const u8) -> PhysAddr {
    PhysAddr::new((pointer.expose_provenance() as u64).wrapping_sub(VIRTUAL_OFFSET))
}

impl Dma for PcMachine {
    fn share(&mut self, buffer: &mut [u8]) -> PhysAddr {
        // Exposed, so that the compiler takes every later `out` to be able to write it.
        physical(buffer.as_mut_ptr())
    }

    fn unshare(&mut self, _buffer: &mut [u8]) {
        // The transfer's `out` was the last access; it is not `nomem`, so nothing cached from before it survives.
    }

    fn write_descriptor(&mut self, descriptor: [u8; 16]) -> PhysAddr {
        let cell = DESCRIPTOR.0.get();
        // SAFETY: the cell is a static, aligned and only ever accessed through this raw pointer; volatile, because the
        // device reads it.
        unsafe { ptr::write_volatile(cell, descriptor) };
        physical(cell.cast())
    }

    fn read_descriptor_control(&mut self) -> [u8; 4] {
        // SAFETY: as in `write_descriptor`; the control word is the first four of the cell's sixteen bytes, and the
        // device may have written it.
        unsafe { ptr::read_volatile(DESCRIPTOR.0.get().cast::<[u8; 4]>()) }
    }

    fn check_device_range(&self, range: PhysRange) -> Result<(), MemoryError> {
        self.check_mapped(range)
    }
}
