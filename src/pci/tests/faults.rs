//! Tests of impossible hierarchies.

use super::*;
use crate::pci::register::{self, COMMAND_MEMORY};
use crate::pci::scan::{MAX_DEPTH, MAX_FUNCTIONS};

#[test]
fn a_bar_with_an_invalid_size_mask_is_cleared_and_the_next_is_found() {
    // Bits 0 to 3 of the BAR, and the writable bits.
    let odd = [
        (0x0, 0xffff_0f00u32),
        (0x0, 0x0000_fff0),
        (0x1, 0xff00_ff00),
        (0x2, 0xff0f_f000),
        (0x3, 0xff0f_ff00),
        (0x6, 0x0fff_f000),
        (0x0, 0x0000_fffe),
    ];
    for (bits, mask) in odd {
        let function = device(1).set(0x10, bits).writable(0x10, mask).bar(1, MEMORY, 12).set(register::COMMAND, 2);
        let mut pci = FakePci::default().with(ROOT, 1, 0, function);
        let (topology, _) = set_up(&mut pci, &windows());
        let registers: Vec<_> = topology.functions()[0].bars.iter().map(|bar| bar.register).collect();
        assert_eq!(registers, [1], "{bits:#x} {mask:#x}");
        assert_eq!(pci.function(0).get(0x10), bits);
        assert_eq!(pci.function(0).command() & COMMAND_MEMORY, 0, "it decoded before, but must not with such a BAR");
    }
}

#[test]
fn a_64_bit_bar_needs_its_upper_half() {
    // The last BAR has no upper half. An upper half that is missing or has holes is not valid either.
    let last = device(1).set(0x24, 4).writable(0x24, 0xffff_f000);
    let empty = device(1).set(0x10, 4);
    let holes = device(1).set(0x10, 4).writable(0x14, 0x0f0f_0000);
    for (function, cleared) in [(last, 0x24), (empty, 0x10), (holes, 0x14)] {
        let mut pci = FakePci::default().with(ROOT, 1, 0, function);
        let (topology, _) = set_up(&mut pci, &windows());
        assert!(topology.functions()[0].bars.is_empty());
        assert_eq!(pci.function(0).get(cleared) & !0xf, 0);
    }
    // A bridge has two BARs; the bus numbers follow.
    let mut pci = FakePci::default().with(ROOT, 1, 0, port().set(0x14, 4).writable(0x14, 0xffff_f000));
    let (topology, _) = set_up(&mut pci, &windows());
    assert!(topology.functions()[0].bars.is_empty());
    assert_eq!(pci.function(0).get(register::BUS_NUMBERS), 0x0001_0100);
}

#[test]
fn a_scan_of_bridges_behind_themselves_ends() {
    for function in [port(), bridge(Some(0), true)] {
        let mut pci = FakePci { mirrored: true, ..FakePci::default() };
        pci.add(ROOT, 0, 0, function.clone());
        let topology = scan(&mut pci, 0, ChipsetFunctions::default());
        assert_eq!(topology.buses().len(), MAX_DEPTH);

        let mut pci = FakePci { mirrored: true, ..FakePci::default() };
        pci.add(ROOT, 0, 0, function.multifunction());
        pci.add(ROOT, 0, 1, port().bar(0, MEMORY, 12));
        let topology = scan(&mut pci, 0, ChipsetFunctions::default());
        assert_eq!((topology.buses().len(), topology.functions().len()), (256, MAX_FUNCTIONS));
        plan(&topology, &windows()).unwrap();
    }
}

#[test]
fn bridges_nested_beyond_the_limit_stay_closed() {
    let mut pci = FakePci::default();
    let mut on = ROOT;
    for _ in 0..MAX_DEPTH + 3 {
        on = On::Behind(pci.add(on, 0, 0, port()));
    }
    let topology = scan(&mut pci, 0, ChipsetFunctions::default());
    assert_eq!(topology.buses().len(), MAX_DEPTH);
    assert_eq!(topology.functions().len(), MAX_DEPTH);
    assert_eq!(pci.function(MAX_DEPTH - 1).get(register::BUS_NUMBERS), 0);
}

#[test]
fn bridges_without_a_free_bus_number_stay_closed() {
    let mut pci = FakePci::default();
    for slot in 0..32 {
        for number in 0..8 {
            let port = pci.add(ROOT, slot, number, if number == 0 { port().multifunction() } else { port() });
            pci.add(On::Behind(port), 0, 0, device(1).bar(0, MEMORY, 12));
        }
    }
    let (topology, plan) = set_up(&mut pci, &windows());
    assert_eq!(topology.buses().len(), 256);
    assert_eq!(topology.functions().len(), 256 + 255);
    assert_eq!(plan.assigned.len(), 255);
    assert_eq!(pci.function(510).get(register::BUS_NUMBERS), 0);
}

#[test]
fn functions_beyond_the_limit_are_not_set_up() {
    let mut pci = FakePci::default();
    pci.add(ROOT, 0, 0, bridge(Some(0), true));
    pci.add(On::Behind(0), 0, 0, bridge(Some(0), true));
    for (bus, on) in [ROOT, On::Behind(0), On::Behind(1)].into_iter().enumerate() {
        for slot in 1..32 {
            for number in 0..8 {
                let function = device(bus as u16).bar(0, MEMORY, 12).set(register::COMMAND, COMMAND_MEMORY.into());
                pci.add(on, slot, number, if number == 0 { function.multifunction() } else { function });
            }
        }
    }
    let topology = scan(&mut pci, 0, ChipsetFunctions::default());
    assert_eq!(topology.functions().len(), MAX_FUNCTIONS);
    let running = pci.nodes.iter().filter(|node| node.function.command() & COMMAND_MEMORY != 0).count();
    assert_eq!(running, pci.nodes.len() - MAX_FUNCTIONS);
}

/// Two devices that decode, one of them behind a port.
fn two_running() -> FakePci {
    let running = |id| device(id).bar(0, MEMORY, 12).bar(1, IO, 5).bar(2, WIDE, 14).pin(1).set(register::COMMAND, 7);
    FakePci::default().with(ROOT, 1, 0, port().bar(0, MEMORY, 12)).with(On::Behind(0), 0, 0, running(1)).with(
        ROOT,
        2,
        0,
        running(2),
    )
}

#[test]
fn a_machine_that_disappears_at_any_access_does_not_stop_the_boot() {
    let mut whole = two_running();
    set_up(&mut whole, &windows());
    for moment in 0..=whole.accesses() {
        let mut pci = FakePci { dies_after: Some(moment), ..two_running() };
        let topology = scan(&mut pci, 0, ChipsetFunctions::default());
        let plan = plan(&topology, &windows()).unwrap();
        apply(&mut pci, &topology, &plan, &|_, _| Some(10));
        assert_eq!(pci.misuse, Vec::<alloc::string::String>::new(), "after {moment}");
    }
}
