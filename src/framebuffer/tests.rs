extern crate std;

use std::string::ToString;
use std::vec::Vec;

use uefi_raw::table::boot::MemoryType;

use super::*;
use crate::addr::{PhysAddr, PhysRange};
use crate::fakes::fw_cfg::{FakeFwCfg, Quirks};
use crate::fakes::machine::FakeMachine;
use crate::fakes::pci::{FakeFunction, FakePci, On};
use crate::fw_cfg::FwCfg;
use crate::hal::MemoryError;
use crate::memory_map::{HostMap, MemoryMap};
use crate::pci::topology::BarKind;
use crate::pci::{
    Address, Apertures, ChipsetFunctions, ConfigAccess, HostBridge, LowApertures, PortRange, Route, configure,
};
use crate::start_info::Start;

const VIDEO_MEMORY: u64 = 0xfd00_0000;
const REGISTERS: u64 = 0xfebf_0000;

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

fn display(id: u32, class: u32, memory: u64) -> Display {
    Display {
        address: Address::new(0, 1, 0).unwrap(),
        id,
        class,
        framebuffer: range(VIDEO_MEMORY, memory),
        registers: Some(range(REGISTERS, 0x1000)),
        route: Some(Route::of(0, 0, &[Address::new(0, 1, 0).unwrap()])),
    }
}

/// QEMU's `VGA`.
fn vga() -> Display {
    display(0x1111_1234, 0x03_0000, 16 << 20)
}

fn map() -> MemoryMap {
    let mut map = HostMap::default();
    map.describe(range(0, 64 << 20), MemoryType::CONVENTIONAL).unwrap();
    MemoryMap::new(map)
}

/// A machine whose display's registers have this version, with a record of the accesses.
struct Host {
    machine: FakeMachine,
    fw_cfg: FwCfg,
    map: MemoryMap,
}

impl Host {
    fn new(device: FakeFwCfg, version: u16) -> Self {
        let mut machine = FakeMachine::new().with(device);
        machine.memory.store(REGISTERS + 0x500, &version.to_le_bytes());
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        machine.accesses.clear();
        Self { machine, fw_cfg, map: map() }
    }

    fn set_up(&mut self, pci: Option<&Display>) -> Option<Framebuffer> {
        let Self { machine, fw_cfg, map } = self;
        set_up_on(&mut Boot { machine, fw_cfg, map, start: &Start::Reset }, pci)
    }

    fn registers(&self) -> Vec<u16> {
        let bytes = self.machine.memory.bytes(REGISTERS + 0x502, 8);
        bytes.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
    }
}

#[test]
fn without_a_display_nothing_is_accessed() {
    let mut host = Host::new(FakeFwCfg::new(true).with_file("etc/e820", &[0; 20]), 0xb0c5);
    assert_eq!(host.set_up(None), None);
    assert!(host.machine.accesses.is_empty(), "{:?}", host.machine.accesses);
    assert_eq!(host.map, map());
}

#[test]
fn a_bochs_display_shows_its_largest_mode() {
    for (memory, mode) in [(16 << 20, [1024, 768]), (2 << 20, [800, 600]), (1 << 20, [640, 400])] {
        let display = display(0x1111_1234, 0x03_8000, memory);
        let mut host = Host::new(FakeFwCfg::new(true), 0xb0c5);
        let framebuffer = host.set_up(Some(&display)).unwrap();
        assert_eq!(framebuffer.memory, display.framebuffer);
        assert_eq!([framebuffer.mode.width(), framebuffer.mode.height()], mode);
        // Width, height, depth; enabled, linear.
        assert_eq!(host.registers(), [mode[0], mode[1], 32, 0x41]);
        // Colour ports and a visible picture, through VGA's ports 0x3c2 and 0x3c0.
        assert_eq!(host.machine.memory.bytes(REGISTERS + 0x400, 4), [0x20, 0, 1, 0]);
        assert!(host.machine.accesses.is_empty(), "no port is used: {:?}", host.machine.accesses);
        assert_eq!(host.map, map(), "no RAM is taken");
    }
}

