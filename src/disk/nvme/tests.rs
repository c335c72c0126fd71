//! The driver with a fake controller, and with defects of one.

extern crate std;

use std::boxed::Box;
use std::cell::RefCell;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::disk::{BlockLen, Media};
use crate::fakes::machine::FakeMachine;
use crate::fakes::nvme::{FakeNamespace, FakeNvme, NvmeRegisters, QEMU_CAPABILITIES, REGISTERS_LEN};

const BASE: u64 = 0xfe00_0000;
const ROOM: u64 = Nvme::ROOM;
const MEMORY: u64 = 0x100_0000;
const BUFFER: u64 = 0x200_0000;

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

struct Test {
    machine: FakeMachine,
    fake: Rc<RefCell<FakeNvme>>,
}

impl Test {
    fn new(change: impl FnOnce(&mut FakeNvme)) -> Self {
        let mut fake = FakeNvme::new(BASE, FakeNamespace::new(1, 1 << 20));
        fake.allowed.push(MEMORY..MEMORY + ROOM);
        change(&mut fake);
        let fake = Rc::new(RefCell::new(fake));
        let mut machine = FakeMachine::new();
        machine.registers.push(Box::new(NvmeRegisters(fake.clone())));
        machine.ticks_per_look = 1 << 30;
        machine.most_steps = 1_000_000;
        Self { machine, fake }
    }

    fn start(&mut self) -> Result<Nvme, Error> {
        Nvme::start(&mut self.machine, range(BASE, REGISTERS_LEN), range(MEMORY, ROOM))
    }

    fn units(&mut self, nvme: &mut Nvme) -> Result<Vec<Unit>, Error> {
        let mut units = Vec::new();
        nvme.units(&mut self.machine, &mut |unit| units.push(unit))?;
        Ok(units)
    }

    /// Starts the controller, and returns it with its units.
    fn started(&mut self) -> (Nvme, Vec<Unit>) {
        let mut nvme = self.start().unwrap();
        let units = self.units(&mut nvme).unwrap();
        (nvme, units)
    }

    /// Reads to `at`, where the controller may write only this.
    fn read(&mut self, nvme: &mut Nvme, unit: &Unit, first: u64, at: u64, len: u64) -> Result<Vec<u8>, Error> {
        let into = range(at, len);
        self.fake.borrow_mut().allowed.push(at..at + len);
        let result = nvme.read(&mut self.machine, unit, first, into);
        self.fake.borrow_mut().allowed.pop();
        result.map(|()| self.machine.memory.bytes(at, len as usize))
    }

    /// What the blocks have.
    fn blocks(&self, unit: &Unit, first: u64, len: u64) -> Vec<u8> {
        let UnitAddress::Namespace { id, .. } = unit.address else { panic!("{unit:?}") };
        let fake = self.fake.borrow();
        let namespace = fake.namespaces.iter().find(|namespace| namespace.id == id).unwrap();
        (first..first + (len >> namespace.order)).flat_map(|number| namespace.block(number)).collect()
    }

    fn check_read(&mut self, nvme: &mut Nvme, unit: &Unit, first: u64, at: u64, len: u64) {
        let expected = self.blocks(unit, first, len);
        let read = self.read(nvme, unit, first, at, len).unwrap();
        assert!(read == expected, "{first}, {at:#x}, {len:#x}");
    }

    /// The commands of reads so far.
    fn reads(&self) -> usize {
        self.fake.borrow().commands.iter().filter(|(queue, _)| *queue == 1).count()
    }

    /// The accesses to registers since the last call.
    fn accesses(&self) -> Vec<(u64, bool)> {
        core::mem::take(&mut self.fake.borrow_mut().accesses)
    }
}

#[test]
fn namespaces_are_units_in_their_order() {
    let second = FakeNamespace { order: 12, ..FakeNamespace::new(7, 100) };
    let mut test = Test::new(|fake| fake.namespaces.push(second));
    let (_, units) = test.started();
    let unit = |id, block_len, blocks| Unit {
        address: UnitAddress::Namespace { id, eui64: [0x52, 0x54, 0, 0, 0, 0, 0, id as u8] },
        media: Media { block_len: BlockLen::new(block_len).unwrap(), blocks, is_read_only: false, is_removable: false },
    };
    assert_eq!(units, [unit(1, 512, 1 << 20), unit(7, 4096, 100)]);
}

