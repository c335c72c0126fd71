use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use proptest::prelude::*;

use super::aperture::{high_apertures, unoccupied};
use super::none::{FOREIGN, ISAPC, NO_PCI};
use super::pc::Pc;
use super::q35::Q35;
use super::*;
use crate::fakes::chipset::{FakeConfigPorts, FakePics};
use crate::fakes::fw_cfg::FakeFwCfg;
use crate::fakes::golden::QEMU_FILE;
use crate::fakes::machine::{Access, FakeDevice, FakeMachine, FakeMemory};
use crate::fakes::pci::{FakeFunction, FakePci, FakeWindow, On};
use crate::hal::Cpuid;
use crate::memory_map::{HostMap, MemoryMap};
use crate::pci::register::COMMAND_MEMORY;
use crate::pci::{BarKind, EcamWindow, LongestAccess, Pin, PortRange};
use crate::start_info::Start;

const GIB: u64 = 1 << 30;

/// A configuration address on bus 0.
fn at(device: u32, function: u32, offset: u32) -> u32 {
    device << 11 | function << 8 | offset
}

/// The board of a host.
fn board((mut machine, fw_cfg): (FakeMachine, FwCfg)) -> &'static dyn Board {
    detect::board(&mut machine, &fw_cfg)
}

/// Sets the registers of a board with RAM to `low_ram_end`, on QEMU.
fn program_board(machine: &mut FakeMachine, board: &dyn Board, low_ram_end: u64) -> ConfigAccess {
    let access = program(machine, board, PhysAddr::new(low_ram_end), HostKind::Qemu);
    board.isa_devices().set_up(machine, Features::default());
    access
}

fn dword(machine: &FakeMachine, address: u64) -> u32 {
    u32::from_le_bytes(machine.memory.bytes(address, 4).try_into().unwrap())
}

#[test]
fn the_host_bridge_identifies_the_board() {
    let detect = |id| board(qemu(FakeMachine::new().with(FakeConfigPorts::with_host_bridge(id)), &[]));
    assert_eq!(detect(0x1237_8086), &Pc as &dyn Board);
    assert_eq!(detect(0x29c0_8086), &Q35 as &dyn Board);
    assert_eq!(detect(0x0d57_8086), FOREIGN);
    for absent in [0, u32::MAX] {
        let without_pci = |files: &[&str]| {
            let (mut machine, fw_cfg) = qemu(FakeMachine::new(), files);
            machine.absent = absent;
            board((machine, fw_cfg))
        };
        assert_eq!(without_pci(&[]), ISAPC);
        assert_eq!(without_pci(&["etc/table-loader", "etc/system-states"]), NO_PCI);
    }
}

#[test]
fn the_registers_of_a_q35_are_set() {
    let config = FakeConfigPorts::with_host_bridge(0x29c0_8086);
    let writes = config.writes();
    let mut machine = FakeMachine::new().with(config);
    let ConfigAccess::Ecam(ecam) = program_board(&mut machine, &Q35, 2 * GIB) else { panic!("no window") };
    assert_eq!((ecam.range.start().get(), ecam.range.len()), (0xb000_0000, 256 << 20));
    // One write opens the window; the other writes go through it.
    assert_eq!(*writes.borrow(), [(at(0, 0, 0x60), 4, 0xb000_0001)]);
    let lpc = 0xb000_0000 + (0x1f << 15);
    assert_eq!(dword(&machine, lpc + 0x40), 0x601, "PMBASE");
    assert_eq!(dword(&machine, lpc + 0x44), 0x80, "ACPI_CNTL");
    assert_eq!(machine.memory.bytes(lpc + 0x60, 4), [10, 10, 11, 11], "PIRQA to PIRQD");
    assert_eq!(machine.memory.bytes(lpc + 0x68, 4), [10, 10, 11, 11], "PIRQE to PIRQH");
    assert!(machine.accesses.contains(&Access::Out(0x4d1, 1, 0x0c)), "ELCR");
}

