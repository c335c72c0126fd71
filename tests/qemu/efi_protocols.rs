//! The protocols that EFI programs find: called by a program of the project's own (`tests/kernels/efi_protocols.s`), and used by
//! systemd's stub and by Debian's kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::efi_entry::{ON, STUB, unified};
use crate::environment;
use crate::machine::{Kind, Machine};
use crate::script;

/// Assembles the program.
fn program(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/efi_protocols.s");
    let [object, image] = ["protocols.o", "protocols.efi"].map(|name| folder.join(name));
    let mut copy = Command::new("objcopy");
    copy.args(["-O", "binary", "-j", ".text"]).arg(&object).arg(&image);
    for command in [Command::new("as").arg("--64").arg("-o").arg(&object).arg(source), &mut copy] {
        let status = command.status().unwrap_or_else(|error| panic!("{command:?} (binutils): {error}"));
        assert!(status.success(), "{command:?}: {status}");
    }
    image
}

/// Runs the program to its end, and returns what is on the console.
fn run_program(machine: &Machine) -> String {
    let folder = TempDir::new().expect("a temporary folder");
    let machine = Machine { kernel: Some(program(folder.path())), memory: "128M", ..machine.clone() };
    let mut qemu = machine.start();
    qemu.wait_for("message", |qemu| qemu.com1().contains("the EFI program returned: "));
    qemu.com1()
}

/// Runs a script in a unified kernel image of systemd 257's stub. `None` without Debian's EFI programs.
pub fn run_in_unified(machine: &Machine, script: &str) -> Option<String> {
    let stub = environment::efi_programs()?.join("trixie").join(STUB);
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("script");
    fs::write(&file, script).expect("a file in the temporary folder");
    let image = unified(folder.path(), &stub, &script::command_line(), environment::initrd_with_tools());
    let machine = Machine { kernel: Some(image), memory: "512M", ..machine.clone() };
    let machine = machine.with(&format!("-fw_cfg name=opt/org.firstlight/script,file={}", file.display()));
    let mut qemu = machine.start();
    qemu.wait_for_end();
    let com1 = qemu.com1().replace("\r\n", "\n");
    assert!(com1.contains("script: ended with 0\n"), "{com1}");
    Some(com1)
}

#[test]
fn random_numbers_and_device_paths_are_as_the_specification_has_them() {
    let printed = run_program(&Machine::new(Kind::Q35).with("-cpu max"));
    assert!(printed.contains("VenMedia(1428F772-B64A-441E-B8C3-9EBDD7F893C7)/kernel"), "{printed}");
    assert!(printed.contains("the EFI program returned: SUCCESS"), "{printed}");
}

/// The program's first step looks for the protocol.
#[test]
fn there_are_no_random_numbers_on_a_cpu_without_them() {
    let printed = run_program(&Machine::new(Kind::Q35).with("-cpu qemu64"));
    assert!(printed.contains("the EFI program returned: ") && !printed.contains("SUCCESS"), "{printed}");
}

#[test]
fn a_stub_finds_the_text_of_its_files_path() {
    let script = "insmod /modules/efivarfs.ko
        mount -t efivarfs efivarfs /sys/firmware/efi/efivars
        cd /sys/firmware/efi/efivars
        echo identifier: $(tail -c +5 LoaderImageIdentifier-* | tr -d '\\0')";
    let Some(printed) = run_in_unified(&Machine::new(Kind::Q35), script) else { return };
    assert!(printed.contains("identifier: kernel\n"), "{printed}");
}

/// The stub passes the display on, and the kernel makes a framebuffer of it.
#[test]
fn a_kernel_entered_by_efi_finds_the_display() {
    for (kind, display) in [(Kind::Q35, "-device VGA"), (Kind::Pc, "-device ramfb")] {
        let machine = Machine { memory: "512M", ..Machine::new(kind) }.with(ON).with(display);
        let printed = script::run(&machine, "dmesg | grep -iE 'framebuffer|efifb'; cat /proc/fb /proc/iomem");
        assert!(printed.contains("1024x768"), "{printed}");
    }
}
