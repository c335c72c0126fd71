//! The heap's allocator: an arena for the first blocks of a boot, and a list of holes for all that come after.
//!
//! A boot takes a few dozen small blocks and is over. So the first part of the heap, the arena, is given out from its start to
//! its end, and a block of it that is given back is not used again: that takes a comparison where the list of holes takes a
//! search. What the arena has no room for comes from the list of holes behind it, where memory is used again. The heap can be
//! short of the arena's length by that, and of no more.
//!
//! `tests/heap.rs` runs this on the host.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use linked_list_allocator::Heap;
use spin::Mutex;

/// The allocator. Until it is given memory there is no room in it.
pub struct Allocator {
    /// Where the arena's free part begins.
    next: AtomicPtr<u8>,
    /// Where the arena ends. No block of it begins here or behind, and every one of the rest does.
    end: AtomicPtr<u8>,
    /// What is behind the arena. One CPU without interrupts never waits for the lock.
    rest: Mutex<Heap>,
}

impl Allocator {
    /// One without memory.
    pub const fn empty() -> Self {
        Self {
            next: AtomicPtr::new(ptr::null_mut()),
            end: AtomicPtr::new(ptr::null_mut()),
            rest: Mutex::new(Heap::empty()),
        }
    }

    /// Gives it `size` bytes in place of those that it had, the first `arena` of them for blocks that are given out once.
    ///
    /// # Safety
    /// The bytes are the allocator's for ever; they are given once, and nothing is allocated.
    #[inline(never)]
    pub unsafe fn give(&self, start: *mut u8, size: usize, arena: usize) {
        let arena = arena.min(size);
        let end = start.wrapping_add(arena);
        self.next.store(start, Relaxed);
        self.end.store(end, Relaxed);
        let mut rest = self.rest.lock();
        *rest = Heap::empty();
        // SAFETY: that heap is empty, and the caller promises the bytes, of which none is the arena's.
        unsafe { rest.init(end, size.wrapping_sub(arena)) };
    }

    /// A block of the arena, if it has room.
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        let below = layout.align().wrapping_sub(1);
        let block_at = |next: *mut u8| Some(next.with_addr(next.addr().checked_add(below)? & !below));
        let end = self.end.load(Relaxed);
        let taken = self.next.fetch_update(Relaxed, Relaxed, |next| {
            let block = block_at(next)?;
            let room = end.addr().checked_sub(block.addr())?;
            (layout.size() <= room).then(|| block.wrapping_add(layout.size()))
        });
        taken.ok().and_then(block_at)
    }

    /// A block of the rest, or null.
    #[cold]
    #[inline(never)]
    fn take_rest(&self, layout: Layout) -> *mut u8 {
        self.rest.lock().allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }
}

// SAFETY: a block of the arena ends where the next one begins at the earliest, and all end before the rest. `Heap` gives out
// disjoint blocks of the requested layout, and takes back those that it gave: they are behind the arena.
unsafe impl GlobalAlloc for Allocator {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(layout).unwrap_or_else(|| self.take_rest(layout))
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block).filter(|block| block.as_ptr() >= self.end.load(Relaxed)) {
            // SAFETY: the caller promises that `alloc` gave `block` for this layout, and it is none of the arena's.
            unsafe { self.rest.lock().deallocate(block, layout) };
        }
    }
}
