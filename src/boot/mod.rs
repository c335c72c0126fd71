//! What to boot, where to put it, and what to pass to the kernel.
//!
//! A source (`source`) finds a [`Payload`]: a kernel, an initrd and a command line. The kernel's protocol
//! (`protocol`) plans where everything goes, has each part transferred, and writes the kernel's parameters. Planning
//! changes nothing but the memory map. [`Handover`] is how the kernel is entered, and [`Images`] is what a TPM
//! measures.
//!
//! A new source is a file in `source`, and a new protocol is a file in `protocol`. Each has a variant with its arms in its
//! folder's `mod.rs`. The files of this folder are for both, and depend on no single source or protocol.
//!
//! Assumed: the memory map is complete, with the firmware's own memory and the tables reserved in it. Left out:
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
pub use self::protocol::efi::{EfiBoot, EfiProgram, EfiStart, First};
pub use self::protocol::{Kernel, efi, linux, multiboot, pvh};
pub use self::source::Payload;
pub use self::system_info::SystemInfo;
