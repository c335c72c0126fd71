//! The machine itself: port instructions, memory through the identity map, CPUID, model-specific and control registers.
//!
//! Assumed, because `src/start` arranged it before [`PcMachine::take`] is called:
//! - the low 4 GiB are mapped at their own addresses, readable and writable but not executable, without page zero and the page
//!   under the stack ([`layout::STACK_GUARD`]);
//! - the image and the firmware's RAM ([`layout`]) are mapped a second time, [`VIRTUAL_OFFSET`] higher, and every Rust
//!   object lives there. No Rust object lives at an identity-mapped address, so a raw access to memory that
//!   [`layout::may_access`] allows cannot touch one. After a start by the PVH entry the image's own bytes are in RAM as
//!   well ([`layout::LOADED_IMAGE`]), which the memory map holds from the beginning, so that nothing is put there.
//!
//! What [`Memory::map`] has mapped above 4 GiB is added to the first of these, at its own addresses and in tables that are no
//! Rust object either. Left out: all other memory there, which the firmware describes to the kernel but never touches.

use core::arch::x86_64::{__cpuid_count, _rdtsc};
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::{ptr, slice};

use arrayvec::ArrayVec;
use x86_64::instructions::tlb;
use x86_64::registers::model_specific::Msr;

use super::{Clock, Cpu, Cpuid, Dma, Memory, MemoryError, Ports, STARTUP_ORDERS, STARTUP_WRITES, paging};
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::bios_data::{self, BiosData};
use crate::layout;

/// What is added to a physical address of the image or of the firmware's RAM to give the address the code uses
/// (`VIRTUAL_OFFSET` in `linker.ld`). The sum wraps for the image: it ends where the RAM window begins.
pub const VIRTUAL_OFFSET: u64 = 0xffff_ffff_c000_0000;

/// Port I/O. A type of its own, so that the logger can print while the machine is lent out.
#[derive(Debug, Default)]
pub struct PcPorts(());

impl PcPorts {
    /// Port I/O, for the firmware.
    ///
    /// # Safety
    /// The caller runs in ring 0 and owns the machine: no operating system drives the devices behind the ports.
    #[must_use]
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

/// The one machine that the firmware runs on.
#[derive(Debug)]
pub struct PcMachine {
    ports: PcPorts,
    /// What is mapped above 4 GiB: the kernel and the initrd.
    mapped: ArrayVec<PhysRange, 2>,
}

impl PcMachine {
    /// The machine.
    ///
    /// # Safety
    /// As for [`PcPorts::new`]; the memory is mapped as the module's head says, and this is called once.
    #[must_use]
    pub unsafe fn take() -> Self {
        // SAFETY: the caller promises ring 0 and ownership.
        Self { ports: unsafe { PcPorts::new() }, mapped: ArrayVec::new_const() }
    }

    /// Gives the map of memory to what runs next: everything at its own address can be executed, and page zero and the page
    /// under the stack are mapped. For the end of the firmware.
    pub fn give_mapping(&mut self) {
        // The ranges are of `map`, so their tables are there.
        let _ = paging::give(&mut PageTables, &self.mapped);
        tlb::flush_all();
    }

    /// Writes the BIOS data area. After [`Self::give_mapping`]: page zero is not mapped before.
    ///
    /// All else of it, and the real-mode vectors, are zero then, as on a machine that was just switched on. Kernels look for an
    /// MP table there, and a guest that ran before a reset can have left one.
    pub fn set_bios_data(&mut self, data: BiosData) {
        // SAFETY: page zero is mapped, and no Rust object lives there. A pointer cannot lead to address zero, a register can.
        unsafe {
            asm!("rep stosq", inout("rcx") bios_data::END / 8 => _, inout("rdi") 0_u64 => _, in("rax") 0_u64,
                options(nostack, preserves_flags))
        };
        for (at, word) in data.words() {
            let bytes = word.to_le_bytes();
            // SAFETY: both words are in page zero, which is mapped and in which no Rust object lives; neither is at its start.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(at), bytes.len()) };
        }
    }

