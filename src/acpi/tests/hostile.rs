//! Invalid and malicious scripts. The fake host fails the test if memory is accessed that was not allocated.

use proptest::prelude::*;

use super::*;
use crate::acpi::{Cause, Plan, ScriptError};

/// Why the last command of a script is refused.
fn cause(host: &mut FakeHost, script: &Script) -> Cause {
    let last = (script.0.len() / 128 - 1) as u16;
    match script.load(host) {
        Err(Error::Script(ScriptError::Command { number, cause })) => {
            assert_eq!(number, last, "another command was refused");
            assert_eq!(host.told, []);
            cause
        }
        other => panic!("{other:?}"),
    }
}

/// Why a command after those of [`minimal`] is refused, before any command has run.
fn refused(add: impl Fn(Script) -> Script) -> Cause {
    let (mut host, script) = minimal();
    let cause = cause(&mut host, &add(script));
    assert!(host.allocations.is_empty(), "the script ran before it was checked");
    cause
}

#[test]
fn a_table_pointer_whose_start_and_length_wrap_is_refused() {
    for size in [1, 2, 4, 8] {
        let wraps = u32::MAX - u32::from(size) + 1;
        for offset in [wraps, u32::MAX, 65 - u32::from(size)] {
            assert_eq!(refused(|s| s.add_pointer("tables", "rsdp", offset, size)), Cause::PastEnd);
        }
    }
    assert_eq!(refused(|s| s.write_pointer("told", "tables", [u32::MAX - 7, 0], 8)), Cause::PastEnd);
    assert_eq!(refused(|s| s.write_pointer("told", "tables", [1, 0], 8)), Cause::PastEnd);
    assert_eq!(refused(|s| s.write_pointer("told", "tables", [0, 64], 8)), Cause::PastEnd);
}

#[test]
fn a_checksum_whose_start_and_length_wrap_is_refused() {
    for (offset, start, len) in [
        (0, u32::MAX - 0xff, 0x200),
        (0, 0x100, u32::MAX),
        (0, u32::MAX, 1),
        (0, 0, 65),
        (0, 64, 1),
        (64, 0, 64),
        (u32::MAX, 0, 64),
    ] {
        assert_eq!(refused(|s| s.add_checksum("tables", offset, start, len)), Cause::PastEnd, "{offset} {start} {len}");
    }
}

#[test]
fn a_script_that_sums_a_file_hundreds_of_times_is_refused_before_it_runs() {
    let (mut host, script) = minimal();
    // Four times the bytes of the files, including the RSDP's.
    let most = (0..4).fold(script, |script, _| script.add_checksum("tables", 0, 0, 64));
    let most = most.add_checksum("rsdp", 8, 0, 20).add_checksum("rsdp", 8, 0, 20).add_checksum("rsdp", 8, 0, 20);
    assert!(most.load(&mut host).is_ok());
    let (mut host, _) = minimal();
    let error = most.add_checksum("tables", 0, 0, 1).load(&mut host).unwrap_err();
    assert_eq!(error, ScriptError::Sums { loaded: 84, summed: 337 }.into());
    assert!(host.allocations.is_empty(), "the script ran");
    let text = "the host's etc/table-loader has checksums of 337 bytes, but loads only 84; sum each table once";
    assert_eq!(error.to_string(), text);

    // The longest script, over one large file.
    let (mut host, script) = minimal();
    host.files.insert("tables".into(), vec![1; 4 << 20]);
    let script = (0..Plan::MAX_SCRIPT / 128 - 4).fold(script, |script, _| script.add_checksum("tables", 0, 0, 4 << 20));
    let summed = (508 << 22) + 20;
    assert_eq!(script.load(&mut host), Err(ScriptError::Sums { loaded: (4 << 20) + 20, summed }.into()));
}

#[test]
fn an_offset_past_the_end_of_its_file_is_refused() {
    for offset in [64, 0x1000, u32::MAX.into(), u64::MAX - 0x7fff_0000, u64::MAX] {
        let (mut host, script) = minimal();
        let tables = [[0; 32].as_slice(), &offset.to_le_bytes(), &[0; 24]].concat();
        host.files.insert("tables".into(), tables);
        let script = script.add_pointer("tables", "tables", 32, 8);
        assert_eq!(cause(&mut host, &script), Cause::PointerPastEnd(offset));
    }
}

