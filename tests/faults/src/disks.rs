//! Disks with a fault: the controllers as fakes, and what is on their disks.
//!
//! A machine has two controllers. The first has the fault. The second is a virtio disk without one, so that a boot always goes on:
//! with the program on the first disk or with that on the second.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::iter;
use std::ops::Range;
use std::rc::Rc;
use std::sync::LazyLock;

use firstlight::fakes::ahci::{AhciRegisters, FakeAhci, FakeDevice};
use firstlight::fakes::blocks::Contents;
use firstlight::fakes::fat::{FatImage, Format};
use firstlight::fakes::machine::{FakeMachine, FakeMemory};
use firstlight::fakes::nvme::{FakeNamespace, FakeNvme, NvmeRegisters};
use firstlight::fakes::virtio::{FakeUnit, FakeVirtio, Interface, VirtioRegisters};
use vmm::devices::Extra;

use crate::host::{RAM, pattern};
use crate::pci::{self, Board};

/// What the first controller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bus {
    /// A virtio block device as a PCI function.
    Virtio,
    /// A virtio block device in a slot, version 2.
    Slot,
    /// A virtio block device in a slot, version 1.
    LegacySlot,
    /// A virtio SCSI host as a PCI function.
    Scsi,
    /// An NVMe controller.
    Nvme,
    /// An AHCI controller.
    Ahci,
}

/// All of them.
pub const BUSES: [Bus; 6] = [Bus::Virtio, Bus::Slot, Bus::LegacySlot, Bus::Scsi, Bus::Nvme, Bus::Ahci];
/// The PCI functions of the two controllers: the numbers of their buses, devices and functions.
pub const FUNCTIONS: [u16; 2] = [2 << 3, 3 << 3];
/// The slots of the two controllers: a microvm's last ones.
const SLOTS: [u64; 2] = [0xfeb0_2e00, 0xfeb0_2c00];

impl Bus {
    /// Whether it is a slot, of a machine without PCI.
    pub const fn is_slot(self) -> bool {
        matches!(self, Self::Slot | Self::LegacySlot)
    }

    /// The rest of the machine.
    pub const fn extra(self) -> fn() -> Box<dyn Extra> {
        match self {
            Self::Virtio => || Board::q35(pci::virtio_disks),
            Self::Slot | Self::LegacySlot => Board::none,
            Self::Scsi => || Board::q35(pci::virtio_scsi),
            Self::Nvme => || Board::q35(pci::nvme),
            Self::Ahci => || Board::q35(pci::ahci),
        }
    }

    /// The base address register with the controller's registers.
    pub const fn register(self) -> u8 {
        match self {
            Self::Nvme => 0x10,
            Self::Ahci => 0x24,
            _ => pci::VIRTIO_BAR,
        }
    }
}

/// The targets that the SCSI host may have.
pub const TARGETS: u32 = 4;

/// What is wrong with the first controller. Requests and bytes are counted from 0.
#[derive(Clone, Copy, Debug)]
pub enum DiskFault {
    /// Nothing.
    None,
    /// It does not answer, from a request on.
    IsSilent(u32),
    /// The same, and when it is reset, it writes the answer before it acknowledges that.
    IsLate(u32),
    /// The same, and it does not acknowledge that, and writes the answer when the program runs.
    IgnoresReset(u32),
    /// It reports an error for a request.
    Fails(u32),
    /// It reports an error from a request on.
    FailsFrom(u32),
    /// It says that it has executed another request.
    AnswersAnother(u32),
    /// It says that it has executed more requests, or in another round.
    CountsWrong(u32),
    /// It says that it has written fewer bytes.
    IsShort(u32),
    /// It says that it has written more bytes.
    IsLong(u32),
    /// Its registers are all ones from an access on.
    IsGone(u32),
    /// It says that its disk has this many blocks.
    HasBlocks(u64),
    /// The disk has other bytes from a request on.
    Changes(u32, Change),
}

