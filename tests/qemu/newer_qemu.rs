//! A QEMU newer than the installed one: one test for each topic that the other tests check on the installed QEMU.
//!
//! The tests of `microvm` and `isapc` run on both.

use crate::bzimage::BzImage;
use crate::display;
use crate::failure_on_display;
use crate::handover;
use crate::linux;
use crate::machine::{Emulator, Kind, Machine, Transport};
use crate::pci;
use crate::probe::Probe;
use crate::pvh;
use crate::sleep;
use crate::tables;

/// `machine` on the newer QEMU, if there is one.
fn newer(machine: Machine) -> Option<Machine> {
    Some(Machine { emulator: Emulator::newer()?, ..machine })
}

#[test]
fn linux_boots_on_q35() {
    let Some(machine) = newer(Machine::new(Kind::Q35)) else { return };
    linux::with_virtio(&Machine { cpus: 2, memory: "512M", default_devices: true, ..machine });
}

#[test]
fn linux_boots_on_pc_without_dma() {
    let Some(machine) = newer(Machine::new(Kind::Pc)) else { return };
    linux::with_virtio(&Machine { transport: Transport::Ports, memory: "6G", default_devices: true, ..machine });
}

/// The oldest type of this QEMU, whose fw_cfg has no DMA, and the types with SMBIOS 3.
#[test]
fn linux_boots_on_older_machine_types() {
    for (kind, version, transport) in [(Kind::Pc, "2.4", Transport::Ports), (Kind::Q35, "8.2", Transport::Dma)] {
        let Some(machine) = newer(Machine::new(kind)) else { return };
        let machine = Machine { version: Some(version), transport, memory: "256M", default_devices: true, ..machine };
        linux::run(&machine);
    }
}

#[test]
fn kernels_are_loaded_intact() {
    for machine in handover::every_machine_and_transport().map_while(newer) {
        handover::check(&machine, &BzImage::new(), 8, 5001);
        handover::check(&machine, &BzImage::new().entered_in_32_bit_mode(), 4, 5001);
    }
}

#[test]
fn every_field_of_start_info_is_right() {
    for arguments in ["", pvh::MICROVM] {
        let Some(machine) = newer(Machine::new(Kind::Pc).with(arguments)) else { return };
        pvh::check(&machine);
    }
}

#[test]
fn pci_functions_have_addresses() {
    let Some(q35) = newer(Machine { default_devices: true, ..Machine::new(Kind::Q35) }) else { return };
    pci::check(&q35.with("-device pcie-root-port,id=a,chassis=1 -device virtio-rng-pci,bus=a"));
    let Some(pc) = newer(Machine { default_devices: true, ..Machine::new(Kind::Pc) }) else { return };
    pci::check(&pc.with("-device pci-bridge,id=a,chassis_nr=1 -device virtio-rng-pci,bus=a,addr=1"));
}

#[test]
fn pixels_in_the_framebuffer_appear_on_the_screen() {
    let Some(machine) = newer(Machine::new(Kind::Q35)) else { return };
    display::check(&machine.clone().with("-vga std"), display::XGA, 16 << 20);
    display::check(&machine.with("-device ramfb"), display::XGA, 3 << 20);
}

#[test]
fn the_screen_shows_why_a_boot_fails() {
    let Some(machine) = newer(Machine::new(Kind::Q35)) else { return };
    failure_on_display::check_no_kernel(&machine.clone().with("-vga std"));
    failure_on_display::check_no_kernel(&machine.with("-device ramfb"));
}

#[test]
fn a_machine_sleeps_and_wakes() {
    for kind in Kind::ALL {
        let Some(machine) = newer(Machine::new(kind)) else { return };
        let (mut probe, page) = sleep::boot(&machine);
        sleep::prepare(&mut probe, &page);
        sleep::sleep(&mut probe);
        probe.wait_for_wake();
        assert_eq!((probe.qemu.com1(), probe.qemu.debug_console()), Default::default());
    }
}

#[test]
fn the_smbios_entry_point_is_the_hosts_for_the_machine_type() {
    for (version, wanted) in [(None, &b"_SM_"[..]), (Some("8.2"), b"_SM3_")] {
        for kind in Kind::ALL {
            let Some(machine) = newer(Machine { version, ..Machine::new(kind) }) else { return };
            let mut probe = Probe::boot(&machine, &BzImage::new(), None, None);
            let segment = probe.read(0xf_0000, 0x1_0000);
            assert!(tables::scan(&segment, wanted).is_some(), "{kind:?} of version {version:?}");
        }
    }
}
