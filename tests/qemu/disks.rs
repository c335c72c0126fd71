//! Boots from disk: the disks of `cargo xtask disks`, each on several buses and machines.
//!
//! Debian's boot loaders are on them, and Debian's kernel, whose first program prints which disk it is from. For each disk and place
//! there is a test. Most are run by `cargo xtask test --all-disks` only.

use std::time::Duration;

use crate::environment;
use crate::machine::{Firmware, Kind, Machine, Qemu};
use crate::microvm;
use crate::serial::Serial;

/// Keys as a terminal sends them.
const DOWN: &[u8] = b"\x1b[B";
const ENTER: &[u8] = b"\r";

/// How long an installed system may take for a step: without KVM, apt takes minutes for a kernel.
const LONG: Duration = Duration::from_secs(3600);

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

/// Boots a disk at a place. Returns the machine after its end, or `None` if there are no disks.
fn boot(name: &str, (machine, device): Place) -> Option<Qemu> {
    let drive = drive(name)?;
    let sectors = if name.starts_with("f-4kn") { ",logical_block_size=4096,physical_block_size=4096" } else { "" };
    let machine = Machine { memory: "512M", ..machine }.with(&drive);
    let mut qemu = machine.with(&format!("{device},drive=disk{sectors}")).start();
    if name == "h-ipxe" {
        qemu.wait_for("iPXE", |qemu| qemu.com1().contains("Open Source Network Boot Firmware"));
    } else {
        qemu.wait_for_end();
        let end = format!("firstlight-guest: booted from disk {name}\r\n");
        assert!(qemu.com1().contains(&end), "{}", qemu.com1());
    }
    let com1 = qemu.com1();
    let warnings: Vec<_> = com1.lines().filter(|line| line.contains("firstlight: ")).collect();
    match (name, &warnings[..]) {
        ("f-backup" | "f-badcrc", [warning]) => assert!(warning.contains("is used"), "{warning}"),
        _ => assert!(warnings.is_empty(), "{warnings:?}"),
    }
    Some(qemu)
}

/// Makes the tests of a disk that are run on request only.
macro_rules! on_request {
    ($name:literal: $($place:ident)*) => {
        mod on_request {
            $(#[test] #[ignore = "cargo xtask test --all-disks"] fn $place() {
                if super::BY_DEFAULT.contains(&stringify!($place)) {
                    println!("skipped: it is among those that run by default");
                } else {
                    super::super::boot($name, super::super::$place());
                }
            })*
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
            /// The tests that have booted the disk before one on request does.
            const BY_DEFAULT: &[&str] = &[$(stringify!($place)),*];
            $(#[test] fn $place() { super::boot($name, super::$place()); })*
            $kind! { $name }
        }
    )* };
}

disks! {
    a_sdboot252 "a-sdboot252" disk: boots_from_ahci;
    a_sdboot257 "a-sdboot257" disk: boots_from_virtio;
    a_count257 "a-count257" disk: boots_on_microvm_from_virtio;
    a_menu257 "a-menu257" disk: boots_from_virtio;
    a_xbootldr257 "a-xbootldr257" disk: boots_by_the_pvh_entry_point;
    b_grub206 "b-grub206" disk: boots_from_virtio boots_on_microvm_from_virtio;
    b_grub212 "b-grub212" disk: boots_from_nvme;
    b_menu212 "b-menu212" disk:;
    b_shim206 "b-shim206" disk: boots_from_scsi;
    b_shim206ext4 "b-shim206ext4" disk: boots_from_virtio;
    b_shim212ext4 "b-shim212ext4" disk: boots_on_pc_from_virtio;
    b_fallback "b-fallback" disk: boots_from_virtio;
    c_uki252 "c-uki252" disk: boots_on_pc_from_nvme;
    c_uki257 "c-uki257" disk: boots_from_virtio;
    d_uki252 "d-uki252" disk: boots_on_pc_from_ahci;
    d_uki257 "d-uki257" disk: boots_on_microvm_from_scsi;
    f_fat12 "f-fat12" disk: boots_from_nvme;
    f_fat16 "f-fat16" disk: boots_on_pc_from_virtio;
    f_4kn "f-4kn" large_sectors: boots_from_virtio boots_from_nvme;
    f_4kn16 "f-4kn16" large_sectors: boots_from_scsi;
    f_mbr "f-mbr" disk: boots_from_ahci;
    f_mbr0c "f-mbr0c" disk: boots_from_virtio;
    f_logical "f-logical" disk: boots_from_virtio;
    f_super "f-super" disk: boots_on_pc_from_scsi;
    f_backup "f-backup" disk: boots_from_virtio;
    f_badcrc "f-badcrc" disk: boots_from_virtio;
    f_linux83 "f-linux83" disk: boots_from_virtio;
    f_frag "f-frag" disk: boots_from_virtio;
    f_longname "f-longname" disk: boots_from_scsi;
    g_iso "g-iso" cd: boots_from_a_cd_on_ahci boots_from_a_cd_on_scsi;
    g_grubiso "g-grubiso" cd: boots_from_virtio;
    h_genimage "h-genimage" disk: boots_from_virtio;
    h_ipxe "h-ipxe" cd: boots_from_a_cd_on_ahci;
}

