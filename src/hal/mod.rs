//! The machine that the firmware runs on, as traits.
//!
//! All other modules use these traits. The firmware binary has the one implementation on real hardware
//! (`src/firmware/machine`); tests use a fake (`src/fakes/machine.rs`). A module asks for the narrowest traits that it
//! needs. It takes the machine by `&mut`, because a port read is a side effect. What few boots run takes `&mut dyn`, so that it is
//! compiled once, in the library, for size.
//!
//! Assumed: one CPU runs, nothing interrupts it, and the machine is little-endian. Left out: interrupts, other CPUs.

pub mod bus_master;
pub mod clock;
pub mod dma;
pub mod paging;
pub mod registers;
pub mod startup;

pub use bus_master::{BusMaster, DeviceRange};
pub use clock::{Clock, Deadline};
pub use dma::Dma;
pub use registers::FwCfgRegisters;

use crate::addr::{PhysAddr, PhysRange};

/// Port I/O. Writes to [`dma`]'s doorbell are ignored. A read of a port without a device returns all ones on QEMU and
/// zero on some other hosts.
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

/// Memory protection, for a program that the firmware starts and that runs beside it.
pub trait Protect {
    /// Sets the access to `range`: whole pages that [`Memory`] can access. The first bytes of `room` become page tables
    /// and stay in use: at most [`paging::room_to_protect`] bytes, starting on a page. Returns the rest of `room`.
    ///
    /// Afterwards, neither this machine nor a device writes code or constants: [`Memory`] and [`Dma`] refuse it.
    ///
    /// # Errors
    /// [`MemoryError`] if the access cannot be set, or `room` is too small. Then nothing has changed.
    fn protect(&mut self, range: PhysRange, access: paging::Access, room: PhysRange) -> Result<PhysRange, MemoryError>;

    /// The access to all of `range`. `None` if it is not everywhere the same. On a CPU without NX, everything is
    /// executable.
    ///
    /// # Errors
    /// [`MemoryError`] if the firmware may not access the range.
    fn access(&mut self, range: PhysRange) -> Result<Option<paging::Access>, MemoryError>;
}

/// Guest memory by physical address: RAM and memory-mapped registers in the low 4 GiB, except the firmware's own and the
/// register that starts CPUs (see [`crate::layout::may_access`]). Memory above 4 GiB can be mapped, to load to it and inspect it.
pub trait Memory {
    /// Makes memory above 4 GiB accessible to [`Self::inspect`], [`FwCfgRegisters::load_data`] and devices. The page
    /// tables go to `room` and stay in use: [`paging::room_for`] bytes, starting on a page. [`paging::SPACES`] can be
    /// mapped; two ranges at most.
    ///
    /// # Errors
    /// [`MemoryError`] if the range cannot be mapped, or `room` cannot hold its tables.
    fn map(&mut self, range: PhysRange, room: PhysRange) -> Result<(), MemoryError>;

