//! The drivers with fake devices, and with defects of these.

extern crate std;

use std::boxed::Box;
use std::cell::RefCell;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::addr::{PhysAddr, PhysRange};
use crate::disk::{BlockLen, Controller, Error, Media, Unit, UnitAddress};
use crate::fakes::machine::FakeMachine;
use crate::fakes::pci::{FakeFunction, FakePci, On};
use crate::fakes::virtio::{
    CONFIGURATION, FUNCTION_LEN, FakeUnit, FakeVirtio, Interface, MULTIPLIER, NOTIFICATION, SLOT_LEN, VirtioRegisters,
    contents,
};
use crate::pci::{Address, register};

const BASE: u64 = 0xfe00_0000;
const MEMORY: u64 = 0x100_0000;
const BUFFER: u64 = 0x200_0000;
const SECTORS: u64 = 1 << 20;
const INTERFACES: [Interface; 3] = [Interface::Pci, Interface::Slot, Interface::LegacySlot];
const ADDRESS: Address = Address::new(0, 5, 0).unwrap();

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

/// A capability: place, length, kind, BAR, offset, length of registers.
type Capability = (u8, u8, u8, u8, u32, u32);

/// A function with its BAR 4 at [`BASE`] and these capabilities.
fn function(capabilities: &[Capability]) -> FakePci {
    let function = capabilities.iter().fold(FakeFunction::new(0x1042_1af4, 0x01_0000), |function, capability| {
        let &(at, len, kind, bar, offset, registers) = capability;
        let function = function.capability(at, register::CAPABILITY_VENDOR, u32::from(kind) << 8 | u32::from(len));
        let function = function.set(at + 4, bar.into()).set(at + 8, offset);
        let function = function.set(at + 12, registers);
        if len > 16 && at < 0xf0 { function.set(at + 16, MULTIPLIER as u32) } else { function }
    });
    FakePci::default().with(On::Root(0), 5, 0, function)
}

/// QEMU's, the last one first.
const CAPABILITIES: [Capability; 5] = [
    (0x84, 20, 5, 0, 0, 0),
    (0x70, 20, 2, 4, NOTIFICATION as u32, 0x1000),
    (0x60, 16, 4, 4, CONFIGURATION as u32, 0x1000),
    (0x50, 16, 3, 4, 0x1000, 0x1000),
    (0x40, 16, 1, 4, 0, 0x1000),
];

fn find(mut pci: FakePci) -> Result<pci::Function, Error> {
    pci::Function::find(&mut pci, ADDRESS, &|bar| (bar == 4).then(|| range(BASE, FUNCTION_LEN)))
}

struct Test {
    machine: FakeMachine,
    fake: Rc<RefCell<FakeVirtio>>,
    room: u64,
}

impl Test {
    fn new(mut fake: FakeVirtio, room: u64) -> Self {
        fake.allowed.push(MEMORY..MEMORY + room);
        let fake = Rc::new(RefCell::new(fake));
        let mut machine = FakeMachine::new();
        machine.registers.push(Box::new(VirtioRegisters(fake.clone())));
        machine.ticks_per_look = 1 << 30;
        machine.most_steps = 1_000_000;
        // Nothing of what was in the room may matter.
        machine.memory.store(MEMORY, &vec![0xa5; room as usize]);
        Self { machine, fake, room }
    }

    fn disk(interface: Interface, change: impl FnOnce(&mut FakeVirtio)) -> Self {
        let mut fake = FakeVirtio::disk(BASE, interface, SECTORS);
        change(&mut fake);
        Self::new(fake, Block::ROOM)
    }

    fn scsi(interface: Interface, units: Vec<FakeUnit>, change: impl FnOnce(&mut FakeVirtio)) -> Self {
        let mut fake = FakeVirtio::scsi(BASE, interface, units);
        change(&mut fake);
        Self::new(fake, ScsiHost::ROOM)
    }

    fn place(&mut self) -> Place {
        let interface = self.fake.borrow().interface;
        match interface {
            Interface::Pci => Place::Pci(find(function(&CAPABILITIES)).unwrap()),
            _ => Place::Mmio(mmio::Slot::find(&mut self.machine, range(BASE, SLOT_LEN)).unwrap().unwrap().0),
        }
    }

    fn start(&mut self) -> Result<Block, Error> {
        let place = self.place();
        Block::start(&mut self.machine, place, range(MEMORY, self.room))
    }