#[test]
fn blocks_go_to_any_address() {
    for order in 9..=12 {
        let mut test = Test::new(|fake| fake.namespaces[0].order = order);
        let (mut nvme, units) = test.started();
        for offset in [0, 4, 512, 4092, 1, 2, 4095] {
            for len in [4096, 8192, 12 << 10, 20 << 10] {
                test.check_read(&mut nvme, &units[0], 3, BUFFER + offset, len);
            }
            test.check_read(&mut nvme, &units[0], (1 << 20) - 1, BUFFER + offset, 1 << order);
        }
        test.check_read(&mut nvme, &units[0], 5, BUFFER, 0);
    }
}

#[test]
fn a_long_read_is_split_at_the_longest_transfer_and_at_the_list() {
    // The controller's number, the offset of the buffer, the length of the read, the commands and the doorbells for it.
    let cases = [
        (7, 0, 1 << 20, 2, 1),
        (7, 4, 1 << 20, 2, 1),
        (7, 0, 2 << 20, 4, 1),
        (7, 4, 2 << 20, 4, 1),
        (1, 0, 256 << 10, 32, 3),
        (1, 4, 240 << 10, 30, 2),
        (0, 4, 2 << 20, 1, 1),
        (0, 0, 5 << 20, 3, 3),
        (9, 0, 4 << 20, 2, 2),
        (9, 4, 4 << 20, 2, 2),
        (30, 0, 4 << 20, 2, 2),
    ];
    for (longest, offset, len, commands, rings) in cases {
        let mut test = Test::new(|fake| fake.longest = longest);
        let (mut nvme, units) = test.started();
        test.accesses();
        test.check_read(&mut nvme, &units[0], 1, BUFFER + offset, len);
        let mut accesses = test.accesses();
        accesses.retain(|&(at, _)| at != 0x100c);
        assert_eq!(accesses, vec![(0x1008, true); rings], "{longest} {offset} {len:#x}");
        assert_eq!(test.reads(), commands, "{longest} {offset} {len:#x}");
    }
}

#[test]
fn a_read_rings_one_doorbell() {
    let mut test = Test::new(|_| {});
    let (mut nvme, units) = test.started();
    test.accesses();
    for first in 0..600 {
        test.check_read(&mut nvme, &units[0], first, BUFFER, 512);
    }
    let accesses = test.accesses();
    let rings = |at| accesses.iter().filter(|&&access| access == (at, true)).count();
    // Completions are reported every 255.
    assert_eq!((rings(0x1008), rings(0x100c), accesses.len()), (600, 2, 602));
}

#[test]
fn a_controller_with_one_namespace_is_found_with_13_accesses_to_registers() {
    let mut test = Test::new(|_| {});
    test.started();
    let accesses = test.accesses();
    assert_eq!(accesses.len(), 13, "{accesses:x?}");
}

#[test]
fn one_pair_of_queues_is_asked_for_before_it_is_created() {
    for counts_queues in [true, false] {
        let mut test = Test::new(|fake| fake.counts_queues = counts_queues);
        let (mut nvme, units) = test.started();
        let operations: Vec<_> = test.fake.borrow().commands.iter().map(|(_, dwords)| dwords[0] & 0xff).collect();
        assert_eq!(operations[..4], [0x06, 0x09, 0x05, 0x01]);
        test.check_read(&mut nvme, &units[0], 3, BUFFER, 4096);
    }
}

#[test]
fn queues_have_as_few_entries_as_the_controller_wants() {
    for entries in [1, 2, 3, 14, 15, 16, 254, 255, 256, 0xffff] {
        let mut test = Test::new(|fake| {
            fake.cap = QEMU_CAPABILITIES & !0xffff | entries;
            fake.longest = 1;
        });
        let (mut nvme, units) = test.started();
        for first in 0..40 {
            test.check_read(&mut nvme, &units[0], first, BUFFER + 4, 64 << 10);
        }
    }
}

