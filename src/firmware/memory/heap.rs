//! The heap's allocator: an arena for the first blocks of a boot, and a list of holes for all later ones.
//!
//! A boot allocates a few dozen small blocks, and then ends. So the arena, the first part of the heap, is handed out from start
//! to end, and its freed blocks are not reused: an allocation costs one comparison instead of a search in the list of holes. If
//! the arena is full, blocks come from the list of holes in the rest of the heap, where memory is reused. The heap can lose at
//! most the arena's size to freed blocks.
//!
//! `tests/heap.rs` runs this on the host.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};

use linked_list_allocator::Heap;
use spin::Mutex;

/// The allocator. It has no memory until [`Self::give`] is called.
pub struct Allocator {
    /// The start of the arena's free part.
    next: AtomicPtr<u8>,
    /// The end of the arena. All blocks of the arena begin below it, and all blocks of the rest at it or above.
    end: AtomicPtr<u8>,
    /// The memory above the arena. One CPU runs without interrupts, so it never waits for the lock.
    rest: Mutex<Heap>,
}

impl Allocator {
    /// An allocator without memory.
    pub const fn empty() -> Self {
        Self {
            next: AtomicPtr::new(ptr::null_mut()),
            end: AtomicPtr::new(ptr::null_mut()),
            rest: Mutex::new(Heap::empty()),
        }
    }

    /// Replaces the allocator's memory with `size` bytes. The first `arena` of them are handed out once only.
    ///
    /// # Safety
    /// The bytes belong to the allocator permanently. They are given once, and nothing is allocated.
    #[inline(never)]
    pub unsafe fn give(&self, start: *mut u8, size: usize, arena: usize) {
        let arena = arena.min(size);
        let end = start.wrapping_add(arena);
        self.next.store(start, Relaxed);
        self.end.store(end, Relaxed);
        let mut rest = self.rest.lock();
        *rest = Heap::empty();
        // SAFETY: that heap is empty. The caller promises the bytes, and the arena has none of these.
        unsafe { rest.init(end, size.wrapping_sub(arena)) };
    }

    /// Takes a block from the arena, if it has room.
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

    /// Takes a block from the rest. Returns null if it is full.
    #[cold]
    #[inline(never)]
    fn take_rest(&self, layout: Layout) -> *mut u8 {
        self.rest.lock().allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }
}

// SAFETY: blocks of the arena are disjoint, and all end before the rest. `Heap` returns disjoint blocks of the requested layout,
// and gets back only its own: those above the arena.
unsafe impl GlobalAlloc for Allocator {
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(layout).unwrap_or_else(|| self.take_rest(layout))
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block).filter(|block| block.as_ptr() >= self.end.load(Relaxed)) {
            // SAFETY: the caller promises that `alloc` returned `block` for this layout, and it is not in the arena.
            unsafe { self.rest.lock().deallocate(block, layout) };
        }
    }
}
