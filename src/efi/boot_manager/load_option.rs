//! Load options: what `Boot####` variables hold (UEFI 3.1.3, `EFI_LOAD_OPTION`).
//!
//! An option has attributes, the length of its list of paths, a description with a NUL, the list, and data for the program. Only
//! the first path of the list is used: it is the program's.
//!
//! Left out: the description, which is for a menu, and further paths, which are for what the option's maker likes.

use crate::efi::device_path::DevicePath;

/// An option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadOption<'a> {
    attributes: u32,
    /// Where the program is. Never empty.
    pub path: DevicePath<'a>,
    /// What the program gets as its load options.
    pub data: &'a [u8],
}

/// Why a variable holds no option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It ends before its list of paths.
    #[error("it ends before its list of device paths")]
    Short,
    /// The list reaches past its end.
    #[error("its list of device paths has {0} bytes, more than follow")]
    Long(u16),
    /// The list does not begin with a path.
    #[error("its list of device paths does not begin with one")]
    Path,
}

/// `LOAD_OPTION_ACTIVE`: the boot manager tries it by itself.
const ACTIVE: u32 = 1;
/// `LOAD_OPTION_CATEGORY`, whose value is zero for what boots (`LOAD_OPTION_CATEGORY_BOOT`).
const CATEGORY: u32 = 0x1f00;

impl<'a> LoadOption<'a> {
    /// The option in a variable's `data`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse(data: &'a [u8]) -> Result<Self, Error> {
        let (&attributes, rest) = data.split_first_chunk().ok_or(Error::Short)?;
        let (&len, rest) = rest.split_first_chunk().ok_or(Error::Short)?;
        let (characters, _) = rest.as_chunks::<2>();
        let described = characters.iter().position(|character| *character == [0; 2]).ok_or(Error::Short)?;
        let paths = described.checked_add(1).and_then(|count| count.checked_mul(2)).ok_or(Error::Short)?;
        let rest = rest.get(paths..).ok_or(Error::Short)?;
        let len = u16::from_le_bytes(len);
        let (paths, data) = rest.split_at_checked(len.into()).ok_or(Error::Long(len))?;
        let path = DevicePath::parse(paths).filter(|path| !path.nodes_bytes().is_empty()).ok_or(Error::Path)?;
        Ok(Self { attributes: u32::from_le_bytes(attributes), path, data })
    }

    /// Whether the boot manager tries it without being told to: it is active, and boots something. A hidden one is only not in a
    /// menu.
    #[must_use]
    pub const fn boots_by_itself(&self) -> bool {
        self.attributes & (ACTIVE | CATEGORY) == ACTIVE
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::efi::device_path::{MEDIA, MEDIA_FILE, PathBuilder};

    fn path() -> Vec<u8> {
        PathBuilder::new().node(MEDIA, MEDIA_FILE, &[b"\\\0a\0\0\0"]).and_then(PathBuilder::end).unwrap()
    }

    fn option(attributes: u32, paths: &[u8], data: &[u8]) -> Vec<u8> {
        let description = [b'D', 0, b'e', 0, 0, 0];
        let len = paths.len() as u16;
        [&attributes.to_le_bytes()[..], &len.to_le_bytes(), &description, paths, data].concat()
    }

    #[test]
    fn an_option_has_the_first_path_and_what_follows_the_list() {
        let second = [0x7f, 0xff, 4, 0];
        let bytes = option(1, &[&path()[..], &second].concat(), b"options");
        let parsed = LoadOption::parse(&bytes).unwrap();
        assert_eq!((parsed.path.bytes(), parsed.data), (&path()[..], &b"options"[..]));
        let bytes = option(1, &path(), b"");
        assert_eq!(LoadOption::parse(&bytes).unwrap().data, b"");
    }

    #[test]
    fn an_option_is_tried_if_it_is_active_and_boots() {
        let boots = |attributes| LoadOption::parse(&option(attributes, &path(), b"")).unwrap().boots_by_itself();
        assert_eq!([1, 0, 8 | 1, 0x100 | 1, 0x200 | 1, 2 | 1].map(boots), [true, false, true, false, false, true]);
    }

    #[test]
    fn a_malformed_option_is_an_error() {
        let whole = option(1, &path(), b"");
        for cut in 0..12 {
            assert_eq!(LoadOption::parse(&whole[..cut]), Err(Error::Short), "{cut}");
        }
        for cut in 12..whole.len() {
            assert_eq!(LoadOption::parse(&whole[..cut]), Err(Error::Long(path().len() as u16)), "{cut}");
        }
        // A description without a NUL.
        assert_eq!(LoadOption::parse(&[1, 0, 0, 0, 0, 0, b'D', 0, b'e', 0, 1]), Err(Error::Short));
        // A length that cuts the path, no path, and a path without nodes.
        let mut cut = whole.clone();
        cut[4] -= 1;
        assert_eq!(LoadOption::parse(&cut), Err(Error::Path));
        assert_eq!(LoadOption::parse(&option(1, &[], &path())), Err(Error::Path));
        assert_eq!(LoadOption::parse(&option(1, &[0x7f, 0xff, 4, 0], b"")), Err(Error::Path));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_option_within_them_or_none(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(option) = LoadOption::parse(&bytes) {
                prop_assert!(option.path.bytes().len() + option.data.len() + 8 <= bytes.len());
                prop_assert!(bytes.ends_with(option.data));
            }
        }
    }
}
