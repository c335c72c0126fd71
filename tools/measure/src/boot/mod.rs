//! Boots a kernel with a firmware image under QEMU, and counts what the firmware does.

pub mod counts;
pub mod host;
pub mod host_instructions;
pub mod probe;
pub mod process;
pub mod scenario;
pub mod trace;
pub mod translation;
