//! A host with a fault: what it reports, and what it has. [`Host::sound`] has no fault.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ops::Range;

use firstlight::fakes::fw_cfg::{FakeFwCfg, Quirks};
use firstlight::fakes::golden;
use firstlight::fakes::known_hosts::{KnownHost, known_hosts};
use vmm::devices::Extra;

use crate::disks::Faulty;
use crate::pci::Board;

/// Bytes of RAM.
pub const RAM: u64 = 32 << 20;
/// The part that the host reserves for itself.
const RESERVED: [Range<u64>; 2] = [0x80_0000..0x90_0000, RAM - 0x10_0000..RAM];

/// The keys of numbered items (QEMU `include/standard-headers/linux/qemu_fw_cfg.h`).
pub mod key {
    pub const KERNEL_SIZE: u16 = 0x08;
    pub const INITRD_SIZE: u16 = 0x0b;
    pub const KERNEL_DATA: u16 = 0x11;
    pub const INITRD_DATA: u16 = 0x12;
    pub const CMDLINE_SIZE: u16 = 0x14;
    pub const CMDLINE_DATA: u16 = 0x15;
    pub const SETUP_SIZE: u16 = 0x17;
    pub const SETUP_DATA: u16 = 0x18;
    pub const FILE_DIR: u16 = 0x19;
    pub const FIRST_FILE: u16 = 0x20;
}

const COMMAND_LINE: &[u8] = b"console=ttyS0 quiet\0";
/// `mov eax, esi; mov dx, 0xf4; out dx, eax; hlt`: where `boot_params` is, to the test VMM's exit port.
const ENTRY: [u8; 8] = [0x89, 0xf0, 0x66, 0xba, 0xf4, 0x00, 0xef, 0xf4];

/// The host.
pub struct Host {
    /// How its fw_cfg device behaves.
    pub known: KnownHost,
    /// fw_cfg items that are in no directory. One with the key of the directory is there in its place.
    pub items: BTreeMap<u16, Vec<u8>>,
    /// Named fw_cfg items.
    pub files: Vec<(String, Vec<u8>)>,
    /// What is in memory when the guest starts, and where.
    pub memory: Vec<(u64, Vec<u8>)>,
    /// Makes the rest of the machine.
    pub extra: fn() -> Box<dyn Extra>,
    /// Whether the firmware cannot read its list of RAM: then it cannot know what is reserved.
    pub hides_its_list: bool,
    /// Which allocation of the firmware's fails, from 1 on.
    pub allocation_fails: Option<u32>,
    /// The disks of a machine without a kernel.
    pub disks: Option<Faulty>,
}

impl Host {
    /// QEMU with DMA and the tables of a q35, but without a chipset, and with a kernel.
    pub fn sound() -> Self {
        let (kernel, initrd) = (kernel(), pattern(7003, 2));
        let size = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes().to_vec();
        let items = BTreeMap::from([
            (key::SETUP_SIZE, size(&setup_code())),
            (key::SETUP_DATA, setup_code()),
            (key::KERNEL_SIZE, size(&kernel)),
            (key::KERNEL_DATA, kernel),
            (key::INITRD_SIZE, size(&initrd)),
            (key::INITRD_DATA, initrd),
            (key::CMDLINE_SIZE, size(COMMAND_LINE)),
            (key::CMDLINE_DATA, COMMAND_LINE.to_vec()),
        ]);
        let mut files: Vec<_> = golden::items("q35").into_iter().collect();
        files.retain(|(name, _)| name != "etc/e820");
        let mut host = Self {
            known: KnownHost { alias: false, ..known_hosts()[0] },
            items,
            files,
            memory: Vec::new(),
            extra: Board::none,
            hides_its_list: false,
            allocation_fails: None,
            disks: None,
        };
        let reserved = RESERVED.map(|range| record(range, 2));
        host.set_file("etc/e820", [reserved.concat(), record(0..RAM, 1)].concat());
        host.set_file(golden::QEMU_FILE, Vec::new());
        host
    }

    /// Without a kernel, and with two controllers of disks, the first of which has a fault.
    pub fn with_disks(faulty: Faulty) -> Self {
        let mut host = Self::sound();
        host.items.clear();
        if faulty.bus.is_slot() {
            let list = host.contents("etc/e820").to_vec();
            host.files = golden::items("microvm").into_iter().collect();
            host.set_file("etc/e820", list);
            host.set_file(golden::QEMU_FILE, Vec::new());
        }
        Self { disks: Some(faulty), extra: faulty.bus.extra(), ..host }
    }

    /// With a device that behaves so.
    pub fn quirks(mut self, quirks: Quirks) -> Self {
        self.known.quirks = quirks;
        self
    }

    /// With an item in no directory.
    pub fn item(mut self, key: u16, bytes: &[u8]) -> Self {
        self.items.insert(key, bytes.to_vec());
        self
    }

    /// With a size in an item.
    pub fn number(self, key: u16, number: u32) -> Self {
        self.item(key, &number.to_le_bytes())
    }

    /// With a file, in the place of that of the same name.
    pub fn file(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.set_file(name, bytes);
        self
    }

    /// Without a file.
    pub fn without(mut self, name: &str) -> Self {
        self.files.retain(|(file, _)| file != name);
        self
    }

    /// With pieces of memory.
    pub fn memory(mut self, pieces: Vec<(u64, Vec<u8>)>) -> Self {
        self.memory.extend(pieces);
        self
    }

    /// With other devices.
    pub fn extra(mut self, extra: fn() -> Box<dyn Extra>) -> Self {
        self.extra = extra;
        self
    }

