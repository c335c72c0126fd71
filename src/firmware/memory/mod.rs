//! The heap's memory, and the memory functions that the compiler calls.

#[allow(dead_code, reason = "the compiler calls them by their names")]
mod functions;
mod heap;

use heap::Allocator;

#[global_allocator]
static HEAP: Allocator = Allocator::empty();

/// How much of a boot's heap is an arena, in bytes. A boot of QEMU's machines takes less in all, 16 KiB to 32 KiB on q35.
const ARENA: usize = 32 << 10;

unsafe extern "C" {
    // Zero-sized marks set by linker.ld; only their addresses mean something.
    static mut heap_start: [u8; 0];
    static heap_end: [u8; 0];
    static mut wake_heap_start: [u8; 0];
    static wake_heap_end: [u8; 0];
}

/// Gives the heap its memory for a boot, in place of what [`give_wake_heap`] gave before a reset turned out to be no wake.
///
/// # Safety
/// It is called once, when nothing is allocated.
pub unsafe fn give_heap() {
    let start = &raw mut heap_start;
    let size = (&raw const heap_end).addr().wrapping_sub(start.addr());
    // SAFETY: linker.ld sets the bytes from heap_start to heap_end apart for this; the caller promises the rest.
    unsafe { HEAP.give(start.cast(), size, ARENA) };
}

/// Gives the heap its memory for a wake: what is left of the memory that stays the firmware's. It is small, so all of it is
/// used again.
///
/// # Safety
/// It is called once, before the first allocation.
pub unsafe fn give_wake_heap() {
    let start = &raw mut wake_heap_start;
    let size = (&raw const wake_heap_end).addr().wrapping_sub(start.addr());
    // SAFETY: linker.ld sets the bytes from wake_heap_start to wake_heap_end apart for this; the caller promises the rest.
    unsafe { HEAP.give(start.cast(), size, 0) };
}
