//! Boots from disk: the disks of `cargo xtask disks`, each on several buses and machines.
//!
//! Debian's boot loaders are on them, and Debian's kernel, whose first program prints which disk it is from. For each disk and place
//! there is a test. Most are run by `cargo xtask test --all-disks` only.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use tempfile::TempDir;

use crate::environment;
use crate::machine::{Firmware, Kind, Machine};
use crate::microvm;

/// Keys as a terminal sends them.
const DOWN: &[u8] = b"\x1b[B";
const ENTER: &[u8] = b"\r";

/// A machine, and the options for a device of the disk, which ends them.
type Place = (Machine, &'static str);

// The places, each as the name of its tests.

fn boots_from_virtio() -> Place {
    (Machine::new(Kind::Q35), "-device virtio-blk-pci")
}

fn boots_from_nvme() -> Place {
    (Machine::new(Kind::Q35), "-device nvme,serial=1")
}

fn boots_from_ahci() -> Place {
    (Machine::new(Kind::Q35), "-device ide-hd,bus=ide.2")
}

fn boots_from_scsi() -> Place {
    (Machine::new(Kind::Q35), "-device virtio-scsi-pci -device scsi-hd,scsi-id=2")
}

fn boots_from_a_cd_on_ahci() -> Place {
    (Machine::new(Kind::Q35), "-device ide-cd,bus=ide.1")
}

fn boots_from_a_cd_on_scsi() -> Place {
    (Machine::new(Kind::Q35), "-device virtio-scsi-pci -device scsi-cd")
}

fn boots_on_pc_from_virtio() -> Place {
    (Machine::new(Kind::Pc), "-device virtio-blk-pci")
}

fn boots_on_pc_from_nvme() -> Place {
    (Machine::new(Kind::Pc), "-device nvme,serial=1")
}

fn boots_on_pc_from_ahci() -> Place {
    (Machine::new(Kind::Pc), "-device ich9-ahci,id=ahci -device ide-hd,bus=ahci.0")
}

fn boots_on_pc_from_scsi() -> Place {
    (Machine::new(Kind::Pc), "-device virtio-scsi-pci -device scsi-hd")
}

/// In a slot with the first kind of registers, which is QEMU's default.
fn boots_on_microvm_from_virtio() -> Place {
    (microvm::machine(&["acpi", "isa-serial", "rtc"]), "-device virtio-blk-device")
}

/// In a slot with the second kind of registers.
fn boots_on_microvm_from_scsi() -> Place {
    let machine = microvm::machine(&["acpi", "isa-serial", "rtc"]).with("-global virtio-mmio.force-legacy=false");
    (machine, "-device virtio-scsi-device -device scsi-hd")
}

fn boots_by_the_pvh_entry_point() -> Place {
    let kernel = Some(environment::elf());
    let machine = Machine { firmware: Firmware::SeaBios, kernel, ..Machine::new(Kind::Q35) };
    (machine, "-device virtio-blk-pci")
}

/// The options for a disk's file, which is not changed. `None` if there are no disks.
fn drive(name: &str) -> Option<String> {
    let folder = environment::disks()?;
    let mut files = ["img", "iso"].iter().map(|end| folder.join(format!("{name}.{end}")));
    let file = files.find(|file| file.is_file()).expect("`cargo xtask disks` makes the disk");
    Some(format!("-drive if=none,id=disk,format=raw,snapshot=on,file={}", file.display()))
}

/// Boots a disk at a place.
fn boot(name: &str, (machine, device): Place) {
    let Some(drive) = drive(name) else { return };
    let sectors = if name.starts_with("f-4kn") { ",logical_block_size=4096,physical_block_size=4096" } else { "" };
    let machine = Machine { memory: "512M", ..machine }.with(&drive);
    let mut qemu = machine.with(&format!("{device},drive=disk{sectors}")).start();
    qemu.wait_for_end();
    let com1 = qemu.com1();
    assert!(com1.contains(&format!("firstlight-guest: booted from disk {name}\r\n")), "{com1}");
    let warnings: Vec<_> = com1.lines().filter(|line| line.contains("firstlight: ")).collect();
    match (name, &warnings[..]) {
        ("f-backup" | "f-badcrc", [warning]) => assert!(warning.contains("is used"), "{warning}"),
        _ => assert!(warnings.is_empty(), "{warnings:?}"),
    }
}

/// Makes the tests of a disk that are run on request only.
macro_rules! on_request {
    ($name:literal: $($place:ident)*) => {
        mod on_request {
            $(#[test] #[ignore = "cargo xtask test --all-disks"] fn $place() { super::super::boot($name, super::super::$place()); })*
        }
    };
}

/// All places for a disk, for one of large sectors, and for a CD, which is a disk too.
macro_rules! disk {
    ($name:literal) => {
        on_request! { $name:
            boots_from_virtio boots_from_nvme boots_from_ahci boots_from_scsi
            boots_on_pc_from_virtio boots_on_pc_from_nvme boots_on_pc_from_ahci boots_on_pc_from_scsi
            boots_on_microvm_from_virtio boots_on_microvm_from_scsi boots_by_the_pvh_entry_point
        }
    };
}
macro_rules! large_sectors {
    ($name:literal) => {
        on_request! { $name:
            boots_from_virtio boots_from_nvme boots_from_scsi
            boots_on_pc_from_virtio boots_on_pc_from_nvme boots_on_pc_from_scsi
            boots_on_microvm_from_virtio boots_on_microvm_from_scsi boots_by_the_pvh_entry_point
        }
    };
}
macro_rules! cd {
    ($name:literal) => {
        on_request! { $name:
            boots_from_a_cd_on_ahci boots_from_a_cd_on_scsi
            boots_from_virtio boots_from_nvme boots_from_ahci boots_from_scsi
            boots_on_pc_from_virtio boots_on_microvm_from_virtio boots_by_the_pvh_entry_point
        }
    };
}

/// Makes a module for each disk, with the places that are always tested, and one with all that its kind can be at.
macro_rules! disks {
    ($($module:ident $name:literal $kind:ident: $($place:ident)*;)*) => { $(
        mod $module {
            $(#[test] fn $place() { super::boot($name, super::$place()); })*
            $kind! { $name }
        }
    )* };
}

disks! {
    a_sdboot252 "a-sdboot252" disk: boots_from_virtio;
    a_sdboot257 "a-sdboot257" disk:
        boots_from_virtio boots_from_nvme boots_from_ahci boots_from_scsi
        boots_on_pc_from_virtio boots_on_microvm_from_virtio boots_by_the_pvh_entry_point;
    a_count257 "a-count257" disk: boots_from_virtio;
    a_menu257 "a-menu257" disk: boots_from_virtio;
    a_xbootldr257 "a-xbootldr257" disk: boots_from_virtio;
    b_grub206 "b-grub206" disk: boots_from_virtio boots_on_microvm_from_virtio;
    b_grub212 "b-grub212" disk: boots_from_virtio;
    b_shim206 "b-shim206" disk: boots_from_virtio;
    b_shim206ext4 "b-shim206ext4" disk:
        boots_from_virtio boots_on_pc_from_scsi boots_from_nvme boots_from_ahci;
    b_shim212ext4 "b-shim212ext4" disk: boots_from_virtio;
    b_fallback "b-fallback" disk: boots_from_virtio;
    c_uki252 "c-uki252" disk: boots_from_virtio;
    c_uki257 "c-uki257" disk:
        boots_from_virtio boots_on_pc_from_nvme boots_on_microvm_from_scsi boots_on_pc_from_ahci;
    d_uki252 "d-uki252" disk: boots_from_virtio;
    d_uki257 "d-uki257" disk: boots_from_virtio;
    f_fat12 "f-fat12" disk: boots_from_virtio;
    f_fat16 "f-fat16" disk: boots_from_virtio;
    f_4kn "f-4kn" large_sectors:
        boots_from_virtio boots_from_nvme boots_from_scsi;
    f_4kn16 "f-4kn16" large_sectors: boots_from_virtio;
    f_mbr "f-mbr" disk: boots_from_virtio;
    f_mbr0c "f-mbr0c" disk: boots_from_virtio;
    f_logical "f-logical" disk: boots_from_virtio;
    f_super "f-super" disk: boots_from_virtio;
    f_backup "f-backup" disk: boots_from_virtio;
    f_badcrc "f-badcrc" disk: boots_from_virtio;
    f_linux83 "f-linux83" disk: boots_from_virtio;
    f_frag "f-frag" disk: boots_from_virtio;
    f_longname "f-longname" disk: boots_from_virtio;
    g_iso "g-iso" cd:
        boots_from_a_cd_on_ahci boots_from_a_cd_on_scsi boots_from_virtio;
    g_grubiso "g-grubiso" cd:
        boots_from_a_cd_on_ahci boots_from_a_cd_on_scsi boots_from_virtio;
}

/// Nobody has assigned addresses to its functions, and they have no ports.
#[test]
fn a_disk_behind_pci_of_a_microvm_boots() {
    let machine = microvm::machine(&["acpi", "isa-serial", "rtc", "pcie"]);
    boot("c-uki257", (machine, "-device virtio-blk-pci,bootindex=1"));
}

/// Memtest86+ needs a display. Its text is on the serial console too.
#[test]
fn memtest86_starts_from_disk() {
    let Some(drive) = drive("h-memtest") else { return };
    let machine = Machine { memory: "512M", ..Machine::new(Kind::Q35) }.with(&drive);
    let mut qemu = machine.with("-device VGA -device virtio-blk-pci,drive=disk").start();
    qemu.wait_for("Memtest86+", |qemu| qemu.com1().contains("Memtest86+"));
}

#[test]
fn keys_on_the_serial_console_choose_an_entry_of_a_menu() {
    let Some(drive) = drive("a-menu257") else { return };
    let folder = TempDir::new().expect("a temporary folder");
    let [socket, log] = ["socket", "log"].map(|name| folder.path().join(name));
    let machine = Machine { memory: "512M", com1: false, ..Machine::new(Kind::Q35) }.with(&drive);
    let console = format!("socket,id=keys,path={},server=on,wait=off,logfile={}", socket.display(), log.display());
    let machine = machine.with(&format!("-chardev {console} -serial chardev:keys -device virtio-blk-pci,drive=disk"));
    let mut qemu = machine.start();
    let printed = || String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
    qemu.wait_for("a menu", |_| printed().contains("The second"));
    let mut keys = UnixStream::connect(&socket).expect("the serial console");
    let mut output = keys.try_clone().expect("a second handle of a socket");
    // QEMU waits if nobody reads.
    thread::spawn(move || io::copy(&mut output, &mut io::sink()));
    keys.write_all(DOWN).expect("the serial console");
    qemu.wait_for("the next line of the menu", |_| printed().matches("The second").count() > 1);
    keys.write_all(ENTER).expect("the serial console");
    qemu.wait_for_end();
    assert!(printed().contains("firstlight-guest: booted from disk second-entry\r\n"), "{}", printed());
}
