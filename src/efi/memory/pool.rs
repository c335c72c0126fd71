//! Pools: pieces of pages of one type.
//!
//! Where the pieces are is noted on the firmware's heap, not between them: an image that writes past its own ruins other
//! images' data and none of the firmware's.

use alloc::vec::Vec;

use uefi_raw::Status;
use uefi_raw::table::boot::MemoryType;

use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::heap;

/// A page is 2 to the power of this many bytes long.
pub const PAGE_SHIFT: u32 = Alignment::PAGE.bytes().trailing_zeros();
/// As many pages are taken at a time.
const PAGES: u64 = 16;

/// As many pages have room for a piece of `len` bytes, and for others.
pub fn pages_for(len: u64) -> Option<u64> {
    let len = PhysAddr::new(len).align_up(Alignment::PAGE)?.get();
    Some((len >> PAGE_SHIFT).max(PAGES))
}

/// A piece of pages, to the next one's start.
#[derive(Clone, Copy, Debug)]
struct Piece {
    range: PhysRange,
    is_used: bool,
}

/// Pages of one type.
#[derive(Debug)]
struct Pool {
    kind: MemoryType,
    range: PhysRange,
    /// By address, without a gap. No two that are free touch.
    pieces: Vec<Piece>,
}

/// All pools.
#[derive(Debug)]
pub struct Pools {
    pools: Vec<Pool>,
}

impl Pools {
    pub const fn new() -> Self {
        Self { pools: Vec::new() }
    }

    /// Whether one is in `range`, or a part of one.
    pub fn overlap(&self, range: PhysRange) -> bool {
        self.pools.iter().any(|pool| pool.range.overlaps(range))
    }

    /// Makes a pool of `range`.
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES`.
    pub fn add(&mut self, kind: MemoryType, range: PhysRange) -> Result<(), Status> {
        let mut pieces = Vec::new();
        heap::push(&mut pieces, Piece { range, is_used: false }).map_err(|_| Status::OUT_OF_RESOURCES)?;
        heap::push(&mut self.pools, Pool { kind, range, pieces }).map_err(|_| Status::OUT_OF_RESOURCES)
    }

    /// Takes `len` bytes, or more by less than 8, of a pool that has them.
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES`.
    pub fn allocate(&mut self, kind: MemoryType, len: u64) -> Result<Option<PhysAddr>, Status> {
        // Each piece has an address of its own, also one of no bytes.
        let len = PhysAddr::new(len.max(1)).align_up(Alignment::QWORD).ok_or(Status::OUT_OF_RESOURCES)?.get();
        for pool in self.pools.iter_mut().filter(|pool| pool.kind == kind) {
            let fits = |piece: &Piece| !piece.is_used && piece.range.len() >= len;
            let Some(at) = pool.pieces.iter().position(fits) else { continue };
            pool.pieces.try_reserve(1).map_err(|_| Status::OUT_OF_RESOURCES)?;
            let Some(piece) = pool.pieces.get_mut(at) else { continue };
            let (range, rest) = piece.range.split_at(len);
            *piece = Piece { range, is_used: true };
            if !rest.is_empty() {
                // There is room for it. Each piece behind it moves up.
                let mut next = Piece { range: rest, is_used: false };
                for piece in pool.pieces.iter_mut().skip(at.saturating_add(1)) {
                    core::mem::swap(piece, &mut next);
                }
                let _ = heap::push_within_capacity(&mut pool.pieces, next);
            }
            return Ok(Some(range.start()));
        }
        Ok(None)
    }

    /// The piece at `at` that is used, if one begins there.
    pub fn piece(&self, at: PhysAddr) -> Option<PhysRange> {
        let pool = self.pools.iter().find(|pool| pool.range.contains_addr(at))?;
        let piece = pool.pieces.iter().find(|piece| piece.is_used && piece.range.start() == at)?;
        Some(piece.range)
    }

    /// Frees the piece at `at`. Returns the pages of a pool that is gone, because nothing is in it any more and it was made for a
    /// large piece.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` when no piece that is used begins there.
    pub fn free(&mut self, at: PhysAddr) -> Result<Option<PhysRange>, Status> {
        let pool = self.pools.iter_mut().find(|pool| pool.range.contains_addr(at)).ok_or(Status::INVALID_PARAMETER)?;
        let is_meant = |piece: &&mut Piece| piece.is_used && piece.range.start() == at;
        let piece = pool.pieces.iter_mut().find(is_meant).ok_or(Status::INVALID_PARAMETER)?;
        piece.is_used = false;
        // Joins the free pieces that touch.
        pool.pieces.dedup_by(|next, piece| {
            let joins = !next.is_used && !piece.is_used;
            if joins && let Some(both) = PhysRange::from_bounds(piece.range.start(), next.range.end()) {
                piece.range = both;
            }
            joins
        });
        let range = pool.range;
        let is_gone = pool.pieces.iter().all(|piece| !piece.is_used) && range.len() >> PAGE_SHIFT > PAGES;
        if is_gone {
            self.pools.retain(|pool| pool.range != range);
        }
        Ok(Some(range).filter(|_| is_gone))
    }
}