    /// Whether `range` is below 4 GiB and the firmware may access it, or mapped above.
    fn check_mapped(&self, range: PhysRange) -> Result<(), MemoryError> {
        let mapped = || self.mapped.iter().any(|mapped| mapped.contains(range));
        if layout::may_access(range) || mapped() { Ok(()) } else { Err(MemoryError { range }) }
    }
}

// None of these blocks is `nomem`: a write to a port may start a DMA transfer or change what an address shows (PAM,
// PCIEXBAR), so the compiler keeps memory accesses on their side of it.
impl Ports for PcPorts {
    fn in8(&mut self, port: u16) -> u8 {
        let value: u8;
        // SAFETY: ring 0 and ownership of the devices were promised to `new`; IN writes AL only.
        unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags)) };
        value
    }

    fn in16(&mut self, port: u16) -> u16 {
        let value: u16;
        // SAFETY: as for `in8`; IN writes AX only.
        unsafe { asm!("in ax, dx", in("dx") port, out("ax") value, options(nostack, preserves_flags)) };
        value
    }

    fn in32(&mut self, port: u16) -> u32 {
        let value: u32;
        // SAFETY: as for `in8`; IN writes EAX only.
        unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags)) };
        value
    }

    fn out8(&mut self, port: u16, value: u8) {
        // SAFETY: as for `in8`; OUT writes no register.
        unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
    }

    fn out16(&mut self, port: u16, value: u16) {
        // SAFETY: as for `in8`; OUT writes no register.
        unsafe { asm!("out dx, ax", in("dx") port, in("ax") value, options(nostack, preserves_flags)) };
    }

    fn out32(&mut self, port: u16, value: u32) {
        // SAFETY: as for `in8`; OUT writes no register. A DMA doorbell makes the device write memory that was lent to
        // it with `share` or checked with `check_device_range`; neither is borrowed by Rust code meanwhile.
        unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) };
    }

    fn in8_string(&mut self, port: u16, buffer: &mut [u8]) {
        // SAFETY: RDI to RDI + RCX is `buffer`, borrowed mutably; the direction flag is clear in Rust code.
        unsafe {
            asm!("rep insb", in("dx") port, inout("rdi") buffer.as_mut_ptr() => _, inout("rcx") buffer.len() => _,
                options(nostack, preserves_flags))
        };
    }

    fn in8_string_to(&mut self, port: u16, to: PhysRange) -> Result<(), MemoryError> {
        if !layout::may_access(to) {
            return Err(MemoryError { range: to });
        }
        // SAFETY: `may_access` allowed the range.
        unsafe { read_string_to(port, to) };
        Ok(())
    }
}

impl Ports for PcMachine {
    fn in8(&mut self, port: u16) -> u8 {
        self.ports.in8(port)
    }
    fn in16(&mut self, port: u16) -> u16 {
        self.ports.in16(port)
    }
    fn in32(&mut self, port: u16) -> u32 {
        self.ports.in32(port)
    }
    fn out8(&mut self, port: u16, value: u8) {
        self.ports.out8(port, value);
    }
    fn out16(&mut self, port: u16, value: u16) {
        self.ports.out16(port, value);
    }
    fn out32(&mut self, port: u16, value: u32) {
        self.ports.out32(port, value);
    }
    fn in8_string(&mut self, port: u16, buffer: &mut [u8]) {
        self.ports.in8_string(port, buffer);
    }
    fn in8_string_to(&mut self, port: u16, to: PhysRange) -> Result<(), MemoryError> {
        self.check_mapped(to)?;
        // SAFETY: `check_mapped` allowed the range.
        unsafe { read_string_to(port, to) };
        Ok(())
    }
}

fn check(range: PhysRange) -> Result<(), MemoryError> {
    if layout::may_access(range) { Ok(()) } else { Err(MemoryError { range }) }
}

