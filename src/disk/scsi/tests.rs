//! Units that answer as they should, and otherwise.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::addr::PhysAddr;
use crate::fakes::machine::FakeMachine;

const ANSWERS: u64 = 0x100_0000;
const DATA: u64 = 0x200_0000;

/// A unit with answers by operation.
struct FakeUnit {
    kind: [u8; 2],
    last: u64,
    block_len: u32,
    flags: u8,
    /// Of an answer, only so many bytes are written.
    most_written: usize,
    /// What it says before the first answer, the last one first.
    first: Vec<Outcome>,
    /// Whether it is ready, the last one first; ready then.
    ready: Vec<Outcome>,
    commands: Vec<Command>,
}

impl FakeUnit {
    fn disk(last: u64, block_len: u32) -> Self {
        let (first, ready, commands) = (Vec::new(), Vec::new(), Vec::new());
        Self { kind: [0, 0], last, block_len, flags: 0, most_written: usize::MAX, first, ready, commands }
    }

    fn identify(&mut self) -> Result<Option<Media>, Error> {
        let scratch = PhysRange::new(PhysAddr::new(ANSWERS), SCRATCH).unwrap();
        identify(self, &mut FakeMachine::new(), scratch, &mut Patience::default())
    }

    fn read(&mut self, media: &Media, first: u64, len: u64, most: u64) -> Result<(), Error> {
        read(self, &mut FakeMachine::new(), media, first, PhysRange::new(PhysAddr::new(DATA), len).unwrap(), most)
    }
}

impl LogicalUnit<FakeMachine> for FakeUnit {
    fn execute(&mut self, machine: &mut FakeMachine, command: Command, into: PhysRange) -> Result<Outcome, Error> {
        self.commands.push(command);
        if let Some(outcome) = self.first.pop() {
            return Ok(outcome);
        }
        let answer = match command.0[0] {
            0x00 => match self.ready.pop() {
                Some(outcome) => return Ok(outcome),
                None => Vec::new(),
            },
            0x12 => [&self.kind[..], &[0; 34]].concat(),
            0x1a => vec![3, 0, self.flags, 0],
            0x25 => [u32::try_from(self.last).unwrap_or(u32::MAX).to_be_bytes(), self.block_len.to_be_bytes()].concat(),
            0x9e => [&self.last.to_be_bytes()[..], &self.block_len.to_be_bytes(), &[0; 20]].concat(),
            0x28 | 0x88 => vec![0x5a; into.len() as usize],
            other => panic!("{other:#x}"),
        };
        let answer = &answer[..answer.len().min(self.most_written)];
        assert!(answer.len() as u64 <= into.len(), "{command:?}");
        machine.memory.store(into.start().get(), answer);
        Ok(Outcome::Good(answer.len() as u64))
    }
}

fn check(key: u8, code: u8) -> Outcome {
    Outcome::Check(Sense { key, code, qualifier: 1 })
}

const RESET: Outcome = Outcome::Check(Sense { key: 6, code: 0x29, qualifier: 0 });

#[test]
fn a_disk_says_its_length_and_whether_it_can_be_written() {
    let media = FakeUnit::disk(1023, 512).identify().unwrap().unwrap();
    let expected = Media { block_len: BlockLen::DISK, blocks: 1024, is_read_only: false, is_removable: false };
    assert_eq!(media, expected);
    let mut large = FakeUnit { flags: 0x80, ..FakeUnit::disk(0x12_3456_789a, 4096) };
    let media = large.identify().unwrap().unwrap();
    assert_eq!((media.blocks, media.block_len.get(), media.is_read_only), (0x12_3456_789b, 4096, true));
    // A disk with exactly the most blocks of the short command.
    assert_eq!(FakeUnit::disk(u32::MAX.into(), 512).identify().unwrap().unwrap().blocks, 1 << 32);
    assert_eq!(FakeUnit::disk(u64::MAX, 512).identify().unwrap().unwrap().blocks, u64::MAX);
}

