use std::boxed::Box;
use std::rc::Rc;
use std::string::ToString;
use std::vec;
use std::vec::Vec;

use core::cell::RefCell;

use super::*;
use crate::fakes::machine::{FakeMachine, FakeMemory, FakeRegisters};
use crate::fakes::nvme::{FakeNamespace, FakeNvme, NvmeRegisters};
use crate::fakes::pci::{FakeFunction, FakePci, FakeWindow, On};
use crate::pci::register::COMMAND_MASTER;
use crate::pci::{
    Apertures, BarKind, ChipsetFunctions, EcamWindow, HostBridge, LongestAccess, LowApertures, PortRange, configure,
};

const ROOT: On = On::Root(0);
const WINDOW: u64 = 0xb000_0000;
const WIDE: BarKind = BarKind::Memory64 { prefetchable: true };
const ACCESS: ConfigAccess =
    ConfigAccess::Ecam(EcamWindow { range: range(WINDOW, 256 << 20), longest: LongestAccess::Dword });

const fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

fn virtio_disk(id: u32) -> FakeFunction {
    FakeFunction::new(id, 0x01_0000).bar(4, WIDE, 14)
}

fn network_card() -> FakeFunction {
    FakeFunction::new(0x1000_1af4, 0x02_0000).bar(4, WIDE, 14)
}

fn nvme() -> FakeFunction {
    FakeFunction::new(0x0010_1b36, 0x01_0802).bar(0, WIDE, 14)
}

/// A machine whose PCI the firmware has set up.
fn set_up(pci: FakePci, extra_roots: u64) -> (FakeMachine, Devices, Rc<RefCell<FakePci>>) {
    let pci = Rc::new(RefCell::new(pci));
    let mut machine = FakeMachine::new();
    machine.registers.push(Box::new(FakeWindow { pci: pci.clone(), start: WINDOW, longest: 4 }));
    let low = LowApertures::new(PortRange::ALL, range(0xc000_0000, 0x3ec0_0000));
    let host = HostBridge {
        extra_roots,
        chipset: ChipsetFunctions::default(),
        low,
        apertures: &|| Apertures::new(low, Some(range(1 << 32, 1 << 36)), 40),
        routing: &|_, _| None,
    };
    let devices = ACCESS.with(&mut machine, |config| configure(config, ACCESS, &host));
    (machine, devices, pci)
}

fn names(candidates: &[Candidate]) -> Vec<std::string::String> {
    candidates.iter().map(ToString::to_string).collect()
}

#[test]
fn the_candidates_are_the_controllers_of_disks_in_the_order_of_discovery() {
    let mut pci = FakePci::default();
    let port = pci.add(ROOT, 1, 0, FakeFunction::port(0xc_1b36, 4));
    pci.add(On::Behind(port), 0, 0, virtio_disk(0x1042_1af4));
    pci.add(ROOT, 2, 0, network_card());
    pci.add(ROOT, 3, 0, virtio_disk(0x1001_1af4));
    pci.add(ROOT, 4, 0, virtio_disk(0x1004_1af4));
    pci.add(ROOT, 5, 0, virtio_disk(0x1048_1af4));
    pci.add(ROOT, 6, 0, nvme());
    // Without a driver: IDE of pc, VMware's SCSI, SD cards, USB, and SATA that is no AHCI.
    let others = [(0x7010_8086, 0x01_0180), (0x07c0_15ad, 0x01_0000), (0x7_1b36, 0x08_0501), (0xd_1b36, 0x0c_0330)];
    for (device, (id, class)) in (7..).zip(others.into_iter().chain([(0x2920_8086, 0x01_0600)])) {
        pci.add(ROOT, device, 0, FakeFunction::new(id, class));
    }
    pci.add(ROOT, 0x1f, 2, FakeFunction::new(0x2922_8086, 0x01_0601));
    pci.add(ROOT, 0x1f, 0, FakeFunction::new(0x2918_8086, 0x06_0100).multifunction());
    pci.add(On::Root(0x40), 0, 0, virtio_disk(0x1042_1af4));
    let (mut machine, devices, pci) = set_up(pci, 1);
    let accesses = pci.borrow().accesses();
    let found = find(&mut machine, &devices, false);
    assert_eq!(pci.borrow().accesses(), accesses, "the scan has found all of it");
    let on_bus_0 = [
        "virtio disk at 00:03.0",
        "virtio SCSI at 00:04.0",
        "virtio SCSI at 00:05.0",
        "NVMe at 00:06.0",
        "AHCI at 00:1f.2",
    ];
    assert_eq!(names(&found), [&on_bus_0[..], &["virtio disk at 40:00.0", "virtio disk at 01:00.0"]].concat());
    let places: Vec<_> = found
        .iter()
        .map(|candidate| match candidate.place {
            Place::Pci(Function { route, .. }) => (route.root, route.root_index, route.steps().count()),
            Place::Slot(_) => panic!("a PCI function"),
        })
        .collect();
    assert_eq!(places[4..], [(0, 0, 1), (0x40, 1, 1), (0, 0, 2)]);
    assert!(found.iter().all(|candidate| candidate.room() != 0));
}