fn check_bytes(start: PhysAddr, len: usize) -> Result<(), MemoryError> {
    check(bytes(start, len)?)
}

fn bytes(start: PhysAddr, len: usize) -> Result<PhysRange, MemoryError> {
    // A length that wraps is reported as an empty range at its start.
    PhysRange::new(start, len as u64).ok_or(MemoryError { range: PhysRange::empty_at(start) })
}

/// Fills `to` with successive byte reads of a port.
///
/// # Safety
/// The range is mapped and no Rust object lives there; ring 0 and ownership of the devices were promised.
unsafe fn read_string_to(port: u16, to: PhysRange) {
    // SAFETY: the caller promises it; the direction flag is clear in Rust code.
    unsafe {
        asm!("rep insb", in("dx") port, inout("rdi") to.start().get() => _, inout("rcx") to.len() => _,
            options(nostack, preserves_flags))
    };
}

/// The page tables in memory.
struct PageTables;

impl paging::Entries for PageTables {
    fn get(&mut self, at: PhysAddr) -> u64 {
        // SAFETY: `paging::map` asks for entries of the tables of `src/start` and of those that it has set below. Both are
        // mapped, and no Rust object lives there.
        unsafe { ptr::read_volatile(pointer(at).cast::<u64>()) }
    }

    fn set(&mut self, at: PhysAddr, entry: u64) {
        let place = PhysRange::new(at, 8).unwrap_or_default();
        if layout::may_access(place) || layout::PAGE_TABLES.contains(place) {
            // SAFETY: the place is mapped and no Rust object: `may_access` allowed it, or it is of the tables of `src/start`.
            // There `paging` only sets entries that map nothing yet, or lets what is mapped be executed, so what the program
            // runs with stays mapped.
            unsafe { ptr::write_volatile(pointer(at).cast::<u64>(), entry) };
        }
    }
}

/// The identity-mapped pointer to `at`. Null for address zero, which is never allowed.
fn pointer(at: PhysAddr) -> *mut u8 {
    ptr::with_exposed_provenance_mut(at.get() as usize)
}

impl Memory for PcMachine {
    #[cold]
    fn map(&mut self, range: PhysRange, room: PhysRange) -> Result<(), MemoryError> {
        let error = MemoryError { range };
        if !layout::may_access(room) || self.mapped.is_full() {
            return Err(error);
        }
        paging::map(&mut PageTables, range, room).ok_or(error)?;
        // Also keeps the compiler from moving an access to the range to before this.
        tlb::flush_all();
        self.mapped.try_push(range).map_err(|_| error)
    }

