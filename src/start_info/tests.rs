//! Tests with valid and invalid data of hosts.

extern crate std;

use core::cell::Cell;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::fakes::machine::FakeMachine;

/// The addresses that Cloud Hypervisor and Firecracker use (`arch/src/x86_64/layout.rs` of both).
const AT: u64 = 0x6000;
const MODULES: u64 = 0x6040;
const MAP: u64 = 0x7000;
const COMMAND_LINE: u64 = 0x2_0000;

fn words(fields: &[u32]) -> Vec<u8> {
    fields.iter().flat_map(|field| field.to_le_bytes()).collect()
}

fn wide(fields: &[u64]) -> Vec<u8> {
    fields.iter().flat_map(|field| field.to_le_bytes()).collect()
}

/// A structure of this version with two modules, a command line, and a map of `entries` entries.
fn info(version: u32, modules: u32, command_line: u64, entries: u32) -> Vec<u8> {
    let end = words(&[entries, 0]);
    [words(&[0x336e_c578, version, 0, modules]), wide(&[MODULES, command_line, 0xe_0000, MAP]), end].concat()
}

/// A machine with this structure in memory.
fn machine(info: &[u8]) -> FakeMachine {
    let mut machine = FakeMachine::new();
    machine.has_page_zero = true;
    machine.memory.store(AT, info);
    machine.memory.store(MODULES, &wide(&[0x200_0000, 0x1234, 0, 0, 0x300_0000, 0x20, 0, 0]));
    machine
        .memory
        .store(MAP, &[wide(&[0, 0xa_0000]), words(&[1, 0]), wide(&[1 << 20, 63 << 20]), words(&[1, 0])].concat());
    machine.memory.store(COMMAND_LINE, b"console=ttyS0 quiet\0never");
    machine
}

fn read(machine: &mut FakeMachine) -> Result<StartInfo, Error> {
    StartInfo::read(machine, PhysAddr::new(AT))
}

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

#[test]
fn all_parts_are_read() {
    let info = read(&mut machine(&info(1, 2, COMMAND_LINE, 2))).unwrap();
    let seen: Vec<_> =
        info.memory_map.iter().map(|entry| (entry.addr.get(), entry.size.get(), entry.kind.get())).collect();
    assert_eq!(seen, [(0, 0xa_0000, 1), (1 << 20, 63 << 20, 1)]);
    assert_eq!(info.command_line, b"console=ttyS0 quiet");
    assert_eq!(info.modules[..], [range(0x200_0000, 0x1234), range(0x300_0000, 0x20)]);
    assert_eq!(info.rsdp, Some(PhysAddr::new(0xe_0000)));
}

#[test]
fn absent_parts_are_not_read() {
    let bytes = [words(&[0x336e_c578, 1, 0, 0]), wide(&[0, 0, 0, 0]), words(&[0, 0])].concat();
    assert_eq!(read(&mut machine(&bytes)), Ok(StartInfo::default()));
    // Version 0 ends before the memory map; the following bytes are not part of it.
    let old = read(&mut machine(&info(0, 2, COMMAND_LINE, u32::MAX))).unwrap();
    assert_eq!((old.memory_map.len(), old.modules.len(), old.rsdp), (0, 2, Some(PhysAddr::new(0xe_0000))));
}

#[test]
fn a_structure_without_the_magic_number_is_refused() {
    let mut bytes = info(1, 0, 0, 0);
    bytes[0] ^= 1;
    let error = read(&mut machine(&bytes)).unwrap_err();
    assert_eq!(error, Error::NoMagic { at: PhysAddr::new(AT), seen: 0x336e_c579 });
    assert!(error.to_string().contains("EBX is 0x6000, where there is 0x336ec579"), "{error}");
}

#[test]
fn parts_in_the_firmwares_memory_are_refused() {
    let at = |at| StartInfo::read(&mut machine(&[]), PhysAddr::new(at)).unwrap_err();
    for start in [0, 0x3f8, 0x4_0000, 0x9_dff0, 0xfff8_0000, 1 << 32, u64::MAX] {
        assert!(matches!(at(start), Error::Unreachable { part: Part::StartInfo, .. }), "{start:#x}");
    }
    let command_line = read(&mut machine(&info(1, 0, 0x5_0000, 0))).unwrap_err();
    assert!(
        command_line.to_string().contains("the command line is at 0x50000-0x500ff, where the firmware"),
        "{command_line}"
    );
    for (start, size) in [(0x9_fbff, 1), (0xf9_f000, 0x1001), (0x1000, 0x4_0000)] {
        let mut machine = machine(&info(1, 1, 0, 0));
        machine.memory.store(MODULES, &wide(&[start, size, 0, 0]));
        assert_eq!(read(&mut machine), Err(Error::ModuleOverFirmware { module: range(start, size) }), "{start:#x}");
    }
}

#[test]
fn a_memory_map_in_page_zero_is_read() {
    let mut bytes = info(1, 0, 0, 1);
    bytes[40..48].copy_from_slice(&0x5a8_u64.to_le_bytes());
    let mut machine = machine(&bytes);
    machine.memory.store(0x5a8, &[wide(&[0, 0xa_0000]), words(&[1, 0])].concat());
    assert_eq!(read(&mut machine).unwrap().memory_map.len(), 1, "as QEMU's pvh.bin has it");
}

