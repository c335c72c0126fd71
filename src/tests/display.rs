//! Tests of the display after a failed boot.

use std::string::String;

use super::*;
use crate::addr::{PhysAddr, PhysRange};
use crate::fakes::machine::{FakeDevice, FakeMemory, FakeRegisters};
use crate::fakes::pci::{FakeFunction, FakePci, On};
use crate::fakes::picture;
use crate::framebuffer::Mode;
use crate::layout;
use crate::pci::topology::BarKind;
use crate::pci::{Address, ConfigSpace, register};

const I440FX: u32 = 0x1237_8086;
const Q35: u32 = 0x29c0_8086;

/// The offsets of a Bochs display's registers, in BAR 2.
const BOCHS_REGISTERS: core::ops::Range<u64> = 0x400..0x600;

/// Configuration space behind its ports.
struct ConfigPorts {
    pci: Rc<RefCell<FakePci>>,
    latched: u32,
}

impl ConfigPorts {
    fn place(&self, port: u16) -> (Address, u8) {
        let [offset, function, bus, _] = self.latched.to_le_bytes();
        (Address::new(bus, function >> 3, function & 7).unwrap(), offset + (port - 0xcfc) as u8)
    }
}

impl FakeDevice for ConfigPorts {
    fn claims(&self, port: u16) -> bool {
        (0xcf8..0xd00).contains(&port)
    }
    fn read(&mut self, port: u16, _size: u8, _memory: &mut FakeMemory) -> u32 {
        let (address, offset) = self.place(port & !3 | 4);
        self.pci.borrow_mut().read32(address, offset) >> (8 * (port & 3))
    }
    fn write(&mut self, port: u16, size: u8, value: u32, _memory: &mut FakeMemory) {
        if port == 0xcf8 {
            self.latched = value;
            return;
        }
        let (address, offset) = self.place(port);
        match size {
            2 => self.pci.borrow_mut().write16(address, offset, value as u16),
            4 => self.pci.borrow_mut().write32(address, offset, value),
            _ => {}
        }
    }
}

/// Registers of a Bochs display at any address that PCI may assign: the version reads correctly, and writes are ignored.
struct Bochs;

impl FakeRegisters for Bochs {
    fn claims(&self, at: u64) -> bool {
        (0x8000_0000..0xfec0_0000).contains(&at) && BOCHS_REGISTERS.contains(&(at & 0xfff))
    }
    fn read(&mut self, _at: u64, _size: u8) -> u64 {
        0xb0c5
    }
    fn write(&mut self, _at: u64, _size: u8, _value: u64, _memory: &mut FakeMemory) {}
}

/// QEMU's `VGA` with 2^`order` bytes of memory.
fn vga(order: u8) -> FakeFunction {
    let memory = BarKind::Memory32 { prefetchable: true };
    FakeFunction::new(0x1111_1234, 0x03_0000).bar(0, memory, order).bar(
        2,
        BarKind::Memory32 { prefetchable: false },
        12,
    )
}

/// A machine with functions on bus 0, from device 2 on.
struct Host {
    machine: FakeMachine,
    pci: Rc<RefCell<FakePci>>,
}

impl Host {
    fn new(bridge: u32, device: Option<FakeFwCfg>, functions: impl IntoIterator<Item = FakeFunction>) -> Self {
        let root = On::Root(0);
        let mut pci = FakePci::default().with(root, 0, 0, FakeFunction::new(bridge, 0x06_0000));
        match bridge {
            I440FX => pci.add(root, 1, 0, FakeFunction::new(0x7000_8086, 0x06_0100).multifunction()),
            _ => pci.add(root, 0x1f, 0, FakeFunction::new(0x2918_8086, 0x06_0100).multifunction()),
        };
        (2..).zip(functions).for_each(|(device, function)| _ = pci.add(root, device, 0, function));
        let pci = Rc::new(RefCell::new(pci));
        let mut machine = FakeMachine::new().with(ConfigPorts { pci: pci.clone(), latched: 0 });
        if let Some(device) = device {
            machine = machine.with(device);
        }
        machine.registers.push(Box::new(Bochs));
        machine.most_steps = 1_000_000;
        Self { machine, pci }
    }