#[test]
fn a_q35_with_ram_at_the_window_is_programmed_through_the_ports() {
    let config = FakeConfigPorts::with_host_bridge(0x29c0_8086);
    let writes = config.writes();
    let mut machine = FakeMachine::new().with(config);
    assert_eq!(program_board(&mut machine, &Q35, 3 * GIB), ConfigAccess::Ports);
    let writes = writes.borrow();
    assert!(writes.contains(&(at(0x1f, 0, 0x40), 4, 0x601)));
    assert!(writes.contains(&(at(0x1f, 0, 0x44), 4, 0x80)));
    assert!(!writes.iter().any(|&(address, ..)| address == at(0, 0, 0x60)), "PCIEXBAR over RAM");
}

#[test]
fn the_registers_of_a_pc_are_set() {
    let config = FakeConfigPorts::with_host_bridge(0x1237_8086);
    let writes = config.writes();
    let mut machine = FakeMachine::new().with(config);
    assert_eq!(program_board(&mut machine, &Pc, 2 * GIB), ConfigAccess::Ports);
    let expected = [
        (at(1, 0, 0x60), 4, 0x0b0b_0a0a),
        (at(1, 1, 0x40), 4, 0x8000_8000),
        (at(1, 3, 0x40), 4, 0x601),
        (at(1, 3, 0x80), 1, 1),
    ];
    assert_eq!(*writes.borrow(), expected);
    assert!(machine.accesses.contains(&Access::Out(0x4d1, 1, 0x0c)), "ELCR");
}

/// A CPU whose local APIC is enabled, with its registers in memory or as model-specific ones.
fn with_apic(machine: FakeMachine, x2apic: bool) -> FakeMachine {
    let mut machine = machine;
    machine.cpuid.insert((1, 0), Cpuid { edx: 1 << 9, ..Cpuid::default() });
    machine.msrs.insert(0x1b, 0xfee0_0900 | if x2apic { 1 << 10 } else { 0 });
    machine
}

/// QEMU, with these additional files.
fn qemu(machine: FakeMachine, files: &[&str]) -> (FakeMachine, FwCfg) {
    let device = FakeFwCfg::new(true).with_file(QEMU_FILE, &[]);
    let device = files.iter().fold(device, |device, file| device.with_file(file, &[0; 8]));
    let mut machine = machine.with(device);
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    machine.accesses.clear();
    (machine, fw_cfg)
}

/// Programs the chipset with this host bridge ID, or a machine without PCI.
fn programmed(machine: FakeMachine, bridge: Option<u32>, files: &[&str]) -> FakeMachine {
    let machine = match bridge {
        Some(id) => machine.with(FakeConfigPorts::with_host_bridge(id)),
        None => machine,
    };
    let (mut machine, fw_cfg) = qemu(machine, files);
    Platform::program(&mut machine, &fw_cfg, &map(0, &[]));
    machine
}

/// Each kind of machine: the chipsets, another one with PCI, and one without PCI.
const BRIDGES: [Option<u32>; 4] = [Some(0x1237_8086), Some(0x29c0_8086), Some(0x0d57_8086), None];

#[test]
fn the_interrupt_controllers_of_every_machine_have_the_vectors_of_a_pc_and_are_masked() {
    for bridge in BRIDGES {
        let pics = FakePics::default();
        let state = pics.state();
        programmed(FakeMachine::new().with(pics), bridge, &[]);
        let seen = state.borrow().map(|pic| (pic.base, pic.cascade, pic.mode, pic.mask));
        assert_eq!(seen, [(0x08, 4, 1, 0xfb), (0x70, 2, 1, 0xff)], "{bridge:x?}");
    }
}

#[test]
fn interrupts_of_the_pic_reach_the_boot_cpu_of_every_machine() {
    for bridge in BRIDGES {
        let machine = |x2apic| with_apic(FakeMachine::new().with(FakePics::default()), x2apic);
        let xapic = programmed(machine(false), bridge, &[]);
        assert_eq!([0xf0, 0x350, 0x360].map(|at| dword(&xapic, 0xfee0_0000 + at)), [0x1ff, 0x700, 0x400]);
        let x2apic = programmed(machine(true), bridge, &[]);
        assert_eq!([0x80f, 0x835, 0x836].map(|register| x2apic.msrs[&register]), [0x1ff, 0x700, 0x400]);
        assert_eq!(dword(&x2apic, 0xfee0_0350), 0, "its registers are not in memory");
    }
}

