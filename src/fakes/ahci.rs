//! An AHCI controller with disks and CD drives, whose blocks tell their number.
//!
//! It checks what it is told: structures are aligned and not moved while a port runs, a port is started and stopped in order, a slot
//! is free when a command is put into it, and data goes only to memory that the test allows. A violation is a panic. Defects are
//! functions that change registers, messages and data.

extern crate std;

use std::boxed::Box;
use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use super::blocks::{Contents, join};
use super::machine::{FakeMemory, FakeRegisters};

const START: u32 = 1;
const RECEIVE: u32 = 1 << 4;
const RECEIVES: u32 = 1 << 14;
const EXECUTES: u32 = 1 << 15;
/// Interrupt status: the device reports an error.
const TASK_FILE_ERROR: u32 = 1 << 30;
/// Status: ready and idle, an error, busy.
const IDLE: u8 = 0x50;
const FAILED: u8 = 0x41;
const BUSY: u8 = 0x80;

/// A device.
#[derive(Clone, Copy, Debug)]
pub enum FakeDevice {
    /// A disk with so many blocks of so many bytes.
    Disk {
        /// The number of blocks.
        blocks: u64,
        /// The length of a block.
        block_len: u32,
    },
    /// A drive with a CD of so many blocks.
    Cd {
        /// The number of blocks, zero without a CD.
        blocks: u32,
        /// How often it says that it was reset.
        attentions: u32,
    },
    /// Something with this signature.
    Other(u32),
}

impl FakeDevice {
    /// A disk of `blocks` blocks of 512 bytes.
    #[must_use]
    pub const fn disk(blocks: u64) -> Self {
        Self::Disk { blocks, block_len: 512 }
    }

    const fn signature(self) -> u32 {
        match self {
            Self::Disk { .. } => 0x101,
            Self::Cd { .. } => 0xeb14_0101,
            Self::Other(signature) => signature,
        }
    }

    /// The bytes of a block: in each 8 bytes the block's number, and the port's.
    #[must_use]
    pub fn block(self, port: u8, number: u64) -> Vec<u8> {
        let len = if let Self::Disk { block_len, .. } = self { block_len } else { 2048 };
        (number ^ u64::from(port) << 56).to_le_bytes().repeat(len as usize / 8)
    }

    fn identity(self) -> Vec<u8> {
        let Self::Disk { blocks, block_len } = self else { return vec![0; 512] };
        let mut words = [0_u16; 256];
        (words[49], words[83]) = (3 << 8, 1 << 14 | 1 << 10);
        for (at, word) in words[100..104].iter_mut().enumerate() {
            *word = (blocks >> (16 * at)) as u16;
        }
        if block_len != 512 {
            words[106] = 1 << 14 | 1 << 12;
            (words[117], words[118]) = ((block_len / 2) as u16, (block_len >> 17) as u16);
        }
        words.map(u16::to_le_bytes).concat()
    }
}

/// Changes the value that is read from a register at an offset.
pub type ChangeRegister = Box<dyn FnMut(u64, u32) -> u32>;
/// Changes the data of the command with this number, counted from 0.
pub type ChangeData = Box<dyn FnMut(usize, &mut Vec<u8>)>;
/// Changes the status, the error and the number of bytes that the command with this number reports.
pub type ChangeEnd = Box<dyn FnMut(usize, &mut u8, &mut u8, &mut u32)>;

/// What the controller does that its specification does not allow, or that goes wrong. The default is nothing.
#[derive(Default)]
pub struct Defects {
    /// Registers read as something else.
    pub register: Option<ChangeRegister>,
    /// Data of commands, also of those that ask what a device is.
    pub data: Option<ChangeData>,
    /// How commands end.
    pub end: Option<ChangeEnd>,
    /// Commands from this number on are not answered.
    pub silent_from: Option<usize>,
    /// What interrupt status has then.
    pub silent_status: u32,
    /// These are executed when the controller or the link is reset, before that ends.
    pub is_late: bool,
    /// Ports stay busy after they were started.
    pub stays_busy: bool,
    /// Ports do not stop, until the controller is reset.
    pub never_stops: bool,
    /// The controller does not end its reset.
    pub never_resets: bool,
    /// A slot becomes free only when the next command is issued.
    pub frees_late: bool,
}

