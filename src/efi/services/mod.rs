//! The boot services (UEFI 7), but for how they are called.
//!
//! [`Services`] has all that they keep. Each service is a method. It takes what an image passes as numbers, reads and writes
//! what these point to by [`Memory`](crate::hal::Memory), which refuses the firmware's own memory, and returns the status as an
//! error. So what an image passes cannot break the firmware, as far as a service can check it.
//!
//! Nothing here calls an image. Functions of images are returned, and the caller runs them when it no longer borrows this
//! value: notifications ([`Events::begin`]), entry points ([`Services::start_image`]) and `Unload`
//! ([`Services::unload_image`]).
//!
//! Left out, with the status that the specification has for it: drivers (`ConnectController` finds none), and a watchdog
//! (`SetWatchdogTimer` only turns it off).

mod events;
mod exit;
mod images;
mod load;
mod memory;
mod pointers;
mod protection;
mod protocols;
mod table;
#[cfg(test)]
mod tests;
mod utilities;
mod variables;

use uefi_raw::Status;

pub use self::events::Waited;
pub use self::images::{Ended, Image, ImageFile, Placed, Record, RecordFile, Started, Unloading, protection};
pub use self::load::{Caller, read_file};
pub use self::memory::MapPlaces;
pub use self::pointers::{Pointers, rest_address};
pub use self::protocols::DEVICE_PATH;
pub use self::table::{BOOT_SERVICES, Functions};
pub use self::utilities::{copy, fill};
pub use self::variables::{set_variable, variable};
use super::configuration::Tables;
use super::events::Events;
use super::handles::Handles;
use super::memory::Memory as ImageMemory;
use crate::addr::{PhysAddr, PhysRange};

/// What boot services keep.
#[derive(Debug)]
pub struct Services {
    /// The memory of images.
    pub memory: ImageMemory,
    /// Handles and protocols.
    pub handles: Handles,
    /// Events and the present level.
    pub events: Events,
    /// The configuration tables.
    configuration: Tables,
    images: images::Images,
    /// The lower half of the monotonic count.
    count: u32,
    /// The system table, with all that the runtime services share with the firmware ([`super::runtime::Shared`]).
    system_table: PhysAddr,
    /// The boot services table.
    boot_table: PhysAddr,
    /// Pages for page tables.
    table_room: PhysRange,
    /// Whether an image has asked for the end of boot services.
    is_ending: bool,
    /// The map key at the last call of [`Self::signal_map_change`].
    told_key: u64,
}

impl Services {
    /// The address of the system table.
    #[must_use]
    pub const fn system_table(&self) -> PhysAddr {
        self.system_table
    }
}

/// What an image is told when the heap or the map is full.
fn no_room<E>(_: E) -> Status {
    Status::OUT_OF_RESOURCES
}
