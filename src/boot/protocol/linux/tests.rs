//! The `setup_data` nodes that a kernel reads besides `boot_params`.

extern crate std;

use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use uefi_raw::table::boot::MemoryType;
use zerocopy::FromBytes;

use super::boot_params::E820_ENTRIES;
use super::setup_data::{SETUP_DTB, SETUP_E820_EXT};
use super::setup_header::tests::debian_with;
use super::*;
use crate::addr::PhysRange;
use crate::boot::extras::Needs;
use crate::fakes::machine::FakeMachine;
use crate::memory_map::HostMap;
use crate::memory_map::{E820Entry, MemoryMap};

const MIB: u64 = 1 << 20;
/// The protected-mode part by its header, and the setup code in front of it.
const KERNEL: u64 = 0xd8_2200;
const SETUP: u64 = 0x5000;
/// The address that the host's pointers assume.
const HOST: u64 = MIB;
const SETUP_RNG_SEED: u32 = 9;

fn node(next: u64, kind: u32, data: &[u8]) -> Vec<u8> {
    [&next.to_le_bytes()[..], &kind.to_le_bytes(), &(data.len() as u32).to_le_bytes(), data].concat()
}

fn host_map() -> HostMap {
    let mut map = HostMap::default();
    map.describe(PhysRange::new(PhysAddr::new(0), 512 * MIB).unwrap(), MemoryType::CONVENTIONAL).unwrap();
    map.carve_pc().unwrap();
    map
}

fn map() -> MemoryMap {
    MemoryMap::new(host_map())
}

/// Plans and loads a kernel with `appended` behind it. The header points to `first`. Returns the machine and the
/// address of the first node.
fn load(first: u64, appended: &[u8]) -> (FakeMachine, u64, LoadPlan) {
    let header = SetupHeader::parse(&debian_with(&[(0x250, &first.to_le_bytes())])).unwrap();
    assert_eq!((header.kernel_len(), u64::from(header.setup_len())), (KERNEL, SETUP), "Debian's kernel");
    let needs = Needs { kernel: KERNEL + appended.len() as u64, initrd: 5 << 20, initrd_at: None, command_line: 1 };
    let mut map = map();
    let before = map.clone();
    let plan = plan(&header, &needs, Some(PhysAddr::new(HOST)), &mut map).unwrap();
    let mut machine = FakeMachine::new();
    machine.memory.store(plan.kernel.start().get() + KERNEL, appended);
    let place = plan.appended.unwrap().place;
    assert!(before.is_free(place) && !map.is_free(place), "{place}");
    for other in [plan.kernel_run, plan.initrd.unwrap(), plan.command_line, plan.boot_params] {
        assert!(!other.overlaps(place), "{place}");
    }
    let first = plan.appended.unwrap().copy(&mut machine, &header, plan.kernel).unwrap();
    (machine, first, plan)
}

/// Follows the list as the kernel does.
fn list(machine: &FakeMachine, mut next: u64) -> Vec<(u32, Vec<u8>)> {
    let mut nodes = Vec::new();
    while next != 0 {
        assert!(nodes.len() < 100, "the list does not end");
        let number = |at: u64, len| {
            machine.memory.bytes(at, len).iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
        };
        let len = number(next + 12, 4) as usize;
        nodes.push((number(next + 8, 4) as u32, machine.memory.bytes(next + 16, len)));
        next = number(next, 8);
    }
    nodes
}

fn tree(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 11 + 7) as u8).collect()
}

/// QEMU 7.2 appends a device tree. 7.2.0 also appends a seed, which comes first in the list.
#[test]
fn a_list_of_several_nodes_is_copied_whole() {
    let tree = tree(4001);
    let mut appended = node(0, SETUP_DTB, &tree);
    appended.resize(appended.len().next_multiple_of(16), 0);
    let second = HOST + KERNEL + appended.len() as u64;
    appended.extend(node(HOST + KERNEL, SETUP_RNG_SEED, &[0x5a; 32]));
    let (machine, first, plan) = load(second, &appended);
    assert_eq!(list(&machine, first), [(SETUP_RNG_SEED, vec![0x5a; 32]), (SETUP_DTB, tree)]);
    // The kernel is unchanged when it is measured.
    assert_eq!(machine.memory.bytes(plan.kernel.start().get() + KERNEL, appended.len()), appended);
}

/// QEMU 10: the pointer counts from the beginning of the file.
#[test]
fn a_pointer_that_counts_the_setup_code_is_adjusted() {
    for len in [40, 40_000] {
        let tree = tree(len);
        let (machine, first, _) = load(HOST + KERNEL + SETUP, &node(0, SETUP_DTB, &tree));
        assert_eq!(list(&machine, first), [(SETUP_DTB, tree)], "{len}");
    }
}

#[test]
fn an_incomplete_node_is_left_out_and_the_others_are_kept() {
    let seed = |next| node(next, SETUP_RNG_SEED, &[1; 16]);
    let whole = vec![(SETUP_RNG_SEED, vec![1; 16])];
    for next in [1, HOST + KERNEL + 32, HOST + KERNEL + 17, u64::MAX, HOST - 1] {
        let (machine, first, _) = load(HOST + KERNEL, &seed(next));
        assert_eq!(list(&machine, first), whole, "{next:#x}");
    }
    // Longer than the appended data.
    let mut long = seed(0);
    long[12..16].copy_from_slice(&17_u32.to_le_bytes());
    assert_eq!(load(HOST + KERNEL, &long).1, 0);
    // A node that is its own successor.
    let (machine, first, _) = load(HOST + KERNEL, &seed(HOST + KERNEL));
    assert_eq!(list(&machine, first), whole);
}