    fn start_scsi(&mut self) -> Result<ScsiHost, Error> {
        let place = self.place();
        ScsiHost::start(&mut self.machine, place, range(MEMORY, self.room))
    }

    fn units(&mut self, controller: &mut impl Controller<FakeMachine>) -> Result<Vec<Unit>, Error> {
        let mut units = Vec::new();
        controller.units(&mut self.machine, &mut |unit| units.push(unit))?;
        Ok(units)
    }

    /// Reads to `at`, where the device may write only this.
    fn read_to(
        &mut self,
        controller: &mut impl Controller<FakeMachine>,
        unit: &Unit,
        first: u64,
        at: u64,
        len: u64,
    ) -> Result<Vec<u8>, Error> {
        self.fake.borrow_mut().allowed.push(at..at + len);
        let result = controller.read(&mut self.machine, unit, first, range(at, len));
        self.fake.borrow_mut().allowed.pop();
        result.map(|()| self.machine.memory.bytes(at, len as usize))
    }

    fn read(&mut self, block: &mut Block, first: u64, len: u64) -> Result<Vec<u8>, Error> {
        let unit = self.units(block).unwrap()[0];
        self.read_to(block, &unit, first, BUFFER, len)
    }

    /// Starts a disk and reads a sector.
    fn try_read(&mut self) -> Result<(), Error> {
        let mut block = self.start()?;
        self.read(&mut block, 0, 512).map(|_| ())
    }
}

#[track_caller]
fn assert_broken<T: core::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Broken(_))), "{result:?}");
}

#[test]
fn a_disk_is_read_by_each_kind_of_registers() {
    for interface in INTERFACES {
        let mut test = Test::disk(interface, |_| {});
        let mut block = test.start().unwrap();
        let media = Media { block_len: BlockLen::DISK, blocks: SECTORS, is_read_only: false, is_removable: false };
        assert_eq!(test.units(&mut block).unwrap(), [Unit { address: UnitAddress::Only, media }]);
        for (first, len) in [(0, 512), (1, 512), (7, 1024), (SECTORS - 1, 512), (100, 1 << 20)] {
            assert!(test.read(&mut block, first, len).unwrap() == contents(first, 512, len as usize), "{first}, {len}");
        }
        block.stop(&mut test.machine).unwrap();
        assert!(test.fake.borrow().is_reset(), "{interface:?}");
    }
}

#[test]
fn a_read_is_one_request_and_one_access_to_a_register() {
    let mut test = Test::disk(Interface::Pci, |_| {});
    let mut block = test.start().unwrap();
    let accesses = test.fake.borrow().accesses;
    assert!(accesses <= 36, "{accesses}");
    test.read(&mut block, 0, 1 << 20).unwrap();
    let fake = test.fake.borrow();
    assert_eq!(fake.accesses, accesses + 1);
    assert_eq!(fake.requests, [(vec![16], vec![1 << 20, 1])]);
}

#[test]
fn a_long_read_is_divided_into_requests_that_do_not_take_long() {
    let mut test = Test::disk(Interface::Slot, |_| {});
    let mut block = test.start().unwrap();
    let len = (16 << 20) + 512;
    assert!(test.read(&mut block, 3, len).unwrap() == contents(3, 512, len as usize));
    assert_eq!(test.fake.borrow().requests, [(vec![16], vec![16 << 20, 1]), (vec![16], vec![512, 1])]);
}

#[test]
fn a_read_is_divided_into_as_many_pieces_as_the_device_takes() {
    let pieces = |size_max: u32, seg_max: u32, most: u32| {
        let mut test = Test::disk(Interface::Pci, |fake| {
            fake.offered |= 1 << 1;
            fake.most = most;
            fake.configuration[8..12].copy_from_slice(&size_max.to_le_bytes());
            fake.configuration[12..16].copy_from_slice(&seg_max.to_le_bytes());
        });
        let mut block = test.start()?;
        assert!(test.read(&mut block, 5, 8192)? == contents(5, 512, 8192));
        let requests = core::mem::take(&mut test.fake.borrow_mut().requests);
        Ok(requests.into_iter().map(|(_, written)| written).collect::<Vec<_>>())
    };
    assert_eq!(pieces(4096, 4, 256).unwrap(), [[4096, 4096, 1]]);
    assert_eq!(pieces(4096, 1, 256).unwrap(), [[4096, 1]; 2]);
    // No segment is one segment, as Linux has it.
    assert_eq!(pieces(4096, 0, 256).unwrap(), [[4096, 1]; 2]);
    assert_eq!(pieces(3000, 2, 256).unwrap(), [vec![3000, 2632, 1], vec![2560, 1]]);
    assert_eq!(pieces(512, u32::MAX, 4).unwrap(), [[512, 512, 1]; 8]);
    assert_eq!(pieces(512, u32::MAX, 1 << 15).unwrap(), [[vec![512; 16], vec![1]].concat()]);
    assert_eq!(pieces(u32::MAX, 4, 5).unwrap(), [[8192, 1]]);
    for size_max in [0, 1, 15] {
        assert_broken(pieces(size_max, 32, 256));
    }
}

