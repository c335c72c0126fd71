//! The probe kernel, booted, and the conversation with it.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::bzimage::BzImage;
use crate::machine::{LIMIT, Machine, Qemu};

/// How long the probe may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// How often what is waited for is looked at.
const POLL: Duration = Duration::from_millis(10);

/// A type of e820 entry: RAM that the kernel may use.
pub const E820_RAM: u32 = 1;
/// A type of e820 entry: memory or address space that the kernel leaves alone.
pub const E820_RESERVED: u32 = 2;

/// The CPU as the kernel found it.
#[derive(Clone, Debug)]
pub struct State {
    /// The size of a word in bytes: 8 from the 64-bit entry, 4 from the 32-bit one.
    pub word: usize,
    pub efer: u64,
    pub cr4: u64,
    pub cr3: u64,
    pub cr0: u64,
    pub ss: u64,
    pub es: u64,
    pub ds: u64,
    pub cs: u64,
    /// Where the kernel is.
    pub base: u64,
    pub ebx: u64,
    pub ebp: u64,
    pub edi: u64,
    pub esi: u64,
    pub flags: u64,
}

/// A range of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct E820 {
    pub start: u64,
    pub end: u64,
    pub kind: u32,
}

/// A machine in which the probe runs.
pub struct Probe {
    pub qemu: Qemu,
    pub state: State,
    request: UnixStream,
    reply: UnixStream,
    /// Holds the files and sockets that QEMU has open.
    _folder: TempDir,
}

impl Probe {
    /// Boots `kernel` with `initrd` and a command line on `machine`.
    ///
    /// # Panics
    /// When the kernel does not come up, or when there is anything on the consoles.
    pub fn boot(machine: &Machine, kernel: &BzImage, initrd: Option<&[u8]>, append: Option<&str>) -> Self {
        let probe = Self::boot_noisily(machine, kernel, initrd, append);
        assert_eq!(probe.qemu.com1(), "", "a successful boot is silent");
        assert_eq!(probe.qemu.debug_console(), "", "a successful boot is silent");
        probe
    }

    /// As [`Self::boot`], whatever is on the consoles.
    pub fn boot_noisily(machine: &Machine, kernel: &BzImage, initrd: Option<&[u8]>, append: Option<&str>) -> Self {
        Self::boot_file(machine, &kernel.file(), initrd, append)
    }

