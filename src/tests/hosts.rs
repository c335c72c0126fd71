//! Tests of the whole boot on every known host, and on hosts that lack parts of a PC.

use super::*;
use crate::efi::pe;
use crate::fakes::chipset::Write;
use crate::fakes::known_hosts::KnownHost;
use crate::fakes::machine::{FakeDevice, FakeMemory};
use crate::fakes::pci::{FakeFunction, FakePci, FakeWindow, On};
use crate::fakes::tables;
use crate::fw_cfg::Transport;
use crate::pci::topology::BarKind;
use crate::pci::{Address, ConfigSpace, register};

const RAM: u64 = 256 << 20;
const MIB: u64 = 1 << 20;

/// CMOS memory with the sizes of RAM.
struct Cmos {
    index: u8,
    below_4_gib: u64,
    above_4_gib: u64,
}

impl Cmos {
    fn new(below_4_gib: u64, above_4_gib: u64) -> Self {
        Self { index: 0, below_4_gib, above_4_gib }
    }
}

impl FakeDevice for Cmos {
    fn claims(&self, port: u16) -> bool {
        port == 0x70 || port == 0x71
    }
    fn read(&mut self, _port: u16, _size: u8, _memory: &mut FakeMemory) -> u32 {
        let low = ((self.below_4_gib - 16 * MIB) >> 16).to_le_bytes();
        let high = (self.above_4_gib >> 16).to_le_bytes();
        u32::from(match self.index {
            0x34..=0x35 => low[usize::from(self.index - 0x34)],
            0x5b..=0x5d => high[usize::from(self.index - 0x5b)],
            _ => 0,
        })
    }
    fn write(&mut self, port: u16, _size: u8, value: u32, _memory: &mut FakeMemory) {
        if port == 0x70 {
            self.index = value as u8 & 0x7f;
        }
    }
}

/// The device of a host that puts tables into memory, with a memory map.
fn crosvm() -> FakeFwCfg {
    let host = known_hosts().into_iter().find(|host| host.name == "crosvm").unwrap();
    host.device().with_file("etc/e820", &E820)
}

/// A record of a machine's device, which the test reads.
type Seen<T> = Rc<RefCell<T>>;

/// A machine of this host with a kernel, and the writes to PCI configuration space.
fn machine_of(host: &KnownHost) -> (FakeMachine, Seen<crate::fakes::fw_cfg::Record>, Seen<Vec<Write>>) {
    machine_of_device(host, with_kernel(host.device()))
}

/// As [`machine_of`], with the host's device.
fn machine_of_device(
    host: &KnownHost,
    device: FakeFwCfg,
) -> (FakeMachine, Seen<crate::fakes::fw_cfg::Record>, Seen<Vec<Write>>) {
    let device = device.with_file("opt/other", &[1]);
    let device = host.files(RAM).iter().fold(device, |device, (name, bytes)| device.with_file(name, bytes));
    let record = device.record();
    let mut config = FakeConfigPorts::default();
    for (device, function, id) in host.functions {
        config = config.with_function(u32::from(*device) << 11 | u32::from(*function) << 8, *id);
    }
    let writes = config.writes();
    let mut machine = FakeMachine::new().with(device);
    if !host.functions.is_empty() {
        machine = machine.with(config);
    }
    if host.e820.is_none() {
        machine = machine.with(Cmos::new(RAM, 0));
    }
    machine.absent = host.absent_port;
    for (at, bytes) in (host.in_memory)() {
        machine.memory.store(at, &bytes);
    }
    (machine, record, writes)
}

/// Starts the machine as this host does: by the PVH entry point, with its RSDP, if it has no other way.
fn start(host: &KnownHost, machine: &mut FakeMachine) -> Handover {
    let start = if host.reset_vector {
        Start::Reset
    } else {
        let rsdp = (host.in_memory)().first().map_or(0, |(at, _)| *at);
        store_start_info(&mut machine.memory, RAM, &[], rsdp);
        START_INFO
    };
    run(machine, start).unwrap_or_else(|failure| panic!("{}: {}", host.name, failure.error))
}

