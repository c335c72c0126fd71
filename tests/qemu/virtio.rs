//! The drivers of virtio disks with QEMU's own devices. No guest runs: the drivers do, on this host.

use firstlight::disk::virtio::{Block, Place, ScsiHost, mmio, pci};
use firstlight::disk::{Controller, Error, UnitAddress};
use firstlight::pci::{Address, ConfigSpace, PortConfig, register};

use crate::environment;
use crate::qtest::Qtest;
use crate::raw_disk::{DATA, Disk, RAM, ROOM, check, check_unit, range, unit, units};

/// The place of the registers of PCI functions.
const BAR: u64 = 0xe000_0000;

/// Gives the function at `address` a place in memory for its 64-bit BAR 4, and turns it on. The BAR has 16 KiB on QEMU, or 8 MiB if
/// each queue has a page of its own.
fn pci_function(host: &mut Qtest, address: Address) -> pci::Function {
    let mut config = PortConfig::new(host);
    config.write32(address, register::BAR0 + 16, BAR as u32);
    config.write32(address, register::BAR0 + 20, 0);
    config.write32(address, register::COMMAND, (register::COMMAND_MEMORY | register::COMMAND_MASTER).into());
    let memory = |number| (number == 4).then(|| range(BAR, 8 << 20));
    pci::Function::find(&mut config, address, &memory).expect("registers")
}

/// Opens a bridge on the root bus to bus 1 and to [`BAR`].
fn open_bridge(host: &mut Qtest, address: Address) {
    let mut config = PortConfig::new(host);
    config.write32(address, register::BUS_NUMBERS, 0x00_01_01_00);
    let window = (BAR >> 16) as u32;
    config.write32(address, register::MEMORY_WINDOW, window << 16 | window);
    config.write32(address, register::COMMAND, (register::COMMAND_MEMORY | register::COMMAND_MASTER).into());
}

/// The only device in a slot of `microvm`, which is of this kind.
fn mmio_slot(host: &mut Qtest, kind: u32) -> mmio::Slot {
    let found: Vec<_> =
        mmio::microvm_slots().filter_map(|slot| mmio::Slot::find(host, slot).expect("a slot")).collect();
    let [(slot, device)] = found[..] else { panic!("{found:?}") };
    assert_eq!(device, kind);
    slot
}

#[test]
fn virtio_block_devices_are_read_through_registers_in_bars() {
    let disk = Disk::new();
    let address = Address::new(0, 5, 0).expect("an address");
    for more in ["", ",disable-legacy=on,disable-modern=off", ",queue-size=4", ",seg-max-adjust=off,num-queues=2"] {
        for block_len in [512, 4096] {
            let sizes = format!("logical_block_size={block_len},physical_block_size={block_len}");
            let device = format!("-M q35 -device virtio-blk-pci,drive=disk,addr=5,{sizes}{more}");
            let host = &mut disk.start(&device);
            let place = Place::Pci(pci_function(host, address));
            let mut block = Block::start(host, place, range(ROOM, Block::ROOM)).expect(&device);
            let unit = unit(host, &mut block);
            assert_eq!((unit.address, unit.media.is_read_only), (UnitAddress::Only, false));
            check(host, &mut block, &disk, block_len);
            // It is as after a reset, so it can be started again.
            let mut block = Block::start(host, place, range(ROOM, Block::ROOM)).expect(&device);
            check(host, &mut block, &disk, block_len);
        }
    }
}

#[test]
fn virtio_block_devices_are_read_whatever_else_they_offer() {
    let disk = Disk::new();
    let address = Address::new(0, 5, 0).expect("an address");
    for more in [
        "packed=on",
        "packed=on,event_idx=off,num-queues=4",
        "num-queues=4,vectors=0",
        "iommu_platform=on,disable-legacy=on,disable-modern=off",
        "ats=on,iommu_platform=on,disable-legacy=on,disable-modern=off",
        "event_idx=off,indirect_desc=off",
        "discard=off,write-zeroes=off,config-wce=off,request-merging=off",
        "physical_block_size=4096,min_io_size=4096,opt_io_size=65536",
        "page-per-vq=on,modern-pio-notify=on",
        "queue-size=1024,scsi=off",
    ] {
        let device = format!("-M q35 -device virtio-blk-pci,drive=disk,addr=5,{more}");
        let host = &mut disk.start(&device);
        let place = Place::Pci(pci_function(host, address));
        let mut block = Block::start(host, place, range(ROOM, Block::ROOM)).expect(&device);
        check(host, &mut block, &disk, 512);
    }
    for more in ["num-queues=4,event_idx=off,indirect_desc=off", "packed=on -global virtio-mmio.force-legacy=false"] {
        let device = format!("-M microvm -device virtio-blk-device,drive=disk,{more}");
        let host = &mut disk.start(&device);
        let place = Place::Mmio(mmio_slot(host, 2));
        let mut block = Block::start(host, place, range(ROOM, Block::ROOM)).expect(&device);
        check(host, &mut block, &disk, 512);
    }
}