/// A port's registers.
#[derive(Clone, Copy, Debug, Default)]
struct Port {
    list: u64,
    received: u64,
    status: u32,
    command: u32,
    task_file: u32,
    signature: u32,
    issued: u32,
    /// Slots that become free.
    ended: u32,
    /// What the drive says about the last command: key and code.
    sense: (u8, u8),
    /// Whether the data of a command is under way, which goes on when the port is stopped.
    is_under_way: bool,
    /// Control of the link.
    link: u32,
}

/// The controller.
pub struct FakeAhci {
    /// The address of the registers.
    pub base: u64,
    /// The capabilities.
    pub cap: u32,
    /// The implemented ports.
    pub implemented: u32,
    /// Whether it is for AHCI drivers alone.
    pub control: u32,
    /// The devices by port.
    pub devices: [Option<FakeDevice>; 32],
    /// The memory that it may write.
    pub allowed: Vec<Range<u64>>,
    /// What each device has, if not numbers.
    pub contents: Option<Contents>,
    /// Defects.
    pub defects: Defects,
    /// The commands so far: the port, the message, the packet.
    pub commands: Vec<(u8, [u8; 20], [u8; 16])>,
    /// The accesses to registers so far: the offset, and whether it was a write.
    pub accesses: Vec<(u64, bool)>,
    /// What commands write that are not executed yet.
    late: Vec<(u64, Vec<u8>)>,
    ports: [Port; 32],
}

/// The length of the registers in memory, for all ports.
pub const REGISTERS_LEN: u64 = 0x1100;

/// QEMU's capabilities: addresses of 64 bits, 32 slots, six ports.
pub const QEMU_CAPABILITIES: u32 = 0xc014_1f05;

impl FakeAhci {
    /// A controller as q35's, with registers at `base` and this device on port 0.
    #[must_use]
    pub fn new(base: u64, device: Option<FakeDevice>) -> Self {
        let mut devices = [None; 32];
        devices[0] = device;
        let port = Port { task_file: 0x7f, signature: u32::MAX, ..Port::default() };
        Self {
            base,
            cap: QEMU_CAPABILITIES,
            implemented: 0x3f,
            control: 1 << 31,
            devices,
            allowed: Vec::new(),
            contents: None,
            defects: Defects::default(),
            late: Vec::new(),
            commands: Vec::new(),
            accesses: Vec::new(),
            ports: [port; 32],
        }
    }