#[test]
fn without_a_pic_or_a_local_apic_no_pin_is_unmasked() {
    for (bridge, absent) in BRIDGES.into_iter().flat_map(|bridge| [(bridge, 0), (bridge, u32::MAX)]) {
        let mut machine = with_apic(FakeMachine::new(), false);
        machine.absent = absent;
        let machine = programmed(machine, bridge, &[]);
        assert_eq!(dword(&machine, 0xfee0_0350), 0);
        // Two accesses show that there is none.
        assert_eq!(machine.accesses.iter().filter(is_pics).count(), 2, "{:?}", machine.accesses);
    }
    let mut off = with_apic(FakeMachine::new().with(FakePics::default()), false);
    off.msrs.insert(0x1b, 0xfee0_0100);
    let none = FakeMachine::new().with(FakePics::default());
    for machine in [off, none] {
        assert_eq!(dword(&programmed(machine, None, &[]), 0xfee0_0350), 0);
    }
}

fn is_pics(access: &&Access) -> bool {
    matches!(access, Access::In(0x20 | 0x21 | 0xa0 | 0xa1, ..) | Access::Out(0x20 | 0x21 | 0xa0 | 0xa1, ..))
}

#[test]
fn the_interrupt_controllers_of_a_microvm_are_masked_with_one_access() {
    for file in ["etc/table-loader", "etc/fdt"] {
        let pics = FakePics::default();
        let state = pics.state();
        let machine = programmed(with_apic(FakeMachine::new().with(pics), false), None, &[file]);
        assert_eq!(state.borrow()[0].mask, 0xff);
        assert_eq!(machine.accesses.iter().filter(is_pics).count(), 1, "{:?}", machine.accesses);
        assert_eq!([0xf0, 0x350, 0x360].map(|at| dword(&machine, 0xfee0_0000 + at)), [0x1ff, 0x700, 0x400]);
    }
}

#[test]
fn opening_the_f_segment_takes_one_write() {
    let chipset = |board: &dyn Board| board.chipset().unwrap();
    for (board, pam0) in [(&Pc as &dyn Board, 0x59), (&Q35, 0x90)] {
        let config = FakeConfigPorts::default();
        let writes = config.writes();
        let mut machine = FakeMachine::new().with(config);
        open_f_segment(&mut machine, ConfigAccess::Ports, chipset(board));
        assert_eq!(*writes.borrow(), [(pam0, 1, 0x30)]);
    }
    // One access, if the configuration window is open.
    let mut machine = FakeMachine::new();
    let range = PhysRange::new(PhysAddr::new(0xb000_0000), 256 << 20).unwrap();
    let window = EcamWindow { range, longest: LongestAccess::Qword };
    open_f_segment(&mut machine, ConfigAccess::Ecam(window), chipset(&Q35));
    assert_eq!(machine.memory.bytes(0xb000_0090, 1), [0x30]);
    assert!(machine.accesses.iter().all(|access| !matches!(access, Access::Out(..))), "{:?}", machine.accesses);
}

#[test]
fn the_keyboard_controller_translates() {
    for board in [&Q35 as &'static dyn Board, &Pc] {
        let mut machine = FakeMachine::new();
        program_board(&mut machine, board, GIB);
        // The command comes before its byte.
        let wanted = [Access::Out(0x64, 1, 0x60), Access::Out(0x60, 1, 0x43)];
        assert!(machine.accesses.windows(2).any(|accesses| accesses == wanted), "{board:?}: {:?}", machine.accesses);
    }
}

/// The start of the uncached ranges in these registers, all of which reach up to 4 GiB, and the default type's register.
fn memory_types(machine: &FakeMachine) -> (Option<u64>, Option<u64>) {
    let ranges = (0..8).map(|i| 0x200 + 2 * i).filter(|base| machine.msrs.contains_key(base));
    (ranges.map(|base| machine.msrs[&base]).min(), machine.msrs.get(&0x2ff).copied())
}

fn with_mtrrs(mut machine: FakeMachine) -> FakeMachine {
    machine.cpuid.insert((1, 0), Cpuid { edx: 1 << 12, ..Cpuid::default() });
    machine.msrs.insert(0xfe, 0x508);
    machine
}

fn set_up(machine: &mut FakeMachine, fw_cfg: &FwCfg, map: HostMap) -> (Platform, Devices) {
    let mut map = MemoryMap::new(map);
    let platform = Platform::program(machine, fw_cfg, &map);
    let devices = platform.set_up_pci(&mut Boot { machine, fw_cfg, map: &mut map, start: &Start::Reset }).unwrap();
    platform.set_up_cpus(machine, fw_cfg);
    (platform, devices)
}