/// Which bytes of a disk change.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// The partition is somewhere else, and far too long.
    Partition,
    /// Each cluster is followed by itself.
    Circles,
    /// Each file has 4 GiB less one byte.
    Lengths,
    /// All bytes.
    Noise,
}

/// All of them.
pub const CHANGES: [Change; 4] = [Change::Partition, Change::Circles, Change::Lengths, Change::Noise];

/// The first controller.
#[derive(Clone, Copy, Debug)]
pub struct Faulty {
    /// What it is.
    pub bus: Bus,
    /// What is wrong with it.
    pub fault: DiskFault,
}

/// The bytes of the program's data: so many that they are read straight to their place.
const DATA_LEN: usize = 300 << 10;
/// Where the program's sections are in its file and in memory.
const SECTIONS: [(usize, usize, usize); 3] = [(0, 0, 0x400), (0x400, 0x1000, 0x200), (0x600, 0x2000, DATA_LEN)];
/// The bytes of the program in memory.
pub const PROGRAM_LEN: u64 = 0x2000 + DATA_LEN as u64;
/// Where the partition begins.
const PARTITION: usize = 64 * 512;
/// The first directory of the file system, in the partition, and its entries.
const FORMAT: Format = Format { clusters: 1200, ..Format::FAT12 };

/// The program on a disk: a PE file with code and data (Microsoft, "PE Format").
fn program(seed: u8) -> Vec<u8> {
    let mut file = vec![0; 0x600 + DATA_LEN];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &[0x40]);
    put(0x40, b"PE\0\0");
    // The machine, sections, the length of the optional header, characteristics.
    for (at, number) in [(0x44, 0x8664_u16), (0x46, 2), (0x54, 240), (0x56, 0x206)] {
        put(at, &number.to_le_bytes());
    }
    let optional = 0x58;
    // 64 bits, the version of images, the subsystem: an application.
    for (at, number) in [(0, 0x20b_u16), (44, 1), (68, 10), (70, 0x100)] {
        put(optional + at, &number.to_le_bytes());
    }
    // The entry point, alignments, lengths of the image and of headers, the number of directories.
    for (at, number) in [(16, 0x1000), (32, 0x1000), (36, 0x200), (56, PROGRAM_LEN as u32), (60, 0x400), (108, 16)] {
        put(optional + at, &u32::to_le_bytes(number));
    }
    for (index, (offset, address, len)) in SECTIONS.into_iter().skip(1).enumerate() {
        let at = optional + 240 + 40 * index;
        let flags = if index == 0 { 0x6000_0020 } else { 0xc000_0040_u32 };
        for (place, number) in
            [(8, len as u32), (12, address as u32), (16, len as u32), (20, offset as u32), (36, flags)]
        {
            put(at + place, &number.to_le_bytes());
        }
    }
    put(0x400, &pattern(0x200, seed));
    put(0x600, &pattern(DATA_LEN, seed ^ 0x55));
    file
}

/// Whether these are the bytes of the program of one of the disks, as it is in memory.
pub fn is_placed(bytes: &[u8]) -> bool {
    static FILES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [0, 1].map(program));
    let has = |file: &Vec<u8>| {
        SECTIONS.iter().all(|&(offset, address, len)| bytes[address..address + len] == file[offset..offset + len])
    };
    FILES.iter().any(has)
}

/// What is on a disk: a partition with a FAT file system, which has the program.
fn image(disk: u8) -> Vec<u8> {
    let mut fat = FatImage::new(FORMAT);
    let efi = fat.directory(fat.root(), "EFI");
    let boot = fat.directory(efi, "BOOT");
    fat.file(boot, "BOOTX64.EFI", &program(disk));
    let mut bytes = vec![0; PARTITION];
    // One entry, and a signature (UEFI 5.2.1).
    let blocks = (fat.bytes.len() / 512) as u32;
    bytes[0x1be + 4] = 0xef;
    bytes[0x1be + 8..][..4].copy_from_slice(&(PARTITION as u32 / 512).to_le_bytes());
    bytes[0x1be + 12..][..4].copy_from_slice(&blocks.to_le_bytes());
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes.extend(fat.bytes);
    bytes
}

