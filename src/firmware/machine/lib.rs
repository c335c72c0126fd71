//! The real machine: port instructions, memory through the identity map, CPUID, model-specific and control registers.
//!
//! Assumed, because `src/firmware/start` sets it up before [`PcMachine::take`] is called:
//! - the low 4 GiB are identity-mapped, readable and writable but not executable, except page zero and the page under the stack
//!   ([`layout::STACK_GUARD`]), which are not mapped;
//! - the image and the firmware's RAM ([`layout`]) are also mapped [`VIRTUAL_OFFSET`] higher, and every Rust object lives there.
//!   No Rust object lives at an identity-mapped address, so a raw access to memory that `PcMachine::check` allows cannot touch
//!   one.
//!
//! `Memory::map` adds memory above 4 GiB to the identity map, with tables that are not Rust objects either. The caller provides
//! the memory for the tables and must not write it. This is not checked, because the check would precede every access.
//! `Protect::protect` removes write access from memory without Rust objects; from then on, a write there is refused. Left out:
//! all other memory above 4 GiB, which the firmware describes to the kernel but never accesses.
#![no_std]
// No code in the image may panic, as in the library (`src/lib.rs`).
#![deny(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::get_unwrap,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::unwrap_used
)]

extern crate alloc;

mod cpu;
mod dma;
mod memory;
mod ports;
mod stop;

use core::arch::asm;
use core::ptr;

use firstlight::addr::{Alignment, PhysAddr, PhysRange};
use firstlight::bios_data::{self, BiosData};
use firstlight::hal::MemoryError;
use firstlight::hal::paging::{self, Access};
use firstlight::layout;
use x86_64::instructions::tlb;

pub use dma::STACK_IN_USE;
use memory::PageTables;
pub use ports::PcPorts;
pub use stop::{halt, kernel_runs, leave_to_kernel, report};

/// The difference between the virtual and the physical address of the image and the firmware's RAM (`VIRTUAL_OFFSET` in
/// `linker.ld`). The sum wraps for the image: it ends where the RAM window begins.
pub const VIRTUAL_OFFSET: u64 = 0xffff_ffff_c000_0000;

/// The machine that the firmware runs on.
#[derive(Debug)]
pub struct PcMachine {
    ports: PcPorts,
    /// The image. Every byte of it may be a Rust object or code.
    image: PhysRange,
    /// Below this address there is neither the image, nor the register that starts CPUs, nor a page that may only be read.
    limit: PhysAddr,
    /// All pages that may only be read are in this range.
    read_only: PhysRange,
    /// The memory of a transfer that timed out. The device may write it at any time.
    lost: Option<PhysRange>,
    /// The clock's rate once it was requested; `Some(None)` if it is unknown.
    rate: Option<Option<u64>>,
    /// The memory mapped above 4 GiB, with its page tables and those for pages that `Protect::protect` has split.
    added: paging::Added,
    /// The image of the EFI runtime services.
    runtime_services: &'static [u8],
}

impl PcMachine {
    /// Creates the machine, with the image at `image`: [`layout::FIRMWARE_ROM`] after a reset. `runtime_services` is the image of
    /// these.
    ///
    /// # Safety
    /// As for [`PcPorts::new`]. The memory is mapped as the module's head says. This is called once.
    #[must_use]
    pub unsafe fn take(image: PhysRange, runtime_services: &'static [u8]) -> Self {
        // SAFETY: the caller promises ring 0 and ownership.
        let ports = unsafe { PcPorts::new() };
        let limit = image.start().min(layout::INTERRUPT_COMMAND.start());
        Self {
            ports,
            image,
            limit,
            read_only: PhysRange::default(),
            lost: None,
            rate: None,
            added: paging::Added::default(),
            runtime_services,
        }
    }

    /// Prepares the mappings for what runs next: all identity-mapped memory becomes writable and executable, and page zero and
    /// the page under the stack are mapped. Called at the end of the firmware.
    pub fn give_mapping(&mut self) {
        paging::give(&mut PageTables { added: &self.added.tables }, &self.added.mapped);
        tlb::flush_all();
    }

    /// Maps page zero, or takes its mapping away: a null pointer is an exception then. Called after [`Self::give_mapping`].
    pub fn map_page_zero(&mut self, is_mapped: bool) {
        paging::map_page_zero(&mut PageTables { added: &self.added.tables }, is_mapped);
        tlb::flush_all();
    }

