//! Tests of resets by a guest that wants to influence the next boot: root in a guest writes memory, CMOS and registers, and
//! resets the machine. The next boot, perhaps with another kernel and measured into a TPM, is the same as on a machine that was
//! just switched on.

use super::*;
use crate::fakes::chipset::FakePm1;
use crate::fakes::machine::{FakeDevice, FakeMemory};
use crate::fakes::tables;
use crate::fakes::tables::Piece;

/// CMOS memory in which the reason of the last reset is a wake from suspend.
struct Cmos {
    index: u32,
    shutdown_status: u8,
}

impl FakeDevice for Cmos {
    fn claims(&self, port: u16) -> bool {
        port == 0x70 || port == 0x71
    }
    fn read(&mut self, _port: u16, _size: u8, _memory: &mut FakeMemory) -> u32 {
        if self.index == 0x0f { self.shutdown_status.into() } else { 0 }
    }
    fn write(&mut self, port: u16, _size: u8, value: u32, _memory: &mut FakeMemory) {
        match port {
            0x70 => self.index = value & 0x7f,
            _ if self.index == 0x0f => self.shutdown_status = value as u8,
            _ => {}
        }
    }
}

/// The start of the program, as in `main.rs`.
fn start(machine: &mut FakeMachine) -> Handover {
    if resume::is_requested(machine) {
        assert_eq!(wake(machine).unwrap_or_else(|failure| panic!("{}", failure.error)), None);
    }
    run(machine, Start::Reset).unwrap_or_else(|failure| panic!("{}", failure.error))
}

/// The memory of a `q35` and a `pc` that an operating system scans for tables: the extended BIOS data area and the F-segment.
fn scanned(machine: &FakeMachine) -> [Vec<u8>; 2] {
    [machine.memory.bytes(0x9_fc00, 0x400), machine.memory.bytes(0xf_0000, 0x1_0000)]
}

/// All kinds of tables in all scanned memory: before, between and after the tables of the firmware.
fn tables_of_a_guest() -> Vec<Piece> {
    let tables = 0x600_0000;
    let places = [0x9_fc00, 0x9_fe00, 0xf_0000, 0xf_0040, 0xf_8000, 0xf_fe00];
    let at = |place: u64| {
        let others = [tables::smbios(place + 0x80, tables + 0x1000), tables::mp_table(place + 0xc0, tables + 0x2000)];
        [tables::acpi(place, tables, 0xe000_0000), others.concat()].concat()
    };
    places.into_iter().flat_map(at).collect()
}

/// A `q35` with a TPM and S3, at a plain reset.
fn with_tpm_and_s3() -> (FakeMachine, Rc<RefCell<State>>) {
    let (registers, state) = FakeTpm::new(Kind::Crb, &[0x0b], Defects::default());
    let device = with_kernel(tpm_device(0x1_0000)).with_file("etc/system-states", &[128, 0, 0, 129, 2, 128]);
    let mut machine = q35(device).with(FakePm1::RESET).with(Cmos { index: 0, shutdown_status: 0xfe });
    machine.registers.push(Box::new(registers));
    (machine, state)
}

/// The record of the previous boot is whole, and CMOS says that the machine woke. Neither makes the reset a wake.
#[test]
fn a_plain_reset_with_a_record_is_measured_like_the_first_boot() {
    let (mut machine, first) = with_tpm_and_s3();
    let handover = start(&mut machine);
    let page = machine.memory.bytes(handover.parameters.get(), 4096);
    assert!(resume::Record::load(&mut machine).is_ok(), "a boot leaves one");
    assert_eq!(first.borrow().commands[0], 0x144);

    let (mut again, second) = with_tpm_and_s3();
    again.memory = machine.memory.clone();
    let handover = start(&mut again);
    assert_eq!(again.memory.bytes(handover.parameters.get(), 4096), page);
    assert_eq!(second.borrow().pcrs, first.borrow().pcrs);
    assert_eq!(second.borrow().commands, first.borrow().commands);
    assert!(!second.borrow().password.is_empty(), "the platform hierarchy is closed");
}