#[test]
fn sectors_are_counted_in_512_bytes_whatever_the_length_of_a_block() {
    for block_len in [512_u32, 1024, 2048, 4096] {
        let mut test = Test::disk(Interface::LegacySlot, |fake| {
            fake.configuration[20..24].copy_from_slice(&block_len.to_le_bytes());
            // Not a whole number of blocks: the rest cannot be read.
            fake.configuration[..8].copy_from_slice(&(SECTORS + 1).to_le_bytes());
        });
        let mut block = test.start().unwrap();
        let unit = test.units(&mut block).unwrap()[0];
        let factor = u64::from(block_len / 512);
        assert_eq!((unit.media.block_len.get(), unit.media.blocks), (block_len, (SECTORS + 1) / factor));
        let len = 3 * block_len as usize;
        assert!(test.read(&mut block, 9, len as u64).unwrap() == contents(9 * factor, 512, len));
    }
    for block_len in [0_u32, 1, 511, 520, 8192, 1 << 20, u32::MAX] {
        let mut test = Test::disk(Interface::Pci, |fake| {
            fake.configuration[20..24].copy_from_slice(&block_len.to_le_bytes());
        });
        assert_broken(test.start());
        assert!(test.fake.borrow().is_reset());
    }
}

#[test]
fn only_blocks_that_there_are_are_asked_for() {
    let mut test = Test::disk(Interface::Pci, |_| {});
    let mut block = test.start().unwrap();
    for (first, len) in [(SECTORS, 512), (SECTORS - 1, 1024), (u64::MAX, 512), (u64::MAX - 1, 1024), (0, 511), (0, 513)]
    {
        assert_eq!(test.read(&mut block, first, len), Err(Error::OutOfRange), "{first}, {len}");
    }
    assert!(test.fake.borrow().requests.is_empty());
    let mut test = Test::disk(Interface::Pci, |fake| fake.configuration[..8].fill(0));
    assert_eq!(test.try_read(), Err(Error::NoMedium));
    let mut test = Test::disk(Interface::Pci, |fake| fake.configuration[..8].fill(0xff));
    let mut block = test.start().unwrap();
    assert_eq!(test.units(&mut block).unwrap()[0].media.blocks, u64::MAX);
}

#[test]
fn a_disk_that_is_read_only_says_so() {
    let mut test = Test::disk(Interface::Pci, |fake| fake.offered |= 1 << 5);
    let mut block = test.start().unwrap();
    assert!(test.units(&mut block).unwrap()[0].media.is_read_only);
}

#[test]
fn the_ring_goes_round() {
    let mut test = Test::disk(Interface::Slot, |fake| fake.most = 4);
    test.machine.most_steps = u64::MAX;
    let mut block = test.start().unwrap();
    for first in 0..0x1_0009 {
        assert!(test.read(&mut block, first, 512).unwrap() == contents(first, 512, 512));
    }
}

#[test]
fn an_iommu_that_nobody_has_turned_on_does_not_matter() {
    let mut test = Test::disk(Interface::Pci, |fake| fake.offered |= 1 << 33 | 1 << 36 | 1 << 34 | 1 << 38);
    assert_eq!(test.try_read(), Ok(()));
    assert_eq!(test.fake.borrow().accepted, 1 << 2 | 1 << 6 | 1 << 32 | 1 << 33 | 1 << 36);
}

