//! What an ELF file begins with (System V ABI, "ELF Header"), as far as the firmware looks at it: whether it is for x86, and
//! where it is entered. The host loads such a file.
//!
//! Left out: program headers, sections, and the entry of files of 32 bits, of which the firmware is none.

use crate::addr::PhysAddr;

/// The first bytes.
pub const MAGIC: &[u8] = b"\x7fELF";
/// `e_ident[EI_CLASS]`: 64 bits.
const CLASS: usize = 4;
const CLASS_64: u8 = 2;
/// `e_machine`, 16 bits.
const MACHINE: usize = 18;
/// `e_entry`, 64 bits in a file of that class.
const ENTRY: usize = 24;
/// The machines that hosts take kernels for: `EM_386` and `EM_X86_64`.
const X86: [u16; 2] = [3, 62];
/// As many bytes as [`entry`] looks at.
pub const BYTES: usize = ENTRY + 8;

/// The machine that the file is for, if it is an ELF file.
pub fn machine(start: &[u8]) -> Option<u16> {
    let machine = start.strip_prefix(MAGIC).and(start.get(MACHINE..))?.first_chunk();
    machine.copied().map(u16::from_le_bytes)
}

/// Whether a machine is one that hosts take kernels for.
pub fn is_x86(machine: u16) -> bool {
    X86.contains(&machine)
}

/// Where a file of 64 bits for x86 is entered.
pub fn entry(start: &[u8; BYTES]) -> Option<PhysAddr> {
    let is_wide = machine(start).is_some_and(is_x86) && start.get(CLASS) == Some(&CLASS_64);
    let entry = start.last_chunk().filter(|_| is_wide)?;
    Some(PhysAddr::new(u64::from_le_bytes(*entry)))
}
