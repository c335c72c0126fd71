//! All controllers of disks of a machine, from the scan of its buses to the bytes of its disks. No guest runs: the modules do, on
//! this host, with QEMU's own devices.

use firstlight::disk::controllers::{self, Candidate, Started};
use firstlight::disk::{Blocks, Controller, Disk as ReadAhead};
use firstlight::fw_cfg::HostKind;
use firstlight::pci::{
    self, Apertures, ChipsetFunctions, ConfigAccess, Devices, HostBridge, LowApertures, PortConfig, PortRange,
};
use firstlight::platform::Board;
use firstlight::platform::microvm;
use firstlight::platform::pc::Pc;
use firstlight::platform::q35::Q35;

use crate::qtest::Qtest;
use crate::raw_disk::{DATA, Disk, LEN, RAM, ROOM, range, units};

/// Memory for PCI, and for the window of a disk.
const MEMORY: u64 = 0xc000_0000;
const WINDOW: u64 = 24 << 20;

/// Starts QEMU with these disks, as the drives `d0`, `d1` and so on.
fn start(arguments: &str, disks: &[Disk]) -> Qtest {
    let drives = (0..).zip(disks).map(|(number, disk)| disk.drive(&format!("d{number}"))).collect::<Vec<_>>().join(" ");
    Qtest::start("qemu-system-x86_64", &format!("-m 128M {drives} {arguments}"), RAM)
}

/// Sets up PCI as the firmware does.
fn set_up(host: &mut Qtest, chipset: ChipsetFunctions<'_>) -> Devices {
    let low = LowApertures::new(PortRange::new(0xc000, 0xd000).expect("ports"), range(MEMORY, 0x3000_0000));
    let apertures = || Apertures::new(low, None, 36);
    let host_bridge = HostBridge { extra_roots: 0, chipset, low, apertures: &apertures, routing: &|_, _| None };
    pci::configure(&mut PortConfig::new(host), ConfigAccess::Ports, &host_bridge)
}

/// Starts each controller, and reads all of its disks through a window. Returns each one's name, and the numbers of its disks.
fn read_all(host: &mut Qtest, candidates: &[Candidate], disks: &[Disk]) -> Vec<(String, Vec<usize>)> {
    let mut found = Vec::new();
    for candidate in candidates {
        let mut started = Started::start(host, candidate, range(ROOM, candidate.room())).expect("a controller");
        let mut numbers = Vec::new();
        for unit in units(host, &mut started) {
            let mut disk = ReadAhead::new(unit, range(WINDOW, ReadAhead::ROOM)).expect("room");
            let whole = disk.whole();
            let mut view = disk.view(host, &mut started, whole);
            let mut first = [0; 100];
            view.read(1234, &mut first).expect("bytes of a disk");
            view.load(0, range(DATA, LEN as u64)).expect("all bytes of a disk");
            let all = host.ram(DATA, LEN);
            assert_eq!(first, all[1234..1334]);
            numbers.push(disks.iter().position(|disk| disk.bytes == all).expect("one of the disks"));
        }
        started.stop(host).unwrap();
        found.push((candidate.to_string(), numbers));
    }
    found
}

/// Finds the controllers both ways, and reads their disks.
fn check(machine: &str, arguments: &str, board: &dyn Board, expected: &[(&str, &[usize])]) {
    let disks: Vec<_> = (0..8).map(Disk::of).collect();
    let mut host = start(&format!("-M {machine} {arguments}"), &disks);
    let devices = set_up(&mut host, board.chipset_functions(HostKind::Qemu));
    let candidates = controllers::find(&mut host, &devices, false);
    let found = read_all(&mut host, &candidates, &disks);
    let found: Vec<_> = found.iter().map(|(name, disks)| (name.as_str(), disks.as_slice())).collect();
    assert_eq!(found, expected, "{machine}");
    // The same by reading what was set up, as if it were a host's work.
    let existing = controllers::find(&mut host, &Devices::default(), false);
    let names = |candidates: &[Candidate]| candidates.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&existing), names(&candidates));
    let again = read_all(&mut host, &existing, &disks);
    let again: Vec<_> = again.iter().map(|(name, disks)| (name.as_str(), disks.as_slice())).collect();
    assert_eq!(again, expected, "{machine}: found by reading");
}