#[test]
fn parts_that_are_too_long_are_refused() {
    let error = read(&mut machine(&info(1, 0, 0, 1025))).unwrap_err();
    assert_eq!(error, Error::TooManyEntries { count: 1025, limit: 1024 });
    let with_line = |len: usize| {
        let mut machine = machine(&info(1, 0, 0x100_0001, 0));
        machine.memory.store(0x100_0001, &vec![b'x'; len]);
        read(&mut machine).map(|info| info.command_line.len())
    };
    assert_eq!(with_line(0x1_0000), Ok(0x1_0000));
    assert_eq!(with_line(0x1_0001), Err(Error::CommandLineTooLong { at: PhysAddr::new(0x100_0001), limit: 0x1_0000 }));
    // Just before the firmware's own memory.
    let mut last = machine(&info(1, 0, 0x3_fffc, 0));
    last.memory.store(0x3_fffc, b"end\0");
    assert_eq!(read(&mut last).unwrap().command_line, b"end");
}

#[test]
fn surplus_and_empty_modules_are_ignored() {
    let mut machine = machine(&info(1, 1000, 0, 0));
    let module = |i: u64| [0x200_0000 + i * 0x1000, i, 0, 0];
    machine.memory.store(MODULES, &wide(&(0..1000).flat_map(module).collect::<Vec<_>>()));
    let modules = read(&mut machine).unwrap().modules;
    assert_eq!(modules.len(), MOST_MODULES - 1, "the first is empty");
    assert_eq!(modules[0], range(0x200_1000, 1));
    machine.memory.store(MODULES, &wide(&[u64::MAX, 2, 0, 0]));
    assert!(matches!(read(&mut machine), Err(Error::ModuleWraps { .. })));
}

#[test]
fn image_and_modules_are_reserved_and_stay_ram() {
    let mut map = HostMap::default();
    map.describe(range(0, 64 << 20), MemoryType::CONVENTIONAL).unwrap();
    let before: Vec<_> = map.e820().collect();
    read(&mut machine(&info(1, 2, 0, 0))).unwrap().reserve(&mut map).unwrap();
    for held in [layout::LOADED_IMAGE, range(0x200_0000, 0x2000), range(0x300_0000, 0x1000)] {
        assert!(map.is_ram(held) && !map.is_free(range(held.end().get() - 1, 1)), "{held}");
        assert!(map.is_free(range(held.end().get(), 1)));
    }
    assert_eq!(map.e820().collect::<Vec<_>>(), before);
}

/// A 64-bit address: of present data, in the low 32 KiB, or any.
fn pointer(likely: u64) -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(likely), 2 => 0_u64..0x8000, 1 => any::<u64>()]
}

/// A number of entries: a few, or any.
fn entries() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 0_u32..8, 1 => any::<u32>()]
}

/// No data of a host makes the firmware fail except with an error, and everything that is read is within bounds. The test also
/// checks that enough inputs are read: structures, and those with a map, modules and a command line.
#[test]
fn any_structure_is_read_or_refused() {
    let module = (pointer(0x200_0000), prop_oneof![3 => 0_u64..0x10_0000, 1 => any::<u64>()]);
    let inputs = (
        prop_oneof![9 => Just(0x336e_c578), 1 => any::<u32>()],
        (0_u32..3, entries(), entries()),
        (pointer(MODULES), pointer(COMMAND_LINE), any::<u64>(), pointer(MAP)),
        prop::collection::vec(module, 0..8),
        prop::collection::vec(any::<u8>(), 0..400),
    );
    let (read, whole) = (Cell::new(0), Cell::new(0));
    // The same inputs in every run, because a share of them has to be read.
    let mut runner =
        TestRunner::new_with_rng(Config::with_cases(1024), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(&inputs, |(magic, (version, modules, entries), pointers, list, rubbish)| {
        let mut machine = machine(&[]);
        let pointers = wide(&[pointers.0, pointers.1, pointers.2, pointers.3]);
        machine.memory.store(AT, &[words(&[magic, version, 0, modules]), pointers, words(&[entries, 0])].concat());
        machine.memory.store(MODULES, &wide(&list.iter().flat_map(|&(at, len)| [at, len, 0, 0]).collect::<Vec<_>>()));
        machine.memory.store(0x1000, &rubbish);
        if let Ok(info) = StartInfo::read(&mut machine, PhysAddr::new(AT)) {
            let own = |module: &PhysRange| module.overlaps(layout::BOOT_RAM) || module.overlaps(layout::LOADED_IMAGE);
            prop_assert!(
                info.memory_map.len() <= MOST_ENTRIES as usize && info.command_line.len() <= MOST_COMMAND_LINE
            );
            prop_assert!(info.modules.iter().all(|module| !module.is_empty() && !own(module)));
            let is_whole =
                [info.memory_map.len(), info.modules.len(), info.command_line.len()].iter().all(|&len| len > 0);
            read.set(read.get() + 1);
            whole.set(whole.get() + u32::from(is_whole));
        }
        Ok(())
    });
    result.unwrap();
    let read = [read, whole].map(Cell::into_inner);
    assert!(read.iter().all(|&count| count >= 30), "of 1024: {read:?}");
}
