//! The addresses of PCI functions and bridges.

use std::ops::Range;

use crate::bzimage::BzImage;
use crate::machine::{Kind, Machine};
use crate::probe::{E820_RAM, Probe};

/// The command register: decode ports, decode memory.
pub const COMMAND_IO: u32 = 1 << 0;
pub const COMMAND_MEMORY: u32 = 1 << 1;

/// Classes whose BARs have no meaning: host and ISA bridges. Some BARs of IDE channels at their legacy ports have none either.
const CLASSES_WITHOUT: [u32; 2] = [0x0600, 0x0601];
const CLASS_IDE: u32 = 0x0101;

/// The address bits of an expansion ROM's register.
const ROM_ADDRESS: u32 = 0xffff_f800;

/// How many bits of an address QEMU's default CPU has.
const PHYSICAL_BITS: u32 = 40;

/// What a base address register stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    Ports,
    Memory,
    Prefetchable,
}

/// The room of a bus: the windows of the bridge above it. The root bus has everything.
#[derive(Clone, Debug)]
struct Room {
    ports: Range<u64>,
    memory: Range<u64>,
    prefetchable: Range<u64>,
}

impl Room {
    fn takes(&self, space: Space, range: &Range<u64>) -> bool {
        let inside = |window: &Range<u64>| window.start <= range.start && range.end <= window.end;
        match space {
            Space::Ports => inside(&self.ports),
            Space::Memory => inside(&self.memory),
            // A bridge may also pass it on through its other window.
            Space::Prefetchable => inside(&self.prefetchable) || inside(&self.memory),
        }
    }
}

/// A look at everything there is.
struct Walk<'p> {
    probe: &'p mut Probe,
    /// The assigned ranges, with the function that each belongs to.
    given: Vec<([u8; 3], Space, Range<u64>)>,
    /// The numbers of buses that were found.
    buses: Vec<u8>,
    /// Vendor and device numbers that were found, the vendor in the low half.
    ids: Vec<u32>,
    /// How many expansion ROMs were found.
    roms: usize,
}