#[test]
fn doorbells_are_as_far_apart_as_the_controller_says() {
    for step in 0..=9_u64 {
        let mut test = Test::new(|fake| fake.cap |= step << 32);
        let (mut nvme, units) = test.started();
        test.check_read(&mut nvme, &units[0], 0, BUFFER, 4096);
    }
    let mut test = Test::new(|fake| fake.cap |= 15 << 32);
    assert_eq!(test.start().unwrap_err(), Error::Broken("its registers are cut off"));
}

#[test]
fn a_read_beyond_the_end_is_refused_without_a_command() {
    let mut test = Test::new(|fake| fake.namespaces[0].blocks = 100);
    let (mut nvme, units) = test.started();
    for (first, len) in [(100, 512), (99, 1024), (0, 100), (u64::MAX, 512)] {
        assert_eq!(test.read(&mut nvme, &units[0], first, BUFFER, len), Err(Error::OutOfRange));
    }
    let other = Unit { address: UnitAddress::Only, ..units[0] };
    assert_eq!(test.read(&mut nvme, &other, 0, BUFFER, 512), Err(Error::OutOfRange));
    assert_eq!(test.reads(), 0);
}

#[test]
fn memory_that_the_firmware_must_not_write_is_not_lent() {
    let mut test = Test::new(|_| {});
    let (mut nvme, units) = test.started();
    let own = crate::layout::FIRMWARE_RAM.start().get();
    for at in [own, own + 1, 0xffff_0000, 1 << 32] {
        assert!(matches!(nvme.read(&mut test.machine, &units[0], 0, range(at, 512)), Err(Error::Memory(_))), "{at:#x}");
    }
    test.check_read(&mut nvme, &units[0], 0, BUFFER, 512);
    let room = Nvme::start(&mut test.machine, range(BASE, REGISTERS_LEN), range(own, ROOM));
    assert!(matches!(room, Err(Error::Memory(_))));
    for room in [range(MEMORY, ROOM - 1), range(MEMORY + 8, ROOM)] {
        let result = Nvme::start(&mut test.machine, range(BASE, REGISTERS_LEN), room);
        assert_eq!(result.unwrap_err(), Error::NoRoom);
    }
    let result = Nvme::start(&mut test.machine, range(1 << 32, REGISTERS_LEN), range(MEMORY, ROOM));
    assert!(matches!(result, Err(Error::Memory(_))));
}

#[test]
fn a_stopped_controller_is_off_and_can_be_started_again() {
    let mut test = Test::new(|_| {});
    let (mut nvme, units) = test.started();
    nvme.stop(&mut test.machine).unwrap();
    assert!(!test.fake.borrow().is_on());
    assert_eq!(test.read(&mut nvme, &units[0], 0, BUFFER, 512), Err(Error::Timeout));
    let (mut nvme, units) = test.started();
    test.check_read(&mut nvme, &units[0], 0, BUFFER, 512);
    // One that somebody has left on is turned off first.
    let (mut nvme, units) = test.started();
    test.check_read(&mut nvme, &units[0], 0, BUFFER, 512);
}

#[test]
fn a_controller_that_does_not_become_ready_is_given_up() {
    let mut test = Test::new(|fake| fake.defects.stays = true);
    assert_eq!(test.start().unwrap_err(), Error::Timeout);
    // At most 8 deadlines of 16 looks to turn it on, and as many to turn it off.
    assert!(test.machine.steps < 2 * 8 * 17 * 2 + 20);
    let mut test = Test::new(|fake| fake.defects.is_fatal = true);
    assert_eq!(test.start().unwrap_err(), Error::Refused(2));
    assert!(!test.fake.borrow().is_on());
}

#[test]
fn a_controller_that_is_gone_is_given_up_at_once() {
    let mut test = Test::new(|fake| {
        fake.defects.register = Some(Box::new(|offset, value| if offset == 0x1c { u64::MAX } else { value }));
    });
    assert_eq!(test.start().unwrap_err(), Error::Timeout);
    assert!(test.machine.steps < 20);
    let mut test = Test::new(|fake| fake.defects.register = Some(Box::new(|_, _| u64::MAX)));
    assert!(matches!(test.start().unwrap_err(), Error::Unsupported(_)));
}

