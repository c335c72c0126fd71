//! What tests run the firmware's logic against: fake machines and devices, tables and items of real hosts, and readers of what
//! the firmware writes.
//!
//! They stand apart from what they model, so that the rest of `src` is the firmware and nothing else. The feature `fakes` turns
//! them on: for the integration tests, the fuzz targets, the test VMM and the tests of faults. The image never has them.
//!
//! Each fake is written from the specification or the host's source, not from the module that it tests, and may misbehave on
//! purpose. Left out: fakes that one test file needs alone, which are there.

#[cfg(test)]
pub(crate) mod chipset;
#[cfg(test)]
pub(crate) mod cpus;
pub mod event_log;
pub mod fw_cfg;
pub mod golden;
pub mod known_hosts;
pub mod machine;
#[cfg(test)]
pub(crate) mod pci;
pub mod picture;
pub mod tables;
#[cfg(test)]
pub(crate) mod tpm;