#[test]
fn a_cd_is_removable_and_read_only() {
    let media = FakeUnit { kind: [5, 0x80], ..FakeUnit::disk(99, 2048) }.identify().unwrap().unwrap();
    assert_eq!(media, Media { block_len: BlockLen::CD, blocks: 100, is_read_only: true, is_removable: true });
}

#[test]
fn an_empty_drive_has_no_blocks() {
    let mut unit = FakeUnit { kind: [5, 0x80], ready: vec![check(2, 0x3a), RESET], ..FakeUnit::disk(99, 2048) };
    let media = unit.identify().unwrap().unwrap();
    assert_eq!((media.blocks, media.is_removable), (0, true));
    assert_eq!(unit.read(&media, 0, 2048, 1 << 20), Err(Error::NoMedium));
}

#[test]
fn other_units_are_left_out() {
    for kind in [[1, 0], [0x0d, 0], [0x1f, 0], [0x20, 0], [0x7f, 0], [3, 0x80]] {
        assert_eq!(FakeUnit { kind, ..FakeUnit::disk(99, 512) }.identify(), Ok(None), "{kind:?}");
    }
}

#[test]
fn a_unit_that_was_reset_is_asked_again_a_few_times() {
    let mut unit = FakeUnit { first: vec![RESET, Outcome::Busy, RESET], ..FakeUnit::disk(99, 512) };
    assert_eq!(unit.identify().unwrap().unwrap().blocks, 100);
    let mut unit = FakeUnit { first: vec![RESET; 1000], ..FakeUnit::disk(99, 512) };
    assert!(matches!(unit.identify(), Err(Error::Broken(_))));
    assert_eq!(unit.commands.len(), 8);
}

#[test]
fn a_unit_with_lengths_that_no_disk_has_is_refused() {
    for block_len in [0, 1, 256, 513, 520, 8192, u32::MAX] {
        assert!(matches!(FakeUnit::disk(99, block_len).identify(), Err(Error::Broken(_))), "{block_len}");
    }
    for most_written in [0, 1, 7, 35] {
        let mut unit = FakeUnit { most_written, ..FakeUnit::disk(99, 512) };
        assert!(matches!(unit.identify(), Err(Error::Broken(_))), "{most_written}");
    }
}

