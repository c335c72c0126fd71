//! Errors that stop a boot, and how they are printed.
//!
//! A machine without fw_cfg is not tested here, because every x86 machine of QEMU that starts a firmware has one. The
//! library's own tests cover it.

use std::fs;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::bzimage::BzImage;
use crate::environment;
use crate::machine::{Accelerator, Emulator, Kind, Machine, Qemu, Transport};
use crate::microvm;
use crate::probe::Probe;
use crate::random;

/// Long enough for QEMU to do what it must not do. If it is too short, a test passes wrongly; it never fails wrongly.
const A_WHILE: Duration = Duration::from_millis(500);

/// A kernel that is none: the firmware stops before it sets up the machine.
pub const NO_KERNEL: &str = "-fw_cfg name=opt/org.firstlight/kernel,string=no-kernel";

/// Checks that the firmware prints one line with all of `parts` on both consoles, and stays stopped.
pub fn stops(machine: &Machine, parts: &[&str]) {
    let mut qemu = machine.start();
    wait_for_lines(&mut qemu, 1);
    thread::sleep(A_WHILE);
    assert!(qemu.is_running(), "QEMU ended");
    let com1 = qemu.com1();
    let debug_console = qemu.debug_console();
    assert_eq!(com1.lines().count(), 1, "{com1}");
    assert!(com1.starts_with("firstlight: error: ") && com1.ends_with("\r\n"), "{com1:?}");
    for part in parts {
        assert!(com1.contains(part), "{part:?} is missing in {com1:?}");
    }
    assert_eq!(com1.replace('\r', ""), debug_console);
}

/// Waits until both consoles have as many lines.
fn wait_for_lines(qemu: &mut Qemu, count: usize) {
    let lines = |text: String| text.bytes().filter(|&byte| byte == b'\n').count();
    qemu.wait_for("a message on both consoles", |qemu| {
        lines(qemu.com1()) >= count && lines(qemu.debug_console()) >= count
    });
}

/// As [`stops`], for a kernel file.
pub fn stops_for_kernel(file: &[u8], append: &str, parts: &[&str]) {
    let folder = TempDir::new().expect("a temporary folder");
    let kernel = folder.path().join("kernel");
    fs::write(&kernel, file).expect("a file in the temporary folder");
    stops(&Machine { kernel: Some(kernel), append: Some(append.to_owned()), ..Machine::new(Kind::Q35) }, parts);
}

#[test]
fn the_error_names_a_cpu_without_64_bit_mode() {
    stops(&Machine::new(Kind::Q35).with("-cpu qemu32"), &["no 64-bit mode", "-cpu"]);
}

#[test]
fn without_a_kernel_the_error_says_what_to_pass() {
    for kind in Kind::ALL {
        for transport in Transport::ALL {
            stops(&Machine { transport, ..Machine::new(kind) }, &["no kernel", "QEMU -kernel", "libvirt <kernel>"]);
        }
    }
}

#[test]
fn the_error_for_a_kernel_that_is_too_old_names_its_protocol() {
    let kernel = BzImage { version: 0x105, ..BzImage::new() };
    stops_for_kernel(&kernel.file(), "", &["too old", "1.05", "2.00"]);
}

#[test]
fn a_file_that_is_no_kernel_is_refused() {
    stops_for_kernel(&random::bytes(5, 100_000), "", &["no Linux setup header", "bzImage"]);
}

#[test]
fn the_error_for_a_boot_sector_says_that_there_is_no_bios() {
    let mut file = random::bytes(5, 100_000);
    file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    stops_for_kernel(&file, "", &["real mode only", "services of a BIOS", "bzImage"]);
}

#[test]
fn a_kernel_with_an_impossible_alignment_is_refused() {
    let kernel = BzImage { kernel_alignment: 0x30_0000, ..BzImage::new() };
    stops_for_kernel(&kernel.file(), "", &["alignment 0x300000"]);
}

#[test]
fn a_truncated_kernel_is_refused() {
    let kernel = BzImage::new();
    let mut file = kernel.file();
    // The header ends before init_size.
    file[0x201] = 0x50;
    stops_for_kernel(&file, "", &["cut short"]);
}

#[test]
fn the_error_for_a_kernel_too_large_for_the_memory_names_both_sizes() {
    let kernel = BzImage { init_size: 300 << 20, ..BzImage::new() };
    stops_for_kernel(&kernel.file(), "", &["300 MiB", "128 MiB", "more memory"]);
}