    /// Boots, which fails; shows the failure, and returns the line on the consoles.
    fn fail(&mut self) -> String {
        let failure = run(&mut self.machine, Start::Reset).unwrap_err();
        self.machine.memory.keep_stores();
        failure::show(&mut self.machine, Start::Reset, &failure.error);
        format!("firstlight: error: {}", failure.error)
    }

    /// The function of device 2.
    fn display(&self) -> FakeFunction {
        let pci = self.pci.borrow();
        pci.nodes.iter().find(|node| node.device == 2).unwrap().function.clone()
    }

    /// The text in a picture at `start`.
    fn shown(&self, start: u64, mode: Mode) -> Option<String> {
        let memory = PhysRange::new(PhysAddr::new(start), mode.bytes().into()).unwrap();
        picture::message(&picture::of_memory(&self.machine.memory, &Framebuffer { memory, mode, function: None })?)
    }

    /// The text in the memory of the display at device 2, which decodes it.
    fn shown_by_vga(&self, mode: Mode) -> Option<String> {
        let display = self.display();
        assert_ne!(display.command() & register::COMMAND_MEMORY, 0);
        let (_, _, start, _) = display.bars()[0];
        self.shown(start, mode)
    }
}

fn no_kernel(name: &str) -> FakeFwCfg {
    golden::device(name, true)
}

/// The same of a `pc`, with this list of RAM.
fn no_kernel_and_ram(e820: &[u8]) -> FakeFwCfg {
    golden::items("pc").iter().fold(FakeFwCfg::new(true), |device, (name, bytes)| match &name[..] {
        "etc/e820" => device.with_file(name, e820),
        _ => device.with_file(name, bytes),
    })
}

#[test]
fn a_boot_that_fails_before_the_display_is_set_up_is_shown() {
    for (name, bridge) in [("pc", I440FX), ("q35", Q35)] {
        for (order, mode) in [(24, Mode::DEFAULT), (20, Mode::largest_in(1 << 20).unwrap())] {
            let mut host = Host::new(bridge, Some(no_kernel(name)), [vga(order)]);
            let line = host.fail();
            assert!(line.starts_with("firstlight: error: no kernel"), "{line}");
            assert_eq!(host.shown_by_vga(mode), Some(line));
            assert_eq!(host.pci.borrow().misuse, Vec::<String>::new());
        }
    }
}

#[test]
fn a_boot_that_fails_after_the_display_was_set_up_is_shown() {
    let large = with_kernel(no_kernel("pc")).with_item(0x0b, &(200u32 << 20).to_le_bytes());
    let mut host = Host::new(I440FX, Some(large), [vga(24)]);
    let line = host.fail();
    assert!(line.contains("the initrd of 200 MiB does not fit"), "{line}");
    assert_eq!(host.shown_by_vga(Mode::DEFAULT), Some(line));
    assert_eq!(host.pci.borrow().misuse, Vec::<String>::new());
}

#[test]
fn a_failure_is_shown_without_fw_cfg_and_without_a_memory_map() {
    let broken = no_kernel_and_ram(&[]);
    for (device, part) in [(None, "no fw_cfg device"), (Some(broken), "etc/e820")] {
        let mut host = Host::new(I440FX, device, [vga(24)]);
        let line = host.fail();
        assert!(line.contains(part), "{line}");
        assert_eq!(host.shown_by_vga(Mode::DEFAULT), Some(line));
        assert!(host.display().bars().iter().all(|&(_, _, address, _)| address >= 0xe000_0000), "RAM may be below");
    }
}

#[test]
fn a_failure_is_shown_if_other_functions_need_all_the_room_below_4_gib() {
    // As `virtio-vga`: its registers have a 64-bit BAR, and a boot puts them above 4 GiB.
    let memory = BarKind::Memory32 { prefetchable: true };
    let registers = BarKind::Memory64 { prefetchable: true };
    let display = FakeFunction::new(0x1050_1af4, 0x03_0000).bar(0, memory, 23).bar(2, registers, 14);
    let large = FakeFunction::new(0x0005_1b36, 0xff_0000).bar(2, registers, 32);
    let mut host = Host::new(I440FX, Some(no_kernel("pc")), [display, large]);
    host.machine.cpuid.insert((0x8000_0000, 0), hal::Cpuid { eax: 0x8000_0008, ..hal::Cpuid::default() });
    host.machine.cpuid.insert((0x8000_0008, 0), hal::Cpuid { eax: 40, ..hal::Cpuid::default() });
    let line = host.fail();
    assert_eq!(host.shown_by_vga(Mode::DEFAULT), Some(line));
    assert!(host.display().bars().iter().all(|&(_, _, address, _)| address < 1 << 32));
}

