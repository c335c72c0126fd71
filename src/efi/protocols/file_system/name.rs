//! Names of files (UEFI 13.5.2): parts between backslashes, of which `.` and `..` are directories. Case does not matter in ASCII,
//! as on a FAT volume (UEFI 13.3.1).

use super::Node;

const SEPARATOR: u16 = b'\\' as u16;
const DOT: u16 = b'.' as u16;

/// What `path` leads to from `from`, up to a NUL if it has one. `find` finds a file in the root directory, which is the only
/// one.
pub fn resolve(from: Node, path: &[u16], find: impl Fn(&[u16]) -> Option<Node>) -> Option<Node> {
    let path = path.split(|&unit| unit == 0).next().unwrap_or_default();
    let is_absolute = path.first() == Some(&SEPARATOR);
    let mut node = if is_absolute { Node::Root } else { from };
    if path.is_empty() {
        return Some(node);
    }
    for part in path.split(|&unit| unit == SEPARATOR) {
        // A file has nothing below it, and the root nothing above.
        node = match (node, part) {
            (Node::Root, [] | [DOT]) => Node::Root,
            (Node::File(_), _) | (Node::Root, [DOT, DOT]) => return None,
            (Node::Root, name) => find(name)?,
        };
    }
    Some(node)
}

/// Whether a name in UTF-16 is that in ASCII.
pub fn is_same(name: &[u16], ascii: &str) -> bool {
    name.len() == ascii.len()
        && name
            .iter()
            .zip(ascii.bytes())
            .all(|(unit, byte)| u8::try_from(*unit).is_ok_and(|unit| unit.eq_ignore_ascii_case(&byte)))
}
