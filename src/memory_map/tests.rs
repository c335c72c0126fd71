extern crate std;

use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use uefi_raw::table::boot::MemoryType;
use zerocopy::IntoBytes;

use super::kind::{is_ram, stricter};
use super::*;
use crate::fakes::machine::{FakeDevice, FakeMachine, FakeMemory};
use crate::layout;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const RAM: u32 = E820Entry::RAM;
const RESERVED: u32 = E820Entry::RESERVED;

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
}

/// An `etc/e820` file of (address, length, type) records.
fn file(records: &[(u64, u64, u32)]) -> Vec<u8> {
    let entry =
        |&(addr, size, kind): &(u64, u64, u32)| E820Entry { addr: addr.into(), size: size.into(), kind: kind.into() };
    records.iter().map(entry).flat_map(|entry| entry.as_bytes().to_vec()).collect()
}

/// The map as (first, last, type), as Linux prints it.
fn view(map: &Regions) -> Vec<(u64, u64, u32)> {
    map.e820().map(|e| (e.addr.get(), e.addr.get() + (e.size.get() - 1), e.kind.get())).collect()
}

#[test]
fn an_entry_has_the_layout_of_linux() {
    assert_eq!(size_of::<E820Entry>(), 20);
    assert_eq!(core::mem::offset_of!(E820Entry, addr), 0);
    assert_eq!(core::mem::offset_of!(E820Entry, size), 8);
    assert_eq!(core::mem::offset_of!(E820Entry, kind), 16);
}

/// `-M q35 -m 6G` on QEMU: RAM is one range through 640 KiB to 1 MiB.
#[test]
fn the_map_of_qemus_q35_with_6_gib_has_the_holes_of_a_pc() {
    let mut map = HostMap::from_e820(&file(&[
        (0xfd_0000_0000, 0x3_0000_0000, RESERVED),
        (0, 2 * GIB, RAM),
        (4 * GIB, 4 * GIB, RAM),
    ]))
    .unwrap();
    map.carve_pc().unwrap();
    let expected = vec![
        (0, 0x9_fbff, RAM),
        (0x9_fc00, 0x9_ffff, RESERVED),
        (0xf_0000, 0xf_ffff, RESERVED),
        (0x10_0000, 0x7fff_ffff, RAM),
        (0xfff8_0000, 0xffff_ffff, RESERVED),
        (0x1_0000_0000, 0x1_ffff_ffff, RAM),
        (0xfd_0000_0000, 0xff_ffff_ffff, RESERVED),
    ];
    assert_eq!(view(&map), expected);
    assert_eq!(map.ram_bytes(), 6 * GIB - 385 * KIB);
    assert_eq!(map.ram_end(PhysRange::LOW_4_GIB), Some(PhysAddr::new(2 * GIB)));
    assert_eq!(map.ram_end(range(4 * GIB, u64::MAX)), Some(PhysAddr::new(8 * GIB)));
    assert_eq!(map.ram_end(range(3 * GIB, 4 * GIB)), None);
}

/// Cloud Hypervisor's file is unsorted and already has the low holes.
#[test]
fn a_map_that_already_has_holes_keeps_them() {
    let mut map = HostMap::from_e820(&file(&[
        (0, 0xa_0000, RAM),
        (0xc000_0000, 640 * MIB, RESERVED),
        (0xe800_0000, 256 * MIB, RESERVED),
        (0xfffe_0000, 128 * KIB, RESERVED),
        (MIB, 511 * MIB, RAM),
    ]))
    .unwrap();
    map.carve_pc().unwrap();
    let expected = vec![
        (0, 0x9_fbff, RAM),
        (0x9_fc00, 0x9_ffff, RESERVED),
        (0xf_0000, 0xf_ffff, RESERVED),
        (0x10_0000, 0x1fff_ffff, RAM),
        (0xc000_0000, 0xf7ff_ffff, RESERVED),
        (0xfff8_0000, 0xffff_ffff, RESERVED),
    ];
    assert_eq!(view(&map), expected);
}

