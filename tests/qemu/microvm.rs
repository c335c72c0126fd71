//! microvm: with and without each of its parts, and what Linux does with the rest.
//!
//! Its parts are properties. Without `acpi` no firmware can tell a guest of devices, and without `isa-serial` there is no
//! COM1.

use std::fs;

use tempfile::TempDir;

use crate::bzimage::BzImage;
use crate::handover;
use crate::linux::{self, Disk, MAC, Report, TSC_IS_KNOWN};
use crate::machine::{Emulator, Kind, Machine, Transport};
use crate::probe::Probe;
use crate::script;

/// The parts that can be left out.
const PARTS: [&str; 6] = ["acpi", "pcie", "isa-serial", "rtc", "pit", "pic"];

/// A microvm with these parts and no others, in place of the machine that came before.
pub fn machine(parts: &[&str]) -> Machine {
    let properties: String =
        PARTS.iter().map(|part| format!(",{part}={}", if parts.contains(part) { "on" } else { "off" })).collect();
    Machine { memory: "256M", ..Machine::new(Kind::Pc) }.with(&format!("-machine microvm{properties}"))
}

/// Machines among which any three of the parts, and of the transport, are there and missing in all eight ways: four are
/// chosen, and each other one is there when an odd number of three of these are.
fn machines() -> impl Iterator<Item = (Vec<&'static str>, Transport)> {
    (0..16u8).map(|number| {
        let chosen = |of: u8| (number & of).count_ones() % 2 == 1;
        let there = [0b0001, 0b0010, 0b0100, 0b1000, 0b0111, 0b1110].map(chosen);
        let parts = PARTS.into_iter().zip(there).filter_map(|(part, there)| there.then_some(part)).collect();
        (parts, if chosen(0b1011) { Transport::Ports } else { Transport::Dma })
    })
}

#[test]
fn the_machines_have_every_combination_of_any_three_parts() {
    let all: Vec<_> = machines().collect();
    let bits = |(parts, transport): &(Vec<&str>, Transport)| -> Vec<bool> {
        PARTS.iter().map(|part| parts.contains(part)).chain([*transport == Transport::Dma]).collect()
    };
    for (a, b, c) in (0..7).flat_map(|a| (0..a).flat_map(move |b| (0..b).map(move |c| (a, b, c)))) {
        let mut seen = [false; 8];
        for bits in all.iter().map(bits) {
            seen[usize::from(bits[a]) << 2 | usize::from(bits[b]) << 1 | usize::from(bits[c])] = true;
        }
        assert_eq!(seen, [true; 8], "{a} {b} {c}");
    }
}

#[test]
fn a_kernel_is_loaded_intact_whatever_part_is_missing() {
    for (parts, transport) in machines() {
        eprintln!("{parts:?}, {transport:?}");
        let machine = Machine { transport, ..machine(&parts) };
        handover::check(&machine, &BzImage::new(), 8, 5001);
    }
}

#[test]
fn acpi_tables_are_loaded_if_the_host_has_them() {
    for parts in [&["acpi", "pcie"][..], &["acpi"], &["pcie", "isa-serial"]] {
        let mut probe = Probe::boot(&machine(parts), &BzImage::new(), None, None);
        let rsdp = probe.boot_params().rsdp();
        assert_eq!(rsdp != 0, parts.contains(&"acpi"), "{rsdp:#x}");
        if rsdp != 0 {
            assert_eq!(probe.read(rsdp, 8), b"RSD PTR ");
        }
    }
}

#[test]
fn without_a_serial_port_an_error_is_on_the_debug_console() {
    let mut qemu = machine(&["acpi", "rtc", "pit", "pic"]).start();
    qemu.wait_for("a message", |qemu| qemu.debug_console().ends_with('\n'));
    assert!(qemu.debug_console().starts_with("firstlight: error: no kernel"));
    assert_eq!(qemu.com1(), "");
}

