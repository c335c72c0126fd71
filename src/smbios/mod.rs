//! SMBIOS: completes the host's tables that describe the machine.
//!
//! The host provides two files: the structures, and an entry point with their address and count. The firmware puts the
//! structures below 4 GiB and the entry point into the F-segment (0xf0000-0xfffff), on a 16-byte boundary, where an
//! operating system scans for it. It adds a type 0 structure about itself, unless the host has one. The steps are:
//!
//! 1. [`EntryPoint::parse`] parses the host's entry point.
//! 2. The caller allocates room for the firmware's own structure and the host's in one piece, and loads the host's
//!    structures to their final address, after the firmware's own.
//! 3. [`Walk`] reads them.
//! 4. [`Summary::has_firmware_information`] says where the tables start: at the host's structures, or at the firmware's,
//!    which is then written (`firmware_information`) and counted ([`Summary::with_firmware_information`]).
//! 5. [`EntryPoint::finish`] returns the entry point for that address.
//!
//! All functions work on bytes; the module does not access the machine. It follows the SMBIOS reference specification,
//! DMTF DSP0134 3.6. Left out: the contents of the host's structures, which are passed on unchanged.

mod entry_point;
mod error;
mod firmware_information;
#[cfg(test)]
mod tests;
mod walk;

pub use entry_point::{EntryPoint, MAX_ENTRY_POINT};
pub use error::{Error, USE_SMBIOS_3};
pub use firmware_information::{FIRMWARE_INFORMATION_LEN, SHORT_RELEASE_DATE, firmware_information};
pub use walk::{Summary, Walk};
