//! The last jump: to the kernel, or to the waking vector of a suspended operating system.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::ptr;

use firstlight::boot::{Clears, Entry, Handover};
use firstlight::resume::WakingVector;
use firstlight_machine::{STACK_IN_USE, VIRTUAL_OFFSET, leave_to_kernel};

/// CR4: physical address extension, which 64-bit mode requires (Intel SDM volume 3, 2.5).
const CR4_PAE: u64 = 1 << 5;

/// The value of a symbol of linker.ld: an address of 32 bits in the copy of the last code.
macro_rules! address_of {
    ($symbol:literal) => {{
        let address: u32;
        // SAFETY: this loads a constant.
        unsafe { asm!(concat!("mov {0:e}, offset ", $symbol), out(reg) address, options(nomem, nostack, preserves_flags)) };
        address
    }};
}

/// The words that `enter_low` of `reset.s` reads. They are not on the stack, because it is cleared.
struct LowWords(UnsafeCell<[u32; 5]>);

// SAFETY: one CPU runs without interrupts, so there is one access at a time.
unsafe impl Sync for LowWords {}

static LOW_WORDS: LowWords = LowWords(UnsafeCell::new([0; 5]));

/// How much of the top of the stack to clear for this kernel, in units of eight bytes.
fn stack_qwords(handover: &Handover) -> u64 {
    if handover.clears == Clears::Nothing { 0 } else { STACK_IN_USE / 8 }
}

/// Enters the kernel, with the registers that [`Handover`] describes.
///
/// # Safety
/// The kernel is loaded at its entry point, and its parameters are complete. Identity-mapped memory is executable.
pub unsafe fn hand_over(handover: &Handover) -> ! {
    leave_to_kernel();
    let parameters = handover.parameters.get();
    // 32-bit code, and its ESI and EBX. All addresses are below 4 GiB, where the firmware loaded the kernel.
    let (code, esi, ebx) = match handover.entry {
        // `reset.s` loaded a GDT, data segments and a CS as the kernel expects, and the page tables map the low 4 GiB. CR4 keeps
        // only what 64-bit mode requires; the kernel enables the rest.
        // SAFETY: the caller promises a kernel at the entry point, and no firmware code runs after this.
        Entry::Linux64(entry) => unsafe {
            asm!(
                "cli",
                "cld",
                "mov cr4, rdi",
                // Clear the top of the stack, whose gaps may have bytes of a guest that ran before a reset.
                "mov rdi, offset stack_top - {in_use}",
                "xor eax, eax",
                "rep stosq",
                "xor ebp, ebp",
                "xor edi, edi",
                "jmp rdx",
                in_use = const STACK_IN_USE,
                in("rcx") stack_qwords(handover),
                in("rdx") entry.get(),
                in("rsi") parameters,
                in("rdi") CR4_PAE,
                options(noreturn)
            )
        },
        Entry::Linux32(entry) => (entry.get() as u32, parameters as u32, 0),
        Entry::LinuxLow { at, block } => {
            // The block is whole pages.
            let words: [u32; 5] = [
                block.place.get() as u32,
                (block.staged.len() / 4) as u32,
                at.get() as u32,
                parameters as u32,
                block.staged.start().get() as u32,
            ];
            // SAFETY: nothing else accesses the cell, because this is the end of the firmware.
            unsafe { ptr::write_volatile(LOW_WORDS.0.get(), words) };
            let words = LOW_WORDS.0.get().expose_provenance() as u64;
            // This code reads the words at their physical address, moves the block over memory that only the firmware uses, and
            // jumps to the entry point.
            (address_of!("enter_low_in_ram"), words.wrapping_sub(VIRTUAL_OFFSET) as u32, 0)
        }
        // This code jumps to the entry point in ESI, and so does the next.
        Entry::Pvh(entry) => (address_of!("enter_pvh_in_ram"), entry.get() as u32, parameters as u32),
        Entry::Multiboot(entry) => (address_of!("enter_multiboot_in_ram"), entry.get() as u32, parameters as u32),
        Entry::Efi => super::triple_fault(),
    };
    // SAFETY: the caller promises a kernel at the entry point. The 32-bit code is that entry point, or code of `reset.s` that
    // jumps to it, which `leave_long_mode` copies to that address.
    unsafe { leave_long_mode(code, esi, ebx, stack_qwords(handover)) }
}

/// Jumps to the waking vector of a suspended operating system, in real mode with interrupts off.
///
/// # Safety
/// The operating system's memory is as it left it. Identity-mapped memory is executable.
pub unsafe fn wake(vector: WakingVector) -> ! {
    let entry = address_of!("enter_real_mode_physical");
    // SAFETY: `reset.s` has 32-bit code there, which takes the vector in ESI.
    unsafe { leave_long_mode(entry, vector.get(), 0, 0) }
}

/// Jumps to `entry` in 32-bit mode with paging off, and with these values in ESI and EBX.
///
/// Clears `stack_qwords` times eight bytes at the top of the stack, from [`STACK_IN_USE`] on: all of them, or none.
///
/// The last instructions run with paging off, when the image may be at another address. So they run from a copy in
/// [`layout::STARTUP_CODE`].
///
/// # Safety
/// There is 32-bit code at `entry`, in that copy or outside the firmware. No firmware code runs after this. Identity-mapped
/// memory is executable.
unsafe fn leave_long_mode(entry: u32, esi: u32, ebx: u32, stack_qwords: u64) -> ! {
    // SAFETY: `linker.ld` checks that the last code fits the memory reserved for the code of started CPUs. Nothing else is there
    // at the end of the firmware. The caller promises code at the entry.
    unsafe {
        asm!(
            "cli",
            "cld",
            "mov r8d, esi",
            "mov r9d, edi",
            "mov r10d, eax",
            "mov rdi, offset stack_top - {in_use}",
            "xor eax, eax",
            "rep stosq",
            "mov eax, r10d",
            "mov rsi, offset last_code",
            "mov edi, offset LAST_CODE_IN_RAM",
            "mov ecx, offset last_code_qwords",
            "rep movsq",
            "mov esi, r8d",
            "mov edi, r9d",
            "lgdt [rip + gdt32_pointer]",
            // A far return to the 32-bit code segment, at the physical address of the code.
            "push 0x10",
            "mov edx, offset leave_long_mode_in_ram",
            "push rdx",
            "retfq",
            in("eax") entry,
            in("esi") esi,
            in("edi") ebx,
            in("rcx") stack_qwords,
            in_use = const STACK_IN_USE,
            options(noreturn)
        )
    }
}
