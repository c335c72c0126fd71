//! An NVMe controller: registers, namespaces, and completions.
//!
//! Input: capabilities and namespaces, which can be any, then the defects: registers that read as something else, changed bytes of
//! what the controller says about itself, changed completions, commands that are not answered. Then reads. Without defects, the
//! controller works.

use std::cell::RefCell;
use std::rc::Rc;

use arbitrary::Arbitrary;
use firstlight::disk::nvme::Nvme;
use firstlight::disk::{Controller, Error, Unit, UnitAddress};
use firstlight::fakes::blocks::join;
use firstlight::fakes::machine::FakeMachine;
use firstlight::fakes::nvme::{FakeNamespace, FakeNvme, NvmeRegisters, QEMU_CAPABILITIES, REGISTERS_LEN};

use crate::device::{BASE, Override, ROOM, check_stores, range, reading};
use crate::input::Input;

/// A changed byte of what is said about a namespace, the controller, or all namespaces.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
struct Patch {
    kind: u8,
    at: u16,
    value: u8,
}

/// A changed dword of a completion.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
struct Completion {
    command: u8,
    dword: u8,
    change: u32,
}

/// The capabilities, the longest transfer, whether there is a list, and namespaces.
fn controller(input: &mut Input<'_>) -> FakeNvme {
    let mut fake = FakeNvme::new(BASE, FakeNamespace::new(1, 1 << 20));
    let (changed, capabilities): (u8, u64) = (input.take(), input.take());
    if changed & 1 != 0 {
        // Doorbells are not so far apart that the fake has none.
        fake.cap = capabilities & !(0xc << 32);
    }
    if changed & 2 != 0 {
        fake.cap = QEMU_CAPABILITIES & !0xffff | capabilities & 0xffff;
    }
    fake.has_list = changed & 4 == 0;
    if changed & 8 != 0 {
        fake.longest = input.take();
    }
    if changed & 16 != 0 {
        fake.namespaces.clear();
    }
    for _ in 0..input.take::<u8>() & 3 {
        let (id, blocks): (u32, u64) = (input.take(), input.take());
        let order = if changed & 32 == 0 { 9 + (input.take::<u8>() & 3) } else { input.take() };
        let metadata = if changed & 64 == 0 { 0 } else { input.take() };
        fake.namespaces.push(FakeNamespace { id, blocks, order, metadata });
    }
    fake
}

/// Adds the defects, and returns whether there are any.
fn add_defects(input: &mut Input<'_>, fake: &mut FakeNvme) -> bool {
    let counts: u16 = input.take();
    let overrides: Vec<Override<u8>> = (0..counts & 3).map(|_| input.take()).collect();
    let patches: Vec<Patch> = (0..counts >> 2 & 7).map(|_| input.take()).collect();
    let completions: Vec<Completion> = (0..counts >> 5 & 7).map(|_| input.take()).collect();
    let mut reads = 0_u32;
    if !overrides.is_empty() {
        fake.defects.register = Some(Box::new(move |offset, mut value| {
            reads += 1;
            for other in &overrides {
                // Not the capabilities, which the fake keeps to.
                if u64::from(other.register & 0x3c) == offset && offset >= 8 {
                    value = other.apply(reads, value);
                }
            }
            value
        }));
    }
    if !patches.is_empty() {
        let patches = patches.clone();
        fake.defects.data = Some(Box::new(move |kind, data| {
            for &Patch { kind: of, at, value } in patches.iter().filter(|patch| u32::from(patch.kind % 3) == kind) {
                let at = usize::from(at & 0xfff);
                // Not the longest transfer and the format, which the fake keeps to.
                let is_kept = of % 3 == 0 && (at == 26 || (128..192).contains(&at)) || of % 3 == 1 && at == 77;
                if !is_kept {
                    data[at] = value;
                }
            }
        }));
    }
    if !completions.is_empty() {
        let completions = completions.clone();
        fake.defects.completion = Some(Box::new(move |number, dwords| {
            for &Completion { command, dword, change } in &completions {
                if usize::from(command) == number {
                    dwords[usize::from(dword & 3)] ^= change;
                }
            }
        }));
    }
    fake.defects.silent_from = (counts & 1 << 8 != 0).then(|| input.take::<u8>().into());
    fake.defects.stays = counts & 1 << 9 != 0;
    fake.defects.is_fatal = counts & 1 << 10 != 0;
    counts & 0x7ff != 0
}