impl Walk<'_> {
    /// Checks `bus` and everything behind it.
    fn bus(&mut self, bus: u8, room: &Room) {
        assert!(!self.buses.contains(&bus), "two buses have the number {bus}");
        self.buses.push(bus);
        for device in 0..32 {
            for number in 0..8 {
                let function = [bus, device, number];
                let id = self.probe.pci(function, 0);
                if id == u32::MAX && number == 0 {
                    break;
                }
                if id != u32::MAX {
                    self.ids.push(id);
                    self.function(function, room);
                }
                let several = self.probe.pci([bus, device, 0], 0x0c) >> 16 & 0x80 != 0;
                if !several {
                    break;
                }
            }
        }
    }

    fn function(&mut self, function: [u8; 3], room: &Room) {
        let class = self.probe.pci(function, 0x08) >> 16;
        let is_bridge = self.probe.pci(function, 0x0c) >> 16 & 0x7f == 1;
        let mut register = if class == CLASS_IDE { 4 } else { 0 };
        let count = if is_bridge { 2 } else { 6 };
        let command = self.probe.pci(function, 0x04) & 0xffff;
        self.probe.set_pci(function, 0x04, command & !(COMMAND_IO | COMMAND_MEMORY));
        while register < count && !CLASSES_WITHOUT.contains(&class) {
            register += self.base_address(function, register, room);
        }
        if !is_bridge {
            self.rom(function, room);
        }
        self.probe.set_pci(function, 0x04, command);
        let [line, pin, ..] = self.probe.pci(function, 0x3c).to_le_bytes();
        assert!(pin == 0 || (9..=11).contains(&line), "{function:x?}: pin {pin} has the interrupt line {line}");
        if is_bridge {
            self.bridge(function, room);
        }
    }

    /// Checks one BAR; returns how many registers it takes.
    fn base_address(&mut self, function: [u8; 3], register: u8, room: &Room) -> u8 {
        let at = 0x10 + 4 * register;
        let value = self.probe.pci(function, at);
        let is_wide = value & 0b111 == 0b100;
        let mut probed = |at| {
            let value = self.probe.pci(function, at);
            self.probe.set_pci(function, at, u32::MAX);
            let mask = self.probe.pci(function, at);
            self.probe.set_pci(function, at, value);
            (value, mask)
        };
        let (low, mask) = probed(at);
        let (high, high_mask) = if is_wide { probed(at + 4) } else { (0, u32::MAX) };
        let taken = if is_wide { 2 } else { 1 };
        if mask == 0 {
            return taken;
        }
        let (space, flags) = match value {
            _ if value & 1 != 0 => (Space::Ports, 0x3),
            _ if value & 8 != 0 => (Space::Prefetchable, 0xf),
            _ => (Space::Memory, 0xf),
        };
        let wide = |high, low: u32| u64::from(high) << 32 | u64::from(low & !flags);
        let start = wide(high, low);
        // A function may leave the upper half of a port's register zero.
        let size = match space {
            Space::Ports => u64::from((mask & !flags | 0xffff_0000).wrapping_neg()),
            _ => wide(high_mask, mask).wrapping_neg(),
        };
        let name = format!("{function:x?} register {at:#x}, {space:?} of {size:#x} bytes at {start:#x}");
        eprintln!("{name}");
        assert_ne!(start, 0, "{name}: no address");
        assert_eq!(start % size, 0, "{name}: not aligned");
        let range = start..start + size;
        assert!(room.takes(space, &range), "{name}: not passed on by the bridge, {room:x?}");
        self.give(function, space, range);
        taken
    }

    /// Checks the expansion ROM, if there is one: it has an address and does not decode.
    fn rom(&mut self, function: [u8; 3], room: &Room) {
        let value = self.probe.pci(function, 0x30);
        self.probe.set_pci(function, 0x30, ROM_ADDRESS);
        let mask = self.probe.pci(function, 0x30) & ROM_ADDRESS;
        self.probe.set_pci(function, 0x30, value);
        if mask != 0 {
            let start = u64::from(value);
            let range = start..start + u64::from(mask.wrapping_neg());
            eprintln!("{function:x?} ROM {range:x?}");
            assert!(start != 0 && value & !mask == 0, "{function:x?}: ROM at {value:#x}, mask {mask:#x}");
            assert!(room.takes(Space::Memory, &range), "{function:x?}: {range:x?} is not passed on, {room:x?}");
            self.give(function, Space::Memory, range);
            self.roms += 1;
        }
    }

    /// Notes what `function` has, and checks that no other has any of it.
    fn give(&mut self, function: [u8; 3], space: Space, range: Range<u64>) {
        for (other, other_space, taken) in &self.given {
            let same = (space == Space::Ports) == (*other_space == Space::Ports);
            let apart = range.end <= taken.start || taken.end <= range.start;
            assert!(!same || apart, "{function:x?} has {range:x?}, {other:x?} has {taken:x?}");
        }
        self.given.push((function, space, range));
    }

    /// Checks a bridge's windows, and looks behind it.
    fn bridge(&mut self, function: [u8; 3], room: &Room) {
        let numbers = self.probe.pci(function, 0x18);
        let [primary, secondary, subordinate, _] = numbers.to_le_bytes();
        assert_eq!(primary, function[0], "{function:x?}");
        assert!(function[0] < secondary && secondary <= subordinate, "{function:x?}: {numbers:#x}");
        let [ports, memory, prefetchable] = windows(self.probe, function);
        let inner = Room { ports, memory, prefetchable };
        eprintln!("{function:x?} to bus {secondary}: {inner:x?}");
        let windows =
            [(Space::Ports, &inner.ports), (Space::Memory, &inner.memory), (Space::Prefetchable, &inner.prefetchable)];
        for (space, window) in windows {
            assert!(window.is_empty() || room.takes(space, window), "{function:x?}: {space:?} {window:x?}");
        }
        // Only functions behind it may have these addresses.
        let outside = std::mem::take(&mut self.given);
        self.bus(secondary, &inner);
        assert!(self.buses.iter().all(|&bus| bus <= subordinate), "{:?} behind {function:x?}", self.buses);
        self.given = outside;
        for (space, window) in windows {
            if !window.is_empty() {
                self.give(function, space, window.clone());
            }
        }
    }
}

pub fn boot(machine: &Machine) -> Probe {
    Probe::boot(machine, &BzImage::new(), None, None)
}

/// What a walk found.
pub struct Found {
    ids: Vec<u32>,
    buses: usize,
    roms: usize,
    /// The lowest address above 4 GiB that a function has.
    lowest_high: Option<u64>,
}

/// Boots `machine` and checks everything.
pub fn check(machine: &Machine) -> Found {
    check_roots(machine, &[0], PHYSICAL_BITS)
}