/// A record of `etc/e820`: RAM.
fn ram(start: u64, len: u64) -> Vec<u8> {
    [&start.to_le_bytes()[..], &len.to_le_bytes(), &[1, 0, 0, 0]].concat()
}

#[test]
fn a_failure_is_shown_in_ram() {
    let device = no_kernel_and_ram(&ram(0, 64 << 20)).with_file("etc/ramfb", &[0; 28]);
    let record = device.record();
    let mut host = Host::new(I440FX, Some(device), []);
    let line = host.fail();
    let written = record.borrow().written.clone();
    assert_eq!(written.last().unwrap().2[..8], 0x3d0_0000_u64.to_be_bytes());
    assert_eq!(host.shown(0x3d0_0000, Mode::DEFAULT), Some(line));
}

#[test]
fn after_a_start_by_the_pvh_entry_no_ram_is_used() {
    let failure = failure(no_kernel("pc")).error;
    let show = |device, functions: Vec<FakeFunction>| {
        let mut host = Host::new(I440FX, Some(device), functions);
        host.machine.memory.keep_stores();
        failure::show(&mut host.machine, START_INFO, &failure);
        host
    };
    let device = no_kernel("pc").with_file("etc/ramfb", &[0; 28]);
    let record = device.record();
    assert!(is_untouched(&show(device, vec![])) && record.borrow().written.is_empty());

    let host = show(no_kernel("pc"), vec![vga(24)]);
    assert_eq!(host.shown_by_vga(Mode::DEFAULT), Some(format!("firstlight: error: {failure}")));
    assert!(host.display().bars().iter().all(|&(_, _, address, _)| address >= 0xe000_0000), "RAM may be below");
}

/// Whether only the firmware's own memory was written.
fn is_untouched(host: &Host) -> bool {
    let own = layout::FIRMWARE_RAM;
    host.machine.memory.stores().iter().all(|store| own.start().get() <= store.start && store.end <= own.end().get())
}

#[test]
fn without_a_display_nothing_is_drawn() {
    let network = || FakeFunction::new(0x100e_8086, 0x02_0000).bar(0, BarKind::Memory32 { prefetchable: false }, 17);
    let cirrus = FakeFunction::new(0x00b8_1013, 0x03_0000).bar(0, BarKind::Memory32 { prefetchable: true }, 25);
    for functions in [vec![], vec![network()], vec![cirrus, network()]] {
        let mut host = Host::new(I440FX, Some(no_kernel("pc")), functions);
        host.fail();
        assert!(is_untouched(&host), "{:x?}", host.machine.memory.stores());
    }
    // The same without PCI, and if RAM is not known.
    let mut host = FakeMachine::new().with(golden::device("microvm", true));
    let failure = run(&mut host, Start::Reset).unwrap_err();
    failure::show(&mut host, Start::Reset, &failure.error);
    let device = no_kernel_and_ram(&[]).with_file("etc/ramfb", &[0; 28]);
    let record = device.record();
    let mut host = Host::new(I440FX, Some(device), []);
    host.fail();
    assert!(is_untouched(&host) && record.borrow().written.is_empty());
}

#[test]
fn a_display_that_cannot_be_set_up_is_not_drawn_on() {
    // 3.5 GiB of RAM leave less than 512 MiB for PCI; and a display without registers.
    let small = BarKind::Memory32 { prefetchable: true };
    let without = FakeFunction::new(0x1111_1234, 0x03_0000).bar(0, small, 24);
    for display in [vga(29), without] {
        let device = no_kernel_and_ram(&ram(0, 0xe000_0000));
        let mut host = Host::new(I440FX, Some(device), [display]);
        let line = host.fail();
        assert!(line.starts_with("firstlight: error: no kernel"), "{line}");
        assert!(is_untouched(&host), "{:x?}", host.machine.memory.stores());
    }
}
