//! Tests of what a driver uses.

use super::*;
use crate::pci::Device;
use crate::pci::register::{COMMAND, COMMAND_IO, COMMAND_MASTER, COMMAND_MEMORY, COMMAND_SERR};

/// The class of a controller for NVMe disks.
const NVME: u32 = 0x01_0802;

fn nvme(id: u16) -> FakeFunction {
    FakeFunction::new(u32::from(id) << 16 | 0x1b36, NVME).bar(0, WIDE, 14)
}

fn devices(pci: &mut FakePci) -> Devices {
    let devices = configured(pci, ChipsetFunctions::default(), &windows, &|_, _| None);
    assert_eq!(pci.misuse, Vec::<alloc::string::String>::new());
    devices
}

fn with_class(devices: &Devices, class: u32) -> Vec<Device<'_>> {
    devices.iter().filter(|device| device.function.class == class).collect()
}

#[test]
fn a_driver_finds_its_function_by_class_and_its_bars_behind_a_bridge_and_above_4_gib() {
    let mut pci = FakePci::default();
    pci.add(ROOT, 1, 0, device(1).bar(0, WIDE, 34));
    let port = pci.add(ROOT, 2, 0, port());
    let behind = pci.add(On::Behind(port), 0, 0, nvme(0x10).bar(2, MEMORY, 12).bar(3, IO, 5));
    let devices = devices(&mut pci);
    let [nvme] = with_class(&devices, NVME)[..] else { panic!("one") };
    assert_eq!((nvme.function.address, nvme.function.id), (at(1, 0, 0), 0x0010_1b36));
    let [first, second, third] = addresses(&pci, behind)[..] else { panic!("three registers") };
    assert!(first >= 4 * GIB);
    assert_eq!(nvme.memory(0), Some(range(first, first + 0x4000)));
    assert_eq!(nvme.memory(2), Some(range(second, second + 0x1000)));
    assert_eq!(nvme.ports(3), PortRange::new(third as u32, third as u32 + 32));
    assert_eq!((nvme.memory(3), nvme.ports(0), nvme.memory(4)), (None, None, None), "of another kind, or absent");
    let bars: Vec<_> = nvme.bars().map(|(bar, address)| (bar.register, address)).collect();
    assert_eq!(bars, [(0, Some(first)), (2, Some(second)), (3, Some(third))]);
    let route = devices.route(&nvme).unwrap();
    assert_eq!(route.root, 0);
    assert_eq!(route.steps().collect::<Vec<_>>(), [at(0, 2, 0), at(1, 0, 0)]);
}

#[test]
fn a_function_that_is_turned_on_decodes_and_is_a_bus_master() {
    let mut pci = FakePci::default().with(ROOT, 1, 0, nvme(1).bar(2, IO, 5));
    let chipset = ChipsetFunction { id: 0x0001_1b36, class: NVME, ..chipset_function(1) };
    let chipset = ChipsetFunctions { functions: &[chipset], ..ChipsetFunctions::default() };
    let devices = configured(&mut pci, chipset, &windows, &|_, _| None);
    assert_eq!(pci.function(0).command(), 0, "chipset functions are left to their drivers");
    let device = devices.iter().next().unwrap();
    // Its error bits in STATUS stay.
    pci.nodes[0].function = pci.function(0).clone().set(COMMAND, 0xffff << 16);
    assert!(device.turn_on(&mut pci, COMMAND_MEMORY));
    assert_eq!(pci.function(0).command(), COMMAND_MEMORY | COMMAND_MASTER);
    assert!(device.turn_on(&mut pci, COMMAND_IO));
    assert_eq!(pci.function(0).command(), COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER);
    assert_eq!(pci.misuse, Vec::<alloc::string::String>::new());
}

#[test]
fn a_function_with_a_bar_without_an_address_is_not_turned_on_for_its_space() {
    let mut pci = FakePci::default().with(ROOT, 1, 0, nvme(1).bar(2, MEMORY, 31).bar(3, IO, 5).rom(31));
    let devices = devices(&mut pci);
    let device = devices.iter().next().unwrap();
    assert_eq!((device.memory(2), device.memory(Bar::ROM)), (None, None));
    assert!(device.bars().any(|(bar, address)| bar.register == 2 && address.is_none()));
    assert!(device.memory(0).is_some() && device.ports(3).is_some());
    let before = pci.accesses();
    for spaces in [COMMAND_MEMORY, COMMAND_MEMORY | COMMAND_IO] {
        assert!(!device.turn_on(&mut pci, spaces));
    }
    assert_eq!(pci.accesses(), before);
    assert!(device.turn_on(&mut pci, COMMAND_IO));
    assert_eq!(pci.function(0).command(), COMMAND_IO | COMMAND_MASTER | COMMAND_SERR);
}

#[test]
fn functions_come_in_the_order_of_discovery_and_are_accessible_in_configuration_space() {
    let mut pci = FakePci::default();
    let port = pci.add(ROOT, 1, 0, port());
    pci.add(On::Behind(port), 0, 0, nvme(1));
    pci.add(ROOT, 2, 0, nvme(2));
    let devices = devices(&mut pci);
    let found: Vec<_> = devices.iter().map(|device| device.function.address).collect();
    assert_eq!(found, [at(0, 1, 0), at(0, 2, 0), at(1, 0, 0)]);
    assert_eq!(devices.access(), ConfigAccess::Ports);
    assert_eq!(Devices::default().iter().count(), 0);
}
