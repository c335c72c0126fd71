extern crate std;

use std::vec;
use std::vec::Vec;

use super::table::{FloatingPointer, Processor};
use super::*;
use crate::checksum;
use crate::fakes::fw_cfg::FakeFwCfg;
use crate::fakes::machine::FakeMachine;
use crate::hal::Cpuid;
use crate::memory_map::{HostMap, MemoryMap};
use crate::pci::Pin;
use crate::platform::none::{FOREIGN, NO_PCI};
use crate::platform::pc::Pc;
use crate::platform::q35::Q35;
use crate::start_info::Start;

const TABLE_HEADER: usize = 44;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The entries of a table, each as its bytes, as a kernel parses them.
fn entries(table: &[u8]) -> Vec<Vec<u8>> {
    assert_eq!((&table[..4], table.len()), (b"PCMP".as_slice(), usize::from(u16_at(table, 4))));
    assert_eq!(checksum::sum(table), 0);
    let (mut rest, mut entries) = (&table[TABLE_HEADER..], Vec::new());
    while !rest.is_empty() {
        let len = if rest[0] == 0 { 20 } else { 8 };
        let (entry, next) = rest.split_at(len);
        entries.push(entry.to_vec());
        rest = next;
    }
    assert_eq!(entries.len(), usize::from(u16_at(table, 34)));
    assert!(entries.is_sorted_by_key(|entry| entry[0]), "sorted by kind");
    entries
}

fn build(board: &dyn Board) -> Vec<Vec<u8>> {
    let processors = [Processor::new(4, true, 0x14, 0x663, 0x1ff), Processor::new(7, false, 0x14, 0x663, 0x1ff)];
    entries(&table::build(&processors, board).unwrap())
}

fn of_kind(entries: &[Vec<u8>], kind: u8) -> Vec<&[u8]> {
    entries.iter().filter(|entry| entry[0] == kind).map(Vec::as_slice).collect()
}

#[test]
fn every_cpu_is_listed_with_its_identifier() {
    let entries = build(NO_PCI);
    let cpus: Vec<_> =
        of_kind(&entries, 0).iter().map(|cpu| (cpu[1], cpu[3], u32_at(cpu, 4), u32_at(cpu, 8))).collect();
    assert_eq!(cpus, [(4, 0b11, 0x663, 0x1ff), (7, 0b01, 0x663, 0x1ff)]);
}

#[test]
fn without_pci_there_is_only_the_isa_bus() {
    let entries = build(NO_PCI);
    assert_eq!(of_kind(&entries, 1), [b"\x01\x00ISA   "]);
    assert_eq!(of_kind(&entries, 2), [[2, 0, 0x20, 1, 0, 0, 0xc0, 0xfe]]);
    // The timer goes to input 2, every other interrupt to the input of its number.
    let lines: Vec<_> = of_kind(&entries, 3).iter().map(|entry| (entry[5], entry[7])).collect();
    let expected: Vec<_> = [(0, 2), (1, 1)].into_iter().chain((3..16).map(|line| (line, line))).collect();
    assert_eq!(lines, expected);
    assert_eq!(of_kind(&entries, 4), [[4, 3, 0, 0, 0, 0, 0xff, 0], [4, 1, 0, 0, 0, 0, 0xff, 1]]);
}

#[test]
fn pci_pins_have_the_routes_of_the_chipset() {
    for board in [&Pc as &dyn Board, &Q35] {
        let entries = build(board);
        assert_eq!(of_kind(&entries, 1), [b"\x01\x00PCI   ", b"\x01\x01ISA   "]);
        let (pci, isa): (Vec<_>, Vec<_>) = of_kind(&entries, 3).into_iter().partition(|entry| entry[4] == 0);
        assert_eq!(pci.len(), 31 * 4);
        for entry in pci {
            let pin = Pin::from_register((entry[5] & 3) + 1).unwrap();
            assert_eq!(board.interrupt(entry[5] >> 2, pin), Some(entry[7]), "{entry:?}");
            assert_eq!(u16_at(entry, 2), 0b1101, "level, active high");
        }
        // No input has two trigger modes.
        assert!(isa.iter().all(|entry| ![10, 11].contains(&entry[7])), "{isa:?}");
        assert!(isa.iter().any(|entry| entry[5] == 4), "the serial port");
    }
}

