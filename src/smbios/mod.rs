//! SMBIOS: completes the tables that the host describes the machine with.
//!
//! The host has two files: the structures, and an anchor that says where they are and how many. The firmware puts the
//! structures somewhere below 4 GiB and the anchor into the F-segment (0xf0000-0xfffff), on a 16-byte boundary, where
//! an operating system scans for it; and it adds what only it can know, a type 0 structure about itself, unless the
//! host has one. The bytes go this way:
//!
//! 1. [`Anchor::parse`] understands the host's anchor.
//! 2. The caller allocates room for the firmware's own structure and the host's in one piece, and has the host load its
//!    structures to their final place, after the firmware's own.
//! 3. [`Walk`] goes along them.
//! 4. [`Summary::has_firmware_information`] says whether the tables start at the host's structures, or at the
//!    firmware's, which is then written (`firmware_information`) and counted
//!    ([`Summary::with_firmware_information`]).
//! 5. [`Anchor::finish`] gives the anchor for that address.
//!
//! All of this is over bytes; the module touches no machine. It follows the SMBIOS reference specification, DMTF
//! DSP0134 3.6. Left out: the contents of the host's structures, which pass unchanged.

mod anchor;
mod error;
mod firmware_information;
#[cfg(test)]
mod tests;
mod walk;

pub use anchor::{Anchor, MAX_ANCHOR};
pub use error::{Error, USE_SMBIOS_3};
pub use firmware_information::{FIRMWARE_INFORMATION_LEN, SHORT_RELEASE_DATE, firmware_information};
pub use walk::{Summary, Walk};