    /// As [`Self::boot_noisily`], of a file that has the probe in it.
    pub fn boot_file(machine: &Machine, kernel: &[u8], initrd: Option<&[u8]>, append: Option<&str>) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let path = |name: &str| folder.path().join(name);
        let mut machine = machine.clone();
        fs::write(path("kernel"), kernel).expect("a file in the temporary folder");
        machine.kernel = Some(path("kernel"));
        if let Some(initrd) = initrd {
            fs::write(path("initrd"), initrd).expect("a file in the temporary folder");
            machine.initrd = Some(path("initrd"));
        }
        machine.append = append.map(str::to_owned);
        Self::start(&machine, folder)
    }

    /// As [`Self::boot_noisily`], on a machine that has its kernel, whose files are in `folder`.
    pub fn start(machine: &Machine, folder: TempDir) -> Self {
        let machine = machine.clone();
        let path = |name: &str| folder.path().join(name);
        let listen = |name: &str| UnixListener::bind(path(name)).expect("a socket in the temporary folder");
        let listeners = [listen("request"), listen("reply")];
        let socket = |name: &str| format!("-chardev socket,id={name},path={}", path(name).display());
        let machine = machine
            .with(&socket("request"))
            .with("-device isa-serial,iobase=0x2f8,irq=3,chardev=request")
            .with(&socket("reply"))
            .with("-device isa-debugcon,iobase=0xe9,chardev=reply");
        let mut qemu = machine.start();
        let [request, mut reply] = listeners.map(|listener| accept(&listener, &mut qemu));
        let word = wait_for_kernel(&mut reply, &mut qemu);
        reply.set_read_timeout(Some(ANSWER_LIMIT)).expect("a socket with a time limit");
        let state = State::read(&mut reply, word);
        Self { qemu, state, request, reply, _folder: folder }
    }

    /// Resets the machine, which must be one that restarts, and waits until the kernel runs again.
    pub fn reset(&mut self) {
        self.qemu.qmp().run("system_reset", "{}");
        self.wait_for_restart();
    }

    /// What is in guest memory at `address`.
    pub fn read(&mut self, address: u64, len: usize) -> Vec<u8> {
        self.ask(b'r', 0, u32::try_from(len).unwrap(), address);
        let mut bytes = vec![0; len];
        self.reply.read_exact(&mut bytes).expect("the memory that was asked for");
        bytes
    }

    /// The dword at `address`, read in one access.
    pub fn read32(&mut self, address: u64) -> u32 {
        self.ask(b'l', 0, 0, address);
        self.answer() as u32
    }

    /// A hash of what is in a range of guest memory, which is not empty and of whole dwords.
    pub fn hash(&mut self, range: Range<u64>) -> u32 {
        self.ask(b'h', 0, u32::try_from(range.end - range.start).unwrap(), range.start);
        self.answer() as u32
    }

    /// Stores `byte` over a range of guest memory.
    pub fn fill(&mut self, range: Range<u64>, byte: u8) {
        self.ask(b'f', byte, u32::try_from(range.end - range.start).unwrap(), range.start);
        self.answer();
    }

    pub fn in8(&mut self, port: u16) -> u8 {
        self.ask(b'b', 0, port.into(), 0);
        self.answer() as u8
    }

    pub fn in32(&mut self, port: u16) -> u32 {
        self.ask(b'd', 0, port.into(), 0);
        self.answer() as u32
    }

    pub fn out8(&mut self, port: u16, value: u8) {
        self.ask(b'B', 0, port.into(), value.into());
        self.answer();
    }

    pub fn out16(&mut self, port: u16, value: u16) {
        self.ask(b'W', 0, port.into(), value.into());
        self.answer();
    }

    pub fn out32(&mut self, port: u16, value: u32) {
        self.ask(b'D', 0, port.into(), value.into());
        self.answer();
    }

    pub fn read_msr(&mut self, register: u32) -> u64 {
        self.ask(b'm', 0, register, 0);
        self.answer()
    }

    /// The first `len` bytes of a fw_cfg item.
    pub fn fw_cfg(&mut self, key: u16, len: usize) -> Vec<u8> {
        self.out16(0x510, key);
        (0..len).map(|_| self.in8(0x511)).collect()
    }

    /// A dword of PCI configuration space.
    pub fn pci(&mut self, [bus, device, function]: [u8; 3], register: u8) -> u32 {
        self.select_pci([bus, device, function], register);
        self.in32(0xcfc)
    }

    pub fn set_pci(&mut self, function: [u8; 3], register: u8, value: u32) {
        self.select_pci(function, register);
        self.out32(0xcfc, value);
    }

    fn select_pci(&mut self, [bus, device, function]: [u8; 3], register: u8) {
        self.out32(0xcf8, 0x8000_0000 | u32::from_be_bytes([0, bus, device << 3 | function, register & !3]));
    }

    /// Stores bytes in guest memory.
    pub fn write(&mut self, address: u64, bytes: &[u8]) {
        let (dwords, rest) = bytes.as_chunks();
        for (at, &dword) in (address..).step_by(4).zip(dwords) {
            self.ask(b'w', 0, u32::from_le_bytes(dword), at);
            self.answer();
        }
        let end = address + bytes.len() as u64;
        for (at, &byte) in (end - rest.len() as u64..).zip(rest) {
            self.fill(at..at + 1, byte);
        }
    }

    /// Writes a byte to a port whose device resets the machine. Nothing comes back.
    pub fn reset_by_port(&mut self, port: u16, value: u8) {
        self.ask(b'R', 0, port.into(), value.into());
    }

    /// Resets the machine by a triple fault. Nothing comes back.
    pub fn reset_by_triple_fault(&mut self) {
        self.ask(b't', 0, 0, 0);
    }

    /// Writes to a port whose device suspends the machine. Nothing comes back.
    pub fn suspend_by_port(&mut self, port: u16, value: u16) {
        self.ask(b'S', 0, port.into(), value.into());
    }

    /// Waits until the kernel is started again, after a reset.
    pub fn wait_for_restart(&mut self) {
        let word = wait_for_kernel(&mut self.reply, &mut self.qemu);
        assert_ne!(word, 2, "the kernel woke up, and was not started again");
        self.reply.set_read_timeout(Some(ANSWER_LIMIT)).expect("a socket with a time limit");
        self.state = State::read(&mut self.reply, word);
    }

    /// As [`Self::wait_for_restart`], after an error of the firmware's.
    pub fn wait_for_error_and_restart(&mut self) {
        self.qemu.wait_for("an error", |qemu| qemu.com1().contains("firstlight: error: "));
        let mut size = [0];
        self.reply.set_read_timeout(Some(ANSWER_LIMIT)).expect("a socket with a time limit");
        self.reply.read_exact(&mut size).expect("the kernel, started again");
        self.state = State::read(&mut self.reply, size[0].into());
    }

    /// Waits until the kernel is awake, at the address where the test put its [`crate::bzimage::wake_code`].
    pub fn wait_for_wake(&mut self) -> Awake {
        let mode = wait_for_kernel(&mut self.reply, &mut self.qemu);
        assert_eq!(mode, 2, "the kernel was started again, and did not wake up");
        self.reply.set_read_timeout(Some(ANSWER_LIMIT)).expect("a socket with a time limit");
        Awake::read(&mut self.reply)
    }

    /// Enables interrupts until one comes, which is ended at the first 8259, or for as long as `looks` reads of a port take.
    /// Returns its vector.
    pub fn take_interrupt(&mut self, looks: u32) -> Option<u8> {
        self.ask(b'i', 0, looks, 0);
        u8::try_from(self.answer() as u32).ok()
    }

    /// Restarts the machine by a jump to f000:fff0 in real mode. Nothing comes back.
    pub fn reset_by_jump(&mut self) {
        self.jump_in_real_mode(0xf000, 0xfff0);
    }

    /// Jumps in real mode. Nothing comes back.
    pub fn jump_in_real_mode(&mut self, segment: u16, offset: u16) {
        self.ask(b'j', 0, u32::from(segment) << 16 | u32::from(offset), 0);
    }

    /// The next byte that code of the test's own sends.
    pub fn next_byte(&mut self) -> u8 {
        let mut byte = [0];
        self.reply.read_exact(&mut byte).expect("a byte");
        byte[0]
    }

    /// Runs an invalid instruction. Nothing comes back.
    pub fn run_undefined_instruction(&mut self) {
        self.ask(b'u', 0, 0, 0);
    }

    /// Reads a byte that is not mapped. Nothing comes back.
    pub fn read_unmapped(&mut self, address: u64) {
        self.ask(b'r', 0, 1, address);
    }

    /// Loads a segment register with a selector. If it does not exist, nothing comes back.
    pub fn load_segment(&mut self, selector: u16) {
        self.ask(b's', 0, 0, selector.into());
    }

    /// Calls a function of UEFI's with up to five arguments, from 64-bit mode. `block` is RAM for the request.
    pub fn call(&mut self, block: u64, function: u64, arguments: &[u64]) -> u64 {
        self.start_call(block, function, arguments);
        self.answer()
    }

    /// As [`Self::call`], of a function that does not return.
    pub fn start_call(&mut self, block: u64, function: u64, arguments: &[u64]) {
        let words: Vec<u8> = [function].iter().chain(arguments).flat_map(|word| word.to_le_bytes()).collect();
        self.write(block, &words);
        self.ask(b'c', 0, 0, block);
    }

    /// The page that the firmware made for the kernel.
    pub fn boot_params(&mut self) -> BootParams {
        BootParams(self.read(self.state.esi, 4096))
    }

    fn ask(&mut self, operation: u8, byte: u8, number: u32, value: u64) {
        let mut request = vec![operation, byte, 0, 0];
        request.extend(number.to_le_bytes());
        request.extend(value.to_le_bytes());
        self.request.write_all(&request).expect("QEMU takes a request");
    }

    fn answer(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.reply.read_exact(&mut bytes).expect("the probe's answer");
        u64::from_le_bytes(bytes)
    }
}

