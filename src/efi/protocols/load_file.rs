//! `EFI_LOAD_FILE2_PROTOCOL` for the initrd (UEFI 13.2): Linux asks for it on a handle with a device path that is known to both
//! (`Documentation/admin-guide/efi-stub.rst`; `include/linux/efi.h`, `LINUX_EFI_INITRD_MEDIA_GUID`).
//!
//! It is installed only if there is an initrd: a unified kernel image that brings its own refuses to start beside another one.
//!
//! Left out: the bytes, which the caller has the host write to the buffer.

use alloc::vec::Vec;

use uefi_raw::{Guid, Status, guid};

use super::{BufferError, check_room};
use crate::efi::device_path::{DevicePath, PathBuilder};
use crate::heap::HeapFull;

/// The vendor in the handle's device path.
pub const LINUX_INITRD: Guid = guid!("5568e427-68fc-4f3d-ac74-ca555231cc68");

/// The file of one handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadFile2 {
    len: u64,
}

impl LoadFile2 {
    /// The initrd of `len` bytes; `None` without a byte.
    #[must_use]
    pub const fn initrd(len: u64) -> Option<Self> {
        if len == 0 { None } else { Some(Self { len }) }
    }

    /// The device path of the initrd's handle.
    ///
    /// # Errors
    /// [`HeapFull`].
    pub fn initrd_device_path() -> Result<Vec<u8>, HeapFull> {
        PathBuilder::new().vendor_media(LINUX_INITRD)?.end()
    }

    /// `LoadFile`: how many bytes go to the start of the caller's buffer. `path` is what follows the handle's device path,
    /// `None` if it is null or no path; `room` the length of the buffer, zero if it is null.
    ///
    /// # Errors
    /// `UNSUPPORTED` for a boot by policy, `INVALID_PARAMETER` without a path, `NOT_FOUND` for a path to something else,
    /// [`BufferError::TooSmall`].
    pub fn load(self, path: Option<DevicePath<'_>>, is_boot_policy: bool, room: u64) -> Result<u64, BufferError> {
        if is_boot_policy {
            return Err(Status::UNSUPPORTED.into());
        }
        let path = path.ok_or(Status::INVALID_PARAMETER)?;
        if !path.nodes_bytes().is_empty() {
            return Err(Status::NOT_FOUND.into());
        }
        check_room(self.len, room)?;
        Ok(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: [u8; 4] = [0x7f, 0xff, 4, 0];

    fn end() -> Option<DevicePath<'static>> {
        DevicePath::parse(&END)
    }

    #[test]
    fn without_an_initrd_there_is_no_protocol() {
        assert_eq!(LoadFile2::initrd(0), None);
    }

    #[test]
    fn a_buffer_that_is_null_or_too_small_is_told_the_length() {
        let file = LoadFile2::initrd(1000).unwrap();
        for room in [0, 1, 999] {
            let error = file.load(end(), false, room).unwrap_err();
            assert_eq!((error, error.status()), (BufferError::TooSmall { needed: 1000 }, Status::BUFFER_TOO_SMALL));
        }
        for room in [1000, 1001, u64::MAX] {
            assert_eq!(file.load(end(), false, room), Ok(1000));
        }
    }

    #[test]
    fn a_boot_by_policy_is_not_supported() {
        let file = LoadFile2::initrd(1000).unwrap();
        for (path, room) in [(end(), 0), (end(), 2000), (None, 0)] {
            assert_eq!(file.load(path, true, room), Err(Status::UNSUPPORTED.into()));
        }
    }

    #[test]
    fn only_the_end_of_the_handles_path_is_a_file() {
        let file = LoadFile2::initrd(1000).unwrap();
        assert_eq!(file.load(None, false, 0), Err(Status::INVALID_PARAMETER.into()));
        let path = LoadFile2::initrd_device_path().unwrap();
        let path = DevicePath::parse(&path).unwrap();
        assert_eq!(file.load(Some(path), false, 0), Err(Status::NOT_FOUND.into()));
        // This is what LocateDevicePath leaves of a path that is the handle's.
        assert_eq!(file.load(path.strip_prefix(path), false, 1000), Ok(1000));
    }

    #[test]
    fn the_initrd_is_where_linux_looks_for_it() {
        let expected = [
            &[4, 3, 20, 0, 0x27, 0xe4, 0x68, 0x55, 0xfc, 0x68, 0x3d, 0x4f][..],
            &[0xac, 0x74, 0xca, 0x55, 0x52, 0x31, 0xcc, 0x68],
            &END,
        ];
        assert_eq!(LoadFile2::initrd_device_path().unwrap(), expected.concat());
    }
}
