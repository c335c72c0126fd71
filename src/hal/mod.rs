//! What the firmware needs of the machine it runs on, as traits.
//!
//! The logic of every other module is written against these. The firmware binary has the one implementation that executes
//! them (`src/firmware/machine`); tests run against a fake (`src/fakes/machine.rs`). A module asks for the narrowest traits it
//! needs and takes the machine by `&mut`, because a port read is a side effect.
//!
//! Assumed: one CPU runs, nothing interrupts it, and the machine is little-endian. Left out: interrupts, other CPUs.

pub mod clock;
pub mod dma;
pub mod paging;
pub mod registers;

use core::fmt;

pub use clock::{Clock, Deadline};
pub use dma::Dma;
pub use registers::FwCfgRegisters;

use crate::addr::{PhysAddr, PhysRange};

/// Port I/O. Writes to [`dma`]'s doorbell are refused and do nothing. A read of a port that no device answers gives all ones on QEMU and zero on some other hosts.
pub trait Ports {
    /// Reads one byte.
    fn in8(&mut self, port: u16) -> u8;
    /// Reads two bytes in one access.
    fn in16(&mut self, port: u16) -> u16;
    /// Reads four bytes in one access.
    fn in32(&mut self, port: u16) -> u32;
    /// Writes one byte.
    fn out8(&mut self, port: u16, value: u8);
    /// Writes two bytes in one access.
    fn out16(&mut self, port: u16, value: u16);
    /// Writes four bytes in one access.
    fn out32(&mut self, port: u16, value: u32);
}

/// What may be done with memory: for a program that the firmware starts and that runs beside it.
pub trait Protect {
    /// Sets what may be done with `range`: whole pages that [`Memory`] can access. The first bytes of `room` become page tables
    /// and stay in use from then on: [`paging::room_to_protect`] bytes at most, from the start of a page on. Returns the rest of `room`.
    ///
    /// What is code or constants must not be written, by this machine or by a device, until it is data again.
    ///
    /// # Errors
    /// [`MemoryError`] when it cannot be set, or `room` is too small; nothing has changed then.
    fn protect(&mut self, range: PhysRange, access: paging::Access, room: PhysRange) -> Result<PhysRange, MemoryError>;
}

/// Guest memory by physical address: RAM and memory-mapped registers in the low 4 GiB that are not the firmware's own
/// (see [`crate::layout`]). What is above can be mapped, for what is loaded there to be inspected as well.
pub trait Memory {
    /// Makes memory above 4 GiB accessible to [`Self::inspect`], [`FwCfgRegisters::load_data`] and devices, with page tables in
    /// `room`: [`paging::room_for`] bytes from the start of a page on, which stay in use from then on. [`paging::SPACES`] is
    /// what can be mapped; two ranges at most.
    ///
    /// # Errors
    /// [`MemoryError`] when the range is not one that can be mapped, or `room` not one for its tables.
    fn map(&mut self, range: PhysRange, room: PhysRange) -> Result<(), MemoryError>;