mod e_debian {
    mod on_request {
        use super::super::{LONG, debian};

        #[test]
        #[ignore = "cargo xtask test --all-disks"]
        fn boots_from_virtio() {
            for memory in ["1G", "2G", "6G"] {
                debian(memory);
            }
        }

        #[test]
        #[ignore = "cargo xtask test --all-disks"]
        fn boots_a_kernel_that_apt_has_installed() {
            let Some((mut qemu, mut serial)) = debian("2G") else { return };
            let mut command = |text: &str, prompt: &str, times| {
                serial.press(text.as_bytes());
                serial.press(b"\r");
                qemu.wait_within(LONG, text, |_| serial.count(prompt) == times);
            };
            command("root", "root@debian:~# ", 1);
            command("echo runs=$(uname -r)=", "root@debian:~# ", 2);
            command("apt-get install --yes /var/cache/apt/archives/*.deb && reboot", "debian login: ", 2);
            command("root", "root@debian:~# ", 3);
            command("echo runs=$(uname -r)=", "root@debian:~# ", 4);
            serial.press(b"poweroff\r");
            qemu.wait_for_end();
            let printed = serial.printed();
            // The command itself is on the console too.
            let versions = printed.split("runs=").skip(1).filter_map(|text| text.split('=').next());
            let versions: Vec<_> = versions.filter(|version| !version.starts_with('$')).collect();
            assert!(matches!(versions[..], [first, second] if first != second), "{versions:?}, {printed}");
        }
    }
}

