//! The protocols that EFI programs find: called by a program of the project's own (`tests/kernels/efi_protocols.s`), and used by
//! systemd's stub and by Debian's kernel.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::display::{Picture, XGA};
use crate::efi_entry::ON;
use crate::efi_unified::{STUB, unified};
use crate::environment;
use crate::machine::{Emulator, Kind, Machine, Qemu};
use crate::script;

/// Assembles a program of `tests/kernels` with these arguments.
pub fn program(folder: &Path, source: &str, arguments: &[&str]) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels");
    let [object, image] = ["program.o", "program.efi"].map(|name| folder.join(name));
    let mut assemble = Command::new("as");
    assemble.arg("--64").args(arguments).arg("-I").arg(&sources).arg("-o").arg(&object).arg(sources.join(source));
    let mut copy = Command::new("objcopy");
    copy.args(["-O", "binary", "-j", ".text"]).arg(&object).arg(&image);
    for command in [&mut assemble, &mut copy] {
        let status = command.status().unwrap_or_else(|error| panic!("{command:?} (binutils): {error}"));
        assert!(status.success(), "{command:?}: {status}");
    }
    image
}

/// Runs the program that calls protocols to its end, and returns what is on the console.
fn run_program(machine: &Machine, has_seed: bool) -> String {
    let folder = TempDir::new().expect("a temporary folder");
    let seed = format!("SEED={}", u8::from(has_seed));
    let program = program(folder.path(), "efi_protocols.s", &["--defsym", &seed]);
    let machine = Machine { kernel: Some(program), memory: "128M", ..machine.clone() };
    let mut qemu = machine.start();
    qemu.wait_for("message", |qemu| qemu.com1().contains("the EFI program returned: "));
    qemu.com1()
}

/// Runs a script in a unified kernel image of the suite's systemd stub, and returns the image and what is on the console. `None`
/// without Debian's EFI programs.
pub fn run_in_unified(machine: &Machine, suite: &str, script: &str) -> Option<(Vec<u8>, String)> {
    let stub = environment::efi_programs()?.join(suite).join(STUB);
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("script");
    fs::write(&file, script).expect("a file in the temporary folder");
    let image = unified(folder.path(), &stub, &script::command_line(), environment::initrd_with_tools());
    let bytes = fs::read(&image).expect("the image");
    let machine = Machine { kernel: Some(image), memory: "512M", ..machine.clone() };
    let machine = machine.with(&format!("-fw_cfg name=opt/org.firstlight/script,file={}", file.display()));
    let mut qemu = machine.start();
    qemu.wait_for_end();
    let com1 = qemu.com1().replace("\r\n", "\n");
    assert!(com1.contains("script: ended with 0\n"), "{com1}");
    Some((bytes, com1))
}

#[test]
fn random_numbers_and_device_paths_are_as_the_specification_has_them() {
    let printed = run_program(&Machine::new(Kind::Q35).with("-cpu max,-rdseed"), false);
    assert!(printed.contains("VenMedia(1428F772-B64A-441E-B8C3-9EBDD7F893C7)/kernel"), "{printed}");
    assert!(printed.contains("the EFI program returned: SUCCESS"), "{printed}");
}

/// QEMU emulates RDSEED from version 8.1 on.
#[test]
fn raw_random_numbers_are_there_with_rdseed() {
    let Some(emulator) = Emulator::newer() else { return };
    let printed = run_program(&Machine { emulator, ..Machine::new(Kind::Q35) }.with("-cpu max"), true);
    assert!(printed.contains("the EFI program returned: SUCCESS"), "{printed}");
}

#[test]
fn bad_calls_are_refused_and_a_program_loads_itself_by_its_path_and_comes_back_by_exit() {
    let folder = TempDir::new().expect("a temporary folder");
    let program = program(folder.path(), "efi_bad_calls.s", &[]);
    let mut qemu = Machine { kernel: Some(program), memory: "128M", ..Machine::new(Kind::Q35) }.start();
    qemu.wait_for("message", |qemu| qemu.com1().contains("the EFI program returned: "));
    assert!(qemu.com1().contains("the EFI program returned: SUCCESS"), "{}", qemu.com1());
}

#[test]
fn an_exception_in_a_program_names_the_program() {
    let folder = TempDir::new().expect("a temporary folder");
    for (fault, parts) in [
        ("FAULT=0", ["CPU exception 6 at ", "0x1004 bytes into the EFI program VenMedia("]),
        ("FAULT=1", ["CPU exception 14 at ", "outside of the EFI program VenMedia("]),
        ("FAULT=2", ["CPU exception 14 at ", "the EFI program has used more than its 128 KiB of stack"]),
        ("FAULT=3", ["CPU exception 14 at 0x0, ", "outside of the EFI program VenMedia("]),
    ] {
        let program = program(folder.path(), "efi_fault.s", &["--defsym", fault]);
        let mut qemu = Machine { kernel: Some(program), memory: "128M", ..Machine::new(Kind::Q35) }.start();
        qemu.wait_for("message", |qemu| qemu.com1().contains("CPU exception") && qemu.com1().ends_with('\n'));
        let com1 = qemu.com1();
        assert!(parts.iter().all(|part| com1.contains(part)), "{fault}: {com1}");
        assert!(!com1.contains("defect of the firmware"), "{fault}: {com1}");
    }
}

