//! A virtio device: the registers of a PCI function or of a slot, one queue, and a disk or SCSI units behind it.
//!
//! It checks what it is told: the order of the start, the places of the queue, the pieces of each request, and that it is given only
//! memory that the test allows. A violation is a panic. Defects are functions that change registers, answers and what it says about
//! requests.

extern crate std;

use std::boxed::Box;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use super::blocks::{Contents, join};
use super::machine::{FakeMemory, FakeRegisters};

/// Which registers it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// Those of a PCI function, where QEMU has them in its BAR.
    Pci,
    /// Those of a slot, version 2.
    Slot,
    /// Those of a slot, version 1.
    LegacySlot,
}

/// What is behind it.
#[derive(Clone, Debug)]
pub enum Backend {
    /// A disk.
    Disk,
    /// SCSI units.
    Scsi(Vec<FakeUnit>),
}

/// A SCSI disk or drive.
#[derive(Clone, Copy, Debug)]
pub struct FakeUnit {
    /// The target.
    pub target: u8,
    /// The logical unit.
    pub lun: u16,
    /// Its type: 0 is a disk, 5 a CD drive.
    pub kind: u8,
    /// The number of blocks. Zero if it has no medium.
    pub blocks: u64,
    /// The length of a block.
    pub block_len: u32,
    /// Whether it becomes ready for ever.
    pub is_never_ready: bool,
}

/// What the device says about a request that it has executed.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    /// By how many requests the ring goes on.
    pub step: u16,
    /// The request's first descriptor.
    pub head: u32,
    /// The bytes written.
    pub len: u32,
}

/// Changes the value that is read from a register at an offset.
pub type ChangeRegister = Box<dyn FnMut(u64, u64) -> u64>;
/// Changes what it writes for the request with this number, counted from 0.
pub type ChangeAnswer = Box<dyn FnMut(usize, &mut Vec<u8>)>;
/// Changes what it says about the request with this number.
pub type ChangeUsed = Box<dyn FnMut(usize, &mut Used)>;

/// What the device does that its specification does not allow. The default is nothing.
#[derive(Default)]
pub struct Defects {
    /// Registers read as something else. Then the device does not check what the driver makes of them.
    pub register: Option<ChangeRegister>,
    /// Answers.
    pub answer: Option<ChangeAnswer>,
    /// What it says about requests.
    pub used: Option<ChangeUsed>,
    /// Requests from this number on are not executed.
    pub silent_from: Option<usize>,
    /// It executes these when it is reset, before it acknowledges that.
    pub is_late: bool,
    /// It does not execute these, and says that it needs a reset.
    pub says_so: bool,
    /// A reset does nothing.
    pub ignores_reset: bool,
    /// It does not take the features that it has.
    pub refuses_features: bool,
    /// Its capabilities name other registers than it has. Then it does not turn on a queue elsewhere.
    pub is_elsewhere: bool,
}

/// The queue.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    number: u32,
    size: u32,
    descriptors: u64,
    available: u64,
    used: u64,
    alignment: u64,
    is_on: bool,
    /// The index of the next available request, and of the next used one.
    next: u16,
    used_index: u16,
}

/// The device.
pub struct FakeVirtio {
    /// The address of the registers.
    pub base: u64,
    /// Which there are.
    pub interface: Interface,
    /// What is behind it.
    pub backend: Backend,
    /// The features that it has.
    pub offered: u64,
    /// The most descriptors of each queue.
    pub most: u32,
    /// The configuration.
    pub configuration: Vec<u8>,
    /// The memory that the driver may give to it.
    pub allowed: Vec<Range<u64>>,
    /// What the disk or each unit has, if not numbers.
    pub contents: Option<Contents>,
    /// Defects.
    pub defects: Defects,
    /// The lengths of the pieces of the requests so far: what it read, and what it was given to write.
    pub requests: Vec<(Vec<u32>, Vec<u32>)>,
    /// The accesses to registers so far.
    pub accesses: usize,
    /// The features that the driver uses.
    pub accepted: u64,
    /// What requests write that are not executed yet.
    late: Vec<(u64, Vec<u8>)>,
    status: u8,
    select: u32,
    accepted_select: u32,
    queue_select: u32,
    page_size: u64,
    queue: Queue,
}

