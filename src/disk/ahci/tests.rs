//! The driver with a fake controller, and with defects of one.

extern crate std;

use std::boxed::Box;
use std::cell::RefCell;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::addr::PhysAddr;
use crate::disk::BlockLen;
use crate::fakes::ahci::{AhciRegisters, FakeAhci, FakeDevice, QEMU_CAPABILITIES, REGISTERS_LEN};
use crate::fakes::machine::FakeMachine;

const BASE: u64 = 0xfe00_0000;
const ROOM: u64 = Ahci::ROOM;
const MEMORY: u64 = 0x100_0000;
const BUFFER: u64 = 0x200_0000;
/// A disk, and a CD.
const BLOCKS: u64 = 1 << 20;
const SECTORS: u32 = 1 << 16;

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

struct Test {
    machine: FakeMachine,
    fake: Rc<RefCell<FakeAhci>>,
}

impl Test {
    /// A controller with a disk on port 0, and these changes.
    fn new(change: impl FnOnce(&mut FakeAhci)) -> Self {
        let mut fake = FakeAhci::new(BASE, Some(FakeDevice::disk(BLOCKS)));
        fake.allowed.push(MEMORY..MEMORY + ROOM);
        change(&mut fake);
        let fake = Rc::new(RefCell::new(fake));
        let mut machine = FakeMachine::new();
        machine.registers.push(Box::new(AhciRegisters(fake.clone())));
        machine.ticks_per_look = 1 << 30;
        machine.most_steps = 100_000;
        Self { machine, fake }
    }

    /// A controller with a CD drive on port 3 only.
    fn with_cd(blocks: u32, attentions: u32) -> Self {
        Self::new(|fake| {
            fake.devices[0] = None;
            fake.devices[3] = Some(FakeDevice::Cd { blocks, attentions });
        })
    }

    fn start(&mut self) -> Result<Ahci, Error> {
        Ahci::start(&mut self.machine, range(BASE, REGISTERS_LEN), range(MEMORY, ROOM))
    }

    fn units(&mut self, ahci: &mut Ahci) -> Result<Vec<Unit>, Error> {
        let mut units = Vec::new();
        ahci.units(&mut self.machine, &mut |unit| units.push(unit))?;
        Ok(units)
    }

    /// Starts the controller, and returns it with its units.
    fn started(&mut self) -> (Ahci, Vec<Unit>) {
        let mut ahci = self.start().unwrap();
        let units = self.units(&mut ahci).unwrap();
        (ahci, units)
    }

    /// Reads to `at`, where the controller may write only this.
    fn read(&mut self, ahci: &mut Ahci, unit: &Unit, first: u64, at: u64, len: u64) -> Result<Vec<u8>, Error> {
        self.fake.borrow_mut().allowed.push(at..at + len);
        let result = ahci.read(&mut self.machine, unit, first, range(at, len));
        self.fake.borrow_mut().allowed.pop();
        result.map(|()| self.machine.memory.bytes(at, len as usize))
    }

    fn check_read(&mut self, ahci: &mut Ahci, unit: &Unit, first: u64, at: u64, len: u64) {
        let UnitAddress::Port(port) = unit.address else { panic!("{unit:?}") };
        let device = self.fake.borrow().devices[usize::from(port)].unwrap();
        let blocks = len / u64::from(unit.media.block_len.get());
        let expected: Vec<u8> = (first..first + blocks).flat_map(|number| device.block(port, number)).collect();
        assert!(self.read(ahci, unit, first, at, len).unwrap() == expected, "{first}, {at:#x}, {len:#x}");
    }

    fn ports(units: &[Unit]) -> Vec<UnitAddress> {
        units.iter().map(|unit| unit.address).collect()
    }

    /// The accesses to registers since the last call.
    fn accesses(&self) -> Vec<(u64, bool)> {
        core::mem::take(&mut self.fake.borrow_mut().accesses)
    }