#[test]
fn firmware_memory_is_allocated_but_stays_ram_to_the_kernel() {
    let mut map = HostMap::from_e820(&file(&[(0, 64 * MIB, RAM)])).unwrap();
    map.carve_pc().unwrap();
    let mut map = MemoryMap::new(map);
    for taken in [layout::FIRMWARE_RAM, range(0, 0x1000)] {
        assert!(map.is_ram(taken) && !map.is_free(taken));
    }
    let everything = range(0, u64::MAX);
    let page = map.allocate(1, Alignment::PAGE, everything, Placement::Bottom, MemoryType::LOADER_DATA);
    assert_eq!(page, Some(range(0x1000, 0x1001)), "page zero is never allocated");
}

/// No order of records may turn reserved memory into RAM.
#[test]
fn the_more_restrictive_type_wins_in_any_order() {
    let records =
        [(0, 16 * MIB, RAM), (4 * MIB, MIB, RESERVED), (4 * MIB + 0x8000, 0x1000, E820Entry::NVS), (0, MIB, RAM)];
    let mut reversed = records;
    reversed.reverse();
    let expected = vec![(0, 4 * MIB - 1, RAM), (4 * MIB, 5 * MIB - 1, RESERVED), (5 * MIB, 16 * MIB - 1, RAM)];
    assert_eq!(view(&HostMap::from_e820(&file(&records)).unwrap()), expected);
    assert_eq!(view(&HostMap::from_e820(&file(&reversed)).unwrap()), expected);
}

#[test]
fn empty_wrapping_unknown_and_partial_records_add_no_ram() {
    let mut bytes = file(&[
        (0, 16 * MIB, RAM),
        (8 * MIB, 0, RESERVED),
        (u64::MAX, 2, RAM),
        (u64::MAX - 0xfff, u64::MAX, RESERVED),
        (32 * MIB, MIB, 0xffff_ffff),
    ]);
    bytes.extend([1, 2, 3]);
    let map = HostMap::from_e820(&bytes).unwrap();
    let expected =
        vec![(0, 16 * MIB - 1, RAM), (32 * MIB, 33 * MIB - 1, RESERVED), (u64::MAX - 0xfff, u64::MAX - 1, RESERVED)];
    assert_eq!(view(&map), expected);
}

#[test]
fn a_file_without_ram_is_an_error() {
    assert_eq!(HostMap::from_e820(&[]), Err(Error::NoRamInE820));
    assert_eq!(HostMap::from_e820(&file(&[(0, GIB, RESERVED)])), Err(Error::NoRamInE820));
    assert_eq!(HostMap::from_e820(&file(&[(0, GIB, RAM), (0, GIB, RESERVED)])), Err(Error::NoRamInE820));
}

/// The map has a fixed size: RAM of a host's list that does not fit is lost, a reservation is not.
#[test]
fn too_many_records_cost_ram_but_never_a_reservation() {
    let mut records: Vec<_> = (0..400).map(|i| (i * MIB, 512 * KIB, RAM)).collect();
    records.push((0, 0x1000, RESERVED));
    let mut map = HostMap::from_e820(&file(&records)).unwrap();
    assert!(!map.is_ram(range(0, 0x1000)));
    assert!(map.regions().count() < CAPACITY, "there are regions left for the firmware's own");
    map.carve_pc().unwrap();

    let reservations: Vec<_> = (0..400).map(|i| (i * MIB, 512 * KIB, RESERVED)).chain([(GIB, GIB, RAM)]).collect();
    assert_eq!(HostMap::from_e820(&file(&reservations)), Err(Error::Full));
}

