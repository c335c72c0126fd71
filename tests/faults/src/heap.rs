//! A heap like the image's for code under test: of the same size, with the same allocator.
//!
//! Every program with this library allocates through [`Divided`]: what runs under [`inside`] from the small heap, the rest
//! (the fakes, the tests) from the system's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

use firstlight::layout;
use linked_list_allocator::Heap;

/// The bytes of the image's heap: what is below the page tables.
pub const SIZE: usize = (layout::PAGE_TABLES.start().get() - layout::FIRMWARE_RAM.start().get()) as usize;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with the small heap.
pub fn inside<T>(work: impl FnOnce() -> T) -> T {
    with(true, work)
}

/// Runs `work`, called from what runs [`inside`], with the system's heap.
pub fn outside<T>(work: impl FnOnce() -> T) -> T {
    with(false, work)
}

fn with<T>(inside: bool, work: impl FnOnce() -> T) -> T {
    /// Sets it back, whether `work` returns or panics.
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            INSIDE.set(self.0);
        }
    }
    let _before = Before(INSIDE.replace(inside));
    work()
}

/// What was made of the small heap since [`start`].
pub struct Usage {
    /// Bytes that are still in use.
    pub left: usize,
    /// The most bytes that were.
    pub most: usize,
    /// How many blocks were asked for.
    pub allocations: u32,
}

/// See there.
pub fn usage() -> Usage {
    let small = small();
    Usage { left: small.heap.used(), most: small.most, allocations: small.allocations }
}

/// Begins to count. The allocation with this number, from 1 on, fails.
pub fn start(fails: Option<u32>) {
    let mut small = small();
    (small.most, small.allocations, small.fails) = (0, 0, fails);
}

fn small() -> MutexGuard<'static, Small> {
    HEAP.small.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Small {
    heap: Heap,
    started: bool,
    most: usize,
    allocations: u32,
    fails: Option<u32>,
}

#[repr(align(4096))]
struct Room(UnsafeCell<[u8; SIZE]>);

// SAFETY: the bytes are accessed through the blocks that the one heap in them gives out, and nothing else.
unsafe impl Sync for Room {}

static ROOM: Room = Room(UnsafeCell::new([0; SIZE]));

/// The two heaps.
struct Divided {
    small: Mutex<Small>,
}

#[global_allocator]
static HEAP: Divided = Divided { small: Mutex::new(Small::new()) };

impl Small {
    const fn new() -> Self {
        Self { heap: Heap::empty(), started: false, most: 0, allocations: 0, fails: None }
    }
}

impl Divided {
    fn is_small(block: *mut u8) -> bool {
        block.addr().wrapping_sub(ROOM.0.get().addr()) < SIZE
    }
}

// SAFETY: both heaps give out disjoint blocks of the requested layout; a block goes back to the one whose memory it is in.
unsafe impl GlobalAlloc for Divided {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !INSIDE.try_with(Cell::get).unwrap_or(false) {
            // SAFETY: the caller's promise is the same.
            return unsafe { System.alloc(layout) };
        }
        let mut small = small();
        if !small.started {
            small.started = true;
            // SAFETY: the room is this heap's alone, and this is done once.
            unsafe { small.heap.init(ROOM.0.get().cast(), SIZE) };
        }
        small.allocations += 1;
        if small.fails == Some(small.allocations) {
            return ptr::null_mut();
        }
        let block = small.heap.allocate_first_fit(layout).map_or(ptr::null_mut(), NonNull::as_ptr);
        small.most = small.most.max(small.heap.used());
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if !Self::is_small(block) {
            // SAFETY: it is none of the small heap's, so the system gave it, for this layout.
            unsafe { System.dealloc(block, layout) };
        } else if let Some(block) = NonNull::new(block) {
            let mut small = small();
            // SAFETY: it is in the small heap's room, so that gave it, for this layout.
            unsafe { small.heap.deallocate(block, layout) };
        }
    }
}