/// A machine with one CPU and 128 MiB, and its map.
fn machine() -> (FakeMachine, FwCfg, MemoryMap) {
    let mut machine = FakeMachine::new().with(FakeFwCfg::new(true).with_item(5, &1u16.to_le_bytes()));
    machine.cpuid.insert((1, 0), Cpuid { ebx: 9 << 24, eax: 0x663, edx: 0x3ff, ..Cpuid::default() });
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let mut map = HostMap::default();
    map.describe(PhysRange::new(PhysAddr::new(0), 128 << 20).unwrap(), MemoryType::CONVENTIONAL).unwrap();
    (machine, fw_cfg, MemoryMap::new(map))
}

fn load_table(machine: &mut FakeMachine, fw_cfg: &FwCfg, map: &mut MemoryMap, board: &dyn Board) {
    load(&mut Boot { machine, fw_cfg, map, start: &Start::Reset }, board);
}

#[test]
fn a_kernel_finds_the_table() {
    let (mut machine, fw_cfg, mut map) = machine();
    machine.memory.store(LOCAL_APIC_VERSION.get(), &[0x11, 0, 5, 0]);
    load_table(&mut machine, &fw_cfg, &mut map, NO_PCI);
    let pointer = machine.memory.bytes(POINTER.get(), 16);
    assert_eq!((&pointer[..4], checksum::sum(&pointer)), (b"_MP_".as_slice(), 0));
    let at = u32_at(&pointer, 4).into();
    let len = u16_at(&machine.memory.bytes(at, 6), 4);
    let table = machine.memory.bytes(at, len.into());
    assert_eq!(of_kind(&entries(&table), 0).iter().map(|cpu| (cpu[1], cpu[2])).collect::<Vec<_>>(), [(9, 0x11)]);
    let place = PhysRange::new(PhysAddr::new(at), len.into()).unwrap();
    assert!(!map.is_ram(place), "it is reserved");
}

#[test]
fn a_signature_left_from_before_a_reset_does_not_suppress_the_table() {
    let (mut machine, fw_cfg, mut map) = machine();
    machine.memory.store(POINTER.get(), b"_MP_ left behind");
    load_table(&mut machine, &fw_cfg, &mut map, NO_PCI);
    let pointer = machine.memory.bytes(POINTER.get(), 16);
    assert_eq!((&pointer[..4], checksum::sum(&pointer)), (b"_MP_".as_slice(), 0));
    assert_eq!(machine.memory.bytes(u32_at(&pointer, 4).into(), 4), b"PCMP");
}

#[test]
fn without_ram_for_the_table_there_is_no_pointer() {
    let (mut machine, fw_cfg, _) = machine();
    load_table(&mut machine, &fw_cfg, &mut MemoryMap::default(), &Q35);
    assert_eq!(machine.memory.bytes(POINTER.get(), 16), vec![0; 16]);
}

#[test]
fn without_a_local_apic_there_is_no_table() {
    let (mut machine, fw_cfg, mut map) = machine();
    machine.cpuid.insert((1, 0), Cpuid { edx: 0x1ff, ..Cpuid::default() });
    let before = map.clone();
    load_table(&mut machine, &fw_cfg, &mut map, NO_PCI);
    assert_eq!((machine.memory.bytes(POINTER.get(), 16), map), (vec![0; 16], before));
}

#[test]
fn a_board_that_is_not_qemus_gets_no_table() {
    let (mut machine, fw_cfg, mut map) = machine();
    let before = map.clone();
    load_table(&mut machine, &fw_cfg, &mut map, FOREIGN);
    assert_eq!((machine.memory.bytes(POINTER.get(), 16), map), (vec![0; 16], before));
}

#[test]
fn a_pointer_to_4_gib_or_above_is_refused() {
    assert!(FloatingPointer::to(PhysAddr::new(0xffff_fff0)).is_some());
    assert!(FloatingPointer::to(PhysAddr::new(1 << 32)).is_none());
}