/// Boots the installed Debian to its login, on a machine that is not ended by a restart. Root needs no password.
fn debian(memory: &'static str) -> Option<(Qemu, Serial)> {
    let serial = Serial::new();
    let machine = Machine { memory, com1: false, reboots: true, ..Machine::new(Kind::Q35) }.with(&drive("e-debian")?);
    // QEMU 7.2 without KVM makes wrong flags of the instruction cmpxchg16b, by which newer kernels panic, under SeaBIOS too.
    let machine = machine.with(&serial.arguments()).with("-cpu qemu64,-cx16");
    let mut qemu = machine.with("-device virtio-blk-pci,drive=disk").start();
    qemu.wait_within(LONG, "a login", |_| serial.count("debian login: ") > 0);
    Some((qemu, serial))
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

/// Chooses the second entry of the menu on a disk. On the screen, the menu's lines have these texts; `redrawn` is what is printed again
/// when another line is chosen.
fn choose_the_second_entry(name: &str, redrawn: &str) {
    let Some(drive) = drive(name) else { return };
    let mut serial = Serial::new();
    let machine = Machine { memory: "512M", com1: false, ..Machine::new(Kind::Q35) }.with(&drive);
    let mut qemu = machine.with(&serial.arguments()).with("-device virtio-blk-pci,drive=disk").start();
    qemu.wait_for("a menu", |_| serial.count("The second") > 0);
    let drawn = serial.count(redrawn);
    serial.press(DOWN);
    qemu.wait_for("the next line of the menu", |_| serial.count(redrawn) > drawn);
    serial.press(ENTER);
    qemu.wait_for_end();
    let printed = serial.printed();
    assert!(printed.contains("firstlight-guest: booted from disk second-entry\r\n"), "{printed}");
}

#[test]
fn keys_on_the_serial_console_choose_an_entry_of_systemd_boots_menu() {
    choose_the_second_entry("a-menu257", "The second");
}

#[test]
fn keys_on_the_serial_console_choose_an_entry_of_grubs_menu() {
    choose_the_second_entry("b-menu212", "The second");
}

#[test]
fn a_key_in_the_menu_of_the_firmware_chooses_a_disk() {
    let (Some(first), Some(second)) = (drive("a-sdboot257"), drive("c-uki257")) else { return };
    let mut serial = Serial::new();
    let machine = Machine { memory: "512M", com1: false, ..Machine::new(Kind::Q35) }.with(&serial.arguments());
    let machine =
        machine.with("-boot menu=on,splash-time=60000").with(&first).with(&second.replace("id=disk", "id=second"));
    let machine = machine.with("-device virtio-blk-pci,drive=disk,bootindex=0 -device nvme,serial=1,drive=second");
    let mut qemu = machine.start();
    qemu.wait_for("the line about the menu", |_| serial.count("Press Esc for the boot menu.\r\n") == 1);
    serial.press(b"\x1b");
    qemu.wait_for("the menu", |_| serial.count("Start which? Esc leaves the menu.\r\n") == 1);
    let printed = serial.printed();
    assert!(printed.contains("\r\n1. virtio disk at 00:0") && printed.contains("\r\n2. NVMe at 00:0"), "{printed}");
    serial.press(b"2");
    qemu.wait_for_end();
    assert_eq!(serial.count("firstlight-guest: booted from disk c-uki257\r\n"), 1, "{}", serial.printed());
}

/// No key can come.
#[test]
fn the_menu_of_the_firmware_is_left_out_without_a_serial_port() {
    let Some(drive) = drive("c-uki257") else { return };
    let machine = Machine { memory: "512M", com1: false, ..Machine::new(Kind::Q35) }.with(&drive);
    let machine = machine.with("-boot menu=on,splash-time=500 -fw_cfg name=opt/org.firstlight/log,string=info");
    let mut qemu = machine.with("-serial none -device virtio-blk-pci,drive=disk").start();
    qemu.wait_for_end();
    let printed = qemu.debug_console();
    assert!(
        printed.contains("EFI: starts \\EFI\\BOOT\\BOOTX64.EFI on virtio disk") && !printed.contains("Esc"),
        "{printed}"
    );
}

/// The user presses nothing.
#[test]
fn the_menu_of_the_firmware_ends_after_the_time_that_the_host_says() {
    let (machine, device) = boots_from_virtio();
    let Some(qemu) = boot("c-uki257", (machine.with("-boot menu=on,splash-time=300"), device)) else { return };
    assert_eq!(qemu.com1().matches("Press Esc for the boot menu.\r\n").count(), 1);
    assert!(!qemu.com1().contains("Start which?"), "{}", qemu.com1());
}

/// How often registers of PCI functions are read through ports in a boot by GRUB. The kernel does it too. `None` without disks.
fn reads_of_pci(display: &str) -> Option<usize> {
    let (machine, device) = boots_from_virtio();
    let qemu = boot("b-grub206", (machine.with("-trace memory_region_ops_read").with(display), device))?;
    Some(qemu.log().matches("name 'pci-conf-data'").count())
}

#[test]
#[ignore = "cargo xtask test --all-disks"]
fn grub_searches_all_of_pci_for_a_display_only_if_there_is_none() {
    let (Some(with), Some(without)) = (reads_of_pci("-device VGA"), reads_of_pci("")) else { return };
    // 256 buses with 32 devices, twice.
    assert!((16_000..18_000).contains(&(without - with)), "{without} reads, {with} with a display");
}