    fn commands(&self) -> usize {
        self.fake.borrow().commands.len()
    }
}

#[test]
fn an_empty_controller_costs_a_read_for_each_port_and_three_more() {
    let mut test = Test::new(|fake| fake.devices[0] = None);
    let (mut ahci, units) = test.started();
    assert_eq!(units, []);
    let accesses = test.accesses();
    assert!(accesses.len() == 3 + 6 && accesses.iter().all(|&(_, is_write)| !is_write), "{accesses:x?}");
    ahci.stop(&mut test.machine).unwrap();
    assert_eq!(test.accesses(), []);
}

#[test]
fn disks_and_cds_are_units_by_port() {
    let mut test = Test::new(|fake| {
        fake.devices[2] = Some(FakeDevice::Cd { blocks: SECTORS, attentions: 2 });
        fake.devices[5] = Some(FakeDevice::Disk { blocks: 1 << 48, block_len: 4096 });
    });
    let (_, units) = test.started();
    let unit = |port, block_len, blocks, is_cd| Unit {
        address: UnitAddress::Port(port),
        media: Media { block_len: BlockLen::new(block_len).unwrap(), blocks, is_read_only: is_cd, is_removable: is_cd },
    };
    let expected = [unit(0, 512, BLOCKS, false), unit(2, 2048, SECTORS.into(), true), unit(5, 4096, 1 << 48, false)];
    assert_eq!(units, expected);
}

#[test]
fn blocks_go_to_any_address() {
    for block_len in [512, 1024, 2048, 4096] {
        let mut test = Test::new(|fake| {
            fake.devices[0] = Some(FakeDevice::Disk { blocks: BLOCKS, block_len });
            fake.devices[1] = Some(FakeDevice::Cd { blocks: SECTORS, attentions: 0 });
        });
        let (mut ahci, units) = test.started();
        for unit in &units {
            for offset in [0, 2, 512, 4094, 1, 3, 4095] {
                for len in [4096, 8192, 20 << 10] {
                    test.check_read(&mut ahci, unit, 3, BUFFER + offset, len);
                }
                let len = unit.media.block_len.get().into();
                test.check_read(&mut ahci, unit, unit.media.blocks - 1, BUFFER + offset, len);
            }
            test.check_read(&mut ahci, unit, 5, BUFFER, 0);
        }
    }
}

#[test]
fn a_read_is_one_access_to_a_register_for_each_4_mib() {
    let mut test = Test::new(|fake| fake.devices[1] = Some(FakeDevice::Cd { blocks: SECTORS, attentions: 0 }));
    let (mut ahci, units) = test.started();
    for (unit, issue) in units.iter().zip([0x138, 0x1b8]) {
        test.accesses();
        for first in 0..10 {
            test.check_read(&mut ahci, unit, first, BUFFER, 4096);
        }
        assert_eq!(test.accesses(), vec![(issue, true); 10]);
        test.check_read(&mut ahci, unit, 1, BUFFER + 2, (4 << 20) + 4096);
        assert_eq!(test.accesses(), vec![(issue, true); 2]);
    }
}

#[test]
fn a_slot_that_becomes_free_late_is_not_used_for_the_next_command() {
    let mut test = Test::new(|fake| fake.defects.frees_late = true);
    let mut ahci = test.start().unwrap();
    // The answer to the first command comes without a message, so its slot must become free.
    test.fake.borrow_mut().defects.frees_late = false;
    let units = test.units(&mut ahci).unwrap();
    test.fake.borrow_mut().defects.frees_late = true;
    for first in 0..5 {
        test.check_read(&mut ahci, &units[0], first, BUFFER, 512);
    }
    // A controller with one slot.
    let mut test = Test::new(|fake| fake.cap = QEMU_CAPABILITIES & !0x1f00);
    let (mut ahci, units) = test.started();
    for first in 0..5 {
        test.check_read(&mut ahci, &units[0], first, BUFFER, 512);
    }
}