#[test]
fn an_edid_is_read_if_it_is_whole() {
    let mut edid = [0x11; EDID_LEN];
    edid[..8].copy_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    edid[127] = 0;
    edid[127] = crate::checksum::sum(&edid).wrapping_neg();
    let mut host = Host::new(FakeFwCfg::new(true), 0xb0c5);
    let framebuffer = host.set_up(Some(&vga())).unwrap();
    assert_eq!(framebuffer.edid(&mut host.machine), None, "zeros");
    host.machine.memory.store(REGISTERS, &edid);
    assert_eq!(framebuffer.edid(&mut host.machine), Some(edid));
    for at in [0, 1, 4, 7, 8, 127] {
        host.machine.memory.store(REGISTERS + at, &[0x77]);
        assert_eq!(framebuffer.edid(&mut host.machine), None, "{at}");
        host.machine.memory.store(REGISTERS, &edid);
    }
    assert_eq!(Framebuffer { function: None, ..framebuffer }.edid(&mut host.machine), None);
}

#[test]
fn a_virtio_display_is_used_only_with_vga() {
    let mut host = Host::new(FakeFwCfg::new(true), 0xb0c5);
    assert!(host.set_up(Some(&display(0x1050_1af4, 0x03_0000, 8 << 20))).is_some());
    let mut host = Host::new(FakeFwCfg::new(true), 0xb0c5);
    for other in [display(0x1050_1af4, 0x03_8000, 8 << 20), display(0x00b8_1013, 0x03_0000, 4 << 20)] {
        assert_eq!(host.set_up(Some(&other)), None);
    }
    assert!(host.machine.accesses.is_empty(), "a display of another kind is left alone");
}

#[test]
fn a_display_with_unexpected_registers_is_not_used() {
    let dispi = |version, display: &Display| {
        let mut host = Host::new(FakeFwCfg::new(true), version);
        assert_eq!(host.set_up(Some(display)), None);
        assert_eq!(host.registers(), [0; 4]);
        dispi::set_up(&mut host.machine, display).unwrap_err()
    };
    assert_eq!(dispi(0xffff, &vga()), Error::Version(0xffff));
    assert_eq!(dispi(0, &vga()), Error::Version(0));
    let without = Display { registers: None, ..vga() };
    assert_eq!(dispi(0xb0c5, &without), Error::NoRegisters);
    let short = Display { registers: Some(range(REGISTERS, 0x500)), ..vga() };
    assert_eq!(dispi(0xb0c5, &short), Error::NoRegisters);
    let small = display(0x1111_1234, 0x03_0000, 512 << 10);
    assert_eq!(dispi(0xb0c5, &small), Error::TooSmall(512 << 10));
    let high = Display { registers: Some(range(1 << 32, 0x1000)), ..vga() };
    assert!(matches!(dispi(0xb0c5, &high), Error::Memory(_)));
}

#[test]
fn a_framebuffer_in_ram_is_reserved_cleared_and_shown_to_the_host() {
    let device = FakeFwCfg::new(true).with_file("etc/ramfb", &[0; 28]);
    let record = device.record();
    let mut host = Host::new(device, 0);
    host.machine.memory.store(0x3f0_0000, &[0xff; 0x1000]);
    let framebuffer = host.set_up(None).unwrap();
    let expected = range(0x3d0_0000, 3 << 20);
    assert_eq!((framebuffer.memory, framebuffer.mode), (expected, Mode::DEFAULT));
    assert!(!host.map.is_ram(range(0x3d0_0000, 1)) && !host.map.is_ram(range(0x3ff_ffff, 1)));
    assert!(host.map.is_free(range(0, 0x3d0_0000)));
    assert_eq!(host.machine.memory.bytes(0x3f0_0000, 0x1000), [0; 0x1000]);
    let address: [u8; 8] = 0x3d0_0000_u64.to_be_bytes();
    let expected = [&address[..], b"42RX", &[0; 4], &[0, 0, 4, 0], &[0, 0, 3, 0], &[0, 0, 0x10, 0]].concat();
    assert_eq!(record.borrow().written, [(0x20, 0, expected)]);
}

