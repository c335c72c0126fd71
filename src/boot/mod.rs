//! What to boot, where to put it, and what the kernel is told.
//!
//! [`Payload`] is what a source has: a kernel, an initrd and a command line ([`source`]). The kernel's protocol plans, without
//! touching anything but the memory map, where everything goes, has each part transferred, and tells the kernel of it
//! ([`protocol`]). [`Handover`] is how the kernel is entered, and [`Images`] is what a TPM measures.
//!
//! A new source is a file in `source`, and a new protocol a file in `protocol`; each has a line in the list of its folder's
//! `mod.rs`. What both share is in the files of this folder, which know of neither.
//!
//! Assumed: the memory map is complete, with the firmware's own memory and the tables held in it. Left out: kernels for
//! Multiboot 2.

mod blob;
mod elf;
mod error;
mod extras;
mod file_kind;
mod handover;
mod kernel_file;
mod loaded;
mod placed;
mod protocol;
mod room;
mod source;
mod system_info;

pub use self::blob::Blob;
pub use self::error::Error;
pub use self::extras::{CommandLine, Extras, Needs};
pub use self::file_kind::FileKind;
pub use self::handover::{Clears, Entry, Handover, LowBlock};
pub use self::kernel_file::KernelFile;
pub use self::loaded::{BootModule, Images, Loaded};
pub use self::placed::PlacedKernel;
pub use self::protocol::{Kernel, linux, multiboot, pvh};
pub use self::source::Payload;
pub use self::system_info::SystemInfo;
use crate::hal::HostAccess;
use crate::state::Boot;

/// Finds a place for everything, has the host put each part there in one transfer, and tells the kernel of it. What the
/// host has put into memory is copied from there; an initrd stays where it is, if the kernel takes it there.
///
/// What the kernel is given is held in the map. Returns what went where.
///
/// # Errors
/// [`Error::FwCfg`] when the host does not deliver; else why there is no place for a part, and what a protocol finds in a part
/// that it has loaded.
pub fn load<M: HostAccess>(
    boot: &mut Boot<'_, M>,
    payload: &Payload<'_>,
    system: &SystemInfo<'_>,
) -> Result<Loaded, Error> {
    payload.kernel.load(boot, &payload.extras, system)
}