#[test]
fn a_read_beyond_the_end_is_refused_without_a_command() {
    let mut test = Test::new(|fake| fake.devices[0] = Some(FakeDevice::disk(100)));
    let (mut ahci, units) = test.started();
    let before = test.commands();
    for (first, len) in [(100, 512), (99, 1024), (0, 100), (u64::MAX, 512)] {
        assert_eq!(test.read(&mut ahci, &units[0], first, BUFFER, len), Err(Error::OutOfRange));
    }
    for address in [UnitAddress::Only, UnitAddress::Port(1), UnitAddress::Port(255)] {
        let other = Unit { address, ..units[0] };
        assert_eq!(test.read(&mut ahci, &other, 0, BUFFER, 512), Err(Error::OutOfRange));
    }
    assert_eq!(test.commands(), before);
}

#[test]
fn memory_that_the_firmware_must_not_write_is_not_lent() {
    let mut test = Test::new(|fake| fake.devices[1] = Some(FakeDevice::Cd { blocks: SECTORS, attentions: 0 }));
    let (mut ahci, units) = test.started();
    let own = crate::layout::FIRMWARE_RAM.start().get();
    for unit in &units {
        for at in [own, own + 1, 0xffff_0000, 1 << 32] {
            let result = ahci.read(&mut test.machine, unit, 0, range(at, 2048));
            assert!(matches!(result, Err(Error::Memory(_))), "{at:#x}");
        }
        test.check_read(&mut ahci, unit, 0, BUFFER, 2048);
    }
    let start = |test: &mut Test, registers, room| Ahci::start(&mut test.machine, registers, room).unwrap_err();
    let registers = range(BASE, REGISTERS_LEN);
    assert!(matches!(start(&mut test, registers, range(own, ROOM)), Error::Memory(_)));
    assert_eq!(start(&mut test, registers, range(MEMORY, ROOM - 1)), Error::NoRoom);
    assert_eq!(start(&mut test, registers, range(MEMORY + 8, ROOM)), Error::NoRoom);
    let above = range(1 << 32, REGISTERS_LEN);
    assert!(matches!(start(&mut test, above, range(MEMORY, ROOM)), Error::Memory(_)));
    assert!(matches!(start(&mut test, range(BASE, 0xc), range(MEMORY, ROOM)), Error::Broken(_)));
}

#[test]
fn a_port_whose_registers_are_cut_off_is_none() {
    let mut test = Test::new(|fake| {
        fake.devices = [Some(FakeDevice::disk(8)); 32];
        fake.implemented = u32::MAX;
    });
    let mut ahci = Ahci::start(&mut test.machine, range(BASE, 0x27f), range(MEMORY, ROOM)).unwrap();
    assert_eq!(Test::ports(&test.units(&mut ahci).unwrap()), [0, 1].map(UnitAddress::Port));
}

#[test]
fn only_the_first_ports_with_a_device_are_used_and_the_others_left_alone() {
    let mut test = Test::new(|fake| {
        fake.devices = [Some(FakeDevice::disk(8)); 32];
        fake.implemented = !2;
    });
    let (mut ahci, units) = test.started();
    assert_eq!(Test::ports(&units), [0, 2, 3, 4, 5, 6, 7, 8].map(UnitAddress::Port));
    assert!(test.accesses().iter().all(|&(at, is_write)| !(0x180..0x200).contains(&at) && (at < 0x580 || !is_write)));
    for unit in &units {
        test.check_read(&mut ahci, unit, 1, BUFFER, 1024);
    }
    ahci.stop(&mut test.machine).unwrap();
    assert!(!test.fake.borrow().is_running());
}

#[test]
fn a_device_that_is_neither_disk_nor_cd_drive_is_left_out_and_its_port_stopped() {
    let mut test = Test::new(|fake| fake.devices[0] = Some(FakeDevice::Other(0x9669_0101)));
    assert_eq!(test.started().1, []);
    assert!(!test.fake.borrow().is_running());
}