/// The e820 entries in `boot_params`: start, end, type.
fn map_of(page: &[u8]) -> Vec<(u64, u64, u8)> {
    let entries = page[0x2d0..].chunks(20).take(page[0x1e8].into());
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    entries.map(|entry| (number(&entry[..8]), number(&entry[..8]) + number(&entry[8..16]), entry[16])).collect()
}

#[test]
fn every_known_host_boots_a_kernel() {
    for host in known_hosts() {
        let (mut machine, record, _) = machine_of(&host);
        let handover = start(&host, &mut machine);
        let name = host.name;
        assert_eq!(machine.memory.bytes(0x100_0000, 9001), bytes(9001, 1), "{name}");
        let page = machine.memory.bytes(handover.parameters.get(), 4096);
        assert_eq!(machine.memory.bytes(u32_at(&page, 0x218), 7003), bytes(7003, 2), "{name}");
        assert_eq!(machine.memory.bytes(u32_at(&page, 0x228), COMMAND_LINE.len()), COMMAND_LINE, "{name}");
        assert_eq!(record.borrow().fatal, Vec::<&str>::new(), "{name}");

        let map = map_of(&page);
        // Tables may be at the end of RAM, and the map covers RAM to its end.
        assert!(map.iter().any(|entry| entry.1 == RAM), "{name}: {map:x?}");
        assert!(map.iter().any(|entry| entry.2 == 1 && entry.1 >= RAM - 0x4_0000), "{name}: {map:x?}");
        let is_whole = |at: u64| at.is_multiple_of(4096) || at == 0x9_fc00;
        assert!(map.iter().all(|entry| is_whole(entry.0) && is_whole(entry.1)), "{name}: {map:x?}");
        assert!(!map.iter().any(|&(start, end, kind)| kind == 1 && end > 0xa_0000 && start < MIB), "{name}: {map:x?}");
        // No order of the host's records, and no cut, turns reserved memory into RAM.
        for (start, len, _) in
            host.e820.map(|e820| e820(RAM)).unwrap_or_default().into_iter().filter(|record| record.2 != 1)
        {
            let is_ram = map.iter().any(|entry| entry.2 == 1 && entry.0 < start + len && start < entry.1);
            assert!(!is_ram, "{name}: {start:x}");
        }
    }
}

/// A program whose second section is longer than the pieces in which some hosts read, with the host's changes to no byte.
#[test]
fn every_known_host_has_an_efi_program_loaded() {
    let (code, data) = (0x1200_u32, 0x2_3457_u32);
    let file = pe::tests::file(&[
        pe::tests::section(0x1000, code, 0x400, code, pe::tests::CODE),
        pe::tests::section(0x3000, data, 0x400 + code, data, pe::tests::DATA),
    ]);
    let (setup, rest) = file.split_at(5 * 512);
    let size = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes();
    for host in known_hosts() {
        let device = host.device().with_item(0x17, &size(setup)).with_item(0x18, setup);
        let device = device.with_item(0x08, &size(rest)).with_item(0x11, rest);
        let device = device.with_item(0x14, &size(COMMAND_LINE)).with_item(0x15, COMMAND_LINE);
        let (mut machine, ..) = machine_of_device(&host, device);
        machine.runtime_services = RUNTIME;
        let handover = start(&host, &mut machine);
        let boot = handover.efi.clone().take();
        let program =
            boot.as_ref().and_then(EfiBoot::program).unwrap_or_else(|| panic!("{}: no EFI program", host.name));
        let at = program.placed.place.start().get();
        let is_at = |offset: u64, bytes: &[u8]| machine.memory.bytes(at + offset, bytes.len()) == bytes;
        let (headers, sections) = file.split_at(0x400);
        let (first, second) = sections.split_at(code as usize);
        assert!(is_at(0, headers) && is_at(0x1000, first) && is_at(0x3000, second), "{}", host.name);
        assert!(is_at(0x2200, &[0; 0xe00]), "{}: the rest of a page", host.name);
        let options: Vec<u8> = COMMAND_LINE.iter().flat_map(|&byte| [byte, 0]).collect();
        assert_eq!(machine.memory.bytes(program.options.start().get(), options.len()), options, "{}", host.name);
    }
}

