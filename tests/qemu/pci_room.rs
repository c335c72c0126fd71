//! PCI beyond addresses: room for hot-plug, warnings when room is short, and which functions are enabled.

use crate::bzimage::BzImage;
use crate::machine::{Kind, Machine};
use crate::pci::{COMMAND_IO, COMMAND_MEMORY, boot, windows, windows_as_read};
use crate::probe::Probe;
use crate::script;

/// The sizes of a bridge's windows: ports, memory, prefetchable memory.
fn sizes(probe: &mut Probe, function: [u8; 3]) -> [u64; 3] {
    windows(probe, function).map(|window| window.end - window.start)
}

#[test]
fn empty_slots_have_room_and_bridges_have_what_the_host_asks_to_reserve() {
    const MIB: u64 = 1 << 20;
    let mut q35 = boot(
        &Machine::new(Kind::Q35)
            .with("-device pcie-root-port,addr=2,chassis=1")
            .with(
                "-device pcie-root-port,addr=3,chassis=2,bus-reserve=3,io-reserve=8K,mem-reserve=20M,pref64-reserve=8G",
            )
            .with("-device pcie-root-port,addr=4,chassis=3,pref32-reserve=64M")
            .with("-device pcie-root-port,addr=5,chassis=4,id=a -device x3130-upstream,bus=a,id=b")
            .with("-device xio3130-downstream,bus=b,chassis=5 -device xio3130-downstream,bus=b,chassis=6"),
    );
    assert_eq!(sizes(&mut q35, [0, 2, 0]), [0, 2 * MIB, 2 * MIB]);
    assert_eq!(sizes(&mut q35, [0, 3, 0]), [0x2000, 20 * MIB, 8192 * MIB]);
    let [_, _, prefetchable] = windows(&mut q35, [0, 4, 0]);
    assert!(prefetchable.end - prefetchable.start == 64 * MIB && prefetchable.end <= 1 << 32, "{prefetchable:x?}");
    // Two empty ports of the switch.
    assert_eq!(sizes(&mut q35, [0, 5, 0]), [0, 4 * MIB, 4 * MIB]);
    let numbers = [2, 3, 4].map(|device| q35.pci([0, device, 0], 0x18) & 0xff_ffff);
    assert_eq!(numbers, [0x01_0100, 0x05_0200, 0x06_0600]);

    let mut pc = boot(
        &Machine::new(Kind::Pc)
            .with("-device pci-bridge,addr=3,chassis_nr=1 -device pci-bridge,addr=4,chassis_nr=2,shpc=off")
            .with("-device pci-bridge,addr=5,chassis_nr=3,mem-reserve=32M,pref64-reserve=1G"),
    );
    assert_eq!(sizes(&mut pc, [0, 3, 0]), [0x1000, 2 * MIB, 2 * MIB]);
    assert_eq!(sizes(&mut pc, [0, 4, 0]), [0; 3], "nothing can be plugged in there");
    assert_eq!(sizes(&mut pc, [0, 5, 0]), [0x1000, 32 * MIB, 1024 * MIB]);
}

/// After a reset they read as ports 0 to 0xfff and memory 0 to 0xfffff.
#[test]
fn unused_bridges_have_closed_windows() {
    let mut q35 = boot(
        &Machine::new(Kind::Q35)
            .with("-device i82801b11-bridge,addr=2")
            .with("-device pcie-root-port,addr=3,chassis=1,id=a -device x3130-upstream,bus=a"),
    );
    for function in [[0, 2, 0], [2, 0, 0]] {
        assert_eq!(q35.pci(function, 4) & 7, 0, "{function:x?} is not turned on");
        assert_eq!(windows_as_read(&mut q35, function), [0..0, 0..0, 0..0], "{function:x?}");
    }
    let mut pc = boot(&Machine::new(Kind::Pc).with("-device pci-bridge,addr=4,chassis_nr=2,shpc=off"));
    assert_eq!(windows_as_read(&mut pc, [0, 4, 0]), [0..0, 0..0, 0..0]);
}

/// The firmware's warnings on `machine`, which has too little room, and the probe.
fn shortage(machine: &Machine) -> (Vec<String>, Probe) {
    let probe = Probe::boot_noisily(machine, &BzImage::new(), None, None);
    (probe.qemu.com1().lines().map(str::to_owned).collect(), probe)
}

#[test]
fn a_bar_beyond_the_cpus_address_bits_causes_a_warning_and_the_boot_continues() {
    let machine = Machine::new(Kind::Q35).with(
        "-device pci-testdev,membar=1T,addr=2 -device pci-testdev,membar=8G,addr=3 -device virtio-rng-pci,addr=4",
    );
    let (said, mut probe) = shortage(&machine);
    let expected = "firstlight: warning: PCI: not enough 64-bit memory: 1 BAR(s) get none, the first is BAR 2 of 00:02.0 with \
                    0x10000000000; give the devices less memory or";
    assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
    // A function with addresses decodes, one without does not.
    assert_eq!([2, 3].map(|device| probe.pci([0, device, 0], 0x1c)), [0, 2], "bits 63:32");
    assert_eq!([2, 3].map(|device| probe.pci([0, device, 0], 4) & 3), [COMMAND_IO, COMMAND_IO | COMMAND_MEMORY]);
    assert_eq!(probe.pci([0, 4, 0], 4) & COMMAND_MEMORY, COMMAND_MEMORY);
    // The advice helps.
    boot(&machine.with("-cpu qemu64,phys-bits=42"));
}

