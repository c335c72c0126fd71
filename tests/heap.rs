//! The image's allocator, on the host: the blocks that it returns are in its own memory and do not overlap.

#[path = "../src/firmware/memory/heap.rs"]
mod allocator;

// The name by which `cargo xtask test` finds the tests to run under AddressSanitizer.
mod heap {
    use std::alloc::{GlobalAlloc as _, Layout};
    use std::ops::Range;
    use std::slice;

    use proptest::prelude::*;

    use super::allocator::Allocator;

    const SIZE: usize = 16 << 10;
    const ARENA: usize = 4 << 10;

    /// Memory for an allocator.
    struct Memory(Vec<u64>);

    impl Memory {
        /// Passes new memory to `allocator`, which has no blocks in use.
        fn given_to(allocator: &Allocator, arena: usize) -> Self {
            let mut memory = vec![0; SIZE / 8];
            // SAFETY: the tests keep it for as long as they use the allocator, and have freed all blocks.
            unsafe { allocator.give(memory.as_mut_ptr().cast(), SIZE, arena) };
            Self(memory)
        }

        fn addresses(&self) -> Range<usize> {
            let start = self.0.as_ptr().addr();
            start..start + SIZE
        }
    }

    /// An allocator, and its memory.
    fn allocator(arena: usize) -> (Allocator, Memory) {
        let allocator = Allocator::empty();
        let memory = Memory::given_to(&allocator, arena);
        (allocator, memory)
    }

    /// A block filled with one byte value.
    struct Block {
        start: *mut u8,
        layout: Layout,
        byte: u8,
    }

    impl Block {
        fn new(allocator: &Allocator, layout: Layout, byte: u8) -> Option<Self> {
            // SAFETY: no layout of the tests is empty.
            let start = unsafe { allocator.alloc(layout) };
            if start.is_null() {
                return None;
            }
            // SAFETY: the block is as long as its layout.
            unsafe { start.write_bytes(byte, layout.size()) };
            Some(Self { start, layout, byte })
        }

        fn give_back(self, allocator: &Allocator) {
            // SAFETY: the block is initialised, and as long as its layout.
            let bytes = unsafe { slice::from_raw_parts(self.start, self.layout.size()) };
            assert!(bytes.iter().all(|&byte| byte == self.byte), "another block has its memory");
            // SAFETY: it is from this allocator, and is not used after this call.
            unsafe { allocator.dealloc(self.start, self.layout) };
        }
    }

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn the_first_blocks_come_from_the_arena_one_after_another() {
        let (allocator, memory) = allocator(ARENA);
        let start = memory.addresses().start;
        let first = Block::new(&allocator, layout(3, 1), 1).unwrap();
        let second = Block::new(&allocator, layout(8, 8), 2).unwrap();
        assert_eq!((first.start.addr(), second.start.addr()), (start, start + 8));
        first.give_back(&allocator);
        second.give_back(&allocator);
        let third = Block::new(&allocator, layout(ARENA - 16, 1), 3).unwrap();
        assert_eq!(third.start.addr(), start + 16, "it is not used again, and full to its last byte");
        assert_eq!(Block::new(&allocator, layout(1, 1), 4).unwrap().start.addr(), start + ARENA);
    }

    #[test]
    fn freed_memory_outside_the_arena_is_reused() {
        for arena in [0, ARENA] {
            let (allocator, _memory) = allocator(arena);
            for byte in 0..=u8::MAX {
                let block = Block::new(&allocator, layout(SIZE - ARENA, 16), byte);
                block.expect("all that is behind the arena").give_back(&allocator);
            }
        }
    }

    #[test]
    fn an_allocation_that_does_not_fit_fails_and_takes_nothing() {
        for arena in [0, 8, ARENA, SIZE - 64] {
            let (allocator, _memory) = allocator(arena);
            for (size, align) in [(SIZE + 1, 1), (isize::MAX as usize, 1), (1, 1 << 62), (1 << 62, 1 << 62)] {
                assert!(Block::new(&allocator, layout(size, align), 0).is_none(), "{size} bytes, aligned to {align}");
            }
            let rest = [arena, SIZE - arena - 32];
            for size in rest.into_iter().filter(|&size| size != 0) {
                assert!(Block::new(&allocator, layout(size, 1), 0).is_some(), "{size} bytes, arena of {arena}");
            }
        }
        assert!(Block::new(&Allocator::empty(), layout(1, 1), 0).is_none(), "no memory yet");
    }

    #[test]
    fn new_memory_replaces_the_previous_memory() {
        let (allocator, _memory) = allocator(0);
        Block::new(&allocator, layout(100, 8), 1).unwrap().give_back(&allocator);
        let memory = Memory::given_to(&allocator, ARENA);
        for byte in 0..30 {
            let block = Block::new(&allocator, layout(256, 8), byte).unwrap();
            assert!(memory.addresses().contains(&block.start.addr()));
        }
    }

    proptest! {
        #[test]
        fn no_two_blocks_share_memory_and_all_are_aligned(
            arena in 0..ARENA,
            steps in proptest::collection::vec((any::<bool>(), 1..900_usize, 0..8_u32, any::<prop::sample::Index>()), 1..120),
        ) {
            let (allocator, memory) = allocator(arena);
            let memory_at = memory.addresses();
            let mut blocks = Vec::new();
            for ((takes, size, align, which), byte) in steps.into_iter().zip((0..=u8::MAX).cycle()) {
                if !takes && !blocks.is_empty() {
                    let block: Block = blocks.swap_remove(which.index(blocks.len()));
                    block.give_back(&allocator);
                } else if let Some(block) = Block::new(&allocator, layout(size, 1 << align), byte) {
                    let start = block.start.addr();
                    prop_assert!(start % (1 << align) == 0 && memory_at.start <= start && start + size <= memory_at.end);
                    blocks.push(block);
                }
            }
            blocks.into_iter().for_each(|block| block.give_back(&allocator));
        }
    }
}
