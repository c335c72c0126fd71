//! Tables captured from QEMU (`tests/data/README.md`), and invalid tables.

extern crate std;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::addr::PhysAddr;
use crate::checksum::sum;
use crate::fakes::golden;

/// A captured file at its full length.
fn captured(folder: &str, file: &str) -> Vec<u8> {
    golden::items(folder).remove(file).unwrap()
}

/// A structure, parsed in the simplest way.
struct Structure {
    kind: u8,
    formatted: Vec<u8>,
    strings: Vec<String>,
    len: usize,
}

fn structures(mut bytes: &[u8]) -> Vec<Structure> {
    let mut structures = Vec::new();
    while !bytes.is_empty() {
        let (formatted, rest) = bytes.split_at(bytes[1].into());
        let end = rest.windows(2).position(|pair| pair == [0, 0]).unwrap();
        let strings = rest[..end].split(|&byte| byte == 0).map(|string| String::from_utf8(string.to_vec()).unwrap());
        let len = formatted.len() + end + 2;
        structures.push(Structure { kind: bytes[0], formatted: formatted.to_vec(), strings: strings.collect(), len });
        bytes = &bytes[len..];
    }
    structures
}

/// The summary of structures that come in one piece.
fn summary_of(bytes: &[u8]) -> Result<Summary, Error> {
    let mut walk = Walk::default();
    walk.add(bytes);
    walk.finish()
}

/// The entry point and the structures as the firmware leaves them in memory, for structures at `table`.
fn complete(folder: &str, table: u64) -> (Vec<u8>, Vec<u8>) {
    let mut tables = captured(folder, "etc/smbios/smbios-tables");
    let mut summary = summary_of(&tables).unwrap();
    if !summary.has_firmware_information {
        tables = [&firmware_information(0), tables.as_slice()].concat();
        summary = summary.with_firmware_information();
    }
    let entry_point = EntryPoint::parse(&captured(folder, "etc/smbios/smbios-anchor")).unwrap();
    (entry_point.finish(PhysAddr::new(table), &summary).unwrap().to_vec(), tables)
}

#[test]
fn smbios_2_entry_points_are_completed() {
    for folder in ["q35", "pc", "q35-6g", "pc-128m", "q35-vmgenid"] {
        let host = captured(folder, "etc/smbios/smbios-anchor");
        let (entry_point, tables) = complete(folder, 0x7ffe_0123);
        let structures = structures(&tables);
        assert_eq!(entry_point.len(), 31);
        assert_eq!((sum(&entry_point), sum(&entry_point[0x10..])), (0, 0));
        assert_eq!(entry_point[..4], *b"_SM_");
        assert_eq!(entry_point[5], 31);
        // Version, revisions.
        assert_eq!((&entry_point[6..8], entry_point[0xa], entry_point[0x1e]), (&host[6..8], host[0xa], host[0x1e]));
        let longest = structures.iter().map(|structure| structure.len).max().unwrap();
        assert_eq!(entry_point[8..10], (longest as u16).to_le_bytes());
        assert_eq!(entry_point[0x16..0x18], (tables.len() as u16).to_le_bytes());
        assert_eq!(entry_point[0x18..0x1c], 0x7ffe_0123_u32.to_le_bytes());
        assert_eq!(entry_point[0x1c..0x1e], (structures.len() as u16).to_le_bytes());
        // QEMU's count of its own structures is right.
        let count = u16::from_le_bytes([host[0x1c], host[0x1d]]);
        assert_eq!(usize::from(count) + 1, structures.len());
        assert_eq!((structures[0].kind, structures.last().unwrap().kind), (0, 127));
    }
}

#[test]
fn smbios_3_entry_points_are_completed() {
    for (folder, table) in [("q35-smbios3", 0x7ffe_0123), ("q35-host-bios", 0x12_3456_789a)] {
        let (entry_point, tables) = complete(folder, table);
        assert_eq!((entry_point.len(), sum(&entry_point)), (24, 0));
        assert_eq!((&entry_point[..5], entry_point[6], entry_point[7]), (b"_SM3_".as_slice(), 24, 3));
        assert_eq!(entry_point[0xc..0x10], (tables.len() as u32).to_le_bytes());
        assert_eq!(entry_point[0x10..], table.to_le_bytes());
    }
}

#[test]
fn the_hosts_own_firmware_information_is_kept() {
    let (_, tables) = complete("q35-host-bios", 0);
    assert_eq!(tables, captured("q35-host-bios", "etc/smbios/smbios-tables"));
    let first = &structures(&tables)[0];
    assert_eq!((first.kind, &first.strings[..]), (0, ["Host", "1", "01/02/2003"].map(String::from).as_slice()));
}

