//! Tests of root buses other than bus 0.

use super::*;
use crate::pci::register::{self, COMMAND_IO, COMMAND_MEMORY};

#[test]
fn each_root_keeps_its_bus_numbers() {
    let mut pci = FakePci::default();
    for (root, bridges) in [(0, 4), (3, 2)] {
        for number in 0..bridges {
            pci.add(On::Root(root), number, 0, port());
        }
    }
    let topology = scan(&mut pci, 1, ChipsetFunctions::default());
    assert_eq!(topology.buses().iter().map(|bus| bus.number).collect::<Vec<_>>(), [0, 3, 1, 2, 4, 5]);
    assert_eq!(topology.buses().iter().filter(|bus| bus.parent.is_none()).count(), 2);
    // Only buses 1 and 2 are free below root 3.
    assert_eq!(topology.functions().iter().filter(|f| f.bridge.is_some_and(|b| b.bus.is_none())).count(), 2);
}

fn roots(topology: &Topology) -> Vec<u8> {
    topology.buses().iter().filter(|bus| bus.parent.is_none()).map(|bus| bus.number).collect()
}

/// A machine with a device 0 on root bus 5, and root bus 200 without a device 0.
fn three_roots() -> FakePci {
    FakePci::default().with(ROOT, 1, 0, device(1)).with(On::Root(5), 0, 0, bridge(Some(0), true)).with(
        On::Root(200),
        31,
        0,
        device(2).bar(0, MEMORY, 12),
    )
}

#[test]
fn root_buses_are_searched_only_until_all_are_found() {
    let accesses = |extra| {
        let mut pci = three_roots();
        let topology = scan(&mut pci, extra, ChipsetFunctions::default());
        (roots(&topology), pci.accesses())
    };
    let (found, alone) = accesses(0);
    assert_eq!(found, [0]);
    // Device 0 of buses 1 to 5; then the bus itself, with its bridge's BARs and the bus behind it.
    let (found, one) = accesses(1);
    assert_eq!(found, [0, 5]);
    let bridge = 2 + 2 + 1 + 2 * 2 + 1 + 32;
    assert_eq!(one - alone, 5 + 32 + bridge);
    // Device 0 of the other buses, then devices 1 to 31 of those up to 200.
    let (found, two) = accesses(2);
    assert_eq!(found, [0, 5, 200]);
    assert!((250 + 31 * 198..250 + 31 * 199 + 64).contains(&(two - one)), "{two} {one}");
}

#[test]
fn a_host_with_fewer_roots_than_it_reports_does_not_stop_the_boot() {
    let mut pci = three_roots();
    let topology = scan(&mut pci, u64::MAX, ChipsetFunctions::default());
    assert_eq!(roots(&topology), [0, 5, 200]);
    assert!(pci.accesses() < 256 * 32 + 300, "each function 0 is read once: {}", pci.accesses());
    // Every bus answers.
    let mut mirrored = FakePci { mirrored: true, ..FakePci::default() }.with(ROOT, 0, 0, device(1));
    assert_eq!(scan(&mut mirrored, u64::MAX, ChipsetFunctions::default()).buses().len(), 256);
}

#[test]
fn functions_on_and_behind_other_roots_share_the_apertures() {
    let mut pci = FakePci::default();
    let first = pci.add(ROOT, 1, 0, device(1).bar(0, MEMORY, 20).bar(1, IO, 5).pin(1));
    let on_root = pci.add(On::Root(0x80), 2, 0, device(2).bar(0, MEMORY, 20).bar(1, IO, 5).pin(1));
    let port = pci.add(On::Root(0x80), 0, 0, port());
    let behind = pci.add(On::Behind(port), 0, 0, device(3).bar(0, MEMORY, 20).pin(2));
    let far = pci.add(On::Root(0x40), 0, 0, device(4).bar(0, WIDE, 34));
    let topology = scan(&mut pci, 2, ChipsetFunctions::default());
    let plan = plan(&topology, &windows()).unwrap();
    apply(&mut pci, &topology, &plan, &|device, pin| Some(device * 10 + pin.index() + 1));
    assert_eq!((plan.unassigned.len(), pci.misuse.len()), (0, 0));
    let taken: Vec<_> = [first, on_root, behind].map(|index| addresses(&pci, index)[0]).into();
    assert_eq!(taken, [0xc020_0000, 0xc030_0000, 0xc000_0000]);
    assert_eq!(addresses(&pci, far), [16 * GIB]);
    assert_eq!(pci.function(port).get(register::BUS_NUMBERS), 0x0081_8180);
    // QEMU describes to the guest what decodes on such a bus, and the windows of bridges.
    assert_eq!(pci.function(on_root).command() & 3, COMMAND_IO | COMMAND_MEMORY);
    assert_eq!(pci.function(port).windows()[1], Some((0xc000_0000, 0xc01f_ffff)));
    // Pins rotate up to the function's root bus: INTB# of device 0 behind device 0.
    assert_eq!([on_root, behind].map(|index| pci.function(index).get(register::INTERRUPT) & 0xff), [21, 2]);
}