#[test]
fn a_full_map_refuses_changes_and_is_unchanged() {
    let mut map = HostMap::default();
    for i in 0..CAPACITY as u64 {
        map.describe(range(i * 0x2000, i * 0x2000 + 0x1000), MemoryType::CONVENTIONAL).unwrap();
    }
    let before = map.clone();
    assert_eq!(map.describe(range(GIB, 2 * GIB), MemoryType::RESERVED), Err(Error::Full));
    // In the kernel's memory. A kind that it does not get back takes whole pages, of which there is one here.
    assert_eq!(map.reserve(range(0x10, 0x20), MemoryType::LOADER_DATA), Err(Error::Full));
    assert_eq!(map, before);
    let mut map = MemoryMap::new(map);
    let before = map.clone();
    let everything = range(0, u64::MAX);
    let part = map.allocate(0x10, Alignment::BYTE, everything, Placement::Bottom, MemoryType::LOADER_DATA);
    assert_eq!(part, None);
    assert_eq!(map, before);
    assert_eq!(map.e820().count(), CAPACITY);
}

#[test]
fn reserving_a_hole_adds_no_ram() {
    let mut map = HostMap::default();
    map.describe(range(0, MIB), MemoryType::CONVENTIONAL).unwrap();
    map.describe(range(MIB, 2 * MIB), MemoryType::RESERVED).unwrap();
    map.reserve(range(0, 3 * MIB), MemoryType::BOOT_SERVICES_DATA).unwrap();
    assert_eq!(view(&map), vec![(0, MIB - 1, RAM), (MIB, 2 * MIB - 1, RESERVED)]);
    map.reserve(range(3 * MIB, 4 * MIB), MemoryType::MMIO).unwrap();
    assert_eq!(view(&map).last(), Some(&(3 * MIB, 4 * MIB - 1, RESERVED)));
}

#[test]
fn released_memory_is_free_again() {
    let mut map = HostMap::default();
    map.describe(range(MIB, 2 * MIB), MemoryType::CONVENTIONAL).unwrap();
    let mut map = MemoryMap::new(map);
    let before = map.clone();
    let tables = map
        .allocate(64 * KIB, Alignment::PAGE, PhysRange::LOW_4_GIB, Placement::Top, MemoryType::ACPI_RECLAIM)
        .unwrap();
    assert_eq!(tables, range(2 * MIB - 64 * KIB, 2 * MIB));
    let (used, unused) =
        (range(tables.start().get(), tables.start().get() + 0x3000), range(tables.start().get() + 0x3000, 2 * MIB));
    map.release(unused).unwrap();
    assert!(map.is_free(unused) && !map.is_ram(used));
    assert_eq!(map.release(unused), Err(Error::NotAllocated { range: unused }));
    map.release(used).unwrap();
    assert_eq!(map, before);
    assert!(map.release(range(2 * MIB, 3 * MIB)).is_err(), "a hole cannot be released");
}

struct Cmos {
    registers: [u8; 128],
    index: u8,
}

impl FakeDevice for Cmos {
    fn claims(&self, port: u16) -> bool {
        port == 0x70 || port == 0x71
    }
    fn read(&mut self, _: u16, _: u8, _: &mut FakeMemory) -> u32 {
        self.registers[usize::from(self.index)].into()
    }
    fn write(&mut self, port: u16, _: u8, value: u32, _: &mut FakeMemory) {
        assert_eq!(port, 0x70, "CMOS is only read");
        assert_ne!(value & 0x80, 0, "NMI stays masked");
        self.index = value as u8 & 0x7f;
    }
}

fn cmos(set: &[(usize, u8)]) -> FakeMachine {
    let mut registers = [0; 128];
    for &(register, value) in set {
        registers[register] = value;
    }
    FakeMachine::new().with(Cmos { registers, index: 0 })
}

#[test]
fn cmos_sizes_become_ram() {
    // 512 MiB and 4 GiB above 4 GiB.
    let map = HostMap::from_cmos(&mut cmos(&[(0x30, 0xff), (0x31, 0xff), (0x35, 0x1f), (0x5c, 0), (0x5d, 1)])).unwrap();
    assert_eq!(view(&map), vec![(0, 512 * MIB - 1, RAM), (4 * GIB, 8 * GIB - 1, RAM)]);
    // 8 MiB: nothing above 16 MiB.
    let map = HostMap::from_cmos(&mut cmos(&[(0x31, 0x1c)])).unwrap();
    assert_eq!(view(&map), vec![(0, 8 * MIB - 1, RAM)]);
}

