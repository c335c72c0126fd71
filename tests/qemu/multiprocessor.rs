//! Guests without ACPI: their CPUs and interrupts, from the MP table.
//!
//! They run a distribution's kernel with all its drivers, because the one for virtual machines cannot read that table.

use std::fs;

use tempfile::TempDir;

use crate::bzimage::{BzImage, PVH_BASE, pvh_file};
use crate::environment;
use crate::linux::LATE_TIMERS;
use crate::machine::{Kind, Machine};
use crate::probe::Probe;

/// Prints how many CPUs there are, and which interrupts are used through an I/O APIC.
const LOOK: &str = "echo cpus=$(grep -c ^processor /proc/cpuinfo); grep IO-APIC /proc/interrupts";

/// Words for the kernel's command line. Loops are not measured, which takes long on a host with fewer CPUs than the guest;
/// a fault resets the machine, as a microvm has nothing else that does.
const OPTIONS: &str = "lpj=1000000 reboot=triple";

/// Boots, runs commands in the guest, which resets the machine then, and returns what they printed.
fn run(machine: &Machine, commands: &str) -> String {
    let busybox = "export PATH=/usr/bin; /bin/busybox mkdir -p /usr/bin; /bin/busybox --install -s /usr/bin";
    let mounts = "mount -t proc proc /proc; mount -t devtmpfs devtmpfs /dev";
    let append = format!(
        "console=ttyS0 quiet {LATE_TIMERS} {OPTIONS} panic=-1 rdinit=/bin/busybox -- \
         sh -c \"{busybox}; {mounts}; {commands}; sleep 1; reboot -f\""
    );
    let machine = Machine {
        kernel: Some(environment::console_kernel()),
        initrd: Some(environment::initrd()),
        append: Some(append),
        ..machine.clone()
    };
    let mut qemu = machine.start();
    qemu.wait_for_end();
    let com1 = qemu.com1();
    assert!(!com1.contains("firstlight: "), "the firmware printed something");
    assert_eq!(qemu.debug_console(), "");
    com1
}

/// A machine without ACPI and with two serial ports on PCI, one of them behind a bridge: all CPUs run, and the ports'
/// interrupts arrive, without which a port would send no more than it holds.
fn check(kind: Kind, cpus: u8) {
    let folder = TempDir::new().expect("a temporary folder");
    let outputs = ["direct", "behind"].map(|name| folder.path().join(name));
    let [direct, behind] = outputs.each_ref().map(|path| path.display());
    let machine = Machine { properties: ",acpi=off", memory: "512M", cpus, ..Machine::new(kind) }
        .with(&format!("-chardev file,id=direct,path={direct} -device pci-serial,chardev=direct"))
        .with("-device pci-bridge,id=bridge,chassis_nr=1")
        .with(&format!("-chardev file,id=behind,path={behind} -device pci-serial,bus=bridge,addr=3,chardev=behind"));
    let com1 = run(&machine, &format!("seq 1000 >/dev/ttyS1; seq 1000 >/dev/ttyS2; {LOOK}"));
    assert!(com1.contains(&format!("cpus={cpus}\r\n")), "{com1}");
    assert!(com1.contains("IO-APIC"), "{com1}");
    let numbers: String = (1..=1000).map(|number| format!("{number}\r\n")).collect();
    for path in outputs {
        assert_eq!(fs::read_to_string(path).expect("what the port sent"), numbers);
    }
}

#[test]
fn pc_without_acpi_has_its_cpus_and_interrupts() {
    check(Kind::Pc, 2);
}

#[test]
fn q35_without_acpi_has_its_cpus_and_interrupts() {
    check(Kind::Q35, 3);
}

#[test]
fn microvm_without_acpi_has_its_cpus() {
    let machine = Machine { memory: "512M", cpus: 3, ..Machine::new(Kind::Pc) };
    let com1 = run(&machine.with("-machine microvm,acpi=off,pit=on,pic=on,rtc=on"), LOOK);
    assert!(com1.contains("cpus=3\r\n") && com1.contains("IO-APIC"), "{com1}");
}

/// The MP table as the specification has it looked for (1.4, chapter 4): the pointer is in the first KiB of the extended BIOS data
/// area, if there is one, and on a paragraph.
#[test]
fn a_pvh_kernel_finds_the_mp_table_by_the_specifications_search() {
    let boards = ["-machine q35,acpi=off", "-machine pc,acpi=off", "-machine microvm,acpi=off"];
    for board in boards.map(|board| Machine::new(Kind::Q35).with(board)) {
        eprintln!("{:?}", board.arguments);
        let (file, _) = pvh_file(PVH_BASE);
        let mut probe = Probe::boot_file(&board, &file, None, None);
        let segment = u16::from_le_bytes(probe.read(0x40e, 2).try_into().unwrap());
        assert_ne!(segment, 0);
        let area = probe.read(u64::from(segment) << 4, 1024);
        let sum = |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        let pointer = area.chunks(16).find(|bytes| bytes.starts_with(b"_MP_") && sum(bytes) == 0).expect("a pointer");
        let table = u32::from_le_bytes(pointer[4..8].try_into().unwrap());
        assert_eq!(probe.read(table.into(), 4), b"PCMP");
    }
}

#[test]
fn every_cpu_is_listed_with_its_own_identifier() {
    let machine = Machine { properties: ",acpi=off", ..Machine::new(Kind::Q35) };
    // Sockets of three: identifiers have a gap between them.
    let mut probe = Probe::boot(&machine.with("-smp 6,sockets=2,cores=3"), &BzImage::new(), None, None);
    let pointer = probe.read(0x9_fc10, 8);
    let table = u32::from_le_bytes(pointer[4..].try_into().unwrap());
    let processors = probe.read(u64::from(table) + 44, 7 * 20);
    let ids: Vec<_> = processors.chunks(20).take_while(|entry| entry[0] == 0).map(|entry| entry[1]).collect();
    assert_eq!(ids, [0, 1, 2, 4, 5, 6]);
}

#[test]
fn there_is_no_mp_table_with_acpi() {
    for (properties, there) in [("", false), (",acpi=off", true)] {
        let mut probe = Probe::boot(&Machine { properties, ..Machine::new(Kind::Q35) }, &BzImage::new(), None, None);
        assert_eq!(probe.read(0x9_fc10, 4) == b"_MP_", there, "{properties}");
    }
}
