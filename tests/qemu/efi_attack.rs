//! Attacks of EFI programs on the next boot, and on themselves (`docs/threat-model.md`).

use tempfile::TempDir;

use crate::efi_protocols::program;
use crate::machine::{Kind, Machine};
use crate::microvm;

/// How often a machine boots in a test.
const BOOTS: usize = 3;

/// The program (`tests/kernels/efi_attack.s`) prints the same line in each boot.
#[test]
fn nothing_that_an_efi_program_leaves_reaches_the_next_boot() {
    let microvm = microvm::machine(&["acpi", "isa-serial", "rtc", "pit", "pic"]);
    let folder = TempDir::new().expect("a temporary folder");
    for (machine, attack) in [
        (Machine::new(Kind::Q35), "ATTACK=0"),
        (Machine::new(Kind::Q35), "ATTACK=1"),
        (Machine::new(Kind::Q35), "ATTACK=2"),
        (Machine::new(Kind::Pc), "ATTACK=2"),
        (microvm, "ATTACK=2"),
    ] {
        let kernel = Some(program(folder.path(), "efi_attack.s", &["--defsym", attack]));
        let mut qemu = Machine { kernel, memory: "128M", reboots: true, ..machine }.start();
        qemu.wait_for("a line of each boot", |qemu| qemu.com1().matches('\n').count() >= BOOTS);
        let com1 = qemu.com1();
        let lines: Vec<_> = com1.lines().take(BOOTS).collect();
        // The variable is not found, nor any other, the count is the first, and the variable is set.
        let not_found = "800000000000000e";
        assert!(lines[0].starts_with(&format!("{not_found} {not_found} {:016x} ", 1)), "{attack}: {com1}");
        assert!(lines[0].trim_end().ends_with(&format!(" {:016x}", 0)), "{attack}: {com1}");
        assert!(lines.iter().all(|line| *line == lines[0]), "{attack}: {com1}");
    }
}

#[test]
fn a_program_that_is_compatible_with_nx_writes_no_code_and_executes_no_data() {
    let folder = TempDir::new().expect("a temporary folder");
    for (fault, error_code, offset) in [("FAULT=0", 3, 0x1004), ("FAULT=1", 3, 0x1004), ("FAULT=2", 0x11, 0x2000)] {
        let kernel = Some(program(folder.path(), "efi_nx.s", &["--defsym", fault]));
        let mut qemu = Machine { kernel, memory: "128M", ..Machine::new(Kind::Q35) }.start();
        qemu.wait_for("message", |qemu| qemu.com1().contains("CPU exception") && qemu.com1().ends_with('\n'));
        let com1 = qemu.com1();
        assert!(com1.contains("CPU exception 14 at "), "{fault}: {com1}");
        assert!(com1.contains(&format!(", error code {error_code:#x}, CR2 ")), "{fault}: {com1}");
        assert!(com1.contains(&format!(", {offset:#x} bytes into the EFI program VenMedia(")), "{fault}: {com1}");
        assert!(com1.contains("this is a defect of the program"), "{fault}: {com1}");
    }
}
