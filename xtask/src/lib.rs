//! The library of Firstlight's host tool: its commands, and what the programs in `tools/` share with them.
//!
//! It builds the image (`image`, `target`), gets guests (`guest`), installs programs (`packages`), and starts QEMU (`qemu`). It
//! has only the crates that `cargo xtask run` needs, so that a first boot compiles little: a command that needs more is in
//! `tools/`.
#![forbid(unsafe_code)]

pub mod apt;
#[path = "../../tests/qemu/child.rs"]
pub mod child;
pub mod clients;
pub mod disk;
pub mod efi_app;
pub mod efi_programs;
pub mod elf_file;
pub mod faults;
pub mod fuzz;
pub mod guest;
pub mod guest_programs;
pub mod image;
#[path = "../../src/image_size.rs"]
mod image_size;
mod initramfs;
mod modules;
mod newer_qemu;
pub mod packages;
pub mod paths;
pub mod progress;
pub mod qemu;
pub mod run;
mod runtime;
pub mod setup;
mod target;
pub mod test;
mod test_kernels;
pub mod version;