#[test]
fn a_device_that_does_not_answer_is_dead() {
    for interface in INTERFACES {
        let mut test = Test::disk(interface, |fake| fake.defects.silent_from = Some(1));
        let mut block = test.start().unwrap();
        test.read(&mut block, 0, 512).unwrap();
        assert_eq!(test.read(&mut block, 0, 512), Err(Error::Timeout));
        let accesses = test.fake.borrow().accesses;
        assert_eq!(test.read(&mut block, 0, 512), Err(Error::Timeout));
        assert_eq!(test.fake.borrow().accesses, accesses, "it is not asked again");
        block.stop(&mut test.machine).unwrap();
        assert!(test.fake.borrow().is_reset());
    }
}

#[test]
fn a_wait_lasts_half_a_minute() {
    let mut test = Test::disk(Interface::Pci, |fake| fake.defects.silent_from = Some(0));
    (test.machine.rate, test.machine.ticks_per_look) = (Some(1_000_000_000), 100_000_000);
    let mut block = test.start().unwrap();
    let start = crate::hal::Clock::ticks(&mut test.machine);
    assert_eq!(test.read(&mut block, 0, 512), Err(Error::Timeout));
    let waited = crate::hal::Clock::ticks(&mut test.machine) - start;
    assert!((32_000_000_000..36_000_000_000).contains(&waited), "{waited}");
}

#[test]
fn a_device_that_needs_a_reset_is_given_up_early() {
    let mut test = Test::disk(Interface::Pci, |fake| {
        (fake.defects.silent_from, fake.defects.says_so) = (Some(0), true);
    });
    assert_broken(test.try_read());
}

#[test]
fn what_a_device_says_about_requests_is_checked() {
    for interface in INTERFACES {
        let with = |step: u16, head: u32, len: u32| {
            let mut test = Test::disk(interface, |fake| {
                fake.defects.used = Some(Box::new(move |_, said| {
                    (said.step, said.head, said.len) = (step, head, said.len.wrapping_add(len));
                }));
            });
            let mut block = test.start().unwrap();
            let result = test.read(&mut block, 0, 512);
            if result.is_err() {
                // Who waits in vain stops the device itself.
                let is_reset = test.fake.borrow().is_reset();
                assert_eq!(is_reset, result != Err(Error::Timeout), "requests that nobody waits for are ended");
                assert_eq!(test.read(&mut block, 0, 512), Err(Error::Timeout), "it is dead");
            }
            result.map(|_| ())
        };
        assert_eq!(with(1, 0, 0), Ok(()));
        // Some devices do not count what they write.
        assert_eq!(with(1, 0, 0_u32.wrapping_sub(513)), Ok(()));
        for (step, head, len) in [(2, 0, 0), (u16::MAX, 0, 0), (0x8000, 0, 0), (1, 3, 0), (1, u32::MAX, 0), (1, 0, 1)] {
            assert_broken(with(step, head, len));
        }
        assert_eq!(with(0, 0, 0), Err(Error::Timeout));
    }
}

#[test]
fn a_status_has_to_be_written() {
    let with = |answer: fn(&mut Vec<u8>)| {
        let mut test =
            Test::disk(Interface::Pci, |fake| fake.defects.answer = Some(Box::new(move |_, bytes| answer(bytes))));
        test.try_read()
    };
    assert_eq!(with(|bytes| bytes[512] = 1), Err(Error::Refused(1)));
    assert_eq!(with(|bytes| bytes[512] = 2), Err(Error::Refused(2)));
    assert_broken(with(|bytes| bytes.truncate(512)));
    assert_broken(with(Vec::clear));
}

#[test]
fn a_device_that_refuses_a_request_can_be_asked_again() {
    let mut test = Test::disk(Interface::Pci, |fake| {
        fake.defects.answer = Some(Box::new(|number, bytes| bytes[512] = u8::from(number == 0)));
    });
    let mut block = test.start().unwrap();
    assert_eq!(test.read(&mut block, 0, 512), Err(Error::Refused(1)));
    assert!(test.read(&mut block, 1, 512).unwrap() == contents(1, 512, 512));
}

#[test]
fn a_start_that_fails_ends_with_a_reset() {
    for interface in INTERFACES {
        let failed = |change: &dyn Fn(&mut FakeVirtio)| {
            let mut test = Test::disk(interface, change);
            assert_broken(test.try_read());
            assert!(test.fake.borrow().is_reset());
        };
        for most in [0, 1, 3] {
            failed(&|fake| fake.most = most);
        }
        if interface != Interface::LegacySlot {
            failed(&|fake| fake.defects.refuses_features = true);
            failed(&|fake| fake.offered &= !(1 << 32));
        }
    }
    // The register that starts requests is outside of those that there are.
    let mut test = Test::disk(Interface::Pci, |fake| {
        fake.defects.register = Some(Box::new(|offset, value| if offset == 0x1e { 0xffff } else { value }));
    });
    assert_broken(test.try_read());
    assert!(test.fake.borrow().is_reset());
}

