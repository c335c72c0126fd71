//! A fw_cfg device for tests, with a choice of the defects of known hosts.
//!
//! The device uses [`GuestMemory`]: that of a fake machine in host tests, that of a virtual machine in the test VMM
//! (`tests/vmm`). Its registers are ports, or in memory with [`FakeMachine::with_fw_cfg_at`].

extern crate std;

use std::boxed::Box;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use super::machine::{FakeDevice, FakeMachine, FakeMemory, FakeRegisters, GuestMemory};
use crate::addr::PhysAddr;
use crate::hal::registers::MemoryRegisters;

/// Keys below this one are for numbered items, the others for files (QEMU `FW_CFG_FILE_FIRST`).
const FIRST_FILE: u16 = 0x20;
const FILE_DIR: u16 = 0x19;
/// The data port.
const DATA: u16 = 0x511;

/// The bits of the DMA control word.
mod control {
    pub const ERROR: u32 = 1 << 0;
    pub const READ: u32 = 1 << 1;
    pub const SKIP: u32 = 1 << 2;
    pub const SELECT: u32 = 1 << 3;
    pub const WRITE: u32 = 1 << 4;

    /// Where Cloud Hypervisor has the last three bits.
    pub const MOVED: [(u32, u32); 3] = [(1 << 3, SKIP), (1 << 7, SELECT), (1 << 15, WRITE)];
}

/// The content of a host's string buffer that was not filled.
const LEFT_BEHIND: u8 = 0x5a;

/// How the device answers for the key of an absent item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Absent {
    /// The item is empty (QEMU).
    #[default]
    Empty,
    /// The DMA transfer of a file fails; numbered items are empty (Cloud Hypervisor, alioth).
    Refused,
    /// The key of a file keeps the previously selected item, at its start (crosvm).
    PreviousItem,
    /// A numbered key returns the directory (VirtualBox).
    Directory,
    /// A DMA transfer with a key of 0x40 or above never ends, and the next one returns zeros: StratoVirt checks the
    /// previously selected item before it executes SELECT.
    NeverEnds,
}

/// The value of the DMA address register when it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressReads {
    /// "QEMU CFG" with DMA, all ones without (QEMU).
    #[default]
    AsQemu,
    /// The address written last (Cloud Hypervisor, alioth).
    LastAddress,
    /// The same, but zero after a transfer (propolis).
    LastUntilTransfer,
    /// Zero (crosvm).
    Zero,
}

/// How a DMA transfer goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misdeed {
    /// It fails.
    Fails,
    /// It fails after half of the bytes are in memory.
    FailsHalfway,
    /// It never ends.
    NeverEnds,
    /// Half of the bytes are in memory, and it reports success.
    IsShort,
}

/// When an item's bytes change: all of them are inverted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changing {
    /// From the second selection on.
    AtSelection,
    /// From the second read on.
    AtRead,
    /// The same for all items except the directory.
    AtReadButTheDirectory,
}

/// The differences between a device and QEMU's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quirks {
    /// The value of the DMA address register when it is read.
    pub address_reads: AddressReads,
    /// The identification, if it is not 1 or 3 (crosvm, AxVisor).
    pub id: Option<u32>,
    /// The identification has two bytes (StratoVirt).
    pub short_id: bool,
    /// The signature item is "QEMU CFG", 8 bytes (Cloud Hypervisor).
    pub long_signature: bool,
    /// All bits of the control word except READ are at other positions. So QEMU's SELECT is ignored together with READ,
    /// and skips without it; QEMU's SKIP and WRITE are errors (Cloud Hypervisor).
    pub moves_control_bits: bool,
    /// SELECT in the control word selects item 1 and keeps the offset (alioth).
    pub selects_the_id: bool,
    /// SKIP does nothing (StratoVirt).
    pub ignores_skip: bool,
    /// A transfer starts only if the high half of the address was written just before (AxVisor).
    pub needs_high_half: bool,
    /// Memory that a DMA read does not fill is unchanged (Cloud Hypervisor, alioth, VirtualBox).
    pub no_zero_fill: bool,
    /// A string read that passes the end of the item, or of an absent item, returns the previous content of the host's
    /// buffer (Cloud Hypervisor).
    pub leaves_a_short_string: bool,
    /// The answer for absent items.
    pub absent: Absent,
    /// The host exits at a WRITE (alioth).
    pub ends_at_write: bool,
    /// The host exits at any access other than 16-bit selection and byte reads (bhyve).
    pub ends_at_other_widths: bool,
    /// Numbered items are listed in the directory (propolis).
    pub lists_numbered_items: bool,
    /// Transfers never end.
    pub never_completes: bool,
    /// Every transfer fails.
    pub always_fails: bool,
    /// After a failure, the control word keeps the command's bits beside the error bit.
    pub keeps_command_bits: bool,
    /// How one transfer goes wrong, and its number. The first is 1.
    pub misdeed: Option<(u32, Misdeed)>,
    /// When items change.
    pub changing: Option<Changing>,
}

