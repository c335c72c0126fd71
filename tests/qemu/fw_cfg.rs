//! The module `fw_cfg` with QEMU's own devices: on ports of a PC, and with registers in memory on a machine for Arm.
//! No guest runs: the module does, on this host.

use std::fs;
use std::path::PathBuf;

use firstlight::addr::PhysAddr;
use firstlight::fw_cfg::{Error, FwCfg, HostKind, Item, Key, Transport};
use tempfile::TempDir;

use crate::environment;
use crate::qtest::Qtest;
use crate::random;

/// A file of the user's.
const NAME: &str = "opt/org.firstlight/test";
const COMMAND_LINE: &str = "console=ttyAMA0";

/// Where QEMU's `virt` for Arm has the registers (`hw/arm/virt.c`, `base_memmap`).
const VIRT_REGISTERS: u64 = 0x0902_0000;
/// RAM of that machine after the device tree, and RAM of a PC.
const VIRT_RAM: u64 = 0x4200_0000;
const PC_RAM: u64 = 0x10_0000;
/// As much RAM as the tests use.
const RAM_LEN: u64 = 32 << 20;
/// Where in it items are loaded to.
const LOADED: u64 = 16 << 20;

/// The file that a machine is started with.
struct File {
    folder: TempDir,
    bytes: Vec<u8>,
}

impl File {
    fn new(len: usize) -> Self {
        let file = Self { folder: TempDir::new().expect("a temporary folder"), bytes: random::bytes(9, len) };
        fs::write(file.path(), &file.bytes).expect("a file in the temporary folder");
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("file")
    }

    /// QEMU's arguments for it.
    fn arguments(&self) -> String {
        format!("-m 128M -fw_cfg name={NAME},file={}", self.path().display())
    }
}

/// Reads, loads and writes items in all the ways there are. RAM begins at `ram`.
fn check(host: &mut Qtest, ram: u64, transport: Transport, expected: &[u8]) {
    let fw_cfg = FwCfg::probe(host).unwrap();
    assert_eq!(fw_cfg.transport(host), transport);
    assert_eq!(fw_cfg.find("opt/org.firstlight/tes"), None);
    assert_eq!(fw_cfg.read_u32(host, Key::new(0x1f)), 0, "an item that there is not");

    let item = fw_cfg.find(NAME).expect("the file");
    assert_eq!(item.len() as usize, expected.len());
    assert!(fw_cfg.read_all(host, item, item.len()).unwrap() == expected, "read whole");
    let mut part = [0xaa; 100];
    fw_cfg.read_at(host, item, item.len() - 40, &mut part);
    assert_eq!(part[..40], expected[expected.len() - 40..]);
    assert_eq!(part[40..], [0; 60]);

    let to = ram + LOADED;
    let range = fw_cfg.load(host, item, PhysAddr::new(to)).unwrap();
    assert_eq!(range.len() as usize, expected.len());
    assert!(host.ram(to, expected.len() + 1) == [expected, &[0]].concat(), "loaded whole");
    fw_cfg.load_from(host, item, 1000, PhysAddr::new(to)).unwrap();
    assert!(host.ram(to, expected.len() - 1000) == expected[1000..], "loaded from an offset");

    // One item is writable, and exists only with DMA. The user's file is not writable.
    let refused = fw_cfg.write(host, item, 0, &[1]).unwrap_err();
    if transport == Transport::QemuDma {
        assert!(matches!(refused, Error::Refused { .. }), "{refused}");
        let screen = fw_cfg.find("etc/ramfb").expect("the item of ramfb");
        // 16 x 16 pixels at address 0, in a format that does not exist.
        let contents = [&[0; 16][..], &[0, 0, 0, 16, 0, 0, 0, 16, 0, 0, 0, 64]].concat();
        fw_cfg.write(host, screen, 0, &contents).unwrap();
        assert_eq!(fw_cfg.read_all(host, screen, 28).unwrap(), contents);
    } else {
        assert!(matches!(refused, Error::NotWritable { .. }), "{refused}");
    }
}