    /// Copies guest memory to `into`.
    ///
    /// # Errors
    /// [`MemoryError`] if the firmware may not read the range. Then `into` is unchanged.
    fn read(&mut self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryError>;

    /// Passes the bytes of `range` to `show` in place, in order, in one or more pieces that are not empty.
    ///
    /// Nothing may write the range meanwhile: it is for bytes that the host or the firmware has finished writing.
    ///
    /// # Errors
    /// [`MemoryError`] if the firmware may not read the range. Then `show` is not called.
    fn inspect(&mut self, range: PhysRange, show: &mut dyn FnMut(&[u8])) -> Result<(), MemoryError>;

    /// Copies `bytes` to guest memory.
    ///
    /// # Errors
    /// [`MemoryError`] if the firmware may not write the range. Then nothing is written.
    fn write(&mut self, to: PhysAddr, bytes: &[u8]) -> Result<(), MemoryError>;

    /// Copies the bytes of `from` to `to`. The two may overlap: the bytes are those from before the copy.
    ///
    /// # Errors
    /// [`MemoryError`] if the firmware may not access one of the two. Then nothing is written.
    fn copy(&mut self, from: PhysRange, to: PhysAddr) -> Result<(), MemoryError>;

    /// Sets every byte of `range` to `byte`.
    ///
    /// # Errors
    /// [`MemoryError`] if the firmware may not write the range. Then nothing is written.
    fn fill(&mut self, range: PhysRange, byte: u8) -> Result<(), MemoryError>;

    /// Clears the firmware's stack below the caller's frame, where functions that have returned left their secrets. The stack of
    /// a test's machine belongs to the test.
    fn clear_unused_stack(&mut self) {}

    /// Reads an 8-bit register in one access.
    ///
    /// # Errors
    /// [`MemoryError`] if the firmware may not read the address.
    fn read_register8(&mut self, at: PhysAddr) -> Result<u8, MemoryError>;

    /// Reads a 16-bit register in one access. `at` is a multiple of 2.
    ///
    /// # Errors
    /// [`MemoryError`] if the address is not aligned or the firmware may not read it.
    fn read_register16(&mut self, at: PhysAddr) -> Result<u16, MemoryError>;

    /// Reads a 32-bit register in one access. `at` is a multiple of 4.
    ///
    /// # Errors
    /// [`MemoryError`] if the address is not aligned or the firmware may not read it.
    fn read_register32(&mut self, at: PhysAddr) -> Result<u32, MemoryError>;

    /// Reads two 32-bit registers in one access of eight bytes, the lower one in the low half. `at` is a multiple of 8.
    ///
    /// # Errors
    /// [`MemoryError`] if the address is not aligned or the firmware may not read it.
    fn read_register64(&mut self, at: PhysAddr) -> Result<u64, MemoryError>;

    /// Writes an 8-bit register in one access.
    ///
    /// # Errors
    /// [`MemoryError`] if the firmware may not write the address.
    fn write_register8(&mut self, at: PhysAddr, value: u8) -> Result<(), MemoryError>;

    /// Writes a 16-bit register in one access. `at` is a multiple of 2.
    ///
    /// # Errors
    /// [`MemoryError`] if the address is not aligned or the firmware may not write it.
    fn write_register16(&mut self, at: PhysAddr, value: u16) -> Result<(), MemoryError>;

    /// Writes a 32-bit register in one access. `at` is a multiple of 4.
    ///
    /// # Errors
    /// [`MemoryError`] if the address is not aligned or the firmware may not write it.
    fn write_register32(&mut self, at: PhysAddr, value: u32) -> Result<(), MemoryError>;

    /// Writes two 32-bit registers in one access of eight bytes, the lower one from the low half. `at` is a multiple of
    /// 8.
    ///
    /// # Errors
    /// [`MemoryError`] if the address is not aligned or the firmware may not write it.
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

/// The CPU's identification and model-specific registers, and the other CPUs.
pub trait Cpu {
    /// CPUID for a leaf and sub-leaf. A leaf above the CPU's highest returns unspecified values.
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Cpuid;
    /// Reads a model-specific register that exists according to CPUID. Any other raises a fault, which stops the
    /// firmware.
    fn read_msr(&mut self, register: u32) -> u64;
    /// Writes a model-specific register. Only registers that cannot break the running code are accepted: the memory
    /// type range registers (0x200-0x26f, 0x2ff), IA32_FEATURE_CONTROL (0x3a), and of x2APIC the spurious interrupt
    /// vector (0x80f) and the two pins (0x835, 0x836). A write to any other register is ignored and logged.
    fn write_msr(&mut self, register: u32, value: u64);
    /// Starts the other CPUs. Each does what `mailbox` says, reports in it and halts. Returns when all `others` have
    /// finished, or at a deadline. All are in wait-for-SIPI then. The local APIC is on, and accessed as `apic` says.
    ///
    /// # Errors
    /// [`MemoryError`] if the firmware must not access [`crate::layout::STARTUP_PAGE`]. Then no CPU is started.
    fn run_others(
        &mut self,
        apic: startup::LocalApic,
        mailbox: &mut startup::Mailbox,
        others: u32,
    ) -> Result<(), MemoryError>;
    /// 64 random bits from the CPU (RDRAND), if it has the instruction and it succeeds.
    fn random(&mut self) -> Option<u64>;
    /// 64 random bits from the source of the CPU's generator (RDSEED), if it has some at the moment. Only a CPU that has the
    /// instruction according to CPUID may be asked. Any other raises a fault, which stops the firmware.
    fn seed(&mut self) -> Option<u64>;
    /// The image of the EFI runtime services ([`crate::efi::runtime`]). Empty in a firmware that was built without it.
    fn runtime_services(&self) -> &'static [u8];
}

/// Access to what the host offers: fw_cfg's device, and memory for items. Most modules need no more.
pub trait HostAccess: FwCfgRegisters + Dma + Memory {}
impl<T: FwCfgRegisters + Dma + Memory> HostAccess for T {}

/// A whole machine, with a PC's ports. On a machine without ports all of them read as ones.
pub trait Machine: HostAccess + Ports + Cpu + Clock {}
impl<T: HostAccess + Ports + Cpu + Clock> Machine for T {}

/// A range of guest memory that the firmware may not access: above 4 GiB and not mapped, its own code, data or stack, or
/// the code or constants of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("memory {range} is above 4 GiB, the firmware's own, or may only be read")]
pub struct MemoryError {
    /// The requested range.
    pub range: PhysRange,
}