/// What the device did. A test can read it while the machine owns the device.
#[derive(Debug, Default)]
pub struct Record {
    /// DMA transfers that were started.
    pub transfers: u32,
    /// Their descriptors' control words.
    pub controls: Vec<u32>,
    /// Bytes read past the end of the selected item, or without a selected item.
    pub past_end: u64,
    /// Bytes written to items: key, offset, contents.
    pub written: Vec<(u16, u32, Vec<u8>)>,
    /// Accesses at which this host would have exited.
    pub fatal: Vec<&'static str>,
    /// Accesses to registers in memory: the offset from the first one, and the length in bytes.
    pub mapped: Vec<(u64, u8)>,
}

/// The device.
pub struct FakeFwCfg {
    items: BTreeMap<u16, Vec<u8>>,
    /// The items that the device makes: signature, identification, directory. An item in `items` takes precedence.
    made: BTreeMap<u16, Vec<u8>>,
    names: Vec<(Vec<u8>, u16)>,
    dma: bool,
    quirks: Quirks,
    selected: u16,
    offset: usize,
    high: Option<u32>,
    last_address: u64,
    /// How often items were selected or read, by the rule of `changing`.
    touched: BTreeMap<u16, u32>,
    record: Rc<RefCell<Record>>,
}

impl FakeFwCfg {
    /// A device like QEMU's, with or without DMA.
    #[must_use]
    pub fn new(dma: bool) -> Self {
        Self {
            items: BTreeMap::new(),
            made: BTreeMap::new(),
            names: Vec::new(),
            dma,
            quirks: Quirks::default(),
            selected: 0,
            offset: 0,
            high: None,
            last_address: 0,
            touched: BTreeMap::new(),
            record: Rc::default(),
        }
    }

    /// The device with these defects.
    #[must_use]
    pub fn with_quirks(mut self, quirks: Quirks) -> Self {
        self.quirks = quirks;
        self
    }

    /// The device with the high half of a DMA address that a guest wrote before the reset, which QEMU keeps.
    #[must_use]
    pub const fn with_address_left(mut self, high: u32) -> Self {
        self.high = Some(high);
        self
    }

    /// The device with an item that is not in the directory.
    #[must_use]
    pub fn with_item(mut self, key: u16, bytes: &[u8]) -> Self {
        self.items.insert(key, bytes.to_vec());
        self
    }

    /// The device with a named item.
    #[must_use]
    pub fn with_file(self, name: &str, bytes: &[u8]) -> Self {
        let key = FIRST_FILE + self.names.len() as u16;
        self.with_file_at(key, name, bytes)
    }

    /// The device with a named item with this key.
    #[must_use]
    pub fn with_file_at(mut self, key: u16, name: &str, bytes: &[u8]) -> Self {
        self.names.push((name.as_bytes().to_vec(), key));
        self.with_item(key, bytes)
    }

    /// The record of what the device does.
    #[must_use]
    pub fn record(&self) -> Rc<RefCell<Record>> {
        self.record.clone()
    }

    /// Whether `port` is one of the device's.
    #[must_use]
    pub fn has_port(port: u16) -> bool {
        (0x510..0x51c).contains(&port)
    }

    /// A read of `size` bytes.
    pub fn read_port(&mut self, port: u16, size: u8) -> u32 {
        self.make();
        match (port, size) {
            (DATA, 1) => self.next_byte().unwrap_or(0).into(),
            (0x514, 4) => ((self.address() >> 32) as u32).swap_bytes(),
            (0x518, 4) => (self.address() as u32).swap_bytes(),
            _ => {
                if self.quirks.ends_at_other_widths {
                    self.record.borrow_mut().fatal.push("a read that is not of a byte");
                }
                0
            }
        }
    }