#[test]
fn capabilities_that_the_driver_cannot_use_are_refused() {
    let unsupported = |change: fn(u64) -> u64| {
        let mut test = Test::new(|fake| fake.cap = change(fake.cap));
        let error = test.start().unwrap_err();
        assert!(test.fake.borrow().accesses.iter().all(|&(_, is_write)| !is_write));
        error
    };
    assert!(matches!(unsupported(|cap| cap & !(1 << 37)), Error::Unsupported(_)));
    assert!(matches!(unsupported(|cap| cap | 1 << 48), Error::Unsupported(_)));
    assert!(matches!(unsupported(|cap| cap & !0xffff), Error::Broken(_)));
}

#[test]
fn a_wrong_completion_ends_the_use_of_the_controller() {
    let changes: [fn(&mut [u32; 4]); 5] = [
        // Another command, one that there cannot be, another queue, a head beyond the queue.
        |dwords| dwords[3] ^= 1,
        |dwords| dwords[3] |= 0x100,
        |dwords| dwords[2] += 1 << 16,
        |dwords| dwords[2] = dwords[2] & !0xffff | 16,
        |dwords| dwords[2] |= 0xffff,
    ];
    for change in changes {
        for wrong in 0..7 {
            let mut test = Test::new(|fake| {
                fake.defects.completion = Some(Box::new(move |number, dwords| {
                    if number == wrong {
                        change(dwords);
                    }
                }));
            });
            let error = match test.start() {
                Err(error) => error,
                Ok(mut nvme) => match test.units(&mut nvme) {
                    Err(error) => error,
                    Ok(units) => {
                        let error = test.read(&mut nvme, &units[0], 0, BUFFER, 512).unwrap_err();
                        // It is off, so the memory is free again.
                        assert!(!test.fake.borrow().is_on());
                        assert_eq!(test.read(&mut nvme, &units[0], 0, BUFFER, 512), Err(Error::Timeout));
                        assert_eq!(test.units(&mut nvme), Err(Error::Timeout));
                        nvme.stop(&mut test.machine).unwrap();
                        error
                    }
                },
            };
            assert!(matches!(error, Error::Broken(_)), "{wrong}: {error}");
        }
    }
}

#[test]
fn a_completion_of_the_wrong_phase_is_not_one() {
    let mut test = Test::new(|fake| {
        fake.defects.completion = Some(Box::new(|number, dwords| {
            if number == 6 {
                dwords[3] ^= 1 << 16;
            }
        }));
    });
    let (mut nvme, units) = test.started();
    assert_eq!(test.read(&mut nvme, &units[0], 0, BUFFER, 512), Err(Error::Timeout));
}

#[test]
fn a_command_that_is_not_answered_ends_the_use_of_the_controller() {
    for silent in 0..7 {
        let mut test = Test::new(|fake| fake.defects.silent_from = Some(silent));
        let Ok(mut nvme) = test.start() else {
            assert!(silent < 4 && !test.fake.borrow().is_on());
            continue;
        };
        let Ok(units) = test.units(&mut nvme) else {
            assert!(silent < 6);
            continue;
        };
        assert_eq!(test.read(&mut nvme, &units[0], 0, BUFFER, 512), Err(Error::Timeout));
        let commands = test.fake.borrow().commands.len();
        assert_eq!(test.read(&mut nvme, &units[0], 0, BUFFER, 512), Err(Error::Timeout));
        assert_eq!(test.fake.borrow().commands.len(), commands);
    }
}

#[test]
fn a_controller_that_fails_or_goes_during_a_read_is_given_up_after_one_deadline() {
    for status in [3, u64::MAX] {
        let mut test = Test::new(|fake| fake.defects.silent_from = Some(6));
        let (mut nvme, units) = test.started();
        let change = move |offset, value| if offset == 0x1c { status } else { value };
        test.fake.borrow_mut().defects.register = Some(Box::new(change));
        let before = test.machine.steps;
        assert_eq!(test.read(&mut nvme, &units[0], 0, BUFFER, 512), Err(Error::Timeout));
        assert!(test.machine.steps - before < 50);
    }
}

