//! The machine itself: port instructions, memory through the identity map, CPUID, model-specific and control registers.
//!
//! Assumed, because `src/firmware/start` arranged it before [`PcMachine::take`] is called:
//! - the low 4 GiB are mapped at their own addresses, readable and writable but not executable, without page zero and the page
//!   under the stack ([`layout::STACK_GUARD`]);
//! - the image and the firmware's RAM ([`layout`]) are mapped a second time, [`VIRTUAL_OFFSET`] higher, and every Rust
//!   object lives there. No Rust object lives at an identity-mapped address, so a raw access to memory that
//!   [`PcMachine::check`] allows cannot touch one.
//!
//! What `Memory::map` has mapped above 4 GiB is added to the first of these, at its own addresses and in tables that
//! are no Rust object either. Whoever gave the room for them writes nothing else there: that is not checked, as it would stand
//! before every access. `Protect::protect` takes away write access from memory that no Rust object lives in: a write there is an
//! exception, and the end. Left out: all other memory above 4 GiB, which the firmware describes to the kernel but never touches.

mod cpu;
mod dma;
mod memory;
mod ports;

use core::arch::asm;
use core::ptr;

use arrayvec::ArrayVec;
use firstlight::addr::{Alignment, PhysAddr, PhysRange};
use firstlight::bios_data::{self, BiosData};
use firstlight::hal::{MemoryError, paging};
use firstlight::layout;
use x86_64::instructions::tlb;

pub use dma::STACK_IN_USE;
use memory::PageTables;
pub use ports::PcPorts;

/// What is added to a physical address of the image or of the firmware's RAM to give the address the code uses
/// (`VIRTUAL_OFFSET` in `linker.ld`). The sum wraps for the image: it ends where the RAM window begins.
pub const VIRTUAL_OFFSET: u64 = 0xffff_ffff_c000_0000;

/// The one machine that the firmware runs on.
#[derive(Debug)]
pub struct PcMachine {
    ports: PcPorts,
    /// The image, of which every byte may be a Rust object or code.
    image: PhysRange,
    /// The memory of a transfer that did not end, which the device may write at any time.
    lost: Option<PhysRange>,
    /// The clock's rate, or that it is not known, once that was asked for.
    rate: Option<Option<u64>>,
    /// What is mapped above 4 GiB: the kernel and the initrd.
    mapped: ArrayVec<PhysRange, 2>,
    /// The page tables for that, and for what `Protect::protect` has split: one range if each call gets what the call before left.
    tables: ArrayVec<PhysRange, 6>,
}

impl PcMachine {
    /// The machine, with the image at `image`: [`layout::FIRMWARE_ROM`] after a reset.
    ///
    /// # Safety
    /// As for [`PcPorts::new`]; the memory is mapped as the module's head says, and this is called once.
    #[must_use]
    pub unsafe fn take(image: PhysRange) -> Self {
        // SAFETY: the caller promises ring 0 and ownership.
        let ports = unsafe { PcPorts::new() };
        Self { ports, image, lost: None, rate: None, mapped: ArrayVec::new_const(), tables: ArrayVec::new_const() }
    }

    /// Gives the map of memory to what runs next: everything at its own address can be written and executed, and page zero and the
    /// page under the stack are mapped. For the end of the firmware.
    pub fn give_mapping(&mut self) {
        // The ranges are of `map`, so their tables are there.
        let _ = paging::give(&mut PageTables { added: &self.tables }, &self.mapped);
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

    /// Checks that `range` is below 4 GiB and not the firmware's own: mapped, not at address zero, disjoint from every Rust
    /// object and from the code.
    fn check(&self, range: PhysRange) -> Result<(), MemoryError> {
        let allowed = layout::may_access_below(range, self.image) || self.is_behind_image(range);
        if allowed { Ok(()) } else { Err(MemoryError { range }) }
    }

    /// Whether `range` is behind an image in RAM, and the firmware may access it.
    #[cold]
    #[inline(never)]
    fn is_behind_image(&self, range: PhysRange) -> bool {
        range.start() >= self.image.end() && layout::may_access(range)
    }

    /// As [`Self::check`], and allows what is mapped above 4 GiB.
    fn check_mapped(&self, range: PhysRange) -> Result<(), MemoryError> {
        let mapped = || self.mapped.iter().any(|mapped| mapped.contains(range));
        self.check(range).or_else(|error| if mapped() { Ok(()) } else { Err(error) })
    }

    fn check_bytes(&self, start: PhysAddr, len: usize) -> Result<(), MemoryError> {
        self.check(bytes(start, len)?)
    }

    /// Checks the place of a register, which is as long as it is aligned.
    fn check_register(&self, at: PhysAddr, size: Alignment) -> Result<(), MemoryError> {
        if !at.is_aligned(size) {
            return Err(MemoryError { range: PhysRange::empty_at(at) });
        }
        self.check_bytes(at, size.bytes() as usize)
    }
}

fn bytes(start: PhysAddr, len: usize) -> Result<PhysRange, MemoryError> {
    // A length that wraps is reported as an empty range at its start.
    PhysRange::new(start, len as u64).ok_or(MemoryError { range: PhysRange::empty_at(start) })
}

/// The identity-mapped pointer to `at`. Null for address zero, which is never allowed.
fn pointer(at: PhysAddr) -> *mut u8 {
    ptr::with_exposed_provenance_mut(at.get() as usize)
}
