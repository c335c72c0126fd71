//! The ELF header (System V ABI, "ELF Header"), as far as the firmware reads it: the machine and the entry point. The
//! host loads such a file.
//!
//! Left out: program headers, sections, and the entry point of 32-bit files. The firmware's own file is a 64-bit one.

use crate::addr::PhysAddr;

/// The first bytes.
pub const MAGIC: &[u8] = b"\x7fELF";
/// `e_ident[EI_CLASS]`: 64 bits.
const CLASS: usize = 4;
const CLASS_64: u8 = 2;
/// `e_machine`, 16 bits.
const MACHINE: usize = 18;
/// `e_entry`, 64 bits in a 64-bit file.
const ENTRY: usize = 24;
/// The machines of the kernels that hosts load: `EM_386` and `EM_X86_64`.
const X86: [u16; 2] = [3, 62];
/// The number of bytes that [`entry`] reads.
pub const BYTES: usize = ENTRY + 8;

/// The machine that the file is for, if it is an ELF file.
pub fn machine(start: &[u8]) -> Option<u16> {
    let machine = start.strip_prefix(MAGIC).and(start.get(MACHINE..))?.first_chunk();
    machine.copied().map(u16::from_le_bytes)
}

/// Whether hosts load kernels for this machine.
pub fn is_x86(machine: u16) -> bool {
    X86.contains(&machine)
}

/// The entry point of a 64-bit file for x86.
pub fn entry(start: &[u8; BYTES]) -> Option<PhysAddr> {
    let is_wide = machine(start).is_some_and(is_x86) && start.get(CLASS) == Some(&CLASS_64);
    let entry = start.last_chunk().filter(|_| is_wide)?;
    Some(PhysAddr::new(u64::from_le_bytes(*entry)))
}