#[test]
fn a_virtio_block_device_is_read_behind_a_root_port() {
    let disk = Disk::new();
    let device = "-M q35 -device pcie-root-port,id=root,addr=4 -device virtio-blk-pci,drive=disk,bus=root";
    let host = &mut disk.start(device);
    open_bridge(host, Address::new(0, 4, 0).expect("an address"));
    let place = Place::Pci(pci_function(host, Address::new(1, 0, 0).expect("an address")));
    let mut block = Block::start(host, place, range(ROOM, Block::ROOM)).expect("a block device");
    check(host, &mut block, &disk, 512);
}

#[test]
fn a_virtio_disk_that_is_read_only_says_so() {
    let disk = Disk::new();
    let host = &mut disk.start_as("disk,readonly=on", "-M q35 -device virtio-blk-pci,drive=disk,addr=5");
    let place = Place::Pci(pci_function(host, Address::new(0, 5, 0).expect("an address")));
    let mut block = Block::start(host, place, range(ROOM, Block::ROOM)).expect("a block device");
    assert!(unit(host, &mut block).media.is_read_only);
}

#[test]
fn virtio_block_devices_are_read_in_slots_of_microvm() {
    let disk = Disk::new();
    for version in ["", "-global virtio-mmio.force-legacy=false"] {
        for block_len in [512, 4096] {
            let sizes = format!("logical_block_size={block_len},physical_block_size={block_len}");
            let device = format!("-M microvm {version} -device virtio-blk-device,drive=disk,{sizes}");
            let host = &mut disk.start(&device);
            let place = Place::Mmio(mmio_slot(host, 2));
            let mut block = Block::start(host, place, range(ROOM, Block::ROOM)).expect(&device);
            check(host, &mut block, &disk, block_len);
            let mut block = Block::start(host, place, range(ROOM, Block::ROOM)).expect(&device);
            check(host, &mut block, &disk, block_len);
        }
    }
}

#[test]
fn the_slots_of_a_microvm_without_a_second_io_apic_are_found() {
    let disk = Disk::new();
    let host = &mut disk.start("-M microvm,ioapic2=off -device virtio-blk-device,drive=disk");
    let place = Place::Mmio(mmio_slot(host, 2));
    let mut block = Block::start(host, place, range(ROOM, Block::ROOM)).expect("a block device");
    check(host, &mut block, &disk, 512);
}

#[test]
fn disks_behind_virtio_scsi_are_read() {
    let disk = Disk::new();
    let pci = "-M q35 -device virtio-scsi-pci,addr=5";
    for (hosts, is_pci) in [
        (pci.to_owned(), true),
        (format!("{pci},disable-legacy=on,disable-modern=off"), true),
        (format!("{pci},max_sectors=3"), true),
        (format!("{pci},virtqueue_size=5"), true),
        ("-M microvm -device virtio-scsi-device".to_owned(), false),
        ("-M microvm -global virtio-mmio.force-legacy=false -device virtio-scsi-device".to_owned(), false),
    ] {
        for (target, lun) in [(0, 0), (255, 0), (31, 300), (32, 7)] {
            let arguments = format!("{hosts} -device scsi-hd,drive=disk,scsi-id={target},lun={lun}");
            let host = &mut disk.start(&arguments);
            let place = match is_pci {
                true => Place::Pci(pci_function(host, Address::new(0, 5, 0).expect("an address"))),
                false => Place::Mmio(mmio_slot(host, 8)),
            };
            let mut scsi = ScsiHost::start(host, place, range(ROOM, ScsiHost::ROOM)).expect(&arguments);
            let unit = unit(host, &mut scsi);
            assert_eq!(unit.address, UnitAddress::Scsi { target, lun });
            assert!(!unit.media.is_read_only && !unit.media.is_removable);
            if target == 0 {
                check(host, &mut scsi, &disk, 512);
            }
        }
    }
}

