//! A failed boot shows on the display the line that is on the consoles. The tests read it from the screen by the font.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use firstlight::fakes::picture;
use tempfile::TempDir;

use crate::bzimage::BzImage;
use crate::display::{Picture, XGA};
use crate::environment;
use crate::failure;
use crate::machine::{Accelerator, Firmware, Kind, Machine, Qemu};

/// How long the screen may be behind the consoles.
const SCREEN_LIMIT: Duration = Duration::from_secs(60);

/// What the display shows, if it is text in the firmware's font.
fn shown(qemu: &mut Qemu) -> (Option<String>, (usize, usize)) {
    let picture = Picture::of(qemu);
    let (width, height) = (picture.width, picture.height);
    let lines = picture::lines(width as u16, height as u16, |x, y| {
        let [red, green, blue] = picture.pixels[usize::from(y) * width + usize::from(x)];
        [blue, green, red]
    });
    (lines.and_then(|lines| picture::message(&lines)), (width, height))
}

/// Waits until the display shows the last line of the debug console, which is an error. Returns that line and the mode.
fn wait_until_shown(qemu: &mut Qemu) -> (String, (usize, usize)) {
    qemu.wait_for("an error", |qemu| {
        let console = qemu.debug_console();
        console.ends_with('\n') && console.lines().last().is_some_and(|line| line.starts_with("firstlight: error: "))
    });
    let line = qemu.debug_console().lines().last().expect("a line").to_owned();
    let start = Instant::now();
    loop {
        let (screen, mode) = shown(qemu);
        if screen.as_ref() == Some(&line) {
            return (line, mode);
        }
        assert!(start.elapsed() < SCREEN_LIMIT, "the screen of {mode:?} shows {screen:?}, and not {line:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Fails unless the machine's boot fails with one line, which has `part`, and the display shows that in this mode.
fn check(machine: &Machine, part: &str, mode: (usize, usize)) {
    eprintln!("{:?} {}", machine.kind, machine.arguments.join(" "));
    let mut qemu = machine.start();
    let (line, size) = wait_until_shown(&mut qemu);
    assert!(line.contains(part), "{line}");
    assert_eq!(size, mode);
    assert!(qemu.is_running(), "QEMU ended");
    assert_eq!(qemu.debug_console(), format!("{line}\n"));
    if machine.com1 {
        assert_eq!(qemu.com1(), line + "\r\n");
    }
}

/// The same for a machine with a kernel that is none.
pub fn check_no_kernel(machine: &Machine) {
    check(&machine.clone().with(failure::NO_KERNEL), "kernel", XGA);
}

#[test]
fn a_machine_without_a_serial_port_shows_why_it_does_not_boot() {
    for kind in Kind::ALL {
        let machine = Machine { com1: false, ..Machine::new(kind) };
        check_no_kernel(&machine.clone().with("-vga std"));
        check_no_kernel(&machine.with("-device ramfb"));
    }
}

#[test]
fn every_display_with_a_framebuffer_shows_a_failed_boot() {
    for kind in Kind::ALL {
        let machine = || Machine::new(kind);
        check_no_kernel(&Machine { default_devices: true, ..machine() }.with("-nic none"));
        check_no_kernel(&machine().with("-device secondary-vga"));
        check_no_kernel(&machine().with("-device bochs-display"));
        check_no_kernel(&machine().with("-vga virtio"));
        check_no_kernel(&Machine { memory: "6G", ..machine() }.with("-device ramfb"));
    }
    let behind_a_port = "-device pcie-root-port,id=a,chassis=1 -device bochs-display,bus=a";
    check_no_kernel(&Machine::new(Kind::Q35).with(behind_a_port));
    let behind_a_bridge = "-device pci-bridge,id=a,chassis_nr=1 -device VGA,bus=a,addr=1";
    check_no_kernel(&Machine::new(Kind::Pc).with(behind_a_bridge));
}

#[test]
fn a_failed_boot_is_shown_under_kvm() {
    let Some(accelerator) = Accelerator::kvm() else { return };
    check_no_kernel(&Machine { accelerator, ..Machine::new(Kind::Q35) }.with("-vga std"));
    check_no_kernel(&Machine { accelerator, ..Machine::new(Kind::Pc) }.with("-device ramfb"));
}

/// Writes a kernel that takes more memory than the machine has: the boot fails when all but the kernel is set up.
fn too_large(folder: &TempDir) -> Option<PathBuf> {
    let path = folder.path().join("kernel");
    let kernel = BzImage { init_size: 300 << 20, ..BzImage::new() };
    fs::write(&path, kernel.file()).expect("a file in the temporary folder");
    Some(path)
}

#[test]
fn a_late_failure_is_shown_in_every_mode() {
    let folder = TempDir::new().expect("a temporary folder");
    let kernel = too_large(&folder);
    for kind in Kind::ALL {
        let machine = || Machine { kernel: kernel.clone(), ..Machine::new(kind) };
        check(&machine().with("-vga std"), "300 MiB", XGA);
        check(&machine().with("-device bochs-display"), "300 MiB", XGA);
        check(&machine().with("-device ramfb"), "300 MiB", XGA);
        // With little memory the line takes two.
        check(&machine().with("-device VGA,vgamem_mb=1"), "300 MiB", (640, 400));
        check(&machine().with("-device VGA,vgamem_mb=2"), "300 MiB", (800, 600));
    }
}

#[test]
fn a_failure_is_shown_where_a_boot_puts_the_registers_above_4_gib() {
    let folder = TempDir::new().expect("a temporary folder");
    let machine = Machine::new(Kind::Q35).with("-vga virtio -device pci-testdev,membar=8G");
    check_no_kernel(&machine);
    let mut qemu = Machine { kernel: too_large(&folder), ..machine }.start();
    wait_until_shown(&mut qemu);
    let com1 = qemu.com1();
    assert!(com1.contains("warning: no framebuffer: ") && com1.contains("above 4 GiB"), "{com1}");
}

#[test]
fn a_failure_is_shown_on_a_pci_display_after_a_start_by_the_pvh_entry() {
    let elf = Some(environment::elf());
    let mut qemu =
        Machine { firmware: Firmware::SeaBios, kernel: elf, ..Machine::new(Kind::Q35) }.with("-vga std").start();
    let (line, _) = wait_until_shown(&mut qemu);
    assert!(line.contains("no kernel"), "{line}");
}

#[test]
fn a_display_that_cannot_be_set_up_leaves_the_line_on_the_consoles() {
    // Too much RAM for 512 MiB of video memory below 4 GiB; no registers; a display of another kind.
    let much = Machine { memory: "3583M", ..Machine::new(Kind::Pc) };
    failure::stops(&much.with("-device VGA,vgamem_mb=512").with(failure::NO_KERNEL), &["kernel"]);
    for display in ["-device VGA,mmio=off", "-vga cirrus"] {
        failure::stops(&Machine::new(Kind::Q35).with(display).with(failure::NO_KERNEL), &["kernel"]);
    }
}

#[test]
fn a_failure_is_shown_until_the_restart() {
    for display in ["-vga std", "-device ramfb"] {
        let machine = Machine { reboots: true, ..Machine::new(Kind::Q35) };
        let mut qemu = machine.with(display).with("-boot reboot-timeout=2000").start();
        for boots in 1..=2 {
            qemu.wait_for("a message", |qemu| qemu.com1().matches("error: ").count() >= boots);
            let start = Instant::now();
            while shown(&mut qemu).0.is_none_or(|line| !line.contains("no kernel")) {
                assert!(start.elapsed() < SCREEN_LIMIT);
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
