extern crate std;

use core::cell::Cell;
use std::rc::Rc;
use std::string::ToString;
use std::vec::Vec;

use super::*;
use crate::addr::{PhysAddr, PhysRange};
use crate::disk::controllers::{Candidate, Function, Kind, Place, VirtioKind};
use crate::disk::fat::Fat;
use crate::disk::partition::{self, Partition, Scheme};
use crate::disk::{BlockLen, Error, Media, Unit, UnitAddress};
use crate::efi::device_path::text::PathText;
use crate::efi::device_path::{DevicePath, PathBuilder};
use crate::efi::protocols::file_system::{FatVolume, FileSystem, Volume};
use crate::fakes::fat::{FatImage, Format};
use crate::fakes::machine::FakeMachine;
use crate::pci::{Address, Route};
use uefi_raw::guid;

/// A controller whose blocks have the number of the block in each byte, plus its own number.
#[derive(Debug, Default)]
struct FakeController {
    number: u8,
    reads: Vec<(u64, u64)>,
    is_stopped: Rc<Cell<bool>>,
}

impl Controller<FakeMachine> for FakeController {
    fn units(&mut self, _: &mut FakeMachine, found: &mut dyn FnMut(Unit)) -> Result<(), Error> {
        found(UNIT);
        Ok(())
    }

    fn read(&mut self, machine: &mut FakeMachine, unit: &Unit, first: u64, into: PhysRange) -> Result<(), Error> {
        assert_eq!(*unit, UNIT);
        self.reads.push((first, into.len() / 512));
        let bytes: Vec<u8> = (0..into.len()).map(|at| (first + at / 512) as u8 + self.number).collect();
        machine.memory.store(into.start().get(), &bytes);
        Ok(())
    }

    fn stop(&mut self, _: &mut FakeMachine) -> Result<(), Error> {
        self.is_stopped.set(true);
        Ok(())
    }
}

const UNIT: Unit = Unit {
    address: UnitAddress::Only,
    media: Media { block_len: BlockLen::DISK, blocks: 100, is_read_only: false, is_removable: false },
};

fn room(index: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(0x20_0000 + index * 0x10_0000), Disk::LEAST_ROOM).unwrap()
}

/// Two controllers with a disk each, and a partition on the second.
fn disks() -> (Disks<FakeController>, [BlockId; 3]) {
    let mut disks = Disks::new();
    let mut add = |number| {
        let controller = FakeController { number, ..FakeController::default() };
        let controller = disks.add_controller(controller).map_err(|(error, _)| error).unwrap();
        disks.add_disk(controller, Disk::new(UNIT, room(number.into())).unwrap()).unwrap()
    };
    let [first, second] = [0, 100].map(&mut add);
    let partition = disks.add_partition(second, Extent { first: 10, blocks: 20 }).unwrap();
    (disks, [first, second, partition])
}

#[test]
fn a_partitions_blocks_are_those_of_its_disk_from_its_first_on() {
    let (mut disks, [first, second, partition]) = disks();
    let mut machine = FakeMachine::new();
    for (block, at, expected) in
        [(first, 0, 0), (second, 0, 100), (second, 99, 199), (partition, 0, 110), (partition, 19, 129)]
    {
        let mut bytes = [0; 512];
        disks.on(&mut machine).blocks(block).unwrap().read(at * 512, &mut bytes).unwrap();
        assert_eq!(bytes, [expected; 512], "{block:?} {at}");
    }
    let mut bytes = [0; 512];
    let beyond = disks.on(&mut machine).blocks(partition).unwrap().read(20 * 512, &mut bytes);
    assert_eq!(beyond, Err(Error::OutOfRange));
    assert!(disks.on(&mut machine).blocks(BlockId::from_raw(3)).is_none());
    assert!(disks.on(&mut machine).blocks(BlockId::from_raw(u64::MAX)).is_none());
}

