//! UEFI, as much of it as a kernel's EFI stub and a unified kernel image use.
//!
//! Everything here is plain data and functions over it. The firmware binary has the functions that images call, which turn
//! pointers into values.
//!
//! Sources: UEFI specification 2.10, "UEFI" below.

pub mod boot_manager;
pub mod clock;
pub mod configuration;
pub mod device_path;
pub mod disks;
pub mod events;
pub mod exception;
pub mod handles;
pub mod information;
pub mod memory;
pub mod pe;
mod power_off;
mod printable;
pub mod protocols;
pub mod request;
pub mod runtime;
pub mod services;
pub mod variables;
