//! Where a queue is in memory, and how its requests are started: what a device's registers say or are told.

use crate::addr::{Alignment, PhysAddr};

/// The alignment of the two parts of a legacy queue.
pub const ALIGNMENT: Alignment = Alignment::PAGE;

/// Where the parts of a queue are.
#[derive(Clone, Copy, Debug)]
pub struct Areas {
    /// The descriptors.
    pub descriptors: PhysAddr,
    /// The ring of available requests.
    pub available: PhysAddr,
    /// The ring of used requests.
    pub used: PhysAddr,
}

/// The register that starts the requests of a queue: the queue's number is written to it.
#[derive(Clone, Copy, Debug)]
pub enum Doorbell {
    /// A register of 16 bits.
    Word(PhysAddr),
    /// A register of 32 bits.
    Dword(PhysAddr),
}
