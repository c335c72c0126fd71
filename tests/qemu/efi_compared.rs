//! EFI from outside: programs and a guest that report what they find, here and under OVMF.
//!
//! The reports are compared line by line. Their differences are listed, with reasons, in `tests/ovmf`: a line that begins
//! with `-` is this firmware's, and one with `+` is OVMF's. What is not listed, or is listed and no longer there, is an error.

use std::fs;
use std::path::Path;

use crate::efi_entry::ON;
use crate::environment;
use crate::machine::{Firmware, Kind, Machine, Qemu};
use crate::script;

/// The port of the program's report (`tests/efi-app/src/report.rs`).
const REPORT: &str = "-device isa-debugcon,iobase=0x4e9,chardev=report -chardev file,id=report,path=";

/// Devices that EFI programs use. OVMF has random numbers by the second one only.
const DEVICES: &str = "-cpu max -device VGA -device virtio-rng-pci";

/// How the program begins the lines that are not compared.
const NOTE: &str = "# ";

/// More memory than the firmware may use for EFI, in KiB.
const TOO_MUCH: u64 = 2 << 10;

/// The lines that only one side has, in their order: those of the first with `-`, of the second with `+`.
fn differences(ours: &[String], theirs: &[String]) -> Vec<String> {
    // The length of the longest common part of what is left from each pair of lines on.
    let mut common = vec![vec![0_usize; theirs.len() + 1]; ours.len() + 1];
    for i in (0..ours.len()).rev() {
        for j in (0..theirs.len()).rev() {
            let longer = common[i + 1][j].max(common[i][j + 1]);
            common[i][j] = if ours[i] == theirs[j] { common[i + 1][j + 1] + 1 } else { longer };
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < ours.len() || j < theirs.len() {
        if i < ours.len() && j < theirs.len() && ours[i] == theirs[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == theirs.len() || i < ours.len() && common[i + 1][j] >= common[i][j + 1] {
            found.push(format!("- {}", ours[i].trim_end()));
            i += 1;
        } else {
            found.push(format!("+ {}", theirs[j].trim_end()));
            j += 1;
        }
    }
    found
}

/// Fails unless the reports differ as the file in `tests/ovmf` says.
fn compare(file: &str, ours: &[String], theirs: &[String]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ovmf").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let listed: Vec<_> = text.lines().filter(|line| line.starts_with(['-', '+'])).map(str::to_owned).collect();
    let found = differences(ours, theirs);
    let changed = differences(&listed, &found);
    assert!(changed.is_empty(), "{file}: -, listed but not there; +, not listed:\n{}", changed.join("\n"));
}

/// The machine with a firmware that both sides have.
fn machine(firmware: Firmware) -> Machine {
    Machine { firmware, memory: "512M", ..Machine::new(Kind::Q35) }.with(DEVICES)
}

/// Runs the program of `tests/efi-app` until it turns the machine off. Returns its report.
fn run_app(program: &Path, firmware: Firmware) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let report = folder.path().join("report");
    let machine = Machine {
        kernel: Some(program.to_owned()),
        append: Some("the command line".to_owned()),
        ..machine(firmware).with(&format!("{REPORT}{}", report.display()))
    };
    let mut qemu: Qemu = machine.start();
    qemu.wait_for_end();
    assert!(qemu.com1().contains("text of the program"), "{}", qemu.com1());
    let lines: Vec<_> = fs::read_to_string(report).expect("the report").lines().map(str::to_owned).collect();
    assert_eq!(lines.last().map(String::as_str), Some("end: of the report"), "{lines:#?}");
    lines
}

/// The lines that are compared.
fn compared(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|line| !line.starts_with(NOTE)).collect()
}

/// The program also overwrites the memory of boot services, and calls runtime services after that.
#[test]
fn a_program_on_the_published_crate_finds_services_that_work_in_less_than_2_mib() {
    let Some(program) = environment::efi_app() else { return };
    let lines = run_app(&program, Firmware::Firstlight);
    let used = lines.iter().find_map(|line| line.strip_prefix("# KiB of the firmware: "));
    let used: u64 = used.expect("the line").parse().expect("a number");
    assert!(used < TOO_MUCH, "{used} KiB");
    assert!(lines.iter().any(|line| line == "boot services' memory: overwritten"));
    assert!(lines.iter().any(|line| line == "runtime: GetVariable, deleted: NOT_FOUND"));
}

#[test]
fn services_answer_as_those_of_ovmf_but_for_what_is_listed() {
    let (Some(program), Some(_)) = (environment::efi_app(), environment::ovmf()) else { return };
    let [ours, theirs] = [Firmware::Firstlight, Firmware::Ovmf].map(|firmware| compared(run_app(&program, firmware)));
    compare("services.txt", &ours, &theirs);
}

/// What a kernel finds of EFI, without addresses: what it logs, the types of memory, tables, and the files of sysfs.
const FOUND: &str = "log() { dmesg | sed 's/^\\[[^]]*\\] *//'; }
masked() { sed 's/0x[0-9a-f]\\{5,\\}/0x.../g'; }
echo BEGIN
log | grep '^efi: EFI v' | sed 's/^efi: /log: /'
log | grep '^efi: .*ACPI=' | masked | sed 's/^efi: //; s/ACPI 2/ACPI-2/; s/=0x[.0-9a-f]*//g' | tr ' ' '\\n' | grep . | sort | sed 's/^/table: /'
log | grep '^efi: memattr: .*\\[' | sed 's/^[^[]*\\[//; s/\\].*//; s/ *| */|/g' | sort -u | sed 's/^/attributes: /'
log | grep '^efi: mem[0-9]*:' | sed 's/^[^[]*\\[//; s/\\].*//; s/ *| */|/g' | sort -u | sed 's/^/memory: /'
for file in /sys/firmware/efi/*; do echo sysfs: ${file##*/}; done
sed 's/=.*//; s/^/systab: /' /sys/firmware/efi/systab
echo platform: $(cat /sys/firmware/efi/fw_platform_size)
for entry in /sys/firmware/efi/runtime-map/*; do echo runtime: $(cat $entry/type $entry/attribute); done | sort -u
insmod /modules/efivarfs.ko && mount -t efivarfs efivarfs /sys/firmware/efi/efivars && echo efivarfs: mounted
log | grep -iE '^(rtc.efi|efifb|pstore|simple-framebuffer)' | masked
echo END";

/// Boots Debian's kernel by its EFI stub. Returns what it finds.
fn run_linux(firmware: Firmware) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("script");
    fs::write(&file, FOUND).expect("a file in the temporary folder");
    let guest = script::guest(&machine(firmware).with(ON), &file);
    let append = Some(format!("efi=debug {}", script::command_line()));
    let mut qemu = Machine { append, ..guest }.start();
    qemu.wait_for_end();
    let com1 = qemu.com1().replace("\r\n", "\n");
    let report = com1.split_once("BEGIN\n").and_then(|(_, rest)| rest.split_once("END\n"));
    let (report, _) = report.unwrap_or_else(|| panic!("no report: {com1}"));
    report.lines().map(str::to_owned).collect()
}

#[test]
fn a_kernel_finds_what_it_finds_under_ovmf_but_for_what_is_listed() {
    let Some(_) = environment::ovmf() else { return };
    let [ours, theirs] = [Firmware::Firstlight, Firmware::Ovmf].map(run_linux);
    compare("linux.txt", &ours, &theirs);
}
