//! The code from the reset vector to [`rust_start`], and from an exception to a message.
//!
//! `reset.s` has the assembly; this module gives it its constants. Page tables are built in RAM at every start (36 KiB; `reset.s`
//! says why they are not in ROM). GDT and IDT are constants in the image; every bit that the CPU would otherwise write is already
//! set.
//!
//! Assumed: the CPU is at its reset state, long mode exists, the image ends at 4 GiB, and RAM covers
//! [`firstlight::layout::FIRMWARE_RAM`]. Left out: other CPUs, which stay in their wait-for-SIPI state, and interrupts,
//! which stay off.

mod handover;

use core::arch::{asm, global_asm};
use core::fmt;

use firstlight::efi::exception::Exception;
use firstlight::smbios::SHORT_RELEASE_DATE;
use firstlight_machine::{VIRTUAL_OFFSET, halt, kernel_runs, report};
pub use handover::{hand_over, wake};
use x86_64::registers::control::Cr2;

/// The size of the section `.start`, in bytes. The section is the end of the image. `reset.s` does not assemble if the size is
/// too small.
const START_SIZE: u64 = 0x980;

global_asm!(
    include_str!("reset.s"),
    START_SIZE = const START_SIZE,
    // The section's start within the last 64 KiB below 4 GiB.
    START_OFFSET = const 0x1_0000 - START_SIZE,
    // Bits 16 to 31 of every address in the last 64 KiB of the image.
    VIRTUAL_HIGH_WORD = const ((VIRTUAL_OFFSET - 0x1_0000) >> 16) & 0xffff,
    RELEASE_DATE = const u64::from_le_bytes(SHORT_RELEASE_DATE),
    rust_start = sym super::rust_start,
    exception = sym exception,
);

/// Exceptions that push an error code (Intel SDM volume 3, table 6-1).
const WITH_ERROR_CODE: u32 =
    1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;

/// An exception that no image of an EFI program has caused.
enum Defect {
    /// In the firmware.
    Firmware(Exception),
    /// In a kernel that has no interrupt table of its own so far.
    Kernel(Exception),
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Firmware(exception) | Self::Kernel(exception)) = self;
        let Exception { vector, error_code, rip, cr2 } = exception;
        write!(f, "CPU exception {vector} at {rip:#x}, error code {error_code:#x}, CR2 {cr2:#x}: ")?;
        f.write_str(match self {
            Self::Firmware(_) => {
                "this is a defect of the firmware or a CPU that lacks what it needs; please report it with the host's \
                 command line"
            }
            Self::Kernel(_) => {
                "in the kernel, before it handles exceptions itself; this is a defect of the kernel, or the machine lacks what \
                 it needs; try more memory (QEMU -m), another CPU (-cpu), or another kernel"
            }
        })
    }
}

/// Prints the exception and stops.
///
/// # Safety
/// `frame` is the stack that the stub in `reset.s` left: the vector, the error code if this vector has one, then RIP.
unsafe extern "C" fn exception(frame: *const u64) -> ! {
    // SAFETY: the caller passes its stack pointer, where the first word is the vector.
    let vector = unsafe { frame.read() };
    let has_code = u32::try_from(vector).is_ok_and(|vector| vector < 32 && WITH_ERROR_CODE & (1 << vector) != 0);
    // SAFETY: the CPU pushed at least five more words.
    let second = unsafe { frame.wrapping_add(1).read() };
    // SAFETY: as above.
    let third = unsafe { frame.wrapping_add(2).read() };
    let (error_code, rip) = if has_code { (second, third) } else { (0, second) };
    let exception = Exception { vector, error_code, rip, cr2: Cr2::read_raw() };
    if kernel_runs() {
        report(&Defect::Kernel(exception));
    } else if !firstlight_efi::report_exception(exception) {
        report(&Defect::Firmware(exception));
    }
    halt()
}

/// An IDT without vectors: limit and address.
static NO_VECTORS: [u16; 5] = [0; 5];

/// Resets the machine by a triple fault, if no other way has worked.
pub fn triple_fault() -> ! {
    // SAFETY: nothing runs after this. Neither the exception nor the following double fault has a handler, so the CPU shuts down
    // (Intel SDM volume 3, 6.15, "Interrupt 8").
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &raw const NO_VECTORS, options(noreturn)) }
}