    fn set_file(&mut self, name: &str, bytes: Vec<u8>) {
        self.files.retain(|(file, _)| file != name);
        self.files.push((name.to_owned(), bytes));
    }

    /// The contents of a file.
    pub fn contents(&self, name: &str) -> &[u8] {
        self.files.iter().find(|(file, _)| file == name).map_or(&[], |(_, bytes)| bytes)
    }

    /// With a directory in which `change` is made: records of length, key and name.
    pub fn directory(self, change: impl FnOnce(&mut Vec<Record>)) -> Self {
        let files = self.files.iter().zip(key::FIRST_FILE..);
        let mut records: Vec<Record> =
            files.map(|((name, bytes), key)| (bytes.len() as u32, key, name.as_bytes().to_vec())).collect();
        change(&mut records);
        let bytes = directory(records.len() as u32, &records);
        self.item(key::FILE_DIR, &bytes)
    }

    /// The fw_cfg device.
    pub fn device(&self) -> FakeFwCfg {
        let device = self.items.iter().fold(self.known.device(), |device, (key, bytes)| device.with_item(*key, bytes));
        self.files.iter().fold(device, |device, (name, bytes)| device.with_file(name, bytes))
    }

    /// What the host says is RAM, and what it says is not, in its own list.
    pub fn ram(&self) -> (Vec<Range<u64>>, Vec<Range<u64>>) {
        let list = self.contents("etc/e820");
        if list.is_empty() || self.hides_its_list {
            // CMOS may report more above 4 GiB.
            return (vec![0..RAM, 1 << 32..u64::MAX], Vec::new());
        }
        let mut sides = (Vec::new(), Vec::new());
        for record in list.chunks_exact(20) {
            let number = |at: usize| vmm::devices::number(&record[at..at + 8]);
            let range = number(0)..number(0).saturating_add(number(8));
            if record[16..20] == [1, 0, 0, 0] { &mut sides.0 } else { &mut sides.1 }.push(range);
        }
        sides
    }
}

/// A record of the directory: length, key, name.
pub type Record = (u32, u16, Vec<u8>);

/// A directory that counts so many files and has these.
pub fn directory(count: u32, records: &[Record]) -> Vec<u8> {
    let mut bytes = count.to_be_bytes().to_vec();
    for (len, key, name) in records {
        bytes.extend(len.to_be_bytes());
        bytes.extend(key.to_be_bytes());
        bytes.extend([0; 2]);
        let mut field = name.clone();
        field.resize(56, 0);
        bytes.extend(field);
    }
    bytes
}

/// A record of `etc/e820`.
pub fn record(range: Range<u64>, kind: u32) -> Vec<u8> {
    let len = range.end.wrapping_sub(range.start);
    [&range.start.to_le_bytes()[..], &len.to_le_bytes(), &kind.to_le_bytes()].concat()
}

/// Bytes that differ from place to place.
pub fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i / 256) as u8 ^ (i as u8).wrapping_mul(13) ^ seed).collect()
}

/// The protected-mode part: the 64-bit entry is at 0x200.
fn kernel() -> Vec<u8> {
    let mut code = pattern(9001, 1);
    code[0x200..][..ENTRY.len()].copy_from_slice(&ENTRY);
    code
}

/// The real-mode part: nothing but the header (Linux `Documentation/arch/x86/boot.rst`).
fn setup_code() -> Vec<u8> {
    let mut setup = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| setup[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1fe, &0xaa55_u16.to_le_bytes());
    put(0x200, &[0xeb, 0x6a]);
    put(0x202, b"HdrS");
    put(0x206, &0x20f_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x214, &0x10_0000_u32.to_le_bytes());
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x230, &0x20_0000_u32.to_le_bytes());
    put(0x234, &[1, 12]);
    put(0x236, &1_u16.to_le_bytes());
    put(0x238, &2047_u32.to_le_bytes());
    put(0x258, &0x100_0000_u64.to_le_bytes());
    put(0x260, &0x1_0000_u32.to_le_bytes());
    setup
}

/// Commands of the table-loader script (QEMU `hw/acpi/bios-linker-loader.c`).
pub mod script {
    /// Loads a file: its alignment, and 1 for below 4 GiB, 2 for the F-segment.
    pub fn allocate(file: &str, alignment: u32, zone: u8) -> Vec<u8> {
        command(1, &[&name(file), &alignment.to_le_bytes(), &[zone]])
    }

    /// Adds the address of `source` to the `size` bytes at `offset` of `file`.
    pub fn add_pointer(file: &str, source: &str, offset: u32, size: u8) -> Vec<u8> {
        command(2, &[&name(file), &name(source), &offset.to_le_bytes(), &[size]])
    }

    /// Sets the checksum at `offset` of `file` for the `len` bytes from `start` on.
    pub fn add_checksum(file: &str, offset: u32, start: u32, len: u32) -> Vec<u8> {
        command(3, &[&name(file), &offset.to_le_bytes(), &start.to_le_bytes(), &len.to_le_bytes()])
    }

    /// Writes the address of `source` plus `offset` to a separate file of the host.
    pub fn write_pointer(file: &str, to: u32, source: &str, offset: u32, size: u8) -> Vec<u8> {
        command(4, &[&name(file), &name(source), &to.to_le_bytes(), &offset.to_le_bytes(), &[size]])
    }

    fn name(text: &str) -> [u8; 56] {
        let mut field = [0; 56];
        field[..text.len()].copy_from_slice(text.as_bytes());
        field
    }

    fn command(number: u32, parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = [&number.to_le_bytes()[..], &parts.concat()].concat();
        bytes.resize(128, 0);
        bytes
    }
}
