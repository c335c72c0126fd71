//! `firstlight.elf` as the kernel of QEMU's own firmware, which starts it by the PVH entry point.
//!
//! SeaBIOS does so through QEMU's `pvh.bin`, which does not pass the initrd as a module; qboot passes it as one. Both have set
//! up the machine, with ACPI tables in memory if they have any.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::bzimage::BzImage;
use crate::environment;
use crate::linux::{self, Report};
use crate::machine::{Firmware, Kind, Machine};
use crate::probe::{E820_RAM, Probe};
use crate::random;

const COMMAND_LINE: &str = "console=ttyS0 test \"two words\"";

/// A microvm; the last `-machine` counts. Its PIT is late when this host is busy, so the kernel does not measure the TSC by it.
const MICROVM: &str = "-machine microvm,acpi=on,pit=on,pic=on,rtc=on";

/// The firmware in RAM (`LOADED_IMAGE` in `src/layout.rs`).
const LOADED_IMAGE: std::ops::Range<u64> = 0xf8_0000..0x100_0000;

/// Machines that start the ELF file, each by a firmware of QEMU's.
fn machines() -> [Machine; 5] {
    let machine = |kind, firmware| Machine { firmware, kernel: Some(environment::elf()), ..Machine::new(kind) };
    [
        machine(Kind::Q35, Firmware::SeaBios),
        machine(Kind::Q35, Firmware::Qboot),
        machine(Kind::Pc, Firmware::SeaBios),
        machine(Kind::Pc, Firmware::Qboot),
        machine(Kind::Q35, Firmware::SeaBios).with(MICROVM),
    ]
}

/// The machine with `bytes` in a file as one of its arguments has it.
fn with_file(machine: Machine, folder: &Path, name: &str, bytes: &[u8]) -> Machine {
    let path = folder.join(name);
    fs::write(&path, bytes).expect("a file in the temporary folder");
    machine.with(&format!("-fw_cfg name=opt/org.firstlight/{name},file={}", path.display()))
}

#[test]
fn a_kernel_passed_as_the_initrd_boots() {
    let kernel = BzImage { len: 300_007, ..BzImage::new() };
    for kernel in [kernel.clone(), kernel.entered_in_32_bit_mode()] {
        for machine in machines() {
            let folder = TempDir::new().expect("a temporary folder");
            let path = folder.path().join("kernel");
            fs::write(&path, kernel.file()).expect("a file in the temporary folder");
            let machine = Machine { initrd: Some(path), append: Some(COMMAND_LINE.to_owned()), ..machine };
            let mut probe = Probe::start(&machine, folder);
            assert!(!probe.qemu.com1().contains("firstlight"), "a successful boot is silent");
            let word = if kernel.xloadflags == 0 { 4 } else { 8 };
            assert_eq!(probe.state.word, word, "{machine:?}");
            let page = probe.boot_params();
            assert!(probe.read(page.kernel(), kernel.len) == kernel.code(), "the kernel differs from its file");
            assert_eq!(page.initrd(), 0..0, "the kernel is not its own initrd");
            let line = probe.read(page.command_line(), COMMAND_LINE.len() + 1);
            assert_eq!(String::from_utf8_lossy(&line), format!("{COMMAND_LINE}\0"));
            // The previous firmware's tables are used, and its map, in which they are reserved.
            assert_eq!(probe.read(page.rsdp(), 8), b"RSD PTR ");
            let map = page.e820();
            let kind = |at| map.iter().find(|entry| (entry.start..entry.end).contains(&at)).map(|entry| entry.kind);
            assert_ne!(kind(page.rsdp()), Some(E820_RAM), "{map:x?}");
            assert_eq!(kind(LOADED_IMAGE.start), Some(E820_RAM), "the firmware returns its memory");
            let run = page.kernel()..page.kernel() + u64::from(kernel.init_size);
            assert!(run.end <= LOADED_IMAGE.start || LOADED_IMAGE.end <= run.start, "the kernel is over the firmware");
        }
    }
}

