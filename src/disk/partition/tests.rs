use std::collections::BTreeSet;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use gpt_disk_io::gpt_disk_types::{BlockSize, GptPartitionEntry, Lba};
use gpt_disk_io::{BlockIo, Disk};
use proptest::prelude::*;

use super::*;
use crate::addr::PhysRange;
use crate::checksum::crc32;
use crate::disk::BlockLen;
use crate::fakes::blocks::{FakeBlocks, Request};
use crate::fakes::golden;

/// The most reads of a search: the boot record; two headers with lists; the descriptors and a catalog; logical partitions.
const MOST_READS: usize = 1 + 2 * (1 + 2048) + 32 + 1 + MOST;

/// The partitions of a disk. What holds for every disk is checked.
fn found(disk: &mut FakeBlocks) -> Vec<Partition> {
    disk.requests.clear();
    let partitions = find(disk).unwrap();
    let requests = &disk.requests;
    assert!(requests.len() <= MOST_READS, "{} reads", requests.len());
    assert!(requests.iter().all(|request| matches!(request, Request::Read(..))));
    assert!(partitions.len() <= MOST);
    for (place, one) in partitions.iter().enumerate() {
        let end = one.extent.first.checked_add(one.extent.blocks).unwrap();
        assert!(one.extent.blocks != 0 && end <= disk.blocks(), "{one:?}");
        // A logical partition is inside its extended one. Images of CDs may share blocks.
        for other in &partitions[..place] {
            let is_image = matches!(one.scheme, Scheme::ElTorito { .. });
            let is_parent = one.extended.is_some_and(|parent| partitions[usize::from(parent)] == *other);
            assert!(is_image || is_parent || !one.extent.overlaps(&other.extent), "{one:?} {other:?}");
        }
        if let Some(extended) = one.extended {
            let extended = partitions[usize::from(extended)].extent;
            assert!(one.extent.first > extended.first && end <= extended.first + extended.blocks);
        }
    }
    partitions
}

fn golden_disk(name: &str) -> FakeBlocks {
    golden::disk(name).0
}

/// A partition in the words of sfdisk.
fn as_sfdisk(partition: &Partition) -> String {
    let Extent { first, blocks } = partition.extent;
    match partition.scheme {
        Scheme::Gpt { number, kind, unique, .. } => {
            let (kind, unique) = (format!("{kind}").to_uppercase(), format!("{unique}").to_uppercase());
            format!("partition {number} start={first},size={blocks},type={kind},uuid={unique}")
        }
        Scheme::Mbr { number, kind, .. } => {
            let number = if partition.extended.is_some() { number + 4 } else { number };
            format!("partition {number} start={first},size={blocks},type={kind:x}")
        }
        Scheme::ElTorito { .. } => panic!("sfdisk knows none"),
    }
}

#[test]
fn partitions_are_those_that_sfdisk_lists() {
    for name in ["gpt", "mbr", "logical", "cd-grub"] {
        let (mut disk, mut said) = golden::disk(name);
        said.sort();
        let partitions = found(&mut disk);
        let mut own: Vec<_> = partitions.iter().map(as_sfdisk).collect();
        let signature = partitions.iter().find_map(|partition| match partition.scheme {
            Scheme::Mbr { signature, .. } => Some(format!("signature {signature:#x}")),
            _ => None,
        });
        own.extend(signature);
        own.sort();
        assert_eq!(own, said, "{name}");
    }
}

#[test]
fn a_file_system_on_the_whole_disk_is_no_table() {
    for name in ["fat-mkfs", "fat-mformat"] {
        assert_eq!(found(&mut golden_disk(name)), [], "{name}");
    }
    assert_eq!(found(&mut FakeBlocks::empty(BlockLen::DISK, 1000)), []);
    assert_eq!(found(&mut FakeBlocks::empty(BlockLen::DISK, 0)), []);
}

