//! The last jump.

use core::arch::asm;

use firstlight::boot::{Entry, Handover};

/// Enters the kernel. The registers are as [`Handover`] says.
///
/// # Safety
/// The kernel's bytes are at the entry, and `boot_params` is complete.
pub unsafe fn hand_over(handover: &Handover) -> ! {
    let boot_params = handover.boot_params.get();
    match handover.entry {
        // `reset.s` loaded a GDT, data segments and a CS as the kernel wants them, and the tables map the low 4 GiB.
        // SAFETY: the caller promises a kernel at the entry; nothing of the firmware runs after this.
        Entry::Linux64(entry) => unsafe {
            asm!(
                "cli",
                "cld",
                "xor ebp, ebp",
                "xor edi, edi",
                "jmp rax",
                in("rax") entry.get(),
                in("rsi") boot_params,
                options(noreturn)
            )
        },
        // SAFETY: the caller promises a kernel at the entry, which lies below 4 GiB as the firmware loaded it there;
        // nothing of the firmware runs after this.
        Entry::Linux32(entry) => unsafe {
            asm!(
                "cli",
                "cld",
                "lgdt [rip + gdt32_pointer]",
                // A far return to the 32-bit code segment, at the code's own physical address.
                "push 0x10",
                "mov edx, offset leave_long_mode_physical",
                "push rdx",
                "retfq",
                in("eax") entry.get() as u32,
                in("esi") boot_params as u32,
                options(noreturn)
            )
        },
    }
}
