extern crate std;

use core::cell::Cell;
use std::string::ToString;
use std::vec::Vec;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use uefi_raw::table::boot::MemoryType;

use super::*;
use crate::addr::PhysAddr;
use crate::fakes::machine::FakeMachine;
use crate::framebuffer::{Framebuffer, Mode};
use crate::memory_map::HostMap;
use crate::memory_map::MemoryMap;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What the host has loaded: a kernel, and from `LIST` on the list of modules, strings and modules.
const LOADED: PhysRange = range(MIB, MIB + 0x6000);
const LIST: u32 = 0x10_3000;
const STRINGS: u32 = LIST + 32;
const COMMAND_LINE: &[u8] = b"kernel and words\0";

const fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
}

fn host_map(ram: &[(u64, u64)]) -> HostMap {
    let mut map = HostMap::default();
    for &(start, end) in ram {
        map.describe(range(start, end), MemoryType::CONVENTIONAL).unwrap();
    }
    map
}

fn map(ram: &[(u64, u64)]) -> MemoryMap {
    MemoryMap::new(host_map(ram))
}

/// The little-endian number of `len` bytes at `at`.
fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The host's item: 88 bytes with these 32-bit fields.
fn item(fields: &[(usize, u32)]) -> [u8; 88] {
    let mut item = [0; 88];
    for &(at, value) in fields {
        item[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    item
}

/// As QEMU writes it, with two modules.
fn qemus() -> [u8; 88] {
    let name = STRINGS + 64;
    item(&[(0, 0x24f), (12, 0x8000_ffff), (16, STRINGS), (20, 2), (24, LIST), (48, 0x9000), (64, name)])
}

fn parse(item: &[u8]) -> Result<HostInfo, Error> {
    let mut bytes = [0; HostInfo::LEN];
    let len = item.len().min(bytes.len());
    bytes[..len].copy_from_slice(&item[..len]);
    HostInfo::parse(&bytes, item.len() as u32)
}

/// A machine with the data for [`qemus`] in memory, and these fields in the list of modules.
fn machine(list: [[u32; 4]; 2]) -> FakeMachine {
    let mut machine = FakeMachine::new();
    let list: Vec<u8> = list.iter().flatten().flat_map(|field| field.to_le_bytes()).collect();
    machine.memory.store(LIST.into(), &list);
    machine.memory.store(STRINGS.into(), COMMAND_LINE);
    machine.memory.store(u64::from(STRINGS) + 64, b"qemu\0m1 of 2\0m2\0");
    machine
}

const MODULES: [[u32; 4]; 2] = [[0x10_4000, 0x10_4123, STRINGS + 69, 0], [0x10_5000, 0x10_6000, STRINGS + 77, 0]];

#[test]
fn modules_that_are_together_longer_than_what_is_loaded_are_refused() {
    let all = [0x10_0000, 0x10_6000, 0, 0];
    let error = parse(&qemus()).unwrap().modules(&mut machine([all, all]), LOADED).err();
    assert_eq!(error, Some(Error::MultibootOverlap { at: LOADED.start(), loaded: LOADED }));
    assert!(error.is_some_and(|error| error.to_string().contains("overlapping modules")));
}

#[test]
fn pointers_into_what_the_host_has_loaded_are_accepted() {
    let mut machine = machine(MODULES);
    let told = parse(&qemus()).unwrap();
    let text =
        |machine: &FakeMachine, range: PhysRange| machine.memory.bytes(range.start().get(), range.len() as usize);
    let command_line = told.command_line(&mut machine, LOADED).unwrap();
    assert_eq!(text(&machine, command_line), COMMAND_LINE);
    let modules = told.modules(&mut machine, LOADED).unwrap();
    assert_eq!(modules.len(), 2);
    assert_eq!([modules[0].bytes, modules[1].bytes], [range(0x10_4000, 0x10_4123), range(0x10_5000, 0x10_6000)]);
    assert_eq!(text(&machine, modules[0].command_line), b"m1 of 2\0");
    assert_eq!(text(&machine, modules[1].command_line), b"m2\0");
    assert_eq!(told.kernel(LOADED), range(MIB, LIST.into()));
}

#[test]
fn information_without_any_field_is_accepted() {
    let told = parse(&[0; 68]).unwrap();
    let mut machine = FakeMachine::new();
    assert!(told.command_line(&mut machine, LOADED).unwrap().is_empty());
    assert_eq!(told.modules(&mut machine, LOADED), Ok(Vec::new()));
    assert_eq!(told.kernel(LOADED), LOADED);
}

#[test]
fn information_that_is_too_short_is_refused() {
    assert_eq!(HostInfo::LEN, 68);
    let error = parse(&[0; 67]).err().unwrap();
    assert_eq!(error, Error::MultibootInfo { len: 67, needed: 68 });
    assert!(error.to_string().contains("has 67 bytes, 68 are needed"), "{error}");
}

#[test]
fn pointers_outside_of_what_the_host_has_loaded_are_refused() {
    let refused = |at: usize, value: u32, list: [[u32; 4]; 2]| {
        let mut machine = machine(list);
        // There is no NUL up to the end.
        machine.memory.store(LOADED.end().get() - 200, &[b'x'; 400]);
        let mut item = qemus();
        item[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let told = parse(&item).unwrap();
        let result = told.command_line(&mut machine, LOADED).and_then(|_| told.modules(&mut machine, LOADED));
        match result {
            Err(Error::MultibootPointer { what, at, loaded: LOADED }) => Some((what, at.get())),
            Err(error) => panic!("{error}"),
            Ok(_) => None,
        }
    };
    let end = LOADED.end().get() as u32;
    assert_eq!(refused(0, 0x24f, MODULES), None);
    for at in [0, MIB as u32 - 1, end, end - 1, end - 200, u32::MAX] {
        assert_eq!(refused(16, at, MODULES), Some(("command line", at.into())));
        assert_eq!(refused(64, at, MODULES), Some(("boot loader's name", at.into())));
        if at != end - 200 {
            assert_eq!(refused(24, at, MODULES), Some(("list of modules", at.into())));
        }
        let mut list = MODULES;
        if at != 0 {
            list[1][2] = at;
            assert_eq!(refused(0, 0x24f, list), Some(("command line of a module", at.into())));
        }
    }
    for count in [0x301, 0x1000_0000, u32::MAX] {
        assert_eq!(refused(20, count, MODULES), Some(("list of modules", LIST.into())), "{count:#x}");
    }
    for [start, past] in [[0, 1], [MIB as u32 - 1, MIB as u32 + 1], [end - 1, end + 1], [0x10_4001, 0x10_4000], [0, 0]]
    {
        let list = [MODULES[0], [start, past, 0, 0]];
        assert_eq!(refused(0, 0x24f, list), Some(("module", start.into())));
    }
    assert_eq!(refused(0, 0x24f, [[end, end, 0, 0]; 2]), None, "an empty module without a command line");
    let error = Error::MultibootPointer { what: "module", at: PhysAddr::new(0), loaded: LOADED };
    assert!(
        error
            .to_string()
            .contains("has the module at 0x0, which is not all in what the host has loaded, 0x100000-0x105fff")
    );
}

#[test]
fn every_information_field_has_its_value() {
    let mut map = host_map(&[(0, 512 * MIB), (4 * GIB, 5 * GIB)]);
    map.describe(range(5 * GIB, 6 * GIB), MemoryType::UNUSABLE).unwrap();
    map.reserve(range(510 * MIB, 511 * MIB), MemoryType::ACPI_RECLAIM).unwrap();
    map.reserve(range(511 * MIB, 512 * MIB), MemoryType::ACPI_NON_VOLATILE).unwrap();
    map.carve_pc().unwrap();
    let map = MemoryMap::new(map);
    let place = range(0x1_0000, 0x1_2000);
    let info = MultibootInfo::new(&parse(&qemus()).unwrap(), place, &map, None).unwrap();
    let bytes = info.bytes();
    assert!(bytes.len() as u64 <= place.len());
    let narrow = |at| number(bytes, at, 4);
    assert_eq!([0, 4, 8, 12].map(narrow), [0x24f, 639, 509 << 10, 0x8000_ffff]);
    assert_eq!([16, 20, 24, 64].map(narrow), [STRINGS.into(), 2, LIST.into(), u64::from(STRINGS) + 64]);
    assert!(bytes[28..44].iter().chain(&bytes[52..64]).chain(&bytes[68..116]).all(|&byte| byte == 0));

    let list = &bytes[(narrow(48) - place.start().get()) as usize..];
    let entries: Vec<_> = list[..narrow(44) as usize].chunks(24).collect();
    let told: Vec<_> = map.e820().map(|e| (20, e.addr.get(), e.size.get(), u64::from(e.kind.get()))).collect();
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| (number(entry, 0, 4), number(entry, 4, 8), number(entry, 12, 8), number(entry, 20, 4)))
        .collect();
    assert_eq!(seen, told);
    for kind in [1, 2, 3, 4, 5] {
        assert!(seen.iter().any(|entry| entry.3 == kind), "type {kind}");
    }
}

#[test]
fn the_kernel_gets_a_framebuffer_that_is_set_up() {
    let framebuffer = Framebuffer { memory: range(0xfd00_0000, 0xfe00_0000), mode: Mode::DEFAULT, function: None };
    let map = map(&[(0, GIB)]);
    let info = MultibootInfo::new(&parse(&[0; 68]).unwrap(), LOADED, &map, Some(&framebuffer)).unwrap();
    let bytes = info.bytes();
    assert_eq!(number(bytes, 0, 4), 1 << 12 | 1 << 6 | 1);
    assert_eq!(number(bytes, 88, 8), 0xfd00_0000);
    assert_eq!([96, 100, 104].map(|at| number(bytes, at, 4)), [4096, 1024, 768]);
    assert_eq!(bytes[108..116], [32, 1, 16, 8, 8, 8, 0, 8]);
}

#[test]
fn memory_is_counted_up_to_the_first_hole() {
    let sizes = |ram: &[(u64, u64)]| {
        let info = MultibootInfo::new(&parse(&[0; 68]).unwrap(), LOADED, &map(ram), None).unwrap();
        [4, 8].map(|at| number(info.bytes(), at, 4))
    };
    assert_eq!(sizes(&[(0, 8 * GIB)]), [640, (4 << 20) - 1024], "below 4 GiB");
    assert_eq!(sizes(&[(0, 0x8_7400), (MIB, 3 * MIB), (4 * MIB, 5 * MIB)]), [541, 2048]);
    assert_eq!(sizes(&[(0x1000, 0x9_0000), (2 * MIB, 3 * MIB)]), [0, 0]);
}

#[test]
fn unknown_fields_are_not_passed_on() {
    let all = [0xff; 88];
    let map = map(&[(0, GIB)]);
    let info = MultibootInfo::new(&parse(&all).unwrap(), LOADED, &map, None).unwrap();
    assert_eq!(number(info.bytes(), 0, 4), 0x24f);
    assert!(info.bytes()[28..44].iter().chain(&info.bytes()[68..116]).all(|&byte| byte == 0));
    let mut none = all;
    none[..4].fill(0);
    let info = MultibootInfo::new(&parse(&none).unwrap(), LOADED, &map, None).unwrap();
    assert_eq!(number(info.bytes(), 0, 4), 0x41);
    assert!(info.bytes()[12..44].iter().all(|&byte| byte == 0));
}

/// A pointer into what is loaded or a little to each side of it, or `likely`.
fn pointer(likely: u32) -> impl Strategy<Value = u32> {
    prop_oneof![Just(likely), 0xf_fff0_u32..0x10_6010]
}

/// An entry of the list of modules: random, or valid with a random end.
fn module_entry() -> impl Strategy<Value = [u32; 4]> {
    let sane = (0x10_3000_u32..0x10_4000, 0_u32..0x1000, prop_oneof![Just(0), Just(STRINGS + 64), Just(STRINGS + 69)]);
    let end = prop_oneof![2 => Just(None), 1 => (0x10_5ff0_u32..0x10_6010).prop_map(Some)];
    let sane =
        (sane, end).prop_map(|((start, len, command_line), end)| [start, end.unwrap_or(start + len), command_line, 0]);
    prop_oneof![sane, prop::array::uniform4(0xf_fff0_u32..0x10_6010)]
}

/// Everything that is accepted is in what the host has loaded. The test also checks that enough is accepted: lists, and
/// the strings in them.
#[test]
fn everything_accepted_is_inside_what_the_host_has_loaded() {
    let inputs = (
        prop::collection::vec(any::<u8>(), 68..90),
        any::<u32>(),
        (pointer(STRINGS), pointer(LIST), pointer(STRINGS + 64)),
        prop_oneof![0_u32..4, 0_u32..600],
        prop::array::uniform2(module_entry()),
    );
    let (lines, lists, names) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let count = |cell: &Cell<u32>, is_one: bool| cell.set(cell.get() + u32::from(is_one));
    // The same inputs in every run, because a share of them has to be accepted.
    let mut runner =
        TestRunner::new_with_rng(Config::with_cases(4096), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(&inputs, |(mut item, flags, pointers, number, list)| {
        for (at, value) in [(0, flags), (16, pointers.0), (20, number), (24, pointers.1), (64, pointers.2)] {
            item[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let mut machine = machine(list);
        let told = parse(&item).unwrap();
        if let Ok(command_line) = told.command_line(&mut machine, LOADED) {
            prop_assert!(LOADED.contains(command_line) && told.kernel(LOADED).start() == LOADED.start());
            count(&lines, !command_line.is_empty());
        }
        if let Ok(modules) = told.modules(&mut machine, LOADED) {
            prop_assert!(
                modules.iter().all(|module| LOADED.contains(module.bytes) && LOADED.contains(module.command_line))
            );
            count(&lists, !modules.is_empty());
            count(&names, modules.iter().any(|module| !module.command_line.is_empty()));
        }
        Ok(())
    });
    result.unwrap();
    let accepted = [lines, lists, names].map(Cell::into_inner);
    assert!(accepted.iter().all(|&count| count >= 30), "of 4096: {accepted:?}");
}
