//! The drivers of virtio disks with QEMU's own devices. No guest runs: the drivers do, on this host.

use std::fs;

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::disk::virtio::{Block, Place, pci};
use firstlight::disk::{Controller, Error, Unit, UnitAddress};
use firstlight::pci::{Address, ConfigSpace, PortConfig, register};
use tempfile::NamedTempFile;

use crate::qtest::Qtest;
use crate::random;

/// RAM of the machines that nothing else is in, where the driver's room is, and where data are read to.
const RAM: std::ops::Range<u64> = 16 << 20..112 << 20;
const ROOM: u64 = 16 << 20;
const DATA: u64 = 32 << 20;
/// The length of a disk, not a multiple of a MiB.
const LEN: usize = (5 << 20) + 4096 * 3;

/// A disk with random bytes.
struct Disk {
    file: NamedTempFile,
    bytes: Vec<u8>,
}

impl Disk {
    fn new() -> Self {
        let (file, bytes) = (NamedTempFile::new().expect("a temporary file"), random::bytes(16, LEN));
        fs::write(file.path(), &bytes).expect("a disk");
        Self { file, bytes }
    }

    /// QEMU's argument for it, as the drive `disk`.
    fn drive(&self) -> String {
        format!("-drive if=none,id=disk,format=raw,file={}", self.file.path().display())
    }

    fn start(&self, arguments: &str) -> Qtest {
        let arguments = format!("-m 128M {} {arguments}", self.drive());
        Qtest::start("qemu-system-x86_64", &arguments, RAM)
    }
}

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).expect("a range")
}

/// Gives the function `device`.0 on the root bus an address in memory for its 64-bit BAR 4, which has 16 KiB on QEMU, and turns it on.
fn pci_function(host: &mut Qtest, device: u8) -> pci::Function {
    let at = 0xe000_0000;
    let address = Address::new(0, device, 0).expect("an address");
    let mut config = PortConfig::new(host);
    config.write32(address, register::BAR0 + 16, at);
    config.write32(address, register::BAR0 + 20, 0);
    config.write32(address, register::COMMAND, (register::COMMAND_MEMORY | register::COMMAND_MASTER).into());
    let memory = |number| (number == 4).then(|| range(at.into(), 0x4000));
    pci::Function::find(&mut config, address, &memory).expect("registers")
}

/// The only unit.
fn unit(host: &mut Qtest, controller: &mut impl Controller<Qtest>) -> Unit {
    let mut units = Vec::new();
    controller.units(host, &mut |unit| units.push(unit)).expect("units");
    let [unit] = units[..] else { panic!("{units:?}") };
    unit
}

/// Reads a disk by its driver: single blocks, all of it, to any address, and what is not there.
fn check(host: &mut Qtest, controller: &mut impl Controller<Qtest>, disk: &Disk, block_len: usize) {
    let unit = unit(host, controller);
    assert_eq!(unit.media.block_len.get() as usize, block_len);
    assert_eq!(unit.media.blocks as usize, LEN / block_len);
    let last = unit.media.blocks - 1;
    for first in [0, 1, last] {
        for to in [DATA, DATA + 1, DATA + 0xfff] {
            controller.read(host, &unit, first, range(to, block_len as u64)).expect("a block");
            let expected = &disk.bytes[first as usize * block_len..][..block_len];
            assert!(host.ram(to, block_len) == expected, "block {first} to {to:#x}");
        }
    }
    let len = LEN / 2 / block_len * block_len;
    controller.read(host, &unit, 1, range(DATA, len as u64)).expect("many blocks");
    assert!(host.ram(DATA, len) == disk.bytes[block_len..][..len], "many blocks");
    controller.read(host, &unit, 0, range(DATA, LEN as u64)).expect("the whole disk");
    assert!(host.ram(DATA, LEN) == disk.bytes, "the whole disk");
    for (first, len) in [(last, 2 * block_len), (last + 1, block_len), (u64::MAX, block_len), (0, block_len - 1)] {
        let error = controller.read(host, &unit, first, range(DATA, len as u64)).unwrap_err();
        assert_eq!(error, Error::OutOfRange, "{first}, {len}");
    }
    controller.stop(host);
}

#[test]
fn virtio_block_devices_are_read_through_registers_in_bars() {
    let disk = Disk::new();
    for more in ["", ",disable-legacy=on,disable-modern=off", ",queue-size=4", ",seg-max-adjust=off,num-queues=2"] {
        for block_len in [512, 4096] {
            let sizes = format!("logical_block_size={block_len},physical_block_size={block_len}");
            let device = format!("-M q35 -device virtio-blk-pci,drive=disk,addr=5,{sizes}{more}");
            let host = &mut disk.start(&device);
            let place = Place::Pci(pci_function(host, 5));
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