/// The kernel's parameters, and the memory that it scans for tables, with these tables left by a guest.
fn boot(mut machine: FakeMachine, left: &[Piece]) -> [Vec<u8>; 3] {
    left.iter().for_each(|(at, bytes)| machine.memory.store(*at, bytes));
    let handover = run(&mut machine, Start::Reset).unwrap();
    let page = machine.memory.bytes(handover.parameters.get(), 4096);
    let [ebda, f_segment] = scanned(&machine);
    [page, ebda, f_segment]
}

/// Checks that what a guest left is gone from this many areas.
fn check(name: &str, machine: impl Fn() -> FakeMachine, areas: usize) {
    let (first, again) = (boot(machine(), &[]), boot(machine(), &tables_of_a_guest()));
    for (area, (first, again)) in first.iter().zip(&again).take(1 + areas).enumerate() {
        let differs = first.iter().zip(again).position(|(one, other)| one != other);
        assert_eq!(differs, None, "{name}: {}", ["boot_params", "the data area", "the F-segment"][area]);
    }
}

#[test]
fn tables_that_a_guest_left_are_gone_from_the_scanned_memory() {
    let always_fails = Quirks { always_fails: true, ..Quirks::default() };
    let without_acpi = |device: FakeFwCfg| {
        let items = golden::items("q35").into_iter().filter(|(name, _)| name.contains("smbios") || name == "etc/e820");
        items.fold(device, |device, (name, bytes)| device.with_file(&name, &bytes))
    };
    let broken_script = || FakeFwCfg::new(true).with_file("etc/e820", &E820).with_file("etc/table-loader", &[1; 128]);
    let devices: [(&str, &dyn Fn() -> FakeFwCfg); 7] = [
        ("q35", &|| golden::device("q35", true)),
        ("q35 without DMA", &|| golden::device("q35", false)),
        ("SMBIOS 3", &|| golden::device("q35-smbios3", true)),
        ("refused transfers", &|| golden::device("q35", true).with_quirks(always_fails)),
        ("acpi=off", &|| without_acpi(FakeFwCfg::new(true))),
        ("acpi=off without DMA", &|| without_acpi(FakeFwCfg::new(false))),
        ("a broken script", &broken_script),
    ];
    for (name, device) in devices {
        check(name, || q35(with_kernel(device())), 2);
    }
}

/// On a microvm, the RSDP and the pointer to the MP table are in the extended BIOS data area, and the F-segment is the image.
#[test]
fn tables_that_a_guest_left_are_gone_on_a_microvm() {
    let without_acpi = || FakeFwCfg::new(true).with_file("etc/e820", &E820);
    let devices: [(&str, &dyn Fn() -> FakeFwCfg); 3] = [
        ("microvm", &|| golden::device("microvm", true)),
        ("microvm without DMA", &|| golden::device("microvm", false)),
        ("acpi=off", &without_acpi),
    ];
    for (name, device) in devices {
        let machine = || {
            let mut machine = FakeMachine::new().with(with_kernel(device()));
            machine.cpuid.insert((1, 0), hal::Cpuid { edx: 1 << 9, ..hal::Cpuid::default() });
            machine
        };
        check(name, machine, 1);
    }
}

/// QEMU's option ROM finds an RSDP by scanning memory, and passes it to the firmware as its kernel. With `acpi=off` it is not
/// QEMU's.
#[test]
fn an_rsdp_from_qemu_without_tables_is_not_used() {
    for acpi in [true, false] {
        let items = golden::items("q35").into_iter().filter(|(name, _)| acpi || name == "etc/e820");
        let device = items.fold(FakeFwCfg::new(true).with_file(golden::QEMU_FILE, &[]), |device, (name, bytes)| {
            device.with_file(&name, &bytes)
        });
        let mut machine = pvh_host(&[], 0xe_0000);
        machine.devices.push(Box::new(with_kernel(device)));
        let handover = run(&mut machine, START_INFO).unwrap();
        let rsdp = u32_at(&machine.memory.bytes(handover.parameters.get(), 4096), 0x070);
        assert_eq!(rsdp, if acpi { 0xe_0000 } else { 0 });
    }
}