#[test]
fn an_empty_drive_is_a_unit_without_blocks() {
    let mut test = Test::with_cd(0, 1);
    let (mut ahci, units) = test.started();
    assert_eq!((units[0].media.blocks, units[0].media.is_removable), (0, true));
    assert_eq!(test.read(&mut ahci, &units[0], 0, BUFFER, 2048), Err(Error::NoMedium));
}

#[test]
fn a_drive_may_have_something_else_to_say_first_but_not_for_ever() {
    for (attentions, expected) in [(0, 1), (1, 1), (7, 1), (8, 0), (u32::MAX, 0)] {
        let mut test = Test::with_cd(SECTORS, attentions);
        let (mut ahci, units) = test.started();
        assert_eq!(units.len(), expected, "{attentions}");
        if let [unit] = units[..] {
            test.check_read(&mut ahci, &unit, 16, BUFFER, 4096);
        } else {
            assert!(!test.fake.borrow().is_running());
        }
    }
}

#[test]
fn a_cd_that_is_taken_out_is_an_error_of_the_read() {
    let mut test = Test::with_cd(SECTORS, 0);
    let (mut ahci, units) = test.started();
    test.fake.borrow_mut().devices[3] = Some(FakeDevice::Cd { blocks: 0, attentions: 0 });
    assert_eq!(test.read(&mut ahci, &units[0], 0, BUFFER, 2048), Err(Error::NoMedium));
    test.fake.borrow_mut().devices[3] = Some(FakeDevice::Cd { blocks: 4, attentions: 0 });
    test.check_read(&mut ahci, &units[0], 0, BUFFER, 2048);
    assert_eq!(test.read(&mut ahci, &units[0], 4, BUFFER, 2048), Err(Error::Refused(0x5_2100)));
}

#[test]
fn a_stopped_controller_is_quiet_and_can_be_started_again() {
    let mut test = Test::new(|fake| fake.control = 0);
    let (mut ahci, units) = test.started();
    ahci.stop(&mut test.machine).unwrap();
    assert!(!test.fake.borrow().is_running());
    assert_eq!(test.read(&mut ahci, &units[0], 0, BUFFER, 512), Err(Error::Timeout));
    let (mut ahci, units) = test.started();
    test.check_read(&mut ahci, &units[0], 0, BUFFER, 512);
    // Ports that somebody has left running are stopped first.
    let (mut ahci, units) = test.started();
    test.check_read(&mut ahci, &units[0], 0, BUFFER, 512);
}

#[test]
fn a_failed_read_reports_status_and_error_and_the_next_one_works() {
    let mut test = Test::new(|fake| {
        fake.defects.end = Some(Box::new(|number, status, error, _| {
            if number == 1 {
                (*status, *error) = (0x51, 0x40);
            }
        }));
    });
    let (mut ahci, units) = test.started();
    assert_eq!(test.read(&mut ahci, &units[0], 0, BUFFER, 512), Err(Error::Refused(0x5140)));
    test.check_read(&mut ahci, &units[0], 0, BUFFER, 512);
}

#[test]
fn a_read_of_too_few_bytes_is_an_error() {
    for device in [FakeDevice::disk(BLOCKS), FakeDevice::Cd { blocks: SECTORS, attentions: 0 }] {
        for wrong in [0, 510, 1 << 31] {
            let mut test = Test::new(|fake| fake.devices[0] = Some(device));
            let (mut ahci, units) = test.started();
            test.fake.borrow_mut().defects.end = Some(Box::new(move |_, _, _, bytes| *bytes = wrong));
            assert!(matches!(test.read(&mut ahci, &units[0], 0, BUFFER, 2048), Err(Error::Broken(_))));
        }
    }
}

#[test]
fn a_message_that_says_busy_is_not_the_end() {
    for status in [0x80, 0xd0, 0x58, 0xff] {
        let mut test = Test::new(|_| {});
        let (mut ahci, units) = test.started();
        test.fake.borrow_mut().defects.end = Some(Box::new(move |_, to, _, _| *to = status));
        assert_eq!(test.read(&mut ahci, &units[0], 0, BUFFER, 512), Err(Error::Timeout));
    }
}

