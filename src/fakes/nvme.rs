//! An NVMe controller: its registers, its queues, and namespaces with blocks that tell their number.
//!
//! It checks what it is told: queues and lists are aligned, doorbells ring only while it is on, no completion is written over one
//! that was not taken, and data goes only to memory that the test allows. A violation is a panic. Defects are functions that
//! change registers, data and completions.

extern crate std;

use std::boxed::Box;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use super::blocks::{Contents, join};
use super::machine::{FakeMemory, FakeRegisters};

const PAGE: u64 = 4096;

/// A namespace.
#[derive(Clone, Copy, Debug)]
pub struct FakeNamespace {
    /// Its number.
    pub id: u32,
    /// Its size in blocks.
    pub blocks: u64,
    /// The length of a block, as a power of two.
    pub order: u8,
    /// The length of each block's metadata.
    pub metadata: u16,
}

impl FakeNamespace {
    /// A namespace of `blocks` blocks of 512 bytes.
    #[must_use]
    pub const fn new(id: u32, blocks: u64) -> Self {
        Self { id, blocks, order: 9, metadata: 0 }
    }

    /// The bytes of a block: in each 8 bytes the block's number, and the namespace's.
    #[must_use]
    pub fn block(&self, number: u64) -> Vec<u8> {
        let word = number ^ u64::from(self.id) << 56;
        word.to_le_bytes().repeat((1_usize << self.order) / 8)
    }
}

/// Changes the value that is read from a register at an offset.
pub type ChangeRegister = Box<dyn FnMut(u64, u64) -> u64>;
/// Changes the data of an Identify command: what is identified, and the data.
pub type ChangeData = Box<dyn FnMut(u32, &mut Vec<u8>)>;
/// Changes the completion of the command with this number, counted from 0.
pub type ChangeCompletion = Box<dyn FnMut(usize, &mut [u32; 4])>;

/// What the controller does that its specification does not allow. The default is nothing.
#[derive(Default)]
pub struct Defects {
    /// Registers read as something else.
    pub register: Option<ChangeRegister>,
    /// What it says about itself and its namespaces.
    pub data: Option<ChangeData>,
    /// Completions.
    pub completion: Option<ChangeCompletion>,
    /// Commands from this number on are not answered.
    pub silent_from: Option<usize>,
    /// These are executed when it is turned off, before it is.
    pub is_late: bool,
    /// While these are under way, it does not turn off.
    pub never_stops: bool,
    /// The controller does not become ready, or does not turn off.
    pub stays: bool,
    /// It turns on with a fatal error.
    pub is_fatal: bool,
}

/// A pair of queues.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    commands: u64,
    completions: u64,
    command_entries: u32,
    completion_entries: u32,
    /// The next command, the next completion and its phase, the first completion that was not taken.
    head: u32,
    tail: u32,
    phase: bool,
    taken: u32,
}

/// The controller.
pub struct FakeNvme {
    /// The address of the registers.
    pub base: u64,
    /// The capabilities.
    pub cap: u64,
    /// The longest transfer, as the controller tells it.
    pub longest: u8,
    /// Whether it has the list of active namespaces.
    pub has_list: bool,
    /// The namespaces, by number.
    pub namespaces: Vec<FakeNamespace>,
    /// Whether it lets the host say how many queues it wants.
    pub counts_queues: bool,
    /// The memory that it may write.
    pub allowed: Vec<Range<u64>>,
    /// What each namespace has, if not numbers.
    pub contents: Option<Contents>,
    /// Defects.
    pub defects: Defects,
    /// The commands so far: the queue, and the dwords.
    pub commands: Vec<(u32, [u32; 16])>,
    /// The accesses to registers so far: the offset, and whether it was a write.
    pub accesses: Vec<(u64, bool)>,
    /// Reads that are not executed yet.
    late: Vec<[u32; 16]>,
    cc: u32,
    aqa: u32,
    asq: u64,
    acq: u64,
    pairs: [Pair; 2],
    /// Whether it was asked for a number of queues since it is on.
    was_asked: bool,
}

