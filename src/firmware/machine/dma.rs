//! DMA transfers by the fw_cfg device: the descriptor, the doorbell, and the memory lent to the device.

use alloc::vec::Vec;
use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::compiler_fence;
use core::{mem, ptr};

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::boot::Clears;
use firstlight::hal::dma::{self, AddressWrite, Fault, MOST_BYTES, Transfer};
use firstlight::hal::{Dma, MemoryError};
use firstlight::layout;

use super::{PcMachine, VIRTUAL_OFFSET, pointer};

/// The memory that the device accesses. It is in the firmware's RAM, and so below 4 GiB. The descriptor is 16-byte aligned.
#[repr(C, align(16))]
struct Shared {
    descriptor: UnsafeCell<[u8; 16]>,
    bytes: UnsafeCell<[u8; MOST_BYTES]>,
}

// SAFETY: one CPU runs without interrupts, so there is one access at a time. Only `PcMachine` accesses it, and there is one
// `PcMachine`.
unsafe impl Sync for Shared {}

static SHARED: Shared = Shared { descriptor: UnsafeCell::new([0; 16]), bytes: UnsafeCell::new([0; MOST_BYTES]) };

/// The physical address of a Rust object in the firmware's RAM window. The pointer's provenance is exposed, so the compiler
/// assumes that any later port write can write the object.
fn physical(pointer: *const u8) -> PhysAddr {
    PhysAddr::new((pointer.expose_provenance() as u64).wrapping_sub(VIRTUAL_OFFSET))
}

/// The error for a transfer that is too long for its memory or for a descriptor.
fn too_long(at: PhysAddr) -> Fault {
    Fault::Memory(MemoryError { range: PhysRange::empty_at(at) })
}

/// The length in a descriptor.
fn length(at: PhysAddr, len: usize) -> Result<u32, Fault> {
    u32::try_from(len).map_err(|_| too_long(at))
}

/// The first `len` bytes of the transfer buffer in [`SHARED`].
fn shared_bytes(len: usize) -> Result<*mut u8, Fault> {
    let bytes = SHARED.bytes.get().cast::<u8>();
    if len <= MOST_BYTES { Ok(bytes) } else { Err(too_long(physical(bytes))) }
}

impl PcMachine {
    /// Writes the descriptor's address to the doorbell.
    fn ring(&mut self, address_write: AddressWrite) {
        let at = physical(SHARED.descriptor.get().cast()).get();
        if address_write == AddressWrite::Halves {
            self.ports.write32(dma::ADDRESS_HIGH, ((at >> 32) as u32).to_be());
        }
        self.ports.write32(dma::ADDRESS_LOW, (at as u32).to_be());
    }

    /// Refuses further transfers after one has timed out: the device may still write its memory.
    fn check_not_lost(&self, transfer: Transfer) -> Result<(), Fault> {
        if self.lost.is_some() { Err(Fault::Timeout(transfer.control)) } else { Ok(()) }
    }

    /// Reads the control word, which the device may have written.
    fn control(&mut self) -> u32 {
        // SAFETY: the cell is an aligned static that is only accessed through this raw pointer. Volatile, because the device
        // writes it. The control word is the first four of its sixteen bytes.
        u32::from_be(unsafe { ptr::read_volatile(SHARED.descriptor.get().cast::<u32>()) })
    }

    /// Makes the device execute a transfer with `len` bytes at `at`, which it must be allowed to access. They are lent to it
    /// until this function returns, and permanently after [`Fault::Timeout`].
    #[inline(never)]
    fn transfer(&mut self, transfer: Transfer, at: PhysAddr, len: u32) -> Result<(), Fault> {
        self.check_not_lost(transfer)?;
        // SAFETY: as in `control`. Volatile, because the device reads it.
        unsafe { ptr::write_volatile(SHARED.descriptor.get(), transfer.descriptor(at, len)) };
        // The compiler must not move accesses to the transfer's memory across its start or end.
        compiler_fence(SeqCst);
        self.ring(transfer.address_write);
        // QEMU is done before the write returns.
        if self.control() != 0 {
            return self.wait_for_end(at, len);
        }
        compiler_fence(SeqCst);
        Ok(())
    }

    /// The rest of [`Self::transfer`] with a device that takes its time, or refuses.
    #[cold]
    #[inline(never)]
    fn wait_for_end(&mut self, at: PhysAddr, len: u32) -> Result<(), Fault> {
        let result = dma::wait(self, Self::control);
        compiler_fence(SeqCst);
        if matches!(result, Err(Fault::Timeout(_))) {
            self.lost = Some(PhysRange::new(at, len.into()).unwrap_or(PhysRange::empty_at(at)));
        }
        result
    }
}

/// The control word that selects and reads an item that no host has (QEMU `include/standard-headers/linux/qemu_fw_cfg.h`,
/// `FW_CFG_INVALID`).
const READ_NOTHING: u32 = 0xffff << 16 | 1 << 3 | 1 << 1;

