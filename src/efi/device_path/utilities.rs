//! `EFI_DEVICE_PATH_UTILITIES_PROTOCOL`: paths made of paths (UEFI 10.5).
//!
//! A path or node that is null is `None`, and so is a result that is null. A result is a copy: the caller puts it into memory of
//! the pool.

use alloc::vec::Vec;

use super::{DevicePath, END, HEADER_LEN, Node, PathBuilder};
use crate::heap::{self, HeapFull};

/// `GetDevicePathSize`: the bytes of a path, including the node that ends it.
#[must_use]
pub const fn size(path: Option<DevicePath<'_>>) -> u64 {
    match path {
        Some(path) => path.bytes().len() as u64,
        None => 0,
    }
}

/// `IsDevicePathMultiInstance`: whether a path has more than one instance.
#[must_use]
pub fn is_multi_instance(path: Option<DevicePath<'_>>) -> bool {
    path.is_some_and(DevicePath::is_multi_instance)
}

/// `DuplicateDevicePath`.
///
/// # Errors
/// [`HeapFull`], as for all functions that make a path.
pub fn duplicate(path: Option<DevicePath<'_>>) -> Result<Option<Vec<u8>>, HeapFull> {
    path.map(|path| append_path(Some(path), None)).transpose()
}

/// `AppendDevicePath`: the nodes of both paths. A path that is null has none.
///
/// # Errors
/// [`HeapFull`].
pub fn append_path(first: Option<DevicePath<'_>>, second: Option<DevicePath<'_>>) -> Result<Vec<u8>, HeapFull> {
    PathBuilder::new().nodes(nodes(first))?.nodes(nodes(second))?.end()
}

/// `AppendDeviceNode`: the nodes of a path, and one more. A node that would end the path adds nothing.
///
/// # Errors
/// [`HeapFull`].
pub fn append_node(path: Option<DevicePath<'_>>, node: Option<Node<'_>>) -> Result<Vec<u8>, HeapFull> {
    let path = PathBuilder::new().nodes(nodes(path))?;
    match node.filter(|node| node.kind != END) {
        Some(node) => path.node(node.kind, node.sub_kind, &[node.data])?.end(),
        None => path.end(),
    }
}

/// `AppendDevicePathInstance`: a path with one more instance. Without a path, the instance alone.
///
/// # Errors
/// [`HeapFull`].
pub fn append_instance(
    path: Option<DevicePath<'_>>,
    instance: Option<DevicePath<'_>>,
) -> Result<Option<Vec<u8>>, HeapFull> {
    let Some(instance) = instance else { return Ok(None) };
    let made = match path {
        Some(path) => {
            PathBuilder::new().nodes(path.nodes_bytes())?.end_instance()?.nodes(instance.nodes_bytes())?.end()
        }
        None => append_path(Some(instance), None),
    };
    made.map(Some)
}

/// `GetNextDevicePathInstance`: the first instance as a path of its own, and the path that the caller goes on with: null after the
/// last instance.
///
/// # Errors
/// [`HeapFull`].
pub fn next_instance(path: DevicePath<'_>) -> Result<(Vec<u8>, Option<DevicePath<'_>>), HeapFull> {
    let (instance, rest) = path.split_instance();
    Ok((PathBuilder::new().nodes(instance)?.end()?, rest))
}

/// `CreateDeviceNode`: a node of `len` bytes, with data of zeros. Null if that is less than its header.
///
/// # Errors
/// [`HeapFull`].
pub fn create_node(kind: u8, sub_kind: u8, len: u16) -> Result<Option<Vec<u8>>, HeapFull> {
    if usize::from(len) < HEADER_LEN {
        return Ok(None);
    }
    let [low, high] = len.to_le_bytes();
    let mut node = heap::with_capacity(len.into())?;
    let header = [kind, sub_kind, low, high].into_iter();
    for byte in header.chain(core::iter::repeat(0)).take(len.into()) {
        heap::push_within_capacity(&mut node, byte)?;
    }
    Ok(Some(node))
}

