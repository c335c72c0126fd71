//! Kernels that a shim starts, and the file of the unmodified kernel. QEMU has both from version 10 on; an older one has them as
//! named files of fw_cfg.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::efi_entry::ON;
use crate::environment;
use crate::machine::{Emulator, Kind, Machine};
use crate::script;

/// Debian's shim.
fn shim() -> Option<PathBuf> {
    Some(environment::efi_programs()?.join("bookworm/shim-unsigned/usr/lib/shim/shimx64.efi"))
}

/// A machine with an argument for a file of fw_cfg.
fn with_file(machine: Machine, name: &str, file: &Path) -> Machine {
    machine.with(&format!("-fw_cfg name={name},file={}", file.display()))
}

/// Boots Debian's kernel, and checks that a shim has started it: it leaves its lists of keys to the kernel.
fn check_shim(machine: &Machine) {
    let machine = Machine { memory: "512M", ..machine.clone() }.with(ON);
    let printed = script::run(&machine, "ls -1 /sys/firmware/efi/mok-variables; cat /proc/cmdline");
    assert!(printed.contains("MokListRT\n"), "{printed}");
    assert!(printed.contains(&format!("{}\n", script::command_line())), "{printed}");
}

#[test]
fn a_kernel_boots_by_a_shim_that_qemu_offers() {
    let (Some(emulator), Some(shim)) = (Emulator::newer(), shim()) else { return };
    let machine = Machine { emulator, ..Machine::new(Kind::Q35) };
    check_shim(&machine.with(&format!("-shim {}", shim.display())));
}

#[test]
fn a_kernel_boots_by_a_shim_from_a_named_file() {
    let Some(shim) = shim() else { return };
    check_shim(&with_file(Machine::new(Kind::Pc), "etc/boot/shim", &shim));
}

/// The numbered kernel is another one.
#[test]
fn an_efi_program_comes_from_the_file_of_the_unmodified_kernel() {
    let Some(programs) = environment::efi_programs() else { return };
    let program = programs.join("bookworm/efitools/usr/lib/efitools/x86_64-linux-gnu/ReadVars.efi");
    let machine = Machine { kernel: Some(environment::kernel()), ..Machine::new(Kind::Q35) }.with(ON);
    let mut qemu = with_file(machine, "etc/boot/kernel", &program).start();
    qemu.wait_for("message", |qemu| qemu.com1().contains("the EFI program returned: SUCCESS"));
}

#[test]
fn a_shim_that_is_no_efi_program_is_refused_with_the_reason() {
    let folder = TempDir::new().expect("a temporary folder");
    let text = folder.path().join("shim");
    fs::write(&text, "no program\n").expect("a file in the temporary folder");
    let machine = Machine { kernel: Some(environment::kernel()), ..Machine::new(Kind::Q35) }.with(ON);
    let mut qemu = with_file(machine, "etc/boot/shim", &text).start();
    qemu.wait_for("message", |qemu| {
        qemu.com1().contains("firstlight: error: the shim (QEMU -shim): the file is no EFI program")
    });
}
