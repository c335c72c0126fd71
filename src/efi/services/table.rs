//! The boot services table (UEFI 4.4), and how the services come into being.

use uefi_raw::Status;
use zerocopy::{Immutable, IntoBytes};

use super::utilities::update;
use super::{Services, images, no_room};
use crate::addr::{PhysAddr, PhysRange};
use crate::checksum::crc32;
use crate::efi::configuration::Tables;
use crate::efi::events::Events;
use crate::efi::handles::{Handle, Handles, Interface};
use crate::efi::memory::Memory as ImageMemory;
use crate::efi::runtime::{REVISION, TableHeader};
use crate::hal::Memory;

/// As many boot services there are, with the reserved one.
pub const BOOT_SERVICES: usize = 44;
/// The length of the table.
pub const LEN: usize = size_of::<Table>();

const _: () = assert!(LEN == size_of::<uefi_raw::table::boot::BootServices>());

/// The table.
#[derive(Immutable, IntoBytes)]
#[repr(C)]
struct Table {
    header: TableHeader,
    functions: [u64; BOOT_SERVICES],
}

/// "BOOTSERV" (UEFI 4.4.1).
const SIGNATURE: u64 = u64::from_le_bytes(*b"BOOTSERV");

/// The addresses of the functions that images call.
#[derive(Clone, Copy, Debug)]
pub struct Functions {
    /// From `RaiseTPL` to `CreateEventEx`, in the order of the table.
    pub boot: [u64; BOOT_SERVICES],
}

impl Services {
    /// Makes a handle the console, with these interfaces for input, and for output and errors.
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES` if the system table cannot be accessed.
    pub fn set_console(
        &self,
        machine: &mut impl Memory,
        handle: Handle,
        input: Interface,
        output: Interface,
    ) -> Result<(), Status> {
        update(machine, self.system_table, |shared| {
            shared.system.input = [handle.raw(), input];
            (shared.system.output, shared.system.errors) = ([handle.raw(), output], [handle.raw(), output]);
            shared.seal_system();
        })
    }

    /// Boot services for images, with the memory that is free. The runtime services are in their place, with the system table at
    /// `system_table` and these configuration tables. The boot services table is put into memory.
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES`.
    pub fn new(
        machine: &mut impl Memory,
        memory: ImageMemory,
        system_table: PhysAddr,
        configuration: Tables,
        functions: &Functions,
    ) -> Result<Self, Status> {
        let mut services = Self {
            memory,
            handles: Handles::new(),
            events: Events::new(),
            configuration,
            images: images::Images::default(),
            count: 0,
            system_table,
            boot_table: PhysAddr::new(0),
            table_room: PhysRange::default(),
            is_ending: false,
            told_key: 0,
        };
        let page = services.memory.reserve_pages(1)?.start();
        services.boot_table = page;
        let header = TableHeader { signature: SIGNATURE, revision: REVISION.0, len: LEN as u32, crc: 0, reserved: 0 };
        let mut table = Table { header, functions: functions.boot };
        table.header.crc = crc32(table.as_bytes());
        machine.write(page, table.as_bytes()).map_err(no_room)?;
        update(machine, system_table, |shared| {
            shared.system.boot_services = page.get();
            shared.seal_system();
        })?;
        Ok(services)
    }
}
