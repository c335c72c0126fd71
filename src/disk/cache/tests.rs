use std::vec;
use std::vec::Vec;

use super::*;
use crate::addr::PhysAddr;
use crate::disk::{Media, UnitAddress};
use crate::fakes::machine::FakeMachine;

/// A disk whose bytes tell where they are. It counts requests, and has bad blocks.
struct Pattern {
    unit: Unit,
    /// First block and number of blocks of each request.
    requests: Vec<(u64, u64)>,
    bad: Vec<u64>,
    error: Error,
}

/// The byte at `at`.
fn byte(at: u64) -> u8 {
    (at ^ at >> 8 ^ at >> 16 ^ at >> 24) as u8
}

impl Pattern {
    fn new(block_len: u32, blocks: u64) -> Self {
        let media =
            Media { block_len: BlockLen::new(block_len).unwrap(), blocks, is_read_only: false, is_removable: false };
        let unit = Unit { address: UnitAddress::Only, media };
        Self { unit, requests: Vec::new(), bad: Vec::new(), error: Error::Refused(1) }
    }

    fn bytes_moved(&self) -> u64 {
        self.requests.iter().map(|(_, blocks)| blocks).sum::<u64>() * u64::from(self.unit.media.block_len.get())
    }
}

impl Controller<FakeMachine> for Pattern {
    fn units(&mut self, _: &mut FakeMachine, found: &mut dyn FnMut(Unit)) -> Result<(), Error> {
        found(self.unit);
        Ok(())
    }

    fn read(&mut self, machine: &mut FakeMachine, unit: &Unit, first: u64, into: PhysRange) -> Result<(), Error> {
        let block_len = u64::from(unit.media.block_len.get());
        assert!(!into.is_empty() && into.len().is_multiple_of(block_len));
        let blocks = into.len() / block_len;
        assert!(first + blocks <= unit.media.blocks);
        self.requests.push((first, blocks));
        if self.bad.iter().any(|bad| (first..first + blocks).contains(bad)) {
            // What the memory has is then unknown.
            machine.fill(into, 0xee)?;
            return Err(self.error);
        }
        let start = first * block_len;
        let bytes: Vec<_> = (start..start + into.len()).map(byte).collect();
        machine.write(into.start(), &bytes)?;
        Ok(())
    }

    fn stop(&mut self, _: &mut FakeMachine) -> Result<(), Error> {
        Ok(())
    }
}

const ROOM: PhysAddr = PhysAddr::new(0x100_0000);
const BUFFER: u64 = 0x400_0020;

struct Test {
    machine: FakeMachine,
    controller: Pattern,
    disk: Disk,
}

impl Test {
    fn new(block_len: u32, blocks: u64) -> Self {
        Self::with_room(block_len, blocks, Disk::ROOM)
    }

    fn with_room(block_len: u32, blocks: u64, room: u64) -> Self {
        let controller = Pattern::new(block_len, blocks);
        let disk = Disk::new(controller.unit, PhysRange::new(ROOM, room).unwrap()).unwrap();
        Self { machine: FakeMachine::new(), controller, disk }
    }

    fn view(&mut self) -> View<'_, FakeMachine, Pattern> {
        let whole = self.disk.whole();
        self.disk.view(&mut self.machine, &mut self.controller, whole)
    }

    fn read(&mut self, at: u64, len: u64) -> Result<(), Error> {
        let mut bytes = vec![0; len as usize];
        self.view().read(at, &mut bytes)?;
        assert!(bytes.iter().zip(at..).all(|(&found, at)| found == byte(at)), "{len} bytes at {at:#x}");
        Ok(())
    }

    fn load(&mut self, at: u64, len: u64) -> Result<(), Error> {
        self.view().load(at, PhysRange::new(PhysAddr::new(BUFFER), len).unwrap())?;
        let bytes = self.machine.memory.bytes(BUFFER, len as usize);
        assert!(bytes.iter().zip(at..).all(|(&found, at)| found == byte(at)), "{len} bytes at {at:#x}");
        Ok(())
    }

    fn requests(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.controller.requests)
    }
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What GRUB asks for: 474 reads, of which 467 go on where the last ended: GPT, boot sector and FAT of the ESP at 1 MiB, its
/// directories, and the files, the kernel of 14 MB and the initrd of 1 MB last.
fn grub() -> Vec<(u64, u64)> {
    let mut reads = vec![(0, 512), (512, 512), (KIB, 16 * KIB), (MIB, 128 * KIB)];
    let pieces = |from: u64, count: u64| (0..count).map(move |piece| (from + piece * 32 * KIB, 32 * KIB));
    reads.extend(pieces(MIB + 128 * KIB, 2));
    reads.extend(pieces(2 * MIB, 2));
    reads.extend(pieces(2 * MIB + 256 * KIB, 1));
    reads.extend(pieces(3 * MIB, 1));
    reads.extend(pieces(3 * MIB + 512 * KIB, 1));
    reads.extend(pieces(4 * MIB, 431));
    reads.extend(pieces(20 * MIB, 32));
    reads
}