    fn read(&mut self, from: PhysAddr, into: &mut [u8]) -> Result<(), MemoryError> {
        let range = bytes(from, into.len())?;
        if !layout::may_read(range) {
            return Err(MemoryError { range });
        }
        // SAFETY: `may_read` allowed the source, so it is mapped, not at address zero, and disjoint from every Rust object,
        // `into` too.
        unsafe { ptr::copy_nonoverlapping(pointer(from), into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    fn inspect(&mut self, range: PhysRange, show: &mut dyn FnMut(&[u8])) -> Result<(), MemoryError> {
        self.check_mapped(range)?;
        if !range.is_empty() {
            // SAFETY: `check_mapped` allowed the range, so it is mapped and disjoint from every Rust object that
            // could be written; `self` is borrowed, so no access to memory and no doorbell comes before the slice's end.
            show(unsafe { slice::from_raw_parts(pointer(range.start()), range.len() as usize) });
        }
        Ok(())
    }

    fn write(&mut self, to: PhysAddr, bytes: &[u8]) -> Result<(), MemoryError> {
        check_bytes(to, bytes.len())?;
        // SAFETY: `check_bytes` allowed the target, so it is mapped and disjoint from every Rust object, `bytes` too.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(to), bytes.len()) };
        Ok(())
    }

    fn copy(&mut self, from: PhysRange, to: PhysAddr) -> Result<(), MemoryError> {
        self.check_mapped(from)?;
        self.check_mapped(bytes(to, from.len() as usize)?)?;
        // SAFETY: both ranges were allowed, so they are mapped and disjoint from every Rust object; they may overlap.
        unsafe { ptr::copy(pointer(from.start()), pointer(to), from.len() as usize) };
        Ok(())
    }

    fn fill(&mut self, range: PhysRange, byte: u8) -> Result<(), MemoryError> {
        check(range)?;
        // SAFETY: `check` allowed the range, so it is mapped and disjoint from every Rust object.
        unsafe { ptr::write_bytes(pointer(range.start()), byte, range.len() as usize) };
        Ok(())
    }

    fn read_register8(&mut self, at: PhysAddr) -> Result<u8, MemoryError> {
        check_register(at, Alignment::BYTE)?;
        // SAFETY: the address is mapped and disjoint from every Rust object.
        Ok(unsafe { ptr::read_volatile(pointer(at)) })
    }

    fn read_register32(&mut self, at: PhysAddr) -> Result<u32, MemoryError> {
        check_register(at, Alignment::DWORD)?;
        // SAFETY: the address is aligned, mapped and disjoint from every Rust object.
        Ok(unsafe { ptr::read_volatile(pointer(at).cast::<u32>()) })
    }

    fn read_register64(&mut self, at: PhysAddr) -> Result<u64, MemoryError> {
        check_register(at, Alignment::QWORD)?;
        // SAFETY: the address is aligned, mapped and disjoint from every Rust object.
        Ok(unsafe { ptr::read_volatile(pointer(at).cast::<u64>()) })
    }

    fn write_register8(&mut self, at: PhysAddr, value: u8) -> Result<(), MemoryError> {
        check_register(at, Alignment::BYTE)?;
        // SAFETY: the address is mapped and disjoint from every Rust object.
        unsafe { ptr::write_volatile(pointer(at), value) };
        Ok(())
    }

    fn write_register16(&mut self, at: PhysAddr, value: u16) -> Result<(), MemoryError> {
        check_register(at, Alignment::WORD)?;
        // SAFETY: the address is aligned, mapped and disjoint from every Rust object.
        unsafe { ptr::write_volatile(pointer(at).cast::<u16>(), value) };
        Ok(())
    }

    fn write_register32(&mut self, at: PhysAddr, value: u32) -> Result<(), MemoryError> {
        check_register(at, Alignment::DWORD)?;
        // SAFETY: the address is aligned, mapped and disjoint from every Rust object.
        unsafe { ptr::write_volatile(pointer(at).cast::<u32>(), value) };
        Ok(())
    }

    fn write_register64(&mut self, at: PhysAddr, value: u64) -> Result<(), MemoryError> {
        check_register(at, Alignment::QWORD)?;
        // SAFETY: the address is aligned, mapped and disjoint from every Rust object.
        unsafe { ptr::write_volatile(pointer(at).cast::<u64>(), value) };
        Ok(())
    }
}

/// A register is as long as it is aligned.
fn check_register(at: PhysAddr, size: Alignment) -> Result<(), MemoryError> {
    if !at.is_aligned(size) {
        return Err(MemoryError { range: PhysRange::empty_at(at) });
    }
    check_bytes(at, size.bytes() as usize)
}

/// Where the one DMA descriptor lives: 16-byte aligned, in the firmware's RAM and so below 4 GiB.
#[repr(C, align(16))]
struct DescriptorCell(UnsafeCell<[u8; 16]>);

// SAFETY: one CPU runs and nothing interrupts it, so there is one access at a time.
unsafe impl Sync for DescriptorCell {}

static DESCRIPTOR: DescriptorCell = DescriptorCell(UnsafeCell::new([0; 16]));

/// The physical address of a Rust object, which lives in the firmware's RAM window.
fn physical(pointer: *const u8) -> PhysAddr {
    PhysAddr::new((pointer.expose_provenance() as u64).wrapping_sub(VIRTUAL_OFFSET))
}

impl Dma for PcMachine {
    fn share(&mut self, buffer: &mut [u8]) -> PhysAddr {
        // Exposed, so that the compiler takes every later `out` to be able to write it.
        physical(buffer.as_mut_ptr())
    }

    fn unshare(&mut self, _buffer: &mut [u8]) {
        // The transfer's `out` was the last access; it is not `nomem`, so nothing cached from before it survives.
    }

    fn write_descriptor(&mut self, descriptor: [u8; 16]) -> PhysAddr {
        let cell = DESCRIPTOR.0.get();
        // SAFETY: the cell is a static, aligned and only ever accessed through this raw pointer; volatile, because the
        // device reads it.
        unsafe { ptr::write_volatile(cell, descriptor) };
        physical(cell.cast())
    }

    fn read_descriptor_control(&mut self) -> [u8; 4] {
        // SAFETY: as in `write_descriptor`; the control word is the first four of the cell's sixteen bytes, which
        // are aligned for it. The device may write it at any time, so it is read at once and not byte by byte.
        unsafe { ptr::read_volatile(DESCRIPTOR.0.get().cast::<u32>()) }.to_ne_bytes()
    }

    fn check_device_range(&self, range: PhysRange) -> Result<(), MemoryError> {
        self.check_mapped(range)
    }
}

global_asm!(
    include_str!("startup.s"),
    STARTUP_ORDERS = const STARTUP_ORDERS,
    MOST_WRITES = const STARTUP_WRITES,
);

unsafe extern "C" {
    /// The code of `startup.s`.
    static firstlight_startup_code: [u8; STARTUP_ORDERS];
}

/// Not inlined: it would cost each write to a register that is known.
#[cold]
#[inline(never)]
fn warn_of_register(register: u32) {
    log::warn!("write to model-specific register {register:#x} ignored: not one that firmware sets");
}

impl Cpu for PcMachine {
    fn cpuid(&mut self, leaf: u32, subleaf: u32) -> Cpuid {
        let result = __cpuid_count(leaf, subleaf);
        Cpuid { eax: result.eax, ebx: result.ebx, ecx: result.ecx, edx: result.edx }
    }

    fn read_msr(&mut self, register: u32) -> u64 {
        // SAFETY: ring 0 was promised to `take`; a register that does not exist raises a fault, which stops the
        // firmware with a message and breaks no invariant.
        unsafe { Msr::new(register).read() }
    }

    fn write_msr(&mut self, register: u32, value: u64) {
        // Intel SDM volume 4, table 2-2: the MTRRs, most of what is written; IA32_FEATURE_CONTROL, IA32_MTRR_DEF_TYPE,
        // IA32_X2APIC_SIVR, _ICR, _LVT_LINT0, _LVT_LINT1.
        if !(0x200..=0x26f).contains(&register) && !matches!(register, 0x3a | 0x2ff | 0x80f | 0x830 | 0x835 | 0x836) {
            return warn_of_register(register);
        }
        // SAFETY: these registers choose memory types, lock features, send messages to CPUs and let interrupts through to this
        // one, where they are off; the running code's mapping, mode and stack do not depend on them.
        unsafe { Msr::new(register).write(value) };
    }

    fn startup_code(&self) -> &'static [u8] {
        let start = &raw const firstlight_startup_code;
        // SAFETY: `startup.s` puts STARTUP_ORDERS bytes there (`.org`), in read-only memory that stays.
        unsafe { &*start }
    }
}

impl Clock for PcMachine {
    fn ticks(&mut self) -> u64 {
        // SAFETY: every x86-64 CPU has RDTSC, and ring 0 may always execute it.
        unsafe { _rdtsc() }
    }
}