/// The entries of a GPT, by the second reader. It checks no checksum of the list.
struct Reader(FakeBlocks);

impl BlockIo for Reader {
    type Error = Error;

    fn block_size(&self) -> BlockSize {
        BlockSize::new(self.0.block_len().get()).unwrap()
    }
    fn num_blocks(&mut self) -> Result<u64, Error> {
        Ok(self.0.blocks())
    }
    fn read_blocks(&mut self, first: Lba, into: &mut [u8]) -> Result<(), Error> {
        self.0.read(first.0 * u64::from(self.0.block_len().get()), into)
    }
    fn write_blocks(&mut self, _: Lba, _: &[u8]) -> Result<(), Error> {
        unreachable!()
    }
    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

fn by_second_reader(disk: &FakeBlocks) -> Vec<(u32, Extent, [u8; 16], [u8; 16])> {
    let mut buffer = vec![0; disk.block_len().get() as usize];
    let mut reader = Disk::new(Reader(disk.clone())).unwrap();
    let header = reader.read_primary_gpt_header(&mut buffer).unwrap();
    assert!(header.is_signature_valid());
    assert_eq!(header.calculate_header_crc32(), header.header_crc32);
    let layout = header.get_partition_entry_array_layout().unwrap();
    let entries: Vec<GptPartitionEntry> =
        reader.gpt_partition_entry_array_iter(layout, &mut buffer).unwrap().map(Result::unwrap).collect();
    let used = (1..).zip(entries).filter(|(_, entry)| entry.is_used());
    used.map(|(number, entry)| {
        let range = entry.lba_range().unwrap();
        let extent = Extent { first: range.start().0, blocks: range.num_blocks() };
        (number, extent, entry.partition_type_guid.0.to_bytes(), entry.unique_partition_guid.to_bytes())
    })
    .collect()
}

fn by_own_reader(disk: &mut FakeBlocks) -> Vec<(u32, Extent, [u8; 16], [u8; 16])> {
    let parts = found(disk).into_iter().map(|partition| match partition.scheme {
        Scheme::Gpt { number, kind, unique, .. } => (number, partition.extent, kind.to_bytes(), unique.to_bytes()),
        _ => panic!("it is a GPT"),
    });
    parts.collect()
}

#[test]
fn a_gpt_is_read_as_a_second_reader_reads_it() {
    for name in ["gpt", "gpt-4096", "cd-grub"] {
        let mut disk = golden_disk(name);
        let own = by_own_reader(&mut disk);
        assert!(!own.is_empty(), "{name}");
        assert_eq!(own, by_second_reader(&disk), "{name}");
    }
}

/// A GPT to be made.
#[derive(Clone, Debug)]
struct Gpt {
    block_len: u32,
    blocks: u64,
    entry_len: u32,
    entries: u32,
    /// First and last block, and attributes, by number.
    used: Vec<(u32, u64, u64, u64)>,
}

impl Default for Gpt {
    fn default() -> Self {
        Self { block_len: 512, blocks: 10_000, entry_len: 128, entries: 128, used: Vec::new() }
    }
}

impl Gpt {
    fn list_blocks(&self) -> u64 {
        (u64::from(self.entries) * u64::from(self.entry_len)).div_ceil(self.block_len.into())
    }

    fn usable(&self) -> (u64, u64) {
        (2 + self.list_blocks(), self.blocks - 2 - self.list_blocks())
    }

    fn list(&self) -> Vec<u8> {
        let mut list = vec![0; (self.entries * self.entry_len) as usize];
        for &(number, first, last, attributes) in &self.used {
            let entry = &mut list[((number - 1) * self.entry_len) as usize..][..128];
            entry[..16].copy_from_slice(&[0x11; 16]);
            entry[16..20].copy_from_slice(&number.to_le_bytes());
            for (place, value) in [first, last, attributes].into_iter().enumerate() {
                entry[32 + place * 8..][..8].copy_from_slice(&value.to_le_bytes());
            }
        }
        list
    }