#[test]
fn a_partition_and_its_disk_have_media_of_their_own() {
    let (disks, [first, _, partition]) = disks();
    let last = |block| disks.io(block).map(|io| (io.media().last_block, io.media().logical_partition.0));
    assert_eq!((last(first), last(partition)), (Some((99, 0)), Some((19, 1))));
    assert_eq!(last(BlockId::from_raw(7)), None);
    assert_eq!(disks.count(), 2);
}

#[test]
fn all_controllers_are_stopped_and_no_disk_is_read_after_that() {
    let (mut disks, blocks) = disks();
    let mut machine = FakeMachine::new();
    let are_stopped: Vec<_> = disks.controllers.iter().map(|controller| controller.is_stopped.clone()).collect();
    assert!(are_stopped.iter().all(|is_stopped| !is_stopped.get()));
    disks.stop(&mut machine);
    assert!(are_stopped.len() == 2 && are_stopped.iter().all(|is_stopped| is_stopped.get()));
    for block in blocks {
        assert!(disks.io(block).is_none() && disks.on(&mut machine).blocks(block).is_none());
    }
}

fn text(path: PathBuilder) -> std::string::String {
    let bytes = path.end().unwrap();
    PathText(DevicePath::parse(&bytes).unwrap()).to_string()
}

#[test]
fn paths_of_disks_are_ovmfs() {
    let slot = Place::Slot(PhysRange::new(PhysAddr::new(0xfeb0_2e00), 512).unwrap());
    let virtio = Candidate { kind: Kind::Virtio(VirtioKind::Block), place: slot };
    let path = controller_nodes(&virtio).unwrap();
    assert_eq!(text(path.clone()), "VenHw(837DCA9E-E874-4D82-B29A-23FE0E23D1E2,002EB0FE00000000)");
    let function = |root, path: &[(u8, u8, u8)]| {
        let path: Vec<_> =
            path.iter().map(|&(bus, device, number)| Address::new(bus, device, number).unwrap()).collect();
        let place = Place::Pci(Function::at_end_of(Route::of(root, u8::from(root != 0), &path)));
        text(controller_nodes(&Candidate { kind: Kind::Ahci, place }).unwrap())
    };
    assert_eq!(function(0, &[(0, 0x1f, 2)]), "PciRoot(0x0)/Pci(0x1F,0x2)");
    assert_eq!(function(0, &[(0, 1, 0), (1, 3, 0)]), "PciRoot(0x0)/Pci(0x1,0x0)/Pci(0x3,0x0)", "behind a bridge");
    assert_eq!(function(0x40, &[(0x40, 0, 0), (0x41, 0, 1)]), "PciRoot(0x40)/Pci(0x0,0x0)/Pci(0x0,0x1)");
    let unit = |unit| text(unit_node(PathBuilder::new(), unit).unwrap());
    assert_eq!(unit(UnitAddress::Only), "");
    assert_eq!(unit(UnitAddress::Scsi { target: 2, lun: 3 }), "Scsi(0x2,0x3)");
    assert_eq!(unit(UnitAddress::Port(2)), "Sata(0x2,0xFFFF,0x0)");
    let eui64 = [1, 2, 3, 4, 5, 6, 7, 0xab];
    assert_eq!(unit(UnitAddress::Namespace { id: 1, eui64 }), "NVMe(0x1,AB-07-06-05-04-03-02-01)");
}