/// The values that QEMU's `pc_cmos_init` and similar hosts store for a machine with this much RAM below and above 4 GiB.
fn cmos_of(below: u64, above: u64) -> FakeMachine {
    let extended = (below.saturating_sub(MIB) / KIB).min(0xffff).to_le_bytes();
    let above_16_mib = (below.saturating_sub(16 * MIB) / (64 * KIB)).min(0xffff).to_le_bytes();
    let above_4_gib = (above / (64 * KIB)).to_le_bytes();
    cmos(&[
        (0x15, 0x80),
        (0x16, 0x02),
        (0x17, extended[0]),
        (0x18, extended[1]),
        (0x30, extended[0]),
        (0x31, extended[1]),
        (0x34, above_16_mib[0]),
        (0x35, above_16_mib[1]),
        (0x5b, above_4_gib[0]),
        (0x5c, above_4_gib[1]),
        (0x5d, above_4_gib[2]),
    ])
}

#[test]
fn every_size_that_cmos_can_hold_is_understood() {
    let small = [2 * MIB, 4 * MIB, 15 * MIB, 16 * MIB, 16 * MIB + 64 * KIB, 17 * MIB, 63 * MIB, 64 * MIB, 65 * MIB];
    let large = [GIB, 2 * GIB, 3 * GIB, 3 * GIB + 256 * MIB, 3 * GIB + 512 * MIB];
    for below in small.into_iter().chain(large) {
        assert_eq!(view(&HostMap::from_cmos(&mut cmos_of(below, 0)).unwrap()), [(0, below - 1, RAM)]);
    }
    // Up to the limit of 24 bits, in which all ones are not a size.
    for above in [64 * KIB, 256 * MIB, 4 * GIB, 60 * GIB, 1024 * GIB - 128 * KIB] {
        let map = HostMap::from_cmos(&mut cmos_of(3 * GIB, above)).unwrap();
        assert_eq!(view(&map), [(0, 3 * GIB - 1, RAM), (4 * GIB, 4 * GIB + above - 1, RAM)], "{above:#x}");
    }
    // A host that has the size in only one of the places.
    for registers in [[(0x30, 0), (0x31, 0x3c)], [(0x17, 0), (0x18, 0x3c)]] {
        assert_eq!(view(&HostMap::from_cmos(&mut cmos(&registers)).unwrap()), [(0, 16 * MIB - 1, RAM)]);
    }
}

/// A list of RAM from a host that has already cut out everything else, in pieces that touch, overlap or are empty, unordered.
#[test]
fn pieces_of_a_list_are_merged() {
    let mut map = HostMap::from_e820(&file(&[
        (0x40_0000, 60 * MIB, RAM),
        (0xfec0_0000, 0, RAM),
        (0x9_fc00, 0x400, RESERVED),
        (0, 0x500, RESERVED),
        (0x10_0000, 2 * MIB, RAM),
        (0x30_0000, MIB, RAM),
        (0x2f_0000, 2 * MIB, RAM),
        (0x500, 0x9_f700, RAM),
        (0x10_0000, 0, RESERVED),
        (0xa_0000, 0x6_0000, RESERVED),
        (0x50_0000, 0x1000, 12),
    ]))
    .unwrap();
    map.carve_pc().unwrap();
    let expected = [
        (0, 0xfff, RESERVED),
        (0x1000, 0x9_fbff, RAM),
        (0x9_fc00, 0xf_ffff, RESERVED),
        (0x10_0000, 0x4f_ffff, RAM),
        (0x50_0000, 0x50_0fff, RESERVED),
        (0x50_1000, 64 * MIB - 1, RAM),
        (0xfff8_0000, 0xffff_ffff, RESERVED),
    ];
    assert_eq!(view(&map), expected);
}