impl PcMachine {
    /// Clears the unused part of the memory that stays reserved for a wake: the page under the stack, the stack except its top,
    /// the heap of a wake and the page for started CPUs. Called at the end of the firmware, after [`Self::give_mapping`]. The
    /// last jump clears the top of the stack ([`STACK_IN_USE`]).
    #[inline(never)]
    pub fn clear_unused(&mut self, clears: Clears) {
        let top: u64;
        // SAFETY: this reads a register.
        unsafe { asm!("mov {}, rsp", out(reg) top, options(nomem, nostack, preserves_flags)) };
        let top = top.wrapping_sub(VIRTUAL_OFFSET);
        let top_of_stack = physical((&raw const stack_top).cast()).get().wrapping_sub(STACK_IN_USE);
        let end = PhysAddr::new(top.wrapping_sub(USED_BELOW).min(top_of_stack));
        let below = PhysRange::from_bounds(layout::STACK_GUARD.start(), end);
        let heap = physical((&raw const wake_heap_start).cast());
        let behind = PhysRange::from_bounds(heap, layout::STARTUP_PAGE.end());
        let zeros = Transfer { address_write: AddressWrite::Once, control: READ_NOTHING };
        for range in [below, behind].into_iter().flatten() {
            let is_clear = match clears {
                Clears::Nothing => return,
                // Both ranges are in low memory, so their lengths fit.
                Clears::ByDma => self.transfer(zeros, range.start(), range.len() as u32).is_ok(),
                Clears::ByCpu => false,
            };
            if !is_clear {
                // SAFETY: the ranges are mapped, and neither holds a Rust object that is used again: the heap of a wake is empty
                // in a boot, and the used part of the stack is above.
                unsafe { ptr::write_bytes(pointer(range.start()), 0, range.len() as usize) };
            }
        }
    }

    /// Clears the stack below the caller's frame.
    pub fn clear_below(&mut self) {
        let start = PhysAddr::new(layout::STACK_GUARD.end().get().wrapping_add(VIRTUAL_OFFSET));
        // SAFETY: the stack is mapped from there on, and nothing below a function's frame is used.
        unsafe { clear_to_stack_pointer(pointer(start)) };
    }

    /// Clears the whole stack.
    ///
    /// # Safety
    /// The caller runs on another stack, and no frame on this one is used again.
    pub unsafe fn clear_stack(&mut self) {
        let top = physical((&raw const stack_top).cast());
        if let Some(stack) = PhysRange::from_bounds(layout::STACK_GUARD.end(), top) {
            // SAFETY: the range is mapped, and the caller promises that nothing in it is used again.
            unsafe { ptr::write_bytes(pointer(stack.start()), 0, stack.len() as usize) };
        }
    }
}

/// Clears from `start` to its own return address, and needs no stack for it. Does nothing if that is below `start`, as on
/// another stack.
///
/// # Safety
/// The memory from `start` to the stack pointer is mapped, and is the unused part of the stack.
#[unsafe(naked)]
unsafe extern "sysv64" fn clear_to_stack_pointer(start: *mut u8) {
    naked_asm!("mov rcx, rsp", "xor eax, eax", "sub rcx, rdi", "jbe 2f", "rep stosb", "2:", "ret")
}

/// The bytes at the top of the stack that are in use at the end of the firmware: by the entry point, and by
/// [`PcMachine::clear_unused`] and the functions that it calls.
pub const STACK_IN_USE: u64 = 2048;
/// The bytes below its stack pointer that the functions it calls may use.
const USED_BELOW: u64 = 512;

unsafe extern "C" {
    // Symbols of linker.ld; only their addresses have a meaning.
    static wake_heap_start: [u8; 0];
    static stack_top: [u8; 0];
}

impl Dma for PcMachine {
    fn pass(&mut self, transfer: Transfer, len: u32) -> Result<(), Fault> {
        // No memory is checked here, so the transfer must not read or write any.
        let control = transfer.control & dma::PASSING;
        self.transfer(Transfer { control, ..transfer }, PhysAddr::new(0), len)
    }

    fn load(&mut self, transfer: Transfer, to: PhysRange) -> Result<(), Fault> {
        self.check_writable(to)?;
        self.transfer(transfer, to.start(), length(to.start(), to.len() as usize)?)
    }

    fn read_list(&mut self, transfer: Transfer, into: &mut Vec<u8>) -> Result<(), Fault> {
        let at = physical(into.as_mut_ptr());
        let result = self.transfer(transfer, at, length(at, into.len())?);
        if self.lost.is_some() {
            // The device may write it at any time, so it is never used again.
            mem::forget(mem::take(into));
        }
        result
    }

    fn read_bytes(&mut self, transfer: Transfer, into: &mut [u8]) -> Result<(), Fault> {
        self.check_not_lost(transfer)?;
        let shared = shared_bytes(into.len())?;
        // If the device writes too little, the rest of `into` keeps its bytes and gets none of an earlier transfer.
        // SAFETY: `shared` has room for them and does not overlap `into`, because nothing borrows `shared`.
        unsafe { ptr::copy_nonoverlapping(into.as_ptr(), shared, into.len()) };
        self.transfer(transfer, physical(shared), into.len() as u32)?;
        // SAFETY: as above; the device has finished with them.
        unsafe { ptr::copy_nonoverlapping(shared, into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    fn write_bytes(&mut self, transfer: Transfer, bytes: &[u8]) -> Result<(), Fault> {
        self.check_not_lost(transfer)?;
        let shared = shared_bytes(bytes.len())?;
        // SAFETY: `shared` has room for them and does not overlap `bytes`, because nothing borrows `shared`. No device uses it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), shared, bytes.len()) };
        self.transfer(transfer, physical(shared), bytes.len() as u32)
    }

    fn is_stuck(&self) -> bool {
        self.lost.is_some()
    }

    fn forget_address(&mut self) {
        self.ports.write32(dma::ADDRESS_HIGH, 0);
    }

    #[inline]
    fn check_device_range(&self, range: PhysRange) -> Result<(), MemoryError> {
        self.check_writable(range)
    }
}
