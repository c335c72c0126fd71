//! A QEMU newer than the one that is installed: what the other tests check on that one, checked once for each topic.

use crate::linux;
use crate::machine::{Emulator, Kind, Machine, Transport};

/// The machine on the newer QEMU, if there is one.
fn on_newer_qemu(kind: Kind) -> Option<Machine> {
    Some(Machine { emulator: Emulator::newer()?, ..Machine::new(kind) })
}

#[test]
fn linux_boots_on_q35_of_a_newer_qemu() {
    let Some(machine) = on_newer_qemu(Kind::Q35) else { return };
    linux::with_virtio(&Machine { cpus: 2, memory: "512M", default_devices: true, ..machine });
}

#[test]
fn linux_boots_on_pc_of_a_newer_qemu_without_dma() {
    let Some(machine) = on_newer_qemu(Kind::Pc) else { return };
    linux::with_virtio(&Machine { transport: Transport::Ports, memory: "6G", default_devices: true, ..machine });
}