#[test]
fn a_device_that_cannot_be_reset_is_not_started() {
    for interface in INTERFACES {
        let mut test = Test::disk(interface, |fake| {
            // It was used before.
            fake.defects.register = Some(Box::new(move |offset, value| match (interface, offset) {
                (Interface::Pci, 0x14) | (Interface::Slot | Interface::LegacySlot, 0x70) => value | 1,
                _ => value,
            }));
        });
        assert_eq!(test.try_read(), Err(Error::Timeout));
        let mut test = Test::disk(interface, |_| {});
        let mut block = test.start().unwrap();
        test.fake.borrow_mut().defects.ignores_reset = true;
        assert_eq!(block.stop(&mut test.machine), Err(Error::Timeout));
    }
}

#[test]
fn a_configuration_that_changes_is_read_again() {
    let generations = |interface, offset: u64, last: u64| {
        let mut reads = 0;
        let mut test = Test::disk(interface, |fake| {
            fake.defects.register = Some(Box::new(move |at, value| {
                reads += u64::from(at == offset);
                if at == offset { reads.min(last) } else { value }
            }));
        });
        test.start().map(|_| ())
    };
    for (interface, offset) in [(Interface::Pci, 0x15), (Interface::Slot, 0xfc)] {
        assert_eq!(generations(interface, offset, 3), Ok(()));
        assert_broken(generations(interface, offset, u64::MAX));
    }
    assert_eq!(generations(Interface::LegacySlot, 0xfc, u64::MAX), Ok(()), "there is no such register");
}

#[test]
fn the_room_has_to_be_large_enough_and_start_on_a_page() {
    let mut test = Test::disk(Interface::Pci, |_| {});
    let place = test.place();
    for room in [range(MEMORY, Block::ROOM - 1), range(MEMORY + 16, Block::ROOM)] {
        assert_eq!(Block::start(&mut test.machine, place, room).unwrap_err(), Error::NoRoom);
    }
    // The firmware's own memory is not a device's.
    let own = range(crate::layout::FIRMWARE_RAM.start().get(), Block::ROOM);
    assert!(matches!(Block::start(&mut test.machine, place, own), Err(Error::Memory(_))));
    let mut block = test.start().unwrap();
    let unit = test.units(&mut block).unwrap()[0];
    assert!(matches!(block.read(&mut test.machine, &unit, 0, own), Err(Error::Memory(_))));
}

#[test]
fn a_slot_without_a_device_takes_one_read() {
    let mut test = Test::disk(Interface::LegacySlot, |_| {});
    let slots: Vec<_> = mmio::microvm_slots().collect();
    assert_eq!(slots.len(), 24);
    assert_eq!((slots[0], slots[23]), (range(0xfeb0_0000, 512), range(0xfeb0_2e00, 512)));
    test.fake.borrow_mut().base = slots[23].start().get();
    let before = test.machine.steps;
    let found: Vec<_> =
        slots.into_iter().filter_map(|slot| mmio::Slot::find(&mut test.machine, slot).unwrap()).collect();
    assert_eq!(test.machine.steps - before, 23 + 3);
    assert!(matches!(found[..], [(slot, 2)] if slot.is_legacy));
    for (offset, value) in [(0, 0), (0, u32::MAX), (4, 0), (4, 3), (8, 0), (8, u32::MAX)] {
        let mut test = Test::disk(Interface::Slot, |fake| {
            fake.defects.register = Some(Box::new(move |at, old| if at == offset { value.into() } else { old }));
        });
        assert_eq!(mmio::Slot::find(&mut test.machine, range(BASE, SLOT_LEN)), Ok(None), "{offset}, {value:#x}");
    }
}

