//! The memory functions that the compiler calls.
//!
//! They use string instructions on eight bytes at a time, and no vector registers. A string instruction is one step on hosts that
//! emulate ring 0, and microcoded elsewhere.
//!
//! They are not inlined: a boot compares in a dozen places, once each, and a host that translates code would translate each copy.
//!
//! With the feature `firmware` they have their C names. Without it they are ordinary functions, and `tests/memory.rs` runs them
//! on the host.

use core::arch::asm;

/// C `memcpy`.
///
/// # Safety
/// `n` bytes are readable at `source` and writable at `target`, and the two do not overlap.
#[cfg_attr(feature = "firmware", unsafe(no_mangle))]
pub unsafe extern "C" fn memcpy(target: *mut u8, source: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's promise covers the n bytes. Whole words come first, then the remaining bytes.
    unsafe {
        asm!("rep movsq", "mov ecx, {rest:e}", "rep movsb", rest = in(reg) n & 7, inout("rcx") n >> 3 => _,
            inout("rdi") target => _, inout("rsi") source => _, options(nostack, preserves_flags))
    };
    target
}

/// C `memmove`.
///
/// # Safety
/// `n` bytes are readable at `source` and writable at `target`.
#[cfg_attr(feature = "firmware", unsafe(no_mangle))]
pub unsafe extern "C" fn memmove(target: *mut u8, source: *const u8, n: usize) -> *mut u8 {
    if target.addr().wrapping_sub(source.addr()) >= n {
        // The target begins below the source, or not before its end. So copying upwards reads every byte before it is written.
        // SAFETY: the caller's promise covers the n bytes, and the direction makes the overlap harmless.
        return unsafe { memcpy(target, source, n) };
    }
    // From the end down: first the odd bytes, then whole words. A word's address is that of its first byte.
    // SAFETY: the caller's promise covers the n bytes; the direction flag is restored.
    unsafe {
        asm!("std", "rep movsb", "sub rdi, 7", "sub rsi, 7", "mov rcx, {words}", "rep movsq", "cld",
            words = in(reg) n >> 3, inout("rcx") n & 7 => _,
            inout("rdi") target.wrapping_add(n).wrapping_sub(1) => _,
            inout("rsi") source.wrapping_add(n).wrapping_sub(1) => _, options(nostack))
    };
    target
}

/// C `memset`.
///
/// # Safety
/// `n` bytes are writable at `target`.
#[cfg_attr(feature = "firmware", unsafe(no_mangle))]
pub unsafe extern "C" fn memset(target: *mut u8, value: i32, n: usize) -> *mut u8 {
    let word = u64::from(value as u8).wrapping_mul(0x0101_0101_0101_0101);
    // SAFETY: the caller's promise covers the n bytes. Whole words come first, then the remaining bytes.
    unsafe {
        asm!("rep stosq", "mov ecx, {rest:e}", "rep stosb", rest = in(reg) n & 7, inout("rcx") n >> 3 => _,
            inout("rdi") target => _, in("rax") word, options(nostack, preserves_flags))
    };
    target
}

/// C `memcmp`.
///
/// # Safety
/// `n` bytes are readable at `left` and at `right`.
#[cfg_attr(feature = "firmware", unsafe(no_mangle))]
#[inline(never)]
pub unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, n: usize) -> i32 {
    let (above, below): (u8, u8);
    // Compares whole words while they are equal, then the bytes of the differing word, or the bytes that make no whole word.
    // Comparing RCX with itself sets the flags to equal if there are no words or no bytes.
    // SAFETY: the caller's promise covers the n bytes.
    unsafe {
        asm!(
            "cmp rcx, rcx",
            "repe cmpsq",
            "mov ecx, {rest:e}",
            "je 2f",
            "sub rsi, 8",
            "sub rdi, 8",
            "mov ecx, 8",
            "2:",
            "cmp rcx, rcx",
            "repe cmpsb",
            "seta {above}",
            "setb {below}",
            rest = in(reg) n & 7,
            above = out(reg_byte) above,
            below = out(reg_byte) below,
            inout("rcx") n >> 3 => _,
            inout("rsi") left => _,
            inout("rdi") right => _,
            options(nostack, readonly)
        )
    };
    i32::from(above).wrapping_sub(i32::from(below))
}

/// C `bcmp`: zero if equal. Comparisons of slices and strings use it, because they do not need the order that [`memcmp`] returns.
///
/// # Safety
/// As for [`memcmp`].
#[cfg_attr(feature = "firmware", unsafe(no_mangle))]
#[inline(never)]
pub unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, n: usize) -> i32 {
    let differ: u8;
    // Compares whole words while they are equal, then the bytes that make no whole word. Comparing RCX with itself sets the flags
    // to equal; with no words or no bytes they stay so.
    // SAFETY: the caller's promise covers the n bytes.
    unsafe {
        asm!(
            "cmp rcx, rcx",
            "repe cmpsq",
            "jne 2f",
            "mov ecx, {rest:e}",
            "repe cmpsb",
            "2:",
            "setne {differ}",
            rest = in(reg) n & 7,
            differ = out(reg_byte) differ,
            inout("rcx") n >> 3 => _,
            inout("rsi") left => _,
            inout("rdi") right => _,
            options(nostack, readonly)
        )
    };
    differ.into()
}