/// The connection that QEMU makes.
fn accept(listener: &UnixListener, qemu: &mut Qemu) -> UnixStream {
    listener.set_nonblocking(true).expect("a socket that does not block");
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).expect("a socket that blocks");
                return stream;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(qemu.is_running() && start.elapsed() < LIMIT, "QEMU did not start");
                thread::sleep(POLL);
            }
            Err(error) => panic!("no connection from QEMU: {error}"),
        }
    }
}

/// Waits for the probe's first byte: the size of a word, or 2 where it wakes up.
fn wait_for_kernel(reply: &mut UnixStream, qemu: &mut Qemu) -> usize {
    reply.set_read_timeout(Some(POLL)).expect("a socket with a time limit");
    let start = Instant::now();
    let mut size = [0];
    while let Err(error) = reply.read_exact(&mut size) {
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "QEMU ended before the kernel ran");
        assert!(!qemu.com1().contains("firstlight: error: "), "the firmware stopped");
        assert!(start.elapsed() < LIMIT, "the kernel does not run after {LIMIT:?}");
    }
    let word = usize::from(size[0]);
    assert!(matches!(word, 2 | 4 | 8), "the kernel's first byte is {word}");
    word
}

/// The CPU as it was when the kernel woke up: see `wake` in `tests/kernels/probe.s`.
#[derive(Clone, Debug)]
pub struct Awake {
    pub flags: u32,
    pub cs: u32,
    pub ip: u32,
    pub ds: u32,
    pub es: u32,
    pub ss: u32,
    pub esp: u32,
    pub cr0: u32,
    pub cr4: u32,
    pub efer: u32,
    pub idt_limit: u32,
    pub idt_base: u32,
}

