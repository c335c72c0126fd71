//! Each status of each service, and the pitfalls that loaders and kernels fall into.

extern crate std;

mod events;
mod images;
mod load;
mod memory;
mod protection;
mod protocols;
mod utilities;
mod variables;

use std::vec::Vec;

use uefi_raw::table::boot::MemoryType;
use uefi_raw::{Guid, Status, guid};
use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::addr::{PhysAddr, PhysRange};
use crate::efi::runtime::{Shared, State, SystemTable};
use crate::fakes::machine::FakeMachine;
use crate::memory_map::{HostMap, MemoryMap};

const MIB: u64 = 1 << 20;
/// Memory of the test's own, which no service gives out: a place for what an image passes.
const OWN: u64 = 0x20_0000;
/// Where the system table is.
const SHARED: u64 = 0x10_0000;

const ONE: Guid = guid!("11111111-0000-0000-0000-000000000000");
const TWO: Guid = guid!("22222222-0000-0000-0000-000000000000");

/// Services on a machine with 16 MiB.
struct Test {
    machine: FakeMachine,
    services: Services,
    /// Where the next bytes go.
    next: u64,
}

impl Test {
    fn new() -> Self {
        let mut map = HostMap::default();
        let range = |start, end| PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap();
        map.describe(range(MIB, 16 * MIB), MemoryType::CONVENTIONAL).unwrap();
        map.reserve(range(SHARED, 4 * MIB), MemoryType::LOADER_DATA).unwrap();
        let mut machine = FakeMachine::new();
        let mut shared = Shared { state: State::NEW, ..Shared::EMPTY };
        shared.place(SHARED, [0x1234; 14], &[]);
        machine.memory.store(SHARED, shared.as_bytes());
        let memory = ImageMemory::new(MemoryMap::new(map));
        let functions = Functions { boot: core::array::from_fn(|index| 0xf000 + index as u64) };
        let services = Services::new(&mut machine, memory, PhysAddr::new(SHARED), Tables::new(), &functions).unwrap();
        Self { machine, services, next: OWN }
    }

    /// The address of these bytes.
    fn put(&mut self, bytes: &[u8]) -> u64 {
        let at = self.next;
        self.machine.memory.store(at, bytes);
        self.next += (bytes.len() as u64).next_multiple_of(8) + 8;
        at
    }

    fn put_guid(&mut self, guid: Guid) -> u64 {
        self.put(&guid.to_bytes())
    }

    fn put_number(&mut self, number: u64) -> u64 {
        self.put(&number.to_le_bytes())
    }

    fn number(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.machine.memory.bytes(at, 8).try_into().unwrap())
    }

    fn numbers(&self, at: u64, count: u64) -> Vec<u64> {
        (0..count).map(|index| self.number(at + 8 * index)).collect()
    }

    fn system_table(&self) -> SystemTable {
        let bytes = self.machine.memory.bytes(SHARED, size_of::<SystemTable>());
        SystemTable::read_from_bytes(&bytes).unwrap()
    }

    /// A handle with a protocol.
    fn install(&mut self, guid: Guid, interface: u64) -> u64 {
        self.services.install(None, guid, interface).unwrap().raw()
    }
}

#[test]
fn the_table_of_boot_services_has_all_functions_and_its_checksum() {
    let test = Test::new();
    let at = test.system_table().boot_services;
    let mut table = test.machine.memory.bytes(at, 376);
    assert_eq!(table[..8], *b"BOOTSERV");
    assert_eq!(table[12..16], 376_u32.to_le_bytes());
    assert_eq!(test.numbers(at + 24, 44), (0xf000..0xf000 + 44).collect::<Vec<_>>());
    let crc = u32::from_le_bytes(table[16..20].try_into().unwrap());
    table[16..20].fill(0);
    assert_eq!(crate::checksum::crc32(&table), crc);
}

