//! EFI programs: kernels entered by their EFI stub, unified kernel images, and others of Debian's packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::environment;
use crate::linux::{self, END, Report, TSC_IS_KNOWN};
use crate::machine::{Kind, Machine, Transport};
use crate::microvm;

/// The argument that asks for the EFI entry point of a kernel that has another one too.
pub const ON: &str = "-fw_cfg name=opt/org.firstlight/efi,string=on";

/// Boots the guest by its kernel's EFI entry point, and returns its report.
fn report(machine: &Machine, words: &str) -> Report {
    let mut qemu = linux::guest(&machine.clone().with(ON), words).start();
    qemu.wait_for_end();
    let com1 = qemu.com1();
    assert!(com1.contains(END), "the guest's report is not complete");
    assert!(!com1.contains("firstlight: "), "the firmware printed something");
    let report = Report::parse(&com1);
    assert_eq!(report.one("command-line"), linux::command_line(words), "without what only old stubs need");
    assert!(report.one("initrd").starts_with("ok "), "the initrd's payload: {}", report.one("initrd"));
    report
}

#[test]
fn a_kernel_boots_by_efi_on_q35_with_2_cpus() {
    let machine = Machine { cpus: 2, memory: "512M", default_devices: true, ..Machine::new(Kind::Q35) };
    report(&machine, "").check(&machine);
}

#[test]
fn a_kernel_boots_by_efi_on_pc_with_128_mib() {
    let machine = Machine { memory: "128M", ..Machine::new(Kind::Pc) };
    report(&machine, "").check(&machine);
}

#[test]
fn a_kernel_boots_by_efi_through_ports() {
    let machine = Machine { transport: Transport::Ports, memory: "256M", ..Machine::new(Kind::Q35) };
    report(&machine, "").check(&machine);
}

/// With five-level paging the stub needs memory that is executable.
#[test]
fn a_kernel_boots_by_efi_with_6_gib_on_the_newest_cpu() {
    let machine = Machine { memory: "6G", ..Machine::new(Kind::Q35) }.with("-cpu max");
    report(&machine, "").check(&machine);
}

#[test]
fn a_kernel_boots_by_efi_on_the_first_cpu_with_64_bits() {
    report(&Machine { memory: "256M", ..Machine::new(Kind::Q35) }.with("-cpu qemu64"), "");
}

#[test]
fn a_kernel_boots_by_efi_on_microvm() {
    report(&microvm::machine(&["acpi", "isa-serial", "rtc"]), TSC_IS_KNOWN);
}

/// The first lines of a kernel without an initrd, up to where it has no root.
#[test]
fn a_kernel_without_an_initrd_finds_efi() {
    let append = format!("console=ttyS0 panic=-1 reboot=t {}", linux::LATE_TIMERS);
    let machine = Machine {
        kernel: Some(environment::kernel()),
        append: Some(append),
        memory: "256M",
        ..Machine::new(Kind::Q35)
    };
    let mut qemu = machine.with(ON).start();
    qemu.wait_for("panic", |qemu| qemu.com1().contains("Unable to mount root fs"));
    let com1 = qemu.com1();
    assert!(com1.contains("efi: EFI v2.10 by Firstlight") || com1.contains("efi: EFI v2.100 by Firstlight"), "{com1}");
    assert!(!com1.contains("INITRD="), "there is none");
    assert!(!com1.contains("EFI stub: ERROR"), "{com1}");
}

/// Boots a kernel of Debian's packages by its EFI entry point, with an initrd whose drivers are for another one.
fn boot_newer(machine: &Machine, package: &str, words: &str) {
    let Some(kernels) = environment::efi_programs().map(|programs| programs.join("kernels")) else { return };
    let kernel = linux::file_below(&kernels, package);
    let machine = Machine { memory: "512M", ..machine.clone() }.with(ON);
    let mut qemu = Machine { kernel: Some(kernel), ..linux::guest(&machine, words) }.start();
    qemu.wait_for_end();
    let com1 = qemu.com1();
    assert!(com1.contains(END) && !com1.contains("firstlight: "), "{com1}");
    let report = Report::parse(&com1);
    assert_eq!(report.one("command-line"), linux::command_line(words));
    assert!(report.one("initrd").starts_with("ok "), "the initrd's payload: {}", report.one("initrd"));
    assert_eq!(report.all("problem"), [""; 0], "what the kernel says against its firmware");
}

