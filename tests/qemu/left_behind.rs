//! Attacks of a guest on the next boot: root writes memory, CMOS and registers, and resets the machine. The next kernel may
//! be another one and measured by a TPM. It must not find anything of this (`docs/threat-model.md`).
//!
//! The probe plays root. `tpm` has the attacks on measured boot.

use std::ops::Range;

use firstlight::addr::PhysAddr;
use firstlight::fakes::machine::FakeMachine;
use firstlight::fakes::tables as made;
use firstlight::resume::Record;

use crate::bzimage::{BzImage, wake_code};
use crate::isapc;
use crate::machine::{Emulator, Kind, Machine, Transport};
use crate::microvm;
use crate::probe::Probe;
use crate::reset::{WAYS, Way};
use crate::sleep::{
    self, PM1A_CONTROL, RECORD, SLEEP_S3, STATUS_WAKE, VECTOR, check_cpu, set_status, sleep, wake_when_asleep,
};

/// Where the guest puts its own tables: RAM that the firmware does not use.
const TABLES: u64 = 0x60_0000;

/// S3 is off.
pub const NO_S3: &str = "-global ICH9-LPC.disable_s3=1 -global PIIX4_PM.disable_s3=1";

fn boot(machine: &Machine) -> Probe {
    Probe::boot(&Machine { reboots: true, ..machine.clone() }, &BzImage::new(), None, None)
}

/// A valid record of the guest's own ACPI tables, which lead to its waking vector, with code there that reports a wake, and
/// the request for it in CMOS. This is all that a suspended machine has in memory.
pub fn forge_wake(probe: &mut Probe) {
    let pieces = made::acpi(TABLES, TABLES + 0x40, 0xb000_0000);
    for (at, bytes) in &pieces {
        probe.write(*at, bytes);
    }
    let (facs, _) = pieces.iter().find(|(_, bytes)| bytes.starts_with(b"FACS")).expect("a FACS");
    probe.write(facs + 12, &(VECTOR as u32).to_le_bytes());
    probe.write(VECTOR, &wake_code(probe.state.base));
    let mut machine = FakeMachine::new();
    Record { rsdp: PhysAddr::new(TABLES), writes: Vec::new() }.store(&mut machine);
    probe.write(RECORD, &machine.memory.bytes(RECORD, 32));
    set_status(probe, STATUS_WAKE);
}

/// A real wake accepts the same record; otherwise the other tests would show nothing.
#[test]
fn a_suspended_machine_wakes_by_the_forged_record() {
    for kind in Kind::ALL {
        let mut probe = boot(&Machine::new(kind));
        forge_wake(&mut probe);
        sleep(&mut probe);
        check_cpu(&probe.wait_for_wake());
    }
}

#[test]
fn a_plain_reset_is_a_boot_whatever_a_guest_left() {
    for kind in Kind::ALL {
        for transport in Transport::ALL {
            let mut probe = boot(&Machine { transport, ..Machine::new(kind) });
            for way in WAYS {
                forge_wake(&mut probe);
                way.take(&mut probe);
            }
            forge_wake(&mut probe);
            probe.reset();
            assert_eq!((probe.qemu.com1(), probe.qemu.debug_console()), Default::default(), "{kind:?}, {transport:?}");
        }
    }
}

/// A guest can clear the bit that says that the machine was suspended, but need not.
#[test]
fn a_plain_reset_after_a_wake_is_a_boot() {
    for emulator in Emulator::all() {
        for kind in Kind::ALL {
            let mut probe = boot(&Machine { emulator, ..Machine::new(kind) });
            for way in WAYS {
                forge_wake(&mut probe);
                sleep(&mut probe);
                probe.wait_for_wake();
                forge_wake(&mut probe);
                way.take(&mut probe);
            }
        }
    }
}

