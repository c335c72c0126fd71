//! Tests of what a scan finds, and how it numbers buses.

use super::*;
use crate::pci::register::{self, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, COMMAND_SERR};
use crate::pci::topology::{Function, IoWindow, PrefetchableWindow};

fn found(topology: &Topology) -> Vec<Address> {
    topology.functions().iter().map(|function| function.address).collect()
}

fn bus_numbers(pci: &FakePci, index: usize) -> [u8; 4] {
    pci.function(index).get(register::BUS_NUMBERS).to_le_bytes()
}

#[test]
fn functions_1_to_7_are_found_when_only_function_0_carries_the_multifunction_bit() {
    let mut pci = FakePci::default().with(ROOT, 3, 0, device(1).multifunction()).with(ROOT, 3, 2, device(2)).with(
        ROOT,
        3,
        7,
        device(3),
    );
    assert_eq!(found(&scan(&mut pci, 0, ChipsetFunctions::default())), [at(0, 3, 0), at(0, 3, 2), at(0, 3, 7)]);
}

#[test]
fn a_device_with_one_function_is_not_searched_for_more() {
    let mut alone = FakePci::default().with(ROOT, 3, 0, device(1));
    let mut shadowed = FakePci::default().with(ROOT, 3, 0, device(1)).with(ROOT, 3, 1, device(2));
    assert_eq!(found(&scan(&mut shadowed, 0, ChipsetFunctions::default())), [at(0, 3, 0)]);
    scan(&mut alone, 0, ChipsetFunctions::default());
    assert_eq!(alone.accesses(), shadowed.accesses());
}

#[test]
fn a_device_without_function_0_is_absent() {
    let mut pci = FakePci::default().with(ROOT, 3, 1, device(1)).with(ROOT, 31, 0, device(2));
    assert_eq!(found(&scan(&mut pci, 0, ChipsetFunctions::default())), [at(0, 31, 0)]);
    assert_eq!(scan(&mut FakePci::default(), 0, ChipsetFunctions::default()).functions().len(), 0);
}

#[test]
fn one_device_is_searched_behind_a_port_and_32_behind_other_bridges() {
    let reads = |function: FakeFunction| {
        let mut pci = FakePci::default().with(ROOT, 1, 0, function);
        scan(&mut pci, 0, ChipsetFunctions::default());
        pci.reads
    };
    let plain = reads(bridge(Some(0), true));
    // Two capabilities, and the pointer to them.
    for kind in [4, 6] {
        assert_eq!(reads(bridge(Some(0), true).express(kind)), plain - 31 + 3, "kind {kind}");
    }
    for kind in [0, 5, 7] {
        assert_eq!(reads(bridge(Some(0), true).express(kind)), plain + 3, "kind {kind}");
    }
}

#[test]
fn the_walk_of_a_circular_capability_list_ends() {
    let tail =
        bridge(Some(0), true).set(register::COMMAND, 1 << 20).set(register::CAPABILITIES, 0x40).set(0x40, 0x4005);
    let mut pci = FakePci::default().with(ROOT, 1, 0, tail);
    assert_eq!(scan(&mut pci, 0, ChipsetFunctions::default()).buses().len(), 2);
}