#[test]
fn the_firmware_describes_itself() {
    let [this] = structures(&firmware_information(0x1234)).try_into().ok().unwrap();
    let Structure { kind, formatted, strings, len } = this;
    assert_eq!((kind, formatted.len(), len), (0, 24, FIRMWARE_INFORMATION_LEN));
    assert_eq!(formatted[2..4], [0x34, 0x12]);
    assert_eq!(formatted[9], 7, "a ROM of 512 KiB, in units of 64 KiB minus one");
    assert_eq!(strings[0], "Firstlight");
    assert_eq!(strings[1], env!("CARGO_PKG_VERSION"));
    assert_eq!((formatted[4], formatted[5], formatted[8]), (1, 2, 3));
    assert_eq!(formatted[0x13], 0x10, "a virtual machine, not UEFI");

    let [month, day, year] = strings[2].split('/').collect::<Vec<_>>().try_into().unwrap();
    assert!((1..=12).contains(&month.parse().unwrap()) && (1..=31).contains(&day.parse().unwrap()));
    assert_eq!((month.len(), day.len(), year.len()), (2, 2, 4));
    assert!(year >= "2008", "Linux takes an older firmware for one whose ACPI windows are wrong");
}

#[test]
fn an_entry_point_is_identified_by_its_signature() {
    let two = captured("q35", "etc/smbios/smbios-anchor");
    let three = captured("q35-smbios3", "etc/smbios/smbios-anchor");
    let kind = |bytes: &[u8]| {
        let entry_point = EntryPoint::parse(bytes)?;
        entry_point.finish(PhysAddr::new(0), &Summary::default()).map(|entry_point| entry_point.len())
    };
    assert_eq!(kind(&two), Ok(31));
    assert_eq!(kind(&three), Ok(24));
    assert_eq!(kind(&[three.as_slice(), &[0; 7]].concat()), Ok(24), "a 3.0 entry point as long as a 2.x one");
    assert_eq!(kind(&two[..30]), Err(Error::EntryPoint));
    assert_eq!(kind(&three[..23]), Err(Error::EntryPoint));
    assert_eq!(kind(&[0; 31]), Err(Error::EntryPoint));
    assert_eq!(kind(&[]), Err(Error::EntryPoint));
    let mut bent = two;
    bent[0x10] = b'-';
    assert_eq!(kind(&bent), Err(Error::EntryPoint), "no _DMI_ in it");
}

#[test]
fn the_hosts_checksums_are_replaced() {
    for (folder, checksums) in [("q35", [4, 0x15].as_slice()), ("q35-smbios3", &[5])] {
        let mut bytes = captured(folder, "etc/smbios/smbios-anchor");
        checksums.iter().for_each(|&at| bytes[at] = 0x5a);
        let entry_point =
            EntryPoint::parse(&bytes).unwrap().finish(PhysAddr::new(0x1000), &Summary::default()).unwrap();
        assert_eq!(sum(&entry_point), 0);
        assert_eq!(entry_point.get(0x10..31).map_or(0, sum), 0);
    }
}

#[test]
fn values_too_large_for_the_entry_point_are_refused() {
    let finish = |folder: &str, table: u64, summary: Summary| {
        let entry_point = EntryPoint::parse(&captured(folder, "etc/smbios/smbios-anchor")).unwrap();
        entry_point.finish(PhysAddr::new(table), &summary).map(|entry_point| entry_point.len())
    };
    let summary = Summary { structures: 0xffff, max_structure: 0xffff, len: 0xffff, ..Summary::default() };
    assert_eq!(finish("q35", 0xffff_ffff, summary), Ok(31));
    assert_eq!(finish("q35", 0x1_0000_0000, summary), Err(Error::TooHigh));
    let long = Summary { len: 0x1_0000, ..summary };
    assert_eq!(finish("q35", 0, long), Err(Error::TooLarge(0x1_0000)));
    assert_eq!(finish("q35-smbios3", 0x1_0000_0000, long), Ok(24));
    let many = Summary { structures: 0x1_0000, ..summary };
    assert_eq!(finish("q35", 0, many), Err(Error::TooLarge(0xffff)));
    let huge = Summary { len: 0x1_0000_0000, ..summary };
    assert_eq!(finish("q35-smbios3", 0, huge), Err(Error::TooLarge(0x1_0000_0000)));
    let limit = Summary { len: usize::MAX, structures: usize::MAX, ..summary }.with_firmware_information();
    assert_eq!(finish("q35-smbios3", 0, limit), Err(Error::TooLarge(usize::MAX)));
}