#[test]
fn a_command_that_is_not_answered_ends_the_use_of_the_controller() {
    for device in [FakeDevice::disk(BLOCKS), FakeDevice::Cd { blocks: SECTORS, attentions: 1 }] {
        for silent in 0..8 {
            let mut test = Test::new(|fake| {
                fake.devices[0] = Some(device);
                fake.defects.silent_from = Some(silent);
            });
            let (mut ahci, units) = test.started();
            let [unit] = units[..] else {
                assert!(!test.fake.borrow().is_running());
                continue;
            };
            test.fake.borrow_mut().defects.silent_from = Some(0);
            assert_eq!(test.read(&mut ahci, &unit, 0, BUFFER, 2048), Err(Error::Timeout));
            let commands = test.commands();
            assert_eq!(test.read(&mut ahci, &unit, 0, BUFFER, 2048), Err(Error::Timeout));
            assert_eq!(test.units(&mut ahci), Err(Error::Timeout));
            assert_eq!(test.commands(), commands);
            ahci.stop(&mut test.machine).unwrap();
            assert!(!test.fake.borrow().is_running());
        }
    }
}

#[test]
fn a_port_that_fails_is_given_up_after_one_deadline() {
    for status in [1 << 27, 1 << 28, 1 << 29, u32::MAX] {
        let mut test = Test::new(|fake| {
            fake.defects.silent_from = Some(1);
            fake.defects.silent_status = status;
        });
        let (mut ahci, units) = test.started();
        let before = test.machine.steps;
        assert_eq!(test.read(&mut ahci, &units[0], 0, BUFFER, 512), Err(Error::Timeout));
        assert!(test.machine.steps - before < 60);
    }
}

#[test]
fn a_port_that_stays_busy_is_left_out_and_stopped() {
    let mut test = Test::new(|fake| fake.defects.stays_busy = true);
    assert_eq!(test.started().1, []);
    assert!(!test.fake.borrow().is_running());
}

#[test]
fn a_controller_whose_port_does_not_stop_is_reset() {
    let mut test = Test::new(|_| {});
    let (mut ahci, _) = test.started();
    test.fake.borrow_mut().defects.never_stops = true;
    ahci.stop(&mut test.machine).unwrap();
    assert!(!test.fake.borrow().is_running());
    // One that fails and does not stop.
    let mut test = Test::new(|fake| fake.defects.never_stops = true);
    let mut ahci = test.start().unwrap();
    test.fake.borrow_mut().defects.silent_from = Some(0);
    assert!(matches!(test.units(&mut ahci), Err(Error::Broken(_))));
    assert!(!test.fake.borrow().is_running());
    assert_eq!(test.units(&mut ahci), Err(Error::Timeout));
    // And is not reset either.
    let mut test = Test::new(|fake| fake.defects.never_stops = true);
    let mut ahci = test.start().unwrap();
    test.fake.borrow_mut().defects.silent_from = Some(0);
    test.fake.borrow_mut().defects.never_resets = true;
    assert_eq!(test.units(&mut ahci), Err(Error::Timeout));
    assert_eq!(ahci.stop(&mut test.machine), Err(Error::Timeout));
}

#[test]
fn data_that_is_under_way_when_a_command_is_given_up_does_not_come_later() {
    let mut test = Test::new(|_| {});
    let (mut ahci, units) = test.started();
    test.fake.borrow_mut().defects.silent_from = Some(0);
    let into = PhysRange::new(PhysAddr::new(BUFFER), 512).unwrap();
    assert_eq!(ahci.read(&mut test.machine, &units[0], 0, into), Err(Error::Timeout));
    ahci.stop(&mut test.machine).unwrap();
    assert!(!test.fake.borrow().writes());
    // A port whose device does not say what it is.
    let mut test = Test::new(|_| {});
    let mut ahci = test.start().unwrap();
    test.fake.borrow_mut().defects.silent_from = Some(0);
    assert_eq!(test.units(&mut ahci), Ok(std::vec![]));
    assert!(!test.fake.borrow().writes());
}