    /// Copies guest memory to `into`.
    ///
    /// # Errors
    /// [`MemoryError`] when the range is not one the firmware may read; `into` is unchanged then.
    fn read(&mut self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryError>;

    /// Shows the bytes of `range` in place, in order, in one or more pieces. None of them is empty.
    ///
    /// Nothing may write the range meanwhile: it is for what the host or the firmware has put there and is done with.
    ///
    /// # Errors
    /// [`MemoryError`] when the range is not one the firmware may read; nothing is shown then.
    fn inspect(&mut self, range: PhysRange, show: &mut dyn FnMut(&[u8])) -> Result<(), MemoryError>;

    /// Copies `bytes` to guest memory.
    ///
    /// # Errors
    /// [`MemoryError`] when the range is not one the firmware may write; nothing is written then.
    fn write(&mut self, to: PhysAddr, bytes: &[u8]) -> Result<(), MemoryError>;

    /// Copies the bytes of `from` to `to`, as they are before the first is written. The two may overlap.
    ///
    /// # Errors
    /// [`MemoryError`] when one of the two is not one the firmware may access; nothing is written then.
    fn copy(&mut self, from: PhysRange, to: PhysAddr) -> Result<(), MemoryError>;

    /// Sets every byte of `range` to `byte`.
    ///
    /// # Errors
    /// [`MemoryError`] when the range is not one the firmware may write; nothing is written then.
    fn fill(&mut self, range: PhysRange, byte: u8) -> Result<(), MemoryError>;

    /// Reads an 8-bit register in one access.
    ///
    /// # Errors
    /// [`MemoryError`] when the address is not one the firmware may read.
    fn read_register8(&mut self, at: PhysAddr) -> Result<u8, MemoryError>;

    /// Reads a 32-bit register in one access. `at` is a multiple of 4.
    ///
    /// # Errors
    /// [`MemoryError`] when the address is not aligned or not one the firmware may read.
    fn read_register32(&mut self, at: PhysAddr) -> Result<u32, MemoryError>;

    /// Reads two 32-bit registers in one access of eight bytes, the lower one in the low half. `at` is a multiple of 8.
    ///
    /// # Errors
    /// [`MemoryError`] when the address is not aligned or not one the firmware may read.
    fn read_register64(&mut self, at: PhysAddr) -> Result<u64, MemoryError>;

    /// Writes an 8-bit register in one access.
    ///
    /// # Errors
    /// [`MemoryError`] when the address is not one the firmware may write.
    fn write_register8(&mut self, at: PhysAddr, value: u8) -> Result<(), MemoryError>;

    /// Writes a 16-bit register in one access. `at` is a multiple of 2.
    ///
    /// # Errors
    /// [`MemoryError`] when the address is not aligned or not one the firmware may write.
    fn write_register16(&mut self, at: PhysAddr, value: u16) -> Result<(), MemoryError>;

    /// Writes a 32-bit register in one access. `at` is a multiple of 4.
    ///
    /// # Errors
    /// [`MemoryError`] when the address is not aligned or not one the firmware may write.
    fn write_register32(&mut self, at: PhysAddr, value: u32) -> Result<(), MemoryError>;

    /// Writes two 32-bit registers in one access of eight bytes, the lower one from the low half. `at` is a multiple
    /// of 8.
    ///
    /// # Errors
    /// [`MemoryError`] when the address is not aligned or not one the firmware may write.
    fn write_register64(&mut self, at: PhysAddr, value: u64) -> Result<(), MemoryError>;
}

/// The registers that CPUID returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpuid {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// Where the AP mailbox begins: bytes from the start of the page of started CPUs.
pub const STARTUP_MAILBOX: usize = 128;
/// The most registers that the AP mailbox can name.
pub const STARTUP_WRITES: usize = 20;

/// The CPU's identification and model-specific registers.
pub trait Cpu {
    /// CPUID for a leaf and sub-leaf. A leaf above the CPU's highest gives unspecified values.
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Cpuid;
    /// Reads a model-specific register that CPUID says exists; another raises a fault, which stops the firmware.
    fn read_msr(&mut self, register: u32) -> u64;
    /// Writes a model-specific register. Only registers that cannot break the running code are accepted: the memory
    /// type range registers (0x200-0x26f, 0x2ff), IA32_FEATURE_CONTROL (0x3a) and of x2APIC's the spurious interrupt vector
    /// (0x80f), the interrupt command (0x830) and the two pins (0x835, 0x836); a write to another is ignored and logged.
    fn write_msr(&mut self, register: u32, value: u64);
    /// The code that a started CPU runs: real-mode code for the beginning of a page, [`STARTUP_MAILBOX`] bytes long. It executes
    /// what the AP mailbox after it says (see [`crate::cpus`]) and halts.
    fn startup_code(&self) -> &'static [u8];
}

/// What it takes to get at what the host offers: fw_cfg's device, and memory to put items into. Most modules need no more.
pub trait HostAccess: FwCfgRegisters + Dma + Memory {}
impl<T: FwCfgRegisters + Dma + Memory> HostAccess for T {}

/// All of a machine, with the ports of a PC. One without ports reads all ones from any.
pub trait Machine: HostAccess + Ports + Cpu + Clock {}
impl<T: HostAccess + Ports + Cpu + Clock> Machine for T {}

/// A range of guest memory that the firmware may not touch: above 4 GiB and not mapped, or its own code, data or stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryError {
    /// What was asked for.
    pub range: PhysRange,
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory {} is above 4 GiB or the firmware's own", self.range)
    }
}

impl core::error::Error for MemoryError {}
