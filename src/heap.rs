//! Lists on the heap that grow without a panic.
//!
//! The heap is small, and the host or the guest often decides how much goes on it. So a list gets its room from
//! [`with_capacity`] or [`push`], which can fail. [`push_within_capacity`] is for lists whose room was taken before.

use alloc::vec::Vec;

/// The heap has no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the firmware's heap is full")]
pub struct HeapFull;

/// An empty list with room for `len` elements.
///
/// # Errors
/// [`HeapFull`].
#[inline]
pub fn with_capacity<T>(len: usize) -> Result<Vec<T>, HeapFull> {
    let mut list = Vec::new();
    list.try_reserve_exact(len).map_err(|_| HeapFull)?;
    Ok(list)
}

/// Appends `element`.
///
/// # Errors
/// [`HeapFull`].
pub fn push<T>(list: &mut Vec<T>, element: T) -> Result<(), HeapFull> {
    if list.len() == list.capacity() {
        list.try_reserve(1).map_err(|_| HeapFull)?;
    }
    push_within_capacity(list, element)
}

/// Appends `element` in room that was taken before.
///
/// # Errors
/// [`HeapFull`] if there is no room left.
#[inline]
pub fn push_within_capacity<T>(list: &mut Vec<T>, element: T) -> Result<(), HeapFull> {
    if list.len() == list.capacity() {
        return Err(HeapFull);
    }
    list.push(element);
    Ok(())
}

/// Appends bytes.
///
/// # Errors
/// [`HeapFull`]; then nothing is appended.
pub fn extend(list: &mut Vec<u8>, bytes: &[u8]) -> Result<(), HeapFull> {
    list.try_reserve(bytes.len()).map_err(|_| HeapFull)?;
    bytes.iter().try_for_each(|&byte| push_within_capacity(list, byte))
}

/// As many elements as there are, without an overflow check that could panic.
pub fn count(elements: impl Iterator) -> usize {
    elements.fold(0, |count, _| count.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_grows_only_by_push() {
        let mut list = with_capacity(1).unwrap();
        assert_eq!(push_within_capacity(&mut list, 1), Ok(()));
        while list.len() < list.capacity() {
            push_within_capacity(&mut list, 0).unwrap();
        }
        assert_eq!(push_within_capacity(&mut list, 2), Err(HeapFull));
        assert_eq!(push(&mut list, 2), Ok(()));
        assert_eq!(list.last(), Some(&2));
    }

    #[test]
    fn a_list_larger_than_memory_is_an_error() {
        assert_eq!(with_capacity::<u64>(usize::MAX / 16).err(), Some(HeapFull));
    }
}