#[test]
fn a_function_that_cannot_be_started_is_left_as_it_was() {
    // It has no capabilities.
    let (mut machine, devices, pci) = set_up(FakePci::default().with(ROOT, 1, 0, virtio_disk(0x1042_1af4)), 0);
    let before = pci.borrow().function(0).command();
    assert_eq!(before & COMMAND_MASTER, 0);
    let [candidate] = find(&mut machine, &devices, false)[..] else { panic!("one") };
    let error = Started::start(&mut machine, &candidate, range(0x100_0000, candidate.room())).err();
    assert!(matches!(error, Some(Error::Broken(_))), "{error:?}");
    assert_eq!(pci.borrow().function(0).command(), before);
}

#[test]
fn a_function_without_an_address_is_not_turned_on() {
    let disk = virtio_disk(0x1042_1af4).bar(0, BarKind::Memory32 { prefetchable: false }, 31);
    let (mut machine, devices, pci) = set_up(FakePci::default().with(ROOT, 1, 0, disk), 0);
    let [candidate] = find(&mut machine, &devices, false)[..] else { panic!("one") };
    let accesses = pci.borrow().accesses();
    let error = Started::start(&mut machine, &candidate, range(0x100_0000, candidate.room())).err();
    assert_eq!(error, Some(Error::Broken("it has no address for all of its registers")));
    assert_eq!(pci.borrow().accesses(), accesses);
}

#[test]
fn more_candidates_than_the_limit_are_left_alone() {
    let mut pci = FakePci::default();
    for device in 0..31 {
        for number in 0..3 {
            let function = virtio_disk(0x1042_1af4);
            pci.add(ROOT, device, number, if number == 0 { function.multifunction() } else { function });
        }
    }
    let (mut machine, devices, _) = set_up(pci, 0);
    let found = find(&mut machine, &devices, false);
    assert_eq!(found.len(), MOST);
    assert_eq!(found[63].to_string(), "virtio disk at 00:15.0");
}

#[test]
fn a_controller_is_a_bus_master_from_its_start_to_its_stop() {
    let (mut machine, devices, pci) = set_up(FakePci::default().with(ROOT, 1, 0, nvme()), 0);
    let [candidate] = find(&mut machine, &devices, false)[..] else { panic!("one") };
    let registers = devices.iter().next().unwrap().memory(0).unwrap();
    let room = range(0x100_0000, candidate.room());
    let mut fake = FakeNvme::new(registers.start().get(), FakeNamespace::new(1, 1000));
    fake.allowed.push(0x100_0000..0x200_0000);
    let fake = Rc::new(RefCell::new(fake));
    machine.registers.push(Box::new(NvmeRegisters(fake.clone())));
    let before = pci.borrow().function(0).command();
    let mut started = Started::start(&mut machine, &candidate, room).unwrap();
    let during = pci.borrow().function(0).command();
    assert_eq!(during & (COMMAND_MASTER | COMMAND_MEMORY), COMMAND_MASTER | COMMAND_MEMORY);
    let mut units = Vec::new();
    started.units(&mut machine, &mut |unit| units.push(unit)).unwrap();
    let [unit] = units[..] else { panic!("one") };
    started.read(&mut machine, &unit, 7, range(0x180_0000, 1024)).unwrap();
    let expected = [7, 8].map(|block| FakeNamespace::new(1, 1000).block(block)).concat();
    assert_eq!(machine.memory.bytes(0x180_0000, 1024), expected);
    started.stop(&mut machine).unwrap();
    assert_eq!(pci.borrow().function(0).command(), before);
    // One that does not come up is none either.
    fake.borrow_mut().defects.stays = true;
    machine.ticks_per_look = 1 << 30;
    assert!(Started::start(&mut machine, &candidate, room).is_err());
    assert_eq!(pci.borrow().function(0).command(), before);
}

#[test]
fn a_controller_that_does_not_answer_is_stopped_before_its_memory_is_used_again() {
    let (mut machine, devices, pci) = set_up(FakePci::default().with(ROOT, 1, 0, nvme()), 0);
    let [candidate] = find(&mut machine, &devices, false)[..] else { panic!("one") };
    let registers = devices.iter().next().unwrap().memory(0).unwrap();
    let mut fake = FakeNvme::new(registers.start().get(), FakeNamespace::new(1, 1000));
    fake.allowed.push(0x100_0000..0x200_0000);
    let fake = Rc::new(RefCell::new(fake));
    machine.registers.push(Box::new(NvmeRegisters(fake.clone())));
    let before = pci.borrow().function(0).command();
    let mut started = Started::start(&mut machine, &candidate, range(0x100_0000, candidate.room())).unwrap();
    let mut units = Vec::new();
    started.units(&mut machine, &mut |unit| units.push(unit)).unwrap();
    fake.borrow_mut().defects.silent_from = Some(0);
    machine.ticks_per_look = 1 << 30;
    let read = |started: &mut Started, machine: &mut _| started.read(machine, &units[0], 7, range(0x180_0000, 512));
    assert_eq!(read(&mut started, &mut machine), Err(Error::Timeout));
    assert!(!fake.borrow().is_on(), "it is reset");
    assert_eq!(pci.borrow().function(0).command(), before, "and no bus master");
    let steps = machine.steps;
    assert_eq!(read(&mut started, &mut machine), Err(Error::Timeout));
    started.stop(&mut machine).unwrap();
    assert_eq!(machine.steps, steps, "it is not accessed again");
}