/// The length of the registers of a PCI function and of a slot.
pub const FUNCTION_LEN: u64 = 0x4000;
/// See [`FUNCTION_LEN`].
pub const SLOT_LEN: u64 = 0x200;
/// Where a PCI function has its device configuration and the registers that start requests, and the distance of these.
pub const CONFIGURATION: u64 = 0x2000;
/// See [`CONFIGURATION`].
pub const NOTIFICATION: u64 = 0x3000;
/// See [`CONFIGURATION`].
pub const MULTIPLIER: u64 = 4;

/// Bits of the status.
const FEATURES_OK: u8 = 8;
const DRIVER_OK: u8 = 4;
const NEEDS_RESET: u8 = 0x40;
const VERSION_1: u64 = 1 << 32;
/// Features of block devices: the longest segment, the most segments.
const SIZE_MAX: u64 = 1 << 1;
const SEG_MAX: u64 = 1 << 2;

/// What a sector or a block has: its number in each 8 bytes.
#[must_use]
pub fn contents(first: u64, block_len: u32, len: usize) -> Vec<u8> {
    let block = |number: u64| number.to_le_bytes().repeat(block_len as usize / 8);
    join(first, len, block)
}

/// What a medium has.
fn read_contents(of: &mut Option<Contents>, first: u64, block_len: u32, len: usize) -> Vec<u8> {
    match of {
        Some(read) => read(first.wrapping_mul(block_len.into()), len),
        None => contents(first, block_len, len),
    }
}

impl FakeVirtio {
    /// A disk with this many sectors of 512 bytes, as QEMU's: 128 pieces a request.
    #[must_use]
    pub fn disk(base: u64, interface: Interface, sectors: u64) -> Self {
        let mut configuration = vec![0; 24];
        configuration[..8].copy_from_slice(&sectors.to_le_bytes());
        configuration[12..16].copy_from_slice(&126_u32.to_le_bytes());
        configuration[20..].copy_from_slice(&512_u32.to_le_bytes());
        // With the length of blocks, and features that the driver does not know: flush, two rings of another kind.
        Self::new(base, interface, Backend::Disk, SEG_MAX | 1 << 6 | 1 << 9 | 1 << 28 | 1 << 29, configuration)
    }