    /// Successive byte reads of one port, as one access.
    pub fn read_port_string(&mut self, port: u16, into: &mut [u8]) {
        self.make();
        let left = self.item(self.selected).map_or(0, <[u8]>::len).saturating_sub(self.offset);
        let short = into.len() > left;
        if port == DATA {
            let bytes = self.next_bytes(into.len());
            let (there, rest) = into.split_at_mut(bytes.len());
            there.copy_from_slice(&bytes);
            rest.fill(0);
        } else {
            into.fill_with(|| self.read_port(port, 1) as u8);
        }
        if short && self.quirks.leaves_a_short_string {
            into.fill(LEFT_BEHIND);
        }
    }

    /// A write of `size` bytes, which may start a DMA transfer.
    pub fn write_port(&mut self, port: u16, size: u8, value: u32, memory: &mut dyn GuestMemory) {
        self.make();
        match (port, size) {
            (0x510, 2) => self.select(value as u16),
            (0x514, 4) if self.dma => self.write_address_high(value.swap_bytes()),
            (0x518, 4) if self.dma => self.write_address_low(value.swap_bytes(), memory),
            _ if self.quirks.ends_at_other_widths => {
                self.record.borrow_mut().fatal.push("a write that selects nothing");
            }
            _ => {}
        }
    }

    /// The value of the DMA address register.
    fn address(&self) -> u64 {
        match self.quirks.address_reads {
            AddressReads::AsQemu if self.dma => u64::from_be_bytes(*b"QEMU CFG"),
            AddressReads::AsQemu => u64::MAX,
            AddressReads::LastAddress | AddressReads::LastUntilTransfer => self.last_address,
            AddressReads::Zero => 0,
        }
    }

    fn write_address_high(&mut self, high: u32) {
        self.high = Some(high);
        self.last_address = u64::from(high) << 32;
    }

    fn write_address_low(&mut self, low: u32, memory: &mut dyn GuestMemory) {
        let high = self.high.take();
        if high.is_some() || !self.quirks.needs_high_half {
            self.transfer(u64::from(high.unwrap_or(0)) << 32 | u64::from(low), memory);
        }
    }

    /// Makes the items that depend on the others, at the first access.
    fn make(&mut self) {
        if !self.made.is_empty() {
            return;
        }
        let signature: &[u8] = if self.quirks.long_signature { b"QEMU CFG" } else { b"QEMU" };
        let id = self.quirks.id.unwrap_or(1 | u32::from(self.dma) << 1);
        self.made.insert(0, signature.to_vec());
        let id_len = if self.quirks.short_id { 2 } else { 4 };
        self.made.insert(1, id.to_le_bytes()[..id_len].to_vec());
        self.made.insert(FILE_DIR, self.directory());
    }

    fn item(&self, key: u16) -> Option<&[u8]> {
        self.items.get(&key).or_else(|| self.made.get(&key)).map(Vec::as_slice)
    }

    fn directory(&self) -> Vec<u8> {
        let numbered: &[(&[u8], u16)] = &[(b"file_dir", FILE_DIR), (b"signature", 0), (b"id", 1)];
        let numbered = if self.quirks.lists_numbered_items { numbered } else { &[] };
        let files = self.names.iter().map(|(name, key)| (name.as_slice(), *key));
        let listed: Vec<_> = numbered.iter().copied().chain(files).collect();
        let mut bytes = (listed.len() as u32).to_be_bytes().to_vec();
        for (name, key) in listed {
            bytes.extend((self.item(key).map_or(0, <[u8]>::len) as u32).to_be_bytes());
            bytes.extend(key.to_be_bytes());
            bytes.extend([0; 2]);
            let mut field = name.to_vec();
            field.resize(56, 0);
            bytes.extend(field);
        }
        bytes
    }

    fn select(&mut self, key: u16) {
        self.touch(Changing::AtSelection, key);
        self.offset = 0;
        if self.item(key).is_none() {
            match self.quirks.absent {
                Absent::PreviousItem if key >= FIRST_FILE => return,
                Absent::Directory if key < FIRST_FILE => {
                    self.selected = FILE_DIR;
                    return;
                }
                _ => {}
            }
        }
        self.selected = key;
    }

