//! Tests of the number of accesses: each is an exit to the host, and some make it rebuild its memory map.

use core::cell::Cell;

use super::*;
use crate::pci::register;

/// The chipset functions of q35.
const ICH9: [ChipsetFunction; 2] = [
    ChipsetFunction {
        address: Address::new(0, 31, 2).unwrap(),
        id: 0x2922_8086,
        class: 0x01_0601,
        pin: Some(Pin::A),
        bars: &[Bar { register: 4, kind: IO, order: 5 }, Bar { register: 5, kind: MEMORY, order: 12 }],
    },
    ChipsetFunction {
        address: Address::new(0, 31, 3).unwrap(),
        id: 0x2930_8086,
        class: 0x0c_0500,
        pin: Some(Pin::A),
        bars: &[Bar { register: 4, kind: IO, order: 6 }],
    },
];

/// QEMU's q35 with its default devices: VGA, e1000e, and the ICH9 functions.
fn q35() -> FakePci {
    let function = |id, class| FakeFunction::new(id, class);
    FakePci::default()
        .with(ROOT, 0, 0, function(0x29c0_8086, 0x06_0000))
        .with(ROOT, 1, 0, function(0x1111_1234, 0x03_0000).bar(0, MEMORY, 24).bar(2, MEMORY, 12).rom(16))
        .with(
            ROOT,
            2,
            0,
            function(0x10d3_8086, 0x02_0000)
                .bar(0, MEMORY, 17)
                .bar(1, MEMORY, 17)
                .bar(2, IO, 5)
                .bar(3, MEMORY, 14)
                .rom(18)
                .pin(1),
        )
        .with(ROOT, 31, 0, function(0x2918_8086, 0x06_0100).multifunction())
        .with(ROOT, 31, 2, function(0x2922_8086, 0x01_0601).bar(4, IO, 5).bar(5, MEMORY, 12).pin(1))
        .with(ROOT, 31, 3, function(0x2930_8086, 0x0c_0500).bar(4, IO, 6).pin(1))
}

#[test]
fn the_default_machine_takes_a_known_number_of_accesses() {
    let mut pci = q35();
    let (host_bridge, isa_bridge) = (Address::new(0, 0, 0), Address::new(0, 31, 0));
    let board = ChipsetFunctions { host_bridge, isa_bridge, functions: &ICH9, is_qemu: true };
    let devices = configured(&mut pci, board, &windows, &|_, _| Some(10));
    assert_eq!((devices.topology.buses().len(), devices.iter().count()), (1, 4));
    assert_eq!((devices.resources.assigned.len(), devices.resources.unassigned.len()), (11, 0));
    assert_eq!(devices.resources.above_4_gib(), range(0, 0));
    // Reads: 37 slots and functions; class, header, command and interrupt of the 2 that are not chipset functions; 12 BARs and 2
    // ROMs. Writes: these BARs and ROMs to size, 11 addresses, 3 interrupt lines, 2 commands.
    assert_eq!((pci.reads, pci.writes, pci.remaps), (37 + 2 * 4 + 12 + 2, 14 + 11 + 3 + 2, 2));
    // Six of the placed BARs: four of e1000e and both of AHCI.
    assert_eq!(pci.pairs, 3);
}

#[test]
fn of_qemu_s_chipset_functions_only_the_id_is_read() {
    let function = FakeFunction::new(5 << 16 | 0x1af4, 0x0c_0500).bar(0, MEMORY, 12).bar(4, IO, 5).pin(2);
    let bars = &[Bar { register: 4, kind: IO, order: 5 }];
    let described = ChipsetFunction { class: 0x0c_0500, pin: Some(Pin::B), bars, ..chipset_function(5) };
    let accesses = |pci: FakePci, own: ChipsetFunction, is_qemu| {
        let mut pci = pci;
        let topology =
            scan(&mut pci, 0, ChipsetFunctions { functions: &[own], is_qemu, ..ChipsetFunctions::default() });
        (topology.functions().to_vec(), pci.accesses())
    };
    let (none, slots) = accesses(FakePci::default(), described, true);
    assert_eq!(none, [], "an absent function");
    let there = || FakePci::default().with(ROOT, 5, 0, function.clone());
    let (known, of_qemu) = accesses(there(), described, true);
    assert_eq!(of_qemu, slots);
    // On another host, or with another function at that address, the function is sized, and has one more BAR.
    for (own, is_qemu) in [(described, false), (ChipsetFunction { id: 6, ..described }, true)] {
        let (mut asked, others) = accesses(there(), own, is_qemu);
        assert!(others > slots);
        assert_eq!(asked[0].bars.remove(0), Bar { register: 0, kind: MEMORY, order: 12 });
        assert_eq!(asked, known);
    }
}