/// The newest kernel is in a package without `image` in its name.
#[test]
fn the_newest_kernels_boot_by_efi_on_q35_and_pc() {
    boot_newer(&Machine { cpus: 2, ..Machine::new(Kind::Q35) }.with("-cpu max"), "linux-binary-7", "");
    boot_newer(&Machine::new(Kind::Pc), "linux-binary-7", "");
    boot_newer(&Machine::new(Kind::Q35), "linux-image-6.12", "");
}

#[test]
fn the_newest_kernel_boots_by_efi_on_microvm() {
    boot_newer(&microvm::machine(&["acpi", "isa-serial", "rtc"]), "linux-binary-7", TSC_IS_KNOWN);
}

/// The kernel with its EFI entry point only where the host asks for it.
#[test]
fn a_kernel_is_entered_directly_without_the_request() {
    let machine = linux::guest(&Machine { memory: "256M", ..Machine::new(Kind::Q35) }, "");
    let machine = machine.with("-fw_cfg name=opt/org.firstlight/efi,string=off");
    let mut qemu = machine.start();
    qemu.wait_for_end();
    assert!(qemu.com1().contains(END));
}

/// Adds sections to one of systemd's stubs, as its manual does it.
pub fn unified(folder: &Path, stub: &Path, command_line: &str, initrd: PathBuf) -> PathBuf {
    let file = |name: &str, contents: &str| {
        let path = folder.join(name);
        fs::write(&path, contents).expect("a file in the temporary folder");
        path
    };
    let output = Command::new("objdump").arg("-p").arg(stub).output().expect("objdump, of the package binutils");
    let headers = String::from_utf8_lossy(&output.stdout).into_owned();
    let base = headers.lines().find_map(|line| line.strip_prefix("ImageBase")).expect("the stub's base");
    let base = u64::from_str_radix(base.trim(), 16).expect("a hexadecimal number");
    let sections = [
        (".osrel", file("os-release", "ID=firstlight\nVERSION_ID=1\n"), 0x4_0000),
        (".cmdline", file("cmdline", command_line), 0x5_0000),
        (".linux", environment::kernel(), 0x200_0000),
        (".initrd", initrd, 0x300_0000),
    ];
    let mut command = Command::new("objcopy");
    for (name, path, at) in sections {
        command.arg(format!("--add-section={name}={}", path.display()));
        command.arg(format!("--change-section-vma={name}={:#x}", base + at));
    }
    let image = folder.join("unified.efi");
    let result = command.arg(stub).arg(&image).output().expect("objcopy, of the package binutils");
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
    image
}

/// systemd's stub in the folder of a suite.
pub const STUB: &str = "systemd-boot-efi/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// Boots a unified kernel image of the suite's stub, with this command line of the host's.
fn boot_unified(suite: &str, append: Option<String>) -> Option<String> {
    let programs = environment::efi_programs()?;
    let folder = TempDir::new().expect("a temporary folder");
    let command_line = linux::command_line("unified ");
    let image = unified(folder.path(), &programs.join(suite).join(STUB), &command_line, environment::initrd());
    let machine = Machine { kernel: Some(image), append, memory: "512M", ..Machine::new(Kind::Q35) };
    let mut qemu = machine.start();
    qemu.wait_for_end();
    let com1 = qemu.com1();
    assert!(com1.contains(END), "the guest's report is not complete: {com1}");
    Some(Report::parse(&com1).one("command-line").to_owned())
}

#[test]
fn unified_kernel_images_boot_with_their_own_command_line() {
    for suite in ["bookworm", "trixie"] {
        let Some(found) = boot_unified(suite, None) else { return };
        assert_eq!(found, linux::command_line("unified "), "{suite}");
    }
}

#[test]
fn the_hosts_command_line_is_in_place_of_a_unified_kernel_images() {
    let append = linux::command_line("host ");
    let Some(found) = boot_unified("bookworm", Some(append.clone())) else { return };
    assert_eq!(found, append);
}

/// A program that ends itself: its status is the message.
#[test]
fn a_program_that_returns_is_an_error_with_its_status() {
    let Some(programs) = environment::efi_programs() else { return };
    let program = programs.join("bookworm/efitools/usr/lib/efitools/x86_64-linux-gnu/ReadVars.efi");
    let machine = Machine { kernel: Some(program), memory: "128M", ..Machine::new(Kind::Q35) };
    let mut qemu = machine.start();
    qemu.wait_for("message", |qemu| qemu.com1().contains("the EFI program returned: SUCCESS"));
}
