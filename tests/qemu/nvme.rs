//! The driver of NVMe disks with QEMU's own controller. No guest runs: the driver does, on this host.

use firstlight::addr::PhysRange;
use firstlight::disk::nvme::Nvme;
use firstlight::disk::{Controller, Unit, UnitAddress};
use firstlight::pci::{Address, ConfigSpace, PortConfig, register};

use crate::environment;
use crate::qtest::Qtest;
use crate::raw_disk::{DATA, Disk, RAM, ROOM, check, check_unit, range};

/// Where the tests put the registers, and their length on QEMU.
const REGISTERS: u32 = 0xe000_0000;
const REGISTERS_LEN: u64 = 0x4000;

/// Gives the function `device`.0 on the root bus an address for its 64-bit BAR 0, and turns it on.
fn registers(host: &mut Qtest, device: u8) -> PhysRange {
    let address = Address::new(0, device, 0).expect("an address");
    let mut config = PortConfig::new(host);
    assert_eq!(config.read32(address, register::CLASS) >> 8, 0x01_0802);
    config.write32(address, register::BAR0, REGISTERS);
    config.write32(address, register::BAR0 + 4, 0);
    config.write32(address, register::COMMAND, (register::COMMAND_MEMORY | register::COMMAND_MASTER).into());
    range(REGISTERS.into(), REGISTERS_LEN)
}

fn start(host: &mut Qtest) -> Nvme {
    let registers = registers(host, 5);
    Nvme::start(host, registers, range(ROOM, Nvme::ROOM)).expect("a controller")
}

fn units(host: &mut Qtest, nvme: &mut Nvme) -> Vec<Unit> {
    let mut units = Vec::new();
    nvme.units(host, &mut |unit| units.push(unit)).expect("units");
    units
}

fn programs() -> impl Iterator<Item = String> {
    let newer = environment::newer_qemu().map(|path| path.to_string_lossy().into_owned());
    ["qemu-system-x86_64".to_owned()].into_iter().chain(newer)
}

#[test]
fn nvme_disks_are_read() {
    let disk = Disk::new();
    for program in programs() {
        for block_len in [512, 4096] {
            // Transfers of 8 KiB at most, of any length, and the default: 512 KiB.
            for more in ["", ",mdts=1", ",mdts=0"] {
                let sizes = format!("logical_block_size={block_len},physical_block_size={block_len}");
                let device = format!("-device nvme,drive=disk,serial=1,addr=5,{sizes}{more}");
                let arguments = format!("-M q35 -m 128M {} {device}", disk.drive("disk"));
                let host = &mut Qtest::start(&program, &arguments, RAM);
                let mut nvme = start(host);
                let [unit] = units(host, &mut nvme)[..] else { panic!("{device}: not one unit") };
                assert!(matches!(unit.address, UnitAddress::Namespace { id: 1, .. }), "{unit:?}");
                check(host, &mut nvme, &disk, block_len);
                // It is as after a reset, so it can be started again. Without a stop too.
                for _ in 0..2 {
                    let mut nvme = start(host);
                    nvme.read(host, &unit, 1, range(DATA, block_len as u64)).expect("a block");
                    assert!(host.ram(DATA, block_len) == disk.bytes[block_len..][..block_len], "the second block");
                }
            }
        }
    }
}

#[test]
fn nvme_controllers_are_read_whatever_their_limits_are() {
    let disk = Disk::new();
    for more in ["max_ioqpairs=1,msix_qsize=1", "mdts=2,max_ioqpairs=2", "mdts=12", "cmb_size_mb=1,use-intel-id=on"] {
        let host = &mut disk.start(&format!("-M q35 -device nvme,drive=disk,serial=1,addr=5,{more}"));
        let mut nvme = start(host);
        check(host, &mut nvme, &disk, 512);
    }
}

#[test]
fn the_namespaces_of_a_subsystem_are_those_of_this_controller() {
    let disks = [Disk::of(1), Disk::of(2)];
    let drives = [disks[0].drive("first"), disks[1].drive("second")].join(" ");
    let devices = "-device nvme-subsys,id=all,nqn=all -device nvme,id=nvme,serial=1,addr=5,subsys=all \
         -device nvme,id=other,serial=1,addr=6,subsys=all -device nvme-ns,drive=first,nsid=2,bus=nvme,shared=off \
         -device nvme-ns,drive=second,nsid=5,bus=other \
         -drive if=none,id=away,driver=null-co,size=1M -device nvme-ns,drive=away,nsid=9,bus=nvme,detached=on";
    let host = &mut Qtest::start("qemu-system-x86_64", &format!("-M q35 -m 128M {drives} {devices}"), RAM);
    let mut nvme = start(host);
    let [one, two] = units(host, &mut nvme)[..] else { panic!("not two units") };
    for (unit, number, disk) in [(one, 2, &disks[0]), (two, 5, &disks[1])] {
        assert!(matches!(unit.address, UnitAddress::Namespace { id, .. } if id == number), "{unit:?}");
        check_unit(host, &mut nvme, &unit, disk, 512);
    }
}

#[test]
fn nvme_namespaces_are_units_of_their_own() {
    let disks = [Disk::of(1), Disk::of(2)];
    let drives = [disks[0].drive("first"), disks[1].drive("second")].join(" ");
    let first = "-device nvme-ns,drive=first,nsid=3,bus=nvme,eui64=0x5254001122334455";
    let second = "-device nvme-ns,drive=second,nsid=200,bus=nvme,logical_block_size=4096,physical_block_size=4096";
    // A namespace whose blocks have metadata cannot be read.
    let other = "-drive if=none,id=other,driver=null-co,size=1M -device nvme-ns,drive=other,nsid=7,bus=nvme,ms=8";
    for program in programs() {
        let arguments =
            format!("-M q35 -m 128M {drives} -device nvme,id=nvme,serial=1,addr=5 {first} {second} {other}");
        let host = &mut Qtest::start(&program, &arguments, RAM);
        let mut nvme = start(host);
        let [one, two] = units(host, &mut nvme)[..] else { panic!("not two units") };
        let eui64 = 0x5254_0011_2233_4455_u64.to_be_bytes();
        assert_eq!(one.address, UnitAddress::Namespace { id: 3, eui64 });
        assert!(matches!(two.address, UnitAddress::Namespace { id: 200, .. }), "{two:?}");
        check_unit(host, &mut nvme, &one, &disks[0], 512);
        check_unit(host, &mut nvme, &two, &disks[1], 4096);
    }
}

#[test]
fn an_nvme_controller_without_namespaces_has_no_units() {
    let host = &mut Qtest::start("qemu-system-x86_64", "-M pc -m 128M -device nvme,serial=1,addr=5", RAM);
    let mut nvme = start(host);
    assert_eq!(units(host, &mut nvme), []);
    nvme.stop(host).unwrap();
}