#[test]
fn structures_end_with_two_zero_bytes() {
    let plain = [1, 4, 0, 0, 0, 0];
    let with_strings = [2, 6, 0, 0, 9, 9, b'a', 0, b'b', b'c', 0, 0];
    let end = [127, 4, 0, 0, 0, 0];
    let all = [plain.as_slice(), &with_strings, &end].concat();
    let expected = Summary { structures: 3, max_structure: 12, len: 24, has_handle_zero: true, ..Summary::default() };
    assert_eq!(summary_of(&all), Ok(expected));
    assert_eq!(summary_of(&[all.as_slice(), &[0xff; 9]].concat()), Ok(expected), "what follows the end does not count");
    assert_eq!(summary_of(&plain).unwrap().structures, 1, "an end is not needed");
    assert_eq!(summary_of(&[]), Ok(Summary::default()));
    assert!(summary_of(&[0, 4, 0, 0, 0, 0]).unwrap().has_firmware_information);
    // Zero bytes in the formatted area, or across its end, do not end a structure.
    assert_eq!(summary_of(&[1, 8, 0, 0, 0, 0, 0, 0, b'x', 0, 0]).unwrap().len, 11);
}

#[test]
fn invalid_structures_are_refused() {
    for len in 0..4 {
        assert_eq!(summary_of(&[1, 4, 0, 0, 0, 0, 2, len, 0, 0, 0, 0]), Err(Error::Header(6)));
    }
    let tables = captured("q35", "etc/smbios/smbios-tables");
    let mut whole = vec![0];
    whole.extend(structures(&tables).iter().scan(0, |end, structure| {
        *end += structure.len;
        Some(*end)
    }));
    for len in 0..=tables.len() {
        let expected = if whole.contains(&len) { Ok(len) } else { Err(Error::Truncated(len)) };
        assert_eq!(summary_of(&tables[..len]).map(|summary| summary.len), expected);
    }
}

#[test]
fn the_free_handle_is_that_of_no_structure() {
    let structure = |handle: u16| [&[1, 4], handle.to_le_bytes().as_slice(), &[0, 0]].concat();
    let free = |handles: &[u16]| {
        let bytes: Vec<_> = handles.iter().flat_map(|&handle| structure(handle)).collect();
        summary_of(&bytes).unwrap().free_handle()
    };
    assert_eq!(free(&[]), 0);
    assert_eq!(free(&[0x100, 0x7f00, 0x1000]), 0, "QEMU's");
    assert_eq!(free(&[0x100, 0, 0x7f00, 0x1000]), 0x7f01);
    assert_eq!(free(&[0]), 1);
    assert_eq!(free(&[0, 0xfefe]), 0xfeff);
    assert_eq!(free(&[0, 0xffff]), 0xfeff);
}

proptest! {
    #[test]
    fn structures_may_come_in_any_pieces(cuts: Vec<proptest::sample::Index>, len: proptest::sample::Index) {
        let tables = captured("q35", "etc/smbios/smbios-tables");
        let tables = &tables[..len.index(tables.len() + 1)];
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(tables.len() + 1)).collect();
        cuts.extend([0, tables.len()]);
        cuts.sort_unstable();
        let mut walk = Walk::default();
        cuts.windows(2).for_each(|cut| walk.add(&tables[cut[0]..cut[1]]));
        prop_assert_eq!(walk.finish(), summary_of(tables));
    }

    #[test]
    fn strings_end_at_the_first_two_zero_bytes(bytes in proptest::collection::vec(0_u8..3, 0..40), before: bool) {
        // Includes the byte before as a byte like the others.
        let all = [&[if before { 0 } else { 1 }], bytes.as_slice()].concat();
        let naive = all.windows(2).position(|pair| pair == [0, 0]).map_or((bytes.len(), false), |at| (at + 1, true));
        let mut zero_before = before;
        prop_assert_eq!(walk::strings_len(&bytes, &mut zero_before), naive);
        if !naive.1 {
            prop_assert_eq!(zero_before, all.last() == Some(&0));
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        if let Ok(summary) = summary_of(&bytes) {
            prop_assert!(summary.len <= bytes.len());
            prop_assert!(summary.max_structure <= summary.len);
        }
        let _ = EntryPoint::parse(&bytes);
    }
}