    fn touch(&mut self, how: Changing, key: u16) {
        if self.quirks.changing == Some(how) {
            *self.touched.entry(key).or_default() += 1;
        }
    }

    fn next_byte(&mut self) -> Option<u8> {
        self.next_bytes(1).first().copied()
    }

    /// The next `len` bytes, or as many as there are.
    fn next_bytes(&mut self, len: usize) -> Vec<u8> {
        let rest = self.item(self.selected).and_then(|item| item.get(self.offset..)).unwrap_or_default();
        let mut bytes = rest[..len.min(rest.len())].to_vec();
        self.touch(Changing::AtRead, self.selected);
        if self.selected != FILE_DIR {
            self.touch(Changing::AtReadButTheDirectory, self.selected);
        }
        if self.touched.get(&self.selected).is_some_and(|&times| times > 1) {
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
        }
        self.offset += len;
        self.record.borrow_mut().past_end += (len - bytes.len()) as u64;
        bytes
    }

    fn transfer(&mut self, at: u64, memory: &mut dyn GuestMemory) {
        self.last_address = if self.quirks.address_reads == AddressReads::LastUntilTransfer { 0 } else { at };
        self.record.borrow_mut().transfers += 1;
        let nth = self.record.borrow().transfers;
        let misdeed = self.quirks.misdeed.filter(|&(of, _)| of == nth).map(|(_, misdeed)| misdeed);
        if self.quirks.never_completes || misdeed == Some(Misdeed::NeverEnds) {
            return;
        }
        let descriptor = memory.bytes(at, 16);
        let word = |i: usize| u32::from_be_bytes(descriptor[i..i + 4].try_into().unwrap());
        let (control, len) = (word(0), word(4) as usize);
        self.record.borrow_mut().controls.push(control);
        let command = self.command(control);
        let was_beyond = self.is_beyond();
        let address = u64::from(word(8)) << 32 | u64::from(word(12));
        if command & control::SELECT != 0 {
            if self.quirks.selects_the_id {
                self.selected = 1;
            } else {
                self.select((command >> 16) as u16);
            }
        }
        if self.is_beyond() {
            return;
        }
        if was_beyond {
            let is_write = command & control::WRITE != 0;
            if command & control::READ != 0 {
                memory.clear(address, len as u64);
            }
            memory.store(at, &if is_write { control::ERROR } else { 0 }.to_be_bytes());
            return;
        }
        let absent = self.item(self.selected).is_none();
        let unknown = absent && self.selected >= FIRST_FILE;
        let refused = self.quirks.always_fails || unknown && self.quirks.absent == Absent::Refused;
        let refused = refused || misdeed == Some(Misdeed::Fails);
        let half = matches!(misdeed, Some(Misdeed::FailsHalfway | Misdeed::IsShort));
        let failed = refused
            || !self.carry_out(command, address, if half { len / 2 } else { len }, memory)
            || misdeed == Some(Misdeed::FailsHalfway);
        let kept = if self.quirks.keeps_command_bits { control } else { 0 };
        memory.store(at, &if failed { kept | control::ERROR } else { 0 }.to_be_bytes());
    }

    /// A control word with the bits at QEMU's positions.
    fn command(&self, control: u32) -> u32 {
        if !self.quirks.moves_control_bits {
            return control;
        }
        let moved = control::MOVED.iter().filter(|(at, _)| control & at != 0).map(|(_, bit)| bit);
        moved.fold(control & (control::READ | 0xffff << 16), |command, bit| command | bit)
    }

    /// Whether the selected item is one whose transfers never end.
    fn is_beyond(&self) -> bool {
        self.quirks.absent == Absent::NeverEnds && self.selected >= 0x40 && self.item(self.selected).is_none()
    }

    /// Whether the command was executed.
    fn carry_out(&mut self, command: u32, address: u64, len: usize, memory: &mut dyn GuestMemory) -> bool {
        if command & control::READ != 0 {
            let bytes = self.next_bytes(len);
            memory.store(address, &bytes);
            if !self.quirks.no_zero_fill {
                memory.clear(address + bytes.len() as u64, (len - bytes.len()) as u64);
            }
            return true;
        }
        if command & control::WRITE != 0 {
            if self.quirks.ends_at_write {
                self.record.borrow_mut().fatal.push("a DMA write");
            }
            if !self.items.contains_key(&self.selected) {
                return false;
            }
            let bytes = memory.bytes(address, len);
            self.record.borrow_mut().written.push((self.selected, self.offset as u32, bytes));
            return true;
        }
        if command & control::SKIP != 0 && !self.quirks.ignores_skip {
            self.offset += len;
        }
        command & control::SKIP != 0 || !self.quirks.moves_control_bits
    }
}