#[test]
fn a_text_ends_at_its_nul_within_the_most_characters() {
    let mut test = Test::new();
    let at = test.put(b"a\0b\0\0\0c\0");
    let mut text = |at, most| test.machine.text(at, most);
    assert_eq!(text(at, 3), Ok([0x61, 0x62].to_vec()));
    assert_eq!(text(at, 2), Err(Status::INVALID_PARAMETER));
    assert_eq!(text(at + 4, 1), Ok(Vec::new()));
    for wrong in [0, crate::layout::FIRMWARE_RAM.start().get(), u64::MAX] {
        assert_eq!(text(wrong, 3), Err(Status::INVALID_PARAMETER), "{wrong:#x}");
    }
}

#[test]
fn boot_services_end_with_the_present_map_key_only() {
    let mut test = Test::new();
    let key = test.services.memory.key();
    test.services.memory.allocate_pages(crate::efi::memory::Wanted::AnyPages, MemoryType::LOADER_DATA, 1).unwrap();
    test.services.before_exit();
    assert_eq!(test.services.check_map_key(key), Err(Status::INVALID_PARAMETER));
    // Twice: the first attempt does not change the map.
    assert_eq!(test.services.check_map_key(key), Err(Status::INVALID_PARAMETER));
    assert_eq!(test.services.check_map_key(test.services.memory.key()), Ok(()));
    let table = test.system_table().boot_services;
    assert_eq!(test.services.end(&mut test.machine), Ok(()));
    let system = test.system_table();
    assert_eq!((system.boot_services, system.input, system.output, system.errors), (0, [0; 2], [0; 2], [0; 2]));
    assert_eq!(test.machine.memory.bytes(table, 24), [0; 24]);
}

#[test]
fn a_change_of_the_memory_map_is_told_once() {
    use crate::efi::events::MEMORY_MAP_CHANGE;
    let mut test = Test::new();
    let at = test.put_number(0);
    let group = test.put_guid(MEMORY_MAP_CHANGE);
    let (machine, services) = (&mut test.machine, &mut test.services);
    services.signal_map_change();
    services.create_event(machine, 0x200, 8, 0x1000, 2, group, at).unwrap();
    let told = |services: &mut Services| {
        services.signal_map_change();
        services.events.begin().map(|notification| services.events.end(notification)).is_some()
    };
    assert!(!told(services));
    let page =
        services.memory.allocate_pages(crate::efi::memory::Wanted::AnyPages, MemoryType::LOADER_DATA, 1).unwrap();
    assert_eq!((told(services), told(services)), (true, false));
    services.memory.free_pages(page.get(), 1).unwrap();
    // A function that is told of it runs, and changes the map.
    services.signal_map_change();
    let running = services.events.begin().unwrap();
    services.memory.allocate_pages(crate::efi::memory::Wanted::AnyPages, MemoryType::LOADER_DATA, 1).unwrap();
    services.signal_map_change();
    services.events.end(running);
    assert!(services.events.begin().is_none());
    assert_eq!((told(services), told(services)), (true, false));
}

#[test]
fn those_who_want_to_know_of_the_end_are_told_before_and_after_the_key_is_checked() {
    use crate::efi::events::BEFORE_EXIT_BOOT_SERVICES;
    let mut test = Test::new();
    let at = test.put_number(0);
    let group = test.put_guid(BEFORE_EXIT_BOOT_SERVICES);
    let (machine, services) = (&mut test.machine, &mut test.services);
    services.create_event(machine, 0x201, 8, 0x1000, 1, 0, at).unwrap();
    services.create_event(machine, 0x200, 8, 0x1000, 2, group, at).unwrap();
    let told = |services: &mut Services| {
        let notification = services.events.begin()?;
        services.events.end(notification);
        Some(notification.function.context)
    };
    services.before_exit();
    assert_eq!((told(services), told(services)), (Some(2), None));
    // A second attempt.
    assert_eq!(services.check_map_key(0), Err(Status::INVALID_PARAMETER));
    services.before_exit();
    assert_eq!(told(services), None);
    services.check_map_key(services.memory.key()).unwrap();
    assert_eq!((told(services), told(services)), (Some(1), None));
}
