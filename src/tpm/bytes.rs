//! A buffer for the longest command, or the longest event without its data.

use core::ops::Deref;

use arrayvec::ArrayVec;

use super::error::Error;
use super::hash::{ALGORITHMS, MAX_DIGEST};

/// A command that extends a PCR in all banks has 31 bytes besides the digests and their algorithms, an event 16.
const CAPACITY: usize = 32 + ALGORITHMS * (2 + MAX_DIGEST);

/// Bytes that are assembled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(ArrayVec<u8, CAPACITY>);

impl Bytes {
    /// Appends `bytes`. Not inlined, because it has two dozen callers.
    ///
    /// # Errors
    /// [`Error::TooLong`].
    #[inline(never)]
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.0.try_extend_from_slice(bytes).map_err(|_| Error::TooLong)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