#[test]
fn a_pointer_that_is_too_narrow_is_refused() {
    for (size, high) in [(1, 0xf0), (2, 0xfff0), (4, 0xffff_fff0)] {
        let (mut host, _) = minimal();
        host.high = range(high, high + 64);
        let script = Script::default().allocate("tables", 16, 1);
        host.files.insert("tables".into(), vec![0x10; 64]);
        host.files.get_mut("tables").unwrap()[1..].fill(0);
        let address = high + 0x10;
        let script = script.add_pointer("tables", "tables", 0, size);
        assert_eq!(cause(&mut host, &script), Cause::PointerTooLarge(address));
    }
}

#[test]
fn arguments_outside_the_language_are_refused() {
    for zone in [0, 3, 0xff] {
        assert_eq!(refused(|s| s.allocate("told", 16, zone)), Cause::Zone(zone));
    }
    for alignment in [3, 24, u32::MAX] {
        assert_eq!(refused(|s| s.allocate("told", alignment, 1)), Cause::Alignment(alignment));
    }
    for size in [0, 3, 5, 16, 255] {
        assert_eq!(refused(|s| s.add_pointer("rsdp", "tables", 0, size)), Cause::PointerSize(size));
        assert_eq!(refused(|s| s.write_pointer("told", "tables", [0, 0], size)), Cause::PointerSize(size));
    }
}

#[test]
fn files_must_be_allocated_once_and_before_they_are_used() {
    assert_eq!(refused(|s| s.allocate("tables", 16, 1)), Cause::AllocatedTwice);
    assert_eq!(refused(|s| s.allocate("empty", 16, 1).allocate("empty", 16, 1)), Cause::AllocatedTwice);
    assert_eq!(refused(|s| s.allocate("nothing", 16, 1)), Cause::Absent);
    assert_eq!(refused(|s| s.write_pointer("nothing", "tables", [0, 0], 8)), Cause::Absent);
    assert_eq!(refused(|s| s.add_pointer("told", "tables", 0, 4)), Cause::NotAllocated);
    assert_eq!(refused(|s| s.add_pointer("tables", "told", 0, 4)), Cause::NotAllocated);
    assert_eq!(refused(|s| s.add_checksum("told", 0, 0, 8)), Cause::NotAllocated);
    assert_eq!(refused(|s| s.write_pointer("told", "told", [0, 0], 8)), Cause::NotAllocated);
}

#[test]
fn a_name_needs_a_nul_and_need_not_be_text() {
    let no_text = [[0xff; 1].as_slice(), &[0; 55]].concat().try_into().unwrap();
    for (field, cause) in [([b'a'; 56], Cause::Name), ([0; 56], Cause::Name), (no_text, Cause::Absent)] {
        assert_eq!(refused(|s| s.command(1, &[&field, &[16, 0, 0, 0, 1]])), cause);
    }
    let (mut host, _) = minimal();
    let longest = "n".repeat(55);
    host.files.insert(longest.clone(), rsdp());
    let script = Script::default().allocate(&longest, 16, 2).add_checksum(&longest, 8, 0, 20);
    assert!(script.load(&mut host).is_ok());
}

#[test]
fn a_script_has_whole_commands_and_a_limited_length() {
    let (host, script) = minimal();
    let parse = |bytes: &[u8]| Plan::parse(bytes, |file| host.len_of(file)).map(|_| ());
    for len in [1, 127, 129, 511] {
        assert_eq!(parse(&script.0[..len.min(script.0.len())]), Err(ScriptError::Length(len)));
    }
    assert_eq!(parse(&vec![0; Plan::MAX_SCRIPT]), Ok(()));
    assert_eq!(parse(&vec![0; Plan::MAX_SCRIPT + 128]), Err(ScriptError::Length(Plan::MAX_SCRIPT + 128)));
    let (mut host, _) = minimal();
    assert_eq!(load(&mut host, &[]), Err(Error::NoRsdp));
}

#[test]
fn tables_that_could_not_be_linked_are_hidden_and_no_address_is_written_to_the_host() {
    let (mut host, script) = minimal();
    let mut tables = [0; 64];
    tables[0] = 0xff;
    host.files.insert("tables".into(), tables.to_vec());
    // The RSDP is complete before the last command fails.
    let script = script.write_pointer("told", "tables", [0, 0], 8).add_pointer("tables", "tables", 0, 8);
    assert_eq!(cause(&mut host, &script), Cause::PointerPastEnd(0xff));
    assert_eq!(host.contents(0)[..8], [0; 8]);

    let (mut host, script) = minimal();
    host.broken = Some("tables");
    assert_eq!(script.load(&mut host), Err(Error::Host("broken")));
    assert_eq!(host.contents(0)[..8], [0; 8]);
}

/// An RSDP of ACPI 1.0 that needs no command.
fn complete_rsdp() -> Vec<u8> {
    let mut rsdp = rsdp();
    rsdp[8] = crate::checksum::sum(&rsdp).wrapping_neg();
    rsdp
}