#[test]
fn the_error_for_an_initrd_too_large_for_the_memory_names_both_sizes() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    // QEMU takes this for a small kernel: only its header says how much memory it needs.
    fs::write(path("kernel"), BzImage { init_size: 80 << 20, ..BzImage::new() }.file()).expect("a file");
    let initrd = fs::File::create(path("initrd")).expect("a file");
    initrd.set_len(60 << 20).expect("a file with a hole");
    let machine = Machine { kernel: Some(path("kernel")), initrd: Some(path("initrd")), ..Machine::new(Kind::Q35) };
    stops(&machine, &["initrd", "60 MiB", "more memory"]);
}

#[test]
fn the_error_for_a_command_line_too_long_names_both_lengths() {
    let kernel = BzImage { cmdline_size: 300, ..BzImage::new() };
    stops_for_kernel(&kernel.file(), &"x".repeat(301), &["301", "300", "shorten"]);
}

#[test]
fn a_machine_restarts_after_a_failure_if_the_host_asks_for_it() {
    for kind in Kind::ALL {
        let mut qemu = Machine::new(kind).with("-boot reboot-timeout=1000").start();
        qemu.wait_for_end();
        assert_eq!(qemu.com1().matches("firstlight: error: ").count(), 1);
        let machine = Machine { reboots: true, ..Machine::new(kind) };
        let mut qemu = machine.with("-boot reboot-timeout=100").start();
        wait_for_lines(&mut qemu, 3);
        assert!(qemu.is_running());
    }
}

/// Neither a chipset nor a keyboard controller is there to reset it.
#[test]
fn a_microvm_restarts_after_a_failure_if_the_host_asks_for_it() {
    let tcg = Emulator::all().map(|emulator| (emulator, Accelerator::Tcg));
    let kvm = Accelerator::kvm().map(|accelerator| (Emulator::Installed, accelerator));
    for (emulator, accelerator) in tcg.chain(kvm) {
        for parts in [&["acpi", "isa-serial", "rtc", "pit", "pic"][..], &["isa-serial"]] {
            let machine = Machine { emulator, accelerator, ..microvm::machine(parts) };
            let mut qemu = machine.clone().with("-boot reboot-timeout=100").start();
            qemu.wait_for_end();
            assert_eq!(qemu.com1().matches("firstlight: error: ").count(), 1);
            let mut qemu = Machine { reboots: true, ..machine }.with("-boot reboot-timeout=100").start();
            wait_for_lines(&mut qemu, 3);
            assert!(qemu.is_running());
        }
    }
}

#[test]
fn a_machine_waits_for_ever_after_a_failure_if_the_host_asks_for_it() {
    stops(&Machine::new(Kind::Q35).with("-boot reboot-timeout=-1"), &["no kernel"]);
}

#[test]
fn the_host_chooses_the_level_of_the_log() {
    let log = |level: &str| {
        let machine = Machine::new(Kind::Q35).with(&format!("-fw_cfg name=opt/org.firstlight/log,string={level}"));
        let probe = Probe::boot_noisily(&machine, &BzImage::new(), None, None);
        let com1 = probe.qemu.com1();
        assert_eq!(com1.replace('\r', ""), probe.qemu.debug_console());
        com1
    };
    for level in ["off", "error", "warn"] {
        assert_eq!(log(level), "");
    }
    let info = log("info");
    assert!(info.lines().count() > 0 && info.lines().all(|line| line.starts_with("firstlight: info: ")), "{info}");
    // The first line has the text that the image's file has too.
    let name = info.split(", built for ").next().and_then(|line| line.strip_prefix("firstlight: info: "));
    let name = name.expect("the version in the first line");
    assert!(name.starts_with(concat!("Firstlight ", env!("CARGO_PKG_VERSION"), " (")), "{info}");
    let image = fs::read(environment::image()).expect("the image");
    assert!(image.windows(name.len()).any(|bytes| bytes == name.as_bytes()), "{info}");
    let debug = log("debug");
    assert!(debug.lines().any(|line| line.starts_with("firstlight: debug: ")), "{debug}");
    assert!(debug.lines().count() > info.lines().count(), "{debug}");
    // The boot continues in spite of an unknown word.
    let unknown = log("loud");
    assert_eq!(unknown.lines().count(), 1, "{unknown}");
    assert!(unknown.starts_with("firstlight: warning: ") && unknown.contains("opt/org.firstlight/log"), "{unknown}");
}

#[test]
fn an_error_is_printed_even_with_the_log_off() {
    stops(&Machine::new(Kind::Q35).with("-fw_cfg name=opt/org.firstlight/log,string=off"), &["no kernel"]);
}

#[test]
fn an_error_on_a_machine_without_com1_is_on_the_debug_console() {
    // A machine that has only the firmware's second console.
    let mut machine = Machine::new(Kind::Q35);
    machine.com1 = false;
    let mut qemu = machine.start();
    qemu.wait_for("a message", |qemu| qemu.debug_console().ends_with('\n'));
    assert!(qemu.debug_console().starts_with("firstlight: error: no kernel"));
}