    /// A host with these SCSI units.
    #[must_use]
    pub fn scsi(base: u64, interface: Interface, units: Vec<FakeUnit>) -> Self {
        let mut configuration = vec![0; 36];
        for (at, value) in [(0, 1), (4, 254), (8, 0xffff), (12, 128), (20, 96), (24, 32), (28, 255 << 16), (32, 16383)]
        {
            configuration[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        }
        Self::new(base, interface, Backend::Scsi(units), 6, configuration)
    }

    fn new(base: u64, interface: Interface, backend: Backend, offered: u64, configuration: Vec<u8>) -> Self {
        Self {
            base,
            interface,
            backend,
            offered: if interface == Interface::LegacySlot { offered } else { offered | VERSION_1 },
            most: 256,
            configuration,
            allowed: Vec::new(),
            contents: None,
            defects: Defects::default(),
            late: Vec::new(),
            requests: Vec::new(),
            accesses: 0,
            accepted: 0,
            status: 0,
            select: 0,
            accepted_select: 0,
            queue_select: 0,
            page_size: 0,
            queue: Queue::default(),
        }
    }

    /// Whether it has been reset and not started again, so that it accesses no memory.
    #[must_use]
    pub const fn is_reset(&self) -> bool {
        self.status == 0
    }

    fn field(&self, at: usize) -> u32 {
        self.configuration.get(at..at + 4).map_or(0, |bytes| u32::from_le_bytes(bytes.try_into().unwrap()))
    }

    fn check(&self, is_right: bool, what: &str) {
        assert!(is_right || self.defects.register.is_some(), "the driver: {what}");
    }

    fn may_access(&self, at: u64, len: u64) -> bool {
        self.allowed.iter().any(|range| range.start <= at && at.saturating_add(len) <= range.end)
    }

    fn check_memory(&self, at: u64, len: u64) {
        assert!(self.may_access(at, len), "{len:#x} bytes at {at:#x} are given to the device");
    }

    /// Whether requests are under way that write memory.
    #[must_use]
    pub fn writes(&self) -> bool {
        !self.late.is_empty()
    }

    /// Executes what is under way.
    pub fn finish(&mut self, memory: &mut FakeMemory) {
        self.late.drain(..).for_each(|(at, bytes)| memory.store(at, &bytes));
    }

    fn set_status(&mut self, status: u8, memory: &mut FakeMemory) {
        if status == 0 {
            if self.defects.is_late && !self.defects.ignores_reset {
                self.finish(memory);
            }
            if !self.defects.ignores_reset {
                self.late.clear();
            }
            if !self.defects.ignores_reset {
                (self.status, self.accepted, self.queue) = (0, 0, Queue::default());
            }
            return;
        }
        // One bit more at a time, in order.
        let is_legacy = self.interface == Interface::LegacySlot;
        let steps: &[u8] = if is_legacy { &[0, 1, 3, 7] } else { &[0, 1, 3, 11, 15] };
        let step = steps.windows(2).any(|step| step == [self.status, status]);
        self.check(step || self.defects.ignores_reset, "the status goes up by one bit, in order");
        self.check(status & DRIVER_OK == 0 || self.queue.is_on, "a queue is turned on before the device is");
        self.status = status;
        if status & FEATURES_OK != 0 && self.defects.refuses_features {
            self.status &= !FEATURES_OK;
        }
    }

    fn accept(&mut self, features: u32) {
        let half = 32 * (self.accepted_select & 1);
        self.accepted = self.accepted & !(u64::from(u32::MAX) << half) | u64::from(features) << half;
        self.check(self.accepted & !self.offered == 0, "only features that there are are used");
        self.check(self.status == 3, "features are chosen between two steps of the status");
    }

    fn offered(&self) -> u32 {
        if self.select > 1 { 0 } else { (self.offered >> (32 * self.select)) as u32 }
    }

    /// The most descriptors of the selected queue.
    fn most(&self) -> u32 {
        let queues = if matches!(self.backend, Backend::Disk) { 1 } else { 3 };
        if self.queue_select < queues { self.most } else { 0 }
    }

    fn turn_on_queue(&mut self) {
        let queue = &mut self.queue;
        (queue.number, queue.is_on) = (self.queue_select, true);
        if self.interface == Interface::LegacySlot {
            let size = u64::from(queue.size);
            queue.available = queue.descriptors + 16 * size;
            queue.used = (queue.available + 6 + 2 * size).next_multiple_of(queue.alignment.max(1));
        }
        let Queue { size, descriptors, available, used, .. } = *queue;
        self.check(size.is_power_of_two() && size <= self.most(), "the number of descriptors is a power of two");
        self.check(descriptors % 16 == 0 && available % 2 == 0 && used % 4 == 0, "the parts of the queue are aligned");
        for (at, len) in [(descriptors, 16 * size), (available, 6 + 2 * size), (used, 6 + 8 * size)] {
            if self.defects.is_elsewhere && !self.may_access(at, len.into()) {
                self.queue.is_on = false;
                return;
            }
            self.check_memory(at, len.into());
        }
    }

    fn notify(&mut self, queue: u64, memory: &mut FakeMemory) {
        self.check(self.status & DRIVER_OK != 0, "requests are started when the device is");
        self.check(u64::from(self.queue.number) == queue, "the queue is one that is on");
        let Queue { size, available, used, .. } = self.queue;
        let word = |memory: &FakeMemory, at| u16::from_le_bytes(memory.bytes(at, 2).try_into().unwrap());
        if self.status & DRIVER_OK == 0 || size == 0 || !self.queue.is_on {
            return;
        }
        self.check(word(memory, available) == 1, "interrupts are off");
        while self.queue.next != word(memory, available + 2) {
            let ring = u64::from(self.queue.next) % u64::from(size);
            self.queue.next = self.queue.next.wrapping_add(1);
            let head = word(memory, available + 4 + 2 * ring);
            let number = self.requests.len();
            let (ranges, answer) = self.execute(head, memory);
            if self.defects.silent_from.is_some_and(|from| from <= number) {
                self.status |= if self.defects.says_so { NEEDS_RESET } else { 0 };
                let mut rest = if self.defects.is_late { answer.as_slice() } else { &[] };
                for (at, len) in ranges {
                    let (piece, more) = rest.split_at(rest.len().min(len as usize));
                    self.late.push((at, piece.to_vec()));
                    rest = more;
                }
                continue;
            }
            let mut rest = answer.as_slice();
            for (at, len) in ranges {
                let (piece, more) = rest.split_at(rest.len().min(len as usize));
                memory.store(at, piece);
                rest = more;
            }
            let mut said = Used { step: 1, head: head.into(), len: answer.len() as u32 };
            if let Some(change) = &mut self.defects.used {
                change(number, &mut said);
            }
            let at = used + 4 + u64::from(self.queue.used_index) % u64::from(size) * 8;
            memory.store(at, &[said.head.to_le_bytes(), said.len.to_le_bytes()].concat());
            self.queue.used_index = self.queue.used_index.wrapping_add(said.step);
            memory.store(used + 2, &self.queue.used_index.to_le_bytes());
        }
    }

    /// Reads the request with this first descriptor. Returns where its answer goes, and the answer.
    fn execute(&mut self, head: u16, memory: &FakeMemory) -> (Vec<(u64, u32)>, Vec<u8>) {
        let mut contents = self.contents.take();
        let (mut question, mut asked, mut ranges) = (Vec::new(), Vec::new(), Vec::new());
        let mut next = u64::from(head);
        for _ in 0..self.queue.size {
            self.check(next < self.queue.size.into(), "descriptors have numbers that there are");
            let bytes = memory.bytes(self.queue.descriptors + 16 * next, 16);
            let at = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let len = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
            let (flags, follows) = (bytes[12], bytes[14]);
            self.check_memory(at, len.into());
            self.check(flags & !3 == 0 && len != 0, "descriptors have known flags and a length");
            if flags & 2 == 0 {
                self.check(ranges.is_empty(), "what is read comes before what is written");
                question.extend(memory.bytes(at, len as usize));
                asked.push(len);
            } else {
                ranges.push((at, len));
            }
            next = follows.into();
            if flags & 1 == 0 {
                break;
            }
        }
        let lens: Vec<u32> = ranges.iter().map(|&(_, len)| len).collect();
        let number = self.requests.len();
        self.requests.push((asked, lens.clone()));
        let most = lens.iter().map(|&len| len as usize).sum();
        let mut answer = match &self.backend {
            Backend::Disk => self.read_disk(&question, &lens, &mut contents),
            Backend::Scsi(units) => self.execute_command(units, &question, most, &mut contents),
        };
        self.contents = contents;
        if let Some(change) = &mut self.defects.answer {
            change(number, &mut answer);
        }
        answer.truncate(most);
        (ranges, answer)
    }

    fn read_disk(&self, question: &[u8], lens: &[u32], contents: &mut Option<Contents>) -> Vec<u8> {
        self.check(question.len() == 16, "a header has 16 bytes");
        let [pieces @ .., status] = lens else { panic!("the driver: a status has a place") };
        self.check(*status == 1, "a status has one byte");
        if self.accepted & SIZE_MAX != 0 {
            self.check(pieces.iter().all(|&len| len <= self.field(8)), "pieces are as short as they have to be");
        }
        if self.accepted & SEG_MAX != 0 {
            self.check(pieces.len() <= self.field(12).max(1) as usize, "pieces are as few as they have to be");
        }
        let len: u32 = pieces.iter().sum();
        let block_len = self.field(20).max(512);
        self.check(len.is_multiple_of(block_len), "a request is of whole blocks");
        let first = question.get(8..16).map_or(0, |first| u64::from_le_bytes(first.try_into().unwrap()));
        let sectors = u64::from(self.field(4)) << 32 | u64::from(self.field(0));
        let is_there = question.starts_with(&[0; 8]) && first.saturating_add(u64::from(len / 512)) <= sectors;
        let mut answer = read_contents(contents, first, 512, len as usize);
        answer.push(if is_there { 0 } else { 1 });
        answer
    }

    fn execute_command(
        &self,
        units: &[FakeUnit],
        question: &[u8],
        most: usize,
        contents: &mut Option<Contents>,
    ) -> Vec<u8> {
        self.check(question.len() == 51, "a request has 51 bytes");
        let [1, target, high, low, 0, 0, 0, 0] = question[..8] else { panic!("the driver: an address: {question:x?}") };
        let lun = u16::from_be_bytes([high & 0x3f, low]);
        let mut behind = units.iter().filter(|unit| unit.target == target);
        let unit = units.iter().find(|unit| (unit.target, unit.lun) == (target, lun));
        let (sense, data): (&[u8], Vec<u8>) = match (question[19], unit) {
            (0xa0, _) if behind.clone().next().is_some() => {
                let luns: Vec<u8> =
                    behind.flat_map(|unit| [0x40 | (unit.lun >> 8) as u8, unit.lun as u8, 0, 0, 0, 0, 0, 0]).collect();
                (&[], [&(luns.len() as u32).to_be_bytes()[..], &[0; 4], &luns].concat())
            }
            (operation, Some(unit)) => unit.execute(operation, &question[19..], contents),
            // LOGICAL UNIT NOT SUPPORTED.
            (_, None) if behind.next().is_some() => (&[0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x25, 0], Vec::new()),
            _ => return [vec![0; 11], vec![3], vec![0; 96]].concat(),
        };
        let data = &data[..data.len().min(most - 108)];
        let residual = (most - 108 - data.len()) as u32;
        let status = if sense.is_empty() { 0 } else { 2 };
        let mut response =
            [&(sense.len() as u32).to_le_bytes()[..], &residual.to_le_bytes(), &[0, 0, status, 0], sense].concat();
        response.resize(108, 0);
        response.extend(data);
        response
    }

    fn common(&self, offset: u64) -> u64 {
        match offset {
            0x04 => self.offered().into(),
            0x12 => 3,
            0x14 => self.status.into(),
            0x18 => self.most().into(),
            0x1e => self.queue_select.into(),
            _ => 0,
        }
    }

    fn set_common(&mut self, offset: u64, value: u64, memory: &mut FakeMemory) {
        match offset {
            0x00 => self.select = value as u32,
            0x08 => self.accepted_select = value as u32,
            0x0c => self.accept(value as u32),
            0x14 => self.set_status(value as u8, memory),
            0x16 => self.queue_select = value as u32,
            0x18 => self.queue.size = value as u32,
            0x1c => self.turn_on_queue(),
            0x20..0x38 => self.set_area(offset - 0x20, 8, value),
            _ => self.check(false, "only registers that there are are written"),
        }
    }

    /// Writes half of one of the queue's addresses, which are `step` bytes apart.
    fn set_area(&mut self, offset: u64, step: u64, value: u64) {
        let Queue { descriptors, available, used, .. } = &mut self.queue;
        let Some(area) = [descriptors, available, used].into_iter().nth((offset / step) as usize) else { return };
        *area = match offset % step {
            0 => *area & !0xffff_ffff | value,
            _ => *area & 0xffff_ffff | value << 32,
        };
    }

    fn slot(&self, offset: u64) -> u64 {
        let is_legacy = self.interface == Interface::LegacySlot;
        match offset {
            0x000 => 0x7472_6976,
            0x004 => {
                if is_legacy {
                    1
                } else {
                    2
                }
            }
            0x008 => {
                if matches!(self.backend, Backend::Disk) {
                    2
                } else {
                    8
                }
            }
            0x00c => 0x554d_4551,
            0x010 => self.offered().into(),
            0x034 => self.most().into(),
            0x070 => self.status.into(),
            _ => 0,
        }
    }

    fn set_slot(&mut self, offset: u64, value: u64, memory: &mut FakeMemory) {
        let is_legacy = self.interface == Interface::LegacySlot;
        match offset {
            0x014 => self.select = value as u32,
            0x020 => self.accept(value as u32),
            0x024 => self.accepted_select = value as u32,
            0x028 if is_legacy => self.page_size = value,
            0x030 => self.queue_select = value as u32,
            0x038 => self.queue.size = value as u32,
            0x03c if is_legacy => self.queue.alignment = value,
            0x040 if is_legacy => {
                self.queue.descriptors = value * self.page_size;
                self.turn_on_queue();
            }
            0x044 if !is_legacy => self.turn_on_queue(),
            0x050 => self.notify(value, memory),
            0x070 => self.set_status(value as u8, memory),
            0x080..0x0b0 if !is_legacy => self.set_area(offset - 0x080, 16, value),
            _ => self.check(false, "only registers that there are are written"),
        }
    }

    fn read(&mut self, offset: u64, size: u8) -> u64 {
        self.accesses += 1;
        let (start, is_pci) = match self.interface {
            Interface::Pci => (CONFIGURATION, true),
            _ => (0x100, false),
        };
        let value = match offset.checked_sub(start) {
            Some(at) if at < 0x100 => self.field(at as usize).into(),
            _ if is_pci => self.common(offset),
            _ => self.slot(offset),
        };
        let value = self.defects.register.as_mut().map_or(value, |change| change(offset, value));
        value & (u64::MAX >> (64 - 8 * u32::from(size)))
    }

    fn write(&mut self, offset: u64, value: u64, memory: &mut FakeMemory) {
        self.accesses += 1;
        match self.interface {
            Interface::Pci if offset >= NOTIFICATION => {
                self.check(offset - NOTIFICATION == value * MULTIPLIER, "each queue has its own register");
                self.notify(value, memory);
            }
            Interface::Pci => self.set_common(offset, value, memory),
            _ => self.set_slot(offset, value, memory),
        }
    }
}

impl FakeUnit {
    /// Sense data, if it has something to say, and data.
    fn execute(&self, operation: u8, command: &[u8], contents: &mut Option<Contents>) -> (&'static [u8], Vec<u8>) {
        let last = self.blocks.saturating_sub(1);
        let data = match operation {
            0x12 => [&[self.kind, if self.kind == 5 { 0x80 } else { 0 }][..], &[0; 34]].concat(),
            // NOT READY, MEDIUM NOT PRESENT.
            _ if self.blocks == 0 => return (&[0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x3a, 0], Vec::new()),
            // NOT READY, IN PROCESS OF BECOMING READY.
            0x00 if self.is_never_ready => return (&[0x70, 0, 2, 0, 0, 0, 0, 10, 0, 0, 0, 0, 4, 1], Vec::new()),
            0x00 => Vec::new(),
            0x1a => vec![3, 0, 0, 0],
            0x25 => [u32::try_from(last).unwrap_or(u32::MAX).to_be_bytes(), self.block_len.to_be_bytes()].concat(),
            0x9e => [&last.to_be_bytes()[..], &self.block_len.to_be_bytes(), &[0; 20]].concat(),
            0x28 | 0x88 => {
                let number = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
                let (first, blocks) = match operation {
                    0x28 => (number(&command[2..6]), number(&command[7..9])),
                    _ => (number(&command[2..10]), number(&command[10..14])),
                };
                // LOGICAL BLOCK ADDRESS OUT OF RANGE.
                if first.saturating_add(blocks) > self.blocks {
                    return (&[0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x21, 0], Vec::new());
                }
                read_contents(contents, first, self.block_len, blocks as usize * self.block_len as usize)
            }
            // ILLEGAL REQUEST.
            _ => return (&[0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0], Vec::new()),
        };
        (&[], data)
    }
}

/// The device where the machine has it.
pub struct VirtioRegisters(pub Rc<RefCell<FakeVirtio>>);

impl FakeRegisters for VirtioRegisters {
    fn claims(&self, at: u64) -> bool {
        let device = self.0.borrow();
        let len = if device.interface == Interface::Pci { FUNCTION_LEN } else { SLOT_LEN };
        (device.base..device.base + len).contains(&at)
    }

    fn read(&mut self, at: u64, size: u8) -> u64 {
        let device = &mut *self.0.borrow_mut();
        device.read(at - device.base, size)
    }

    fn write(&mut self, at: u64, _: u8, value: u64, memory: &mut FakeMemory) {
        let device = &mut *self.0.borrow_mut();
        device.write(at - device.base, value, memory);
    }
}