#[test]
fn an_rsdp_inside_a_file_is_hidden_after_a_failure() {
    let file = [vec![0; 16], complete_rsdp()].concat();
    let mut host = FakeHost::new(&[("rsdp", &file)]);
    assert_eq!(Script::default().allocate("rsdp", 16, 2).load(&mut host), Err(Error::NoRsdp));
    assert_eq!(host.contents(0), vec![0; file.len()]);
}

#[test]
fn an_rsdp_in_a_partly_loaded_file_is_hidden() {
    let mut host = FakeHost::new(&[("rsdp", &complete_rsdp())]);
    host.broken = Some("rsdp");
    assert_eq!(Script::default().allocate("rsdp", 16, 2).load(&mut host), Err(Error::Host("broken")));
    assert_eq!(host.contents(0), [0; 20]);
}

#[test]
fn a_host_that_does_not_accept_an_address_still_gets_tables() {
    let (mut host, script) = minimal();
    host.writable = false;
    assert!(script.write_pointer("told", "tables", [0, 0], 8).load(&mut host).is_ok());
}

#[test]
fn a_full_zone_is_an_error() {
    let (mut host, script) = minimal();
    host.f_segment = range(0xf_fff0, 0x10_0000);
    assert_eq!(script.load(&mut host), Err(Error::NoRoom { len: 20, zone: Zone::FSegment }));
    let (mut host, script) = minimal();
    let script = script.allocate("told", 1 << 31, 1);
    assert_eq!(script.load(&mut host), Err(Error::NoRoom { len: 8, zone: Zone::High }));
}

#[test]
fn tables_without_a_valid_rsdp_are_an_error() {
    let (mut host, script) = minimal();
    let script = script.add_checksum("rsdp", 9, 10, 1);
    assert_eq!(script.load(&mut host), Err(Error::NoRsdp), "the checksum was broken again");
    let mut host = FakeHost::new(&[("short", b"RSD PTR ")]);
    let script = Script::default().allocate("short", 16, 2);
    assert_eq!(script.load(&mut host), Err(Error::NoRsdp));
}

/// A number that is small, near a limit, or random.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![0..72_u32, (0..9_u32).prop_map(|i| u32::MAX - i), any::<u32>()]
}

fn file() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        8 => proptest::sample::select(vec!["rsdp", "tables", "told"]),
        1 => proptest::sample::select(vec!["empty", "absent", ""]),
    ]
}

fn size() -> impl Strategy<Value = u8> {
    prop_oneof![8 => proptest::sample::select(vec![1, 2, 4, 8]), 1 => any::<u8>()]
}

fn command() -> impl Strategy<Value = Script> {
    let none = Script::default;
    prop_oneof![
        (file(), number(), 0..4_u8).prop_map(move |(file, align, zone)| none().allocate(file, align, zone)),
        (file(), file(), number(), size()).prop_map(move |(d, s, at, size)| none().add_pointer(d, s, at, size)),
        (file(), number(), number(), number()).prop_map(move |(f, at, s, len)| none().add_checksum(f, at, s, len)),
        (file(), file(), number(), number(), size()).prop_map(move |(d, s, to, of, size)| none().write_pointer(
            d,
            s,
            [to, of],
            size
        )),
    ]
}

/// A script of mostly valid commands, after those of [`minimal`] or alone.
fn script() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), proptest::collection::vec(command(), 0..5)).prop_map(|(after, commands)| {
        let mut script = if after { minimal().1.0 } else { Vec::new() };
        script.extend(commands.into_iter().flat_map(|command| command.0));
        script
    })
}

fn check(tables: Vec<u8>, script: &[u8]) {
    let (mut host, _) = minimal();
    host.files.insert("tables".into(), tables);
    match load(&mut host, script) {
        Ok(rsdp) => assert_eq!(host.bytes(rsdp.get(), 8), b"RSD PTR "),
        Err(_) => assert_eq!(host.told, []),
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(script: Vec<u8>) {
        check(vec![0; 64], &script);
    }

    #[test]
    fn any_arguments_are_survived(commands in proptest::collection::vec((0..5_u32, any::<[u8; 32]>()), 0..8)) {
        let script = commands.iter().fold(Script::default(), |script, (number, bytes)| {
            script.command(*number, &[&name("tables"), bytes])
        });
        check(vec![0; 64], &script.0);
    }

    #[test]
    fn likely_scripts_touch_only_what_they_allocated(
        tables in proptest::collection::vec(prop_oneof![4 => Just(0), 1 => any::<u8>()], 0..72),
        script in script(),
    ) {
        check(tables, &script);
    }
}
