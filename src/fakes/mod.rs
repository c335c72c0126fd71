//! Fakes for tests: machines and devices, tables and items of real hosts, and parsers of what the firmware writes.
//!
//! They are separate from the modules that they model, so that the rest of `src` is only the firmware. The feature
//! `fakes` enables them for the integration tests, the fuzz targets, the test VMM and the fault tests. The image never
//! contains them.
//!
//! Each fake is written from the specification or the host's source, not from the module that it tests, and can
//! misbehave on purpose. Left out: fakes for a single test file, which are in that file.

pub mod ahci;
pub mod blocks;
#[cfg(test)]
pub(crate) mod chipset;
#[cfg(test)]
pub(crate) mod cpus;
pub mod event_log;
pub mod fat;
pub mod fw_cfg;
pub mod golden;
pub mod known_hosts;
pub mod machine;
pub mod nvme;
#[cfg(test)]
pub(crate) mod pci;
pub mod picture;
pub mod tables;
#[cfg(test)]
pub(crate) mod tpm;
pub mod virtio;