#[test]
fn every_known_host_s_acpi_tables_are_passed_on() {
    for host in known_hosts() {
        let (mut machine, ..) = machine_of(&host);
        let handover = start(&host, &mut machine);
        let page = machine.memory.bytes(handover.parameters.get(), 4096);
        let (name, rsdp) = (host.name, u32_at(&page, 0x070));
        // Tables that are passed at the start; tables in fw_cfg, under any name; tables in memory.
        match name {
            "Cloud Hypervisor" => assert_eq!(rsdp, 0xa_0000),
            "crosvm" => assert_eq!(rsdp, 0xe_0000),
            "OpenBSD vmd" => assert_eq!(rsdp, 0),
            _ => {
                assert!(!(host.in_memory)().iter().any(|&(at, _)| at == rsdp), "{name}");
                assert_eq!(machine.memory.bytes(rsdp, 8), b"RSD PTR ", "{name}");
                let xsdt = u32_at(&machine.memory.bytes(rsdp, 36), 24);
                assert_eq!(machine.memory.bytes(xsdt, 4), b"XSDT", "{name}");
            }
        }
        // Tables in memory stay, and none is RAM to the kernel.
        for (at, bytes) in (host.in_memory)() {
            let len = bytes.len() as u64;
            assert_eq!(machine.memory.bytes(at, bytes.len()), bytes, "{name}: {at:x}");
            let hit = map_of(&page).into_iter().find(|&(start, end, kind)| kind == 1 && start < at + len && at < end);
            assert_eq!(hit, None, "{name}: {at:x}");
        }
        // Linux uses the window of an MCFG only if it is reserved.
        if name == "crosvm" {
            assert!(map_of(&page).contains(&(0xf400_0000, 0xf800_0000, 2)), "{:x?}", map_of(&page));
            assert_eq!(machine.memory.bytes(0x9_fff0, 4), b"_MP_", "the host's own");
        }
    }
}

/// Hosts that set up PCI themselves describe it in their tables. All hosts without QEMU's chipset do.
#[test]
fn pci_and_power_management_of_other_boards_are_not_set_up() {
    for host in known_hosts() {
        let (mut machine, _, writes) = machine_of(&host);
        start(&host, &mut machine);
        let (name, writes) = (host.name, writes.borrow());
        if !host.has_chipset() {
            assert_eq!(*writes, [], "{name}");
            // No device of a PC is assumed: the firmware checks for interrupt controllers, and there are none here; it accesses
            // no keyboard controller and no console.
            for access in &machine.accesses {
                let taken = match *access {
                    Access::Out(0xcf8, 4, _) | Access::In(0xcfc, 4, _) => true,
                    Access::Out(0x21, 1, 0xfb | 0xff) | Access::In(0x21, 1, _) => true,
                    Access::Out(port, ..) | Access::In(port, ..) => {
                        FakeFwCfg::has_port(port) || host.e820.is_none() && (port == 0x70 || port == 0x71)
                    }
                };
                assert!(taken, "{name}: {access:?}");
            }
        } else {
            assert!(!writes.is_empty(), "{name}");
            let pm = 0xb00..0xc00;
            let has_pm = host.functions.iter().any(|&(device, function, _)| (device, function) == (1, 3));
            assert!(has_pm || !writes.iter().any(|(address, ..)| pm.contains(address)), "{name}");
        }
    }
}

/// The form that every host supports. Each restriction is there because of a known host.
#[test]
fn hosts_other_than_qemu_get_only_the_portable_form() {
    for host in known_hosts() {
        let (mut machine, record, _) = machine_of(&host);
        let name = host.name;
        start(&host, &mut machine);

        let accesses: Vec<_> = machine.accesses.iter().filter(|access| is_fw_cfg(access)).copied().collect();
        // Items are selected with 16 bits. The data port is only read, in bytes.
        let files = 0x21 + host.files(RAM).len() as u32;
        for access in &accesses {
            let taken = match *access {
                Access::Out(0x510, 2, key) => key < files,
                Access::In(0x511, 1, _) | Access::In(0x514, 4, _) => true,
                Access::Out(0x514 | 0x518, 4, _) => host.dma,
                _ => false,
            };
            assert!(taken, "{name}: {access:?}");
        }
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        if fw_cfg.transport(&machine) == Transport::QemuDma {
            continue;
        }
        // The high half of the address, then the low half, of a descriptor on a 16-byte boundary that only has READ.
        for pair in accesses.windows(2) {
            if let [before, Access::Out(0x518, _, low)] = pair {
                assert_eq!((*before, low.swap_bytes() % 16), (Access::Out(0x514, 4, 0), 0), "{name}");
            }
        }
        let record = record.borrow();
        assert_eq!(record.transfers > 0, host.dma, "{name}");
        assert!(record.controls.iter().all(|&control| control == 1 << 1), "{name}: {:x?}", record.controls);
        assert_eq!(record.past_end, 0, "{name}: nothing is read past an item's end");
    }
}