impl FakeDevice for FakeFwCfg {
    fn claims(&self, port: u16) -> bool {
        Self::has_port(port)
    }

    fn read(&mut self, port: u16, size: u8, _memory: &mut FakeMemory) -> u32 {
        self.read_port(port, size)
    }

    fn read_string(&mut self, port: u16, into: &mut [u8], _memory: &mut FakeMemory) {
        self.read_port_string(port, into);
    }

    fn read_string_to(&mut self, port: u16, to: u64, len: u64, memory: &mut FakeMemory) {
        self.make();
        // As `read_port_string`, whose zeros at the end may be too many for a buffer.
        let left = self.item(self.selected).map_or(0, <[u8]>::len).saturating_sub(self.offset) as u64;
        let mut bytes = vec![0; len.min(left.saturating_add(2)) as usize];
        self.read_port_string(port, &mut bytes);
        self.offset += len as usize - bytes.len();
        self.record.borrow_mut().past_end += len - bytes.len() as u64;
        memory.store(to, &bytes);
        memory.clear(to + bytes.len() as u64, len - bytes.len() as u64);
    }

    fn write(&mut self, port: u16, size: u8, value: u32, memory: &mut FakeMemory) {
        self.write_port(port, size, value, memory);
    }
}

/// The device with its registers in memory, as on QEMU's machines for Arm and RISC-V. It accepts only accesses of
/// widths that every such host accepts; others are fatal.
struct MappedRegisters {
    device: FakeFwCfg,
    base: u64,
}

impl MappedRegisters {
    const fn new(device: FakeFwCfg, base: u64) -> Self {
        Self { device, base }
    }

    fn record(&self, offset: u64, size: u8) {
        self.device.record.borrow_mut().mapped.push((offset, size));
    }

    fn ends_at(&self, what: &'static str) {
        self.device.record.borrow_mut().fatal.push(what);
    }
}

impl FakeMachine {
    /// The machine with `device`, whose registers are in memory from `base` on.
    ///
    /// # Panics
    /// If registers cannot be at this address.
    #[must_use]
    pub fn with_fw_cfg_at(mut self, base: u64, device: FakeFwCfg) -> Self {
        self.registers.push(Box::new(MappedRegisters::new(device, base)));
        self.fw_cfg = Some(MemoryRegisters::new(&mut self, PhysAddr::new(base)).unwrap());
        self
    }
}

impl FakeRegisters for MappedRegisters {
    fn claims(&self, at: u64) -> bool {
        (self.base..self.base + 24).contains(&at)
    }

    fn read(&mut self, at: u64, size: u8) -> u64 {
        let offset = at - self.base;
        self.device.make();
        self.record(offset, size);
        match (offset, size) {
            (0, 1) => self.device.next_byte().unwrap_or(0).into(),
            (16, 4) => ((self.device.address() >> 32) as u32).swap_bytes().into(),
            (20, 4) => (self.device.address() as u32).swap_bytes().into(),
            _ => {
                self.ends_at("a read of registers that hosts do not know");
                0
            }
        }
    }

    fn write(&mut self, at: u64, size: u8, value: u64, memory: &mut FakeMemory) {
        let offset = at - self.base;
        self.device.make();
        self.record(offset, size);
        match (offset, size) {
            (8, 2) => self.device.select((value as u16).swap_bytes()),
            (16, 4) if self.device.dma => self.device.write_address_high((value as u32).swap_bytes()),
            (20, 4) if self.device.dma => {
                self.device.write_address_low((value as u32).swap_bytes(), memory);
            }
            // Cloud Hypervisor accepts only halves.
            (16, 8) if self.device.dma && self.device.quirks.address_reads == AddressReads::AsQemu => {
                let address = value.swap_bytes();
                self.device.write_address_high((address >> 32) as u32);
                self.device.write_address_low(address as u32, memory);
            }
            _ => self.ends_at("a write of registers that hosts do not know"),
        }
    }
}
