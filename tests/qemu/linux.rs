//! A distribution's kernel, booted to user space.
//!
//! The guest (`xtask/guest`) prints what it found, one `firstlight-guest: key: value` a line, and powers off by ACPI.
//! The machines combine each value of each property with both machine types and both transports.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::environment;
use crate::machine::{Kind, Machine, Transport};
use crate::random;

/// What the guest's lines begin with, and its last line.
const PREFIX: &str = "firstlight-guest: ";
pub const END: &str = "firstlight-guest: done\r\n";

/// A report: each key with its values.
pub struct Report(BTreeMap<String, Vec<String>>);

impl Report {
    pub fn parse(com1: &str) -> Self {
        let mut report = BTreeMap::<_, Vec<_>>::new();
        for line in com1.lines().filter_map(|line| line.strip_prefix(PREFIX)) {
            if let Some((key, value)) = line.split_once(": ") {
                report.entry(key.to_owned()).or_default().push(value.to_owned());
            }
        }
        Self(report)
    }

    /// The values of `key`.
    pub fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// The one value of `key`.
    pub fn one(&self, key: &str) -> &str {
        let [value] = self.all(key) else { panic!("not one {key} in the report: {:?}", self.all(key)) };
        value
    }

    /// Checks what the guest found on `machine`.
    pub fn check(&self, machine: &Machine) {
        assert_eq!(self.one("cpus-present"), machine.cpus.to_string());
        assert_eq!(self.one("cpus-online"), machine.cpus.to_string());
        let tables: Vec<_> = self.one("acpi-tables").split(' ').collect();
        for wanted in ["APIC", "DSDT", "FACP", "FACS"] {
            assert!(tables.contains(&wanted), "no {wanted} in {tables:?}");
        }
        assert_eq!(tables.contains(&"MCFG"), machine.kind == Kind::Q35, "{tables:?}");
        assert_eq!(self.one("dmi-bios-vendor"), "Firstlight");
        assert_eq!(self.one("dmi-bios-version"), env!("CARGO_PKG_VERSION"));
        assert_eq!(self.one("dmi-sys-vendor"), "QEMU");
        let transport = match machine.transport {
            Transport::Dma => "DMA,",
            Transport::Ports => "ports,",
        };
        assert!(self.one("fw-cfg").starts_with(transport), "{}", self.one("fw-cfg"));
        assert!(self.one("initrd").starts_with("ok "), "the initrd's payload: {}", self.one("initrd"));
        assert_eq!(self.all("problem"), [""; 0], "what the kernel says against its firmware");
        assert_eq!(self.one("bars-assigned-by-kernel"), "0", "the firmware gave all the addresses");
        let memory: u64 = self.one("memory-kib").parse().expect("a number");
        let (given, _) = machine.memory.split_once(',').unwrap_or((machine.memory, ""));
        let given = given.strip_suffix('G').map_or_else(
            || given.strip_suffix('M').expect("M or G").parse::<u64>().unwrap() << 10,
            |gib| gib.parse::<u64>().unwrap() << 20,
        );
        // The kernel itself takes some.
        assert!(memory < given && memory > given / 2, "{memory} KiB of {given}");
    }
}

/// Words for the kernel's command line. When this host is busy, an emulated machine's timers are late, which the kernel
/// takes for a defect of its firmware. Under KVM it leaves the first check out by itself.
pub const LATE_TIMERS: &str = "no_timer_check tsc=nowatchdog";

/// More such words, for machines on which the kernel can only measure the TSC by the PIT: those without a timer of ACPI. When
/// the host is busy it measures for ever, whoever loads it.
pub const TSC_IS_KNOWN: &str = "tsc_early_khz=2500000 ";

/// The command line with `words` in it; long, as one of a real machine can be.
pub fn command_line(words: &str) -> String {
    let filler: Vec<_> = (0..80).map(|i| format!("test.word{i}={}", i * 7919)).collect();
    format!("console=ttyS0 quiet {LATE_TIMERS} {words}{}", filler.join(" "))
}

/// Boots to the end, and returns the report.
pub fn run(machine: &Machine) -> Report {
    let mut qemu = guest(machine, "").start();
    qemu.wait_for_end();
    let com1 = qemu.com1();
    assert!(com1.contains(END), "the guest's report is not complete");
    assert!(!com1.contains("firstlight: "), "the firmware printed something");
    assert_eq!(qemu.debug_console(), "");
    let report = Report::parse(&com1);
    assert_eq!(report.one("command-line"), command_line(""));
    report.check(machine);
    report
}

/// The only file below the first folder of `parent` whose name begins with `name`.
pub fn file_below(parent: &Path, name: &str) -> PathBuf {
    let entries = |path: &Path| {
        let mut entries: Vec<_> = fs::read_dir(path).expect("a folder").flatten().map(|entry| entry.path()).collect();
        entries.sort();
        entries
    };
    let is_named = |path: &PathBuf| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
    let mut path = entries(parent).into_iter().find(is_named).expect("a folder of that name");
    while path.is_dir() {
        path = entries(&path).pop().expect("a file");
    }
    path
}