#[test]
fn capabilities_describe_registers_inside_of_bars() {
    assert!(find(function(&CAPABILITIES)).is_ok());
    let with = |index: usize, change: &dyn Fn(&mut Capability)| {
        let mut capabilities = CAPABILITIES;
        change(&mut capabilities[index]);
        find(function(&capabilities)).map(|_| ())
    };
    for index in [1, 2, 4] {
        assert_broken(with(index, &|capability| capability.4 = FUNCTION_LEN as u32));
        assert_broken(with(index, &|capability| capability.4 = u32::MAX));
        assert_broken(with(index, &|capability| capability.5 = FUNCTION_LEN as u32 + 1));
        assert_broken(with(index, &|capability| capability.5 = u32::MAX));
        assert_broken(with(index, &|capability| capability.5 = 0));
        // BARs that there are not.
        for bar in [0, 5, 6, u8::MAX] {
            assert_broken(with(index, &|capability| capability.3 = bar));
        }
        // A capability that is too short, or of an unknown kind.
        assert_broken(with(index, &|capability| capability.1 = 12));
        assert_broken(with(index, &|capability| capability.2 = 9));
    }
    // Too few registers.
    assert_broken(with(4, &|capability| capability.5 = 0x37));
    assert_broken(with(2, &|capability| capability.5 = 7));
    assert_broken(with(1, &|capability| capability.5 = 1));
    // The multiplier is behind the end of the capability.
    assert_broken(with(1, &|capability| capability.1 = 16));
    // What nobody uses does not matter.
    assert_eq!(with(0, &|capability| capability.5 = u32::MAX), Ok(()));
    assert_eq!(with(3, &|capability| capability.5 = u32::MAX), Ok(()));
    // A capability that goes beyond the end of configuration space.
    let [access, notification, device, interrupt, _] = CAPABILITIES;
    let common = (0xf0, 17, 1, 4, 0, 0x1000);
    assert_broken(find(function(&[access, notification, device, interrupt, common])));
    let common = (0xf0, 16, 1, 4, 0, 0x1000);
    assert!(find(function(&[access, notification, device, interrupt, common])).is_ok());
}

#[test]
fn the_first_capability_of_a_kind_counts() {
    let second = (0xa0, 16, 1, 4, 0x1000, 0x1000);
    let capabilities = [&CAPABILITIES[..], &[second]].concat();
    let first = find(function(&capabilities)).unwrap();
    assert_ne!(first, find(function(&CAPABILITIES)).unwrap());
}

#[test]
fn a_list_of_capabilities_ends() {
    let empty = FakePci::default().with(On::Root(0), 5, 0, FakeFunction::new(0x1001_1af4, 0x01_0000));
    assert_broken(find(empty));
    let capabilities = u32::from(register::STATUS_CAPABILITIES) << 16;
    let function = FakeFunction::new(0x1042_1af4, 0x01_0000).set(register::COMMAND, capabilities);
    let to = |head: u32, next: u32| {
        function.clone().set(register::CAPABILITIES, head).set(0x40, next << 8 | 0x10).set(0xfc, next << 8 | 0x09)
    };
    for (head, next) in [(0x40, 0x40), (0xfc, 0xfc), (0x43, 0x43), (0xff, 0xff), (0x40, 0xfc), (0, 0), (0x10, 0)] {
        let mut pci = FakePci::default().with(On::Root(0), 5, 0, to(head, next));
        assert!(pci::Function::find(&mut pci, ADDRESS, &|_| None).is_err(), "{head:#x}, {next:#x}");
        assert!(pci.reads < 500, "{}", pci.reads);
    }
    // A function that is absent.
    assert_broken(find(FakePci::default()));
}

#[test]
fn registers_above_4_gib_are_refused() {
    let mut pci = function(&CAPABILITIES);
    let memory = |_| Some(range(1 << 32, FUNCTION_LEN));
    assert_broken(pci::Function::find(&mut pci, ADDRESS, &memory));
}

fn unit(target: u8, lun: u16) -> FakeUnit {
    FakeUnit { target, lun, kind: 0, blocks: 4096, block_len: 512, is_never_ready: false }
}