fn is_fw_cfg(access: &Access) -> bool {
    match *access {
        Access::In(port, ..) | Access::Out(port, ..) => FakeFwCfg::has_port(port),
    }
}

#[test]
fn memory_sizes_come_from_cmos_if_the_host_has_no_map() {
    for (below, above) in [(128 * MIB, 0), (512 * MIB, 0), (3328 * MIB, 0), (3328 * MIB, 13 << 30)] {
        let mut machine = FakeMachine::new().with(with_kernel(FakeFwCfg::new(true))).with(Cmos::new(below, above));
        let handover = run(&mut machine, Start::Reset).unwrap();
        let page = machine.memory.bytes(handover.parameters.get(), 4096);
        let ram: u64 = map_of(&page).iter().filter(|entry| entry.2 == 1).map(|entry| entry.1 - entry.0).sum();
        assert_eq!((ram + MIB) >> 20, (below + above) >> 20);
        assert_eq!(vec![0; 4], page[0x070..0x074], "no ACPI");
    }
    // Without both, with absent ports that read as either.
    for absent in [0, u32::MAX] {
        let mut machine = FakeMachine::new().with(with_kernel(FakeFwCfg::new(true)));
        machine.absent = absent;
        let error = run(&mut machine, Start::Reset).unwrap_err().error.to_string();
        assert!(error.starts_with("the host gives no memory size"), "{error}");
    }
}

/// Tables at the top of RAM, where the firmware would put an initrd, with an MCFG elsewhere, and no PCI at the ports.
#[test]
fn tables_at_the_top_of_ram_are_reserved_before_anything_is_loaded() {
    let top = RAM - 0x2000;
    for (absent, rsdp) in [(0, 0xe_0000), (u32::MAX, 0xf_5550)] {
        let pieces = [tables::acpi(rsdp, top, 0xd000_0000), tables::smbios(0xf_0000, RAM - 0x3000)].concat();
        let mut machine = FakeMachine::new().with(with_kernel(crosvm()));
        machine.absent = absent;
        for (at, bytes) in &pieces {
            machine.memory.store(*at, bytes);
        }
        let handover = run(&mut machine, Start::Reset).unwrap();
        for (at, bytes) in &pieces {
            assert_eq!(machine.memory.bytes(*at, bytes.len()), *bytes, "{at:x}");
        }
        let page = machine.memory.bytes(handover.parameters.get(), 4096);
        assert_eq!(u32_at(&page, 0x070), rsdp);
        let map = map_of(&page);
        assert!(map.contains(&(0xd000_0000, 0xd400_0000, 2)), "{map:x?}");
        assert_eq!(map.iter().find(|entry| entry.2 == 1 && entry.0 >= MIB).unwrap().1, RAM - 0x3000);
        assert!(u32_at(&page, 0x218) + 7003 <= RAM - 0x3000, "the initrd is below");
    }
}

/// Functions with registers, accessed through the ports.
struct PciPorts {
    pci: Rc<RefCell<FakePci>>,
    latched: u32,
}

impl PciPorts {
    /// The function and the byte in it at `port`.
    fn place(&self, port: u16) -> (Address, u8) {
        let [register, function, bus, _] = self.latched.to_le_bytes();
        (Address::new(bus, function >> 3, function & 7).unwrap(), register + (port - 0xcfc) as u8)
    }
}

impl FakeDevice for PciPorts {
    fn claims(&self, port: u16) -> bool {
        (0xcf8..0xd00).contains(&port)
    }
    fn read(&mut self, port: u16, _size: u8, _memory: &mut FakeMemory) -> u32 {
        let (address, register) = self.place(port);
        self.pci.borrow_mut().read32(address, register)
    }
    fn write(&mut self, port: u16, size: u8, value: u32, _memory: &mut FakeMemory) {
        if port == 0xcf8 {
            self.latched = value;
            return;
        }
        let ((address, register), mut pci) = (self.place(port), self.pci.borrow_mut());
        match size {
            2 => pci.write16(address, register, value as u16),
            // Registers of one byte are the chipset's, which the fake does not have.
            _ => pci.write32(address, register & !3, value),
        }
    }
}

