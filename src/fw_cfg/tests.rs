use std::string::ToString;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::fakes::fw_cfg::{Absent, AddressReads, FakeFwCfg, Misdeed, Quirks};
use crate::fakes::known_hosts::{KnownHost, known_hosts};
use crate::fakes::machine::{Access, FakeMachine};
use crate::hal::Clock as _;
use crate::hal::registers::MemoryRegisters;
use crate::layout;

/// The address of the registers on QEMU's `virt` for Arm.
const BASE: u64 = 0x0902_0000;

/// Where a machine has the device's registers.
#[derive(Clone, Copy)]
enum Way {
    Ports,
    Memory,
}

impl Way {
    /// A machine with `device`.
    fn with(self, device: FakeFwCfg) -> FakeMachine {
        match self {
            Self::Ports => FakeMachine::new().with(device),
            Self::Memory => FakeMachine::new().with_fw_cfg_at(BASE, device),
        }
    }

    /// A machine where there is no device: every byte reads as `absent`.
    fn without_device(self, absent: u8) -> FakeMachine {
        let mut machine = FakeMachine::new();
        machine.absent = u32::from_ne_bytes([absent; 4]);
        if let Self::Memory = self {
            machine.memory.store(BASE, &[absent; 24]);
            machine.fw_cfg = Some(MemoryRegisters::new(&mut machine, PhysAddr::new(BASE)).unwrap());
        }
        machine
    }
}

/// Makes two tests of each function: by ports, and by registers in memory.
macro_rules! tests_by_either_way {
    ($($test:ident)*) => {
        mod by_ports {
            $(#[test]
            fn $test() {
                super::$test(super::Way::Ports);
            })*
        }
        mod by_memory {
            $(#[test]
            fn $test() {
                super::$test(super::Way::Memory);
            })*
        }
    };
}

tests_by_either_way! {
    every_known_host_is_read_alike
    a_read_at_an_offset_skips_on_every_transport
    every_known_host_loads_a_part_of_an_item
    skipping_many_bytes_takes_one_transfer_for_each_sector
    qemu_skips_any_number_of_bytes_in_one_transfer
    a_write_goes_to_its_offset
    an_absent_device_is_an_error_that_shows_what_was_read
    an_item_that_a_host_does_not_have_reads_as_zero
    a_numbered_item_shorter_than_the_buffer_is_padded_with_zeros
    a_number_equal_to_the_count_of_files_is_read_as_a_number
    each_known_host_gets_its_best_transport
    qemu_is_identified_by_its_files_with_any_transport
    after_a_transfer_that_never_ends_and_a_reset_the_next_one_reads_as_zeros
    keys_in_a_directory_come_in_any_order
    ports_take_over_where_dma_does_not_work
    a_write_that_never_ends_times_out_and_a_refused_one_is_an_error
    nothing_is_loaded_over_the_firmware_or_past_4_gib
    a_directory_that_claims_too_many_files_is_refused
    a_large_directory_is_read_whole
    names_are_compared_whole
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + 3) as u8).collect()
}