/// The apertures above RAM are only calculated if they are needed.
#[test]
fn all_apertures_are_calculated_only_if_the_low_ones_do_not_suffice() {
    let calls = |function: Option<FakeFunction>| {
        let mut pci = q35();
        if let Some(function) = function {
            pci.add(ROOT, 5, 0, function);
        }
        let calls = Cell::new(0);
        let counted = || {
            calls.set(calls.get() + 1);
            windows()
        };
        let devices = configured(&mut pci, ChipsetFunctions::default(), &counted, &|_, _| None);
        assert_eq!(devices.resources.unassigned, []);
        calls.get()
    };
    assert_eq!(calls(None), 0);
    assert_eq!(calls(Some(device(1).bar(0, WIDE, 34))), 1, "more than the aperture below 4 GiB");
    assert_eq!(calls(Some(port())), 1, "a bridge");
}

#[test]
fn an_empty_port_takes_a_known_number_of_accesses() {
    let mut pci = q35();
    set_up(&mut pci, &windows());
    let before = (pci.reads, pci.writes, pci.remaps);
    let mut pci = q35().with(ROOT, 3, 0, port());
    set_up(&mut pci, &windows());
    // Reads: class, header, interrupt, command, bus numbers, 3 for capabilities, 2 BARs, 1 device behind it.
    // Writes: 2 BARs, bus numbers, 3 windows to close.
    assert_eq!((pci.reads - before.0, pci.writes - before.1, pci.remaps - before.2), (11, 6, 3));
}

#[test]
fn a_port_with_a_disk_takes_a_known_number_of_accesses() {
    let mut pci = q35();
    set_up(&mut pci, &windows());
    let before = (pci.reads, pci.writes, pci.remaps);
    let mut pci = q35().with(ROOT, 3, 0, port());
    pci.add(On::Behind(6), 0, 0, FakeFunction::new(0x10_1b36, 0x01_0802).bar(0, WIDE_PLAIN, 14).pin(1));
    set_up(&mut pci, &windows());
    // The port; the disk and its ROM; the windows for memory and prefetchable memory, the command that enables them, and the
    // command of the disk.
    let after = (pci.reads - before.0, pci.writes - before.1, pci.remaps - before.2);
    assert_eq!(after, (11 + 4 + 5 + 2 + 1, 3 + 5 + 2 + 1 + 3 + 1, 4));
    assert_eq!(pci.function(6).get(register::PREFETCHABLE_WINDOW) & 0xfff0_fff0, 0xfff0);
}

#[test]
fn an_empty_slot_takes_a_known_number_of_accesses() {
    let mut pci = q35();
    set_up(&mut pci, &windows());
    let before = (pci.reads, pci.writes, pci.remaps);
    let mut pci = q35().with(ROOT, 3, 0, port().slot().pin(1));
    configured(&mut pci, ChipsetFunctions::default(), &windows, &|_, _| Some(10));
    // As an empty port. In addition the prefetchable window and its upper halves are read, the windows and the command are
    // written, and the interrupt lines of this and three others. Writing the line of a bridge does not touch its control
    // register.
    let after = (pci.reads - before.0, pci.writes - before.1, pci.remaps - before.2);
    assert_eq!(after, (11 + 1 + 2, 3 + 2 + 1 + 4, 3));
}