#[test]
fn a_loader_that_reads_a_kernel_in_474_pieces_makes_20_requests() {
    // With long blocks, one of what GRUB reads at the start of the disk is there already.
    for (block_len, blocks, expected) in [(512, 131_072, 20), (4096, 16_384, 19)] {
        let mut test = Test::new(block_len, blocks);
        let reads = grub();
        assert_eq!(reads.len(), 474);
        let asked: u64 = reads.iter().map(|(_, len)| len).sum();
        for (at, len) in reads {
            test.load(at, len).unwrap();
        }
        let moved = test.controller.bytes_moved();
        let requests = test.requests();
        assert_eq!(requests.len(), expected, "{requests:?}");
        assert!(moved < asked + 5 * MIB, "{moved} bytes for {asked}");
    }
}

#[test]
fn tables_at_the_start_of_a_disk_take_one_request() {
    let mut test = Test::new(512, 131_072);
    test.read(0, 512).unwrap();
    test.read(512, 92).unwrap();
    (0..128).for_each(|entry| test.read(1024 + entry * 128, 128).unwrap());
    assert_eq!(test.requests(), [(0, 128)]);
}

#[test]
fn small_reads_elsewhere_cost_64_kib_each() {
    let mut test = Test::new(512, 1 << 24);
    for place in 0..100 {
        test.read(place * 37 % 100 * 40 * MIB + 17, 32).unwrap();
    }
    assert_eq!(test.controller.bytes_moved(), 100 * 64 * KIB);
    assert_eq!(test.requests().len(), 100);
}

#[test]
fn a_directory_that_is_read_entry_by_entry_is_read_ahead() {
    let mut test = Test::new(512, 1 << 24);
    for entry in 0..65_536 {
        test.read(5 * MIB + entry * 32, 32).unwrap();
    }
    assert_eq!(test.requests(), [(10_240, 128), (10_368, 2048), (12_416, 2048)]);
}

#[test]
fn a_large_piece_goes_straight_to_its_place_and_leaves_the_window() {
    let mut test = Test::new(512, 1 << 24);
    test.read(MIB, 512).unwrap();
    test.load(8 * MIB, 2 * MIB).unwrap();
    test.read(MIB + 32 * KIB, 512).unwrap();
    assert_eq!(test.requests(), [(2048, 128), (16_384, 4096)]);
    // A file that ends within a block, and one that begins in one.
    test.load(8 * MIB, 2 * MIB + 100).unwrap();
    test.load(8 * MIB + 100, 2 * MIB).unwrap();
    test.read(MIB + 32 * KIB, 512).unwrap();
    let whole = (16_384, 4096);
    assert_eq!(test.requests(), [whole, (20_480, 1), (16_384, 1), (16_385, 4095), (20_480, 1)]);
}

#[test]
fn pieces_of_a_fragmented_file_soon_cost_what_they_are_long() {
    let mut test = Test::new(512, 1 << 24);
    let fragments = 200;
    for fragment in 0..fragments {
        // The next entries of the FAT, which are not far from the last ones.
        test.read(MIB + fragment * 68, 68).unwrap();
        test.load((fragments - fragment) * 3 * MIB, 68 * KIB).unwrap();
    }
    let moved = test.controller.bytes_moved();
    assert!(test.requests().len() <= fragments as usize + 8);
    assert!(moved <= fragments * 68 * KIB + 3 * MIB, "{moved} bytes");
    // Whole clusters take no window at all.
    for fragment in 0..fragments {
        test.read(MIB + fragment * 4, 4).unwrap();
        test.load((fragments - fragment) * 3 * MIB, 4 * KIB).unwrap();
    }
    assert!(test.requests().len() <= fragments as usize + 1);
}

