//! Virtio devices that have disks: block devices, and hosts of SCSI disks and CD drives.
//!
//! A [`Place`] is where a device's registers are: in BARs of a PCI function ([`pci`]) or in a slot of a machine without PCI
//! ([`mmio`]). [`Block`] and [`ScsiHost`] are the drivers. Each uses one queue, waits for each request, and never turns on
//! interrupts.
//!
//! A device that breaks the specification or does not answer is dead: its driver accesses it no more, except to reset it.
//!
//! Assumed: what a device writes into its queue can change at any time, so each value is read once and then checked.
//!
//! Left out: the legacy interface of PCI functions, which is the only one with `disable-modern=on` and on QEMU's machine types 2.6 and
//! older; packed queues; writing.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2, OASIS committee specification 01, by section.

mod areas;
mod block;
mod device;
pub mod mmio;
pub mod pci;
mod place;
mod queue;
mod registers;
mod scsi;

#[cfg(test)]
mod tests;

pub use self::block::Block;
pub use self::place::Place;
pub use self::scsi::ScsiHost;
