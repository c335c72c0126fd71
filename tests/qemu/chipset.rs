//! The registers of the chipset and the memory types, as a kernel finds them.

use crate::bzimage::BzImage;
use crate::machine::{Accelerator, Emulator, Kind, Machine};
use crate::probe::{E820_RAM, Probe};

fn probe(kind: Kind) -> Probe {
    Probe::boot(&Machine::new(kind), &BzImage::new(), None, None)
}

const HOST_BRIDGE: [u8; 3] = [0, 0, 0];
/// q35: the LPC bridge.
const LPC: [u8; 3] = [0, 0x1f, 0];
/// pc: the ISA bridge, and power management.
const PIIX3: [u8; 3] = [0, 1, 0];
const PIIX4_PM: [u8; 3] = [0, 1, 3];

/// PIRQA to PIRQD at interrupts 10, 10, 11 and 11.
const ROUTES: u32 = 0x0b0b_0a0a;

#[test]
fn power_management_is_enabled() {
    let mut q35 = probe(Kind::Q35);
    assert_eq!(q35.pci(LPC, 0x40) & 0xffff, 0x601, "PMBASE");
    assert_eq!(q35.pci(LPC, 0x44) & 0xff, 0x80, "ACPI_CNTL: on, SCI at interrupt 9");
    let mut pc = probe(Kind::Pc);
    assert_eq!(pc.pci(PIIX4_PM, 0x40) & 0xffff, 0x601, "PMBA");
    assert_eq!(pc.pci(PIIX4_PM, 0x80) & 1, 1, "PMREGMISC");
    assert_eq!(pc.pci(PIIX4_PM, 0x3c) & 0xff, 9, "the SCI");
    for mut probe in [q35, pc] {
        // The timer's port answers, and it counts.
        let start = probe.in32(0x608);
        assert!((0..1000).any(|_| probe.in32(0x608) != start));
    }
}

#[test]
fn memory_mapped_configuration_space_is_enabled_and_reserved() {
    let mut probe = probe(Kind::Q35);
    assert_eq!([probe.pci(HOST_BRIDGE, 0x60), probe.pci(HOST_BRIDGE, 0x64)], [0xb000_0001, 0], "PCIEXBAR");
    assert_eq!(probe.read(0xb000_0000, 4), 0x29c0_8086_u32.to_le_bytes(), "the host bridge's numbers");
    let map = probe.boot_params().e820();
    let whole = |entry: &crate::probe::E820| (entry.start, entry.end, entry.kind) == (0xb000_0000, 0xc000_0000, 2);
    assert!(map.iter().any(whole), "{map:x?}");
}

#[test]
fn pci_interrupts_are_routed_and_level_triggered() {
    let mut q35 = probe(Kind::Q35);
    assert_eq!([q35.pci(LPC, 0x60), q35.pci(LPC, 0x68)], [ROUTES; 2]);
    let mut pc = probe(Kind::Pc);
    assert_eq!(pc.pci(PIIX3, 0x60), ROUTES);
    for mut probe in [q35, pc] {
        assert_eq!([probe.in8(0x4d0), probe.in8(0x4d1)], [0, 0x0c], "edge/level control");
    }
}

/// A kernel that knows of no local APIC gets the interrupts of the PIC.
#[test]
fn the_pic_is_wired_to_the_boot_cpu() {
    for kind in Kind::ALL {
        let mut probe = probe(kind);
        let registers = [0xf0, 0x350, 0x360].map(|register| probe.read32(0xfee0_0000 + register));
        assert_eq!(registers, [0x1ff, 0x700, 0x400], "on, from the PIC, NMI");
    }
}

/// It really is enabled: all memory above 1 MiB can be used.
#[test]
fn port_0x92_reports_address_line_20_as_enabled() {
    for kind in Kind::ALL {
        let mut probe = probe(kind);
        assert_eq!(probe.in32(0x92) & 0xff, 1 << 1, "{kind:?}");
        probe.fill(0x10_0000..0x10_0008, 0x5a);
        probe.fill(0x20_0000..0x20_0008, 0xa5);
        assert_eq!(probe.read(0x10_0000, 8), [0x5a; 8]);
    }
}

#[test]
fn the_f_segment_is_ram() {
    for (kind, pam0) in [(Kind::Q35, 0x90), (Kind::Pc, 0x59)] {
        let mut probe = probe(kind);
        let value = probe.pci(HOST_BRIDGE, pam0) >> (8 * (pam0 % 4)) & 0xff;
        assert_eq!(value & 0x30, 0x30, "PAM0 {value:#x}");
        probe.fill(0xf_fff0..0xf_fff8, 0x5a);
        assert_eq!(probe.read(0xf_fff0, 8), [0x5a; 8]);
    }
}

#[test]
fn the_ide_channels_of_a_pc_decode() {
    assert_eq!(probe(Kind::Pc).pci([0, 1, 1], 0x40) & 0x8000_8000, 0x8000_8000);
}