#[test]
fn all_targets_are_asked_by_a_few_accesses() {
    for interface in INTERFACES {
        let units = vec![unit(0, 0), unit(31, 2), unit(31, 300), unit(32, 0), unit(255, 7)];
        let mut test = Test::scsi(interface, units.clone(), |_| {});
        let mut host = test.start_scsi().unwrap();
        let accesses = test.fake.borrow().accesses;
        let found = test.units(&mut host).unwrap();
        let addresses: Vec<_> = found.iter().map(|unit| unit.address).collect();
        let expected = units.iter().map(|unit| UnitAddress::Scsi { target: unit.target.into(), lun: unit.lun });
        assert_eq!(addresses, expected.collect::<Vec<_>>());
        // 8 for all targets, one for each of four that are there, and four for each unit.
        assert_eq!(test.fake.borrow().accesses - accesses, 8 + 4 + 5 * 4, "{interface:?}");
        for unit in found {
            for (first, len) in [(0, 512), (9, 1 << 20)] {
                let read = test.read_to(&mut host, &unit, first, BUFFER, len).unwrap();
                assert!(read == contents(first, 512, len as usize));
            }
            assert_eq!(test.read_to(&mut host, &unit, 4096, BUFFER, 512), Err(Error::OutOfRange));
        }
        host.stop(&mut test.machine).unwrap();
        assert!(test.fake.borrow().is_reset());
    }
}

#[test]
fn drives_and_long_blocks_are_units_too() {
    let cd = FakeUnit { kind: 5, block_len: 2048, ..unit(1, 0) };
    let empty = FakeUnit { kind: 5, blocks: 0, ..unit(2, 0) };
    let long = FakeUnit { block_len: 4096, blocks: 1 << 40, ..unit(3, 0) };
    let odd = FakeUnit { block_len: 520, ..unit(4, 0) };
    let tape = FakeUnit { kind: 1, ..unit(5, 0) };
    let mut test = Test::scsi(Interface::Pci, vec![cd, empty, long, odd, tape], |_| {});
    let mut host = test.start_scsi().unwrap();
    let found = test.units(&mut host).unwrap();
    let media: Vec<_> = found.iter().map(|unit| (unit.media.block_len.get(), unit.media.blocks)).collect();
    assert_eq!(media, [(2048, 4096), (2048, 0), (4096, 1 << 40)]);
    assert!(test.read_to(&mut host, &found[2], 1 << 39, BUFFER, 4096).unwrap() == contents(1 << 39, 4096, 4096));
    assert_eq!(test.read_to(&mut host, &found[1], 0, BUFFER, 2048), Err(Error::NoMedium));
}

#[test]
fn a_host_with_limits_gets_what_it_takes() {
    let mut test = Test::scsi(Interface::Pci, vec![unit(0, 0), unit(4, 0), unit(5, 0)], |fake| {
        fake.most = 7;
        fake.configuration[8..12].copy_from_slice(&3_u32.to_le_bytes());
        fake.configuration[28..32].copy_from_slice(&(4_u32 << 16).to_le_bytes());
    });
    let mut host = test.start_scsi().unwrap();
    let found = test.units(&mut host).unwrap();
    assert_eq!(found.len(), 2, "the highest target is 4");
    test.fake.borrow_mut().requests.clear();
    assert!(test.read_to(&mut host, &found[0], 0, BUFFER, 2048).unwrap() == contents(0, 512, 2048));
    assert_eq!(test.fake.borrow().requests, [(vec![51], vec![108, 1536]), (vec![51], vec![108, 512])]);
    // No limit.
    let mut test = Test::scsi(Interface::Pci, vec![unit(0, 0)], |fake| fake.configuration[8..12].fill(0));
    let mut host = test.start_scsi().unwrap();
    let found = test.units(&mut host).unwrap();
    assert!(test.read_to(&mut host, &found[0], 0, BUFFER, 1 << 20).is_ok());
}

#[test]
fn a_request_that_is_refused_is_tried_in_shorter_pieces() {
    let mut test = Test::scsi(Interface::Pci, vec![unit(0, 0)], |_| {});
    let mut host = test.start_scsi().unwrap();
    let unit = test.units(&mut host).unwrap()[0];
    test.fake.borrow_mut().requests.clear();
    // INVALID FIELD IN CDB, as QEMU has it for a disk of the host's.
    test.fake.borrow_mut().defects.answer = Some(Box::new(|_, answer| {
        if answer.len() > 108 + (512 << 10) {
            answer[10] = 2;
            answer[..4].copy_from_slice(&18_u32.to_le_bytes());
            answer[12..26].copy_from_slice(&[0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0]);
        }
    }));
    for requests in [9, 17] {
        assert!(test.read_to(&mut host, &unit, 0, BUFFER, 1 << 20).unwrap() == contents(0, 512, 1 << 20));
        assert_eq!(test.fake.borrow().requests.len(), requests);
    }
    test.fake.borrow_mut().defects.answer = Some(Box::new(|_, answer| answer[10] = 0x18));
    assert_eq!(test.read_to(&mut host, &unit, 0, BUFFER, 1 << 20), Err(Error::Refused(0x18)));
}

