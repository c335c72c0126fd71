//! SMBIOS: the host's entry point, and a walk through its structures.
//!
//! Input: a byte with where the structures are split, an address, the entry point, and the structures.

use firstlight::addr::PhysAddr;
use firstlight::smbios::{EntryPoint, Error, Summary, Walk, firmware_information};

use crate::input::Input;

/// Walks in one piece and in two, and beside a walk that knows nothing of pieces; then finishes the entry point. All walks see
/// the same, and the entry point has the address and the counts, and sums that are zero.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (split, at): (u16, u64) = (input.take(), input.take());
    let entry_point = input.short();
    let tables = input.rest();
    let walk = |pieces: &[&[u8]]| {
        let mut walk = Walk::default();
        pieces.iter().for_each(|piece| walk.add(piece));
        walk.finish()
    };
    let seen = walk(&[tables]);
    let (first, second) = tables.split_at(usize::from(split).min(tables.len()));
    assert_eq!(seen, walk(&[first, second]), "in two pieces");
    let summary = match (seen, plain_walk(tables)) {
        (Ok(summary), Some(plain)) => {
            assert_eq!(summary, plain);
            summary
        }
        (Err(error), None) => return crate::one_line(&error.to_string()),
        (seen, plain) => panic!("{seen:?} and {plain:?}"),
    };
    assert!(summary.len <= tables.len() && summary.max_structure <= summary.len);

    let Ok(entry_point) = EntryPoint::parse(entry_point) else { return };
    for summary in [summary, summary.with_firmware_information()] {
        match entry_point.finish(PhysAddr::new(at), &summary) {
            Ok(bytes) => check_entry_point(&bytes, at, &summary),
            Err(error) => {
                crate::one_line(&error.to_string());
                assert!(!matches!(error, Error::TooHigh) || at > u64::from(u32::MAX));
            }
        }
    }
    let own = firmware_information(summary.free_handle());
    assert_eq!(walk(&[&own]).map(|summary| summary.structures), Ok(1));
    let taken = summary.has_handle_zero && summary.last_handle >= 0xfeff;
    assert!(taken || !handles(tables).contains(&summary.free_handle()));
}

fn check_entry_point(bytes: &[u8], at: u64, summary: &Summary) {
    let sum = |bytes: &[u8]| bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    let number = |range: core::ops::Range<usize>| bytes[range].iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
    assert_eq!(sum(bytes), 0);
    if bytes.starts_with(b"_SM3_") {
        assert_eq!((number(12..16), number(16..24)), (summary.len as u64, at));
    } else {
        assert_eq!(sum(&bytes[16..]), 0);
        let counts = (number(8..10), number(22..24), number(24..28), number(28..30));
        assert_eq!(counts, (summary.max_structure as u64, summary.len as u64, at, summary.structures as u64));
    }
}

/// The structures, each with its strings; `None` when they break off, or one is shorter than its header.
fn structures(tables: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = tables;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let formatted = usize::from(*rest.get(1)?);
        if formatted < 4 {
            return None;
        }
        let strings = rest.get(formatted..)?;
        let end = formatted + strings.windows(2).position(|pair| pair == [0, 0])? + 2;
        let (structure, after) = rest.split_at(end);
        found.push(structure);
        if structure[0] == 127 {
            break;
        }
        rest = after;
    }
    Some(found)
}

fn plain_walk(tables: &[u8]) -> Option<Summary> {
    let structures = structures(tables)?;
    let handles = handles(tables);
    Some(Summary {
        structures: structures.len(),
        max_structure: structures.iter().map(|structure| structure.len()).max().unwrap_or(0),
        len: structures.iter().map(|structure| structure.len()).sum(),
        has_firmware_information: structures.iter().any(|structure| structure[0] == 0),
        has_handle_zero: handles.contains(&0),
        last_handle: handles.iter().copied().max().unwrap_or(0),
    })
}

fn handles(tables: &[u8]) -> Vec<u16> {
    let structures = structures(tables).unwrap_or_default();
    structures.iter().map(|structure| u16::from_le_bytes([structure[2], structure[3]])).collect()
}

/// Tables of real machines.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for machine in crate::machines() {
        let (Some(entry_point), Some(tables)) =
            (machine.get("etc/smbios/smbios-anchor"), machine.get("etc/smbios/smbios-tables"))
        else {
            continue;
        };
        for split in [0_u16, 13, 100] {
            let head = [&split.to_le_bytes()[..], &0xf_0000_u64.to_le_bytes(), &[entry_point.len() as u8]].concat();
            seeds.push([&head, entry_point.as_slice(), tables].concat());
        }
    }
    seeds
}
