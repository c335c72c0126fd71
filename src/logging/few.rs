//! Warnings of one kind, of which a host may cause hundreds.

use core::fmt;

/// Says the first `SAID` warnings of a kind and counts the others, so that what is wrong in hundreds of places does not bury
/// what else is wrong. Who has one says the [`rest`](Self::rest) at the end.
#[derive(Debug, Default)]
pub struct Few<const SAID: u32> {
    count: u32,
}

impl<const SAID: u32> Few<SAID> {
    /// Says the warning, or counts it.
    #[cold]
    #[inline(never)]
    pub fn warn(&mut self, warning: fmt::Arguments<'_>) {
        if self.count < SAID {
            log::warn!("{warning}");
        }
        self.count = self.count.saturating_add(1);
    }

    /// How many were not said, if there are any.
    #[must_use]
    pub fn rest(&self) -> Option<u32> {
        self.count.checked_sub(SAID).filter(|&rest| rest > 0)
    }
}