/// A host may reserve the firmware's memory: alioth has its tables from 512 KiB to 640 KiB. It stays reserved, and nothing is put
/// there.
#[test]
fn memory_of_the_firmware_that_the_host_reserves_stays_reserved() {
    for kind in [RESERVED, E820Entry::ACPI, E820Entry::NVS] {
        let mut map = HostMap::from_e820(&file(&[
            (0, 0x500, RESERVED),
            (0x500, 0x7_fb00, RAM),
            (0x8_0000, 0x2_0000, kind),
            (MIB, 63 * MIB, RAM),
        ]))
        .unwrap();
        map.carve_pc().unwrap();
        let entries = view(&map);
        assert!(entries.iter().any(|&(start, end, of)| start <= 0x8_0000 && 0x9_fbff <= end && of == kind));
        let low = range(0, MIB);
        let place = MemoryMap::new(map)
            .allocate(0x1000, Alignment::PAGE, low, Placement::Top, MemoryType::LOADER_DATA)
            .unwrap();
        assert_eq!(place, range(0x3_f000, 0x4_0000));
    }
    // Almost all of it below 640 KiB.
    let mut map = HostMap::from_e820(&file(&[(0, 0xa_0000, RESERVED), (MIB, 63 * MIB, RAM)])).unwrap();
    map.carve_pc().unwrap();
    assert_eq!(map.ram_bytes(), 63 * MIB);
}

#[test]
fn cmos_without_sizes_is_an_error() {
    assert_eq!(HostMap::from_cmos(&mut cmos(&[])), Err(Error::NoRamInCmos));
    assert_eq!(HostMap::from_cmos(&mut FakeMachine::new()), Err(Error::NoRamInCmos));
    let mut zeros = FakeMachine::new();
    zeros.absent = 0;
    assert_eq!(HostMap::from_cmos(&mut zeros), Err(Error::NoRamInCmos));
}

/// No page is only partly RAM to the kernel, except the page with a PC's extended BIOS data area.
fn is_whole(map: &Regions) -> bool {
    let is_boundary =
        |at: u64| at.is_multiple_of(0x1000) || at == u64::MAX || at / 0x1000 == 0x9f && at.is_multiple_of(0x400);
    view(map).into_iter().all(|(first, last, _)| is_boundary(first) && is_boundary(last + 1))
}

#[test]
fn reservations_of_the_host_grow_and_ram_shrinks_to_whole_pages() {
    let view_of = |records: &[(u64, u64, u32)]| view(&HostMap::from_e820(&file(records)).unwrap());
    // Two ranges of RAM that touch in the middle of a page become one.
    assert_eq!(view_of(&[(0, 0x1800, RAM), (0x1800, 0xe800, RAM)]), [(0, 0xffff, RAM)]);
    assert_eq!(
        view_of(&[(0x10, 0xffef, RAM)]),
        [(0, 0xfff, RESERVED), (0x1000, 0xefff, RAM), (0xf000, 0xffff, RESERVED)]
    );
    // Some bytes in RAM, and across the boundary of two pages.
    let nvs = E820Entry::NVS;
    assert_eq!(view_of(&[(0, MIB, RAM), (0x2345, 1, nvs)])[1], (0x2000, 0x2fff, nvs));
    assert_eq!(view_of(&[(0, MIB, RAM), (0x2fff, 2, nvs)])[1], (0x2000, 0x3fff, nvs));
    assert_eq!(
        view_of(&[(0, MIB, RAM), (0x2fff, 2, nvs), (0x2000, 4, RESERVED)])[1..3],
        [(0x2000, 0x2fff, RESERVED), (0x3000, 0x3fff, nvs)]
    );
    // Above RAM, in a hole.
    assert_eq!(view_of(&[(0, MIB, RAM), (GIB, 1, RESERVED)])[1], (GIB, GIB + 0xfff, RESERVED));
    // A PC's boundary is unchanged.
    let pc = [(0, 0x9_fc00, RAM), (0x9_fc00, 0x400, RESERVED)];
    assert_eq!(view_of(&pc), [(0, 0x9_fbff, RAM), (0x9_fc00, 0x9_ffff, RESERVED)]);
}