/// Pointers to other memory, into the setup code or the kernel, and past the end; cases without appended data, with an
/// item that is not the host's, and with an item shorter than the kernel.
#[test]
fn a_list_that_the_host_has_not_appended_is_left_out() {
    let end = HOST + KERNEL + 100 + SETUP;
    let with_100 = [1, 0x7000, HOST - 1, HOST, HOST + 0x1000, HOST + KERNEL - 1, end, u64::MAX];
    let cases = with_100.map(|first| (first, KERNEL + 100, Some(HOST)));
    let others = [(KERNEL, Some(HOST)), (KERNEL - 15, Some(HOST)), (KERNEL + 100, None)];
    let others = others.map(|(kernel, host)| (HOST + KERNEL, kernel, host));
    for (first, kernel, host) in cases.into_iter().chain(others) {
        let header = SetupHeader::parse(&debian_with(&[(0x250, &first.to_le_bytes())])).unwrap();
        let needs = Needs { kernel, command_line: 1, ..Needs::default() };
        let mut map = map();
        let plan = plan(&header, &needs, host.map(PhysAddr::new), &mut map).unwrap();
        assert_eq!(plan.appended, None, "{first:#x} {kernel:#x}");
        assert_eq!(BootParams::new(&header, &plan, &map, None).unwrap().setup_data(), 0, "{first:#x} {kernel:#x}");
    }
}

/// A map with `count` entries above 4 GiB.
fn map_of(count: u64) -> MemoryMap {
    let mut map = host_map();
    for i in 0..count {
        let range = PhysRange::new(PhysAddr::new((4 << 30) + (i * 2 + 1) * MIB), MIB).unwrap();
        map.describe(range, MemoryType::RESERVED).unwrap();
    }
    MemoryMap::new(map)
}

fn params(map: &mut MemoryMap, header: &SetupHeader) -> Box<BootParams> {
    let plan = plan(header, &Needs { kernel: KERNEL, ..Needs::default() }, None, map).unwrap();
    BootParams::new(header, &plan, map, None).unwrap()
}

#[test]
fn entries_beyond_the_room_in_boot_params_are_in_a_node() {
    let header = SetupHeader::parse(&debian_with(&[])).unwrap();
    let others = map().e820().count() as u64;
    for more in [0, 1, 60] {
        let mut map = map_of(E820_ENTRIES as u64 - others + more);
        let expected: Vec<_> = map.e820().collect();
        let mut machine = FakeMachine::new();
        let mut params = params(&mut map, &header);
        // There is another node already.
        machine.memory.store(0x7000, &node(0, SETUP_RNG_SEED, &[1; 16]));
        params.set_setup_data(0x7000);
        e820_ext::add(&mut machine, &mut map, &header, &mut params).unwrap();
        assert_eq!(params.bytes()[0x1e8], 128);
        let mut nodes = list(&machine, params.setup_data());
        assert_eq!(nodes.pop(), Some((SETUP_RNG_SEED, vec![1; 16])));
        let told = nodes.pop().map_or(Vec::new(), |(kind, data)| {
            assert_eq!(kind, SETUP_E820_EXT);
            data
        });
        assert!(nodes.is_empty());
        let all = [&params.bytes()[0x2d0..0xcd0], &told].concat();
        let all: Vec<_> = all.chunks(20).map(|entry| E820Entry::read_from_bytes(entry).unwrap()).collect();
        assert_eq!(all, expected, "{more}");
        assert_eq!(map.e820().collect::<Vec<_>>(), expected, "the node is in RAM");
    }
}

#[test]
fn a_kernel_without_setup_data_gets_the_first_entries() {
    let header = SetupHeader::parse(&debian_with(&[(0x206, &[8, 2])])).unwrap();
    let mut map = map_of(150);
    let mut params = params(&mut map, &header);
    e820_ext::add(&mut FakeMachine::new(), &mut map, &header, &mut params).unwrap();
    assert_eq!(params.setup_data(), 0);
    assert_eq!(params.bytes()[0x1e8], 128);
}

proptest! {
    #[test]
    fn whatever_is_appended_the_list_ends_in_what_was_copied(
        first in HOST + KERNEL..HOST + KERNEL + SETUP + 600,
        appended in proptest::collection::vec(prop_oneof![4 => Just(0_u8), 1 => any::<u8>()], 1..600),
        links in proptest::collection::vec((0_usize..600, 0_u64..700), 0..6),
    ) {
        let mut appended = appended;
        for (at, to) in links {
            if let Some(field) = appended.get_mut(at..at + 8) {
                field.copy_from_slice(&(HOST + KERNEL + to).to_le_bytes());
            }
        }
        // One past the item is not the host's.
        prop_assume!(first < HOST + KERNEL + appended.len() as u64 + SETUP);
        let (machine, first, plan) = load(first, &appended);
        let place = plan.appended.unwrap().place;
        let mut next = first;
        for _ in 0..=setup_data::MOST_NODES {
            if next == 0 {
                return Ok(());
            }
            prop_assert!(place.contains(PhysRange::new(PhysAddr::new(next), 16).unwrap()), "{next:#x} in {place}");
            next = u64::from_le_bytes(machine.memory.bytes(next, 8).try_into().unwrap());
        }
        prop_assert!(false, "the list does not end");
    }
}
