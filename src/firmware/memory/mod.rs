//! The heap's memory, and the memory functions that the compiler calls.

#[allow(dead_code, reason = "the compiler calls them by name")]
mod functions;
mod heap;

use heap::Allocator;

#[global_allocator]
static HEAP: Allocator = Allocator::empty();

/// The size of the arena in a boot's heap, in bytes. A boot of QEMU's machines allocates less in all: 16 KiB to 32 KiB on q35.
const ARENA: usize = 32 << 10;

unsafe extern "C" {
    // Zero-sized symbols of linker.ld; only their addresses have a meaning.
    static mut heap_start: [u8; 0];
    static heap_end: [u8; 0];
    static mut wake_heap_start: [u8; 0];
    static wake_heap_end: [u8; 0];
}

/// Gives the heap its memory for a boot. It replaces that of [`give_wake_heap`] if a reset turned out not to be a wake.
///
/// # Safety
/// Called once, when nothing is allocated.
pub unsafe fn give_heap() {
    let start = &raw mut heap_start;
    let size = (&raw const heap_end).addr().wrapping_sub(start.addr());
    // SAFETY: linker.ld reserves the bytes from heap_start to heap_end for this; the caller promises the rest.
    unsafe { HEAP.give(start.cast(), size, ARENA) };
}

/// Gives the heap its memory for a wake: the unused part of the memory that stays reserved for the firmware. It is small, so it
/// has no arena.
///
/// # Safety
/// Called once, before the first allocation.
pub unsafe fn give_wake_heap() {
    let start = &raw mut wake_heap_start;
    let size = (&raw const wake_heap_end).addr().wrapping_sub(start.addr());
    // SAFETY: linker.ld reserves the bytes from wake_heap_start to wake_heap_end for this; the caller promises the rest.
    unsafe { HEAP.give(start.cast(), size, 0) };
}