#[test]
fn reservations_of_the_firmware_take_whole_pages() {
    let mut map = HostMap::from_e820(&file(&[(0, 16 * MIB, RAM)])).unwrap();
    map.carve_pc().unwrap();
    let mut map = MemoryMap::new(map);
    let low = PhysRange::LOW_4_GIB;
    let paragraph = Alignment::PARAGRAPH;
    let first = map.allocate(0x2e2, paragraph, low, Placement::Top, RESERVED_KIND).unwrap();
    assert_eq!(first, range(16 * MIB - 0x1000, 16 * MIB - 0x1000 + 0x2e2), "exactly the requested bytes");
    let second = map.allocate(0x1001, paragraph, low, Placement::Top, RESERVED_KIND).unwrap();
    assert_eq!(second, range(16 * MIB - 0x3000, 16 * MIB - 0x1fff));
    map.reserve(range(0x20_0ff0, 0x20_1010), RESERVED_KIND).unwrap();
    assert!(map.is_withheld(range(0x20_0000, 0x20_2000)));
    // Memory that the kernel gets back is listed as RAM, with its exact end.
    let parameters = map.allocate(0x10, paragraph, low, Placement::Bottom, MemoryType::LOADER_DATA).unwrap();
    assert!(map.is_free(range(parameters.end().get(), parameters.end().get() + 1)));
    assert!(is_whole(&map), "{:x?}", view(&map));
    map.release(first.pages()).unwrap();
    map.release(second.pages()).unwrap();
    assert_eq!(view(&map).into_iter().filter(|entry| entry.1 == 16 * MIB - 1).count(), 1);
    assert!(map.is_free(range(16 * MIB - 0x3000, 16 * MIB)));
}

const RESERVED_KIND: MemoryType = MemoryType::RESERVED;

#[test]
fn a_full_map_loses_ram_but_not_page_boundaries() {
    // Every range of RAM begins in the middle of a page, and no region can be added.
    let records: Vec<_> = (0..400).map(|i| (i * MIB + 0x800, 512 * KIB, RAM)).collect();
    let map = HostMap::from_e820(&file(&records)).unwrap();
    assert!(is_whole(&map) && map.ram_bytes() > 100 * 511 * KIB, "{} bytes", map.ram_bytes());
}

/// A simple model of a map: the kind of each of a few units of memory.
type Model = [Option<MemoryType>; MODEL_UNITS as usize];
const MODEL_UNITS: u64 = 48;

/// Units from `start` to `end`: pages.
fn units(start: u64, end: u64) -> PhysRange {
    range(start << 12, end << 12)
}

/// A change to a map before allocation.
#[derive(Clone, Copy, Debug)]
enum HostStep {
    Describe(u64, u64, MemoryType),
    Reserve(u64, u64, MemoryType),
    RemoveRam(u64, u64),
}

/// A change to a map that allocates.
#[derive(Clone, Copy, Debug)]
enum Step {
    Reserve(u64, u64, MemoryType),
    Release(u64, u64),
    Allocate { len: u64, alignment: u64, within: (u64, u64), placement: Placement },
}

fn kinds() -> impl Strategy<Value = MemoryType> {
    prop::sample::select(vec![
        MemoryType::CONVENTIONAL,
        MemoryType::BOOT_SERVICES_DATA,
        MemoryType::LOADER_DATA,
        MemoryType::ACPI_RECLAIM,
        MemoryType::ACPI_NON_VOLATILE,
        MemoryType::RESERVED,
        MemoryType::UNUSABLE,
    ])
}

fn bounds() -> impl Strategy<Value = (u64, u64)> {
    (0..MODEL_UNITS, 0..=MODEL_UNITS).prop_map(|(a, b)| (a.min(b), a.max(b)))
}

