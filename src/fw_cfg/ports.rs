//! Port access: a selector and a data port that gives one byte a read.
#![forbid(unsafe_code)]

use super::Key;
use crate::addr::PhysRange;
use crate::hal::{MemoryError, Ports};

/// Selects an item, 16 bits, little-endian.
const SELECTOR: u16 = 0x510;
/// The selected item's next byte. Only byte-wide reads are answered.
const DATA: u16 = 0x511;

/// Makes `key` the item that is read next, from its start.
pub fn select(host: &mut impl Ports, key: Key) {
    host.out16(SELECTOR, key.get());
}

/// Moves on by `len` bytes.
pub fn skip(host: &mut impl Ports, len: u32) {
    let mut scratch = [0; 64];
    let mut left = len as usize;
    while left > 0 {
        let step = left.min(scratch.len());
        let (target, _) = scratch.split_at_mut(step);
        host.in8_string(DATA, target);
        left = left.saturating_sub(step);
    }
}

/// Reads the next bytes.
pub fn read(host: &mut impl Ports, into: &mut [u8]) {
    host.in8_string(DATA, into);
}

/// Reads the next bytes straight to guest memory.
pub fn load(host: &mut impl Ports, to: PhysRange) -> Result<(), MemoryError> {
    host.in8_string_to(DATA, to)
}