#[test]
fn the_pci_display_comes_before_the_one_in_ram() {
    let host = || Host::new(FakeFwCfg::new(true).with_file("etc/ramfb", &[0; 28]), 0xb0c5);
    assert_eq!(host().set_up(Some(&vga())).unwrap().memory, vga().framebuffer);
    let cirrus = display(0x00b8_1013, 0x03_0000, 4 << 20);
    assert_eq!(host().set_up(Some(&cirrus)).unwrap().memory, range(0x3d0_0000, 3 << 20));
}

#[test]
fn memory_is_freed_if_the_host_does_not_accept_the_framebuffer() {
    for dma in [false, true] {
        let mut host = Host::new(FakeFwCfg::new(dma).with_file("etc/ramfb", &[0; 28]), 0);
        if dma {
            let refuses = Quirks { always_fails: true, ..Quirks::default() };
            host.machine.devices.clear();
            host.machine = host.machine.with(FakeFwCfg::new(true).with_quirks(refuses));
        }
        assert_eq!(host.set_up(None), None);
        assert_eq!(host.map, map());
    }
    for len in [0, 27, 29] {
        let mut host = Host::new(FakeFwCfg::new(true).with_file("etc/ramfb", &std::vec![0; len]), 0);
        assert_eq!(host.set_up(None), None);
        assert_eq!(host.map, map());
    }
    let mut host = Host::new(FakeFwCfg::new(true).with_file("etc/ramfb", &[0; 28]), 0);
    host.map.reserve(range(0x10_0000, 63 << 20), MemoryType::RESERVED).unwrap();
    assert_eq!(host.set_up(None), None, "no room");
}

#[test]
fn messages_say_what_to_change() {
    let memory = MemoryError { range: range(1 << 32, 4) };
    for (error, part) in [
        (Error::NoRegisters, "mmio=on"),
        (Error::Version(0xffff), "0xffff"),
        (Error::TooSmall(512 << 10), "512 KiB"),
        (Error::ItemSize { seen: 27, expected: 28 }, "27 bytes, not 28"),
        (Error::NoRoom(3 << 20), "3072 KiB"),
        (Error::Memory(memory), "above 4 GiB"),
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn the_display_is_the_first_with_memory_in_its_first_register() {
    let first = |functions: &[FakeFunction]| {
        let mut pci = FakePci::default();
        for (device, function) in (1..).zip(functions) {
            pci.add(On::Root(0), device, 0, function.clone());
        }
        let low = LowApertures::new(PortRange::ALL, range(0xc000_0000, 512 << 20));
        let host = HostBridge {
            extra_roots: 0,
            chipset: ChipsetFunctions::default(),
            low,
            apertures: &|| Apertures::new(low, None, 40),
            routing: &|_, _| None,
        };
        Display::first(&configure(&mut pci, ConfigAccess::Ports, &host))
    };
    let memory = BarKind::Memory32 { prefetchable: false };
    let network = || FakeFunction::new(0x1000_1af4, 0x02_0000).bar(0, memory, 12);
    let without_memory_first = FakeFunction::new(0x1050_1af4, 0x03_8000).bar(1, memory, 12).bar(4, memory, 14);
    let bochs = FakeFunction::new(0x1111_1234, 0x03_8000).bar(0, memory, 24).bar(2, memory, 12);
    let display = first(&[network(), without_memory_first, bochs.clone(), bochs]).unwrap();
    assert_eq!((display.address, display.id), (Address::new(0, 3, 0).unwrap(), 0x1111_1234));
    assert_eq!((display.class, display.framebuffer), (0x03_8000, range(0xc000_0000, 16 << 20)));
    assert_eq!(display.registers, Some(range(0xc200_6000, 0x1000)));
    assert_eq!(first(&[network()]), None);
}