/// The machine with the guest.
pub fn guest(machine: &Machine, words: &str) -> Machine {
    Machine {
        kernel: Some(environment::kernel()),
        initrd: Some(environment::initrd()),
        append: Some(command_line(words)),
        ..machine.clone()
    }
}

#[test]
fn boots_on_q35_with_dma_2_cpus_512_mib_and_default_devices() {
    run(&Machine { cpus: 2, memory: "512M", default_devices: true, ..Machine::new(Kind::Q35) });
}

#[test]
fn boots_on_q35_with_ports_1_cpu_6_gib_and_default_devices() {
    let transport = Transport::Ports;
    run(&Machine { transport, memory: "6G", default_devices: true, ..Machine::new(Kind::Q35) });
}

#[test]
fn boots_on_q35_with_ports_2_cpus_128_mib_and_virtio_behind_a_root_port() {
    with_virtio(&Machine { transport: Transport::Ports, cpus: 2, memory: "128M", ..Machine::new(Kind::Q35) });
}

#[test]
fn boots_on_q35_with_dma_1_cpu_6_gib_and_virtio_behind_a_root_port() {
    with_virtio(&Machine { memory: "6G", ..Machine::new(Kind::Q35) });
}

#[test]
fn boots_on_pc_with_dma_1_cpu_128_mib_and_default_devices() {
    run(&Machine { memory: "128M", default_devices: true, ..Machine::new(Kind::Pc) });
}

#[test]
fn boots_on_pc_with_ports_2_cpus_512_mib_and_default_devices() {
    let transport = Transport::Ports;
    run(&Machine { transport, cpus: 2, memory: "512M", default_devices: true, ..Machine::new(Kind::Pc) });
}

#[test]
fn boots_on_pc_with_ports_1_cpu_512_mib_and_virtio_behind_a_bridge() {
    with_virtio(&Machine { transport: Transport::Ports, memory: "512M", ..Machine::new(Kind::Pc) });
}

#[test]
fn boots_on_pc_with_dma_2_cpus_6_gib_and_virtio_behind_a_bridge() {
    with_virtio(&Machine { cpus: 2, memory: "6G", ..Machine::new(Kind::Pc) });
}

#[test]
fn boots_on_q35_with_a_disk_behind_an_expander_bus() {
    // Such a bus has the ports that are behind it and no others, and Linux complains when it finds none for an empty slot.
    let devices = "-device pxb-pcie,id=x,bus_nr=128 -device pcie-root-port,id=a,bus=x,chassis=1,addr=3,io-reserve=4K";
    with_disk(&Machine::new(Kind::Q35), devices, "bus=a", 1);
}

#[test]
fn boots_on_pc_with_a_disk_behind_an_expander_bus() {
    let devices = "-device pxb,id=x,bus_nr=64 -device virtio-rng-pci,bus=x,addr=4";
    with_disk(&Machine::new(Kind::Pc), devices, "bus=x,addr=1", 2);
}

#[test]
fn boots_on_q35_with_a_generation_id() {
    let report = run(&Machine::new(Kind::Q35).with("-device vmgenid,guid=324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87"));
    assert!(report.one("acpi-tables").contains("SSDT"), "{}", report.one("acpi-tables"));
}

#[test]
fn boots_on_pc_with_the_64_bit_entry_point_to_smbios_and_no_devices() {
    run(&Machine { properties: ",smbios-entry-point-type=64", ..Machine::new(Kind::Pc) });
}

#[test]
fn boots_on_pc_with_more_device_memory_than_it_makes_room_for_by_itself() {
    // The host's tables have room above 4 GiB for the devices that are there, and 2 GiB without devices.
    run(&Machine::new(Kind::Pc).with("-device pci-testdev,membar=8G"));
}

/// A network card's address.
pub const MAC: &str = "52:54:00:66:6c:01";

/// Boots with a disk, a network card and a random number generator of virtio, each behind a bridge, and checks that the
/// guest can use them.
pub fn with_virtio(machine: &Machine) {
    let (devices, disk) = match machine.kind {
        Kind::Q35 => (
            format!(
                "-device pcie-root-port,id=a,chassis=1 \
                 -device pcie-root-port,id=b,chassis=2 -device virtio-net-pci,bus=b,mac={MAC},netdev=net \
                 -device pcie-root-port,id=c,chassis=3 -device virtio-rng-pci,bus=c"
            ),
            "bus=a",
        ),
        Kind::Pc => (
            format!(
                "-device pci-bridge,id=a,chassis_nr=1 -device virtio-net-pci,bus=a,addr=2,mac={MAC},netdev=net \
                 -device virtio-rng-pci,bus=a,addr=3"
            ),
            "bus=a,addr=1",
        ),
    };
    let report = with_disk(&machine.clone().with("-netdev user,id=net,restrict=on"), &devices, disk, 3);
    assert_eq!(report.one("net").split_once(' ').map(|(_, mac)| mac), Some(MAC));
}