/// What is on both disks.
static IMAGES: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| [0, 1].map(image));

fn changed(image: &[u8], change: Change) -> Vec<u8> {
    let mut bytes = image.to_vec();
    match change {
        Change::Partition => bytes[0x1be + 8..0x1be + 16].fill(0xf0),
        Change::Circles => {
            let mut fat = FatImage::new(FORMAT);
            fat.bytes = bytes.split_off(PARTITION);
            (2..FORMAT.clusters + 2).for_each(|cluster| fat.set_link(cluster, cluster));
            bytes.extend(fat.bytes);
        }
        Change::Lengths => {
            let directories = PARTITION + FORMAT.root() as usize..PARTITION + FORMAT.cluster(8) as usize;
            for at in directories.step_by(32).filter(|&at| image[at] != 0) {
                bytes[at + 28..at + 32].fill(0xff);
            }
        }
        Change::Noise => bytes = pattern(bytes.len(), 0x77),
    }
    bytes
}

/// Reads of a disk, which changes at one of them.
fn contents(disk: u8, change: Option<(u32, Change)>) -> Contents {
    let first = &IMAGES[usize::from(disk)];
    let later = change.map(|(from, change)| (from, changed(first, change)));
    let mut reads = 0;
    Box::new(move |at, len| {
        let image = later.as_ref().filter(|(from, _)| reads >= *from).map_or(first, |(_, later)| later);
        reads += 1;
        let rest = image.get(at as usize..).unwrap_or_default();
        let mut bytes = rest[..len.min(rest.len())].to_vec();
        bytes.resize(len, 0);
        bytes
    })
}

/// The blocks of a disk.
fn blocks() -> u64 {
    ((IMAGES[0].len() / 512) as u64).next_multiple_of(64) + 64
}

/// The memory that the driver may give to a controller: what it writes is checked elsewhere.
fn allowed() -> Vec<Range<u64>> {
    iter::once(0..RAM).collect()
}

/// A controller that is part of a machine.
pub enum Attached {
    Virtio(Rc<RefCell<FakeVirtio>>),
    Nvme(Rc<RefCell<FakeNvme>>),
    Ahci(Rc<RefCell<FakeAhci>>),
}

impl Attached {
    /// Has a controller that still executes commands end them.
    pub fn finish(&self, memory: &mut FakeMemory) {
        match self {
            Self::Virtio(device) => device.borrow_mut().finish(memory),
            Self::Nvme(device) => device.borrow_mut().finish(memory),
            Self::Ahci(device) => device.borrow_mut().finish(memory),
        }
    }
}

/// Puts the two controllers into the machine. Those in slots have their places, and others those that the firmware gave to them.
pub fn attach(machine: &mut FakeMachine, faulty: Faulty, bases: Option<[u64; 2]>) -> [Attached; 2] {
    let bases = bases.unwrap_or(SLOTS);
    let second = if faulty.bus.is_slot() { Bus::Slot } else { Bus::Virtio };
    let sound = Faulty { bus: second, fault: DiskFault::None };
    [(0, faulty), (1, sound)].map(|(index, faulty)| attach_one(machine, faulty, bases[usize::from(index)], index))
}