    /// Whether a port executes commands or receives anything.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.ports.iter().any(|port| port.command & (START | RECEIVE) != 0)
    }

    /// Whether the data of a command is under way to memory.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.ports.iter().any(|port| port.is_under_way)
    }

    /// Executes the commands that are under way.
    pub fn finish(&mut self, memory: &mut FakeMemory) {
        self.late.drain(..).for_each(|(at, bytes)| memory.store(at, &bytes));
        self.ports.iter_mut().for_each(|port| port.is_under_way = false);
    }

    /// A reset ends what is under way.
    fn end(&mut self, memory: &mut FakeMemory) {
        if self.defects.is_late {
            self.finish(memory);
        }
        self.late.clear();
    }

    fn register(&self, offset: u64) -> u32 {
        match offset {
            0x00 => self.cap,
            0x04 => self.control | u32::from(self.defects.never_resets),
            0x0c => self.implemented,
            0x100.. => {
                let number = (offset - 0x100) as usize / 0x80;
                let (port, device) = (&self.ports[number], self.devices[number]);
                match offset & 0x7f {
                    0x10 => port.status,
                    0x18 => {
                        let stuck = if self.defects.never_stops && port.list != 0 { EXECUTES } else { 0 };
                        let runs = if port.command & START != 0 { EXECUTES } else { 0 };
                        let receives = if port.command & RECEIVE != 0 { RECEIVES } else { 0 };
                        port.command | runs | receives | stuck
                    }
                    0x20 => port.task_file,
                    0x24 => port.signature,
                    0x28 if device.is_some() => 0x113,
                    0x38 => port.issued,
                    _ => 0,
                }
            }
            _ => 0,
        }
    }

    /// Checks the order of accesses.
    fn check(&self, is_right: bool, number: u8, what: &str) {
        assert!(is_right || self.defects.register.is_some(), "port {number}: {what}");
    }

    fn write_port(&mut self, number: u8, offset: u64, value: u32, memory: &mut FakeMemory) {
        let is_idle = |bits| self.ports[usize::from(number)].command & bits == 0;
        match offset {
            0x00 | 0x04 => self.check(is_idle(START), number, "the list is moved while it runs"),
            0x08 | 0x0c => self.check(is_idle(RECEIVE), number, "the memory is moved while it receives"),
            _ => {}
        }
        let port = &mut self.ports[usize::from(number)];
        let half = |old: u64, high: bool| {
            if high { old & 0xffff_ffff | u64::from(value) << 32 } else { old & !0xffff_ffff | u64::from(value) }
        };
        match offset {
            0x00 | 0x04 => port.list = half(port.list, offset == 0x04),
            0x08 | 0x0c => port.received = half(port.received, offset == 0x0c),
            0x10 => port.status &= !value,
            0x14 => assert_eq!(value, 0, "interrupts are on"),
            0x18 => self.command(number, value, memory),
            0x2c => {
                let ends = port.link & 1 != 0 && value & 1 == 0;
                port.link = value;
                if ends {
                    self.end(memory);
                    self.ports[usize::from(number)].is_under_way = false;
                }
            }
            0x30 => {}
            0x38 => self.issue(number, value, memory),
            _ => panic!("register {offset:#x} of port {number} is written"),
        }
    }

    fn command(&mut self, number: u8, value: u32, memory: &mut FakeMemory) {
        let device = self.devices[usize::from(number)];
        let port = self.ports[usize::from(number)];
        let (before, is_busy) = (port.command, port.task_file & 0x88 != 0);
        self.check(value & (START | RECEIVE) != START, number, "it executes without receiving");
        if before & START == 0 && value & START != 0 {
            self.check(value & before & RECEIVE != 0 && !is_busy, number, "it is started too early");
            self.check(port.list.is_multiple_of(1024) && port.list != 0, number, "there is no list");
        }
        let port = &mut self.ports[usize::from(number)];
        if before & START != 0 && value & START == 0 {
            (port.issued, port.ended) = (0, 0);
        }
        if before & RECEIVE == 0 && value & RECEIVE != 0 {
            let has_memory = port.received.is_multiple_of(256) && port.received != 0;
            self.check(has_memory, number, "there is no memory to receive to");
            if let Some(device) = device.filter(|_| has_memory) {
                let port = &mut self.ports[usize::from(number)];
                let status = if self.defects.stays_busy { BUSY } else { IDLE };
                port.signature = device.signature();
                port.command = value;
                self.send(number, status, 1, memory);
            }
        }
        self.ports[usize::from(number)].command = value & !(RECEIVES | EXECUTES);
    }

    /// Sends a message to the host.
    fn send(&mut self, number: u8, status: u8, error: u8, memory: &mut FakeMemory) {
        let port = &mut self.ports[usize::from(number)];
        port.task_file = u32::from(error) << 8 | u32::from(status);
        let at = port.received + 0x40;
        let mut message = [0; 20];
        message[..4].copy_from_slice(&[0x34, 0x40, status, error]);
        self.store(at, &message, memory);
    }

    fn issue(&mut self, number: u8, value: u32, memory: &mut FakeMemory) {
        let late = self.defects.frees_late;
        let port = self.ports[usize::from(number)];
        let is_running = port.command & (START | RECEIVE) == START | RECEIVE && port.list != 0;
        self.check(is_running, number, "it does not run");
        self.check(value.count_ones() == 1 && port.issued & value == 0, number, "the slot is not free");
        if !is_running {
            return;
        }
        let port = &mut self.ports[usize::from(number)];
        port.issued = (port.issued & !port.ended) | value;
        port.ended = 0;
        let header = port.list + u64::from(value.trailing_zeros()) * 32;
        let word = |memory: &FakeMemory, at| u32::from_le_bytes(memory.bytes(at, 4).try_into().expect("four bytes"));
        let long = |memory: &FakeMemory, at| u64::from_le_bytes(memory.bytes(at, 8).try_into().expect("eight bytes"));
        let (flags, table) = (word(memory, header), long(memory, header + 8));
        assert_eq!((flags & 0x1f, flags & 0xffc0, word(memory, header + 4)), (5, 0, 0), "the header of a command");
        assert!(table.is_multiple_of(128), "a table at {table:#x}");
        let message: [u8; 20] = memory.bytes(table, 20).try_into().expect("20 bytes");
        let packet: [u8; 16] = memory.bytes(table + 0x40, 16).try_into().expect("16 bytes");
        assert_eq!(message[..2], [0x27, 0x80], "a command");
        assert_eq!(flags & 0x20 != 0, message[2] == 0xa0, "a packet");
        let count = self.commands.len();
        self.commands.push((number, message, packet));
        if self.defects.silent_from.is_some_and(|from| count >= from) {
            let data = if self.defects.is_late { self.execute(number, &message, &packet).0 } else { Vec::new() };
            let mut rest = data.as_slice();
            for range in (0..u64::from(flags >> 16)).map(|index| table + 0x80 + index * 16) {
                let (at, len) = (long(memory, range), u64::from(word(memory, range + 12)) + 1);
                let (piece, more) = rest.split_at(rest.len().min(len as usize));
                self.late.push((at, piece.to_vec()));
                rest = more;
            }
            let port = &mut self.ports[usize::from(number)];
            port.status |= self.defects.silent_status;
            port.is_under_way = true;
            return;
        }

        let (data, mut status, mut error, is_silent) = self.execute(number, &message, &packet);
        let mut data = data;
        if let Some(change) = &mut self.defects.data {
            change(count, &mut data);
        }
        let mut sent = 0;
        for range in (0..u64::from(flags >> 16)).map(|index| table + 0x80 + index * 16) {
            let (at, len) = (long(memory, range), u64::from(word(memory, range + 12)) + 1);
            assert!(at.is_multiple_of(2) && len.is_multiple_of(2) && len <= 4 << 20, "{len} bytes to {at:#x}");
            let rest = data.split_off(data.len().min(len as usize));
            self.store(at, &data, memory);
            sent += data.len() as u32;
            data = rest;
        }
        assert!(data.is_empty() || self.defects.data.is_some(), "{} bytes are left", data.len());
        if let Some(change) = &mut self.defects.end {
            change(count, &mut status, &mut error, &mut sent);
        }
        memory.store(header + 4, &sent.to_le_bytes());
        let port = &mut self.ports[usize::from(number)];
        port.task_file = u32::from(error) << 8 | u32::from(status);
        let has_failed = status & 0x21 != 0;
        if has_failed {
            port.status |= TASK_FILE_ERROR;
        } else if late {
            port.ended |= value;
        } else {
            port.issued &= !value;
        }
        if !is_silent || has_failed {
            self.send(number, status, error, memory);
        }
    }

    /// Executes a command: its data, status and error, and whether it ends without a message.
    fn execute(&mut self, number: u8, message: &[u8; 20], packet: &[u8; 16]) -> (Vec<u8>, u8, u8, bool) {
        let device = self.devices[usize::from(number)].expect("a device");
        let refused = (Vec::new(), FAILED, 4, false);
        match (device, message[2]) {
            (FakeDevice::Disk { .. }, 0xec) => (device.identity(), IDLE, 0, true),
            (FakeDevice::Disk { blocks, .. }, 0x25) => {
                assert_eq!(message[7], 0x40);
                let [.., a, b, c, _, d, e, f, _, low, high, _, _, _, _, _, _] = *message;
                let first = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
                let count = u64::from(u16::from_le_bytes([low, high]));
                if first + count > blocks {
                    return (Vec::new(), FAILED, 0x10, false);
                }
                let block_len = device.block(number, first).len();
                let len = count as usize * block_len;
                let data = match &mut self.contents {
                    Some(contents) => contents(first * block_len as u64, len),
                    None => join(first, len, |block| device.block(number, block)),
                };
                (data, IDLE, 0, false)
            }
            (FakeDevice::Cd { .. }, 0xa0) => {
                assert_eq!((message[3], &packet[12..]), (1, &[0; 4][..]), "a packet");
                match self.packet(number, packet) {
                    Ok(data) => (data, IDLE, 0, false),
                    Err((key, code)) => {
                        self.ports[usize::from(number)].sense = (key, code);
                        (Vec::new(), FAILED, key << 4, false)
                    }
                }
            }
            _ => refused,
        }
    }

    fn packet(&mut self, number: u8, packet: &[u8; 16]) -> Result<Vec<u8>, (u8, u8)> {
        let device = self.devices[usize::from(number)].expect("a device");
        let FakeDevice::Cd { blocks, attentions } = device else { unreachable!() };
        let mut answer = match packet[0] {
            0x03 => {
                let (key, code) = core::mem::take(&mut self.ports[usize::from(number)].sense);
                return Ok([&[0x70, 0, key][..], &[0; 9], &[code, 0, 0, 0, 0, 0]].concat());
            }
            0x12 => [&[5, 0x80][..], &[0; 34]].concat(),
            _ if attentions != 0 => {
                let attentions = attentions - 1;
                self.devices[usize::from(number)] = Some(FakeDevice::Cd { blocks, attentions });
                return Err((6, 0x29));
            }
            _ if blocks == 0 => return Err((2, 0x3a)),
            0x00 => Vec::new(),
            0x25 => [(blocks - 1).to_be_bytes(), 2048_u32.to_be_bytes()].concat(),
            0x28 => {
                let first = u32::from_be_bytes(packet[2..6].try_into().expect("four bytes"));
                let count = u32::from(u16::from_be_bytes(packet[7..9].try_into().expect("two bytes")));
                if first.checked_add(count).is_none_or(|end| end > blocks) {
                    return Err((5, 0x21));
                }
                let len = count as usize * 2048;
                return Ok(match &mut self.contents {
                    Some(contents) => contents(u64::from(first) * 2048, len),
                    None => join(first.into(), len, |block| device.block(number, block)),
                });
            }
            _ => return Err((5, 0x20)),
        };
        if packet[0] == 0x12 {
            answer.truncate(packet[4].into());
        }
        Ok(answer)
    }

    fn store(&self, at: u64, bytes: &[u8], memory: &mut FakeMemory) {
        let end = at + bytes.len() as u64;
        assert!(self.allowed.iter().any(|range| range.start <= at && end <= range.end), "{at:#x}-{end:#x} is written");
        memory.store(at, bytes);
    }
}