#[test]
fn a_controller_that_is_gone_is_given_up_at_once() {
    let gone = || Some(Box::new(|_, _| u32::MAX) as Box<dyn FnMut(u64, u32) -> u32>);
    let mut test = Test::new(|fake| fake.defects.register = gone());
    assert_eq!(test.start().unwrap_err(), Error::Timeout);
    assert_eq!(test.accesses().len(), 1);
    let mut test = Test::new(|_| {});
    let mut ahci = test.start().unwrap();
    test.fake.borrow_mut().defects.register = gone();
    let before = test.machine.steps;
    assert_eq!(test.units(&mut ahci), Err(Error::Timeout));
    assert_eq!(ahci.stop(&mut test.machine), Err(Error::Timeout));
    assert!(test.machine.steps - before < 100);
}

#[test]
fn interrupt_status_decides_nothing_while_commands_end() {
    let mut test = Test::new(|fake| {
        fake.defects.register = Some(Box::new(|at, value| if at & 0x7f == 0x10 { u32::MAX } else { value }));
    });
    let (mut ahci, units) = test.started();
    test.check_read(&mut ahci, &units[0], 0, BUFFER, 512);
}

#[test]
fn a_disk_that_cannot_be_read_is_left_out() {
    let changes: [fn(&mut Vec<u8>); 10] = [
        // No data, no DMA, no addresses by number, no addresses of 48 bits, or the words are not there.
        |data| data.clear(),
        |data| data[99] = 2,
        |data| data[99] = 1,
        |data| data[167] = 0x40,
        |data| data[167] = 0xc4,
        // No blocks, and too many.
        |data| data[200..208].fill(0),
        |data| data[200..208].fill(0xff),
        // Blocks of 256 bytes, of 8192 bytes, of more than there can be.
        |data| data[213] = 0x50,
        |data| (data[213], data[235]) = (0x50, 0x10),
        |data| (data[213], data[237]) = (0x50, 0x80),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut test = Test::new(|fake| {
            fake.devices[1] = Some(FakeDevice::disk(8));
            fake.defects.data = Some(Box::new(move |number, data| {
                if number == 0 {
                    change(data);
                }
            }));
        });
        let (mut ahci, units) = test.started();
        assert_eq!(Test::ports(&units), [UnitAddress::Port(1)], "{number}");
        test.check_read(&mut ahci, &units[0], 0, BUFFER, 512);
    }
}

#[test]
fn sizes_that_are_not_there_are_not_read() {
    let mut test = Test::new(|fake| {
        // The length of a block, but the word that says that it counts is not valid.
        fake.defects.data = Some(Box::new(|_, data| (data[213], data[235]) = (0x90, 8)));
    });
    assert_eq!(test.started().1[0].media.block_len, BlockLen::DISK);
}

#[test]
fn a_controller_with_narrow_addresses_reads_above_4_gib_aside() {
    let above = range(4 << 30, 1 << 20);
    for (cap, direct) in [(QEMU_CAPABILITIES, true), (QEMU_CAPABILITIES & !(1 << 31), false)] {
        let mut test = Test::new(|fake| fake.cap = cap);
        let (mut ahci, units) = test.started();
        let room = range(0x300_0000, crate::hal::paging::room_for(above));
        crate::hal::Memory::map(&mut test.machine, above, room).unwrap();
        let at = above.start().get();
        test.fake.borrow_mut().allowed.push(at..at + 512);
        let result = ahci.read(&mut test.machine, &units[0], 1, range(at, 512));
        // What is read aside cannot be copied there.
        assert_eq!(result.is_ok(), direct, "{result:?}");
    }
}