#[test]
fn a_read_is_divided_into_commands_of_whole_blocks() {
    let mut unit = FakeUnit::disk(1 << 33, 512);
    let media = unit.identify().unwrap().unwrap();
    unit.commands.clear();
    unit.read(&media, 7, 5 * 512, 1200).unwrap();
    let expected = [(7, 2), (9, 2), (11, 1)].map(|(first, blocks)| Command::read(first, blocks));
    assert_eq!(unit.commands, expected);
    assert_eq!(unit.commands[0].0, [0x28, 0, 0, 0, 0, 7, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    unit.commands.clear();
    unit.read(&media, 0x1_0203_0405, 512, 1 << 20).unwrap();
    assert_eq!(unit.commands[0].0, [0x88, 0, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 1, 0, 0]);
    unit.commands.clear();
    unit.read(&media, 0, 0x1_0000 * 512, u64::MAX).unwrap();
    assert_eq!(unit.commands[0].0, [0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    assert!(matches!(unit.read(&media, 0, 512, 511), Err(Error::Broken(_))));
    for (first, len) in [(media.blocks, 512), (media.blocks - 1, 1024), (u64::MAX, 512), (0, 513)] {
        assert_eq!(unit.read(&media, first, len, 1 << 20), Err(Error::OutOfRange));
    }
}

#[test]
fn a_read_that_fails_says_why() {
    let mut unit = FakeUnit::disk(99, 512);
    let media = unit.identify().unwrap().unwrap();
    for (outcome, error) in [
        (check(3, 0x11), Error::Refused(0x03_1101)),
        (check(2, 0x3a), Error::NoMedium),
        // The medium is another one than before.
        (check(6, 0x28), Error::NoMedium),
    ] {
        unit.first = vec![outcome];
        assert_eq!(unit.read(&media, 0, 512, 512), Err(error));
    }
    unit.first = vec![RESET];
    assert_eq!(unit.read(&media, 0, 512, 512), Ok(()));
    unit.most_written = 511;
    assert!(matches!(unit.read(&media, 0, 512, 512), Err(Error::Broken(_))));
}

#[test]
fn a_unit_that_is_not_ready_for_ever_is_given_up() {
    let scratch = PhysRange::new(PhysAddr::new(ANSWERS), SCRATCH).unwrap();
    let mut machine = FakeMachine::new();
    machine.ticks_per_look = 1 << 30;
    let mut patience = Patience::default();
    let mut commands = Vec::new();
    for _ in 0..3 {
        let mut unit = FakeUnit { ready: vec![check(2, 0x04); 1000], ..FakeUnit::disk(99, 512) };
        assert_eq!(identify(&mut unit, &mut machine, scratch, &mut patience), Err(Error::Refused(0x02_0401)));
        commands.push(unit.commands.len());
    }
    // The units after it are asked once.
    assert!(commands[0] > 10 && commands[1..] == [2, 2], "{commands:?}");
    // One that is ready then is a disk.
    let unit = &mut FakeUnit::disk(99, 512);
    assert_eq!(identify(unit, &mut machine, scratch, &mut patience).unwrap().unwrap().blocks, 100);
}

/// START UNIT, manual intervention, standby, unavailable, offline.
#[test]
fn a_unit_that_stays_not_ready_is_not_waited_for() {
    for qualifier in [0x02, 0x03, 0x0b, 0x0c, 0x12, 0xff] {
        let says = Outcome::Check(Sense { key: 2, code: 0x04, qualifier });
        let mut unit = FakeUnit { ready: vec![says; 1000], ..FakeUnit::disk(99, 512) };
        assert_eq!(unit.identify(), Err(Error::Refused(0x02_0400 | u32::from(qualifier))));
        assert_eq!(unit.commands.len(), 2);
    }
    for qualifier in [0x00, 0x01] {
        let says = Outcome::Check(Sense { key: 2, code: 0x04, qualifier });
        let mut unit = FakeUnit { ready: vec![says; 3], ..FakeUnit::disk(99, 512) };
        assert_eq!(unit.identify().unwrap().unwrap().blocks, 100);
    }
}

#[test]
fn sense_data_have_two_forms() {
    let sense = Sense { key: 2, code: 0x3a, qualifier: 1 };
    assert_eq!(Sense::parse(&[0x70, 0, 0xf2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x3a, 1, 0, 0, 0, 0]), sense);
    assert_eq!(Sense::parse(&[0xf1, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x3a, 1]), sense);
    assert_eq!(Sense::parse(&[0x72, 2, 0x3a, 1, 0, 0, 0, 0]), sense);
    for bytes in [&[][..], &[0; 18], &[0x70, 0, 2, 0], &[0x72, 2], &[0x7f; 18]] {
        assert_eq!(Sense::parse(bytes), Sense::default(), "{bytes:?}");
    }
}

#[test]
fn a_list_of_units_is_read_as_far_as_it_goes() {
    let numbers = |bytes: &[u8]| parse_luns(bytes).collect::<Vec<_>>();
    let list = |len: u32, luns: &[[u8; 8]]| [&len.to_be_bytes()[..], &[0; 4], luns.as_flattened()].concat();
    let [first, flat] = [[0, 5, 0, 0, 0, 0, 0, 0], [0x41, 2, 0, 0, 0, 0, 0, 0]];
    assert_eq!(numbers(&list(16, &[first, flat])), [5, 0x102]);
    assert_eq!(numbers(&list(8, &[first, flat])), [5]);
    assert_eq!(numbers(&list(u32::MAX, &[first, flat])), [5, 0x102]);
    assert_eq!(numbers(&list(7, &[first])), [0; 0]);
    // On a second bus, on a second level, and with an address that is longer.
    let others = [[1, 5, 0, 0, 0, 0, 0, 0], [0, 5, 0, 1, 0, 0, 0, 0], [0xc1, 0, 0, 0, 0, 0, 0, 0]];
    assert_eq!(numbers(&list(24, &others)), [0; 0]);
    for bytes in [&[][..], &[0xff; 7], &[0xff; 15]] {
        assert_eq!(numbers(bytes), [0; 0]);
    }
}