#[test]
fn memory_types_are_set_on_every_board_from_the_end_of_ram_up() {
    for bridge in [Some(0x0d57_8086), None] {
        // RAM below 4 GiB in MiB, and the start of the devices: at least 2 GiB, where four ranges cover them.
        for (ram, devices) in
            [(128, 0x8000_0000), (2048, 0x8000_0000), (2500, 0x9d00_0000), (3072, 0xc000_0000), (4096, 0xfec0_0000)]
        {
            let machine = match bridge {
                Some(id) => FakeMachine::new().with(FakeConfigPorts::with_host_bridge(id)),
                None => FakeMachine::new(),
            };
            let (mut machine, fw_cfg) = qemu(with_mtrrs(machine), &["etc/table-loader"]);
            let mut map = HostMap::default();
            map.describe(PhysRange::new(PhysAddr::default(), ram << 20).unwrap(), MemoryType::CONVENTIONAL).unwrap();
            set_up(&mut machine, &fw_cfg, map);
            assert_eq!(memory_types(&machine), (Some(devices), Some(0xc06)), "{bridge:x?}, {ram} MiB");
        }
    }
}

#[test]
fn memory_types_that_another_host_has_set_for_its_own_board_are_kept() {
    let seen = |is_qemu: bool, bridge, default_type| {
        let device = FakeFwCfg::new(true).with_file("etc/table-loader", &[0; 8]);
        let device = if is_qemu { device.with_file(QEMU_FILE, &[]) } else { device };
        let mut machine = with_mtrrs(FakeMachine::new().with(FakeConfigPorts::with_host_bridge(bridge)).with(device));
        machine.msrs.insert(0x2ff, default_type);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        assert_eq!(fw_cfg.host_kind().is_qemu(), is_qemu);
        set_up(&mut machine, &fw_cfg, map(0, &[]));
        memory_types(&machine)
    };
    const CROSVM: u32 = 0x1237_8086;
    assert_eq!(seen(false, CROSVM, 0x806), (None, Some(0x806)));
    // The values after a reset, and those that the firmware has written on a QEMU that was not reset.
    assert_eq!(seen(false, CROSVM, 0), (Some(0x8000_0000), Some(0xc06)));
    assert_eq!(seen(true, 0x0d57_8086, 0x806), (Some(0x8000_0000), Some(0xc06)));
}

/// A keyboard controller with this status.
struct Keyboard(u32);

impl FakeDevice for Keyboard {
    fn claims(&self, port: u16) -> bool {
        port == 0x64 || port == 0x60
    }
    fn read(&mut self, _port: u16, _size: u8, _memory: &mut FakeMemory) -> u32 {
        self.0
    }
    fn write(&mut self, _port: u16, _size: u8, _value: u32, _memory: &mut FakeMemory) {}
}

#[test]
fn the_keyboard_controller_of_a_machine_without_pci_translates_if_there_is_one() {
    let accesses = |machine: FakeMachine, files: &[&str]| {
        let accesses = programmed(machine, None, files).accesses;
        let keyboard = |access: &Access| matches!(access, Access::In(0x60 | 0x64, ..) | Access::Out(0x60 | 0x64, ..));
        accesses.into_iter().filter(keyboard).collect::<Vec<_>>()
    };
    let isapc = accesses(FakeMachine::new().with(Keyboard(0x18)), &[]);
    assert_eq!(isapc, [Access::In(0x64, 1, 0x18), Access::Out(0x64, 1, 0x60), Access::Out(0x60, 1, 0x43)]);
    for absent in [0, u32::MAX] {
        let mut machine = FakeMachine::new();
        machine.absent = absent;
        assert_eq!(accesses(machine, &[]), [Access::In(0x64, 1, absent & 0xff)]);
    }
    // A microvm has none, and has one of these two files.
    for file in ["etc/table-loader", "etc/fdt"] {
        assert_eq!(accesses(FakeMachine::new().with(Keyboard(0x18)), &[file]), [], "{file}");
    }
}