#[test]
fn a_failed_read_reports_its_status_and_the_next_one_works() {
    let mut test = Test::new(|fake| {
        fake.defects.completion = Some(Box::new(|number, dwords| {
            // An unrecovered read error, and do not retry.
            if number == 7 {
                dwords[3] |= 0x4281 << 17;
            }
        }));
    });
    let (mut nvme, units) = test.started();
    // The second of two commands fails.
    assert_eq!(test.read(&mut nvme, &units[0], 0, BUFFER, 1 << 20), Err(Error::Refused(0x281)));
    test.check_read(&mut nvme, &units[0], 0, BUFFER, 1 << 20);
}

#[test]
fn namespaces_that_cannot_be_read_are_left_out() {
    let namespace = FakeNamespace::new;
    let mut test = Test::new(|fake| {
        fake.namespaces = vec![
            namespace(1, 0),
            FakeNamespace { order: 0, ..namespace(2, 8) },
            FakeNamespace { order: 31, ..namespace(3, 8) },
            FakeNamespace { order: 8, ..namespace(4, 8) },
            FakeNamespace { order: 13, ..namespace(5, 8) },
            FakeNamespace { metadata: 8, ..namespace(6, 8) },
            FakeNamespace { metadata: 0x100, ..namespace(7, 8) },
            namespace(9, 8),
        ];
    });
    let (mut nvme, units) = test.started();
    let id = |unit: &Unit| if let UnitAddress::Namespace { id, .. } = unit.address { id } else { 0 };
    assert_eq!(units.iter().map(id).collect::<Vec<_>>(), [9]);
    test.check_read(&mut nvme, &units[0], 0, BUFFER, 512);
}

#[test]
fn a_format_beyond_the_16th_is_not_guessed() {
    let mut test = Test::new(|fake| {
        fake.defects.data = Some(Box::new(|kind, data| {
            if kind == 0 {
                data[26] |= 0x20;
            }
        }));
    });
    assert_eq!(test.started().1, []);
}

#[test]
fn a_write_protected_namespace_is_read_only() {
    let mut test = Test::new(|fake| {
        fake.defects.data = Some(Box::new(|kind, data| {
            if kind == 0 {
                data[99] = 1;
            }
        }));
    });
    assert!(test.started().1[0].media.is_read_only);
}

#[test]
fn a_long_list_of_namespaces_is_cut_and_one_out_of_order_refused() {
    let all = |ids: core::ops::RangeInclusive<u32>| ids.map(|id| FakeNamespace::new(id, 8)).collect::<Vec<_>>();
    let mut test = Test::new(|fake| fake.namespaces = all(1..=1024));
    assert_eq!(test.started().1.len(), MOST_NAMESPACES);
    let mut test = Test::new(|fake| fake.namespaces = all(u32::MAX - 3..=u32::MAX));
    assert_eq!(test.started().1.len(), 4);
    let mut test = Test::new(|fake| {
        fake.namespaces = all(1..=4);
        fake.namespaces.swap(1, 2);
    });
    let mut nvme = test.start().unwrap();
    assert!(matches!(test.units(&mut nvme), Err(Error::Broken(_))));
}

#[test]
fn namespaces_of_a_controller_without_a_list_are_tried_by_number() {
    let mut test = Test::new(|fake| {
        fake.has_list = false;
        fake.namespaces.push(FakeNamespace::new(5, 8));
    });
    assert_eq!(test.started().1.len(), 2);
}

#[test]
fn a_controller_that_describes_nothing_has_no_units() {
    let mut test = Test::new(|fake| fake.namespaces.clear());
    assert_eq!(test.started().1, []);
    // It says that it has done the command, but has written nothing.
    let mut test = Test::new(|fake| {
        fake.defects.data = Some(Box::new(|kind, data| {
            if kind == 0 {
                data.clear();
            }
        }))
    });
    assert_eq!(test.started().1, []);
}