fn host_steps() -> impl Strategy<Value = Vec<HostStep>> {
    let step = prop_oneof![
        4 => (bounds(), Just(MemoryType::CONVENTIONAL)).prop_map(|((a, b), kind)| HostStep::Describe(a, b, kind)),
        2 => (bounds(), kinds()).prop_map(|((a, b), kind)| HostStep::Describe(a, b, kind)),
        2 => (bounds(), kinds()).prop_map(|((a, b), kind)| HostStep::Reserve(a, b, kind)),
        1 => bounds().prop_map(|(a, b)| HostStep::RemoveRam(a, b)),
    ];
    prop::collection::vec(step, 1..16)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let placement = prop::sample::select(vec![Placement::Top, Placement::Bottom]);
    let step = prop_oneof![
        2 => (bounds(), kinds()).prop_map(|((a, b), kind)| Step::Reserve(a, b, kind)),
        1 => bounds().prop_map(|(a, b)| Step::Release(a, b)),
        3 => (0..9_u64, 0..4_u32, bounds(), placement).prop_map(|(len, shift, within, placement)| {
            Step::Allocate { len, alignment: 1 << shift, within, placement }
        }),
    ];
    prop::collection::vec(step, 0..16)
}

fn change_model(model: &mut Model, (a, b): (u64, u64), change: impl Fn(Option<MemoryType>) -> Option<MemoryType>) {
    for unit in &mut model[a as usize..b as usize] {
        *unit = change(*unit);
    }
}

fn reserve_in_model(model: &mut Model, bounds: (u64, u64), kind: MemoryType) {
    change_model(model, bounds, |old| match old {
        None => Some(kind).filter(|&kind| !is_ram(kind)),
        Some(old) => Some(stricter(old, kind)),
    });
}

/// Applies `step` to both.
fn run_host(map: &mut HostMap, model: &mut Model, step: HostStep) {
    match step {
        HostStep::Describe(a, b, kind) => {
            map.describe(units(a, b), kind).unwrap();
            change_model(model, (a, b), |old| Some(old.map_or(kind, |old| stricter(old, kind))));
        }
        HostStep::Reserve(a, b, kind) => {
            map.reserve(units(a, b), kind).unwrap();
            reserve_in_model(model, (a, b), kind);
        }
        HostStep::RemoveRam(a, b) => {
            map.remove_ram(units(a, b)).unwrap();
            change_model(model, (a, b), |old| old.filter(|&kind| !is_ram(kind)));
        }
    }
}

/// Applies `step` to both, and checks the map's result against the model.
fn run(map: &mut MemoryMap, model: &mut Model, step: Step) {
    match step {
        Step::Reserve(a, b, kind) => {
            map.reserve(units(a, b), kind).unwrap();
            reserve_in_model(model, (a, b), kind);
        }
        Step::Release(a, b) => {
            let is_taken = |unit: &Option<MemoryType>| unit.is_some_and(|kind| kind != MemoryType::CONVENTIONAL);
            let may = model[a as usize..b as usize].iter().all(is_taken);
            assert_eq!(map.release(units(a, b)).is_ok(), may);
            if may {
                change_model(model, (a, b), |_| Some(MemoryType::CONVENTIONAL));
            }
        }
        Step::Allocate { len, alignment, within: (a, b), placement } => {
            let fits = |&start: &u64| {
                start % alignment == 0
                    && start + len <= b
                    && (start..start + len).all(|at| model[at as usize] == Some(MemoryType::CONVENTIONAL))
            };
            let expected = match placement {
                _ if len == 0 => None,
                Placement::Top => (a..b).rev().find(fits),
                Placement::Bottom => (a..b).find(fits),
            };
            let alignment = Alignment::new(alignment << 12).unwrap();
            let found = map.allocate(len << 12, alignment, units(a, b), placement, MemoryType::LOADER_DATA);
            assert_eq!(found, expected.map(|start| units(start, start + len)));
            if let Some(start) = expected {
                change_model(model, (start, start + len), |_| Some(MemoryType::LOADER_DATA));
            }
        }
    }
}

