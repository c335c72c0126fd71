//! An input, read from its front. Missing bytes read as zero, so that every input is valid.

use arbitrary::{Arbitrary, Unstructured};

/// The rest of an input.
pub struct Input<'a>(Unstructured<'a>);

impl<'a> Input<'a> {
    /// All of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Unstructured::new(bytes))
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next value: numbers little-endian, structures field by field.
    pub fn take<T: Arbitrary<'a> + Default>(&mut self) -> T {
        self.0.arbitrary().unwrap_or_default()
    }

    /// One of `choices`, by the next byte.
    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.take::<u8>()) % choices.len()].clone()
    }

    /// The next `len` bytes, or as many as there are.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        self.0.bytes(len.min(self.0.len())).unwrap_or_default()
    }

    /// Bytes whose number the next byte tells.
    pub fn short(&mut self) -> &'a [u8] {
        let len = self.take::<u8>();
        self.bytes(len.into())
    }

    /// Bytes whose number the next two bytes tell.
    pub fn long(&mut self) -> &'a [u8] {
        let len = self.take::<u16>();
        self.bytes(len.into())
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.bytes(self.0.len())
    }
}
