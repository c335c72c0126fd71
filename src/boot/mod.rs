//! What to boot, where to put it, and what the kernel is told: the Linux/x86 boot protocol, 2.06 and later.
//!
//! All of it is decided here without touching the machine. [`Payload`] is what the host offers, [`SetupHeader`] what
//! the kernel says of itself, [`LoadPlan`] where everything goes, [`BootParams`] the page the kernel is handed, and
//! [`Handover`] how it is entered. Applying the plan (transfers, the jump) is left to others.
//!
//! The protocol is that of Linux `Documentation/arch/x86/boot.rst`, "boot.rst" below.
//!
//! Assumed: the memory map is complete, with the firmware's own memory and the tables held in it. Left out: kernels
//! that are not bzImages (ELF with a PVH note, multiboot, zImage), kernels and initrds above 4 GiB, `SETUP_E820_EXT`.
#![forbid(unsafe_code)]

mod boot_params;
mod error;
mod handover;
mod load;
mod payload;
mod placement;
mod screen_info;
mod setup_header;

pub use self::boot_params::BootParams;
pub use self::error::Error;
pub use self::handover::{Entry, Handover};
pub use self::load::load;
pub use self::payload::{ItemSizes, Payload};
pub use self::placement::LoadPlan;
pub use self::screen_info::ScreenInfo;
pub use self::setup_header::{Relocation, SetupHeader};
