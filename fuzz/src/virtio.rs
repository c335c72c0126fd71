//! A virtio device: capabilities, registers, answers, and what it says about requests.
//!
//! Input: the interface and what is behind it, then the defects: registers that read as something else, changed bytes of
//! configuration space, of the configuration and of answers, and used elements. Without defects, the device works.

use std::cell::RefCell;
use std::rc::Rc;

use arbitrary::Arbitrary;
use firstlight::disk::virtio::{Block, Place, ScsiHost, mmio, pci};
use firstlight::disk::{Controller, Error};
use firstlight::fakes::machine::FakeMachine;
use firstlight::fakes::virtio::{FUNCTION_LEN, FakeUnit, FakeVirtio, Interface, SLOT_LEN, VirtioRegisters};
use firstlight::pci::{Address, ConfigSpace};

use crate::device::{BASE, BUFFER, Override, ROOM, check_stores, range};
use crate::input::Input;

/// A changed byte of an answer.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
struct Patch {
    request: u8,
    at: u8,
    value: u8,
}

/// What is said about a request: `step` and `len` are changes.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
struct Said {
    request: u8,
    step: u16,
    head: u32,
    len: u32,
}

/// Configuration space of a function with QEMU's capabilities, and changed bytes.
struct Space([u8; 256]);

impl Space {
    fn new() -> Self {
        let mut space = Self([0; 256]);
        space.0[..4].copy_from_slice(&[0xf4, 0x1a, 0x01, 0x10]);
        (space.0[6], space.0[0x34]) = (0x10, 0x84);
        // Place, the next one, length, kind, BAR, offset, length.
        for (at, next, len, kind, bar, offset) in [
            (0x84, 0x70, 20, 5, 0, 0),
            (0x70, 0x60, 20, 2, 4, 0x3000_u32),
            (0x60, 0x50, 16, 4, 4, 0x2000),
            (0x50, 0x40, 16, 3, 4, 0x1000),
            (0x40, 0, 16, 1, 4, 0),
        ] {
            space.0[at..at + 5].copy_from_slice(&[9, next, len, kind, bar]);
            space.0[at + 8..at + 12].copy_from_slice(&offset.to_le_bytes());
            space.0[at + 12..at + 16].copy_from_slice(&0x1000_u32.to_le_bytes());
        }
        space.0[0x80] = 4;
        space
    }
}

impl ConfigSpace for Space {
    fn read32(&mut self, _: Address, offset: u8) -> u32 {
        let at = usize::from(offset & !3);
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap())
    }
    fn write32(&mut self, address: Address, offset: u8, value: u32) {
        panic!("{address} {offset:#x} is written: {value:#x}");
    }
}

/// The device where it is.
fn place(input: &mut Input<'_>, machine: &mut FakeMachine, fake: &RefCell<FakeVirtio>) -> Option<Place> {
    let interface = fake.borrow().interface;
    if interface != Interface::Pci {
        return mmio::Slot::find(machine, range(BASE, SLOT_LEN)).unwrap().map(|(slot, _)| Place::Mmio(slot));
    }
    let mut space = Space::new();
    for _ in 0..input.take::<u8>() & 15 {
        let (at, value): (u8, u8) = (input.take(), input.take());
        space.0[usize::from(at)] = value;
        fake.borrow_mut().defects.is_elsewhere = true;
    }
    let memory = |bar| (bar == 4).then(|| range(BASE, FUNCTION_LEN));
    pci::Function::find(&mut space, Address::new(0, 5, 0).unwrap(), &memory).ok().map(Place::Pci)
}

/// Starts the device, finds what is behind it, reads and stops. The device is given only memory of the driver and the buffer, the
/// driver writes only its own, and a device that broke the specification is not asked again.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let interface = input.pick(&[Interface::Pci, Interface::Slot, Interface::LegacySlot]);
    let is_disk = input.take::<u8>() & 1 == 0;
    let mut fake = if is_disk {
        FakeVirtio::disk(BASE, interface, 1 << 12)
    } else {
        let unit = |target, lun, kind, blocks, block_len| FakeUnit {
            target,
            lun,
            kind,
            blocks,
            block_len,
            is_never_ready: false,
        };
        let units = vec![unit(0, 0, 0, 4096, 512), unit(0, 300, 5, 1024, 2048), unit(33, 1, 5, 0, 2048)];
        let mut fake = FakeVirtio::scsi(BASE, interface, units);
        // Two rounds of questions for targets, not eight. An input can ask for more.
        fake.configuration[30] = 40;
        fake
    };
    fake.offered |= u64::from(input.take::<u8>());
    for _ in 0..input.take::<u8>() & 15 {
        let (at, value): (u8, u8) = (input.take(), input.take());
        let len = fake.configuration.len();
        fake.configuration[usize::from(at) % len] = value;
    }
    let overrides: Vec<Override<u16>> = (0..input.take::<u8>() & 7).map(|_| input.take()).collect();
    let patches: Vec<Patch> = (0..input.take::<u8>() & 15).map(|_| input.take()).collect();
    let said: Vec<Said> = (0..input.take::<u8>() & 7).map(|_| input.take()).collect();
    let mut reads = 0_u32;
    // Always set, so that the fake does not check what the driver makes of other defects.
    fake.defects.register = Some(Box::new(move |offset, mut value| {
        reads += 1;
        for other in &overrides {
            if u64::from(other.register & 0x3fff) == offset {
                value = other.apply(reads, value);
            }
        }
        value
    }));
    fake.defects.answer = Some(Box::new(move |request, answer| {
        for patch in patches.iter().filter(|patch| usize::from(patch.request) == request) {
            match patch.at {
                u8::MAX => answer.truncate(patch.value.into()),
                // The last byte is a disk's status.
                0xfe => answer.iter_mut().next_back().into_iter().for_each(|byte| *byte = patch.value),
                at => answer.iter_mut().skip(at.into()).take(1).for_each(|byte| *byte = patch.value),
            }
        }
    }));
    fake.defects.used = Some(Box::new(move |request, used| {
        for said in said.iter().filter(|said| usize::from(said.request) == request) {
            used.step = used.step.wrapping_add(said.step);
            (used.head, used.len) = (said.head, used.len.wrapping_add(said.len));
        }
    }));
    let room = range(ROOM, if is_disk { Block::ROOM } else { ScsiHost::ROOM });
    fake.allowed.push(ROOM..room.end().get());
    let fake = Rc::new(RefCell::new(fake));
    let mut machine = FakeMachine::new();
    machine.registers.push(Box::new(VirtioRegisters(fake.clone())));
    machine.keeps_accesses = false;
    machine.ticks_per_look = 1 << 33;
    machine.most_steps = 100_000;
    let Some(place) = place(&mut input, &mut machine, &fake) else { return };
    machine.memory.keep_stores();
    if is_disk {
        if let Ok(mut block) = Block::start(&mut machine, place, room) {
            use_it(&mut input, &mut machine, &fake, &mut block);
        }
    } else if let Ok(mut host) = ScsiHost::start(&mut machine, place, room) {
        use_it(&mut input, &mut machine, &fake, &mut host);
    }
    check_stores(&machine, room.len());
}

