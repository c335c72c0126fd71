//! An AHCI controller: registers, what devices say about themselves, and how commands end.
//!
//! Input: capabilities, ports and devices, then the defects: registers that read as something else, changed bytes of data, of the
//! ends of commands, commands that are not answered, ports that do not start or stop. Then reads. Without defects, the controller
//! works.

use std::cell::RefCell;
use std::rc::Rc;

use arbitrary::Arbitrary;
use firstlight::disk::ahci::{Ahci, MOST_PORTS};
use firstlight::disk::{Controller, Error, Unit, UnitAddress};
use firstlight::fakes::ahci::{AhciRegisters, FakeAhci, FakeDevice, REGISTERS_LEN};
use firstlight::fakes::blocks::join;
use firstlight::fakes::machine::FakeMachine;

use crate::device::{BASE, Override, ROOM, check_stores, range, reading};
use crate::input::Input;

/// A changed byte of a command's data.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
struct Patch {
    command: u8,
    at: u16,
    value: u8,
}

/// A changed end of a command.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
struct End {
    command: u8,
    status: u8,
    error: u8,
    bytes: u32,
}

/// Capabilities, ports and devices.
fn controller(input: &mut Input<'_>) -> FakeAhci {
    let mut fake = FakeAhci::new(BASE, Some(FakeDevice::disk(1 << 20)));
    fake.devices[1] = Some(FakeDevice::Cd { blocks: 1 << 16, attentions: 1 });
    let changed: u8 = input.take();
    if changed & 1 != 0 {
        (fake.cap, fake.implemented, fake.control) = (input.take(), input.take(), input.take());
        fake.control &= !1;
    }
    for _ in 0..input.take::<u8>() & 15 {
        let (port, kind): (u8, u8) = (input.take(), input.take());
        fake.devices[usize::from(port & 31)] = match kind & 7 {
            0 => None,
            1 => Some(FakeDevice::Other(input.take())),
            2 | 3 => Some(FakeDevice::Cd { blocks: input.take(), attentions: input.take::<u8>().into() }),
            4 => Some(FakeDevice::Disk { blocks: input.take(), block_len: input.take() }),
            _ => Some(FakeDevice::Disk { blocks: input.take::<u32>().into(), block_len: 512 << (kind >> 6) }),
        };
    }
    fake
}

/// Adds the defects, and returns whether there are any.
fn add_defects(input: &mut Input<'_>, fake: &mut FakeAhci) -> bool {
    let counts: u16 = input.take();
    let overrides: Vec<Override<u8>> = (0..counts & 3).map(|_| input.take()).collect();
    let patches: Vec<Patch> = (0..counts >> 2 & 7).map(|_| input.take()).collect();
    let ends: Vec<End> = (0..counts >> 5 & 7).map(|_| input.take()).collect();
    let mut reads = 0_u32;
    if !overrides.is_empty() {
        fake.defects.register = Some(Box::new(move |offset, mut value| {
            reads += 1;
            let offset = if offset < 0x100 { offset } else { 0x80 | offset & 0x7f };
            // The controller's, or one of every port.
            for other in &overrides {
                if u64::from(other.register & 0xfc) == offset {
                    value = other.apply(reads, value.into()) as u32;
                }
            }
            value
        }));
    }
    if !patches.is_empty() {
        fake.defects.data = Some(Box::new(move |number, data| {
            for patch in patches.iter().filter(|patch| usize::from(patch.command) == number) {
                match patch.at >> 12 {
                    0 => data.iter_mut().skip(patch.at.into()).take(1).for_each(|byte| *byte = patch.value),
                    1 => data.truncate(patch.value.into()),
                    // Words of 16 bits that a disk's length and blocks are in.
                    _ => data
                        .iter_mut()
                        .skip(200 + usize::from(patch.at & 63))
                        .take(1)
                        .for_each(|byte| *byte = patch.value),
                }
            }
        }));
    }
    if !ends.is_empty() {
        fake.defects.end = Some(Box::new(move |number, status, error, bytes| {
            for end in ends.iter().filter(|end| usize::from(end.command) == number) {
                (*status, *error) = (*status ^ end.status, end.error);
                *bytes = bytes.wrapping_add(end.bytes);
            }
        }));
    }
    fake.defects.silent_from = (counts & 1 << 8 != 0).then(|| input.take::<u8>().into());
    if counts & 1 << 9 != 0 {
        fake.defects.silent_status = input.take();
    }
    fake.defects.stays_busy = counts & 1 << 10 != 0;
    fake.defects.never_stops = counts & 1 << 11 != 0;
    fake.defects.never_resets = counts & 1 << 12 != 0;
    counts & 0x1fff != 0
}

/// Starts the controller, lists what is behind it, reads and stops. The controller is given only the memory of the driver and the
/// buffer, the driver writes only these, a controller that was given up gets no more commands, and one without defects reads what is
/// on the disk. At the end no port runs, unless registers lie.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut fake = controller(&mut input);
    let has_defects = add_defects(&mut input, &mut fake);
    let lies = fake.defects.register.is_some() || fake.defects.never_resets;
    fake.allowed.push(ROOM..ROOM + Ahci::ROOM);
    let fake = Rc::new(RefCell::new(fake));
    let mut machine = FakeMachine::new();
    machine.registers.push(Box::new(AhciRegisters(fake.clone())));
    machine.ticks_per_look = 1 << 32;
    machine.most_steps = 200_000;
    machine.memory.keep_stores();
    let started = Ahci::start(&mut machine, range(BASE, REGISTERS_LEN), range(ROOM, Ahci::ROOM));
    if let Ok(mut ahci) = started {
        let mut units = Vec::new();
        let mut result = ahci.units(&mut machine, &mut |unit| units.push(unit));
        assert!(units.len() <= MOST_PORTS);
        for unit in units.into_iter().cycle().take(usize::from(input.take::<u8>() & 15)) {
            let commands = fake.borrow().commands.len();
            let was_lost = result == Err(Error::Timeout);
            result = read(&mut input, &mut machine, &mut ahci, &unit, &fake, has_defects);
            if was_lost {
                assert_eq!(fake.borrow().commands.len(), commands, "a command for a controller that was given up");
                assert!(result.is_err());
                result = Err(Error::Timeout);
            }
        }
        let stopped = ahci.stop(&mut machine);
        assert!(has_defects || stopped.is_ok());
    }
    assert!(lies || !fake.borrow().is_running(), "a port runs");
    check_stores(&machine, Ahci::ROOM);
}

