//! Tables that an operating system reads, and what becomes of their addresses.

extern crate std;

use std::vec::Vec;

use uefi_raw::guid;
use zerocopy::IntoBytes;

use super::super::configuration::{ACPI_20, SMBIOS_3, Table};
use super::*;
use crate::checksum::crc32;

const AT: u64 = 0x7f00_2000;
const CODE: u64 = 0x7f00_0000;

fn shared() -> Shared {
    let mut shared = Shared::EMPTY;
    let functions = core::array::from_fn(|index| CODE + 0x10 * index as u64);
    let tables = [Table { guid: ACPI_20, address: 0x9fc10 }, Table { guid: SMBIOS_3, address: 0xf0000 }];
    shared.place(AT, functions, &tables);
    shared
}

fn mapping(physical: u64, virtual_: u64, len: u64) -> Mapping {
    Mapping { physical, virtual_, len, attributes: MemoryAttribute::RUNTIME | MemoryAttribute::WRITE_BACK }
}

/// The checksum of a table, with zero for itself.
fn crc(table: &[u8]) -> u32 {
    let mut bytes = table.to_vec();
    bytes[16..20].fill(0);
    crc32(&bytes)
}

fn assert_sealed(shared: &Shared) {
    assert_eq!(shared.system.header.crc, crc(shared.system.as_bytes()));
    assert_eq!(shared.runtime.header.crc, crc(shared.runtime.as_bytes()));
}

#[test]
fn the_tables_point_to_each_other_and_are_sealed() {
    let shared = shared();
    assert_sealed(&shared);
    assert_eq!(&shared.system.as_bytes()[..8], b"IBI SYST");
    assert_eq!(&shared.runtime.as_bytes()[..8], b"RUNTSERV");
    assert_eq!((shared.system.header.len, shared.runtime.header.len), (120, 136));
    let bytes = shared.as_bytes();
    let at = |address: u64| &bytes[(address - AT) as usize..];
    assert_eq!(&at(shared.system.runtime_services)[..8], b"RUNTSERV");
    let vendor: Vec<u8> = "Firstlight\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(at(shared.system.vendor).starts_with(&vendor));
    assert_eq!(shared.system.configuration_count, 2);
    let tables = at(shared.system.configuration);
    assert_eq!(&tables[..16], &ACPI_20.to_bytes());
    assert_eq!(&tables[40..48], &0xf_0000_u64.to_le_bytes());
}

#[test]
fn tables_for_which_there_is_no_room_are_left_out() {
    let mut shared = shared();
    let table = Table { guid: guid!("00000000-0000-0000-0000-000000000001"), address: 1 };
    shared.set_tables(&[table; 40]);
    assert_eq!(shared.system.configuration_count, 32);
}

#[test]
fn addresses_become_those_of_the_operating_system_once() {
    let mut shared = shared();
    shared.state.power_off.register = 0xfea0_0200;
    let map = [
        mapping(0x1000, 0x5000, 0x1000),
        mapping(CODE, 0xffff_fffe_0000_0000, 0x2_0000),
        mapping(0xfea0_0000, 0xffff_fffd_0000_0000, 0x1000),
    ];
    assert_eq!(shared.set_virtual_address_map(map.into_iter()), Err(Status::UNSUPPORTED), "there are boot services");
    shared.end_boot_services();
    assert_eq!(shared.set_virtual_address_map(map.into_iter()), Ok(()));
    assert_eq!(shared.runtime.functions[1], 0xffff_fffe_0000_0010);
    assert_eq!(shared.system.vendor & !0xffff, 0xffff_fffe_0000_0000);
    assert_eq!(shared.system.runtime_services, 0xffff_fffe_0000_2000 + 120);
    assert_eq!(shared.system.configuration, 0xffff_fffe_0000_2000 + 256);
    assert_eq!(shared.state.power_off.register, 0xffff_fffd_0000_0200);
    // Configuration tables stay where they are.
    assert_eq!(shared.configuration[1].address, 0xf_0000);
    assert_sealed(&shared);
    assert_eq!(shared.set_virtual_address_map(map.into_iter()), Err(Status::UNSUPPORTED), "it was called before");
}

#[test]
fn a_map_without_the_services_changes_nothing() {
    let mut shared = shared();
    shared.end_boot_services();
    let before = shared.as_bytes().to_vec();
    let unmapped = Mapping { attributes: MemoryAttribute::WRITE_BACK, ..mapping(CODE, 0x1000, 0x2_0000) };
    for map in
        [Vec::new(), [unmapped].to_vec(), [mapping(CODE, 0x1000, 0x2000)].to_vec(), [mapping(0, 0, 0x100)].to_vec()]
    {
        assert_eq!(shared.set_virtual_address_map(map.into_iter()), Err(Status::NO_MAPPING));
        assert_eq!(shared.as_bytes(), before);
    }
}

#[test]
fn nothing_of_boot_services_is_left_when_they_end() {
    let mut shared = shared();
    let system = &mut shared.system;
    (system.input, system.output, system.errors, system.boot_services) = ([1; 2], [2; 2], [3; 2], 4);
    assert_eq!(shared.phase(), Phase::Boot);
    shared.end_boot_services();
    let system = &shared.system;
    assert_eq!((system.input, system.output, system.errors, system.boot_services), ([0; 2], [0; 2], [0; 2], 0));
    assert_eq!(shared.phase(), Phase::Runtime);
    assert_sealed(&shared);
}

#[test]
fn a_pointer_outside_any_map_is_not_converted() {
    assert_eq!(convert_pointer(0, 0x1000), Err(Status::NOT_FOUND));
    assert_eq!(convert_pointer(1, 0x1000), Err(Status::NOT_FOUND));
    assert_eq!(convert_pointer(0, 0), Err(Status::INVALID_PARAMETER));
    assert_eq!(convert_pointer(1, 0), Ok(()), "EFI_OPTIONAL_PTR");
}

