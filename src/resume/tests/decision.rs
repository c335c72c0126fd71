//! Tests of resets that a guest has prepared to look like a wake: with a record, CMOS, a waking vector. The machines were not
//! suspended.

use std::boxed::Box;

use super::*;
use crate::host::SYSTEM_STATES;
use crate::memory_map::MemoryMap;
use crate::start_info::Start;

/// A machine on which a guest has prepared everything for a wake: memory as [`suspended`] has it, and CMOS.
fn left_by_a_guest(mut machine: FakeMachine, cmos: &Cmos) -> FakeMachine {
    machine.devices.push(Box::new(cmos.clone()));
    machine.memory = suspended("q35", Q35, 0x8000);
    machine
}

/// Checks that the reset is no wake, that only the firmware's own memory was written before that was known, and that nothing
/// requests a wake any more.
fn check(what: &str, machine: FakeMachine) {
    let cmos = Cmos::with_status(STATUS_WAKE);
    let mut machine = left_by_a_guest(machine, &cmos);
    machine.memory.keep_stores();
    assert!(is_requested(&mut machine), "{what}");
    let woken = crate::wake(&mut machine).unwrap_or_else(|failure| panic!("{what}: {}", failure.error));
    assert_eq!(woken, None, "{what}");
    // Memory-mapped registers are above RAM. The fake machine lends its buffers at the address of a boot's heap.
    let registers = 0xb000_0000;
    for store in machine.memory.stores() {
        let own = layout::BOOT_RAM;
        let is_own = own.start().get() <= store.start && store.end <= own.end().get();
        assert!(is_own || store.start >= registers, "{what}: {store:x?} is written");
    }
    assert_eq!(cmos.status(), STATUS_NONE, "{what}");
    assert!(!record::is_present(&mut machine), "{what}: the record is still there");
}

fn q35_with(device: FakeFwCfg, pm1: FakePm1) -> FakeMachine {
    reset_with(FakeMemory::default(), device, Q35, pm1)
}

#[test]
fn a_wake_without_wak_sts_is_a_boot() {
    // The values that were measured, all bits except that one, and no register at all.
    for status in [FakePm1::RESET.0, 0, 0x7fff, u16::MAX] {
        for (name, bridge) in [("q35", Q35), ("pc", I440FX)] {
            let machine = reset_with(FakeMemory::default(), device(name), bridge, FakePm1(status));
            check(&std::format!("{name}, {status:#x}"), machine);
        }
    }
    let no_register = FakeMachine::new().with(device("q35")).with(FakeConfigPorts::with_host_bridge(Q35));
    check("no register", no_register);
}

#[test]
fn a_wake_on_a_host_without_s3_is_a_boot() {
    let files: [(&str, &[u8]); 4] = [
        ("S3 is off", &[128, 0, 0, 1, 2, 128]),
        ("all but S3", &[255, 255, 255, 127, 255, 255]),
        ("too short", &STATES[..3]),
        ("empty", &[]),
    ];
    for (what, states) in files {
        check(what, q35_with(device_without("q35", "").with_file(SYSTEM_STATES, states), FakePm1::WOKEN));
    }
    check("no file", q35_with(device_without("q35", ""), FakePm1::WOKEN));
}

/// As with `acpi=off`: an operating system cannot find out how to suspend.
#[test]
fn a_wake_on_a_host_without_acpi_tables_is_a_boot() {
    let device = device_without("q35", "etc/table-loader").with_file(SYSTEM_STATES, &STATES);
    check("no ACPI", q35_with(device, FakePm1::WOKEN));
}

#[test]
fn a_wake_on_another_machine_is_a_boot() {
    for bridge in [u32::MAX, 0, 0x0d57_8086] {
        let machine = reset_with(FakeMemory::default(), device("q35"), bridge, FakePm1::WOKEN);
        check(&std::format!("{bridge:#x}"), machine);
    }
    check("no fw_cfg", FakeMachine::new().with(FakePm1::WOKEN));
    let no_map = device_without("q35", "etc/e820").with_file(SYSTEM_STATES, &STATES);
    check("no memory map", q35_with(no_map, FakePm1::WOKEN));
}

/// The register has no address after a reset.
#[test]
fn power_management_gets_its_address_before_it_is_read() {
    let mut machine = reset(suspended("pc", I440FX, 0x8000), device("pc"), I440FX);
    wake_on(&mut machine).unwrap();
    let when = |wanted: Access| machine.accesses.iter().position(|access| *access == wanted).unwrap();
    let asked = when(Access::In(0x600, 2, 0x8101));
    assert!(when(Access::Out(0xcfc, 4, 0x601)) < asked && when(Access::Out(0xcfc, 1, 1)) < asked);
    // A boot does not read the register, so this costs it nothing.
    let map = |machine: &mut FakeMachine| {
        let fw_cfg = FwCfg::probe(machine).unwrap();
        let map = host::memory_map(machine, &fw_cfg, &Start::Reset).unwrap();
        (fw_cfg, MemoryMap::new(map))
    };
    let mut machine = reset(FakeMemory::default(), device("pc"), I440FX);
    let (fw_cfg, map) = map(&mut machine);
    crate::platform::Platform::program(&mut machine, &fw_cfg, &map);
    assert!(!machine.accesses.iter().any(|access| matches!(access, Access::In(0x600, ..))));
}