#[test]
fn port_0x92_says_that_address_line_20_is_open() {
    for board in [&Q35 as &'static dyn Board, &Pc] {
        let mut machine = FakeMachine::new();
        program_board(&mut machine, board, GIB);
        let written = machine.accesses.iter().filter(|access| matches!(access, Access::Out(0x92, ..)));
        assert_eq!(written.collect::<Vec<_>>(), [&Access::Out(0x92, 1, 2)], "{board:?}: once, and without a reset");
    }
}

#[test]
fn an_unknown_host_bridge_is_not_programmed() {
    let config = FakeConfigPorts::with_host_bridge(0x0d57_8086);
    let writes = config.writes();
    let machine = FakeMachine::new().with(config);
    let (mut machine, fw_cfg) = qemu(machine, &["etc/smbios/smbios-anchor", "etc/table-loader"]);
    let (platform, devices) = set_up(&mut machine, &fw_cfg, map(0, &[]));
    assert_eq!((platform.board, platform.f_segment), (FOREIGN, false));
    assert_eq!(devices.iter().count(), 0);
    assert!(writes.borrow().is_empty());
    assert_eq!(platform.board.interrupt(3, Pin::A), None);
}

#[test]
fn on_other_hosts_the_host_bridge_ids_alone_do_not_identify_a_pc() {
    for (id, isa, isa_id, known) in
        [(0x1237_8086, at(1, 0, 0), 0x7000_8086, &Pc as &dyn Board), (0x29c0_8086, at(0x1f, 0, 0), 0x2918_8086, &Q35)]
    {
        let detect = |config: FakeConfigPorts| board((FakeMachine::new().with(config), FwCfg::absent()));
        let bridge = || FakeConfigPorts::with_host_bridge(id);
        assert_eq!(detect(bridge().with_function(isa, isa_id)), known);
        // crosvm: the 440FX's IDs, then any device, or none.
        assert_eq!(detect(bridge()), FOREIGN);
        assert_eq!(detect(bridge().with_function(isa, 0x1042_1af4)), FOREIGN);
        let (mut machine, fw_cfg) = qemu(FakeMachine::new().with(bridge()), &[]);
        assert_eq!(detect::board(&mut machine, &fw_cfg), known);
        assert_eq!(machine.accesses.len(), 2, "QEMU's host bridge ID suffices");
    }
}

#[test]
fn absent_power_management_is_not_written() {
    for (there, writes_there) in [(true, 2), (false, 0)] {
        let config = FakeConfigPorts::with_host_bridge(0x1237_8086);
        let config = if there { config.with_function(at(1, 3, 0), 0x7113_8086) } else { config };
        let writes = config.writes();
        program(&mut FakeMachine::new().with(config), &Pc, PhysAddr::new(GIB), HostKind::Other);
        let pm = at(1, 3, 0)..at(1, 4, 0);
        assert_eq!(writes.borrow().iter().filter(|(address, ..)| pm.contains(address)).count(), writes_there);
    }
}

#[test]
fn pci_memory_avoids_what_the_host_reserves_above_ram() {
    let (ecam, window) =
        ((0xe000_0000, 256 << 20), PhysRange::from_bounds(PhysAddr::new(3 * GIB), PhysAddr::new(0xfec0_0000)));
    let bounds = |reserved: &[(u64, u64)]| {
        let gap = unoccupied(&map(0, reserved), window.unwrap());
        (gap.start().get(), gap.end().get())
    };
    assert_eq!(bounds(&[]), (0xc000_0000, 0xfec0_0000));
    assert_eq!(bounds(&[ecam]), (0xc000_0000, 0xe000_0000));
    assert_eq!(bounds(&[(0xc000_0000, 256 << 20), ecam]), (0xd000_0000, 0xe000_0000));
    assert_eq!(bounds(&[(0xc100_0000, 0x1000)]), (0xc100_1000, 0xfec0_0000));
    assert_eq!(bounds(&[(0xb000_0000, 0x5000_0000)]), (0xc000_0000, 0xc000_0000));
}

#[test]
fn interrupts_rotate_as_on_the_real_boards() {
    // The figures are those that Linux prints for QEMU's devices under SeaBIOS.
    assert_eq!(Pc.interrupt(1, Pin::D), Some(11), "pc 00:01.2 USB");
    assert_eq!(Pc.interrupt(1, Pin::A), Some(9), "pc 00:01.3 power management");
    assert_eq!(Pc.interrupt(2, Pin::A), Some(10));
    assert_eq!(Pc.interrupt(3, Pin::A), Some(11));
    assert_eq!(Pc.interrupt(4, Pin::A), Some(11));
    assert_eq!(Q35.interrupt(2, Pin::A), Some(11));
    assert_eq!(Q35.interrupt(0x18, Pin::A), Some(10));
    assert_eq!(Q35.interrupt(0x1f, Pin::A), Some(10), "q35 00:1f.2 AHCI");
    assert_eq!(Q35.interrupt(0x1d, Pin::C), Some(11));
}