/// More address bits would not help here, so the warning does not ask for them.
#[test]
fn the_warning_for_bars_that_cannot_be_above_4_gib_suggests_smaller_devices() {
    let machine = Machine::new(Kind::Q35)
        .with("-device pcie-root-port,id=a,chassis=1,pref32-reserve=64M -device pci-testdev,membar=4G,bus=a");
    let (said, _) = shortage(&machine);
    let expected = "firstlight: warning: PCI: not enough memory below 4 GiB: 1 BAR(s) get none, the first is BAR 2 of 01:00.0 \
                    with 0x100000000; use fewer or smaller devices";
    assert!(said.iter().any(|line| line.starts_with(expected)), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("-cpu")), "{said:?}");
}

#[test]
fn a_lack_of_ports_is_one_warning_and_devices_keep_their_memory() {
    let mut machine = Machine::new(Kind::Q35);
    for number in 1..=16 {
        machine = machine.with(&format!("-device pcie-root-port,id=p{number},chassis={number},addr={number:x}"));
        machine = machine.with(&format!("-device pci-testdev,bus=p{number}"));
    }
    let (said, mut probe) = shortage(&machine);
    // There are 15 blocks of ports; one is for what is on bus 0.
    let expected = "firstlight: warning: PCI: not enough I/O ports: 2 BAR(s) get none, the first is BAR 1 of 0f:00.0";
    assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
    for bus in 1..=16 {
        let ports = probe.pci([bus, 0, 0], 0x14) & !3;
        let decodes = probe.pci([bus, 0, 0], 4) & 3;
        let expected = if bus <= 14 { (true, COMMAND_IO | COMMAND_MEMORY) } else { (false, COMMAND_MEMORY) };
        assert_eq!((ports != 0, decodes), expected, "bus {bus}: ports at {ports:#x}");
    }
}

#[test]
fn empty_slots_lose_their_ports_before_devices_do() {
    let mut machine = Machine::new(Kind::Pc);
    for number in 1..=12 {
        machine = machine.with(&format!("-device pci-bridge,id=b{number},chassis_nr={number}"));
    }
    for number in [10, 11, 12] {
        machine = machine.with(&format!("-device pci-testdev,bus=b{number},addr=1"));
    }
    let (said, mut probe) = shortage(&machine);
    // There are 9 blocks of ports; one is for what is on bus 0.
    let expected =
        "firstlight: warning: PCI: no I/O ports reserved for hot plug behind 4 bridge(s); present devices come first";
    assert_eq!(said, [expected]);
    assert!([10, 11, 12].iter().all(|&bus| probe.pci([bus, 1, 0], 0x14) & !3 != 0));
}

/// A kernel that enables nothing can read a virtio device's registers, as under SeaBIOS.
#[test]
fn all_functions_decode_except_the_chipsets() {
    let mut pc = boot(&Machine::new(Kind::Pc).with("-device virtio-rng-pci,addr=5"));
    let ports = pc.pci([0, 5, 0], 0x10) & !3;
    assert_eq!(pc.in32(ports as u16 + LEGACY_QUEUE_SIZE) & 0xffff, 8, "the size of its queue");
    check_common_registers(&mut pc, [0, 5, 0]);
    let mut q35 = boot(&Machine { memory: "6G", ..Machine::new(Kind::Q35) }.with(
        "-device virtio-rng-pci,addr=5 -device pcie-root-port,id=a,chassis=1,addr=6 -device virtio-rng-pci,bus=a",
    ));
    check_common_registers(&mut q35, [0, 5, 0]);
    check_common_registers(&mut q35, [1, 0, 0]);
    // Enabling each would make the host rebuild its memory map, and its driver enables it anyway.
    for (probe, own) in [(&mut pc, [[0, 1, 1], [0, 1, 3]]), (&mut q35, [[0, 0x1f, 2], [0, 0x1f, 3]])] {
        assert_eq!(own.map(|function| probe.pci(function, 4) & (COMMAND_IO | COMMAND_MEMORY)), [0; 2]);
    }
}

/// Virtio 1.2, section 4.1.4.10: the size of the selected queue, in the legacy registers.
const LEGACY_QUEUE_SIZE: u16 = 0xc;
/// Virtio 1.2, section 4.1.4.3: the number of queues, in the common registers, which QEMU has at the start of BAR 4.
const COMMON_QUEUES: u64 = 0x12;

fn check_common_registers(probe: &mut Probe, function: [u8; 3]) {
    let [low, high] = [0x20, 0x24].map(|at| u64::from(probe.pci(function, at)));
    assert_eq!(low & 0xf, 0xc, "a 64-bit prefetchable register");
    assert_eq!(probe.read(high << 32 | low & !0xf | COMMON_QUEUES, 2), [1, 0], "{function:x?}: its one queue");
}
/// As lspci shows it under SeaBIOS, and readable once it is enabled.
#[test]
fn linux_finds_an_expansion_rom_with_an_address() {
    let machine = Machine::new(Kind::Q35).with("-device pcie-root-port,id=a,chassis=1 -device e1000e,bus=a");
    let printed = script::run(
        &machine,
        "lspci -v -s 01:00.0 2>/dev/null | grep 'Expansion ROM'
         rom=/sys/bus/pci/devices/0000:01:00.0/rom
         echo 1 >$rom && head -c 2 $rom | hexdump -v -e '1/1 \"%02x\"'",
    );
    let lines: Vec<_> = printed.lines().map(str::trim).collect();
    let [rom, content] = lines[..] else { panic!("{printed}") };
    assert!(rom.starts_with("Expansion ROM at c") && rom.ends_with(" [disabled] [size=256K]"), "{rom}");
    assert_eq!(content, "55aa", "what a ROM begins with");
}
