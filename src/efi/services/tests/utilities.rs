//! Configuration tables, counts and checksums.

use super::*;

#[test]
fn configuration_tables_are_in_the_list_that_the_system_table_points_to() {
    let mut test = Test::new();
    let one = test.put_guid(ONE);
    let install =
        |test: &mut Test, guid, table| test.services.install_configuration_table(&mut test.machine, guid, table);
    assert_eq!(install(&mut test, 0, 0x1000), Err(Status::INVALID_PARAMETER));
    assert_eq!(install(&mut test, one, 0), Err(Status::NOT_FOUND));
    assert_eq!(install(&mut test, one, 0x1000), Ok(()));
    assert_eq!(install(&mut test, one, 0x2000), Ok(()));
    let system = test.system_table();
    assert_eq!(system.configuration_count, 1);
    assert_eq!(test.machine.memory.bytes(system.configuration, 16), ONE.to_bytes());
    assert_eq!(test.number(system.configuration + 16), 0x2000);
    let unsealed = SystemTable { header: crate::efi::runtime::TableHeader { crc: 0, ..system.header }, ..system };
    assert_eq!(system.header.crc, crate::checksum::crc32(unsealed.as_bytes()));
    assert_eq!(install(&mut test, one, 0), Ok(()));
    assert_eq!(test.system_table().configuration_count, 0);
}

#[test]
fn the_monotonic_count_goes_up() {
    let mut test = Test::new();
    let at = test.put_number(0);
    let next = |test: &mut Test, at| test.services.next_monotonic_count(&mut test.machine, at);
    assert_eq!(next(&mut test, 0), Err(Status::INVALID_PARAMETER));
    assert_eq!(next(&mut test, at), Ok(()));
    assert_eq!(test.number(at), 1);
    test.services.count = u32::MAX;
    assert_eq!(next(&mut test, at), Ok(()));
    assert_eq!(test.number(at), 1 << 32);
}

#[test]
fn a_checksum_is_that_of_ethernet() {
    let mut test = Test::new();
    let (text, at) = (test.put(b"123456789"), test.put_number(0));
    let crc = |test: &mut Test, from, len, at| test.services.crc32(&mut test.machine, from, len, at);
    assert_eq!(crc(&mut test, text, 9, at), Ok(()));
    assert_eq!(test.number(at), 0xcbf4_3926);
    for (from, len, at) in [(0, 9, at), (text, 0, at), (text, 9, 0), (u64::MAX, 9, at)] {
        assert_eq!(crc(&mut test, from, len, at), Err(Status::INVALID_PARAMETER));
    }
}

#[test]
fn there_is_no_watchdog_to_be_set() {
    let test = Test::new();
    assert_eq!(test.services.set_watchdog_timer(0), Ok(()));
    assert_eq!(test.services.set_watchdog_timer(300), Err(Status::UNSUPPORTED));
}

#[test]
fn memory_is_copied_and_filled_and_the_firmwares_own_is_not() {
    let mut test = Test::new();
    let (from, to) = (test.put(b"abcdefgh"), test.put(&[0; 8]));
    copy(&mut test.machine, to, from, 8);
    assert_eq!(test.machine.memory.bytes(to, 8), b"abcdefgh");
    fill(&mut test.machine, to, 4, b'x');
    assert_eq!(test.machine.memory.bytes(to, 8), b"xxxxefgh");
    let own = crate::layout::FIRMWARE_RAM.start().get();
    copy(&mut test.machine, own, from, 8);
    fill(&mut test.machine, own, 8, 1);
    assert_eq!(test.machine.memory.bytes(own, 8), [0; 8]);
    copy(&mut test.machine, to, u64::MAX, 8);
    fill(&mut test.machine, u64::MAX, 8, 1);
}