fn attach_one(machine: &mut FakeMachine, Faulty { bus, fault }: Faulty, base: u64, disk: u8) -> Attached {
    let change = if let DiskFault::Changes(from, change) = fault { Some((from, change)) } else { None };
    let contents = Some(contents(disk, change));
    let blocks = if let DiskFault::HasBlocks(blocks) = fault { blocks } else { blocks() };
    let interface = match bus {
        Bus::Slot => Interface::Slot,
        Bus::LegacySlot => Interface::LegacySlot,
        _ => Interface::Pci,
    };
    let mut device = match bus {
        Bus::Virtio | Bus::Slot | Bus::LegacySlot => FakeVirtio::disk(base, interface, blocks),
        Bus::Scsi => {
            let unit = FakeUnit { target: 3, lun: 0, kind: 0, blocks, block_len: 512, is_never_ready: false };
            let mut host = FakeVirtio::scsi(base, interface, vec![unit]);
            host.configuration[28..32].copy_from_slice(&((TARGETS - 1) << 16).to_le_bytes());
            host
        }
        Bus::Nvme => {
            let mut device = FakeNvme::new(base, FakeNamespace::new(1, blocks));
            (device.contents, device.allowed) = (contents, allowed());
            break_nvme(&mut device, fault);
            let device = Rc::new(RefCell::new(device));
            machine.registers.push(Box::new(NvmeRegisters(device.clone())));
            return Attached::Nvme(device);
        }
        Bus::Ahci => {
            let mut device = FakeAhci::new(base, Some(FakeDevice::disk(blocks)));
            (device.contents, device.allowed) = (contents, allowed());
            break_ahci(&mut device, fault);
            let device = Rc::new(RefCell::new(device));
            machine.registers.push(Box::new(AhciRegisters(device.clone())));
            return Attached::Ahci(device);
        }
    };
    (device.contents, device.allowed) = (contents, allowed());
    break_virtio(&mut device, bus == Bus::Scsi, fault);
    let device = Rc::new(RefCell::new(device));
    machine.registers.push(Box::new(VirtioRegisters(device.clone())));
    Attached::Virtio(device)
}

/// Registers that are all ones from an access on.
fn gone(from: u32) -> impl FnMut(u64) -> u64 {
    let mut accesses = 0;
    move |value| {
        accesses += 1;
        if accesses > from { u64::MAX } else { value }
    }
}

fn break_virtio(device: &mut FakeVirtio, is_scsi: bool, fault: DiskFault) {
    let defects = &mut device.defects;
    let failed = move |answer: &mut Vec<u8>| {
        // A disk's status is its last byte; a host's response is one of the first twelve.
        let at = if is_scsi { 11 } else { answer.len() - 1 };
        answer[at] = if is_scsi { 9 } else { 1 };
    };
    match fault {
        DiskFault::None | DiskFault::HasBlocks(_) | DiskFault::Changes(..) => {}
        DiskFault::IsSilent(from) => defects.silent_from = Some(from as usize),
        DiskFault::IsLate(from) => (defects.silent_from, defects.is_late) = (Some(from as usize), true),
        DiskFault::IgnoresReset(from) => {
            (defects.silent_from, defects.is_late, defects.ignores_reset) = (Some(from as usize), true, true);
        }
        DiskFault::Fails(number) => {
            defects.answer = Some(Box::new(move |request, answer| {
                if request == number as usize {
                    failed(answer);
                }
            }));
        }
        DiskFault::FailsFrom(number) => {
            defects.answer = Some(Box::new(move |request, answer| {
                if request >= number as usize {
                    failed(answer);
                }
            }));
        }
        DiskFault::AnswersAnother(number) => {
            defects.used = Some(Box::new(move |request, used| {
                used.head += if request == number as usize { 40 } else { 0 };
            }));
        }
        DiskFault::CountsWrong(number) => {
            defects.used = Some(Box::new(move |request, used| {
                used.step += if request == number as usize { 7 } else { 0 };
            }));
        }
        DiskFault::IsShort(number) => {
            defects.answer = Some(Box::new(move |request, answer| {
                if request == number as usize && is_scsi {
                    answer[4..8].copy_from_slice(&100_u32.to_le_bytes());
                } else if request == number as usize {
                    answer.truncate(answer.len() / 2);
                }
            }));
        }
        DiskFault::IsLong(number) => {
            defects.used = Some(Box::new(move |request, used| {
                used.len = if request == number as usize { u32::MAX } else { used.len };
            }));
        }
        DiskFault::IsGone(from) => {
            let mut gone = gone(from);
            defects.register = Some(Box::new(move |_, value| gone(value)));
        }
    }
}