#[test]
fn pci_memory_begins_above_ram_and_ends_at_the_io_apic() {
    let (pc, q35): (&dyn Board, &dyn Board) = (&Pc, &Q35);
    for (board, ram_end, start) in [
        (q35, 128 << 20, 0xc000_0000),
        (q35, 3 * GIB + (512 << 20), 0xe000_0000),
        (pc, 128 << 20, 0x8000_0000),
        (pc, 2 * GIB, 0x8000_0000),
        (pc, 3 * GIB, 0xc000_0000),
        (pc, 3 * GIB + (512 << 20), 0xe000_0000),
        // The address from which four ranges of memory types reach up to 4 GiB.
        (pc, 3073 << 20, 0xc400_0000),
        (q35, 3501 << 20, 0xdae0_0000),
    ] {
        let memory = board.pci_memory(PhysAddr::new(ram_end)).unwrap();
        assert_eq!((memory.start().get(), memory.end().get()), (start, 0xfec0_0000), "{board:?} {ram_end:#x}");
    }
    assert_eq!(Q35.pci_memory(PhysAddr::new(0xff00_0000)), None);
    for board in [pc, q35] {
        let Chipset { ports, more_ports, .. } = board.chipset().unwrap();
        let len = |ports: &PortRange| ports.end() - ports.start();
        assert!(ports.start() >= 0x6000 && ports.end() == 0x1_0000);
        assert!(more_ports.start() == 0x1000 && len(more_ports) > len(ports));
    }
}

/// The end of RAM below 4 GiB with `-m`, in MiB (QEMU `hw/i386/pc_piix.c` and `pc_q35.c`).
fn low_ram_end(board: &'static dyn Board, mib: u64) -> PhysAddr {
    let (most, rest) = if board == &Q35 as &dyn Board { (2816, 2048) } else { (3584, 3072) };
    PhysAddr::new(if mib >= most { rest } else { mib } << 20)
}

#[test]
fn ram_is_cached_and_pci_is_uncached_with_any_memory_size() {
    for board in [&Q35 as &'static dyn Board, &Pc] {
        for mib in 1..=8192 {
            let ram_end = low_ram_end(board, mib);
            let low = board.pci_memory(ram_end).unwrap();
            let mut machine = FakeMachine::new();
            machine.cpuid.insert((1, 0), Cpuid { edx: 1 << 12, ..Cpuid::default() });
            machine.msrs.insert(0xfe, 0x508);
            let features = Features::read(&mut machine);
            let types = cpus::MemoryTypes::plan(&mut machine, features, low.start(), 40);
            let bases: Vec<_> =
                types.writes().filter(|write| (0x200..0x210).contains(&write.register)).step_by(2).collect();
            let uncached = bases.iter().map(|write| write.value).min().unwrap();
            assert!(ram_end.get() <= uncached && uncached == low.start().get() && bases.len() <= 4, "{board:?} {mib}M");
            assert!(low.len() >= 448 << 20, "{board:?} {mib}M leaves {low} for PCI");
        }
    }
}

fn map(ram_above: u64, reserved: &[(u64, u64)]) -> HostMap {
    let mut map = HostMap::default();
    let range = |start, len| PhysRange::new(PhysAddr::new(start), len).unwrap();
    map.describe(range(0, 2 * GIB), MemoryType::CONVENTIONAL).unwrap();
    if ram_above > 0 {
        map.describe(range(4 * GIB, ram_above), MemoryType::CONVENTIONAL).unwrap();
    }
    for &(start, len) in reserved {
        map.describe(range(start, len), MemoryType::RESERVED).unwrap();
    }
    map
}

