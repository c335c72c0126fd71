//! Firstlight: firmware that boots a Linux guest first.
//!
//! The library holds all the logic. It is `no_std` and compiles and tests on the host; the firmware binary
//! (`src/main.rs`) adds the entry code and hands it the machine.
#![no_std]

#[cfg(test)]
extern crate std;

extern crate alloc;

pub mod acpi;
pub mod addr;
pub mod boot;
pub mod checksum;
pub mod fw_cfg;
pub mod hal;
pub mod layout;
pub mod logging;
pub mod memory_map;
pub mod pci;
pub mod smbios;