/// Reads as the input says.
fn read(
    input: &mut Input<'_>,
    machine: &mut FakeMachine,
    ahci: &mut Ahci,
    unit: &Unit,
    fake: &RefCell<FakeAhci>,
    has_defects: bool,
) -> Result<(), Error> {
    let (first, into) = reading(input, &unit.media);
    let len = into.len();
    fake.borrow_mut().allowed.push(into.start().get()..into.end().get());
    let result = ahci.read(machine, unit, first, into);
    fake.borrow_mut().allowed.pop();
    result?;
    if let (false, UnitAddress::Port(port)) = (has_defects, unit.address) {
        let device = fake.borrow().devices[usize::from(port)].expect("a device");
        let expected = join(first, len as usize, |number| device.block(port, number));
        assert!(machine.memory.bytes(into.start().get(), len as usize) == expected, "what is on the disk");
    }
    Ok(())
}

/// Controllers without defects, and with each defect at each command.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    // The number of reads, and each one.
    let reads: Vec<u8> = [
        &[8_u8][..],
        &[
            (0_u64, 0_u16, 8_u16),
            (3, 2, 100),
            (5, 1, 9),
            (u64::MAX, 0, 1),
            (1, 0, 0xc201),
            (9, 8, 0x200),
            (1 << 19, 0, 1),
            (7, 4095, 3),
        ]
        .map(|(first, offset, len)| [&first.to_le_bytes()[..], &offset.to_le_bytes(), &len.to_le_bytes()].concat())
        .concat(),
    ]
    .concat();
    let working = [0, 0];
    let none = 0_u16.to_le_bytes();
    let mut seeds = vec![[&working[..], &none, &reads].concat()];
    for (cap, implemented, control) in [(0_u32, 3_u32, 0_u32), (u32::MAX, u32::MAX, 1 << 31), (1 << 31, 0, 0)] {
        let values = [cap, implemented, control].map(u32::to_le_bytes).concat();
        seeds.push([&[1][..], &values, &[0], &none, &reads].concat());
    }
    let disk = |port: u8, blocks: u64, block_len: u32| {
        [&[port, 4][..], &blocks.to_le_bytes(), &block_len.to_le_bytes()].concat()
    };
    let cd = |port: u8, blocks: u32, attentions: u8| [&[port, 2][..], &blocks.to_le_bytes(), &[attentions]].concat();
    let other = |port: u8, signature: u32| [&[port, 1][..], &signature.to_le_bytes()].concat();
    for devices in [
        [disk(2, 8, 4096), disk(3, 1 << 40, 1024)],
        [disk(0, 0, 512), disk(1, u64::MAX, 512)],
        [disk(0, 8, 256), disk(1, 8, 1 << 20)],
        [cd(0, 0, 0), cd(1, 100, 7)],
        [cd(4, u32::MAX, 255), cd(5, 1, 0)],
        [other(0, 0x9669_0101), other(1, u32::MAX)],
        [vec![0, 0], vec![1, 0]],
    ] {
        seeds.push([&[0, 2][..], &devices.concat(), &none, &reads].concat());
    }
    let with_defect = |counts: u16, defect: &[u8]| [&working, &counts.to_le_bytes()[..], defect, &reads].concat();
    for register in [0x00, 0x04, 0x0c, 0x90, 0x98, 0xa0, 0xa4, 0xa8, 0xb8] {
        for (from, value) in [(0, 0_u32), (0, u32::MAX), (0, 0xc011), (30, 0), (30, u32::MAX), (30, 0x80)] {
            seeds.push(with_defect(1, &[&[register, from][..], &[0xff; 4], &value.to_le_bytes()].concat()));
        }
    }
    for command in 0..10 {
        for (at, value) in
            [(0_u16, 0), (1, 0x80), (4, 0xff), (99, 0), (166, 0), (0x1000, 0), (0x1000, 9), (0x200d, 0x50)]
        {
            seeds.push(with_defect(1 << 2, &[&[command][..], &at.to_le_bytes(), &[value]].concat()));
        }
        for (status, bytes) in [(1, 0), (0x20, 0), (0x80, 0), (8, 0), (0x81, 0), (0, 1), (0, u32::MAX), (0, 1 << 31)] {
            seeds.push(with_defect(1 << 5, &[&[command, status, 4][..], &u32::to_le_bytes(bytes)].concat()));
        }
        seeds.push(with_defect(1 << 8, &[command]));
        seeds.push(with_defect(1 << 8 | 1 << 11, &[command]));
        seeds.push(with_defect(1 << 8 | 3 << 11, &[command]));
        seeds.push(with_defect(3 << 8, &[&[command][..], &(1_u32 << 29).to_le_bytes()].concat()));
    }
    seeds.extend([with_defect(1 << 10, &[]), with_defect(1 << 10 | 3 << 11, &[]), with_defect(1 << 11, &[])]);
    seeds
}