/// As [`check`], for a machine with these root buses whose CPU's addresses have so many bits.
fn check_roots(machine: &Machine, roots: &[u8], bits: u32) -> Found {
    let mut probe = boot(machine);
    let addresses = 0..1 << bits;
    let everything = Room { ports: 0x1000..0x1_0000, memory: addresses.clone(), prefetchable: addresses };
    let map = probe.boot_params().e820();
    let mut walk = Walk { probe: &mut probe, given: Vec::new(), buses: Vec::new(), ids: Vec::new(), roms: 0 };
    for entry in map {
        // No function may have an address with another known use.
        let kind = if entry.kind == E820_RAM { "RAM" } else { "reserved memory" };
        eprintln!("{kind} {:#x} to {:#x}", entry.start, entry.end);
        walk.given.push(([u8::MAX; 3], Space::Memory, entry.start..entry.end));
    }
    for &root in roots {
        walk.bus(root, &everything);
    }
    let of_functions =
        walk.given.iter().filter(|(function, space, _)| *function != [u8::MAX; 3] && *space != Space::Ports);
    let lowest_high = of_functions.map(|(_, _, range)| range.start).filter(|&start| start >= 1 << 32).min();
    Found { ids: walk.ids, buses: walk.buses.len(), roms: walk.roms, lowest_high }
}

/// The numbers of QEMU's test device, and of a virtio random number generator.
const TEST_DEVICE: u32 = 0x0005_1b36;
const VIRTIO_RNG: u32 = 0x1044_1af4;
const E1000: u32 = 0x100e_8086;
const E1000E: u32 = 0x10d3_8086;

#[test]
fn functions_on_the_root_bus_have_addresses() {
    for kind in Kind::ALL {
        let Found { ids, .. } =
            check(&Machine::new(kind).with("-device e1000e -device pci-testdev,membar=16M -device virtio-rng"));
        assert!(ids.contains(&E1000E) && ids.contains(&TEST_DEVICE), "{ids:x?}");
    }
}

#[test]
fn functions_behind_bridges_have_addresses_inside_their_windows() {
    let q35 = Machine::new(Kind::Q35)
        .with("-device pcie-root-port,id=a,chassis=1 -device virtio-rng-pci,bus=a")
        .with("-device pcie-root-port,id=b,chassis=2 -device e1000e,bus=b")
        .with("-device pcie-root-port,id=c,chassis=3 -device x3130-upstream,bus=c,id=d")
        .with("-device xio3130-downstream,bus=d,id=e,chassis=4 -device virtio-rng-pci,bus=e")
        .with("-device xio3130-downstream,bus=d,id=f,chassis=5 -device pci-testdev,bus=f,membar=64M")
        .with("-device pcie-root-port,id=g,chassis=6");
    let Found { ids, buses, .. } = check(&q35);
    assert_eq!(buses, 8, "four root ports, a switch with two ports");
    assert_eq!(ids.iter().filter(|&&id| id == VIRTIO_RNG).count(), 2, "{ids:x?}");
    assert!(ids.contains(&TEST_DEVICE) && ids.contains(&E1000E), "{ids:x?}");

    let pc = Machine::new(Kind::Pc)
        .with("-device pci-bridge,id=a,chassis_nr=1 -device e1000,bus=a,addr=1")
        .with("-device pci-bridge,id=b,chassis_nr=2,bus=a,addr=2 -device pci-testdev,bus=b,addr=3,membar=64M");
    let Found { ids, buses, .. } = check(&pc);
    assert_eq!(buses, 3);
    assert!(ids.contains(&TEST_DEVICE), "{ids:x?}");
}

#[test]
fn functions_behind_conventional_bridges_of_pci_express_machines_have_addresses() {
    let machine = Machine::new(Kind::Q35)
        .with("-device pcie-root-port,id=a,chassis=1 -device pcie-pci-bridge,id=b,bus=a")
        .with("-device e1000,bus=b,addr=3 -device pci-bridge,id=c,bus=b,addr=1,chassis_nr=2")
        .with("-device pci-testdev,bus=c,addr=7,membar=16M")
        .with("-device i82801b11-bridge,id=d,addr=1e -device virtio-rng-pci,bus=d,addr=1,disable-legacy=on");
    let Found { ids, buses, .. } = check(&machine);
    assert_eq!(buses, 5);
    assert!([E1000, TEST_DEVICE, VIRTIO_RNG].iter().all(|id| ids.contains(id)), "{ids:x?}");
}

