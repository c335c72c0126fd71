//! The effect of each command.

use super::*;
use crate::checksum::sum;

#[test]
fn files_are_placed_linked_and_summed() {
    let (mut host, script) = minimal();
    let rsdp = script.load(&mut host).unwrap();
    assert_eq!(rsdp.get(), host.start(0));
    assert_eq!(rsdp.get() % 16, 0);
    assert!((0xf_0000..0x10_0000).contains(&rsdp.get()));
    assert_eq!(host.start(1) % 64, 0);
    assert_eq!(host.contents(0)[16..20], (host.start(1) as u32).to_le_bytes());
    assert_eq!(sum(host.contents(0)), 0);
    assert_eq!(host.contents(1), [0; 64]);
}

#[test]
fn a_pointer_is_added_to_the_offset_it_holds() {
    for (size, high) in [(1, 0x40), (2, 0xf000), (4, 0x7000_0000), (8, 0x7000_0000)] {
        let (mut host, script) = minimal();
        host.high = range(high, high + 64);
        let mut tables = [0xee; 64];
        tables[15..][..size].fill(0);
        tables[15] = 0x11;
        host.files.insert("tables".into(), tables.to_vec());
        script.add_pointer("tables", "tables", 15, size as u8).load(&mut host).unwrap();
        tables[15..][..size].copy_from_slice(&(high + 0x11).to_le_bytes()[..size]);
        assert_eq!(host.contents(1), tables, "{size} bytes");
    }
}

#[test]
fn an_alignment_is_at_least_16_bytes() {
    // Cloud Hypervisor asks for 4.
    for alignment in [0, 1, 4, 16] {
        let (mut host, _) = minimal();
        let script = Script::default().allocate("rsdp", alignment, 2).add_checksum("rsdp", 8, 0, 20);
        assert_eq!(script.load(&mut host).unwrap().get(), 0xf_0010, "alignment {alignment}");
    }
}

#[test]
fn a_sum_is_subtracted_from_the_byte() {
    // Cloud Hypervisor does not clear the checksum bytes. It also completes one checksum itself, and then requests a
    // sum of no bytes.
    let (mut host, script) = minimal();
    let mut tables = [7; 64];
    tables[3] = 0x99;
    host.files.insert("tables".into(), tables.to_vec());
    script.add_checksum("tables", 3, 1, 62).add_checksum("tables", 40, 0, 0).load(&mut host).unwrap();
    assert_eq!(sum(&host.contents(1)[1..63]), 0);
    assert_eq!(host.contents(1)[40], 7);
}

#[test]
fn a_sum_over_many_chunks_is_correct() {
    let (mut host, script) = minimal();
    let tables: Vec<u8> = (0..5001_u32).map(|i| ((i * i) >> 3) as u8).collect();
    host.files.insert("tables".into(), tables);
    script.add_checksum("tables", 9, 1, 4999).load(&mut host).unwrap();
    assert_eq!(sum(&host.contents(1)[1..5000]), 0);
}

#[test]
fn an_address_is_written_to_the_host() {
    let (mut host, script) = minimal();
    script.write_pointer("told", "tables", [4, 0x28], 4).load(&mut host).unwrap();
    let expected = (host.start(1) as u32 + 0x28).to_le_bytes().to_vec();
    assert_eq!(host.told, [("told".to_string(), 4, expected)]);
}

#[test]
fn unknown_commands_and_padding_are_skipped() {
    let (mut host, script) = minimal();
    let script = script.command(5, &[&[0xff; 124]]).command(u32::MAX, &[]).command(0, &[&[0xff; 124]]);
    script.add_checksum("tables", 0, 0, 1).load(&mut host).unwrap();
}

#[test]
fn empty_files_and_commands_that_refer_to_them_are_skipped() {
    let (mut host, script) = minimal();
    host.files.insert("empty-too".into(), Vec::new());
    let script = script
        .allocate("empty", 4096, 1)
        .add_pointer("empty", "tables", 0, 4)
        .add_pointer("tables", "empty", 0, 4)
        .add_checksum("empty", 0, 0, 8)
        .write_pointer("told", "empty", [0, 0], 8)
        .write_pointer("empty-too", "tables", [0, 0], 8);
    script.load(&mut host).unwrap();
    assert_eq!(host.allocations.len(), 2);
    assert_eq!(host.contents(1), [0; 64]);
    assert_eq!(host.told, []);
}

#[test]
fn any_number_of_files_is_found_by_name() {
    // A known mistake of other firmware: a fixed array indexed by a fw_cfg file number. The host chooses the number.
    let (mut host, mut script) = minimal();
    for i in 0..400 {
        let file = alloc::format!("etc/{i}");
        host.files.insert(file.clone(), vec![i as u8; 16]);
        script = script.allocate(&file, 16, 1);
    }
    script.add_checksum("etc/399", 0, 0, 16).load(&mut host).unwrap();
    assert_eq!(sum(host.contents(401)), 0);
    assert_eq!(host.contents(400), [398_u16 as u8; 16]);
}

#[test]
fn the_rsdp_of_acpi_2_has_two_checksums() {
    let rsdp2 = |len: u32| {
        let mut rsdp = [rsdp(), vec![0; 16]].concat();
        rsdp[15] = 2;
        rsdp[20..24].copy_from_slice(&len.to_le_bytes());
        rsdp
    };
    let load = |rsdp: Vec<u8>, second: bool| {
        let mut host = FakeHost::new(&[("acpi/rsdp", &rsdp), ("tables", &[0; 64])]);
        let mut script = Script::default()
            .allocate("tables", 64, 1)
            .allocate("acpi/rsdp", 4, 2)
            .add_pointer("acpi/rsdp", "tables", 24, 8)
            .add_checksum("acpi/rsdp", 8, 0, 20);
        if second {
            script = script.add_checksum("acpi/rsdp", 32, 0, 36);
        }
        script.load(&mut host).map(PhysAddr::get)
    };
    assert_eq!(load(rsdp2(36), true), Ok(0xf_0010));
    assert_eq!(load(rsdp2(36), false), Err(Error::NoRsdp), "the second checksum is missing");
    for len in [0, 20, 35, 37, u32::MAX] {
        assert_eq!(load(rsdp2(len), true), Err(Error::NoRsdp), "length {len}");
    }
}
