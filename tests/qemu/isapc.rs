//! isapc, a PC without PCI and without ACPI, and with a CPU of 64 bits, which is not its default.

use crate::bzimage::BzImage;
use crate::handover;
use crate::linux::{self, Report, TSC_IS_KNOWN};
use crate::machine::{Emulator, Kind, Machine, Transport};

/// The last `-machine` counts.
pub fn machine(emulator: Emulator) -> Machine {
    Machine { emulator, memory: "256M", ..Machine::new(Kind::Pc) }.with("-machine isapc -cpu qemu64")
}

#[test]
fn a_kernel_is_loaded_intact() {
    for emulator in Emulator::all() {
        for transport in Transport::ALL {
            let machine = Machine { transport, ..machine(emulator) };
            handover::check(&machine, &BzImage::new(), 8, 5001);
            handover::check(&machine, &BzImage::new().entered_in_32_bit_mode(), 4, 5001);
        }
    }
}

#[test]
fn the_error_names_a_32_bit_cpu() {
    let mut qemu = machine(Emulator::Installed).with("-cpu 486").start();
    qemu.wait_for("a message", |qemu| qemu.com1().ends_with('\n'));
    assert!(qemu.com1().starts_with("firstlight: error: the CPU has no 64-bit mode"), "{}", qemu.com1());
}

#[test]
fn linux_boots_to_user_space() {
    for emulator in Emulator::all() {
        let mut qemu = linux::guest(&machine(emulator), TSC_IS_KNOWN).start();
        // Such a machine cannot be powered off.
        qemu.wait_for("the kernel's report", |qemu| qemu.com1().contains(linux::END));
        assert!(!qemu.com1().contains("firstlight: "), "the firmware printed something");
        let report = Report::parse(&qemu.com1());
        assert!(report.one("initrd").starts_with("ok "));
        assert_eq!((report.one("cpus-online"), report.one("acpi-tables")), ("1", ""));
    }
}