#[test]
fn the_window_shrinks_at_the_end_of_the_disk() {
    let mut test = Test::new(512, 300);
    test.load(0, 33 * KIB).unwrap();
    assert_eq!(test.requests(), [(0, 300)]);
    let mut test = Test::new(4096, 300);
    test.load(0, 4 * KIB).unwrap();
    test.load(4 * KIB, 4 * KIB).unwrap();
    test.read(1_048_576 + 8000, 5000).unwrap();
    test.read(300 * 4096 - 1, 1).unwrap();
    assert_eq!(test.requests(), [(0, 1), (1, 256), (257, 16), (299, 1)]);
}

#[test]
fn bytes_beyond_the_part_are_refused_without_a_request() {
    let mut test = Test::new(512, 1000);
    let part = Extent { first: 100, blocks: 10 };
    let mut view = test.disk.view(&mut test.machine, &mut test.controller, part);
    assert_eq!(view.blocks(), 10);
    let mut bytes = [0; 600];
    for at in [5119, 5120, 5121, u64::MAX - 3, u64::MAX] {
        assert_eq!(view.read(at, &mut bytes), Err(Error::OutOfRange));
    }
    view.read(5120, &mut []).unwrap();
    view.read(4520, &mut bytes).unwrap();
    assert!(bytes.iter().zip(100 * 512 + 4520..).all(|(&found, at)| found == byte(at)));
    // The window is the disk's, not the part's.
    test.read(0x1_0000, 32).unwrap();
    assert_eq!(test.requests(), [(108, 128)]);
}

#[test]
fn a_part_has_no_block_that_the_disk_does_not_have() {
    for (first, blocks, left) in [(900, 200, 100), (1000, 1, 0), (5000, 1, 0), (u64::MAX, u64::MAX, 0), (0, 2000, 1000)]
    {
        let mut test = Test::new(512, 1000);
        let view = test.disk.view(&mut test.machine, &mut test.controller, Extent { first, blocks });
        assert_eq!(view.blocks(), left);
    }
    let mut test = Test::new(4096, u64::MAX);
    assert_eq!(test.view().blocks(), u64::MAX / 4096);
    assert_eq!(test.read(u64::MAX - 4096, 1).err(), None);
    assert_eq!(test.read(u64::MAX, 1), Err(Error::OutOfRange));
}

#[test]
fn a_bad_block_that_nobody_asked_for_does_not_fail_a_read() {
    let mut test = Test::new(512, 131_072);
    test.controller.bad = vec![100];
    test.read(0, 512).unwrap();
    test.load(0x2000, 32 * KIB).unwrap();
    assert_eq!(test.requests(), [(0, 128), (0, 1), (16, 2048), (16, 64)]);
    assert_eq!(test.read(100 * 512, 1), Err(Error::Refused(1)));
    assert_eq!(test.requests(), [(100, 128), (100, 1)]);
    // Nothing of a failed request is believed.
    test.read(16 * 512, 512).unwrap();
    assert_eq!(test.requests().len(), 2);
    assert_eq!(test.load(16 * 512, MIB), Err(Error::Refused(1)));
}

#[test]
fn a_disk_that_does_not_answer_is_not_asked_again() {
    let mut test = Test::new(512, 131_072);
    test.read(0, 512).unwrap();
    test.controller.bad = vec![1000];
    test.controller.error = Error::Timeout;
    assert_eq!(test.load(1000 * 512, 64 * KIB), Err(Error::Timeout));
    assert_eq!(test.requests().len(), 2);
    // Its window may still be written, so it is not used either.
    assert_eq!(test.read(0, 512), Err(Error::Timeout));
    assert_eq!(test.load(0, MIB), Err(Error::Timeout));
    assert_eq!(test.requests(), []);
}

#[test]
fn a_disk_with_the_least_room_reads_what_one_with_all_of_it_reads() {
    assert_eq!(
        Disk::new(Pattern::new(512, 1).unit, PhysRange::new(ROOM, Disk::LEAST_ROOM - 1).unwrap()).err(),
        Some(Error::NoRoom)
    );
    for block_len in [512, 1024, 2048, 4096] {
        for room in [Disk::LEAST_ROOM, Disk::LEAST_ROOM + 5000, Disk::ROOM] {
            let mut test = Test::with_room(block_len, 4096, room);
            let mut state = 1_u64;
            for _ in 0..60 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let len = (state >> 20) % (1 << (state >> 60));
                let at = (state >> 33) % (4096 * 512);
                let len = len.min(4096 * 512 - at);
                if state >> 59 & 1 == 0 { test.read(at, len) } else { test.load(at, len) }.unwrap();
            }
            test.read(0, 4096 * 512).unwrap();
            test.load(3, 4096 * 512).unwrap_or_else(|error| assert_eq!((error, block_len), (Error::OutOfRange, 512)));
        }
    }
}
