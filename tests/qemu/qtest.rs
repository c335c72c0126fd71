//! A machine of QEMU's without a running CPU, whose registers, ports and RAM a test accesses itself.
//!
//! QEMU's `docs/devel/qtest.rst` has the protocol: one command a line, and one line that begins with `OK` as its answer.
//! The machine implements the traits of `firstlight::hal`, so that modules of the firmware run on this host against QEMU's
//! devices.

use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::hal::dma::{self, AddressWrite, Fault, Transfer};
use firstlight::hal::registers::{DATA, MemoryRegisters, SELECTOR};
use firstlight::hal::{BusMaster, Clock, DeviceRange, Dma, FwCfgRegisters, Memory, MemoryError, Ports};

use crate::child;

/// How long QEMU may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Where in RAM the descriptor and a lent buffer are shown to devices.
const DESCRIPTOR: u64 = 0x1000;
const BUFFER: u64 = 0x2_0000;

/// The machine. Dropped, it is ended.
pub struct Qtest {
    child: Child,
    lines: BufReader<UnixStream>,
    /// RAM that devices may access and that nothing else is in.
    ram: Range<u64>,
    ticks: u64,
    /// Where fw_cfg's registers are, if they are in memory.
    fw_cfg: Option<MemoryRegisters>,
    /// Whether a transfer did not end.
    is_stuck: bool,
}

impl Qtest {
    /// Starts `program` with these arguments, divided by white space. The machine has the range `ram` of RAM.
    pub fn start(program: &str, arguments: &str, ram: Range<u64>) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("two sockets");
        ours.set_read_timeout(Some(ANSWER_LIMIT)).expect("a socket with a time limit");
        let output = OwnedFd::from(theirs.try_clone().expect("a second handle of a socket"));
        let mut command = Command::new(program);
        command.args(["-no-user-config", "-nodefaults", "-display", "none"]);
        // Stopped before the first instruction, as Debian's QEMU has no accelerator of the name.
        command.args(["-S", "-qtest", "stdio", "-qtest-log", "none"]).args(arguments.split_whitespace());
        let child = child::tied(&command).stdin(OwnedFd::from(theirs)).stdout(Stdio::from(output)).spawn();
        let child = child.expect("setpriv (util-linux) starts; `cargo xtask setup` installs QEMU");
        Self { child, lines: BufReader::new(ours), ram, ticks: 0, fw_cfg: None, is_stuck: false }
    }

    /// The machine with fw_cfg's registers in memory from `base` on.
    pub fn with_fw_cfg_at(mut self, base: u64) -> Self {
        let registers = MemoryRegisters::new(&mut self, PhysAddr::new(base));
        self.fw_cfg = Some(registers.expect("registers that can be accessed"));
        self
    }

    /// Runs a command, and returns what follows the `OK`.
    fn run(&mut self, command: &str) -> String {
        self.lines.get_mut().write_all(format!("{command}\n").as_bytes()).expect("QEMU takes a command");
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line from QEMU");
        line.trim_end().strip_prefix("OK").unwrap_or_else(|| panic!("{command}: {line:?}")).trim_start().to_owned()
    }

    /// Runs a command whose answer is a number.
    fn number(&mut self, command: &str) -> u64 {
        let answer = self.run(command);
        let digits = answer.strip_prefix("0x").unwrap_or_else(|| panic!("{command}: {answer}"));
        u64::from_str_radix(digits, 16).unwrap_or_else(|error| panic!("{command}: {answer}: {error}"))
    }

    /// The `len` bytes of RAM from `from` on.
    pub fn ram(&mut self, from: u64, len: usize) -> Vec<u8> {
        let answer = self.run(&format!("read {from:#x} {len:#x}"));
        let digits = answer.strip_prefix("0x").expect("bytes");
        let byte = |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("a byte");
        (0..len).map(byte).collect()
    }

    fn store(&mut self, to: u64, bytes: &[u8]) {
        if !bytes.is_empty() {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            self.run(&format!("write {to:#x} {:#x} 0x{digits}", bytes.len()));
        }
    }
}

