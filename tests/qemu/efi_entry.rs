//! Kernels entered by their EFI stub.

use tempfile::TempDir;

use crate::efi_unified;
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

/// Without NX there is no `EFI_MEMORY_ATTRIBUTE_PROTOCOL`, which the stub asks for.
#[test]
fn a_kernel_boots_by_efi_without_the_protocol_for_access_to_memory() {
    report(&Machine { memory: "256M", ..Machine::new(Kind::Q35) }.with("-cpu qemu64,-nx"), "");
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

#[test]
fn a_kernel_finds_an_initrd_of_200_mib() {
    let folder = TempDir::new().expect("a temporary folder");
    let initrd = Some(efi_unified::large_initrd(folder.path(), 200));
    for memory in ["1G", "6G"] {
        let machine = Machine { memory, ..Machine::new(Kind::Q35) }.with(ON);
        let mut qemu = Machine { initrd: initrd.clone(), ..linux::guest(&machine, "") }.start();
        qemu.wait_for_end();
        let report = Report::parse(&qemu.com1());
        assert!(report.one("initrd").starts_with("ok "), "the initrd's payload: {}", report.one("initrd"));
    }
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
