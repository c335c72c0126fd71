//! UEFI, as much of it as a kernel's EFI stub and a unified kernel image use.
//!
//! Everything here is plain data and functions over it, without unsafe code. What an image calls, and what turns its
//! pointers into values, is the firmware binary's.
//!
//! Sources: UEFI specification 2.10, "UEFI" below.

pub mod clock;
pub mod configuration;
pub mod device_path;
pub mod events;
pub mod handles;
pub mod information;
pub mod memory;
pub mod pe;
mod power_off;
pub mod runtime;
pub mod variables;