impl Drop for Qtest {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing left to be done.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ports for Qtest {
    fn in8(&mut self, port: u16) -> u8 {
        self.number(&format!("inb {port:#x}")) as u8
    }
    fn in16(&mut self, port: u16) -> u16 {
        self.number(&format!("inw {port:#x}")) as u16
    }
    fn in32(&mut self, port: u16) -> u32 {
        self.number(&format!("inl {port:#x}")) as u32
    }
    fn out8(&mut self, port: u16, value: u8) {
        self.run(&format!("outb {port:#x} {value:#x}"));
    }
    fn out16(&mut self, port: u16, value: u16) {
        self.run(&format!("outw {port:#x} {value:#x}"));
    }
    fn out32(&mut self, port: u16, value: u32) {
        self.run(&format!("outl {port:#x} {value:#x}"));
    }
}

impl FwCfgRegisters for Qtest {
    fn select(&mut self, key: u16) {
        match self.fw_cfg {
            Some(registers) => registers.select(self, key),
            None => self.out16(SELECTOR, key),
        }
    }
    fn read_data(&mut self, into: &mut [u8]) {
        match self.fw_cfg {
            Some(registers) => registers.read_data(self, into),
            None => into.fill_with(|| self.in8(DATA)),
        }
    }
    fn load_data(&mut self, to: PhysRange) -> Result<(), MemoryError> {
        if let Some(registers) = self.fw_cfg {
            return registers.load_data(self, to);
        }
        let mut bytes = vec![0; to.len() as usize];
        self.read_data(&mut bytes);
        self.write(to.start(), &bytes)
    }
    fn read_dma_address_high(&mut self) -> [u8; 4] {
        match self.fw_cfg {
            Some(registers) => registers.read_dma_address_high(self),
            None => self.in32(dma::ADDRESS_HIGH).to_le_bytes(),
        }
    }
}

impl Memory for Qtest {
    /// Refused: nothing is put above 4 GiB here.
    fn map(&mut self, range: PhysRange, _: PhysRange) -> Result<(), MemoryError> {
        Err(MemoryError { range })
    }
    fn read(&mut self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryError> {
        into.copy_from_slice(&self.ram(from.get(), into.len()));
        Ok(())
    }
    fn inspect(&mut self, range: PhysRange, show: &mut dyn FnMut(&[u8])) -> Result<(), MemoryError> {
        show(&self.ram(range.start().get(), range.len() as usize));
        Ok(())
    }
    fn write(&mut self, to: PhysAddr, bytes: &[u8]) -> Result<(), MemoryError> {
        self.store(to.get(), bytes);
        Ok(())
    }
    fn copy(&mut self, from: PhysRange, to: PhysAddr) -> Result<(), MemoryError> {
        let bytes = self.ram(from.start().get(), from.len() as usize);
        self.store(to.get(), &bytes);
        Ok(())
    }
    fn fill(&mut self, range: PhysRange, byte: u8) -> Result<(), MemoryError> {
        self.store(range.start().get(), &vec![byte; range.len() as usize]);
        Ok(())
    }
    fn read_register8(&mut self, at: PhysAddr) -> Result<u8, MemoryError> {
        Ok(self.number(&format!("readb {:#x}", at.get())) as u8)
    }
    fn read_register16(&mut self, at: PhysAddr) -> Result<u16, MemoryError> {
        Ok(self.number(&format!("readw {:#x}", at.get())) as u16)
    }
    fn read_register32(&mut self, at: PhysAddr) -> Result<u32, MemoryError> {
        Ok(self.number(&format!("readl {:#x}", at.get())) as u32)
    }
    fn read_register64(&mut self, at: PhysAddr) -> Result<u64, MemoryError> {
        Ok(self.number(&format!("readq {:#x}", at.get())))
    }
    fn write_register8(&mut self, at: PhysAddr, value: u8) -> Result<(), MemoryError> {
        self.run(&format!("writeb {:#x} {value:#x}", at.get()));
        Ok(())
    }
    fn write_register16(&mut self, at: PhysAddr, value: u16) -> Result<(), MemoryError> {
        self.run(&format!("writew {:#x} {value:#x}", at.get()));
        Ok(())
    }
    fn write_register32(&mut self, at: PhysAddr, value: u32) -> Result<(), MemoryError> {
        self.run(&format!("writel {:#x} {value:#x}", at.get()));
        Ok(())
    }
    fn write_register64(&mut self, at: PhysAddr, value: u64) -> Result<(), MemoryError> {
        self.run(&format!("writeq {:#x} {value:#x}", at.get()));
        Ok(())
    }
}

impl BusMaster for Qtest {
    fn lend(&mut self, range: PhysRange) -> Result<DeviceRange, MemoryError> {
        Ok(DeviceRange::checked(range))
    }
    fn order(&mut self) {}
}

impl Qtest {
    /// Has the device carry out a transfer with the `len` bytes of memory at `at`.
    fn transfer(&mut self, transfer: Transfer, at: u64, len: usize) -> Result<(), Fault> {
        let descriptor = self.ram.start + DESCRIPTOR;
        self.store(descriptor, &transfer.descriptor(PhysAddr::new(at), len as u32));
        let halves = transfer.address_write == AddressWrite::Halves;
        let (high, low) = (((descriptor >> 32) as u32).to_be(), (descriptor as u32).to_be());
        match self.fw_cfg.map(MemoryRegisters::doorbell) {
            None => {
                if halves {
                    self.out32(dma::ADDRESS_HIGH, high);
                }
                self.out32(dma::ADDRESS_LOW, low);
            }
            Some((at_high, at_low)) if halves => {
                self.write_register32(at_high, high)?;
                self.write_register32(at_low, low)?;
            }
            Some((all, _)) => self.write_register64(all, descriptor.to_be())?,
        }
        let control =
            |machine: &mut Self| u32::from_be_bytes(machine.ram(descriptor, 4).try_into().expect("four bytes"));
        let result = dma::wait(self, control);
        self.is_stuck = matches!(result, Err(Fault::Timeout(_)));
        result
    }