/// The length of the registers in memory.
pub const REGISTERS_LEN: u64 = 0x4000;

/// QEMU's capabilities: 2048 entries, contiguous queues, ready after 7.5 s, NVM commands, pages of 4 to 64 KiB.
pub const QEMU_CAPABILITIES: u64 = 4 << 52 | 1 << 37 | 15 << 24 | 1 << 16 | 0x7ff;

impl FakeNvme {
    /// A controller as QEMU's, with registers at `base` and one namespace.
    #[must_use]
    pub fn new(base: u64, namespace: FakeNamespace) -> Self {
        Self {
            base,
            cap: QEMU_CAPABILITIES,
            longest: 7,
            has_list: true,
            counts_queues: true,
            namespaces: vec![namespace],
            allowed: Vec::new(),
            contents: None,
            defects: Defects::default(),
            late: Vec::new(),
            commands: Vec::new(),
            accesses: Vec::new(),
            cc: 0,
            aqa: 0,
            asq: 0,
            acq: 0,
            pairs: [Pair::default(); 2],
            was_asked: false,
        }
    }

    /// Whether it is on.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.cc & 1 != 0
    }

    /// Whether reads are under way.
    #[must_use]
    pub fn writes(&self) -> bool {
        !self.late.is_empty()
    }

    /// Executes the reads that are under way.
    pub fn finish(&mut self, memory: &mut FakeMemory) {
        for dwords in core::mem::take(&mut self.late) {
            self.read(&dwords, memory);
        }
    }

    fn register(&self, offset: u64) -> u64 {
        let is_busy = self.defects.never_stops && self.writes();
        let stuck = u64::from(self.defects.stays || is_busy && !self.is_on());
        match offset {
            0x00 => self.cap,
            0x08 => 0x1_0400,
            0x14 => self.cc.into(),
            0x1c if self.is_on() && self.defects.is_fatal => 2,
            0x1c => u64::from(self.cc & 1) ^ stuck,
            0x24 => self.aqa.into(),
            0x28 => self.asq,
            0x30 => self.acq,
            _ => 0,
        }
    }

    fn turn_on(&mut self) {
        let entries = |value: u32| (value & 0xfff) + 1;
        assert_eq!((self.cc >> 16 & 0xf, self.cc >> 20 & 0xf, self.cc & 0x7ff0), (6, 4, 0), "the configuration");
        assert!(self.asq.is_multiple_of(PAGE) && self.acq.is_multiple_of(PAGE) && self.asq != 0 && self.acq != 0);
        let pair = Pair {
            commands: self.asq,
            completions: self.acq,
            command_entries: entries(self.aqa),
            completion_entries: entries(self.aqa >> 16),
            phase: true,
            ..Pair::default()
        };
        assert!(pair.command_entries > 1 && pair.completion_entries > 1);
        self.pairs = [pair, Pair::default()];
        self.was_asked = false;
    }

    fn ring(&mut self, offset: u64, value: u32, memory: &mut FakeMemory) {
        assert!(self.is_on(), "a doorbell of a controller that is off");
        let step = 4 << (self.cap >> 32 & 0xf);
        assert!((offset - 0x1000).is_multiple_of(step), "no doorbell at {offset:#x}");
        let number = (offset - 0x1000) / step;
        let (queue, is_completion) = ((number / 2) as usize, number % 2 == 1);
        let pair = &mut self.pairs[queue];
        if is_completion {
            assert!(value < pair.completion_entries, "completion {value} of {}", pair.completion_entries);
            pair.taken = value;
            return;
        }
        assert!(value < pair.command_entries, "command {value} of {}", pair.command_entries);
        while self.pairs[queue].head != value {
            let pair = &mut self.pairs[queue];
            let at = pair.commands + u64::from(pair.head) * 64;
            pair.head = (pair.head + 1) % pair.command_entries;
            let bytes = memory.bytes(at, 64);
            let mut dwords = [0; 16];
            for (dword, bytes) in dwords.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *dword = u32::from_le_bytes(*bytes);
            }
            let number = self.commands.len();
            self.commands.push((queue as u32, dwords));
            if self.defects.silent_from.is_some_and(|from| number >= from) {
                if queue == 1 && self.defects.is_late {
                    self.late.push(dwords);
                }
                continue;
            }
            let status = if queue == 0 { self.admin(&dwords, memory) } else { self.read(&dwords, memory) };
            self.complete(queue, number, dwords[0] >> 16, status, memory);
        }
    }

    fn complete(&mut self, queue: usize, number: usize, command: u32, status: u32, memory: &mut FakeMemory) {
        let pair = &mut self.pairs[queue];
        let at = pair.completions + u64::from(pair.tail) * 16;
        let phase = u32::from(pair.phase) << 16;
        let next = (pair.tail + 1) % pair.completion_entries;
        assert_ne!(next, pair.taken, "no entry is free for a completion");
        pair.tail = next;
        pair.phase ^= next == 0;
        let mut dwords = [0, 0, (queue as u32) << 16 | pair.head, status << 17 | phase | command];
        if let Some(change) = &mut self.defects.completion {
            change(number, &mut dwords);
        }
        self.store(at, &dwords.map(u32::to_le_bytes).concat(), memory);
    }

    /// Executes an admin command and returns its status.
    fn admin(&mut self, dwords: &[u32; 16], memory: &mut FakeMemory) -> u32 {
        let page = u64::from(dwords[6]) | u64::from(dwords[7]) << 32;
        assert!(page.is_multiple_of(PAGE), "the page {page:#x}");
        let entries = (dwords[10] >> 16) + 1;
        assert!(
            matches!(dwords[0] & 0xff, 6 | 9) || u64::from(entries) <= (self.cap & 0xffff) + 1,
            "{entries} entries"
        );
        match dwords[0] & 0xff {
            0x09 => {
                assert_eq!((dwords[1], page, dwords[10], dwords[11]), (0, 0, 7, 0), "a pair of queues is asked for");
                assert_eq!(self.pairs[1].completions, 0, "before there is one");
                self.was_asked = true;
                if self.counts_queues { 0 } else { 0x02 }
            }
            0x05 => {
                assert!(self.was_asked, "a queue is created that was not asked for");
                assert_eq!((dwords[10] & 0xffff, dwords[11]), (1, 1));
                self.pairs[1] = Pair { completions: page, completion_entries: entries, phase: true, ..Pair::default() };
                0
            }
            0x01 => {
                assert_eq!((dwords[10] & 0xffff, dwords[11]), (1, 1 << 16 | 1));
                (self.pairs[1].commands, self.pairs[1].command_entries) = (page, entries);
                0
            }
            0x06 => {
                let kind = dwords[10];
                let Some(mut data) = self.identify(kind, dwords[1]) else { return 0x02 };
                if let Some(change) = &mut self.defects.data {
                    change(kind, &mut data);
                }
                self.store(page, &data, memory);
                0
            }
            operation => panic!("admin command {operation:#x}"),
        }
    }

    fn identify(&self, kind: u32, namespace: u32) -> Option<Vec<u8>> {
        let mut data = vec![0; PAGE as usize];
        match kind {
            0 => {
                let Some(found) = self.namespaces.iter().find(|found| found.id == namespace) else { return Some(data) };
                data[..8].copy_from_slice(&found.blocks.to_le_bytes());
                // The second format is in use.
                (data[25], data[26]) = (1, 1);
                data[120..128].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 0, 0, found.id as u8]);
                data[132..134].copy_from_slice(&found.metadata.to_le_bytes());
                data[134] = found.order;
            }
            1 => {
                data[77] = self.longest;
                (data[512], data[513]) = (0x66, 0x44);
                data[516..520].copy_from_slice(&256_u32.to_le_bytes());
            }
            2 if self.has_list => {
                for (to, found) in data.as_chunks_mut::<4>().0.iter_mut().zip(&self.namespaces) {
                    *to = found.id.to_le_bytes();
                }
            }
            _ => return None,
        }
        Some(data)
    }

    /// Executes a read and returns its status.
    fn read(&mut self, dwords: &[u32; 16], memory: &mut FakeMemory) -> u32 {
        assert_eq!(dwords[0] & 0xffff, 2, "a read");
        let wide = |at: usize| u64::from(dwords[at]) | u64::from(dwords[at + 1]) << 32;
        let Some(&namespace) = self.namespaces.iter().find(|found| found.id == dwords[1]) else { return 0x0b };
        let (first, count) = (wide(10), u64::from(dwords[12] & 0xffff) + 1);
        if first.checked_add(count).is_none_or(|end| end > namespace.blocks) {
            return 0x80;
        }
        let len = count << namespace.order;
        assert!(matches!(self.longest, 0 | 20..) || len <= PAGE << self.longest, "a transfer of {len} bytes");
        let mut data = match &mut self.contents {
            Some(contents) => contents(first << namespace.order, len as usize),
            None => join(first, len as usize, |number| namespace.block(number)),
        };
        let (start, second) = (wide(6), wide(8));
        assert!(start.is_multiple_of(4), "a page at {start:#x}");
        let mut rest = data.split_off(data.len().min((PAGE - start % PAGE) as usize));
        self.store(start, &data, memory);
        let pages = rest.len().div_ceil(PAGE as usize) as u64;
        if pages == 1 {
            assert!(second.is_multiple_of(PAGE), "a second page at {second:#x}");
            self.store(second, &rest, memory);
        } else if pages > 1 {
            assert!(second.is_multiple_of(8), "a list at {second:#x}");
            // The list ends in its page.
            assert!(second % PAGE + pages * 8 <= PAGE, "a list at {second:#x} of {pages} entries");
            for at in (0..pages).map(|number| second + number * 8) {
                let page = u64::from_le_bytes(memory.bytes(at, 8).try_into().expect("eight bytes"));
                assert!(page.is_multiple_of(PAGE), "a page at {page:#x}");
                let after = rest.split_off(rest.len().min(PAGE as usize));
                self.store(page, &rest, memory);
                rest = after;
            }
        }
        0
    }

    fn store(&self, at: u64, bytes: &[u8], memory: &mut FakeMemory) {
        let end = at + bytes.len() as u64;
        assert!(self.allowed.iter().any(|range| range.start <= at && end <= range.end), "{at:#x}-{end:#x} is written");
        memory.store(at, bytes);
    }
}