#[test]
fn a_kernel_from_a_named_file_boots_with_the_initrd() {
    let kernel = BzImage::new();
    let initrd = random::bytes(2, 150_001);
    for machine in machines() {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("initrd");
        fs::write(&path, &initrd).expect("a file in the temporary folder");
        let machine = Machine { initrd: Some(path), append: Some(COMMAND_LINE.to_owned()), ..machine };
        let machine = with_file(machine, folder.path(), "kernel", &kernel.file());
        let mut probe = Probe::start(&machine, folder);
        let page = probe.boot_params();
        assert!(probe.read(page.kernel(), kernel.len) == kernel.code(), "the kernel differs from its file");
        assert_eq!(page.initrd().end - page.initrd().start, initrd.len() as u64);
        assert!(probe.read(page.initrd().start, initrd.len()) == initrd, "the initrd is not as it was in the file");
    }
}

#[test]
fn without_a_kernel_the_error_says_what_to_pass() {
    for machine in &machines()[..2] {
        let mut qemu = machine.start();
        qemu.wait_for("an error", |qemu| qemu.com1().ends_with(")\r\n"));
        // q35 has a controller of disks, which qboot gives no address.
        let parts = ["firstlight: error: ", "QEMU -kernel", "libvirt <kernel>"];
        assert!(parts.iter().all(|part| qemu.com1().contains(part)), "{}", qemu.com1());
    }
}

/// The image boots its own ELF file like any other kernel with a PVH note.
#[test]
fn the_image_boots_its_own_elf_file() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("kernel");
    let kernel = BzImage::new();
    fs::write(&path, kernel.file()).expect("a file in the temporary folder");
    let machine = Machine { kernel: Some(environment::elf()), initrd: Some(path), ..Machine::new(Kind::Q35) };
    let mut probe = Probe::start(&machine, folder);
    let page = probe.boot_params();
    assert!(probe.read(page.kernel(), kernel.len) == kernel.code(), "the kernel differs from its file");
    assert_eq!(probe.read(page.rsdp(), 8), b"RSD PTR ");
}

/// Boots the distribution's kernel to user space.
fn boot_linux(machine: Machine, words: &str) -> Report {
    let folder = TempDir::new().expect("a temporary folder");
    let kernel = fs::read(environment::kernel()).expect("the kernel of the default guest");
    let (memory, cpus) = ("512M", 2);
    let machine = Machine { memory, cpus, kernel: Some(environment::elf()), ..linux::guest(&machine, words) };
    let mut qemu = with_file(machine, folder.path(), "kernel", &kernel).start();
    qemu.wait_for("the guest's report", |qemu| qemu.com1().contains(linux::END));
    let com1 = qemu.com1();
    assert!(!com1.contains("firstlight: "), "the firmware printed something");
    let report = Report::parse(&com1);
    assert_eq!(report.one("command-line"), linux::command_line(words));
    assert!(report.one("initrd").starts_with("ok "), "{}", report.one("initrd"));
    assert_eq!(report.one("cpus-online"), "2");
    report
}

#[test]
fn debians_kernel_boots_behind_seabios_on_q35() {
    let [machine, ..] = machines();
    let report = boot_linux(machine, "");
    assert_eq!(report.one("dmi-bios-vendor"), "SeaBIOS", "what the firmware before left is left alone");
    assert!(report.one("acpi-tables").contains("MCFG"), "{}", report.one("acpi-tables"));
}

#[test]
fn debians_kernel_boots_behind_qboot_on_a_microvm() {
    let [.., machine] = machines();
    let report = boot_linux(Machine { firmware: Firmware::Qboot, ..machine }, "tsc_early_khz=2500000 ");
    assert!(report.one("acpi-tables").contains("APIC"), "{}", report.one("acpi-tables"));
}
