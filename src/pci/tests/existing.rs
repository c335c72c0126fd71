//! Tests of the search on a machine whose host has set up PCI.

use super::*;
use crate::pci::{Device, existing, register};

const DISK: u32 = 0x01_0000;

fn is_disk(_: u32, class: u32) -> bool {
    class == DISK
}

fn disk() -> FakeFunction {
    FakeFunction::new(0x1042_1af4, DISK)
}

fn find(pci: &mut FakePci) -> Devices {
    let devices = existing(pci, ConfigAccess::Ports, is_disk);
    assert_eq!(pci.writes, 0, "the host has set it up");
    devices
}

fn found(devices: &Devices) -> Vec<Address> {
    devices.iter().map(|device| device.function.address).collect()
}

fn bridge_to(secondary: u32, subordinate: u32) -> FakeFunction {
    bridge(None, true).set(register::BUS_NUMBERS, secondary << 8 | subordinate << 16)
}

#[test]
fn functions_are_where_the_host_has_put_them() {
    let mut pci = FakePci::default();
    let function = disk()
        .bar(0, WIDE_PLAIN, 14)
        .set(0x10, 0x1234_8000)
        .set(0x14, 0x80)
        .bar(2, MEMORY, 12)
        .set(0x18, 0xc000_3000)
        .bar(3, IO, 5)
        .set(0x1c, 0x6000)
        .bar(4, MEMORY, 30)
        .set(0x20, 0xc000_0000)
        .bar(5, MEMORY, 12);
    pci.add(ROOT, 0, 0, device(1));
    pci.add(ROOT, 3, 0, function.multifunction());
    pci.add(ROOT, 3, 5, device(2).bar(0, MEMORY, 12).set(0x10, 0xd000_0000));
    let devices = find(&mut pci);
    assert_eq!(found(&devices), [at(0, 0, 0), at(0, 3, 0), at(0, 3, 5)]);
    let [_, function, other]: [Device<'_>; 3] = devices.iter().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(function.memory(0), Some(range(0x80_1234_8000, 0x80_1235_0000)));
    assert_eq!(function.memory(2), Some(range(0xc000_3000, 0xc000_4000)));
    assert_eq!(function.memory(4), Some(range(0xc000_0000, 0xc010_0000)), "as large as the limit");
    assert_eq!((function.memory(1), function.memory(3), function.memory(5)), (None, None, None));
    assert_eq!(other.bars().count(), 0, "nobody wants its BARs");
    assert!(function.may_decode(register::COMMAND_MEMORY));
}

#[test]
fn functions_behind_bridges_have_a_route() {
    let mut pci = FakePci::default();
    let outer = pci.add(ROOT, 1, 0, bridge_to(2, 3));
    let inner = pci.add(On::Behind(outer), 4, 0, bridge_to(3, 3));
    pci.add(On::Behind(inner), 5, 0, disk());
    pci.add(ROOT, 2, 0, bridge_to(0, 0));
    let devices = find(&mut pci);
    assert_eq!(found(&devices), [at(0, 1, 0), at(0, 2, 0), at(2, 4, 0), at(3, 5, 0)]);
    let device = devices.iter().last().unwrap();
    let route = devices.route(&device).unwrap();
    assert_eq!(route.steps().collect::<Vec<_>>(), [at(0, 1, 0), at(2, 4, 0), at(3, 5, 0)]);
    assert_eq!((route.root, route.root_index), (0, 0));
}

#[test]
fn a_search_of_bridges_behind_themselves_ends() {
    let mut pci = FakePci { mirrored: true, ..FakePci::default() };
    pci.add(ROOT, 1, 0, bridge_to(1, 255));
    pci.add(ROOT, 2, 0, bridge_to(2, 255));
    pci.add(ROOT, 3, 0, disk());
    let devices = find(&mut pci);
    assert_eq!(found(&devices).len(), 9, "buses 0, 1 and 2");
    let mut pci = FakePci { mirrored: true, ..FakePci::default() };
    for device in 0..32 {
        pci.add(ROOT, device, 0, bridge_to(u32::from(device) + 1, 255).multifunction());
        for number in 1..8 {
            pci.add(ROOT, device, number, disk());
        }
    }
    let devices = find(&mut pci);
    assert_eq!(found(&devices).len(), crate::pci::scan::MAX_FUNCTIONS);
    assert!(pci.reads < 20_000, "{} reads", pci.reads);
}

#[test]
fn a_machine_without_pci_has_no_functions() {
    let devices = find(&mut FakePci::default());
    assert_eq!(found(&devices), []);
}