/// The windows that a bridge passes on: ports, memory, prefetchable memory.
pub fn windows(probe: &mut Probe, function: [u8; 3]) -> [Range<u64>; 3] {
    let command = probe.pci(function, 0x04);
    let [ports, memory, prefetchable] = windows_as_read(probe, function);
    let decoded = |bit: u32, window| if command & bit == 0 { 0..0 } else { window };
    [decoded(COMMAND_IO, ports), decoded(COMMAND_MEMORY, memory), decoded(COMMAND_MEMORY, prefetchable)]
}

/// The same by the registers of the windows alone.
pub fn windows_as_read(probe: &mut Probe, function: [u8; 3]) -> [Range<u64>; 3] {
    let window = |base: u64, limit: u64| if base > limit { 0..0 } else { base..limit + 1 };
    let io = u64::from(probe.pci(function, 0x1c));
    let ports = window((io & 0xf0) << 8, (io & 0xf000) | 0xfff);
    let memory = u64::from(probe.pci(function, 0x20));
    let memory = window((memory & 0xfff0) << 16, memory & 0xfff0_0000 | 0xf_ffff);
    let low = u64::from(probe.pci(function, 0x24));
    let [base, limit] = [0x28, 0x2c].map(|at| u64::from(probe.pci(function, at)) << 32);
    [ports, memory, window(base | (low & 0xfff0) << 16, limit | low & 0xfff0_0000 | 0xf_ffff)]
}

#[test]
fn expander_buses_are_set_up_at_any_bus_number() {
    let q35 = Machine::new(Kind::Q35)
        .with("-device pxb-pcie,id=x,bus_nr=200,bus=pcie.0 -device pxb-pcie,id=y,bus_nr=20,bus=pcie.0")
        .with("-device pcie-root-port,id=a,bus=x,chassis=1,addr=a -device pci-testdev,bus=a,membar=64M")
        .with("-device pcie-root-port,id=b,bus=y,chassis=2 -device virtio-rng-pci,bus=b")
        .with("-device pcie-root-port,id=c,bus=pcie.0,chassis=3 -device e1000e,bus=c");
    let Found { ids, buses, .. } = check_roots(&q35, &[0, 20, 200], PHYSICAL_BITS);
    assert_eq!(buses, 6);
    assert!([VIRTIO_RNG, TEST_DEVICE, E1000E].iter().all(|id| ids.contains(id)), "{ids:x?}");
    let pc = Machine::new(Kind::Pc)
        .with("-device pxb,id=x,bus_nr=7,bus=pci.0 -device pxb,id=y,bus_nr=3,bus=pci.0 -device pci-bridge,id=a,bus=x,addr=4,chassis_nr=9")
        .with("-device e1000,bus=a,addr=3 -device pci-testdev,bus=y,addr=5,membar=64M");
    let Found { ids, buses, .. } = check_roots(&pc, &[0, 3, 7], PHYSICAL_BITS);
    assert_eq!(buses, 6, "each has a bridge of its own");
    assert!([TEST_DEVICE, E1000].iter().all(|id| ids.contains(id)), "{ids:x?}");
}

#[test]
fn an_empty_expander_bus_does_not_stop_the_boot() {
    let machine = Machine::new(Kind::Q35).with("-device pxb-pcie,bus_nr=20");
    let probe = Probe::boot_noisily(&machine, &BzImage::new(), None, None);
    let warning = "firstlight: warning: PCI: 1 of the host's 1 extra root buses were not found";
    assert_eq!(probe.qemu.com1().matches(warning).count(), 1, "{}", probe.qemu.com1());
    assert_eq!(probe.qemu.com1().lines().count(), 1);
}

#[test]
fn a_device_with_more_memory_than_fits_below_4_gib_is_placed_above() {
    for (kind, memory) in [(Kind::Q35, "128M"), (Kind::Pc, "6G")] {
        let machine = Machine { memory, ..Machine::new(kind) };
        check(&machine.with("-device pci-testdev,membar=8G -device pci-testdev,membar=1G"));
    }
}

#[test]
fn large_devices_are_placed_above_4_gib_and_above_the_room_for_memory() {
    let machine = Machine { memory: "128M,maxmem=16G,slots=2", ..Machine::new(Kind::Q35) }
        .with("-object memory-backend-ram,id=m,size=2G -device ivshmem-plain,memdev=m,addr=2")
        .with("-object memory-backend-ram,id=n,size=4G -device pcie-root-port,id=a,chassis=1,addr=3")
        .with("-device ivshmem-plain,memdev=n,bus=a -device pcie-root-port,id=b,chassis=2,addr=4")
        .with("-device pci-testdev,bus=b,membar=32G -device pci-testdev,membar=2G,addr=5");
    let Found { lowest_high, .. } = check(&machine);
    let lowest = lowest_high.expect("something above 4 GiB");
    assert!(lowest >= (4 << 30) + (16 << 30), "{lowest:#x} is where memory can be plugged in");
}