    fn buffer(&self) -> u64 {
        self.ram.start + BUFFER
    }
}

impl Dma for Qtest {
    fn pass(&mut self, transfer: Transfer, len: u32) -> Result<(), Fault> {
        self.transfer(transfer, 0, len as usize)
    }
    fn load(&mut self, transfer: Transfer, to: PhysRange) -> Result<(), Fault> {
        self.check_device_range(to)?;
        self.transfer(transfer, to.start().get(), to.len() as usize)
    }
    fn read_list(&mut self, transfer: Transfer, into: &mut Vec<u8>) -> Result<(), Fault> {
        self.read_bytes(transfer, into)
    }
    fn read_bytes(&mut self, transfer: Transfer, into: &mut [u8]) -> Result<(), Fault> {
        let buffer = self.buffer();
        self.store(buffer, into);
        self.transfer(transfer, buffer, into.len())?;
        into.copy_from_slice(&self.ram(buffer, into.len()));
        Ok(())
    }
    fn write_bytes(&mut self, transfer: Transfer, bytes: &[u8]) -> Result<(), Fault> {
        let buffer = self.buffer();
        self.store(buffer, bytes);
        self.transfer(transfer, buffer, bytes.len())
    }
    fn is_stuck(&self) -> bool {
        self.is_stuck
    }
    fn forget_address(&mut self) {
        // In memory all of the address is written each time.
        if self.fw_cfg.is_none() {
            self.out32(dma::ADDRESS_HIGH, 0);
        }
    }
    fn check_device_range(&self, range: PhysRange) -> Result<(), MemoryError> {
        let inside = self.ram.start <= range.start().get() && range.end().get() <= self.ram.end;
        if inside { Ok(()) } else { Err(MemoryError { range }) }
    }
}

impl Clock for Qtest {
    fn ticks(&mut self) -> u64 {
        // A wait for a device that does not answer ends after some thousand looks: fewer are too few on a busy host.
        self.ticks += 1 << 21;
        self.ticks
    }
    fn rate(&mut self) -> Option<u64> {
        None
    }
}