/// Starts `virt` with the file, as its kernel and initrd too.
fn virt(file: &File, more: &str) -> Qtest {
    let path = file.path();
    let kernel = format!("-kernel {0} -initrd {0} -append {COMMAND_LINE}", path.display());
    // With a firmware, QEMU leaves loading to it. The firmware does not run.
    let firmware = format!("-bios {}", path.display());
    let arguments = format!("-M virt -cpu cortex-a57 {firmware} {kernel} {} {more}", file.arguments());
    Qtest::start("qemu-system-aarch64", &arguments, VIRT_RAM..VIRT_RAM + RAM_LEN).with_fw_cfg_at(VIRT_REGISTERS)
}

/// Starts `pc` with the file.
fn pc(file: &File, more: &str) -> Qtest {
    let arguments = format!("-M pc {} {more}", file.arguments());
    Qtest::start("qemu-system-x86_64", &arguments, PC_RAM..PC_RAM + RAM_LEN)
}

#[test]
fn fw_cfg_works_through_registers_in_memory_of_an_arm_machine() {
    let file = File::new(70_001);
    let mut host = virt(&file, "-device ramfb");
    check(&mut host, VIRT_RAM, Transport::QemuDma, &file.bytes);

    // What a firmware would boot there.
    let fw_cfg = FwCfg::probe(&mut host).unwrap();
    for (size, data) in [(Key::KERNEL_SIZE, Key::KERNEL_DATA), (Key::INITRD_SIZE, Key::INITRD_DATA)] {
        let len = fw_cfg.read_u32(&mut host, size);
        assert_eq!(len as usize, file.bytes.len());
        fw_cfg.load(&mut host, Item::new(data, len), PhysAddr::new(VIRT_RAM + LOADED)).unwrap();
        assert!(host.ram(VIRT_RAM + LOADED, file.bytes.len()) == file.bytes);
    }
    let len = fw_cfg.read_u32(&mut host, Key::CMDLINE_SIZE);
    let text = fw_cfg.read_all(&mut host, Item::new(Key::CMDLINE_DATA, len), len).unwrap();
    assert_eq!(text, format!("{COMMAND_LINE}\0").as_bytes());
}

#[test]
fn fw_cfg_works_through_registers_in_memory_without_dma() {
    let file = File::new(3001);
    let mut host = virt(&file, "-global fw_cfg_mem.dma_enabled=off");
    check(&mut host, VIRT_RAM, Transport::Ports, &file.bytes);
}

#[test]
fn fw_cfg_works_through_ports_of_a_pc() {
    let ports = "-global fw_cfg_io.dma_enabled=off";
    for (more, transport) in [("-device ramfb", Transport::QemuDma), (ports, Transport::Ports)] {
        let file = File::new(3001);
        check(&mut pc(&file, more), PC_RAM, transport, &file.bytes);
    }
}

/// Machines with different files: with DMA and without, with the order of files before 2.6, with and without ACPI tables.
#[test]
fn every_machine_type_is_known_to_be_qemu() {
    let types = ["q35", "pc", "microvm", "isapc", "pc-i440fx-2.4", "pc-i440fx-2.5", "pc-q35-2.5", "pc-q35-6.2"];
    let cases = types.into_iter().flat_map(|machine| ["", ",acpi=off"].map(|more| (machine, more)));
    for (machine, more) in cases.filter(|&case| case != ("isapc", ",acpi=off")) {
        for program in ["qemu-system-x86_64".into()].into_iter().chain(environment::newer_qemu()) {
            for dma in ["on", "off"] {
                let arguments = format!("-M {machine}{more} -m 128M -nodefaults -global fw_cfg_io.dma_enabled={dma}");
                let mut host = Qtest::start(&program.to_string_lossy(), &arguments, PC_RAM..PC_RAM + RAM_LEN);
                let fw_cfg = FwCfg::probe(&mut host).unwrap();
                assert_eq!(fw_cfg.host_kind(), HostKind::Qemu, "{arguments}");
                assert!(dma == "on" || fw_cfg.transport(&host) == Transport::Ports, "{arguments}");
            }
        }
    }
}