/// QEMU reserves the 12 GiB below 1 TiB on AMD's CPUs, and large BARs go above that.
#[test]
fn a_device_that_does_not_fit_below_hyper_transport_is_placed_above_it() {
    let behind_ports = |count: u8| {
        let device =
            |i: u8| format!("-device pcie-root-port,id=p{i},chassis={i} -device pci-testdev,bus=p{i},membar=128G");
        (1..=count).map(device).collect::<Vec<_>>().join(" ")
    };
    for (kind, devices, is_above) in [
        (Kind::Q35, "-device pci-testdev,membar=512G".to_owned(), true),
        (Kind::Pc, "-device pci-testdev,membar=512G -device pci-testdev,membar=64G".to_owned(), true),
        (Kind::Q35, behind_ports(8), true),
        (Kind::Q35, behind_ports(4), false),
    ] {
        let machine = Machine { memory: "6G", ..Machine::new(kind) }.with("-cpu EPYC,phys-bits=48").with(&devices);
        let Found { lowest_high, .. } = check_roots(&machine, &[0], 48);
        assert_eq!(lowest_high.expect("something above 4 GiB") >= 1 << 40, is_above, "{devices}: {lowest_high:x?}");
    }
}

#[test]
fn an_ide_controller_at_its_legacy_ports_has_no_other_ports() {
    for kind in Kind::ALL {
        let mut probe = boot(&Machine::new(kind).with("-device piix4-ide,addr=7"));
        let registers = [0x10, 0x14, 0x18, 0x1c, 0x20].map(|at| probe.pci([0, 7, 0], at));
        assert!(registers[..4] == [0; 4] && registers[4] & !3 >= 0x6000, "{registers:x?}");
        assert_eq!(probe.pci([0, 7, 0], 0x40), 0x8000_8000, "both channels decode");
    }
}

/// Its BAR has 16 bytes, the minimum. It is the only watchdog that works on q35 (docs/hosts.md).
#[test]
fn a_watchdog_has_an_address() {
    for kind in Kind::ALL {
        let Found { ids, .. } = check(&Machine::new(kind).with("-device i6300esb"));
        assert!(ids.contains(&I6300ESB), "{ids:x?}");
    }
}

const I6300ESB: u32 = 0x25ab_8086;

/// Its BAR has 2 bytes.
#[test]
fn pvpanic_has_an_address_and_the_boot_prints_nothing() {
    for kind in Kind::ALL {
        let machine = Machine::new(kind).with("-device pvpanic-pci,addr=7");
        check(&machine);
        let mut probe = boot(&machine);
        let at = u64::from(probe.pci([0, 7, 0], 0x10));
        assert_eq!(at % 0x1000, 0, "a page of its own");
        assert_eq!(probe.read(at, 1), [PVPANIC_EVENTS], "the events that it knows");
    }
}

/// QEMU `docs/specs/pvpanic.txt`: a guest's panic, and one that a crash kernel takes.
const PVPANIC_EVENTS: u8 = 1 << 0 | 1 << 1;

#[test]
fn all_functions_of_a_multifunction_device_are_found() {
    let machine = Machine::new(Kind::Q35)
        .with("-device virtio-rng-pci,addr=5.0,multifunction=on")
        .with("-device virtio-rng-pci,addr=5.1 -device virtio-rng-pci,addr=5.7");
    let Found { ids, .. } = check(&machine);
    // Beside PCI Express, as integrated endpoints, they are modern devices only.
    assert_eq!(ids.iter().filter(|&&id| id & 0xffff == 0x1af4).count(), 3, "{ids:x?}");
    // Without function 0 there is no device, whatever its other functions are.
    let machine = Machine::new(Kind::Q35).with("-device virtio-rng-pci,addr=5.1");
    let mut probe = boot(&machine);
    assert_eq!((probe.pci([0, 5, 0], 0), probe.pci([0, 5, 1], 0x20) & !0xf), (u32::MAX, 0));
}

#[test]
fn the_default_devices_have_addresses() {
    for kind in Kind::ALL {
        let walk = check(&Machine { default_devices: true, ..Machine::new(kind) });
        assert_eq!(walk.roms, 2, "those of the display and of the network card");
    }
}