/// Checks that the map and the model agree on every page, and that the regions are sorted, disjoint and merged.
fn check(map: &Regions, model: &Model) {
    let regions: Vec<_> = map.regions().collect();
    let mut from_map: Model = [None; MODEL_UNITS as usize];
    for region in &regions {
        assert!(!region.range.is_empty());
        let bounds = (region.range.start().get() >> 12, region.range.end().get() >> 12);
        change_model(&mut from_map, bounds, |_| Some(region.kind));
    }
    assert_eq!(from_map, *model);
    for pair in regions.windows(2) {
        assert!(pair[0].range.end() <= pair[1].range.start());
        assert!(pair[0].range.end() < pair[1].range.start() || pair[0].kind != pair[1].kind);
    }

    let ram = model.iter().flatten().filter(|&&kind| is_ram(kind)).count();
    assert_eq!(map.ram_bytes(), (ram as u64) << 12);
    let entries: Vec<_> = map.e820().collect();
    let entry_ram: u64 = entries.iter().filter(|entry| entry.kind.get() == RAM).map(|entry| entry.size.get()).sum();
    assert_eq!(entry_ram, (ram as u64) << 12);
    for pair in entries.windows(2) {
        let end = pair[0].addr.get() + pair[0].size.get();
        assert!(end < pair[1].addr.get() || end == pair[1].addr.get() && pair[0].kind != pair[1].kind);
    }
}

proptest! {
    /// The property holds after any steps.
    #[test]
    fn the_map_agrees_with_a_table_of_pages(host_steps in host_steps(), steps in steps()) {
        let mut map = HostMap::default();
        let mut model: Model = [None; MODEL_UNITS as usize];
        for step in host_steps {
            run_host(&mut map, &mut model, step);
            check(&map, &model);
        }
        let mut map = MemoryMap::new(map);
        for step in steps {
            run(&mut map, &mut model, step);
            check(&map, &model);
        }
    }

    /// A file has the same meaning in any order. Its RAM is the whole pages in the union of its RAM records, except those in
    /// which another record has a byte.
    #[test]
    fn the_order_of_records_does_not_matter(
        records in prop::collection::vec((0..64_u64, 0..32_u64, 0..8_u32), 0..40),
        seed in any::<u64>(),
    ) {
        let mut shuffled = records.clone();
        shuffled.sort_by_key(|record| (record.0 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ record.1));
        let in_kib = |records: &[(u64, u64, u32)]| {
            file(&records.iter().map(|&(start, len, kind)| (start * KIB, len * KIB, kind)).collect::<Vec<_>>())
        };
        let map = HostMap::from_e820(&in_kib(&records));
        prop_assert_eq!(&map, &HostMap::from_e820(&in_kib(&shuffled)));

        let covers = |at: u64, ram: bool| {
            records.iter().any(|&(start, len, kind)| (kind == RAM) == ram && start <= at && at < start + len)
        };
        let is_ram_page = |page: &u64| (page * 4..page * 4 + 4).all(|at| covers(at, true) && !covers(at, false));
        let expected = (0..24).filter(is_ram_page).count() as u64;
        if let Ok(map) = &map {
            prop_assert!(is_whole(map), "{:x?}", view(map));
            for at in (0..96).filter(|&at| covers(at, false)) {
                prop_assert!(map.is_withheld(range(at * KIB, at * KIB + KIB)), "{at} KiB");
            }
        }
        prop_assert_eq!(map.map_or(0, |map| map.ram_bytes()), expected * 4 * KIB);
    }

    #[test]
    fn no_file_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = HostMap::from_e820(&bytes).map(|mut map| map.carve_pc());
        // The same with valid types.
        for record in bytes.chunks_exact_mut(20) {
            record[16] %= 8;
            record[17..].fill(0);
        }
        if let Ok(mut map) = HostMap::from_e820(&bytes) {
            map.carve_pc().unwrap();
            prop_assert!(map.e820().count() <= CAPACITY && is_whole(&map), "{:x?}", view(&map));
        }
    }
}

#[test]
fn the_error_for_a_list_that_is_too_long_names_the_list() {
    let item = crate::fw_cfg::Error::TooLarge { key: crate::fw_cfg::Key::new(0x21), len: 20_500, limit: 20_480 };
    assert_eq!(
        Error::FwCfg(item).to_string(),
        "the host's etc/e820 cannot be read: fw_cfg: item 0x21 has 20500 bytes, and the limit is 20480"
    );
}