impl Awake {
    fn read(reply: &mut UnixStream) -> Self {
        let mut next = || {
            let mut bytes = [0; 4];
            reply.read_exact(&mut bytes).expect("the state of the CPU");
            u32::from_le_bytes(bytes)
        };
        Self {
            flags: next(),
            cs: next(),
            ip: next(),
            ds: next(),
            es: next(),
            ss: next(),
            esp: next(),
            cr0: next(),
            cr4: next(),
            efer: next(),
            idt_limit: next(),
            idt_base: next(),
        }
    }
}

impl State {
    /// Reads what the probe sends then: see `tests/kernels/probe.s`.
    fn read(reply: &mut UnixStream, word: usize) -> Self {
        let mut next = || {
            let mut bytes = [0; 8];
            reply.read_exact(&mut bytes[..word]).expect("the state of the CPU");
            u64::from_le_bytes(bytes)
        };
        Self {
            word,
            efer: next(),
            cr4: next(),
            cr3: next(),
            cr0: next(),
            ss: next(),
            es: next(),
            ds: next(),
            cs: next(),
            base: next(),
            ebx: next(),
            ebp: next(),
            edi: next(),
            esi: next(),
            flags: next(),
        }
    }
}

/// Linux's `struct boot_params`. Offsets: `Documentation/arch/x86/zero-page.rst` and boot.rst.
pub struct BootParams(pub Vec<u8>);

impl BootParams {
    pub fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    pub fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    /// The RSDP's address, zero for none.
    pub fn rsdp(&self) -> u64 {
        self.u64(0x70)
    }

    pub fn kernel(&self) -> u64 {
        self.u32(0x214).into()
    }

    pub fn initrd(&self) -> Range<u64> {
        let wide = |low, high| u64::from(self.u32(high)) << 32 | u64::from(self.u32(low));
        let start = wide(0x218, 0xc0);
        start..start + wide(0x21c, 0xc4)
    }

    pub fn command_line(&self) -> u64 {
        u64::from(self.u32(0xc8)) << 32 | u64::from(self.u32(0x228))
    }

    pub fn e820(&self) -> Vec<E820> {
        let entry = |i: usize| {
            let at = 0x2d0 + 20 * i;
            E820 { start: self.u64(at), end: self.u64(at) + self.u64(at + 8), kind: self.u32(at + 16) }
        };
        (0..usize::from(self.0[0x1e8])).map(entry).collect()
    }
}