/// Runs the program that ends boot services.
fn end(folder: &Path, returns: &str) -> Qemu {
    let program = program(folder, "efi_end.s", &["--defsym", returns]);
    Machine { kernel: Some(program), memory: "128M", ..Machine::new(Kind::Q35) }.start()
}

/// Boot services that have ended have left bytes of the firmware on its stack, such as the password that it gives a TPM.
#[test]
fn the_firmwares_stack_is_cleared_at_the_end_of_boot_services() {
    const STACK: Range<usize> = 0x8_d000..0x9_9000;
    let folder = TempDir::new().expect("a temporary folder");
    let mut qemu = end(folder.path(), "RETURNS=0");
    qemu.wait_for("line", |qemu| qemu.com1().contains("ended"));
    let memory = folder.path().join("memory");
    let arguments = format!("{{\"val\": {}, \"size\": {}, \"filename\": {memory:?}}}", STACK.start, STACK.len());
    qemu.qmp().run("pmemsave", &arguments);
    let stack = fs::read(memory).expect("the memory that QEMU has saved");
    assert_eq!(stack.len(), STACK.len());
    // One address is where the program would return to.
    let used: Vec<_> = stack.chunks_exact(8).enumerate().filter(|(_, word)| **word != [0; 8]).collect();
    assert_eq!(used.len(), 1, "{used:x?}");
    assert!(used.iter().all(|(_, word)| word.ends_with(&[0xff; 4])), "an address in the image: {used:x?}");
}

#[test]
fn a_program_that_returns_after_the_end_of_boot_services_is_an_error() {
    let folder = TempDir::new().expect("a temporary folder");
    let mut qemu = end(folder.path(), "RETURNS=1");
    qemu.wait_for("message", |qemu| {
        qemu.com1().contains("firstlight: error: the EFI program ended boot services and then returned")
    });
}

/// The firmware's table of interrupts is still there.
#[test]
fn an_exception_after_the_end_of_boot_services_is_the_kernels() {
    let folder = TempDir::new().expect("a temporary folder");
    let mut qemu = end(folder.path(), "RETURNS=2");
    qemu.wait_for("message", |qemu| qemu.com1().contains("CPU exception 6 at ") && qemu.com1().ends_with('\n'));
    let com1 = qemu.com1();
    assert!(com1.contains("in the kernel, before it handles exceptions itself"), "{com1}");
    assert!(!com1.contains("defect of the firmware"), "{com1}");
}

/// The program's first step looks for the protocol.
#[test]
fn there_are_no_random_numbers_on_a_cpu_without_them() {
    let printed = run_program(&Machine::new(Kind::Q35).with("-cpu qemu64"), false);
    assert!(printed.contains("the EFI program returned: ") && !printed.contains("SUCCESS"), "{printed}");
}

#[test]
fn a_stub_finds_the_text_of_its_files_path() {
    let script = "insmod /modules/efivarfs.ko
        mount -t efivarfs efivarfs /sys/firmware/efi/efivars
        cd /sys/firmware/efi/efivars
        echo identifier: $(tail -c +5 LoaderImageIdentifier-* | tr -d '\\0')";
    let Some((_, printed)) = run_in_unified(&Machine::new(Kind::Q35), "trixie", script) else { return };
    assert!(printed.contains("identifier: kernel\n"), "{printed}");
}

#[test]
fn a_program_draws_on_the_display_and_finds_its_path_and_its_edid() {
    let (width, height) = XGA;
    let mut expected = Picture::black(width, height);
    for (x, y) in (0..30).flat_map(|x| (0..40).map(move |y| (x, y))) {
        expected.set(10 + x, 20 + y, [0xc8, 0x0a, 0x14]);
        expected.set(100 + x, 100 + y, [0xc8, 0x0a, 0x14]);
    }
    for (x, y, colour) in
        [(1022, 766, [1, 2, 3]), (1023, 766, [4, 5, 6]), (1022, 767, [7, 8, 9]), (1023, 767, [10, 11, 12])]
    {
        expected.set(x, y, colour);
    }
    expected.set(0, 0, [7, 8, 9]);
    expected.set(1, 0, [10, 11, 12]);
    let folder = TempDir::new().expect("a temporary folder");
    for (kind, display, edid) in [
        (Kind::Q35, "-device VGA", "EDID=1"),
        (Kind::Q35, "-device pcie-root-port,id=a,chassis=1 -device bochs-display,bus=a", "EDID=1"),
        (Kind::Pc, "-device VGA,edid=off", "EDID=0"),
        (Kind::Pc, "-device ramfb", "EDID=0"),
    ] {
        let program = program(folder.path(), "efi_graphics.s", &["--defsym", edid]);
        let machine = Machine { kernel: Some(program), memory: "128M", ..Machine::new(kind) }.with(display);
        let mut qemu = machine.start();
        qemu.wait_for("line", |qemu| ["drawn", "returned"].iter().any(|word| qemu.com1().contains(word)));
        assert!(!qemu.com1().contains("returned"), "{display}: {}", qemu.com1());
        Picture::of(&mut qemu).check(&expected);
    }
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