/// Only QEMU's tables describe PCI, so the kernel assigns the addresses, and the firmware none. There are no I/O ports.
#[test]
fn linux_drives_pci_devices() {
    for emulator in Emulator::all() {
        let disk = Disk::new();
        let machine = Machine { emulator, ..machine(&PARTS) };
        let machine = disk.put_into(&machine, "addr=3").with("-netdev user,id=net,restrict=on");
        let machine = machine.with(&format!("-device virtio-net-pci,addr=4,mac={MAC},netdev=net"));
        let mut qemu = linux::guest(&machine, TSC_IS_KNOWN).start();
        qemu.wait_for_end();
        let com1 = qemu.com1();
        assert!(com1.contains(linux::END) && !com1.contains("firstlight: "), "{com1}");
        let report = Report::parse(&com1);
        assert_eq!(report.all("disk"), [disk.as_reported()]);
        assert_eq!(report.one("net").split_once(' ').map(|(_, mac)| mac), Some(MAC));
        let drivers = report.all("pci").iter().filter(|line| line.ends_with("driver virtio-pci")).count();
        assert_eq!(drivers, 2, "{:?}", report.all("pci"));
        assert_eq!(report.one("bars-assigned-by-kernel"), "4", "two of each device");
    }
}

/// Linux up to 6.1 has no page attribute table on a CPU whose memory types are off, and with it no write-combining.
#[test]
fn linux_has_its_page_attribute_table() {
    let machine = machine(&PARTS).with("-smp 2");
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("script");
    fs::write(&file, "dmesg | grep -e PAT -e MTRR -e mtrr").expect("a file in the temporary folder");
    let mut machine = script::guest(&machine, &file);
    machine.append = Some(format!("{} {TSC_IS_KNOWN}", script::command_line()));
    let mut qemu = machine.start();
    qemu.wait_for_end();
    let com1 = qemu.com1();
    assert!(com1.contains("x86/PAT: Configuration [0-7]: WB  WC  UC- UC"), "{com1}");
    assert!(!com1.contains("MTRRs disabled"), "{com1}");
}

/// A script for a guest without any console that the kernel knows: it loads the driver of one, and reports there.
const REPORT_ON_VIRTIO: &str = "
    insmod /modules/virtio_console.ko
    for second in $(seq 60); do
        [ -c /dev/hvc0 ] && break
        sleep 1
    done
    report >/dev/hvc0 2>&1
";

#[test]
fn linux_runs_without_timers_pic_and_serial_port() {
    let folder = TempDir::new().expect("a temporary folder");
    let [console, script] = ["console", "script"].map(|name| folder.path().join(name));
    fs::write(&script, REPORT_ON_VIRTIO).expect("a file in the temporary folder");
    let disk = Disk::new();
    let machine = disk
        .put_into_as(&machine(&["acpi"]), "virtio-blk-device")
        .with(&format!("-netdev user,id=net,restrict=on -device virtio-net-device,mac={MAC},netdev=net"))
        .with(&format!("-chardev file,id=console,path={}", console.display()))
        .with("-device virtio-serial-device -device virtconsole,chardev=console");
    let mut machine = script::guest(&machine, &script);
    machine.append = Some(format!("{} {TSC_IS_KNOWN}", script::command_line()));
    let mut qemu = machine.start();
    qemu.wait_for_end();
    assert_eq!((qemu.com1(), qemu.debug_console()), Default::default());
    let report = Report::parse(&fs::read_to_string(console).expect("the console's output"));
    assert!(report.one("initrd").starts_with("ok "));
    assert_eq!(report.all("disk"), [disk.as_reported()]);
    assert_eq!(report.one("net").split_once(' ').map(|(_, mac)| mac), Some(MAC));
}

/// Nothing resets such a machine, so Linux jumps to the reset vector in the end, with the registers that it happens to
/// have: with `-cpu max` its page tables have five levels. QEMU ends at a reset, so that none can be what helped.
#[test]
fn a_machine_that_is_restarted_by_a_jump_to_the_reset_vector_boots_again() {
    // Linux first tries a keyboard controller, and waits seconds for a missing one.
    let machine = machine(&["isa-serial", "rtc", "pit", "pic"]).with("-cpu max");
    let mut qemu = linux::guest(&machine, &format!("{TSC_IS_KNOWN}reboot=bios firstlight.mode=reboot ")).start();
    qemu.wait_for("a second report", |qemu| qemu.com1().matches(linux::END).count() >= 2);
    assert!(!qemu.com1().contains("firstlight: "), "the firmware printed something");
    for report in qemu.com1().split(linux::END).take(2).map(Report::parse) {
        assert!(report.one("initrd").starts_with("ok "));
    }
}
