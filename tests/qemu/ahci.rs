//! The driver of disks and CD drives behind an AHCI controller with QEMU's own one. No guest runs: the driver does, on this host.

use firstlight::addr::PhysRange;
use firstlight::disk::ahci::Ahci;
use firstlight::disk::{Controller, Error, Unit, UnitAddress};
use firstlight::pci::{Address, ConfigSpace, PortConfig, register};

use crate::environment;
use crate::qtest::Qtest;
use crate::raw_disk::{DATA, Disk, LEN, RAM, ROOM, check_unit, range};

/// Where the tests put the registers, and their length on QEMU.
const REGISTERS: u32 = 0xe000_0000;
const REGISTERS_LEN: u64 = 0x1000;
/// Q35's own controller, function 1f.2.
const OWN: (u8, u8) = (0x1f, 2);

/// Gives a function on the root bus an address for its BAR 5, and turns it on.
fn registers(host: &mut Qtest, (device, function): (u8, u8)) -> PhysRange {
    let address = Address::new(0, device, function).expect("an address");
    let mut config = PortConfig::new(host);
    assert_eq!(config.read32(address, register::CLASS) >> 8, 0x01_0601);
    config.write32(address, register::BAR0 + 20, REGISTERS);
    config.write32(address, register::COMMAND, (register::COMMAND_MEMORY | register::COMMAND_MASTER).into());
    range(REGISTERS.into(), REGISTERS_LEN)
}

fn start(host: &mut Qtest, function: (u8, u8)) -> Ahci {
    let registers = registers(host, function);
    Ahci::start(host, registers, range(ROOM, Ahci::ROOM)).expect("a controller")
}

fn units(host: &mut Qtest, ahci: &mut Ahci) -> Vec<Unit> {
    let mut units = Vec::new();
    ahci.units(host, &mut |unit| units.push(unit)).expect("units");
    units
}

#[test]
fn disks_and_cds_on_ports_of_q35_are_read() {
    let disks = [Disk::of(3), Disk::of(4)];
    let drives = [disks[0].drive("disk"), disks[1].drive("cd")].join(" ");
    let devices = "-device ide-hd,drive=disk,bus=ide.1 -device ide-cd,drive=cd,bus=ide.4 -device ide-cd,bus=ide.5";
    let newer = environment::newer_qemu().map(|path| path.to_string_lossy().into_owned());
    for program in ["qemu-system-x86_64".to_owned()].into_iter().chain(newer) {
        let host = &mut Qtest::start(&program, &format!("-M q35 -m 128M {drives} {devices}"), RAM);
        // It is as after a reset, so it can be started again. Without a stop too.
        for stops in [true, false, false] {
            let mut ahci = start(host, OWN);
            let [disk, cd, empty] = units(host, &mut ahci)[..] else { panic!("not three units") };
            assert_eq!([disk, cd, empty].map(|unit| unit.address), [1, 4, 5].map(UnitAddress::Port));
            assert_eq!([disk, cd, empty].map(|unit| unit.media.is_removable), [false, true, true]);
            assert_eq!((empty.media.blocks, cd.media.is_read_only), (0, true));
            assert_eq!(ahci.read(host, &empty, 0, range(DATA, 2048)), Err(Error::NoMedium));
            if stops {
                check_unit(host, &mut ahci, &disk, &disks[0], 512);
                check_unit(host, &mut ahci, &cd, &disks[1], 2048);
                ahci.stop(host).unwrap();
            }
            // A command that the disk refuses, and one after it.
            let mut longer = disk;
            longer.media.blocks += 8;
            let refused = ahci.read(host, &longer, disk.media.blocks, range(DATA, 512));
            let expected = if stops { "Err(Timeout)" } else { "Err(Refused(" };
            assert!(format!("{refused:?}").starts_with(expected), "{refused:?}");
            if !stops {
                ahci.read(host, &disk, 7, range(DATA, 512)).expect("a block");
                assert!(host.ram(DATA, 512) == disks[0].bytes[7 * 512..][..512], "a block");
            }
        }
    }
}

#[test]
fn a_controller_without_disks_has_no_units() {
    let host = &mut Qtest::start("qemu-system-x86_64", "-M q35 -m 128M", RAM);
    let mut ahci = start(host, OWN);
    assert_eq!(units(host, &mut ahci), []);
    ahci.stop(host).unwrap();
}

#[test]
fn a_controller_of_its_own_on_an_older_board_is_read() {
    let disk = Disk::of(5);
    let device = "-M pc -device ich9-ahci,id=ahci,addr=5 -device ide-hd,drive=disk,bus=ahci.0";
    let host = &mut disk.start(device);
    let mut ahci = start(host, (5, 0));
    let [unit] = units(host, &mut ahci)[..] else { panic!("not one unit") };
    assert_eq!((unit.address, unit.media.blocks as usize), (UnitAddress::Port(0), LEN / 512));
    check_unit(host, &mut ahci, &unit, &disk, 512);
}