fn use_it(
    input: &mut Input<'_>,
    machine: &mut FakeMachine,
    fake: &RefCell<FakeVirtio>,
    controller: &mut impl Controller<FakeMachine>,
) {
    let mut units = Vec::new();
    let _ = controller.units(machine, &mut |unit| units.push(unit));
    assert!(units.len() <= 64);
    for _ in 0..input.take::<u8>() & 7 {
        let Some(unit) = units.get(usize::from(input.take::<u8>()) % units.len().max(1)) else { break };
        let first = u64::from(input.take::<u16>());
        let len = u64::from(unit.media.block_len.get()) * u64::from(input.take::<u8>() & 15);
        let into = range(BUFFER + u64::from(input.take::<u8>()), len);
        fake.borrow_mut().allowed.push(into.start().get()..into.end().get());
        let result = controller.read(machine, unit, first, into);
        fake.borrow_mut().allowed.pop();
        assert!(result != Ok(()) || first + len / u64::from(unit.media.block_len.get()) <= unit.media.blocks);
        if result == Err(Error::Timeout) {
            let accesses = fake.borrow().accesses;
            assert!(controller.read(machine, unit, first, into).is_err());
            assert_eq!(fake.borrow().accesses, accesses, "it is not asked again");
        }
    }
    let stopped = controller.stop(machine);
    // Registers may lie, or be elsewhere.
    let fake = fake.borrow();
    assert!(stopped.is_err() || fake.is_reset() || fake.defects.register.is_some() || fake.defects.is_elsewhere);
}

/// Devices without defects, and with one at each register, and in each request.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let reads = [3, 0, 0, 0, 1, 0, 1, 9, 0, 7, 3, 2, 0xff, 0, 1, 1];
    for interface in 0..3 {
        // Changes of configuration space.
        let space: &[u8] = if interface == 0 { &[0] } else { &[] };
        for kind in 0..2 {
            let start = [interface, kind, 0];
            // No defects; then one of each kind.
            seeds.push([&start[..], &[0, 0, 0, 0], space, &reads].concat());
            for (at, value) in [(0, 0xff), (7, 0x80), (8, 1), (9, 2), (12, 1), (20, 0), (21, 0x10), (30, 3)] {
                seeds.push([&[interface, kind, 0xff, 1, at, value, 0, 0, 0][..], space, &reads].concat());
            }
            let registers: &[u16] = match interface {
                0 => &[0x04, 0x14, 0x15, 0x18, 0x1e, 0x2000, 0x2004, 0x2014],
                _ => &[0x000, 0x004, 0x008, 0x010, 0x034, 0x070, 0x0fc, 0x100, 0x104, 0x114],
            };
            for register in registers {
                for (from, value) in [(0, 0_u32), (0, u32::MAX), (12, 1), (200, 0x40)] {
                    let change = [&register.to_le_bytes()[..], &[from], &[0xff; 4], &value.to_le_bytes()].concat();
                    seeds.push([&start[..], &[0, 1], &change, &[0, 0], space, &reads].concat());
                }
            }
            for request in [0, 1, 8, 9, 10, 11, 12] {
                for (at, value) in [(0, 1), (4, 0xff), (10, 2), (11, 3), (108, 5), (112, 0xff), (0xfe, 1), (0xff, 0)] {
                    seeds.push([&start[..], &[0, 0, 1, request, at, value, 0], space, &reads].concat());
                }
                for (step, head, len) in [(1_u16, 0_u32, 0_u32), (u16::MAX, 0, 0), (0, 3, 0), (0, 0, 1)] {
                    let said = [&[request][..], &step.to_le_bytes(), &head.to_le_bytes(), &len.to_le_bytes()].concat();
                    seeds.push([&start[..], &[0, 0, 0, 1], &said, space, &reads].concat());
                }
            }
        }
    }
    for (at, value) in [(0x06, 0), (0x34, 0x40), (0x42, 12), (0x44, 5), (0x4a, 0x40), (0x71, 0x70), (0x82, 0xff)] {
        seeds.push([&[0, 0, 0, 0, 0, 0, 0, 1, at, value], &reads[..]].concat());
    }
    seeds
}
