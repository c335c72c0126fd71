//! Warnings of one kind that a host can cause hundreds of times.

use core::fmt;

/// Logs the first `LIMIT` warnings of a kind and counts the others, so that a fault in hundreds of places does not hide
/// other faults. Its owner logs the number of the [`rest`](Self::rest) when done.
#[derive(Debug, Default)]
pub struct RateLimited<const LIMIT: u32> {
    count: u32,
}

impl<const LIMIT: u32> RateLimited<LIMIT> {
    /// No warning yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { count: 0 }
    }

    /// Logs the warning, or counts it.
    #[cold]
    #[inline(never)]
    pub fn warn(&mut self, warning: fmt::Arguments<'_>) {
        if self.count < LIMIT {
            crate::warn!("{warning}");
        }
        self.count = self.count.saturating_add(1);
    }

    /// The number of warnings that were not logged, if there are any.
    #[must_use]
    pub fn rest(&self) -> Option<u32> {
        self.count.checked_sub(LIMIT).filter(|&rest| rest > 0)
    }
}