#[test]
fn a_controller_that_does_not_stop_keeps_the_memory_that_it_was_given() {
    let (mut machine, devices, pci) = set_up(FakePci::default().with(ROOT, 1, 0, nvme()), 0);
    let [candidate] = find(&mut machine, &devices, false)[..] else { panic!("one") };
    let registers = devices.iter().next().unwrap().memory(0).unwrap();
    let (room, into) = (range(0x100_0000, candidate.room()), range(0x180_0000, 512));
    let before = pci.borrow().function(0).command();
    machine.ticks_per_look = 1 << 30;
    for ignores_its_stop in [false, true] {
        let mut fake = FakeNvme::new(registers.start().get(), FakeNamespace::new(1, 1000));
        fake.allowed.push(0x100_0000..0x200_0000);
        let fake = Rc::new(RefCell::new(fake));
        machine.registers.insert(0, Box::new(NvmeRegisters(fake.clone())));
        let mut started = Started::start(&mut machine, &candidate, room).unwrap();
        let mut units = Vec::new();
        started.units(&mut machine, &mut |unit| units.push(unit)).unwrap();
        assert_eq!(started.take_lost(), None);
        fake.borrow_mut().defects.silent_from = Some(0);
        fake.borrow_mut().defects.stays = ignores_its_stop;
        assert_eq!(started.read(&mut machine, &units[0], 7, into), Err(Error::Timeout));
        let lost: Vec<_> = core::iter::from_fn(|| started.take_lost()).collect();
        assert_eq!(lost.is_empty(), !ignores_its_stop);
        assert!(lost.is_empty() || lost.contains(&room) && lost.contains(&into));
        assert_eq!(pci.borrow().function(0).command(), before, "it is no bus master in any case");
        assert_eq!(started.stop(&mut machine), Ok(()), "it was stopped");
    }
}

/// A slot's registers, with the number of reads.
struct Slots {
    /// The type of device in each.
    devices: Vec<u32>,
    reads: Rc<RefCell<usize>>,
}

impl FakeRegisters for Slots {
    fn claims(&self, at: u64) -> bool {
        range(0xfeb0_0000, 24 * 0x200).contains_addr(PhysAddr::new(at))
    }

    fn read(&mut self, at: u64, _: u8) -> u64 {
        *self.reads.borrow_mut() += 1;
        let slot = (at - 0xfeb0_0000) / 0x200;
        match (at % 0x200, self.devices[slot as usize]) {
            (0, _) => 0x7472_6976,
            (4, _) => 1,
            (8, device) => device.into(),
            _ => 0,
        }
    }

    fn write(&mut self, _: u64, _: u8, _: u64, _: &mut FakeMemory) {}
}

#[test]
fn a_microvms_first_disk_is_in_its_last_slot() {
    let mut devices = vec![0; 24];
    // The first device, a network card, another disk.
    (devices[23], devices[22], devices[21]) = (2, 1, 2);
    let reads = Rc::new(RefCell::new(0));
    let mut machine = FakeMachine::new();
    machine.registers.push(Box::new(Slots { devices, reads: reads.clone() }));
    let found = find(&mut machine, &Devices::default(), true);
    assert_eq!(names(&found), ["virtio disk at 0xfeb02e00", "virtio disk at 0xfeb02a00"]);
    assert_eq!(*reads.borrow(), 24 + 3 * 2, "one for an empty slot");
    assert_eq!(machine.accesses, [], "no port is accessed");
}

#[test]
fn the_functions_of_a_microvm_come_after_its_slots() {
    let (mut machine, devices, _) = set_up(FakePci::default().with(ROOT, 1, 0, nvme()), 0);
    let mut slots = vec![0; 24];
    slots[23] = 2;
    machine.registers.push(Box::new(Slots { devices: slots, reads: Rc::default() }));
    assert_eq!(names(&find(&mut machine, &devices, true)), ["virtio disk at 0xfeb02e00", "NVMe at 00:01.0"]);
}

#[test]
fn a_machine_without_devices_has_no_candidates() {
    let mut machine = FakeMachine::new();
    assert_eq!(find(&mut machine, &Devices::default(), false), []);
    // Only bus 0 was looked at.
    assert!(machine.accesses.len() <= 64);
}