    /// Writes the BIOS data area. Called after [`Self::give_mapping`], because page zero is not mapped before.
    ///
    /// Clears the rest of it and the real-mode vectors, as on a machine that was just switched on. Kernels search it for an MP
    /// table, and a guest that ran before a reset may have left one.
    pub fn set_bios_data(&mut self, data: BiosData) {
        // SAFETY: page zero is mapped, and no Rust object lives there. A register is used because a pointer must not be null.
        unsafe {
            asm!("rep stosq", inout("rcx") bios_data::END / 8 => _, inout("rdi") 0_u64 => _, in("rax") 0_u64,
                options(nostack, preserves_flags))
        };
        for (at, word) in data.words() {
            let bytes = word.to_le_bytes();
            // SAFETY: both words are in page zero, which is mapped and has no Rust object; neither is at address zero.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), pointer(at), bytes.len()) };
        }
    }

    /// Checks that `range` is below 4 GiB, not the firmware's own and not the register that starts CPUs. So it is mapped, not at
    /// address zero, and disjoint from all Rust objects and code.
    #[inline]
    fn check(&self, range: PhysRange) -> Result<(), MemoryError> {
        let allowed = layout::may_access_below(range, self.limit) || self.may_access_above(range);
        if allowed { Ok(()) } else { Err(MemoryError { range }) }
    }

    /// Whether the firmware may access `range`, which may be above the limit.
    #[cold]
    #[inline(never)]
    fn may_access_above(&self, range: PhysRange) -> bool {
        layout::may_access(range) && !range.overlaps(self.image)
    }

    /// As [`Self::check`], but also allows memory mapped above 4 GiB.
    #[inline]
    fn check_mapped(&self, range: PhysRange) -> Result<(), MemoryError> {
        let allowed = layout::may_access_below(range, self.limit) || self.may_access_mapped(range);
        if allowed { Ok(()) } else { Err(MemoryError { range }) }
    }

    /// Whether the firmware may access `range`, which may be above the limit, or mapped above 4 GiB.
    #[cold]
    #[inline(never)]
    fn may_access_mapped(&self, range: PhysRange) -> bool {
        self.may_access_above(range) || self.added.mapped.iter().any(|mapped| mapped.contains(range))
    }

    /// Whether `range` is in page zero and may be read: after a reset it is not mapped.
    #[cold]
    #[inline(never)]
    fn may_read_page_zero(&self, range: PhysRange) -> bool {
        layout::may_read_page_zero(range) && self.image != layout::FIRMWARE_ROM
    }

    /// As [`Self::check_mapped`], for an access that writes: refuses pages that may only be read.
    #[inline]
    fn check_writable(&self, range: PhysRange) -> Result<(), MemoryError> {
        let allowed = layout::may_access_below(range, self.limit) || self.may_write_above(range);
        if allowed { Ok(()) } else { Err(MemoryError { range }) }
    }

    /// Whether the firmware may write `range`, which may be above the limit.
    #[cold]
    #[inline(never)]
    fn may_write_above(&self, range: PhysRange) -> bool {
        let guarded = range.intersection(self.read_only).unwrap_or_default();
        let is_writable = || {
            let mut tables = PageTables { added: &self.added.tables };
            paging::all_pages(&mut tables, guarded, Access::is_writable)
        };
        self.check_mapped(range).is_ok() && (guarded.is_empty() || is_writable())
    }

    /// Checks the address of a register, whose size is its alignment.
    #[inline]
    fn check_register(&self, at: PhysAddr, size: Alignment) -> Result<(), MemoryError> {
        if !at.is_aligned(size) {
            return Err(MemoryError { range: PhysRange::empty_at(at) });
        }
        self.check(bytes(at, size.bytes() as usize)?)
    }
}

#[inline]
fn bytes(start: PhysAddr, len: usize) -> Result<PhysRange, MemoryError> {
    // A length that wraps is reported as an empty range at its start.
    PhysRange::new(start, len as u64).ok_or(MemoryError { range: PhysRange::empty_at(start) })
}

/// The identity-mapped pointer to `at`. Null for address zero, which no check allows.
fn pointer(at: PhysAddr) -> *mut u8 {
    ptr::with_exposed_provenance_mut(at.get() as usize)
}