/// The controller where the machine has it, for a test that keeps the controller too.
pub struct NvmeRegisters(pub Rc<RefCell<FakeNvme>>);

impl FakeRegisters for NvmeRegisters {
    fn claims(&self, at: u64) -> bool {
        let base = self.0.borrow().base;
        (base..base + REGISTERS_LEN).contains(&at)
    }

    fn read(&mut self, at: u64, size: u8) -> u64 {
        let nvme = &mut *self.0.borrow_mut();
        let offset = at - nvme.base;
        nvme.accesses.push((offset, false));
        assert!(offset < 0x1000, "a doorbell is read");
        let mut value = nvme.register(offset);
        if let Some(change) = &mut nvme.defects.register {
            value = change(offset, value);
        }
        if size == 8 { value } else { value & 0xffff_ffff }
    }

    fn write(&mut self, at: u64, _size: u8, value: u64, memory: &mut FakeMemory) {
        let nvme = &mut *self.0.borrow_mut();
        let offset = at - nvme.base;
        nvme.accesses.push((offset, true));
        match offset {
            0x14 => {
                let was_on = nvme.is_on();
                if value & 1 == 0 && !nvme.defects.stays && !nvme.defects.never_stops {
                    if nvme.defects.is_late {
                        nvme.finish(memory);
                    }
                    nvme.late.clear();
                }
                nvme.cc = value as u32;
                if nvme.is_on() && !was_on {
                    nvme.turn_on();
                }
            }
            0x24 => nvme.aqa = value as u32,
            0x28 => nvme.asq = value,
            0x30 => nvme.acq = value,
            0x1000.. => nvme.ring(offset, value as u32, memory),
            _ => panic!("register {offset:#x} is written"),
        }
    }
}