fn break_nvme(device: &mut FakeNvme, fault: DiskFault) {
    let defects = &mut device.defects;
    let mut change = |dword: usize, bits: u32, is_meant: Box<dyn Fn(u32) -> bool>| {
        defects.completion = Some(Box::new(move |command, dwords| {
            dwords[dword] ^= if is_meant(command as u32) { bits } else { 0 };
        }));
    };
    match fault {
        DiskFault::None | DiskFault::HasBlocks(_) | DiskFault::Changes(..) => {}
        DiskFault::IsSilent(from) => defects.silent_from = Some(from as usize),
        DiskFault::IsLate(from) => (defects.silent_from, defects.is_late) = (Some(from as usize), true),
        DiskFault::IgnoresReset(from) => {
            (defects.silent_from, defects.is_late, defects.never_stops) = (Some(from as usize), true, true);
        }
        // Unrecovered Read Error (NVM Express 1.4, 4.6.1.2.2).
        DiskFault::Fails(number) => change(3, 0x281 << 17, Box::new(move |command| command == number)),
        DiskFault::FailsFrom(number) => change(3, 0x281 << 17, Box::new(move |command| command >= number)),
        DiskFault::AnswersAnother(number) => change(3, 5, Box::new(move |command| command == number)),
        DiskFault::CountsWrong(number) => change(3, 1 << 16, Box::new(move |command| command == number)),
        // Completions have no length: another queue, another place in it.
        DiskFault::IsShort(number) => change(2, 1 << 16, Box::new(move |command| command == number)),
        DiskFault::IsLong(number) => change(2, 0x8000, Box::new(move |command| command == number)),
        DiskFault::IsGone(from) => {
            let mut gone = gone(from);
            defects.register = Some(Box::new(move |_, value| gone(value)));
        }
    }
}

fn break_ahci(device: &mut FakeAhci, fault: DiskFault) {
    let defects = &mut device.defects;
    let mut end = |is_meant: Box<dyn Fn(u32) -> bool>, change: fn(&mut u8, &mut u8, &mut u32)| {
        defects.end = Some(Box::new(move |command, status, error, bytes| {
            if is_meant(command as u32) {
                change(status, error, bytes);
            }
        }));
    };
    match fault {
        DiskFault::None | DiskFault::HasBlocks(_) | DiskFault::Changes(..) => {}
        DiskFault::IsSilent(from) => defects.silent_from = Some(from as usize),
        DiskFault::IsLate(from) => (defects.silent_from, defects.is_late) = (Some(from as usize), true),
        DiskFault::IgnoresReset(from) => {
            (defects.silent_from, defects.is_late) = (Some(from as usize), true);
            (defects.never_stops, defects.never_resets) = (true, true);
        }
        // Uncorrectable data.
        DiskFault::Fails(number) => {
            end(Box::new(move |command| command == number), |status, error, _| (*status, *error) = (0x41, 0x40));
        }
        DiskFault::FailsFrom(number) => {
            end(Box::new(move |command| command >= number), |status, error, _| (*status, *error) = (0x41, 0x40));
        }
        // A message has no number: it says that the device is busy, or wants more data.
        DiskFault::AnswersAnother(number) => {
            end(Box::new(move |command| command == number), |status, _, _| *status = 0x80);
        }
        DiskFault::CountsWrong(number) => {
            end(Box::new(move |command| command == number), |status, _, _| *status = 0x08);
        }
        DiskFault::IsShort(number) => {
            end(Box::new(move |command| command == number), |_, _, bytes| *bytes /= 2);
        }
        DiskFault::IsLong(number) => {
            end(Box::new(move |command| command == number), |_, _, bytes| *bytes = u32::MAX);
        }
        DiskFault::IsGone(from) => {
            let mut gone = gone(from);
            defects.register = Some(Box::new(move |_, value| gone(value.into()) as u32));
        }
    }
}
