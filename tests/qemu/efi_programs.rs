//! EFI programs of Debian's packages that are no kernels: memory tests, tools and boot loaders, started without a disk.

use std::fs;
use std::path::PathBuf;

use crate::efi_entry::ON;
use crate::environment;
use crate::failure;
use crate::kernels::screen;
use crate::machine::{Kind, Machine, Qemu};

/// A program, by its suite and its file.
fn program(file: &str) -> Option<PathBuf> {
    Some(environment::efi_programs()?.join(file))
}

/// Starts a program on `machine`, and waits until all of this is on its console.
fn wait_for(machine: &Machine, file: &str, parts: &[&str]) -> Option<Qemu> {
    let mut qemu = Machine { kernel: Some(program(file)?), ..machine.clone() }.start();
    qemu.wait_for("text", |qemu| {
        let com1 = qemu.com1();
        parts.iter().all(|part| com1.contains(part))
    });
    Some(qemu)
}

/// These files have a setup header as well. By EFI, version 6 needs a display, with any firmware.
#[test]
fn memtest86_runs_as_an_efi_program() {
    for (kind, suite) in [(Kind::Q35, "bookworm"), (Kind::Pc, "bookworm-backports")] {
        let Some(kernel) = program(&format!("{suite}/memtest86+/boot/memtest86+x64.efi")) else { return };
        let append = Some("console=ttyS0,115200".to_owned());
        let machine = Machine { memory: "32M", kernel: Some(kernel), append, ..Machine::new(kind) };
        let mut qemu = machine.with(ON).with("-device VGA").start();
        let is_at_work = |screen: &str| (1..=10).any(|test| screen.contains(&format!("Test #{test}")));
        qemu.wait_for("memory tests", |qemu| is_at_work(&screen(&qemu.com1())));
        let screen = screen(&qemu.com1());
        for part in ["Memtest86+ v", "x64", "Status: Testing", "Errors: 0", "QEMU Standard PC"] {
            assert!(screen.contains(part), "{part} is missing:\n{screen}");
        }
    }
}

#[test]
fn efitools_hello_world_prints_its_box() {
    let file = "bookworm/efitools/usr/lib/efitools/x86_64-linux-gnu/HelloWorld.efi";
    let Some(qemu) = wait_for(&Machine::new(Kind::Q35), file, &["HelloWorld", "OK"]) else { return };
    assert!(!qemu.com1().contains("firstlight: "), "the firmware printed something");
}

/// Version 2.06 looks for its files on disks, finds none, and has a prompt, as version 2.12 has.
#[test]
fn grub_has_a_prompt() {
    let file = |suite| format!("{suite}/grub-efi-amd64-bin/usr/lib/grub/x86_64-efi/monolithic/grubx64.efi");
    for (kind, suite) in [(Kind::Q35, "bookworm"), (Kind::Pc, "bookworm-backports")] {
        let Some(_) = wait_for(&Machine::new(kind), &file(suite), &["GNU GRUB  version 2.", "grub> "]) else { return };
    }
}

#[test]
fn ipxe_prints_its_banner() {
    for file in ["bookworm/ipxe/boot/ipxe.efi", "bookworm/ipxe/usr/lib/ipxe/snponly.efi"] {
        let banner = ["iPXE initialising devices...ok", "Open Source Network Boot Firmware"];
        let Some(_) = wait_for(&Machine::new(Kind::Q35), file, &banner) else { return };
    }
}

/// Both need a disk to go on.
#[test]
fn boot_managers_start() {
    let refind = "bookworm/refind/usr/share/refind/refind/refind_x64.efi";
    let Some(_) = wait_for(&Machine::new(Kind::Q35), refind, &["rEFInd - Initializing"]) else { return };
    let systemd_boot = "trixie/systemd-boot-efi/usr/lib/systemd/boot/efi/systemd-bootx64.efi";
    let message = ["Unable to open root directory: Not found", "the EFI program returned: NOT_FOUND"];
    wait_for(&Machine::new(Kind::Q35), systemd_boot, &message);
}

/// The second program is the first one with the number of another machine in its header.
#[test]
fn a_program_for_another_machine_is_refused_with_the_reason() {
    let Some(file) = program("bookworm/syslinux-efi/usr/lib/SYSLINUX.EFI/efi32/syslinux.efi") else { return };
    let mut bytes = fs::read(&file).expect("the program");
    failure::stops_for_kernel(&bytes, "", &["the EFI program is for 32-bit x86 (0x014c)", "use one for x86-64"]);
    let signature = u32::from_le_bytes(bytes[0x3c..0x40].try_into().expect("four bytes")) as usize;
    bytes[signature + 4..signature + 6].copy_from_slice(&0xaa64_u16.to_le_bytes());
    failure::stops_for_kernel(&bytes, "", &["the EFI program is for 64-bit Arm (0xaa64)", "use one for x86-64"]);
}

/// A program that ends itself: its status is the message.
#[test]
fn a_program_that_returns_is_an_error_with_its_status() {
    let file = "bookworm/efitools/usr/lib/efitools/x86_64-linux-gnu/ReadVars.efi";
    wait_for(&Machine::new(Kind::Q35), file, &["the EFI program returned: SUCCESS"]);
}