/// Starts the controller, lists its namespaces, reads and stops. The controller is given only the memory of the driver and the
/// buffer, the driver writes only these, a controller that was given up gets no more commands, and one without defects reads what is
/// on the disk.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut fake = controller(&mut input);
    let has_defects = add_defects(&mut input, &mut fake);
    fake.allowed.push(ROOM..ROOM + Nvme::ROOM);
    let fake = Rc::new(RefCell::new(fake));
    let mut machine = FakeMachine::new();
    machine.registers.push(Box::new(NvmeRegisters(fake.clone())));
    machine.ticks_per_look = 1 << 31;
    machine.most_steps = 200_000;
    machine.memory.keep_stores();
    let mut units = Vec::new();
    let started = Nvme::start(&mut machine, range(BASE, REGISTERS_LEN), range(ROOM, Nvme::ROOM));
    if let Ok(mut nvme) = started {
        let mut result = nvme.units(&mut machine, &mut |unit| units.push(unit));
        for unit in units.into_iter().cycle().take(usize::from(input.take::<u8>() & 15)) {
            let commands = fake.borrow().commands.len();
            let was_lost = result == Err(Error::Timeout);
            result = read(&mut input, &mut machine, &mut nvme, &unit, &fake, has_defects);
            if was_lost && result != Err(Error::OutOfRange) {
                assert_eq!(result, Err(Error::Timeout));
            }
            if was_lost {
                assert_eq!(fake.borrow().commands.len(), commands, "a command for a controller that was given up");
                result = Err(Error::Timeout);
            }
        }
        let stopped = nvme.stop(&mut machine);
        assert!(has_defects || stopped.is_ok());
    }
    assert!(has_defects || !fake.borrow().is_on(), "the controller is on");
    check_stores(&machine, Nvme::ROOM);
}

/// Reads as the input says.
fn read(
    input: &mut Input<'_>,
    machine: &mut FakeMachine,
    nvme: &mut Nvme,
    unit: &Unit,
    fake: &RefCell<FakeNvme>,
    has_defects: bool,
) -> Result<(), Error> {
    let (first, into) = reading(input, &unit.media);
    let len = into.len();
    fake.borrow_mut().allowed.push(into.start().get()..into.end().get());
    let result = nvme.read(machine, unit, first, into);
    fake.borrow_mut().allowed.pop();
    result?;
    if let (false, UnitAddress::Namespace { id, .. }) = (has_defects, unit.address) {
        let fake = fake.borrow();
        let namespace = fake.namespaces.iter().find(|namespace| namespace.id == id).expect("a namespace");
        let expected = join(first, len as usize, |number| namespace.block(number));
        assert!(machine.memory.bytes(into.start().get(), len as usize) == expected, "what is on the disk");
    }
    Ok(())
}

/// Controllers without defects, and with each defect at each command.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let plain = |changed: u8, capabilities: u64, longest: &[u8], namespaces: u8| {
        [&[changed][..], &capabilities.to_le_bytes(), longest, &[namespaces]].concat()
    };
    let namespace = |id: u32, blocks: u64, order: u8| [&id.to_le_bytes()[..], &blocks.to_le_bytes(), &[order]].concat();
    // The number of reads, and each one.
    let reads: Vec<u8> = [
        &[6_u8][..],
        &[(0_u64, 0_u16, 8_u16), (3, 4, 100), (5, 1, 9), (u64::MAX, 0, 1), (1, 0, 0xc201), (9, 8, 0x200)]
            .map(|(first, offset, len)| [&first.to_le_bytes()[..], &offset.to_le_bytes(), &len.to_le_bytes()].concat())
            .concat(),
    ]
    .concat();
    let working = plain(0, 0, &[], 0);
    let none = 0_u16.to_le_bytes();
    let mut seeds = vec![[&working, &none[..], &reads].concat()];
    for entries in [0_u64, 1, 2, 15, 16, 255, 0xffff] {
        seeds.push([&plain(2, entries, &[], 0), &none[..], &reads].concat());
    }
    for longest in [0, 1, 7, 255] {
        seeds.push([&plain(8, 0, &[longest], 0), &none[..], &reads].concat());
    }
    for (changed, order) in [(4, 3), (32, 0), (32, 12), (32, 31), (32, 255), (16, 1)] {
        let (one, two) = (namespace(2, 1000, order), namespace(900, 1 << 40, order));
        seeds.push([&plain(changed, 0, &[], 2), &one[..], &two, &none, &reads].concat());
    }
    for capabilities in [0, u64::MAX, QEMU_CAPABILITIES | 1 << 48, QEMU_CAPABILITIES | 3 << 32] {
        seeds.push([&plain(1, capabilities, &[], 0), &none[..], &reads].concat());
    }
    let with_defect = |counts: u16, defect: &[u8]| [&working, &counts.to_le_bytes()[..], defect, &reads].concat();
    for register in [0x14, 0x1c] {
        for value in [0, 1, 2, 3, u32::MAX] {
            let defect = [&[register, 0][..], &[0xff; 4], &value.to_le_bytes()].concat();
            seeds.push(with_defect(1, &defect));
        }
    }
    for (kind, at, value) in [(0, 0_u16, 1), (0, 7, 0xff), (0, 99, 1), (1, 516, 3), (2, 0, 0), (2, 4, 1), (2, 3, 0xff)]
    {
        seeds.push(with_defect(1 << 2, &[&[kind][..], &at.to_le_bytes(), &[value]].concat()));
    }
    for command in 0..8 {
        for (dword, change) in [(2, 1), (2, 0x8000), (2, 1 << 16), (3, 1), (3, 1 << 16), (3, 0x81 << 17), (0, 1)] {
            seeds.push(with_defect(1 << 5, &[&[command, dword][..], &u32::to_le_bytes(change)].concat()));
        }
        seeds.push(with_defect(1 << 8, &[command]));
    }
    seeds.extend([with_defect(1 << 9, &[]), with_defect(1 << 10, &[])]);
    seeds
}
