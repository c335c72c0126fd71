//! Names of files (UEFI 13.5.2): parts between backslashes, of which `.` and `..` are directories.

pub const SEPARATOR: u16 = b'\\' as u16;
const DOT: u16 = b'.' as u16;

/// A part of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'p> {
    /// The directory itself: nothing, or `.`.
    Same,
    /// The directory above.
    Up,
    /// A file or directory in it.
    Name(&'p [u16]),
}

/// Whether a path, which ends at a NUL if it has one, begins at the root, and its parts.
pub fn split(path: &[u16]) -> (bool, impl Iterator<Item = Part<'_>>) {
    let path = path.split(|&unit| unit == 0).next().unwrap_or_default();
    let is_absolute = path.first() == Some(&SEPARATOR);
    // An empty path has no part, not even an empty one.
    let parts = path.split(|&unit| unit == SEPARATOR).filter(|_| !path.is_empty());
    let parts = parts.map(|part| match part {
        [] | [DOT] => Part::Same,
        [DOT, DOT] => Part::Up,
        name => Part::Name(name),
    });
    (is_absolute, parts)
}

/// Whether a name in UTF-16 is that in ASCII. Case does not matter.
pub fn is_same(name: &[u16], ascii: &str) -> bool {
    name.len() == ascii.len()
        && name
            .iter()
            .zip(ascii.bytes())
            .all(|(unit, byte)| u8::try_from(*unit).is_ok_and(|unit| unit.eq_ignore_ascii_case(&byte)))
}