#[test]
fn nodes_of_partitions_say_what_their_tables_say() {
    let extent = Extent { first: 2048, blocks: 0x2_0000 };
    let node = |scheme| {
        let partition = Partition { extent, scheme, extended: None };
        text(partition_node(PathBuilder::new(), &partition).unwrap())
    };
    let unique = guid!("8dc5f7a9-d26a-4b16-99d2-1a1ac2b36f7d");
    assert_eq!(
        node(Scheme::Gpt { number: 15, kind: guid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"), unique, attributes: 0 }),
        "HD(15,GPT,8DC5F7A9-D26A-4B16-99D2-1A1AC2B36F7D,0x800,0x20000)"
    );
    let signature = 0x1234_5678;
    assert_eq!(node(Scheme::Mbr { number: 1, kind: 0xef, signature }), "HD(1,MBR,0x12345678,0x800,0x20000)");
    assert_eq!(node(Scheme::ElTorito { entry: 1, platform: 0xef }), "CDROM(0x1,0x800,0x20000)");
}

/// A disk with these bytes.
struct Image {
    unit: Unit,
    bytes: Vec<u8>,
    /// First block and number of blocks of each request.
    requests: Vec<(u64, u64)>,
}

impl Controller<FakeMachine> for Image {
    fn units(&mut self, _: &mut FakeMachine, found: &mut dyn FnMut(Unit)) -> Result<(), Error> {
        found(self.unit);
        Ok(())
    }

    fn read(&mut self, machine: &mut FakeMachine, _: &Unit, first: u64, into: PhysRange) -> Result<(), Error> {
        self.requests.push((first, into.len() / 512));
        let start = first as usize * 512;
        machine.memory.store(into.start().get(), &self.bytes[start..start + into.len() as usize]);
        Ok(())
    }

    fn stop(&mut self, _: &mut FakeMachine) -> Result<(), Error> {
        Ok(())
    }
}

/// From the partition table to the last byte: what the firmware does with a kernel as `BOOTX64.EFI`. Each request is an exit.
#[test]
fn a_program_of_14_mib_is_read_by_five_requests() {
    const FIRST: u64 = 2048;
    let program: Vec<u8> = (0..14 << 20).map(|at: u32| (at ^ at >> 9) as u8).collect();
    let mut fat = FatImage::new(Format { cluster_sectors: 8, clusters: 8000, ..Format::FAT32 });
    let efi = fat.directory(fat.root(), "EFI");
    let boot = fat.directory(efi, "BOOT");
    fat.file(boot, "BOOTX64.EFI", &program);
    let mut bytes = std::vec![0; FIRST as usize * 512];
    // The only entry of an MBR.
    bytes[450] = 0xef;
    bytes[454..458].copy_from_slice(&(FIRST as u32).to_le_bytes());
    bytes[458..462].copy_from_slice(&((fat.bytes.len() / 512) as u32).to_le_bytes());
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes.extend(fat.bytes);
    let media = Media { blocks: bytes.len() as u64 / 512, ..UNIT.media };
    let image = Image { unit: Unit { media, ..UNIT }, bytes, requests: Vec::new() };
    let (mut disks, mut machine) = (Disks::new(), FakeMachine::new());
    let unit = image.unit;
    let controller = disks.add_controller(image).map_err(|(error, _)| error).unwrap();
    let room = PhysRange::new(PhysAddr::new(0x20_0000), Disk::ROOM).unwrap();
    let disk = disks.add_disk(controller, Disk::new(unit, room).unwrap()).unwrap();
    let [partition] = partition::find(&mut disks.on(&mut machine).blocks(disk).unwrap()).unwrap()[..] else {
        panic!("one partition")
    };
    let block = disks.add_partition(disk, partition.extent).unwrap();
    let mut source = disks.on(&mut machine);
    let fat = Fat::open(&mut source.blocks(block).unwrap()).unwrap();
    let mut files = FileSystem::new();
    let volume = files.add(Volume::Fat(FatVolume::new(block, fat))).unwrap();
    let path: Vec<u16> = r"\EFI\BOOT\BOOTX64.EFI".encode_utf16().collect();
    let mut file = files.find(&mut source, volume, &[path].into()).unwrap().unwrap();
    let into = PhysRange::new(PhysAddr::new(0x100_0000), file.len()).unwrap();
    file.load(&mut source, 0, into).unwrap();
    assert_eq!(machine.memory.bytes(0x100_0000, program.len()), program);
    let requests = &disks.controller(controller).unwrap().requests;
    assert_eq!(requests.len(), 5, "{requests:?}");
    assert_eq!(requests.iter().filter(|(_, blocks)| *blocks == 14 << 11).count(), 1, "{requests:?}");
}