#[test]
fn a_virtio_scsi_host_has_64_units_on_several_targets() {
    let disk = Disk::new();
    // QEMU's host has one channel.
    let places = (0..61).map(|lun| (3, lun)).chain([(0, 5), (31, 16383), (255, 0)]);
    let mut arguments = "-M q35 -device virtio-scsi-pci,addr=5,num_queues=4".to_owned();
    for (number, (target, lun)) in places.clone().enumerate() {
        let drive = match (target, lun) {
            (31, _) => "disk".to_owned(),
            _ => {
                arguments += &format!(" -drive if=none,id=n{number},driver=null-co,size=1M");
                format!("n{number}")
            }
        };
        arguments += &format!(" -device scsi-hd,drive={drive},scsi-id={target},lun={lun}");
    }
    let host = &mut disk.start(&arguments);
    let place = Place::Pci(pci_function(host, Address::new(0, 5, 0).expect("an address")));
    let mut scsi = ScsiHost::start(host, place, range(ROOM, ScsiHost::ROOM)).expect("a host");
    let found = units(host, &mut scsi);
    let mut places: Vec<_> = places.map(|(target, lun)| UnitAddress::Scsi { target, lun }).collect();
    places.sort_by_key(|address| format!("{address:?}"));
    let mut addresses: Vec<_> = found.iter().map(|unit| unit.address).collect();
    addresses.sort_by_key(|address| format!("{address:?}"));
    assert_eq!(addresses, places);
    let far = UnitAddress::Scsi { target: 31, lun: 16383 };
    let far = found.iter().find(|unit| unit.address == far).expect("a unit");
    check_unit(host, &mut scsi, far, &disk, 512);
    scsi.stop(host).unwrap();
}

#[test]
fn disks_with_long_blocks_and_drives_behind_virtio_scsi_are_found() {
    let disk = Disk::new();
    let host = &mut disk.start(
        "-M q35 -device virtio-scsi-pci,addr=5 -device scsi-cd,scsi-id=7 \
         -device scsi-hd,drive=disk,logical_block_size=4096,physical_block_size=4096,scsi-id=3",
    );
    let place = Place::Pci(pci_function(host, Address::new(0, 5, 0).expect("an address")));
    let mut scsi = ScsiHost::start(host, place, range(ROOM, ScsiHost::ROOM)).expect("a host");
    let [hard, empty] = units(host, &mut scsi)[..] else { panic!("two units") };
    assert_eq!((hard.address, hard.media.block_len.get()), (UnitAddress::Scsi { target: 3, lun: 0 }, 4096));
    assert_eq!((empty.address, empty.media.blocks), (UnitAddress::Scsi { target: 7, lun: 0 }, 0));
    assert!(empty.media.is_removable);
    scsi.read(host, &hard, 2, range(DATA, 8192)).expect("two blocks");
    assert!(host.ram(DATA, 8192) == disk.bytes[8192..16384]);
    assert_eq!(scsi.read(host, &empty, 0, range(DATA, 2048)), Err(Error::NoMedium));
}

#[test]
fn a_cd_behind_virtio_scsi_is_read() {
    let disk = Disk::new();
    let host = &mut disk.start_as(
        "disk,media=cdrom,readonly=on",
        "-M q35 -device virtio-scsi-pci,addr=5 -device scsi-cd,drive=disk,lun=2",
    );
    let place = Place::Pci(pci_function(host, Address::new(0, 5, 0).expect("an address")));
    let mut scsi = ScsiHost::start(host, place, range(ROOM, ScsiHost::ROOM)).expect("a host");
    let unit = unit(host, &mut scsi);
    assert_eq!(unit.address, UnitAddress::Scsi { target: 0, lun: 2 });
    assert!(unit.media.is_read_only && unit.media.is_removable);
    check(host, &mut scsi, &disk, 2048);
}

#[test]
fn virtio_disks_of_a_newer_qemu_are_read() {
    let Ok(program) = environment::newer_qemu() else { return };
    let disk = Disk::new();
    let start =
        |device| Qtest::start(&program.to_string_lossy(), &format!("-m 128M {} {device}", disk.drive("disk")), RAM);
    {
        let host = &mut start("-M q35 -device virtio-blk-pci,drive=disk,addr=5");
        let place = Place::Pci(pci_function(host, Address::new(0, 5, 0).expect("an address")));
        let mut block = Block::start(host, place, range(ROOM, Block::ROOM)).expect("a block device");
        check(host, &mut block, &disk, 512);
    }
    let host = &mut start("-M microvm -device virtio-scsi-device -device scsi-hd,drive=disk");
    let place = Place::Mmio(mmio_slot(host, 8));
    let mut scsi = ScsiHost::start(host, place, range(ROOM, ScsiHost::ROOM)).expect("a host");
    check(host, &mut scsi, &disk, 512);
}