fn nodes(path: Option<DevicePath<'_>>) -> &[u8] {
    path.map_or(&[], DevicePath::nodes_bytes)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;

    use super::*;

    const END_OF_PATH: [u8; 4] = [0x7f, 0xff, 4, 0];
    const END_OF_INSTANCE: [u8; 4] = [0x7f, 0x01, 4, 0];
    const FIRST: [u8; 6] = [1, 1, 6, 0, 0, 2];
    const SECOND: [u8; 5] = [4, 9, 5, 0, 7];

    fn path(nodes: &[&[u8]]) -> Vec<u8> {
        [nodes.concat(), END_OF_PATH.to_vec()].concat()
    }

    #[track_caller]
    fn parsed(bytes: &[u8]) -> Option<DevicePath<'_>> {
        Some(DevicePath::parse(bytes).unwrap())
    }

    #[test]
    fn a_size_includes_the_end() {
        assert_eq!((size(None), size(parsed(&path(&[]))), size(parsed(&path(&[&FIRST])))), (0, 4, 10));
    }

    #[test]
    fn a_copy_is_the_same_path() {
        let bytes = path(&[&FIRST, &END_OF_INSTANCE, &SECOND]);
        assert_eq!(duplicate(parsed(&bytes)), Ok(Some(bytes.clone())));
        assert_eq!(duplicate(None), Ok(None));
    }

    #[test]
    fn paths_are_appended_and_null_has_no_nodes() {
        let (first, second) = (path(&[&FIRST]), path(&[&SECOND]));
        assert_eq!(append_path(parsed(&first), parsed(&second)), Ok(path(&[&FIRST, &SECOND])));
        assert_eq!(append_path(parsed(&first), None), Ok(first.clone()));
        assert_eq!(append_path(None, parsed(&second)), Ok(second));
        assert_eq!(append_path(None, None), Ok(path(&[])));
    }

    #[test]
    fn a_node_is_appended_unless_it_is_null_or_an_end() {
        let first = path(&[&FIRST]);
        let node = Node::parse(&SECOND);
        assert_eq!(append_node(parsed(&first), node), Ok(path(&[&FIRST, &SECOND])));
        assert_eq!(append_node(None, node), Ok(path(&[&SECOND])));
        assert_eq!(append_node(parsed(&first), None), Ok(first.clone()));
        assert_eq!(append_node(None, None), Ok(path(&[])));
        assert_eq!(append_node(parsed(&first), Node::parse(&END_OF_PATH)), Ok(first));
        assert_eq!((Node::parse(&SECOND[..4]), Node::parse(&[1, 1, 3, 0])), (None, None));
    }

    #[test]
    fn instances_are_appended_and_taken_one_by_one() {
        let (first, second) = (path(&[&FIRST]), path(&[&SECOND]));
        assert_eq!(append_instance(parsed(&first), None), Ok(None));
        assert_eq!(append_instance(None, parsed(&second)), Ok(Some(second.clone())));
        let both = append_instance(parsed(&first), parsed(&second)).unwrap().unwrap();
        assert_eq!(both, path(&[&FIRST, &END_OF_INSTANCE, &SECOND]));
        assert!(is_multi_instance(parsed(&both)) && !is_multi_instance(parsed(&first)) && !is_multi_instance(None));
        let (one, rest) = next_instance(parsed(&both).unwrap()).unwrap();
        let (two, end) = next_instance(rest.unwrap()).unwrap();
        assert_eq!((one, two, end), (first, second, None));
    }

    #[test]
    fn a_node_is_made_with_its_length() {
        assert_eq!(create_node(4, 3, 6), Ok(Some(vec![4, 3, 6, 0, 0, 0])));
        assert_eq!(create_node(4, 3, 4), Ok(Some(vec![4, 3, 4, 0])));
        assert_eq!(
            create_node(4, 3, 0x1234).unwrap().map(|node| (node.len(), node[2], node[3])),
            Some((0x1234, 0x34, 0x12))
        );
        for len in 0..4 {
            assert_eq!(create_node(4, 3, len), Ok(None));
        }
    }
}
