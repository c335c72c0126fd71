//! Calls of an image's functions, and the way back out of an image that calls `Exit`.

use core::arch::{asm, naked_asm};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::{mem, ptr};

use firstlight_machine::PcMachine;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};

/// As many images run within each other.
pub const MOST_RUNNING: usize = 16;

/// The firmware's stack pointer where it entered each image that runs.
static ENTERED: [AtomicU64; MOST_RUNNING] = [const { AtomicU64::new(0) }; MOST_RUNNING];

/// Turns on what images may use of the CPU besides integer instructions, in the state that they expect (UEFI 2.3.4.1). The
/// firmware uses none of it, so it leaves the registers as images have them.
pub fn enable_vectors() {
    let cr0 =
        Cr0::read().difference(Cr0Flags::EMULATE_COPROCESSOR | Cr0Flags::TASK_SWITCHED) | Cr0Flags::MONITOR_COPROCESSOR;
    // SAFETY: the flags concern instructions that the firmware does not use.
    unsafe { Cr0::write(cr0) };
    let cr4 = Cr4::read() | Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE;
    // SAFETY: as above. Every CPU with 64-bit mode has them.
    unsafe { Cr4::write(cr4) };
    // SAFETY: the firmware does not use the FPU. The instruction sets its control word to 0x37f; MXCSR has the value of a reset,
    // 0x1f80.
    unsafe { asm!("fninit", options(nomem, nostack, preserves_flags)) };
}

/// Calls the image's entry point on a stack that ends at `stack`, or on the present one if that is zero. `depth` images run
/// already, fewer than [`MOST_RUNNING`]. Returns what the image returns or passes to `Exit`.
///
/// # Safety
/// There is an image's entry point at `entry`, and `stack` is the end of memory that nothing else uses.
pub unsafe fn enter_image(depth: usize, entry: u64, handle: u64, system_table: u64, stack: u64) -> usize {
    let Some(entered) = ENTERED.get(depth) else { return 0 };
    // SAFETY: the caller promises the entry point and the stack; the cell is this image's.
    unsafe { call_on_stack(entry, handle, system_table, stack, entered.as_ptr()) }
}

/// Goes back to where [`enter_image`] entered the image at `depth`, which returns `status` then.
///
/// # Safety
/// That image runs, and is the last that was entered.
pub unsafe fn leave_image(depth: usize, status: usize) -> ! {
    let entered = ENTERED.get(depth).map_or(0, |entered| entered.load(Relaxed));
    // SAFETY: the caller promises that `call_on_stack` stored the stack pointer, and has not returned.
    unsafe { return_from_call(entered, status) }
}

/// Clears the firmware's stack, which has bytes of the firmware and of guests before a reset. The first image returns to `function`
/// then, instead of to [`enter_image`].
///
/// # Safety
/// The caller runs on the first image's stack, and nothing returns to the firmware's any more.
pub unsafe fn leave_stack(machine: &mut PcMachine, function: extern "sysv64" fn() -> !) {
    let [first, ..] = &ENTERED;
    let frame = ptr::with_exposed_provenance_mut::<u64>(first.load(Relaxed) as usize);
    // SAFETY: the caller promises that no frame is used again.
    unsafe { machine.clear_stack() };
    // SAFETY: `call_on_stack` has pushed this many registers there, behind its return address.
    let address = unsafe { frame.add(PUSHED) };
    // SAFETY: the address is on the firmware's stack, where nothing else is now.
    unsafe { ptr::write_volatile(address, function as *const () as u64) };
}

/// Calls a function of an image with two arguments.
///
/// # Safety
/// There is a function at `function` that takes them.
pub unsafe fn call(function: u64, first: u64, second: u64) -> usize {
    // SAFETY: the caller promises the function. The stack is the present one, so no stack pointer has to be kept.
    unsafe { call_on_stack(function, first, second, 0, AtomicU64::new(0).as_ptr()) }
}

/// Calls a function of a protocol with up to five arguments.
///
/// # Safety
/// There is a function at `function` that takes them.
pub unsafe fn call_protocol(function: u64, [a, b, c, d, e]: [u64; 5]) -> usize {
    let function = ptr::with_exposed_provenance::<()>(function as usize);
    // SAFETY: the caller promises the function. It takes as many of these arguments as it has.
    let function =
        unsafe { mem::transmute::<*const (), unsafe extern "efiapi" fn(u64, u64, u64, u64, u64) -> usize>(function) };
    // SAFETY: as above.
    unsafe { function(a, b, c, d, e) }
}

/// Room below the pushed registers for what `fxsave64` stores, at a multiple of 16: control words and vector registers.
const VECTORS: u64 = 512 + 16;

/// The end of [`call_on_stack`]: the registers that it stored and pushed, and the way back to its caller.
macro_rules! back_to_caller {
    () => {
        "lea rcx, [rsp - {vectors}]\nand rcx, -16\nfxrstor64 [rcx]\npop r15\npop r14\npop r13\npop r12\npop rbp\npop rbx\nret"
    };
}

/// How many registers [`call_on_stack`] pushes.
const PUSHED: usize = 6;

/// Calls `function` as Microsoft's convention has it, on the stack that ends at `stack` unless that is zero. Stores the stack
/// pointer in `entered`. The convention preserves the registers that are stored and pushed, unless an image leaves by `Exit`.
#[unsafe(naked)]
unsafe extern "sysv64" fn call_on_stack(
    function: u64,
    first: u64,
    second: u64,
    stack: u64,
    entered: *mut u64,
) -> usize {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [r8], rsp",
        "mov rbx, rsp",
        "lea rsp, [rsp - {vectors}]",
        "and rsp, -16",
        "fxsave64 [rsp]",
        "test rcx, rcx",
        "cmovnz rsp, rcx",
        "and rsp, -16",
        // The home of four arguments.
        "sub rsp, 32",
        "mov rax, rdi",
        "mov rcx, rsi",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "xor ebp, ebp",
        "call rax",
        "cld",
        "mov rsp, rbx",
        back_to_caller!(),
        vectors = const VECTORS,
    )
}

/// The end of [`call_on_stack`], with the stack pointer that it stored.
#[unsafe(naked)]
unsafe extern "sysv64" fn return_from_call(entered: u64, status: usize) -> ! {
    naked_asm!("cld", "mov rsp, rdi", "mov rax, rsi", back_to_caller!(), vectors = const VECTORS)
}

/// Passes the arguments of a function with any number of them on as the address of those after the first. They are put to where
/// the convention has room for them on the stack: the second to the fourth in front of the fifth.
macro_rules! with_arguments {
    ($name:ident, $function:path) => {
        #[unsafe(naked)]
        pub extern "efiapi" fn $name() {
            naked_asm!(
                "mov [rsp + 16], rdx",
                "mov [rsp + 24], r8",
                "mov [rsp + 32], r9",
                "lea rdx, [rsp + 16]",
                "jmp {function}",
                function = sym $function,
            )
        }
    };
}

with_arguments!(install_multiple, super::calls::install_multiple_listed);
with_arguments!(uninstall_multiple, super::calls::uninstall_multiple_listed);