#[test]
fn the_high_apertures_are_above_ram_and_within_the_cpus_address_bits() {
    let windows = |map: &Regions, reserved: Option<u64>, bits| {
        let all = high_apertures(map, reserved.map(PhysAddr::new), bits);
        all.map(|window| (window.start().get(), window.end().get())).collect::<Vec<_>>()
    };
    assert_eq!(windows(&map(0, &[]), None, 36), [(4 * GIB, 64 * GIB)]);
    assert_eq!(windows(&map(4 * GIB + 4096, &[]), None, 36), [(9 * GIB, 64 * GIB)]);
    // The host's space for memory that is plugged in later stays free.
    assert_eq!(windows(&map(4 * GIB, &[]), Some(40 * GIB), 36), [(40 * GIB, 64 * GIB)]);
    // No room: RAM up to the CPU's limit, or beyond.
    assert_eq!(windows(&map(60 * GIB, &[]), None, 36), []);
    assert_eq!(windows(&map(100 * GIB, &[]), None, 36), []);
    assert_eq!(windows(&map(0, &[]), Some(u64::MAX), 36), []);
}

/// QEMU's reservation for AMD's HyperTransport.
const HYPER_TRANSPORT: (u64, u64) = (0xfd << 32, 3 << 32);

#[test]
fn a_high_aperture_ends_at_a_reservation_and_another_begins_after_it() {
    let windows = |reserved: &[(u64, u64)], bits| {
        let all: Vec<_> = high_apertures(&map(0, reserved), None, bits).collect();
        all.into_iter().map(|window| (window.start().get() >> 30, window.end().get() >> 30)).collect::<Vec<_>>()
    };
    assert_eq!(windows(&[HYPER_TRANSPORT], 40), [(4, 1012)]);
    assert_eq!(windows(&[HYPER_TRANSPORT], 48), [(4, 1012), (1024, 1 << 18)]);
    // After a reservation that ends inside a GiB, and up to one that begins at a GiB.
    assert_eq!(windows(&[(8 * GIB + 4096, 4096), (10 * GIB, GIB)], 36), [(4, 8), (9, 10), (11, 64)]);
    // RAM that QEMU has moved above the reservation: the space below it is not used.
    let mut moved = map(0, &[HYPER_TRANSPORT]);
    moved.describe(PhysRange::new(PhysAddr::new(1 << 40), GIB).unwrap(), MemoryType::CONVENTIONAL).unwrap();
    let all: Vec<_> = high_apertures(&moved, None, 48).collect();
    assert_eq!(all, [PhysRange::from_bounds(PhysAddr::new((1 << 40) + GIB), PhysAddr::new(1 << 48)).unwrap()]);
}

proptest! {
    /// No aperture has a reserved byte, and together they have every whole GiB that is free.
    #[test]
    fn high_apertures_are_all_free_space_above_ram(
        ram in 0_u64..64,
        kept in proptest::option::of(4_u64..128),
        reserved in proptest::collection::vec((4 * 16_u64..160 * 16, 1_u64..80), 0..12),
        bits in 36_u8..=38,
    ) {
        // In units of 64 MiB.
        let reserved: Vec<_> = reserved.iter().map(|&(start, len)| (start << 26, len << 26)).collect();
        let map = map(ram * GIB, &reserved);
        let kept = kept.map(|gib| PhysAddr::new(gib * GIB));
        let windows: Vec<_> = high_apertures(&map, kept, bits).collect();
        let top = PhysAddr::new(1 << bits);
        let bottom = map.ram_end(PhysRange::from_bounds(PhysRange::LOW_4_GIB.end(), top).unwrap());
        let bottom = bottom.unwrap_or(PhysRange::LOW_4_GIB.end()).max(kept.unwrap_or_default());
        prop_assert!(windows.is_sorted_by(|a, b| a.end() <= b.start()), "{windows:?}");
        for window in &windows {
            prop_assert!(bottom <= window.start() && window.end() <= top && window.start().get() % GIB == 0, "{window}");
            prop_assert!(map.regions().all(|region| !region.range.overlaps(*window)), "{window}");
        }
        for gib in bottom.get().div_ceil(GIB)..top.get() / GIB {
            let whole = PhysRange::new(PhysAddr::new(gib * GIB), GIB).unwrap();
            let is_free = map.regions().all(|region| !region.range.overlaps(whole));
            prop_assert_eq!(windows.iter().any(|window| window.contains(whole)), is_free, "{}", whole);
        }
    }
}

