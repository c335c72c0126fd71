//! The heap, and the memory functions that the compiler calls.

#[allow(dead_code, reason = "the compiler calls them by their names")]
mod functions;

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

use linked_list_allocator::Heap;
use spin::Mutex;

/// The heap, behind a lock that one CPU without interrupts never waits for.
struct Allocator(Mutex<Heap>);

#[global_allocator]
static HEAP: Allocator = Allocator(Mutex::new(Heap::empty()));

// SAFETY: `Heap` gives out disjoint blocks of the requested layout and takes back those that it gave.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller promises that `alloc` gave `block` for this layout.
            unsafe { self.0.lock().deallocate(block, layout) };
        }
    }
}

unsafe extern "C" {
    // Zero-sized marks set by linker.ld; only their addresses mean something.
    static mut heap_start: [u8; 0];
    static heap_end: [u8; 0];
    static mut wake_heap_start: [u8; 0];
    static wake_heap_end: [u8; 0];
}

/// Gives the heap its memory for a boot, in place of what [`give_wake_heap`] gave before a reset turned out to be no wake.
/// Called once, when nothing is allocated.
pub fn give_heap() {
    let start = &raw mut heap_start;
    let size = (&raw const heap_end).addr().wrapping_sub(start.addr());
    // SAFETY: linker.ld sets the bytes from heap_start to heap_end apart for this, and this is called once, before the boot
    // allocates and after all that looked for a wake was dropped: it gives back a number or nothing.
    unsafe { give(start.cast(), size) };
}

/// Gives the heap its memory for a wake: what is left of the memory that stays the firmware's. Called once, before the
/// first allocation.
pub fn give_wake_heap() {
    let start = &raw mut wake_heap_start;
    let size = (&raw const wake_heap_end).addr().wrapping_sub(start.addr());
    // SAFETY: linker.ld sets the bytes from wake_heap_start to wake_heap_end apart for this, and this is called once, before
    // anything is allocated.
    unsafe { give(start.cast(), size) };
}

/// Gives the heap `size` bytes in place of those that it had.
///
/// # Safety
/// The bytes are the heap's for ever; they are given once, and nothing is allocated.
#[inline(never)]
unsafe fn give(start: *mut u8, size: usize) {
    let mut heap = HEAP.0.lock();
    *heap = Heap::empty();
    // SAFETY: the heap is empty, and the caller promises the bytes.
    unsafe { heap.init(start, size) };
}