/// A q35 with a function behind a root port, and one next to the port.
fn q35_functions() -> FakePci {
    let bridge = FakeFunction::new(0x29c0_8086, 0x06_0000).writable(0x90, 0xff);
    let lpc = FakeFunction::new(0x2918_8086, 0x06_0100).multifunction().writable(0x40, 0xff80).writable(0x44, 0xff);
    let lpc = lpc.writable(0x60, u32::MAX).writable(0x68, u32::MAX);
    let wide = || FakeFunction::new(0x1042_1af4, 0x1_0000).bar(4, BarKind::Memory64 { prefetchable: true }, 14);
    let narrow = FakeFunction::new(0x1041_1af4, 0x2_0000).bar(1, BarKind::Memory32 { prefetchable: false }, 12);
    FakePci::default()
        .with(On::Root(0), 0, 0, bridge)
        .with(On::Root(0), 1, 0, FakeFunction::port(0x000c_1b36, 4))
        .with(On::Root(0), 2, 0, narrow.bar(4, BarKind::Memory64 { prefetchable: true }, 14))
        .with(On::Root(0), 0x1f, 0, lpc)
        .with(On::Behind(1), 0, 0, wide())
}

/// StratoVirt's window of configuration space supports accesses of four bytes, QEMU's of eight.
#[test]
fn the_registers_of_a_q35_are_set_with_accesses_that_its_window_supports() {
    let stratovirt = known_hosts().into_iter().find(|host| host.name == "StratoVirt").unwrap();
    let qemu = KnownHost { functions: stratovirt.functions, ..known_hosts()[0] };
    for host in [stratovirt, qemu] {
        let name = host.name;
        let pci = Rc::new(RefCell::new(q35_functions()));
        let (mut machine, ..) = machine_of(&KnownHost { functions: &[], ..host });
        machine.devices.push(Box::new(PciPorts { pci: pci.clone(), latched: 0 }));
        let window = FakeWindow { pci: pci.clone(), start: 0xb000_0000, longest: host.longest_config_access };
        machine.registers.push(Box::new(window));
        run(&mut machine, Start::Reset).unwrap();

        let pci = pci.borrow();
        let [bridge, port, narrow, lpc, wide] = [0, 1, 2, 3, 4].map(|index| pci.function(index));
        assert_eq!(bridge.get(0x90), 0x30, "{name}: PAM0");
        assert_eq!((lpc.get(0x40), lpc.get(0x44)), (0x600, 0x80), "{name}: PMBASE and ACPI_CNTL");
        assert_eq!((lpc.get(0x60), lpc.get(0x68)), (0x0b0b_0a0a, 0x0b0b_0a0a), "{name}: PIRQ routes");
        assert_eq!(port.get(register::BUS_NUMBERS) & 0xff_ffff, 0x01_0100, "{name}: bus numbers");
        for function in [narrow, wide] {
            assert_eq!(function.command() & 2, 2, "{name}: it decodes");
            assert!(function.bars().iter().all(|&(.., at, _)| at != 0), "{name}: {:x?}", function.bars());
        }
        assert_eq!((narrow.bars().len(), wide.bars().len(), pci.misuse.len()), (2, 1, 0), "{name}");
        assert_eq!(pci.pairs > 0, name == "QEMU", "{name}: {} pairs", pci.pairs);
    }
}