#[test]
fn physical_bits_are_those_of_the_cpu_within_36_to_52() {
    let bits = |highest: u32, sizes: u32| {
        let mut machine = FakeMachine::new();
        machine.cpuid.insert((0x8000_0000, 0), Cpuid { eax: highest, ..Cpuid::default() });
        machine.cpuid.insert((0x8000_0008, 0), Cpuid { eax: sizes, ..Cpuid::default() });
        physical_bits(&mut machine)
    };
    assert_eq!(bits(0x8000_0008, 0x3028), 40);
    assert_eq!(bits(0x8000_0008, 0x0000), 36, "a CPU that reports zero");
    assert_eq!(bits(0x8000_0008, 0x00ff), 52, "a 64-bit window beyond what page tables can hold");
    assert_eq!(bits(0x8000_0001, 0x3028), 36, "a CPU without the leaf");
}

/// QEMU's microvm is identified by its files. On all other machines the host bridge is read.
#[test]
fn a_microvm_is_detected_without_reading_a_host_bridge() {
    let is_asked = |files: &[&str]| {
        let machine = programmed(FakeMachine::new(), None, files);
        machine.accesses.iter().any(|access| matches!(access, Access::Out(0xcf8, ..)))
    };
    for file in ["etc/table-loader", "etc/fdt"] {
        assert!(!is_asked(&[file]));
        for of_a_pc in ["etc/system-states", "etc/smbios/smbios-anchor"] {
            assert!(is_asked(&[file, of_a_pc]), "{file}, {of_a_pc}");
        }
    }
    assert!(is_asked(&[]), "an isapc");
    let mut other = FakeMachine::new().with(FakeFwCfg::new(true).with_file("etc/table-loader", &[0; 8]));
    let fw_cfg = FwCfg::probe(&mut other).unwrap();
    Platform::program(&mut other, &fw_cfg, &map(0, &[]));
    assert!(other.accesses.iter().any(|access| matches!(access, Access::Out(0xcf8, ..))), "another host");
}

/// With `pcie=on`, QEMU's generic host bridge is at a place of its own.
#[test]
fn the_functions_of_a_microvm_get_memory_and_no_ports() {
    let disk = FakeFunction::new(0x1001_1af4, 0x01_0000).bar(0, BarKind::Io, 7);
    let disk = disk.bar(4, BarKind::Memory64 { prefetchable: true }, 14);
    let port = FakeFunction::port(0x000c_1b36, 4);
    let mut pci = FakePci::default().with(On::Root(0), 0, 0, FakeFunction::new(0x0008_1b36, 0x06_0000)).with(
        On::Root(0),
        1,
        0,
        disk.clone(),
    );
    let port = pci.add(On::Root(0), 2, 0, port);
    pci.add(On::Behind(port), 0, 0, FakeFunction::new(0x0010_1b36, 0x01_0802).bar(0, disk.bars()[1].1, 14));
    let pci = Rc::new(RefCell::new(pci));
    let mut machine = FakeMachine::new();
    machine.registers.push(Box::new(FakeWindow { pci, start: 0xe000_0000, longest: 8 }));
    let devices = microvm::set_up_pci(&mut machine);
    let memory = PhysRange::new(PhysAddr::new(0xc000_0000), 512 << 20).unwrap();
    let found: Vec<_> = devices.iter().filter(|device| !device.function.bars.is_empty()).collect();
    let [disk, nvme] = found[..] else { panic!("two functions with BARs") };
    for (device, register) in [(disk, 4), (nvme, 0)] {
        assert!(device.memory(register).is_some_and(|range| memory.contains(range)), "{device:?}");
        assert!(device.may_decode(COMMAND_MEMORY));
    }
    assert_eq!(disk.ports(0), None);
    assert_eq!(machine.accesses, [], "no port is accessed");
}

#[test]
fn a_microvm_without_pci_is_asked_once() {
    for other in [FakePci::default(), FakePci::default().with(On::Root(0), 0, 0, FakeFunction::new(1, 0x06_0000))] {
        let pci = Rc::new(RefCell::new(other));
        let mut machine = FakeMachine::new();
        machine.registers.push(Box::new(FakeWindow { pci: pci.clone(), start: 0xe000_0000, longest: 8 }));
        assert_eq!(microvm::set_up_pci(&mut machine).iter().count(), 0);
        // In two dwords.
        assert_eq!(pci.borrow().accesses(), 2);
    }
}