/// QEMU suspends these machines too, if a guest writes to the register.
#[test]
fn a_machine_without_s3_never_wakes() {
    for kind in Kind::ALL {
        let without_s3 = Machine::new(kind).with(NO_S3);
        let without_acpi = Machine { properties: ",acpi=off", ..Machine::new(kind) };
        for machine in [without_s3, without_acpi] {
            let mut probe = boot(&machine);
            for way in WAYS {
                forge_wake(&mut probe);
                way.take(&mut probe);
            }
            // Without ACPI a pc has no power management.
            if kind == Kind::Q35 || machine.properties.is_empty() {
                forge_wake(&mut probe);
                probe.suspend_by_port(PM1A_CONTROL, SLEEP_S3);
                wake_when_asleep(&mut probe.qemu);
                probe.wait_for_restart();
            }
            assert_eq!((probe.qemu.com1(), probe.qemu.debug_console()), Default::default(), "{machine:?}");
        }
    }
}

/// A microvm with a clock, and so with CMOS, with ACPI and without, and what resets each.
fn machines_that_cannot_sleep() -> [(Machine, &'static [Way]); 3] {
    let microvm = |parts| Machine { reboots: true, ..microvm::machine(parts) };
    [
        (microvm(&["isa-serial", "rtc", "pit", "pic"]), &[Way::TripleFault]),
        (microvm(&["isa-serial", "rtc", "pit", "pic", "acpi"]), &[Way::TripleFault]),
        (isapc::machine(Emulator::Installed), &[Way::Port(0x64, 0xfe), Way::TripleFault]),
    ]
}

#[test]
fn a_microvm_and_an_isapc_never_wake() {
    for (machine, ways) in machines_that_cannot_sleep() {
        let mut probe = boot(&machine);
        for way in ways {
            forge_wake(&mut probe);
            way.take(&mut probe);
        }
        assert_eq!((probe.qemu.com1(), probe.qemu.debug_console()), Default::default(), "{machine:?}");
    }
}

/// Where a kernel looks for tables without being told where they are, as far as it is RAM, and the BIOS data area, whose word
/// at 0x40e says where the extended one is.
fn scanned(probe: &mut Probe) -> Vec<(u64, Vec<u8>)> {
    let areas = [(0, 0x500), (0x9_fc00, 0x400), (0xe_0000, 0x2_0000)];
    areas.map(|(at, len)| (at, probe.read(at, len))).to_vec()
}

/// Leaves valid ACPI, SMBIOS and MP tables in each of these areas.
fn leave_tables(probe: &mut Probe) {
    for place in [0x40, 0x9_fc00, 0x9_fe00, 0xf_0000, 0xf_0080, 0xf_8000, 0xf_fe00] {
        let smbios = made::smbios(place + 0x40, TABLES + 0x1000);
        let mp_table = made::mp_table(place + 0x60, TABLES + 0x2000);
        for (at, bytes) in [made::acpi(place, TABLES, 0xb000_0000), smbios, mp_table].concat() {
            probe.write(at, &bytes);
        }
    }
    // An extended BIOS data area elsewhere, with tables.
    probe.write(0x40e, &0x3000_u16.to_le_bytes());
    for (at, bytes) in made::acpi(0x3_0000, TABLES, 0xb000_0000) {
        probe.write(at, &bytes);
    }
}

fn check_tables(machine: &Machine, ways: &[Way]) {
    let mut probe = boot(machine);
    let (first, page) = (scanned(&mut probe), probe.boot_params());
    for way in ways {
        leave_tables(&mut probe);
        way.take(&mut probe);
        assert_eq!(probe.boot_params().0, page.0, "{way:?}: {machine:?}");
        for ((at, first), (_, again)) in first.iter().zip(scanned(&mut probe)) {
            let differs = first.iter().zip(&again).position(|(one, other)| one != other);
            assert_eq!(differs, None, "{at:#x}, {way:?}: {machine:?}");
        }
    }
    assert_eq!((probe.qemu.com1(), probe.qemu.debug_console()), Default::default(), "{machine:?}");
}

#[test]
fn a_kernel_finds_no_tables_of_the_previous_guest() {
    for kind in Kind::ALL {
        for properties in ["", ",acpi=off"] {
            for transport in Transport::ALL {
                check_tables(&Machine { properties, transport, ..Machine::new(kind) }, &WAYS);
            }
        }
        // Where SMBIOS 3 is what a kernel looks for first.
        check_tables(&Machine { properties: ",smbios-entry-point-type=64", ..Machine::new(kind) }, &WAYS[..1]);
    }
    for (machine, ways) in machines_that_cannot_sleep() {
        check_tables(&machine, ways);
    }
}

/// Root of a stock kernel can write the reserved memory below 640 KiB, and Linux looks for an iBFT there. The page tables
/// before it are in use, and completely rewritten at each start.
#[test]
fn reserved_memory_keeps_nothing_of_the_previous_guest() {
    const RESERVED: Range<u64> = 0x8_c000..0xa_0000;
    const LEFT: u8 = b'B';
    // A `pc` without ACPI cannot sleep, and all this is RAM there.
    for (kind, properties) in [(Kind::Q35, ""), (Kind::Q35, ",acpi=off"), (Kind::Pc, "")] {
        for transport in Transport::ALL {
            let machine = Machine { properties, transport, ..Machine::new(kind) };
            let mut probe = boot(&machine);
            for way in WAYS {
                probe.fill(RESERVED, LEFT);
                way.take(&mut probe);
                let after = probe.read(RESERVED.start, (RESERVED.end - RESERVED.start) as usize);
                let left = after.chunks_exact(16).position(|paragraph| paragraph.starts_with(&[LEFT; 4]));
                let at = left.map(|paragraph| format!("{:#x}", RESERVED.start + paragraph as u64 * 16));
                assert_eq!(at, None, "{way:?}: {machine:?}");
            }
        }
    }
}

/// QEMU keeps the high half of a DMA address over a reset. The firmware's first transfer would use a descriptor of the
/// guest's above 4 GiB, and write to any place in memory.
#[test]
fn half_a_dma_address_left_by_a_guest_has_no_effect() {
    for emulator in Emulator::all() {
        for (kind, memory) in [(Kind::Q35, "128M"), (Kind::Pc, "5G")] {
            let mut probe = boot(&Machine { emulator, memory, ..Machine::new(kind) });
            let page = probe.boot_params();
            for way in WAYS {
                probe.out32(0x514, 1_u32.to_be());
                way.take(&mut probe);
                assert_eq!(probe.boot_params().0, page.0, "{way:?}");
            }
            // A transfer that never ends, with the switch to ports, would cause a warning.
            assert_eq!((probe.qemu.com1(), probe.qemu.debug_console()), Default::default());
        }
    }
}

/// Everything that firmware sets on the chipset and on PCI, the interrupt controllers, and the local APIC. Behind the header
/// of a function QEMU keeps what was written to registers that do nothing there.
fn registers(probe: &mut Probe, kind: Kind) -> Vec<u64> {
    let mut values = sleep::registers(probe, kind);
    for bus in 0..2 {
        for (device, function) in (0..32).flat_map(|device| (0..8).map(move |function| (device, function))) {
            if probe.pci([bus, device, function], 0) != u32::MAX {
                let offsets = (0..=0x3c).step_by(4);
                values.extend(offsets.map(|offset| u64::from(probe.pci([bus, device, function], offset))));
            }
        }
    }
    values.extend([0x21, 0xa1, 0x92].map(|port| u64::from(probe.in8(port))));
    values.extend([0x80, 0xf0, 0x350, 0x360].map(|offset| u64::from(probe.read32(0xfee0_0000 + offset))));
    values
}

/// Writes ones and zeros to registers of every function, and to others, as far as the guest can continue without them.
fn scramble(probe: &mut Probe, kind: Kind, pattern: u32) {
    // The functions that the probe needs: the host bridge, whose registers say where memory is, and the way to ISA.
    let needed = match kind {
        Kind::Q35 => [[0, 0, 0], [0, 0x1f, 0]],
        Kind::Pc => [[0, 0, 0], [0, 1, 0]],
    };
    for bus in [1, 0] {
        for (device, function) in (0..32).flat_map(|device| (0..8).map(move |function| (device, function))) {
            let function = [bus, device, function];
            if needed.contains(&function) || probe.pci(function, 0) == u32::MAX {
                continue;
            }
            for offset in (4..=0x7c).step_by(4) {
                probe.set_pci(function, offset, pattern);
            }
        }
    }
    match kind {
        Kind::Q35 => {
            // PCIEXBAR, PMBASE, ACPI_CNTL, the routes of interrupts.
            probe.set_pci([0, 0, 0], 0x60, pattern & 0xf000_0001);
            for offset in [0x40, 0x44, 0x60, 0x68] {
                probe.set_pci([0, 0x1f, 0], offset, pattern);
            }
        }
        Kind::Pc => {
            probe.set_pci([0, 1, 0], 0x60, pattern);
            probe.set_pci([0, 1, 3], 0x40, pattern);
        }
    }
    for (port, value) in [(0x21, 0x5a), (0xa1, 0xa5), (0x4d0, 0xf8), (0x4d1, 0xde), (0x43, 0x34), (0x61, 3)] {
        probe.out8(port, value);
    }
    // The pins stay masked: some would now be a system management interrupt.
    for offset in [0x80, 0x350, 0x360] {
        probe.write(0xfee0_0000 + offset, &(pattern & 0x7ff | 1 << 16).to_le_bytes());
    }
    // Half of an access to configuration space, and to CMOS.
    probe.out32(0xcf8, 0x8000_f8f4);
    probe.out8(0x70, 0x8f);
}

#[test]
fn registers_that_a_guest_wrote_are_reset_to_their_first_values() {
    for kind in Kind::ALL {
        let bridge = match kind {
            Kind::Q35 => "-device pcie-root-port,id=bridge,bus=pcie.0,chassis=1,addr=3",
            Kind::Pc => "-device pci-bridge,id=bridge,chassis_nr=1,addr=3",
        };
        let machine = Machine::new(kind).with(bridge).with("-device virtio-rng-pci,bus=bridge,addr=0");
        let mut probe = boot(&Machine { cpus: 2, ..machine }.with("-device VGA,addr=4"));
        let first = registers(&mut probe, kind);
        for (way, pattern) in WAYS.into_iter().zip([u32::MAX, 0, 0x5555_5555, 0xaaaa_aaaa]) {
            scramble(&mut probe, kind, pattern);
            way.take(&mut probe);
            let again = registers(&mut probe, kind);
            let differ = first.iter().zip(&again).enumerate().filter(|(_, (one, other))| one != other);
            let differ: Vec<_> = differ.map(|(at, (one, other))| (at, *one, *other)).collect();
            assert_eq!((first.len(), &differ[..]), (again.len(), &[][..]), "{kind:?}, {way:?}: {differ:x?}");
        }
        assert_eq!((probe.qemu.com1(), probe.qemu.debug_console()), Default::default());
    }
}

/// The register that decides, as the firmware sees it at a plain reset, at a wake, and at the plain reset of a guest that has
/// left the bit set.
#[test]
fn qemu_sets_wak_sts_at_a_wake_and_clears_it_at_a_reset() {
    for emulator in Emulator::all() {
        for kind in Kind::ALL {
            let machine = Machine { emulator, reboots: true, ..Machine::new(kind) }
                .with("-fw_cfg name=opt/org.firstlight/log,string=debug");
            let mut probe = Probe::boot_noisily(&machine, &BzImage::new(), None, None);
            forge_wake(&mut probe);
            WAYS[0].take(&mut probe);
            forge_wake(&mut probe);
            sleep(&mut probe);
            probe.wait_for_wake();
            forge_wake(&mut probe);
            WAYS[0].take(&mut probe);
            let log = probe.qemu.debug_console();
            let status = |line: &str| line.split_once("PM1 status").map(|(_, rest)| rest[rest.len() - 6..].to_owned());
            assert_eq!(log.lines().filter_map(status).collect::<Vec<_>>(), ["0x0001", "0x8101", "0x0001"], "{log}");
        }
    }
}