/// Returns a function that says whether an address below 4 GiB is in an uncached variable range (Intel SDM volume 3, 12.11.2.3).
fn uncached(probe: &mut Probe) -> impl Fn(u64) -> bool + use<> {
    let ranges: Vec<_> = (0..8).map(|i| (probe.read_msr(0x200 + 2 * i), probe.read_msr(0x201 + 2 * i))).collect();
    move |address: u64| {
        let inside = |&(base, mask): &(u64, u64)| mask & 0x800 != 0 && address & mask & !0xfff == base & mask & !0xfff;
        ranges.iter().filter(|range| inside(range)).any(|(base, _)| base & 0xff == 0)
    }
}

/// RAM of a `pc` ends at any MiB up to 3.5 GiB.
#[test]
fn all_ram_is_cached_and_pci_is_not_wherever_ram_ends() {
    for (memory, mib) in [("3072M", 3072_u64), ("3073M", 3073), ("3330M", 3330), ("3583M", 3583)] {
        let machine = Machine { memory, ..Machine::new(Kind::Pc) }.with("-device virtio-rng-pci,addr=5");
        let mut probe = Probe::boot(&machine, &BzImage::new(), None, None);
        let uncached = uncached(&mut probe);
        let registers = u64::from(probe.pci([0, 5, 0], 0x20) & !0xf);
        assert!(!uncached((mib << 20) - 1) && !uncached((mib << 20) - 0x20_0000), "{memory}: RAM");
        assert!(
            registers >= mib << 20 && [registers, 0xfec0_0000].into_iter().all(&uncached),
            "{memory}: {registers:#x}"
        );
    }
}

/// The memory types of the fixed ranges (Intel SDM volume 3, table 12-9).
fn check_memory_types(probe: &mut Probe) {
    assert_eq!(probe.read_msr(0x2ff), 0xc06, "MTRRs and fixed ranges on, all else write-back");
    assert_eq!([0x250, 0x258].map(|register| probe.read_msr(register)), [0x0606_0606_0606_0606; 2], "0 to 640 KiB");
    assert_eq!(probe.read_msr(0x259), 0, "video memory");
    for register in 0x268..=0x26f {
        assert_eq!(probe.read_msr(register), 0x0505_0505_0505_0505, "{register:#x}");
    }
    // The space of devices below 4 GiB, which begins where RAM can end.
    for (address, expected) in [
        (0xfee0_0000, UNCACHED),
        (0xc000_0000, UNCACHED),
        (0x10_0000, WRITE_BACK),
        (0x7ff_f000, WRITE_BACK),
        (1 << 32, WRITE_BACK),
    ] {
        assert_eq!(memory_type(probe, address), expected, "{address:#x}");
    }
}

/// Memory types (Intel SDM volume 3, table 12-8).
const UNCACHED: u64 = 0;
const WRITE_BACK: u64 = 6;

/// The memory type of an address from 1 MiB on: that of the range it is in, else the default.
fn memory_type(probe: &mut Probe, address: u64) -> u64 {
    let ranges: Vec<_> = (0..8).map(|i| (probe.read_msr(0x200 + 2 * i), probe.read_msr(0x201 + 2 * i))).collect();
    let inside = |&&(base, mask): &&(u64, u64)| mask & 0x800 != 0 && address & mask & !0xfff == base & mask & !0xfff;
    ranges.iter().find(inside).map_or_else(|| probe.read_msr(0x2ff), |(base, _)| *base) & 0xff
}

#[test]
fn memory_types_are_set() {
    for kind in Kind::ALL {
        check_memory_types(&mut probe(kind));
    }
}

/// Boards that the firmware does not know, with RAM that ends where the device space begins, and elsewhere.
#[test]
fn memory_types_are_set_on_machines_without_a_known_chipset() {
    for emulator in Emulator::all() {
        for arguments in ["-machine microvm", "-machine microvm,acpi=off,pcie=on", "-machine isapc -cpu qemu64"] {
            for memory in ["128M", "2047M", "3G"] {
                let machine = Machine { emulator, memory, ..Machine::new(Kind::Pc) }.with(arguments);
                let mut probe = Probe::boot(&machine, &BzImage::new(), None, None);
                check_memory_types(&mut probe);
                let end =
                    probe.boot_params().e820().iter().filter(|e| e.kind == E820_RAM).map(|e| e.end).max().unwrap();
                assert_eq!(memory_type(&mut probe, end - 1), WRITE_BACK, "{arguments}, {memory}");
                // Where their virtio devices and interrupt controllers are.
                for device in [0xfeb0_0000, 0xfec0_0000, 0xfee0_0000] {
                    assert_eq!(memory_type(&mut probe, device), UNCACHED, "{arguments}, {memory}: {device:#x}");
                }
            }
        }
    }
}

#[test]
fn memory_types_are_set_under_kvm() {
    let Some(accelerator) = Accelerator::kvm() else { return };
    let microvm = Machine::new(Kind::Pc).with("-machine microvm");
    for machine in Kind::ALL.map(Machine::new).into_iter().chain([microvm]) {
        let machine = Machine { accelerator, ..machine };
        check_memory_types(&mut Probe::boot(&machine, &BzImage::new(), None, None));
    }
}