#[test]
fn every_controller_of_a_machine_is_found_and_its_disks_are_read() {
    let devices = "-device virtio-blk-pci,drive=d0,addr=3 -device nvme,serial=1,drive=d1,addr=4 \
         -device virtio-scsi-pci,id=scsi,addr=5 -device scsi-hd,bus=scsi.0,scsi-id=0,drive=d2 \
         -device scsi-cd,bus=scsi.0,scsi-id=3,lun=1,drive=d3";
    let root_port = "-device pcie-root-port,id=root,addr=6,chassis=1 -device virtio-blk-pci,bus=root,drive=d4";
    let sata = "-device ide-hd,bus=ide.1,drive=d5 -device ide-cd,bus=ide.4,drive=d6";
    check(
        "q35",
        &format!("{devices} {root_port} {sata}"),
        &Q35,
        &[
            ("virtio disk at 00:03.0", &[0]),
            ("NVMe at 00:04.0", &[1]),
            ("virtio SCSI at 00:05.0", &[2, 3]),
            ("AHCI at 00:1f.2", &[5, 6]),
            ("virtio disk at 01:00.0", &[4]),
        ],
    );
    let bridge = "-device pci-bridge,id=bridge,addr=6,chassis_nr=1 -device virtio-blk-pci,bus=bridge,addr=2,drive=d4";
    let sata = "-device ahci,id=ahci,addr=7 -device ide-hd,bus=ahci.0,drive=d5";
    check(
        "pc",
        &format!("{devices} {bridge} {sata}"),
        &Pc,
        &[
            ("virtio disk at 00:03.0", &[0]),
            ("NVMe at 00:04.0", &[1]),
            ("virtio SCSI at 00:05.0", &[2, 3]),
            ("AHCI at 00:07.0", &[5]),
            ("virtio disk at 01:02.0", &[4]),
        ],
    );
}

#[test]
fn the_disks_of_a_microvm_are_found_in_the_order_of_its_arguments() {
    let disks: Vec<_> = (0..4).map(Disk::of).collect();
    let devices = "-M microvm -device virtio-blk-device,drive=d0 -device virtio-rng-device \
         -device virtio-scsi-device,id=scsi -device scsi-hd,bus=scsi.0,drive=d1 -device virtio-blk-device,drive=d2";
    for more in ["", "-global virtio-mmio.force-legacy=false"] {
        let mut host = start(&format!("{devices} {more}"), &disks);
        let candidates = controllers::find(&mut host, &Devices::default(), true);
        let found = read_all(&mut host, &candidates, &disks);
        let found: Vec<_> = found.iter().map(|(name, disks)| (name.as_str(), disks.as_slice())).collect();
        let expected: [(&str, &[usize]); 3] = [
            ("virtio disk at 0xfeb02e00", &[0]),
            ("virtio SCSI at 0xfeb02a00", &[1]),
            ("virtio disk at 0xfeb02800", &[2]),
        ];
        assert_eq!(found, expected, "{more}");
    }
}

#[test]
fn disks_behind_pci_of_a_microvm_are_found_after_those_in_its_slots() {
    let disks: Vec<_> = (0..4).map(Disk::of).collect();
    let devices = "-device virtio-blk-device,drive=d0 -device virtio-blk-pci,drive=d1,addr=1 \
         -device nvme,serial=1,drive=d2,addr=2 -device pcie-root-port,id=root,addr=3,chassis=1 \
         -device virtio-blk-pci,bus=root,drive=d3";
    let mut host = start(&format!("-M microvm,pcie=on {devices}"), &disks);
    let found = microvm::set_up_pci(&mut host);
    let candidates = controllers::find(&mut host, &found, true);
    let found = read_all(&mut host, &candidates, &disks);
    let found: Vec<_> = found.iter().map(|(name, disks)| (name.as_str(), disks.as_slice())).collect();
    let expected: [(&str, &[usize]); 4] = [
        ("virtio disk at 0xfeb02e00", &[0]),
        ("virtio disk at 00:01.0", &[1]),
        ("NVMe at 00:02.0", &[2]),
        ("virtio disk at 01:00.0", &[3]),
    ];
    assert_eq!(found, expected);
    drop(host);
    let mut host = start("-M microvm,pcie=off -device virtio-blk-device,drive=d0", &disks);
    assert_eq!(microvm::set_up_pci(&mut host).iter().count(), 0);
}
