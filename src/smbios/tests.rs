//! Tables captured from QEMU (`tests/data/README.md`), and tables that are broken.

extern crate std;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::addr::PhysAddr;
use crate::checksum::sum;
use crate::golden;

/// A captured file at its full length.
fn captured(folder: &str, file: &str) -> Vec<u8> {
    golden::items(folder).remove(file).unwrap()
}

/// A structure, read in the simplest way.
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

/// The anchor and the structures as the firmware leaves them in memory, for structures at `table`.
fn complete(folder: &str, table: u64) -> (Vec<u8>, Vec<u8>) {
    let mut tables = captured(folder, "etc/smbios/smbios-tables");
    let mut summary = Summary::of(&tables).unwrap();
    if !summary.has_firmware_information {
        tables = [&FIRMWARE_INFORMATION, tables.as_slice()].concat();
        summary = summary.with_firmware_information();
    }
    let anchor = Anchor::parse(&captured(folder, "etc/smbios/smbios-anchor")).unwrap();
    (anchor.finish(PhysAddr::new(table), &summary).unwrap().to_vec(), tables)
}

#[test]
fn anchors_of_smbios_2() {
    for folder in ["q35", "pc", "q35-6g", "pc-128m", "q35-vmgenid"] {
        let host = captured(folder, "etc/smbios/smbios-anchor");
        let (anchor, tables) = complete(folder, 0x7ffe_0123);
        let structures = structures(&tables);
        assert_eq!(anchor.len(), 31);
        assert_eq!((sum(&anchor), sum(&anchor[0x10..])), (0, 0));
        assert_eq!(anchor[..4], *b"_SM_");
        assert_eq!(anchor[5], 31);
        // Version, revisions.
        assert_eq!((&anchor[6..8], anchor[0xa], anchor[0x1e]), (&host[6..8], host[0xa], host[0x1e]));
        let longest = structures.iter().map(|structure| structure.len).max().unwrap();
        assert_eq!(anchor[8..10], (longest as u16).to_le_bytes());
        assert_eq!(anchor[0x16..0x18], (tables.len() as u16).to_le_bytes());
        assert_eq!(anchor[0x18..0x1c], 0x7ffe_0123_u32.to_le_bytes());
        assert_eq!(anchor[0x1c..0x1e], (structures.len() as u16).to_le_bytes());
        // QEMU counted its own structures right.
        let count = u16::from_le_bytes([host[0x1c], host[0x1d]]);
        assert_eq!(usize::from(count) + 1, structures.len());
        assert_eq!((structures[0].kind, structures.last().unwrap().kind), (0, 127));
    }
}

#[test]
fn anchors_of_smbios_3() {
    for (folder, table) in [("q35-smbios3", 0x7ffe_0123), ("q35-host-bios", 0x12_3456_789a)] {
        let (anchor, tables) = complete(folder, table);
        assert_eq!((anchor.len(), sum(&anchor)), (24, 0));
        assert_eq!((&anchor[..5], anchor[6], anchor[7]), (b"_SM3_".as_slice(), 24, 3));
        assert_eq!(anchor[0xc..0x10], (tables.len() as u32).to_le_bytes());
        assert_eq!(anchor[0x10..], table.to_le_bytes());
    }
}

#[test]
fn the_hosts_own_firmware_information_stands() {
    let (_, tables) = complete("q35-host-bios", 0);
    assert_eq!(tables, captured("q35-host-bios", "etc/smbios/smbios-tables"));
    let first = &structures(&tables)[0];
    assert_eq!((first.kind, &first.strings[..]), (0, ["Host", "1", "01/02/2003"].map(String::from).as_slice()));
}