/// propolis has its configuration space at an address where a `pc` has none, and its map says so.
#[test]
fn bars_avoid_what_the_host_reserves() {
    let host = known_hosts().into_iter().find(|host| host.name == "propolis").unwrap();
    let mut functions = FakePci::default();
    for &(device, function, id) in host.functions {
        functions = functions.with(On::Root(0), device, function, FakeFunction::new(id, 0x6_0100).multifunction());
    }
    // Seven of 256 MiB: as many as fit from 2 GiB to the I/O APIC.
    let large = || FakeFunction::new(0x1042_1af4, 0x1_0000).bar(0, BarKind::Memory32 { prefetchable: false }, 28);
    let functions = (4..11).fold(functions, |all, device| all.with(On::Root(0), device, 0, large()));
    let pci = Rc::new(RefCell::new(functions));
    let (mut machine, ..) = machine_of(&KnownHost { functions: &[], ..host });
    machine.devices.push(Box::new(PciPorts { pci: pci.clone(), latched: 0 }));
    run(&mut machine, Start::Reset).unwrap();
    let pci = pci.borrow();
    let on: Vec<_> = (3..10).map(|index| pci.function(index)).filter(|one| one.command() & 2 != 0).collect();
    assert_eq!(on.len(), 6, "one would be over the configuration space");
    for function in on {
        let (.., at, len) = function.bars()[0];
        assert!(at >= 0x8000_0000 && at + len <= 0xe000_0000, "{at:x}");
    }
}

/// A host with an MP table in the BIOS segment and no ACPI.
#[test]
fn no_mp_table_is_made_in_addition_to_the_hosts() {
    let made = |memory: &[tables::Piece]| {
        let mut machine = FakeMachine::new().with(with_kernel(crosvm()));
        machine.cpuid.insert((1, 0), hal::Cpuid { edx: 1 << 9, ..hal::Cpuid::default() });
        for (at, bytes) in memory {
            machine.memory.store(*at, bytes);
        }
        run(&mut machine, Start::Reset).unwrap();
        machine.memory.bytes(0x9_fc10, 4) == b"_MP_"
    };
    assert!(made(&[]));
    assert!(!made(&tables::mp_table(0xf_0000, 0xf_0010)));
}

/// A PVH kernel gets a root pointer in memory too.
#[test]
fn a_pvh_kernel_gets_the_address_of_tables_in_memory() {
    let mut machine = FakeMachine::new().with(with_elf(crosvm(), &bytes(8192, 3)));
    for (at, bytes) in tables::acpi(0xe_0000, 0xe_0040, 0xd000_0000) {
        machine.memory.store(at, &bytes);
    }
    let handover = run(&mut machine, Start::Reset).unwrap();
    assert_eq!(u32_at(&machine.memory.bytes(handover.parameters.get(), 88), 32), 0xe_0000);
}

/// Without the script that places them, files are not tables: their addresses are unknown.
#[test]
fn acpi_files_without_a_script_are_not_loaded() {
    let host = known_hosts()[0];
    let device = with_kernel(FakeFwCfg::new(true));
    let files = host.files(RAM).into_iter().filter(|(name, _)| name != "etc/table-loader");
    let mut machine =
        FakeMachine::new().with(files.fold(device, |device, (name, bytes)| device.with_file(&name, &bytes)));
    let handover = run(&mut machine, Start::Reset).unwrap();
    assert_eq!(u32_at(&machine.memory.bytes(handover.parameters.get(), 4096), 0x070), 0);
}

/// The host's map has the firmware's own memory as reserved, or lacks a part of it.
#[test]
fn a_host_that_reserves_the_firmwares_memory_boots_a_kernel() {
    for (start, len, kind) in [(0x4_0000, 0x6_0000, 2), (0x8_0000, 0x2_0000, 3), (0x9_0000, 0x1_0000, 4_u32)] {
        let record = |start: u64, len: u64, kind: u32| {
            [&start.to_le_bytes()[..], &len.to_le_bytes(), &kind.to_le_bytes()].concat()
        };
        let e820 = [record(0, start, 1), record(start, len, kind), record(MIB, RAM - MIB, 1)].concat();
        let mut machine = FakeMachine::new().with(with_kernel(FakeFwCfg::new(true).with_file("etc/e820", &e820)));
        let handover = run(&mut machine, Start::Reset).unwrap();
        let page = machine.memory.bytes(handover.parameters.get(), 4096);
        assert!(handover.parameters.get() < start && u32_at(&page, 0x228) < start);
        assert!(
            map_of(&page).iter().any(|entry| u32::from(entry.2) == kind && entry.0 <= start),
            "{:x?}",
            map_of(&page)
        );
        assert_eq!(machine.memory.bytes(0x100_0000, 9001), bytes(9001, 1));
    }
}