#[test]
fn buses_are_numbered_depth_first() {
    let mut pci = FakePci::default();
    let first = pci.add(ROOT, 1, 0, bridge(Some(0), true).set(register::BUS_NUMBERS, 0x4000_0000));
    let nested = pci.add(On::Behind(first), 2, 0, bridge(Some(0), true));
    let deepest = pci.add(On::Behind(nested), 3, 0, bridge(Some(0), true));
    let beside = pci.add(On::Behind(first), 4, 0, bridge(Some(0), true));
    let second = pci.add(ROOT, 5, 0, port());
    pci.add(On::Behind(deepest), 0, 0, device(1));
    pci.add(On::Behind(second), 0, 0, device(2));
    let topology = scan(&mut pci, 0, ChipsetFunctions::default());
    assert_eq!(bus_numbers(&pci, first), [0, 1, 4, 0x40]);
    assert_eq!(bus_numbers(&pci, nested), [1, 2, 3, 0]);
    assert_eq!(bus_numbers(&pci, deepest), [2, 3, 3, 0]);
    assert_eq!(bus_numbers(&pci, beside), [1, 4, 4, 0]);
    assert_eq!(bus_numbers(&pci, second), [0, 5, 5, 0]);
    assert_eq!(topology.buses().iter().map(|bus| bus.number).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert!(found(&topology).contains(&at(3, 0, 0)) && found(&topology).contains(&at(5, 0, 0)));
    assert!(pci.misuse.is_empty(), "{:?}", pci.misuse);
}

#[test]
fn old_bus_numbers_do_not_conflict() {
    let mut pci = FakePci::default();
    let first = pci.add(ROOT, 1, 0, port());
    let stale = pci.add(ROOT, 2, 0, port().set(register::BUS_NUMBERS, 0x00ff_0100));
    pci.add(On::Behind(first), 0, 0, device(1));
    pci.add(On::Behind(stale), 0, 0, device(2));
    let topology = scan(&mut pci, 0, ChipsetFunctions::default());
    assert_eq!(found(&topology), [at(0, 1, 0), at(0, 2, 0), at(1, 0, 0), at(2, 0, 0)]);
    assert!(pci.misuse.is_empty(), "{:?}", pci.misuse);
}

#[test]
fn bars_are_sized() {
    let function = device(1).bar(0, IO, 5).bar(1, MEMORY, 12).bar(2, WIDE, 14).bar(4, WIDE_PLAIN, 35);
    let mut pci = FakePci::default().with(ROOT, 1, 0, function);
    let topology = scan(&mut pci, 0, ChipsetFunctions::default());
    let bar = |register, kind, order| Bar { register, kind, order };
    let expected = [bar(0, IO, 5), bar(1, MEMORY, 12), bar(2, WIDE, 14), bar(4, WIDE_PLAIN, 35)];
    assert_eq!(topology.functions()[0].bars.as_slice(), expected);
}

#[test]
fn a_16_bit_port_decoder_is_sized() {
    let function = device(1).set(0x10, 1).writable(0x10, 0xffe0);
    let topology = scan(&mut FakePci::default().with(ROOT, 1, 0, function), 0, ChipsetFunctions::default());
    assert_eq!(topology.functions()[0].bars.as_slice(), [Bar { register: 0, kind: IO, order: 5 }]);
}

#[test]
fn a_bar_smaller_than_the_smallest_size_gets_the_smallest() {
    // The kind, the writable bits, and the expected BAR. The smallest size is 16 bytes, or 4 ports.
    let prefetchable = 8;
    for (kind, writable, expected) in [
        (0, 0xffff_ffff, (MEMORY, 4)),
        (0, 0xffff_fffe, (MEMORY, 4)),
        (0, 0xffff_fffc, (MEMORY, 4)),
        (0, 0xffff_fff8, (MEMORY, 4)),
        (0, 0xffff_fff0, (MEMORY, 4)),
        (prefetchable, 0xffff_fff0, (MEMORY_PREFETCHABLE, 4)),
        (4, 0xffff_fff0, (WIDE_PLAIN, 4)),
        (4 | prefetchable, 0xffff_fff0, (WIDE, 4)),
        (1, 0xffff_fffe, (IO, 2)),
        (1, 0xffff_fffc, (IO, 2)),
    ] {
        let upper = if kind & 4 != 0 { u32::MAX } else { 0 };
        let function = device(1).set(0x10, kind).writable(0x10, writable).writable(0x14, upper).bar(2, MEMORY, 12);
        let mut pci = FakePci::default().with(ROOT, 1, 0, function);
        let (topology, plan) = set_up(&mut pci, &windows());
        let (kind_found, order) = expected;
        let bars = [Bar { register: 0, kind: kind_found, order }, Bar { register: 2, kind: MEMORY, order: 12 }];
        assert_eq!(topology.functions()[0].bars.as_slice(), bars, "{kind:#x} {writable:#x}");
        assert_eq!(u64::from(pci.function(0).get(0x10)), plan.assigned[0].address | u64::from(kind));
        assert_eq!(pci.function(0).command() & 3, COMMAND_IO | COMMAND_MEMORY);
    }
}

#[test]
fn a_bar_of_a_reserved_kind_takes_32_bits() {
    for (kind, writable, expected) in
        [(0x2, 0xffff_f000, (MEMORY, 12)), (0x6, 0xffff_f000, (MEMORY, 12)), (0x3, 0xffff_ff00, (IO, 8))]
    {
        let function = device(1).set(0x10, kind).writable(0x10, writable);
        let topology = scan(&mut FakePci::default().with(ROOT, 1, 0, function), 0, ChipsetFunctions::default());
        let (kind, order) = expected;
        assert_eq!(topology.functions()[0].bars.as_slice(), [Bar { register: 0, kind, order }]);
    }
}

#[test]
fn sizing_takes_more_accesses_only_if_the_kind_may_be_hidden() {
    let accesses = |kind, order| {
        let mut pci = FakePci::default().with(ROOT, 1, 0, device(1).bar(0, kind, order));
        scan(&mut pci, 0, ChipsetFunctions::default());
        pci.accesses()
    };
    for kind in [MEMORY, MEMORY_PREFETCHABLE, WIDE] {
        assert_eq!(accesses(kind, 4), accesses(kind, 5) + 2, "{kind:?}");
    }
    assert_eq!(accesses(IO, 2), accesses(IO, 5));
}

#[test]
fn ide_channels_at_legacy_ports_have_no_bars() {
    for (interface, expected) in
        [(0x80, [4].as_slice()), (0x81, &[0, 1, 4]), (0x84, &[2, 3, 4]), (0x85, &[0, 1, 2, 3, 4])]
    {
        let function = (0..5).fold(FakeFunction::new(0x7010_8086, 0x01_0100 | interface), |f, bar| f.bar(bar, IO, 4));
        let topology = scan(
            &mut FakePci::default().with(ROOT, 1, 1, function).with(ROOT, 1, 0, device(1).multifunction()),
            0,
            ChipsetFunctions::default(),
        );
        let registers: Vec<_> = topology.functions()[1].bars.iter().map(|bar| bar.register).collect();
        assert_eq!(registers, expected, "{interface:#x}");
    }
}

/// The ISA bridge of a `pc` is device 1, that of a q35 device 31.
#[test]
fn chipset_bridges_are_not_read_but_the_other_functions_are() {
    for isa in [1, 31] {
        let board = ChipsetFunctions {
            host_bridge: Some(at(0, 0, 0)),
            isa_bridge: Some(at(0, isa, 0)),
            ..ChipsetFunctions::default()
        };
        let mut pci = FakePci::default()
            .with(ROOT, 0, 0, device(1))
            .with(ROOT, isa, 0, device(2).multifunction())
            .with(ROOT, isa, 7, device(3))
            .with(ROOT, 2, 0, device(4))
            .with(ROOT, 30, 0, bridge(Some(0), true))
            .with(On::Behind(4), 0, 0, device(5))
            .with(On::Behind(4), isa, 0, device(6));
        let mut expected = [at(0, isa, 7), at(0, 2, 0), at(0, 30, 0), at(1, 0, 0), at(1, isa, 0)];
        expected.sort_unstable();
        assert_eq!(found(&scan(&mut pci, 0, board)), expected);
    }
}

#[test]
fn host_and_isa_bridges_are_only_read() {
    for class in [0x06_0000, 0x06_0100] {
        let function = FakeFunction::new(0x29c0_8086, class).bar(0, MEMORY, 12).set(register::COMMAND, 7);
        let mut pci = FakePci::default().with(ROOT, 0, 0, function);
        set_up(&mut pci, &windows());
        assert_eq!((pci.writes, pci.function(0).command()), (0, 7));
    }
}

#[test]
fn functions_of_other_header_types_are_not_set_up_but_their_neighbours_are() {
    let cardbus = device(1).set(register::HEADER, 2 << 16).multifunction();
    let mut pci = FakePci::default().with(ROOT, 1, 0, cardbus).with(ROOT, 1, 1, device(2));
    assert_eq!(found(&scan(&mut pci, 0, ChipsetFunctions::default())), [at(0, 1, 1)]);
}

#[test]
fn a_function_that_decodes_is_disabled_and_enabled_again() {
    let running = COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER;
    let function = device(1).bar(0, MEMORY, 12).bar(1, IO, 4).set(register::COMMAND, running.into());
    let mut pci = FakePci::default().with(ROOT, 1, 0, function.clone());
    set_up(&mut pci, &windows());
    assert_eq!(pci.function(0).command(), running | COMMAND_SERR);
    // A function with a BAR without an address is not enabled for it.
    let mut pci = FakePci::default().with(ROOT, 1, 0, function.bar(2, MEMORY, 31));
    set_up(&mut pci, &windows());
    assert_eq!(pci.function(0).command(), COMMAND_IO | COMMAND_MASTER | COMMAND_SERR);
}

#[test]
fn windows_are_probed_only_if_something_behind_needs_them() {
    let looked = |function: FakeFunction| {
        let mut pci = FakePci::default().with(ROOT, 1, 0, bridge(Some(1), true)).with(On::Behind(0), 1, 0, function);
        let bridge = scan(&mut pci, 0, ChipsetFunctions::default()).functions()[0].bridge.unwrap();
        (bridge.io, bridge.prefetchable, pci.remaps)
    };
    let (no_io, no_prefetchable) = (IoWindow::Absent, PrefetchableWindow::Absent);
    assert_eq!(looked(device(1).bar(0, MEMORY, 12).bar(1, WIDE_PLAIN, 12)), (no_io, no_prefetchable, 0));
    assert_eq!(looked(device(1).bar(0, IO, 4)), (IoWindow::Bits32, no_prefetchable, 1));
    assert_eq!(looked(device(1).bar(0, WIDE, 12)), (no_io, PrefetchableWindow::Bits64, 0));
    assert_eq!(looked(device(1).bar(0, MEMORY_PREFETCHABLE, 12)), (no_io, PrefetchableWindow::Bits64, 0));
}

#[test]
fn interrupt_pins_rotate_at_each_bridge() {
    let mut pci = FakePci::default();
    let outer = pci.add(ROOT, 3, 0, bridge(Some(0), true).pin(1).set(register::INTERRUPT, 0xab_0000));
    let inner = pci.add(On::Behind(outer), 2, 0, bridge(Some(0), true));
    let leaf = pci.add(On::Behind(inner), 5, 0, device(1).pin(4));
    let silent = pci.add(ROOT, 4, 0, device(2));
    let odd = pci.add(ROOT, 5, 0, device(3).pin(9));
    let same = pci.add(ROOT, 6, 0, device(4).pin(2).set(register::INTERRUPT, 62));
    let topology = scan(&mut pci, 0, ChipsetFunctions::default());
    let plan = plan(&topology, &windows()).unwrap();
    let before = pci.writes;
    apply(&mut pci, &topology, &plan, &|device, pin| Some(device * 10 + pin.index() + 1));
    // INTD# is 3; 3 + 5 + 2 = 10, which is INTC# at device 3 of the root bus.
    assert_eq!(pci.function(leaf).get(register::INTERRUPT), 0x421);
    assert_eq!(pci.function(outer).get(register::INTERRUPT), 0xab_011f);
    assert_eq!(pci.function(silent).get(register::INTERRUPT), 0);
    assert_eq!(pci.function(odd).get(register::INTERRUPT), 0x900);
    assert_eq!(pci.function(same).get(register::INTERRUPT), 0x23e);
    // Two lines, and two bridges that are enabled, with three windows each that are closed. A line that is already right is not
    // written.
    assert_eq!(pci.writes - before, 2 + 2 * 4);
    assert_eq!(Pin::D.turned(5), Pin::A);
    assert_eq!(Pin::A.turned(255), Pin::D);
}

#[test]
fn the_data_of_a_function_is_small() {
    // The heap is 128 KiB, and there can be 512 of them.
    assert!(size_of::<Function>() <= 68, "{}", size_of::<Function>());
}