fn every_known_host_is_read_alike(way: Way) {
    for host in known_hosts() {
        let name = host.name;
        let device = host
            .device()
            .with_item(0x08, &0x1234_5678u32.to_le_bytes())
            .with_item(0x11, &bytes(5000))
            .with_file("etc/e820", &bytes(40))
            .with_file("etc/table-loader", &bytes(300));
        let record = device.record();
        let mut machine = way.with(device);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        // The directory itself has no length.
        record.borrow_mut().past_end = 0;

        assert_eq!(fw_cfg.read_u32(&mut machine, Key::KERNEL_SIZE), 0x1234_5678, "{name}");
        let item = fw_cfg.find("etc/table-loader").unwrap();
        assert_eq!(item.len(), 300);
        assert_eq!(fw_cfg.read_all(&mut machine, item, 4096).unwrap(), bytes(300), "{name}");

        let to = PhysAddr::new(0x10_0000);
        let range = fw_cfg.load(&mut machine, Item::new(Key::KERNEL_DATA, 5000), to).unwrap();
        assert_eq!(range.len(), 5000);
        assert_eq!(machine.memory.bytes(to.get(), 5001), [bytes(5000), vec![0]].concat(), "{name}");

        // The buffer is longer than the item. The rest becomes zero, and nothing is read past the end.
        let mut buffer = [0xaa; 64];
        fw_cfg.read(&mut machine, fw_cfg.find("etc/e820").unwrap(), &mut buffer);
        assert_eq!(buffer.to_vec(), [bytes(40), vec![0; 24]].concat(), "{name}");
        assert_eq!(record.borrow().past_end, 0, "{name}");
        assert_eq!(record.borrow().fatal, Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn a_transfer_on_qemu_takes_one_port_write() {
    let device = FakeFwCfg::new(true).with_item(0x11, &bytes(100));
    let mut machine = FakeMachine::new().with(device);
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    assert_eq!(fw_cfg.transport(&machine), Transport::QemuDma);
    // A read of the signature, a write to forget half an address, a transfer of the directory's count, which is zero.
    assert_eq!(machine.accesses.len(), 3);
    machine.accesses.clear();
    fw_cfg.load(&mut machine, Item::new(Key::KERNEL_DATA, 100), PhysAddr::new(0x10_0000)).unwrap();
    assert!(matches!(machine.accesses[..], [Access::Out(0x518, 4, _)]), "{:?}", machine.accesses);
}

/// QEMU keeps the high half over a reset. With it, the next write of the low half would be an address above 4 GiB.
#[test]
fn half_an_address_left_by_a_guest_is_cleared_before_the_first_transfer() {
    for high in [1, 0x8000_0000, u32::MAX] {
        let device = FakeFwCfg::new(true).with_file("etc/e820", &bytes(20)).with_address_left(high);
        let record = device.record();
        let mut machine = FakeMachine::new().with(device);
        machine.memory.keep_stores();
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        assert_eq!((fw_cfg.transport(&machine), record.borrow().transfers), (Transport::QemuDma, 1));
        assert_eq!(fw_cfg.find("etc/e820").map(Item::len), Some(20), "{high:#x}");
        assert!(machine.memory.stores().iter().all(|store| store.end <= 1 << 32), "{:x?}", machine.memory.stores());
    }
}

#[test]
fn a_transfer_by_registers_in_memory_takes_one_write() {
    let device = FakeFwCfg::new(true).with_item(0x11, &bytes(100));
    let record = device.record();
    let mut machine = Way::Memory.with(device);
    record.borrow_mut().mapped.clear();
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    assert_eq!(fw_cfg.transport(&machine), Transport::QemuDma);
    fw_cfg.load(&mut machine, Item::new(Key::KERNEL_DATA, 100), PhysAddr::new(0x10_0000)).unwrap();
    // A read of the signature, the directory's count, the item.
    assert_eq!(record.borrow().mapped, [(16, 4), (16, 8), (16, 8)]);
    assert_eq!(machine.accesses, [], "no port");
}

#[test]
fn registers_in_inaccessible_memory_are_refused() {
    let end = layout::FIRMWARE_RAM.start().get();
    for base in [BASE + 4, end - 16, end, 1 << 32, u64::MAX - 7] {
        assert!(MemoryRegisters::new(&mut FakeMachine::new(), PhysAddr::new(base)).is_err(), "{base:#x}");
    }
    assert!(MemoryRegisters::new(&mut FakeMachine::new(), PhysAddr::new(end - 24)).is_ok());
}

fn a_read_at_an_offset_skips_on_every_transport(way: Way) {
    for host in known_hosts() {
        if host.quirks.ignores_skip {
            // StratoVirt reads as QEMU does, so it gets a SKIP, which it ignores. The firmware reads no item in parts.
            continue;
        }
        let name = host.name;
        let device = host.device().with_file("file", &bytes(400));
        let mut machine = way.with(device);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        let item = fw_cfg.find("file").unwrap();
        let mut buffer = [0; 16];
        fw_cfg.read_at(&mut machine, item, 390, &mut buffer);
        assert_eq!(buffer[..10], bytes(400)[390..], "{name}");
        assert_eq!(buffer[10..], [0; 6], "{name}");
        fw_cfg.read_at(&mut machine, item, 500, &mut buffer);
        assert_eq!(buffer, [0; 16], "{name}");
    }
}

/// Including StratoVirt, which ignores SKIP.
fn every_known_host_loads_a_part_of_an_item(way: Way) {
    for host in known_hosts() {
        let name = host.name;
        let device = host.device().with_file("file", &bytes(5000));
        let record = device.record();
        let mut machine = way.with(device);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        record.borrow_mut().past_end = 0;
        let item = fw_cfg.find("file").unwrap();
        // Offsets that leave more than the rest, as much, less, nothing, and all of the item; then offsets past its
        // end.
        for offset in [4000, 2500, 1000, 0, 4999, 5000, 6000] {
            let to = PhysAddr::new(0x10_0000);
            machine.memory.store(to.get(), &[0xee; 5001]);
            let range = fw_cfg.load_from(&mut machine, item, offset, to).unwrap();
            let rest = bytes(5000).get(offset as usize..).unwrap_or_default().to_vec();
            assert_eq!(range.len(), rest.len() as u64, "{name}");
            let behind = vec![0xee; 5001 - rest.len()];
            assert!(machine.memory.bytes(to.get(), 5001) == [rest, behind].concat(), "{name} from {offset}");
        }
        assert_eq!(record.borrow().past_end, 0, "{name}");
        assert_eq!(record.borrow().fatal, Vec::<&str>::new(), "{name}");
    }
}

fn skipping_many_bytes_takes_one_transfer_for_each_sector(way: Way) {
    // A kernel of one byte behind the longest setup code.
    let (offset, last) = (256 * 512, 0x5a);
    let mut file = bytes(offset);
    file.push(last);
    for host in known_hosts() {
        let device = host.device().with_file("file", &file);
        let record = device.record();
        let mut machine = way.with(device);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        let before = record.borrow().transfers;
        let to = PhysAddr::new(0x10_0000);
        fw_cfg.load_from(&mut machine, fw_cfg.find("file").unwrap(), offset as u32, to).unwrap();
        assert_eq!(machine.memory.bytes(to.get(), 2), [last, 0], "{}", host.name);
        let transfers = record.borrow().transfers - before;
        assert!(transfers <= 257, "{}: {transfers}", host.name);
    }
}

fn qemu_skips_any_number_of_bytes_in_one_transfer(way: Way) {
    for host in known_hosts().into_iter().filter(|host| host.dma) {
        let device = host.device().with_file("file", &bytes(5000));
        let record = device.record();
        let mut machine = way.with(device);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        if !fw_cfg.host_kind().is_qemu() {
            continue;
        }
        let before = record.borrow().transfers;
        let to = PhysAddr::new(0x10_0000);
        fw_cfg.load_from(&mut machine, fw_cfg.find("file").unwrap(), 4990, to).unwrap();
        assert_eq!(machine.memory.bytes(to.get(), 11), [&bytes(5000)[4990..], &[0]].concat(), "{}", host.name);
        assert_eq!(record.borrow().transfers - before, 2, "{}", host.name);
    }
}

fn a_write_goes_to_its_offset(way: Way) {
    let device = FakeFwCfg::new(true).with_file("etc/vmgenid_addr", &[0; 8]);
    let record = device.record();
    let mut machine = way.with(device);
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let item = fw_cfg.find("etc/vmgenid_addr").unwrap();
    fw_cfg.write(&mut machine, item, 4, &[1, 2, 3, 4]).unwrap();
    fw_cfg.write(&mut machine, item, 0, &[5; 8]).unwrap();
    assert_eq!(record.borrow().written, [(0x20, 4, vec![1, 2, 3, 4]), (0x20, 0, vec![5; 8])]);
    // The longest single write, then one byte more.
    let device = FakeFwCfg::new(true).with_file("file", &[0; 64]);
    let record = device.record();
    let mut machine = way.with(device);
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let item = fw_cfg.find("file").unwrap();
    fw_cfg.write(&mut machine, item, 0, &bytes(MOST_WRITTEN)).unwrap();
    assert_eq!(record.borrow().written, [(0x20, 0, bytes(MOST_WRITTEN))]);
    assert!(matches!(fw_cfg.write(&mut machine, item, 0, &bytes(MOST_WRITTEN + 1)), Err(Error::NotWritable { .. })));
    // Past the end, also by overflow, and without DMA.
    assert!(matches!(fw_cfg.write(&mut machine, item, 61, &[0; 4]), Err(Error::NotWritable { .. })));
    assert!(matches!(fw_cfg.write(&mut machine, item, u32::MAX, &[0; 4]), Err(Error::NotWritable { .. })));
    let mut machine = way.with(FakeFwCfg::new(false).with_file("etc/vmgenid_addr", &[0; 8]));
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let item = fw_cfg.find("etc/vmgenid_addr").unwrap();
    assert!(matches!(fw_cfg.write(&mut machine, item, 0, &[0; 4]), Err(Error::NotWritable { .. })));
}

fn an_absent_device_is_an_error_that_shows_what_was_read(way: Way) {
    for absent in [0, u8::MAX] {
        let mut machine = way.without_device(absent);
        let error = FwCfg::probe(&mut machine).unwrap_err();
        assert_eq!(error, Error::NoDevice { seen: [absent; 4] });
        assert!(error.to_string().contains("q35"), "{error}");
    }
}

fn an_item_that_a_host_does_not_have_reads_as_zero(way: Way) {
    for host in known_hosts() {
        let device = host.device().with_item(0x11, &bytes(50)).with_file("opt/file", &bytes(9));
        let record = device.record();
        let mut machine = way.with(device);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        let transport = fw_cfg.transport(&machine);
        // Another item is selected before.
        fw_cfg.load(&mut machine, Item::new(Key::KERNEL_DATA, 50), PhysAddr::new(0x10_0000)).unwrap();
        for key in [Key::KERNEL_SIZE, Key::NB_CPUS, Key::CMDLINE_SIZE] {
            assert_eq!(fw_cfg.read_u32(&mut machine, key), 0, "{} {key}", host.name);
        }
        assert_eq!(fw_cfg.find("etc/e820"), None);
        assert_eq!(fw_cfg.transport(&machine), transport, "{}", host.name);
        assert_eq!(record.borrow().fatal, Vec::<&str>::new(), "{}", host.name);
    }
}

fn a_numbered_item_shorter_than_the_buffer_is_padded_with_zeros(way: Way) {
    for host in known_hosts() {
        let mut machine = way.with(host.device().with_item(0x05, &3u16.to_le_bytes()));
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        let mut buffer = [0xaa; 4];
        fw_cfg.read(&mut machine, Item::new(Key::NB_CPUS, 4), &mut buffer);
        assert_eq!(buffer, [3, 0, 0, 0], "{}", host.name);
    }
}

fn a_number_equal_to_the_count_of_files_is_read_as_a_number(way: Way) {
    for host in known_hosts() {
        let files = if host.quirks.lists_numbered_items { 4 } else { 1 };
        let size = u32::to_be_bytes(files);
        let device = host.device().with_item(0x0b, &size).with_file("opt/file", &bytes(9));
        let mut machine = way.with(device);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        let read = fw_cfg.read_u32(&mut machine, Key::INITRD_SIZE);
        assert_eq!(read, u32::from_le_bytes(size), "{}", host.name);
    }
}

fn each_known_host_gets_its_best_transport(way: Way) {
    for host in known_hosts() {
        let mut machine = way.with(host.device());
        let expected = match (host.dma, host.quirks.address_reads) {
            (true, AddressReads::AsQemu) => Transport::QemuDma,
            (true, _) => Transport::PortableDma,
            (false, _) => Transport::Ports,
        };
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        assert_eq!(fw_cfg.transport(&machine), expected, "{}", host.name);
    }
}

/// The device of a host with its files, on a machine.
fn with_files(way: Way, host: &KnownHost, quirks: Quirks) -> FakeMachine {
    let device = FakeFwCfg::new(host.dma).with_quirks(quirks);
    way.with(host.files(64 << 20).iter().fold(device, |device, (name, bytes)| device.with_file(name, bytes)))
}

fn qemu_is_identified_by_its_files_with_any_transport(way: Way) {
    for host in known_hosts() {
        let mut machine = with_files(way, &host, host.quirks);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        let expected = match host.name {
            "QEMU" | "QEMU without DMA" => HostKind::Qemu,
            "crosvm" => HostKind::Crosvm,
            _ => HostKind::Other,
        };
        assert_eq!(fw_cfg.host_kind(), expected, "{}", host.name);
    }
    // The files of QEMU 7.2's `pc-i440fx-2.4,acpi=off`, `pc-q35-2.4` without other files, and `isapc`.
    for files in [
        &["etc/boot-fail-wait", "etc/e820", "genroms/kvmvapic.bin", "bootorder"][..],
        &["etc/boot-fail-wait", "etc/e820", "etc/system-states", "bootorder"],
        &["bios-geometry", "bootorder", "etc/boot-fail-wait", "etc/e820"],
    ] {
        for dma in [true, false] {
            let device = files.iter().fold(FakeFwCfg::new(dma), |device, name| device.with_file(name, &[]));
            let fw_cfg = FwCfg::probe(&mut way.with(device)).unwrap();
            assert_eq!(fw_cfg.host_kind(), HostKind::Qemu, "{files:?}");
        }
    }
    assert_eq!(FwCfg::absent().host_kind(), HostKind::WithoutDevice);
}

#[test]
fn the_host_is_still_qemu_after_dma_is_given_up() {
    let qemu = known_hosts()[0];
    let mut machine = with_files(Way::Ports, &qemu, Quirks { misdeed: Some((2, Misdeed::NeverEnds)), ..qemu.quirks });
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    fw_cfg.read(&mut machine, fw_cfg.find("etc/e820").unwrap(), &mut [0; 4]);
    assert_eq!((fw_cfg.transport(&machine), fw_cfg.host_kind()), (Transport::Ports, HostKind::Qemu));
}

/// As observed on StratoVirt.
fn after_a_transfer_that_never_ends_and_a_reset_the_next_one_reads_as_zeros(way: Way) {
    let quirks = Quirks { absent: Absent::NeverEnds, ..Quirks::default() };
    let mut machine = way.with(FakeFwCfg::new(true).with_quirks(quirks).with_file("file", &bytes(8)));
    let read = |machine: &mut FakeMachine, key: u16| {
        let fw_cfg = FwCfg { transport: Transport::QemuDma, ..FwCfg::absent() };
        let mut buffer = [0xaa; 8];
        fw_cfg.read(machine, Item::new(Key::new(key), 8), &mut buffer);
        let transport = fw_cfg.transport(machine);
        // As after a reset, which the device does not notice.
        machine.is_lent_for_good = false;
        (transport, buffer.to_vec())
    };
    assert_eq!(read(&mut machine, 0x40).0, Transport::Ports, "the transfer does not end");
    assert_eq!(read(&mut machine, 0x20), (Transport::QemuDma, vec![0; 8]));
    assert_eq!(read(&mut machine, 0x20), (Transport::QemuDma, bytes(8)));
}

#[test]
fn the_documentation_lists_every_known_host_with_its_transport() {
    let page = include_str!("../../docs/hosts.md");
    let ends = ["| ports |", "| DMA |", "| DMA, selected by port |"];
    let rows: Vec<_> = page.lines().filter(|line| ends.iter().any(|end| line.ends_with(end))).collect();
    assert_eq!(rows.len(), known_hosts().len(), "{rows:?}");
    for host in known_hosts() {
        let mut machine = FakeMachine::new().with(host.device());
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        let transport = fw_cfg.transport(&machine);
        let (start, end) = (std::format!("| {} |", host.name), std::format!("| {transport} |"));
        assert!(rows.iter().any(|row| row.starts_with(&start) && row.ends_with(&end)), "{start} ... {end}");
    }
}

fn keys_in_a_directory_come_in_any_order(way: Way) {
    let device = FakeFwCfg::new(true)
        .with_quirks(Quirks { lists_numbered_items: true, ..Quirks::default() })
        .with_file_at(0x31, "etc/table-loader", &bytes(7))
        .with_file_at(0x8003, "etc/e820", &bytes(20))
        .with_file_at(0x20, "bootorder", &bytes(1));
    let mut machine = way.with(device);
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    for (name, len) in [("etc/table-loader", 7), ("etc/e820", 20), ("bootorder", 1)] {
        assert_eq!(fw_cfg.read_all(&mut machine, fw_cfg.find(name).unwrap(), 64).unwrap(), bytes(len), "{name}");
    }
    assert_eq!(fw_cfg.find("id").map(Item::key), Some(Key::ID));
}

fn ports_take_over_where_dma_does_not_work(way: Way) {
    let none = Quirks::default();
    let portable = Quirks { address_reads: AddressReads::Zero, ..none };
    for quirks in [
        Quirks { never_completes: true, ..none },
        Quirks { never_completes: true, ..portable },
        Quirks { always_fails: true, ..none },
        Quirks { always_fails: true, ..portable },
        Quirks { always_fails: true, keeps_command_bits: true, ..none },
        Quirks { always_fails: true, keeps_command_bits: true, ..portable },
    ] {
        let device = FakeFwCfg::new(true).with_quirks(quirks).with_file("a", &bytes(1)).with_file("file", &bytes(400));
        let record = device.record();
        let mut machine = way.with(device);
        let start = machine.ticks();
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        let item = fw_cfg.find("file").unwrap();
        assert_eq!(fw_cfg.read_all(&mut machine, item, 400).unwrap(), bytes(400), "{quirks:?}");
        let mut buffer = [0xaa; 16];
        fw_cfg.read_at(&mut machine, item, 390, &mut buffer);
        assert_eq!(buffer.to_vec(), [bytes(400)[390..].to_vec(), vec![0; 6]].concat(), "{quirks:?}");
        let to = PhysAddr::new(0x10_0000);
        fw_cfg.load(&mut machine, item, to).unwrap();
        assert_eq!(machine.memory.bytes(to.get(), 401), [bytes(400), vec![0]].concat(), "{quirks:?}");
        fw_cfg.load_from(&mut machine, item, 300, to).unwrap();
        assert_eq!(machine.memory.bytes(to.get(), 100), bytes(400)[300..], "{quirks:?}");
        assert_eq!(fw_cfg.transport(&machine) == Transport::Ports, quirks.never_completes);
        if quirks.never_completes {
            // The deadline passed once.
            assert_eq!(record.borrow().transfers, 1);
        } else {
            assert_eq!(machine.ticks(), start + machine.ticks_per_look, "a failure is no reason to wait: {quirks:?}");
        }
        assert!(fw_cfg.write(&mut machine, item, 0, &[1]).is_err(), "a write needs DMA");
    }
}

fn a_write_that_never_ends_times_out_and_a_refused_one_is_an_error(way: Way) {
    let quirks = Quirks { absent: Absent::NeverEnds, ..Quirks::default() };
    let mut machine = way.with(FakeFwCfg::new(true).with_quirks(quirks));
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let item = Item::new(Key::new(0x40), 4);
    let error = fw_cfg.write(&mut machine, item, 0, &[1]).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
    // Once: a script may make hundreds of writes.
    let error = fw_cfg.write(&mut machine, item, 0, &[1]).unwrap_err();
    assert!(matches!(error, Error::NotWritable { .. }), "{error}");

    let quirks = Quirks { always_fails: true, ..Quirks::default() };
    let mut machine = way.with(FakeFwCfg::new(true).with_quirks(quirks).with_file("file", &[0; 4]));
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let item = fw_cfg.find("file").unwrap();
    let error = fw_cfg.write(&mut machine, item, 0, &[1]).unwrap_err();
    assert_eq!(error, Error::Refused { key: item.key(), control: 1 });
}

fn nothing_is_loaded_over_the_firmware_or_past_4_gib(way: Way) {
    for dma in [false, true] {
        let device = FakeFwCfg::new(dma);
        let record = device.record();
        let mut machine = way.with(device);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        machine.accesses.clear();
        record.borrow_mut().mapped.clear();
        for to in [layout::FIRMWARE_RAM.start().get(), 0xffff_0000, 0xffff_ffff, 0, u64::MAX - 10] {
            let item = Item::new(Key::KERNEL_DATA, 0x1000);
            let result = fw_cfg.load(&mut machine, item, PhysAddr::new(to));
            assert!(matches!(result, Err(Error::Memory(_))), "{to:#x}");
        }
        assert_eq!(machine.accesses, []);
        assert_eq!(record.borrow().mapped, []);
    }
}

fn a_directory_that_claims_too_many_files_is_refused(way: Way) {
    for count in [1025, u32::MAX] {
        for dma in [false, true] {
            let mut machine = way.with(FakeFwCfg::new(dma).with_item(0x19, &count.to_be_bytes()));
            let error = FwCfg::probe(&mut machine).unwrap_err();
            assert!(matches!(error, Error::TooManyFiles { files, limit: 1024 } if files == count), "{error}");
        }
    }
}

fn a_large_directory_is_read_whole(way: Way) {
    let mut device = FakeFwCfg::new(true);
    for i in 0..100 {
        device = device.with_file(&std::format!("opt/file-{i}"), &bytes(i));
    }
    let mut machine = way.with(device);
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    assert_eq!(fw_cfg.find("opt/file-99").map(Item::len), Some(99));
}

fn names_are_compared_whole(way: Way) {
    let long = "n".repeat(56);
    let device =
        FakeFwCfg::new(true).with_file("etc/e820-old", &[]).with_file("etc/e820", &[1]).with_file(&long, &[2; 2]);
    let mut machine = way.with(device);
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    assert_eq!(fw_cfg.find("etc/e820").map(Item::len), Some(1));
    assert_eq!(fw_cfg.find("etc/e82"), None);
    assert_eq!(fw_cfg.find(&long).map(Item::len), Some(2));
    assert_eq!(fw_cfg.find("n".repeat(57)), None);
}

fn survives_directory(way: Way, contents: &[u8], dma: bool) {
    let mut machine = way.with(FakeFwCfg::new(dma).with_item(0x19, contents));
    if let Ok(fw_cfg) = FwCfg::probe(&mut machine) {
        let _ = fw_cfg.find("etc/e820");
    }
}

/// Names that share their first bytes, have other first bytes, are short, and fill a record.
fn names() -> impl Strategy<Value = std::string::String> {
    let long = |letter: &str| letter.repeat(56);
    prop_oneof![
        (0..400_u32).prop_map(|i| std::format!("opt/org.firstlight/{i}")),
        (0..400_u32).prop_map(|i| std::format!("{i}-file-with-another-head")),
        prop::sample::select(vec!["a".into(), "etc/e82".into(), "etc/e820".into(), "etc/e820-old".into(), long("n")]),
    ]
}

proptest! {
    #[test]
    fn of_files_with_one_name_the_first_is_found(
        files in prop::collection::vec(names(), 0..600),
        others in prop::collection::vec(names(), 0..50),
    ) {
        let mut contents = (files.len() as u32).to_be_bytes().to_vec();
        for (file, number) in files.iter().zip(0_u32..) {
            contents.extend([&number.to_be_bytes()[..], &[0; 4], file.as_bytes(), &vec![0; 56 - file.len()]].concat());
        }
        let directory = Directory::new(contents);
        for name in files.iter().chain(&others) {
            let first = files.iter().position(|file| file == name);
            prop_assert_eq!(directory.find(name.as_bytes()).map(|item| item.len() as usize), first);
        }
    }

    #[test]
    fn any_directory_bytes_are_survived(contents in proptest::collection::vec(any::<u8>(), 0..600), dma: bool) {
        survives_directory(Way::Ports, &contents, dma);
        survives_directory(Way::Memory, &contents, dma);
    }
}