#[test]
fn the_firmware_describes_itself() {
    let [this] = structures(&FIRMWARE_INFORMATION).try_into().ok().unwrap();
    let Structure { kind, formatted, strings, len } = this;
    assert_eq!((kind, formatted.len(), len), (0, 24, FIRMWARE_INFORMATION.len()));
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
fn an_anchor_is_known_by_its_signature() {
    let two = captured("q35", "etc/smbios/smbios-anchor");
    let three = captured("q35-smbios3", "etc/smbios/smbios-anchor");
    let kind = |bytes: &[u8]| {
        let anchor = Anchor::parse(bytes)?;
        anchor.finish(PhysAddr::new(0), &Summary::default()).map(|anchor| anchor.len())
    };
    assert_eq!(kind(&two), Ok(31));
    assert_eq!(kind(&three), Ok(24));
    assert_eq!(kind(&[three.as_slice(), &[0; 7]].concat()), Ok(24), "a 3.0 anchor as long as a 2.x one");
    assert_eq!(kind(&two[..30]), Err(Error::Anchor));
    assert_eq!(kind(&three[..23]), Err(Error::Anchor));
    assert_eq!(kind(&[0; 31]), Err(Error::Anchor));
    assert_eq!(kind(&[]), Err(Error::Anchor));
    let mut bent = two;
    bent[0x10] = b'-';
    assert_eq!(kind(&bent), Err(Error::Anchor), "no _DMI_ in it");
}

#[test]
fn what_a_host_left_in_the_checksums_does_not_matter() {
    for (folder, checksums) in [("q35", [4, 0x15].as_slice()), ("q35-smbios3", &[5])] {
        let mut bytes = captured(folder, "etc/smbios/smbios-anchor");
        checksums.iter().for_each(|&at| bytes[at] = 0x5a);
        let anchor = Anchor::parse(&bytes).unwrap().finish(PhysAddr::new(0x1000), &Summary::default()).unwrap();
        assert_eq!(sum(&anchor), 0);
        assert_eq!(anchor.get(0x10..31).map_or(0, sum), 0);
    }
}

#[test]
fn an_anchor_says_nothing_that_its_fields_cannot_hold() {
    let finish = |folder: &str, table: u64, summary: Summary| {
        let anchor = Anchor::parse(&captured(folder, "etc/smbios/smbios-anchor")).unwrap();
        anchor.finish(PhysAddr::new(table), &summary).map(|anchor| anchor.len())
    };
    let summary = Summary { structures: 0xffff, max_structure: 0xffff, len: 0xffff, has_firmware_information: true };
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
    let expected = Summary { structures: 3, max_structure: 12, len: 24, has_firmware_information: false };
    assert_eq!(Summary::of(&all), Ok(expected));
    assert_eq!(
        Summary::of(&[all.as_slice(), &[0xff; 9]].concat()),
        Ok(expected),
        "what follows the end does not count"
    );
    assert_eq!(Summary::of(&plain).unwrap().structures, 1, "an end is not needed");
    assert_eq!(Summary::of(&[]), Ok(Summary::default()));
    assert!(Summary::of(&[0, 4, 0, 0, 0, 0]).unwrap().has_firmware_information);
    // Zero bytes in the formatted area, or across its end, end nothing.
    assert_eq!(Summary::of(&[1, 8, 0, 0, 0, 0, 0, 0, b'x', 0, 0]).unwrap().len, 11);
}

#[test]
fn broken_structures_are_refused() {
    for len in 0..4 {
        assert_eq!(Summary::of(&[1, 4, 0, 0, 0, 0, 2, len, 0, 0, 0, 0]), Err(Error::Header(6)));
    }
    let tables = captured("q35", "etc/smbios/smbios-tables");
    let mut whole = vec![0];
    whole.extend(structures(&tables).iter().scan(0, |end, structure| {
        *end += structure.len;
        Some(*end)
    }));
    for len in 0..=tables.len() {
        let expected = if whole.contains(&len) { Ok(len) } else { Err(Error::Truncated(len)) };
        assert_eq!(Summary::of(&tables[..len]).map(|summary| summary.len), expected);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>) {
        if let Ok(summary) = Summary::of(&bytes) {
            prop_assert!(summary.len <= bytes.len());
            prop_assert!(summary.max_structure <= summary.len);
        }
        let _ = Anchor::parse(&bytes);
    }
}