#[test]
fn a_host_has_at_most_64_units() {
    let units = (0..200).map(|target| unit(target, 0)).collect();
    let mut test = Test::scsi(Interface::Pci, units, |_| {});
    let mut host = test.start_scsi().unwrap();
    let before = test.fake.borrow().accesses;
    assert_eq!(test.units(&mut host).unwrap().len(), 64);
    // Two accesses find 64 targets, one more finds the next ones, and the first of these is asked for its units. Then it ends.
    assert_eq!(test.fake.borrow().accesses - before, 3 + 65 + 64 * 4);
}

#[test]
fn units_that_never_become_ready_cost_one_wait_and_count_as_units() {
    let never = |target| FakeUnit { is_never_ready: true, ..unit(target, 0) };
    let looks = |count: u8| {
        let units = (0..count).map(never).chain([unit(count, 0)]).collect();
        let mut test = Test::scsi(Interface::Pci, units, |_| {});
        let mut host = test.start_scsi().unwrap();
        let before = test.fake.borrow().accesses;
        let found = test.units(&mut host).unwrap().len();
        (test.fake.borrow().accesses - before, found)
    };
    let ((one, found), (many, found_too)) = (looks(1), looks(63));
    assert_eq!((found, found_too), (1, 1));
    // Its units are listed, and it is asked twice.
    assert_eq!(many - one, 62 * 3);
    assert_eq!(looks(64).1, 0);
}

#[test]
fn what_a_host_says_about_commands_is_checked() {
    let with = |change: fn(&mut Vec<u8>)| {
        let mut test = Test::scsi(Interface::Pci, vec![unit(0, 0)], |_| {});
        let mut host = test.start_scsi().unwrap();
        let unit = test.units(&mut host).unwrap()[0];
        test.fake.borrow_mut().defects.answer = Some(Box::new(move |_, answer| change(answer)));
        test.read_to(&mut host, &unit, 0, BUFFER, 512).map(|_| ())
    };
    assert_eq!(with(|_| {}), Ok(()));
    // No response; fewer bytes than it was asked for, and than none.
    assert_broken(with(Vec::clear));
    assert_broken(with(|answer| answer[4] = 1));
    assert_broken(with(|answer| answer[4..8].fill(0xff)));
    // Responses and statuses.
    assert_eq!(with(|answer| answer[11] = 9), Err(Error::Refused(9 << 8)));
    assert_eq!(with(|answer| answer[10] = 0x18), Err(Error::Refused(0x18)));
    // Busy for ever, and reset for ever.
    assert_broken(with(|answer| answer[10] = 8));
    assert_broken(with(|answer| answer[11] = 4));
    // Sense data that are not there, and longer than there is room for.
    assert_eq!(with(|answer| answer[10] = 2), Err(Error::Refused(0)));
    assert_eq!(
        with(|answer| {
            answer[..4].fill(0xff);
            answer[10] = 2;
            answer[12..26].copy_from_slice(&[0x70, 0, 3, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x11, 0]);
        }),
        Err(Error::Refused(0x03_1100))
    );
}

#[test]
fn a_host_that_breaks_during_the_search_is_given_up() {
    for number in [0, 31, 32, 255, 256, 260] {
        let mut test = Test::scsi(Interface::Pci, vec![unit(200, 0)], |fake| fake.defects.silent_from = Some(number));
        let mut host = test.start_scsi().unwrap();
        let result = test.units(&mut host);
        let is_whole = number > 258;
        // Also if it is a unit that does not answer: the host is stopped before its memory is used again.
        assert!(matches!(result, Err(Error::Timeout)), "{number}: {result:?}");
        let mut test = Test::scsi(Interface::Pci, vec![unit(200, 0)], |fake| {
            fake.defects.used = Some(Box::new(move |at, said| said.step += u16::from(at == number)));
        });
        let mut host = test.start_scsi().unwrap();
        assert!(test.units(&mut host).map_or(true, |units| units.is_empty() || is_whole), "{number}");
    }
    // Also by a unit of the last target: nothing is asked after it.
    let mut test = Test::scsi(Interface::Pci, vec![unit(255, 0)], |fake| fake.defects.silent_from = Some(257));
    let mut host = test.start_scsi().unwrap();
    assert_eq!(test.units(&mut host), Err(Error::Timeout));
}