/// Boots with `devices` and a disk of virtio, which has the properties `place`, and checks that the guest reads it and
/// drives so many virtio devices.
fn with_disk(machine: &Machine, devices: &str, place: &str, driven: usize) -> Report {
    let disk = Disk::new();
    let report = run(&disk.put_into(&machine.clone().with(devices), place));
    assert_eq!(report.all("disk"), [disk.as_reported()]);
    let drivers = report.all("pci").iter().filter(|line| line.ends_with("driver virtio-pci")).count();
    assert_eq!(drivers, driven, "{:?}", report.all("pci"));
    report
}

/// A disk with known content.
pub struct Disk {
    folder: TempDir,
    content: Vec<u8>,
}

impl Disk {
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let content = random::bytes(6, 1 << 20);
        fs::write(folder.path().join("disk"), &content).expect("a file in the temporary folder");
        Self { folder, content }
    }

    /// The machine with the disk as a virtio device that has the properties `place`.
    pub fn put_into(&self, machine: &Machine, place: &str) -> Machine {
        self.put_into_as(machine, &format!("virtio-blk-pci,{place}"))
    }

    /// The machine with the disk in `device`.
    pub fn put_into_as(&self, machine: &Machine, device: &str) -> Machine {
        let file = self.folder.path().join("disk");
        let drive = format!("-drive if=none,id=disk,format=raw,readonly=on,file={}", file.display());
        machine.clone().with(&drive).with(&format!("-device {device},drive=disk"))
    }

    /// The guest's report of it.
    pub fn as_reported(&self) -> String {
        let first_sector = sha256(self.folder.path(), &self.content[..512]);
        format!("vda {} bytes, first sector {first_sector}", self.content.len())
    }
}

/// With a disk behind a bridge, and its interrupts by a pin and the PIC: the timer's come the same way.
#[test]
fn a_guest_without_acpi_reads_a_disk() {
    // If hot-plug is left to ACPI, QEMU makes the slot look empty.
    for (kind, bridge) in [(Kind::Q35, "pcie-root-port,chassis=1,hotplug=off"), (Kind::Pc, "pci-bridge,chassis_nr=1")] {
        let disk = Disk::new();
        let machine = Machine::new(kind).with(&format!("-device {bridge},id=a,addr=6"));
        let place = if kind == Kind::Pc { "bus=a,addr=3" } else { "bus=a" };
        let mut qemu = guest(&disk.put_into(&machine, place), "acpi=off ").start();
        // It cannot power off.
        qemu.wait_for("the guest's report", |qemu| qemu.com1().contains(END));
        assert!(!qemu.com1().contains("firstlight: "), "the firmware printed something");
        let report = Report::parse(&qemu.com1());
        assert_eq!((report.one("acpi-tables"), report.all("disk")), ("", [disk.as_reported()].as_slice()));
        assert_eq!(report.all("problem"), [""; 0], "what the kernel says against its firmware");
    }
}

#[test]
fn a_guest_without_message_signalled_interrupts_reads_a_disk() {
    for (kind, bridge) in [(Kind::Q35, "pcie-root-port,chassis=1"), (Kind::Pc, "pci-bridge,chassis_nr=1")] {
        let disk = Disk::new();
        let machine = Machine::new(kind).with(&format!("-device {bridge},id=a,addr=6"));
        let place = if kind == Kind::Pc { "bus=a,addr=3" } else { "bus=a" };
        let mut qemu = guest(&disk.put_into(&machine, place), "pci=nomsi ").start();
        qemu.wait_for_end();
        let report = Report::parse(&qemu.com1());
        assert_eq!(report.all("disk"), [disk.as_reported()]);
        report.check(&machine);
    }
}

/// The SHA-256 of `bytes`, as coreutils compute it.
pub fn sha256(folder: &Path, bytes: &[u8]) -> String {
    let path = folder.join("hashed");
    fs::write(&path, bytes).expect("a file in the temporary folder");
    let output = Command::new("sha256sum").arg(&path).output().expect("sha256sum (coreutils) starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn a_guest_that_reboots_comes_up_again() {
    for kind in Kind::ALL {
        let machine = Machine { reboots: true, ..Machine::new(kind) };
        let mut qemu = guest(&machine, "firstlight.mode=reboot ").start();
        qemu.wait_for("a second report", |qemu| qemu.com1().matches(END).count() >= 2);
        let com1 = qemu.com1();
        assert!(!com1.contains("firstlight: "), "the firmware printed something");
        let (first, second) = com1.split_once(END).expect("two reports");
        let [first, second] = [first, second].map(Report::parse);
        // As before: tables, command line and initrd are loaded again each time.
        for key in ["command-line", "acpi-tables", "dmi-bios-vendor", "initrd", "e820", "problems", "pci"] {
            assert_ne!(first.all(key).len(), 0, "no {key}");
            let count = first.all(key).len();
            assert_eq!(first.all(key), &second.all(key)[..count], "{key}");
        }
    }
}
