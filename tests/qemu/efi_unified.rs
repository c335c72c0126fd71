//! Unified kernel images: Debian's kernel and the guest's initramfs with one of systemd's stubs.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::environment;
use crate::linux::{self, END, Report, TSC_IS_KNOWN};
use crate::machine::{Kind, Machine, Transport};
use crate::microvm;
use crate::random;
use crate::script;

/// systemd's stub in the folder of a suite.
pub const STUB: &str = "systemd-boot-efi/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// Adds sections to one of systemd's stubs, as its manual does it.
pub fn unified(folder: &Path, stub: &Path, command_line: &str, initrd: PathBuf) -> PathBuf {
    unified_with(folder, stub, command_line, initrd, &[])
}

/// As [`unified`], with small sections of these names and contents too.
fn unified_with(folder: &Path, stub: &Path, command_line: &str, initrd: PathBuf, more: &[(&str, &str)]) -> PathBuf {
    let file = |name: &str, contents: &str| {
        let path = folder.join(name);
        fs::write(&path, contents).expect("a file in the temporary folder");
        path
    };
    let output = Command::new("objdump").arg("-p").arg(stub).output().expect("objdump, of the package binutils");
    let headers = String::from_utf8_lossy(&output.stdout).into_owned();
    let base = headers.lines().find_map(|line| line.strip_prefix("ImageBase")).expect("the stub's base");
    let base = u64::from_str_radix(base.trim(), 16).expect("a hexadecimal number");
    let mut sections = vec![
        (".osrel", file("os-release", "ID=firstlight\nVERSION_ID=1\n"), 0x4_0000),
        (".cmdline", file("cmdline", command_line), 0x5_0000),
        (".linux", environment::kernel(), 0x200_0000),
        (".initrd", initrd, 0x300_0000),
    ];
    for (&(name, contents), at) in more.iter().zip((0x6_0000..).step_by(0x1_0000)) {
        sections.push((name, file(name, contents), at));
    }
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

/// An image of the suite's stub, with the word `unified` in its command line after these words.
fn of_suite(folder: &Path, suite: &str, words: &str, initrd: PathBuf) -> Option<PathBuf> {
    let stub = environment::efi_programs()?.join(suite).join(STUB);
    Some(unified(folder, &stub, &own_command_line(words), initrd))
}

fn own_command_line(words: &str) -> String {
    linux::command_line(&format!("{words}unified "))
}

/// Boots an image, and returns the kernel's command line.
fn boot(machine: &Machine, image: PathBuf) -> String {
    let mut qemu = Machine { kernel: Some(image), ..machine.clone() }.start();
    qemu.wait_for_end();
    let com1 = qemu.com1();
    assert!(com1.contains(END), "the guest's report is not complete: {com1}");
    assert!(!com1.contains("firstlight: "), "the firmware printed something");
    let report = Report::parse(&com1);
    assert!(report.one("initrd").starts_with("ok "), "the initrd's payload: {}", report.one("initrd"));
    report.one("command-line").to_owned()
}

/// Boots an image of the suite's stub. `None` without Debian's EFI programs.
fn boot_suite(machine: &Machine, suite: &str, words: &str) -> Option<String> {
    let folder = TempDir::new().expect("a temporary folder");
    let image = of_suite(folder.path(), suite, words, environment::initrd())?;
    Some(boot(&Machine { memory: "512M", ..machine.clone() }, image))
}

#[test]
fn unified_kernel_images_boot_with_their_own_command_line() {
    for suite in ["bookworm", "trixie"] {
        let Some(found) = boot_suite(&Machine::new(Kind::Q35), suite, "") else { return };
        assert_eq!(found, own_command_line(""), "{suite}");
    }
}

#[test]
fn the_hosts_command_line_is_in_place_of_a_unified_kernel_images() {
    let append = linux::command_line("host ");
    let machine = Machine { append: Some(append.clone()), ..Machine::new(Kind::Q35) };
    let Some(found) = boot_suite(&machine, "bookworm", "") else { return };
    assert_eq!(found, append);
}

/// The stub takes them from SMBIOS, which it finds by the configuration tables.
#[test]
fn the_hosts_words_are_added_to_a_unified_kernel_images_command_line_on_pc() {
    let machine = Machine::new(Kind::Pc).with("-smbios type=11,value=io.systemd.stub.kernel-cmdline-extra=added");
    let Some(found) = boot_suite(&machine, "trixie", "") else { return };
    assert_eq!(found, format!("{} added", own_command_line("")));
}

#[test]
fn a_unified_kernel_image_boots_on_microvm() {
    let machine = microvm::machine(&["acpi", "isa-serial", "rtc"]);
    let Some(found) = boot_suite(&machine, "trixie", TSC_IS_KNOWN) else { return };
    assert_eq!(found, own_command_line(TSC_IS_KNOWN));
}

#[test]
fn a_unified_kernel_image_boots_through_ports() {
    let machine = Machine { transport: Transport::Ports, ..Machine::new(Kind::Q35) };
    let Some(found) = boot_suite(&machine, "bookworm", "") else { return };
    assert_eq!(found, own_command_line(""));
}

/// An initrd is at one device path, and these stubs do not take it from the host: they return the status of their own.
#[test]
fn a_unified_kernel_image_with_an_initrd_does_not_start_beside_the_hosts() {
    let Some(programs) = environment::efi_programs() else { return };
    for suite in ["bookworm", "trixie"] {
        let folder = TempDir::new().expect("a temporary folder");
        let stub = programs.join(suite).join(STUB);
        let image = unified(folder.path(), &stub, &own_command_line(""), environment::initrd());
        // QEMU refuses an -initrd for a file that is only an EFI program.
        let file = |name, path: PathBuf| format!("-fw_cfg name=opt/org.firstlight/{name},file={}", path.display());
        let machine = Machine { memory: "512M", ..Machine::new(Kind::Q35) };
        let mut qemu = machine.with(&file("kernel", image)).with(&file("initrd", environment::initrd())).start();
        qemu.wait_for("message", |qemu| qemu.com1().contains("the EFI program returned: ALREADY_STARTED"));
        let com1 = qemu.com1();
        assert!(com1.contains("pass no other with it"), "{suite}: {com1}");
    }
}

/// ukify adds these sections. The stub passes the last two on to the initramfs.
#[test]
fn signatures_of_pcrs_in_a_unified_kernel_image_reach_the_initramfs() {
    let Some(programs) = environment::efi_programs() else { return };
    let folder = TempDir::new().expect("a temporary folder");
    let script = folder.path().join("script");
    fs::write(&script, "cat /.extra/tpm2-pcr-signature.json /.extra/tpm2-pcr-public-key.pem").expect("a file");
    let more = [(".uname", "6.1"), (".pcrsig", "{\"sha256\":[]}\n"), (".pcrpkey", "a public key\n")];
    let initrd = environment::initrd_with_tools();
    let stub = programs.join("trixie").join(STUB);
    let image = unified_with(folder.path(), &stub, &script::command_line(), initrd, &more);
    let machine = Machine { kernel: Some(image), memory: "512M", ..Machine::new(Kind::Q35) };
    let mut qemu = machine.with(&format!("-fw_cfg name=opt/org.firstlight/script,file={}", script.display())).start();
    qemu.wait_for_end();
    let com1 = qemu.com1().replace("\r\n", "\n");
    assert!(com1.contains("{\"sha256\":[]}\na public key\n"), "{com1}");
}

/// An initramfs of `mib` MiB and more: a file of random bytes, and behind it the guest's files, whose payload the guest checks.
pub fn large_initrd(folder: &Path, mib: usize) -> PathBuf {
    let path = folder.join("large.cpio");
    let mut file = File::create(&path).expect("a file in the temporary folder");
    let mut write = |bytes: &[u8]| file.write_all(bytes).expect("a file in the temporary folder");
    let entry = |name: &str, mode: u32, len: usize| {
        let [ino, uid, gid, nlink, time, major, minor] = [1, 0, 0, 1, 0, 0, 0_usize];
        let numbers = [ino, mode as usize, uid, gid, nlink, time, len, major, minor, 0, 0, name.len() + 1, 0];
        let mut header = numbers.iter().fold("070701".to_owned(), |text, number| format!("{text}{number:08x}"));
        header += name;
        header.push('\0');
        let padded = header.len().next_multiple_of(4);
        header.extend(std::iter::repeat_n('\0', padded - header.len()));
        header.into_bytes()
    };
    write(&entry("large", 0o100_644, mib << 20));
    let block = random::bytes(7, 1 << 20);
    (0..mib).for_each(|_| write(&block));
    write(&entry("TRAILER!!!", 0, 0));
    write(&fs::read(environment::initrd()).expect("the guest's initramfs"));
    path
}

#[test]
fn a_unified_kernel_image_of_250_mib_boots() {
    let folder = TempDir::new().expect("a temporary folder");
    let initrd = large_initrd(folder.path(), 233);
    let Some(image) = of_suite(folder.path(), "trixie", "", initrd) else { return };
    assert!(fs::metadata(&image).expect("the image").len() >= 250 << 20);
    // The image, the initrd as the stub passes it on, the kernel's copy of it, and its files: with a kernel at a random place between them.
    let found = boot(&Machine { memory: "2G", ..Machine::new(Kind::Q35) }, image);
    assert_eq!(found, own_command_line(""));
}