#[test]
fn the_high_count_grows_with_each_call() {
    let mut shared = shared();
    assert_eq!([(); 3].map(|()| shared.next_high_count()), [1, 2, 3]);
}

#[test]
fn the_properties_name_the_services_that_work_for_a_running_system() {
    // UEFI 4.6.2: bits 2 and 3 are alarms, 11 and 12 are capsules.
    assert_eq!(SUPPORTED, 0x3fff & !(1 << 2 | 1 << 3 | 1 << 11 | 1 << 12));
    assert_eq!(properties_table()[..4], [1, 0, 8, 0]);
}

mod image {
    use std::vec;

    use uefi_raw::table::boot::MemoryType;

    use super::super::Placed;
    use super::*;
    use crate::addr::{PhysAddr, PhysRange};
    use crate::efi::memory;
    use crate::fakes::machine::FakeMachine;
    use crate::memory_map::{HostMap, MemoryMap};

    /// An image of a page of code and three of data, with `change` of one of its numbers.
    fn image(change: Option<(usize, u32)>) -> Vec<u8> {
        let mut numbers: Vec<u32> = vec![0x1100, 0x1000, 0x4000];
        numbers.extend((0..FUNCTIONS as u32).map(|index| 0x100 + 0x10 * index));
        if let Some((at, number)) = change {
            numbers[at] = number;
        }
        let mut image = b"FLRT".to_vec();
        image.extend(numbers.into_iter().flat_map(u32::to_le_bytes));
        image.resize(0x1000, 0xc3);
        image
    }

    fn ram(end: u64) -> MemoryMap {
        let mut map = HostMap::default();
        map.describe(PhysRange::new(PhysAddr::new(0x10_0000), end - 0x10_0000).unwrap(), MemoryType::CONVENTIONAL)
            .unwrap();
        MemoryMap::new(map)
    }

    #[test]
    fn the_services_are_one_run_of_pages_at_the_top_of_memory() {
        let (image, mut map, mut machine) = (image(None), ram(0x100_0000), FakeMachine::new());
        machine.memory.store(0xff_c000, &[0xee; 0x4000]);
        let tables = [Table { guid: ACPI_20, address: 0x9_fc10 }];
        let state = State { high_count: 7, ..State::NEW };
        let placed = RuntimeImage::parse(&image).unwrap().place(&mut machine, &mut map, state, &tables).unwrap();
        let range = |start, len| PhysRange::new(PhysAddr::new(start), len).unwrap();
        let expected = Placed {
            code: range(0xff_c000, 0x1000),
            data: range(0xff_d000, 0x3000),
            system_table: PhysAddr::new(0xff_d100),
        };
        assert_eq!(placed, expected);
        assert_eq!(machine.memory.bytes(0xff_c000, 0x1000), image);
        let mut shared = Shared { state, ..Shared::EMPTY };
        shared.place(0xff_d100, core::array::from_fn(|index| 0xff_c100 + 0x10 * index as u64), &tables);
        assert_eq!(machine.memory.bytes(0xff_d100, size_of::<Shared>()), shared.as_bytes());
        let rest = 0xff_d100 + size_of::<Shared>() as u64;
        assert!(machine.memory.bytes(rest, (0x100_0000 - rest) as usize).iter().all(|&byte| byte == 0));
        let shown: Vec<_> =
            memory::descriptors(&map).map(|shown| (shown.phys_start, shown.page_count, shown.ty)).collect();
        assert_eq!(shown[1], (0xff_c000, 4, MemoryType::RUNTIME_SERVICES_CODE));
    }

    #[test]
    fn the_attributes_say_what_is_executed_and_what_is_written() {
        let (image, mut map, mut machine) = (image(None), ram(0x100_0000), FakeMachine::new());
        let placed = RuntimeImage::parse(&image).unwrap().place(&mut machine, &mut map, State::NEW, &[]).unwrap();
        let table = placed.attributes_table();
        assert_eq!(table[..16], [1, 0, 0, 0, 2, 0, 0, 0, 48, 0, 0, 0, 0, 0, 0, 0]);
        let number = |at: usize| u64::from_le_bytes(*table[at..].first_chunk().unwrap());
        let entry = |at: usize| [number(at), number(at + 8), number(at + 24), number(at + 32)];
        assert_eq!(entry(16), [5, 0xff_c000, 1, 1 << 63 | 1 << 17]);
        assert_eq!(entry(64), [5, 0xff_d000, 3, 1 << 63 | 1 << 14]);
    }

    #[test]
    fn without_room_or_with_a_broken_image_there_are_no_services() {
        assert_eq!(RuntimeImage::parse(b"").err(), Some(Error::Image));
        assert_eq!(RuntimeImage::parse(&image(None)[..0x40]).err(), Some(Error::Image));
        // The structure before the data, past the end and off its alignment; parts of pages; functions in the header and the data.
        let broken = [
            (0, 0xf00),
            (0, 0x3f00),
            (0, u32::MAX),
            (0, 0x1104),
            (1, 0xf00),
            (2, 0x3f00),
            (2, 0x800),
            (3, 4),
            (16, 0x1000),
        ];
        for change in broken {
            assert_eq!(RuntimeImage::parse(&image(Some(change))).err(), Some(Error::Image), "{change:x?}");
        }
        let (image, mut map, mut machine) = (image(None), ram(0x10_3000), FakeMachine::new());
        let placed = RuntimeImage::parse(&image).unwrap().place(&mut machine, &mut map, State::NEW, &[]);
        assert_eq!(placed.err(), Some(Error::Room(0x4000)));
    }
}
