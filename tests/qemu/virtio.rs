//! The drivers of virtio disks with QEMU's own devices. No guest runs: the drivers do, on this host.

use firstlight::disk::UnitAddress;
use firstlight::disk::virtio::{Block, Place, pci};
use firstlight::pci::{Address, ConfigSpace, PortConfig, register};

use crate::qtest::Qtest;
use crate::raw_disk::{Disk, ROOM, check, range, unit};

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