/// The controller where the machine has it, for a test that keeps the controller too.
pub struct AhciRegisters(pub Rc<RefCell<FakeAhci>>);

impl FakeRegisters for AhciRegisters {
    fn claims(&self, at: u64) -> bool {
        let base = self.0.borrow().base;
        (base..base + REGISTERS_LEN).contains(&at)
    }

    fn read(&mut self, at: u64, size: u8) -> u64 {
        assert_eq!(size, 4, "registers have 32 bits");
        let ahci = &mut *self.0.borrow_mut();
        let offset = at - ahci.base;
        ahci.accesses.push((offset, false));
        let value = ahci.register(offset);
        ahci.defects.register.as_mut().map_or(value, |change| change(offset, value)).into()
    }

    fn write(&mut self, at: u64, size: u8, value: u64, memory: &mut FakeMemory) {
        assert_eq!(size, 4, "registers have 32 bits");
        let ahci = &mut *self.0.borrow_mut();
        let offset = at - ahci.base;
        ahci.accesses.push((offset, true));
        match offset {
            0x04 => {
                ahci.control = 1 << 31;
                if value & 1 != 0 && !ahci.defects.never_resets {
                    ahci.end(memory);
                    let port = Port { task_file: 0x7f, signature: u32::MAX, ..Port::default() };
                    ahci.ports = [port; 32];
                }
            }
            0x100.. => ahci.write_port(((offset - 0x100) / 0x80) as u8, offset & 0x7f, value as u32, memory),
            _ => panic!("register {offset:#x} is written"),
        }
    }
}