    fn header(&self, block: u64, list_block: u64) -> Vec<u8> {
        let mut header = b"EFI PART\0\0\x01\0\x5c\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        let (first, last) = self.usable();
        for value in [block, self.blocks - block, first, last, 1, 2, list_block] {
            header.extend(value.to_le_bytes());
        }
        for value in [self.entries, self.entry_len, crc32(&self.list())] {
            header.extend(value.to_le_bytes());
        }
        seal(&mut header);
        header
    }

    fn disk(&self) -> FakeBlocks {
        let mut disk = FakeBlocks::empty(BlockLen::new(self.block_len).unwrap(), self.blocks);
        let len = u64::from(self.block_len);
        let (last, list_at_end) = (self.blocks - 1, self.blocks - 1 - self.list_blocks());
        disk.disk.store(446, &mbr_entry(0xee, 1, u32::MAX));
        disk.disk.store(510, &[0x55, 0xaa]);
        for (block, list_block) in [(1, 2), (last, list_at_end)] {
            disk.disk.store(block * len, &self.header(block, list_block));
            disk.disk.store(list_block * len, &self.list());
        }
        disk
    }
}

/// Puts the checksum into a header.
fn seal(header: &mut [u8]) {
    header[16..20].fill(0);
    let crc = crc32(header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
}

fn mbr_entry(kind: u8, first: u32, blocks: u32) -> Vec<u8> {
    [&[0, 0, 0, 0, kind, 0, 0, 0][..], &first.to_le_bytes(), &blocks.to_le_bytes()].concat()
}

fn numbers(partitions: &[Partition]) -> Vec<u32> {
    let number = |partition: &Partition| match partition.scheme {
        Scheme::Gpt { number, .. } | Scheme::Mbr { number, .. } => number,
        Scheme::ElTorito { entry, .. } => entry,
    };
    partitions.iter().map(number).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_gpt_is_read_as_a_second_reader_reads_it(
        block in 0..3_u32,
        entry in 0..3_u32,
        numbers in proptest::collection::btree_set(1..=100_u32, 1..20),
    ) {
        let mut gpt = Gpt { block_len: 512 << block, entry_len: 128 << entry, entries: 100, ..Gpt::default() };
        let (first, _) = gpt.usable();
        let places = numbers.iter().zip(0_u64..);
        gpt.used = places.map(|(&number, place)| (number, first + place * 100, first + place * 100 + 99, 0)).collect();
        let mut disk = gpt.disk();
        prop_assert_eq!(by_own_reader(&mut disk), by_second_reader(&disk));
    }

    #[test]
    fn whatever_is_changed_the_search_ends_with_partitions_of_the_disk(
        name in proptest::sample::select(&golden::DISKS[..]),
        changes in proptest::collection::vec((0..0x1_0000_u64, any::<[u8; 4]>(), any::<bool>()), 1..8),
    ) {
        let mut disk = golden_disk(name);
        for (at, bytes, is_low) in changes {
            // Most of what is read is at the beginning.
            let at = if is_low { at % 0x600 } else { at };
            disk.disk.store(at, &bytes);
        }
        found(&mut disk);
    }
}

#[test]
fn a_damaged_gpt_is_replaced_by_its_copy_and_two_by_nothing() {
    let gpt = Gpt { used: vec![(1, 40, 99, 0), (3, 200, 299, 4)], ..Gpt::default() };
    let whole = found(&mut gpt.disk());
    assert_eq!(numbers(&whole), [1, 3]);
    let last = (gpt.blocks - 1) * 512;
    let list_at_end = last - gpt.list_blocks() * 512;
    for byte in (0..92).step_by(3).chain([1000, 1024 - 512 + 5, 1024 + 128 * 64]) {
        let mut disk = gpt.disk();
        // The rest of the block after the header is in no checksum.
        let [old] = disk.disk.bytes(512 + byte, 1)[..] else { panic!("one byte") };
        disk.disk.store(512 + byte, &[!old]);
        assert_eq!(found(&mut disk), whole, "byte {byte}");
        let is_summed = !(92..512).contains(&byte);
        let copy = if byte < 512 { last + byte } else { list_at_end + byte - 512 };
        disk.disk.store(copy, &[!old]);
        assert_eq!(found(&mut disk).is_empty(), is_summed, "byte {byte}");
    }
    // Blocks that cannot be read.
    for defect in [512..1024, 1024..1536] {
        let mut disk = gpt.disk();
        disk.defect = defect.clone();
        assert_eq!(found(&mut disk), whole);
        disk.disk.store(last, &[0; 512]);
        assert_eq!(found(&mut disk), []);
    }
    let mut disk = gpt.disk();
    disk.defect = 0..512;
    assert_eq!(found(&mut disk), []);
}

#[test]
fn a_header_counts_only_in_its_own_block() {
    let gpt = Gpt { used: vec![(1, 40, 99, 0)], ..Gpt::default() };
    let mut disk = gpt.disk();
    // As if the disk had grown, with an old copy in the middle, and the first one lost.
    let copy = disk.disk.bytes((gpt.blocks - 1) * 512, 512);
    disk.disk.store(512, &copy);
    assert_eq!(numbers(&found(&mut disk)), [1]);
    disk.disk.store((gpt.blocks - 1) * 512, &gpt.header(1, 2));
    assert_eq!(found(&mut disk), []);
}

#[test]
fn entries_may_be_longer_than_they_need_to_be() {
    for entry_len in [128, 256, 512, 1024, 4096] {
        let gpt = Gpt { entry_len, entries: 40, used: vec![(1, 500, 599, 0), (40, 600, 699, 0)], ..Gpt::default() };
        assert_eq!(numbers(&found(&mut gpt.disk())), [1, 40], "{entry_len}");
    }
    for entry_len in [64, 192, 8192] {
        let gpt = Gpt { entry_len: 128, entries: 4, used: vec![(1, 500, 599, 0)], ..Gpt::default() };
        let mut disk = gpt.disk();
        for (block, list) in [(1, 2), (gpt.blocks - 1, gpt.blocks - 2)] {
            let mut header = gpt.header(block, list);
            header[84..88].copy_from_slice(&u32::to_le_bytes(entry_len));
            seal(&mut header);
            disk.disk.store(block * 512, &header);
        }
        assert_eq!(found(&mut disk), [], "{entry_len}");
    }
}

#[test]
fn a_list_is_read_and_summed_up_to_a_limit() {
    let used = vec![(2048, 5000, 5999, 0)];
    let gpt = Gpt { entries: 2048, used: used.clone(), ..Gpt::default() };
    let mut disk = gpt.disk();
    assert_eq!(numbers(&found(&mut disk)), [2048]);
    for entries in [2049, 1 << 20, u32::MAX] {
        let mut disk = gpt.disk();
        for (block, list) in [(1, 2), (gpt.blocks - 1, gpt.blocks - 1 - gpt.list_blocks())] {
            let mut header = gpt.header(block, list);
            header[80..84].copy_from_slice(&entries.to_le_bytes());
            seal(&mut header);
            disk.disk.store(block * 512, &header);
        }
        assert_eq!(found(&mut disk), []);
        assert!(disk.requests.len() < 10);
    }
    // A list that reaches beyond the disk ends where the disk does.
    let gpt = Gpt { used: vec![(1, 40, 99, 0)], ..Gpt::default() };
    let mut disk = gpt.disk();
    for list in [gpt.blocks - 1, gpt.blocks, u64::MAX / 512, u64::MAX] {
        disk.disk.store(512, &gpt.header(1, list));
        assert_eq!(numbers(&found(&mut disk)), [1], "by the copy");
    }
}

#[test]
fn more_partitions_than_the_limit_are_left_out() {
    let used =
        (1..=200).map(|number| (number, 100 + u64::from(number) * 10, 109 + u64::from(number) * 10, 0)).collect();
    let gpt = Gpt { entries: 200, used, ..Gpt::default() };
    assert_eq!(numbers(&found(&mut gpt.disk())), (1..=128).collect::<Vec<_>>());
}

#[test]
fn partitions_where_none_can_be_are_left_out_and_the_others_stay() {
    let (first, last) = Gpt::default().usable();
    let used = vec![
        (1, first, first, 0),
        (2, first - 1, first + 10, 0),
        (3, last, last, 0),
        (4, last - 10, last + 1, 0),
        (5, 500, 499, 0),
        (6, u64::MAX, u64::MAX, 0),
        (7, 0, u64::MAX, 0),
        // These overlap.
        (8, 1000, 1999, 0),
        (9, 1999, 2500, 0),
        (10, 2501, 2501, 0),
        // The firmware is to leave this one alone.
        (11, 3000, 3010, 2),
        (12, 4000, 4010, 1 << 60 | 5),
    ];
    let partitions = found(&mut Gpt { used, ..Gpt::default() }.disk());
    assert_eq!(numbers(&partitions), [1, 3, 10, 12]);
    assert!(matches!(partitions[3].scheme, Scheme::Gpt { attributes, .. } if attributes == 1 << 60 | 5));
    // The header promises blocks that the disk does not have.
    let gpt = Gpt { used: vec![(1, 40, 99, 0), (2, 9_950, 9_960, 0)], ..Gpt::default() };
    let mut cut = FakeBlocks::empty(BlockLen::DISK, 9_000);
    cut.disk = gpt.disk().disk;
    assert_eq!(numbers(&found(&mut cut)), [1]);
}

#[test]
fn the_first_partition_of_a_disk_with_long_blocks_begins_at_block_6() {
    let gpt = Gpt { block_len: 4096, blocks: 1000, used: vec![(1, 6, 989, 0)], ..Gpt::default() };
    assert_eq!(gpt.usable().0, 6);
    assert_eq!(numbers(&found(&mut gpt.disk())), [1]);
}

#[test]
fn a_protective_record_of_any_length_and_with_other_entries_means_a_gpt() {
    let gpt = Gpt { used: vec![(1, 40, 99, 0)], ..Gpt::default() };
    for blocks in [0, 1, 9_999, 20_000, u32::MAX] {
        let mut disk = gpt.disk();
        disk.disk.store(446, &mbr_entry(0xee, 1, blocks));
        assert_eq!(numbers(&found(&mut disk)), [1]);
        // A hybrid record. Its other entries count only without a GPT.
        disk.disk.store(462, &mbr_entry(0xef, 200, 100));
        let partitions = found(&mut disk);
        assert!(matches!(partitions[..], [Partition { scheme: Scheme::Gpt { .. }, .. }]));
        disk.disk.store(512, &[0; 512]);
        disk.disk.store(9_999 * 512, &[0; 512]);
        let partitions = found(&mut disk);
        assert!(matches!(partitions[..], [Partition { scheme: Scheme::Mbr { number: 2, kind: 0xef, .. }, .. }]));
    }
    // Without one, a GPT that was left over does not count.
    let mut disk = gpt.disk();
    disk.disk.store(446, &mbr_entry(0x83, 1, 100));
    assert!(matches!(found(&mut disk)[..], [Partition { scheme: Scheme::Mbr { kind: 0x83, .. }, .. }]));
}

/// An entry of a boot record: type, first block, number of blocks.
type MbrEntry = (u8, u32, u32);

/// A boot record with these entries.
fn record(entries: &[MbrEntry]) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    for (place, &(kind, first, blocks)) in entries.iter().enumerate() {
        bytes[446 + place * 16..][..16].copy_from_slice(&mbr_entry(kind, first, blocks));
    }
    bytes[510..].copy_from_slice(&[0x55, 0xaa]);
    bytes
}

fn with_records(records: &[(u64, &[MbrEntry])]) -> FakeBlocks {
    let mut disk = FakeBlocks::empty(BlockLen::DISK, 10_000);
    for (block, entries) in records {
        disk.disk.store(block * 512, &record(entries));
    }
    disk
}

#[test]
fn a_record_whose_entries_are_no_partitions_is_none() {
    let kinds = |entries: &[MbrEntry]| found(&mut with_records(&[(0, entries)])).len();
    assert_eq!(kinds(&[(0xef, 1, 9_999)]), 1);
    assert_eq!(kinds(&[(0xef, 1, 10_000)]), 0, "beyond the end");
    assert_eq!(kinds(&[(0xef, 0, 10)]), 0, "over the record");
    assert_eq!(kinds(&[(0xef, u32::MAX, u32::MAX)]), 0);
    assert_eq!(kinds(&[(0xef, 10, 10), (0x83, 19, 10)]), 0, "overlapping");
    assert_eq!(kinds(&[(0xef, 10, 10), (0x83, 20, 10), (0, 15, 10), (0x83, 15, 0)]), 2, "two are unused");
    // Code or text may look like a partition in one place. In all four it does not.
    assert_eq!(kinds(&[(0xef, 10, 10), (0x83, 20, 10_000)]), 0, "one of two is beyond the end");
    assert_eq!(kinds(&[(0x83, 20, 10_000), (0xef, 10, 10)]), 0, "the first of two is");
    assert_eq!(kinds(&[]), 0);
    let mut disk = with_records(&[(0, &[(0xef, 1, 9)])]);
    disk.disk.store(510, &[0]);
    assert_eq!(found(&mut disk), [], "without the signature");
}

#[test]
fn entries_have_the_number_of_their_place() {
    let partitions = found(&mut with_records(&[(0, &[(0, 0, 0), (0x0c, 10, 10), (0, 0, 0), (0xef, 30, 10)])]));
    assert_eq!(numbers(&partitions), [2, 4]);
}

#[test]
fn logical_partitions_follow_the_extended_one_and_lie_in_it() {
    let partitions = found(&mut with_records(&[
        (0, &[(0x0f, 1000, 1000), (0x83, 3000, 10)]),
        (1000, &[(0x83, 10, 90), (0x05, 500, 100)]),
        (1500, &[(0xef, 1, 99), (0x05, 100, 100)]),
        // The chain may go back, and a record may have no partition.
        (1100, &[(0, 0, 0), (0x05, 700, 100)]),
        (1700, &[(0x0c, 5, 50)]),
    ]));
    let places: Vec<_> = partitions.iter().map(|partition| (partition.extent.first, partition.extended)).collect();
    assert_eq!(places, [(1000, None), (3000, None), (1010, Some(0)), (1501, Some(0)), (1705, Some(0))]);
    assert_eq!(numbers(&partitions), [1, 2, 1, 2, 3]);
}

#[test]
fn a_chain_of_logical_partitions_ends() {
    // One that leads to itself, to a partition before, out of the extended one, or nowhere.
    let ends: [&[MbrEntry]; 6] = [
        &[(0x83, 10, 20), (0x05, 100, 100)],
        &[(0x83, 10, 20), (0x05, 0, 100)],
        &[(0x83, 10, 20), (0x05, 5000, 100)],
        &[(0x83, 10, 20), (0x05, u32::MAX, 1)],
        &[(0x83, 10, 20)],
        &[(0x83, 10, 20), (0x05, 700, 100)],
    ];
    for end in ends {
        let mut disk =
            with_records(&[(0, &[(0x05, 1000, 1000)]), (1000, &[(0x83, 10, 20), (0x05, 100, 100)]), (1100, end)]);
        assert_eq!(numbers(&found(&mut disk)), [1, 1, 2], "{end:?}");
    }
    // Only records, in a circle.
    let mut disk = with_records(&[
        (0, &[(0x05, 1000, 1000)]),
        (1000, &[(0, 0, 0), (0x05, 100, 100)]),
        (1100, &[(0, 0, 0), (0x05, 200, 100)]),
        (1200, &[(0, 0, 0), (0x05, 100, 100)]),
    ]);
    assert_eq!(numbers(&found(&mut disk)), [1]);
    assert!(disk.requests.len() <= MOST + 4);
    // A partition that is not in the extended one.
    for (first, blocks) in [(0, 10), (990, 20), (2000, 1), (u32::MAX, u32::MAX)] {
        let mut disk = with_records(&[(0, &[(0x05, 1000, 1000)]), (1000, &[(0x83, first, blocks)])]);
        assert_eq!(numbers(&found(&mut disk)), [1], "{first}");
    }
    // More than the limit.
    let mut disk = FakeBlocks::empty(BlockLen::DISK, 10_000);
    disk.disk.store(0, &record(&[(0x05, 1000, 9_000)]));
    for place in 0..500 {
        let entries = [(0x83, 1, 1), (0x05, (place + 1) * 2, 2)];
        disk.disk.store(u64::from(1000 + place * 2) * 512, &record(&entries));
    }
    assert_eq!(found(&mut disk).len(), MOST);
}

fn images(disk: &mut FakeBlocks) -> Vec<(u32, u8, u64, u64)> {
    let partitions = found(disk).into_iter().map(|partition| match partition.scheme {
        Scheme::ElTorito { entry, platform } => (entry, platform, partition.extent.first, partition.extent.blocks),
        _ => panic!("it is a CD"),
    });
    partitions.collect()
}

#[test]
fn a_cd_has_the_images_that_xorriso_put_there() {
    assert_eq!(images(&mut golden_disk("cd")), [(0, 0, 34, 4), (1, 0xef, 754, 2198)]);
    // The same on a disk, whose blocks are shorter.
    let mut disk = golden_disk("cd");
    let mut short = FakeBlocks::empty(BlockLen::DISK, disk.blocks() * 4);
    short.disk = disk.disk.clone();
    assert_eq!(images(&mut short), [(0, 0, 136, 16), (1, 0xef, 3016, 8792)]);
    // On a drive for CDs, nobody finds the GPT, which counts in blocks of 512 bytes.
    let mut drive = golden_disk("cd-grub").in_blocks(BlockLen::CD);
    let found = images(&mut drive);
    assert_eq!((found[0].0, found[0].1, found[1].0, found[1].1, found[1].2), (0, 0, 1, 0xef, 72));
    // No sector fits into a longer block.
    disk = disk.in_blocks(BlockLen::MOST);
    assert_eq!(images(&mut disk), []);
}

/// A CD with these entries in its catalog after the first one.
fn cd(entries: &[[u8; 32]]) -> FakeBlocks {
    let mut disk = FakeBlocks::empty(BlockLen::CD, 10_000);
    disk.disk.store(16 * 2048, b"\x01CD001\x01");
    disk.disk.store(17 * 2048, b"\0CD001\x01EL TORITO SPECIFICATION\0");
    disk.disk.store(17 * 2048 + 71, &40_u32.to_le_bytes());
    disk.disk.store(18 * 2048, b"\xffCD001\x01");
    disk.disk.store(40 * 2048, &[1]);
    disk.disk.store(40 * 2048 + 28, &[0xaa, 0x55, 0x55, 0xaa]);
    for (place, entry) in (1..).zip(entries) {
        disk.disk.store(40 * 2048 + place * 32, entry);
    }
    disk
}

fn image(kind: u8, emulation: u8, sectors: u16, start: u32) -> [u8; 32] {
    let mut entry = [0; 32];
    (entry[0], entry[1]) = (kind, emulation);
    entry[6..8].copy_from_slice(&sectors.to_le_bytes());
    entry[8..12].copy_from_slice(&start.to_le_bytes());
    entry
}

#[test]
fn an_image_of_no_length_reaches_to_the_end() {
    for sectors in [0, 1] {
        assert_eq!(images(&mut cd(&[image(0x88, 0, sectors, 100)])), [(0, 0, 100, 9_900)]);
    }
    assert_eq!(images(&mut cd(&[image(0x88, 0, 2, 100)])), [(0, 0, 100, 2)]);
    assert_eq!(images(&mut cd(&[image(0x88, 0, u16::MAX, 100)])), [(0, 0, 100, 9_900)]);
    let diskettes = [1, 2, 3].map(|kind| images(&mut cd(&[image(0x88, kind, 1, 100)]))[0].3);
    assert_eq!(diskettes, [600, 720, 1440]);
}

#[test]
fn only_bootable_entries_that_the_cd_has_count() {
    let section = |last: bool| image(if last { 0x91 } else { 0x90 }, 0xef, 1, 0);
    let mut disk = cd(&[
        image(0x88, 0, 4, 50),
        section(false),
        image(0x88, 0, 4, 60),
        image(0x44, 0x88, 4, 70),
        image(0, 0, 4, 80),
        section(true),
        image(0x88, 0, 4, 90),
        // Over the beginning, beyond the end, an image of a hard disk.
        image(0x88, 0, 4, 0),
        image(0x88, 0, 4, 10_000),
        image(0x88, 0, 4, u32::MAX),
        image(0x88, 4, 4, 100),
        image(0x88, 0, 4, 9_999),
    ]);
    let expected = [(0, 0, 50, 4), (1, 0xef, 60, 4), (2, 0xef, 90, 4), (7, 0xef, 9_999, 1)];
    assert_eq!(images(&mut disk), expected);
    // Without a default entry, the others are numbered from 1 on.
    assert_eq!(images(&mut cd(&[image(0, 0, 4, 50), image(0x88, 0, 4, 60)])), [(1, 0, 60, 4)]);
}

#[test]
fn a_catalog_with_a_wrong_sum_or_no_key_is_none() {
    for (at, byte) in [(0, 2), (1, 1), (30, 0), (31, 0)] {
        let mut disk = cd(&[image(0x88, 0, 4, 50)]);
        disk.disk.store(40 * 2048 + at, &[byte]);
        assert_eq!(images(&mut disk), [], "byte {at}");
    }
    for catalog in [41_u32, 9_999, 10_000, u32::MAX] {
        let mut disk = cd(&[image(0x88, 0, 4, 50)]);
        disk.disk.store(17 * 2048 + 71, &catalog.to_le_bytes());
        assert_eq!(images(&mut disk), [], "sector {catalog}");
    }
    // Descriptors without end.
    let mut disk = cd(&[]);
    (16..9_000).for_each(|sector| disk.disk.store(sector * 2048, b"\x02CD001\x01"));
    assert_eq!(images(&mut disk), []);
    assert_eq!(disk.requests.len(), 1 + 32);
}

/// A disk that does not answer.
struct Silent(BTreeSet<u64>);

impl Blocks for Silent {
    fn block_len(&self) -> BlockLen {
        BlockLen::DISK
    }
    fn blocks(&self) -> u64 {
        10_000
    }
    fn read(&mut self, at: u64, _: &mut [u8]) -> Result<(), Error> {
        assert!(self.0.insert(at), "it was asked twice");
        Err(Error::Timeout)
    }
    fn load(&mut self, _: u64, _: PhysRange) -> Result<(), Error> {
        unreachable!()
    }
}

#[test]
fn a_disk_that_does_not_answer_is_asked_once() {
    let mut disk = Silent(BTreeSet::new());
    assert_eq!(find(&mut disk), Err(Error::Timeout));
    assert_eq!(disk.0.len(), 1);
}
