//! `EFI_MEMORY_ATTRIBUTE_PROTOCOL` (UEFI 37.8): access to memory, by pages.
//!
//! Memory that images allocate can be written and executed until one of them changes this. The protocol is there only on a
//! CPU with NX, since no other can forbid execution.
//!
//! Left out: `EFI_MEMORY_RP`. Memory that cannot be read cannot be told from memory that is not there.

use uefi_raw::table::boot::MemoryAttribute;
use uefi_raw::{Guid, Status, guid};

use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::hal::paging::Access;

/// The protocol.
pub const MEMORY_ATTRIBUTE: Guid = guid!("f4560cf6-40ec-4b4a-a192-bf1d57d0b189");

/// The attributes that a call may name.
const ALL: MemoryAttribute =
    MemoryAttribute::READ_PROTECT.union(MemoryAttribute::EXECUTE_PROTECT).union(MemoryAttribute::READ_ONLY);

/// Which way a call changes attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// `SetMemoryAttributes`.
    Set,
    /// `ClearMemoryAttributes`.
    Clear,
}

/// The pages that a call names.
///
/// # Errors
/// `INVALID_PARAMETER` for no bytes, `UNSUPPORTED` for a part of a page and for addresses that wrap.
pub fn pages(base: u64, len: u64) -> Result<PhysRange, Status> {
    if len == 0 {
        return Err(Status::INVALID_PARAMETER);
    }
    let range = PhysRange::new(PhysAddr::new(base), len);
    let is_whole =
        |range: &PhysRange| range.start().is_aligned(Alignment::PAGE) && range.end().is_aligned(Alignment::PAGE);
    range.filter(is_whole).ok_or(Status::UNSUPPORTED)
}

/// The attributes that a call changes.
///
/// # Errors
/// `INVALID_PARAMETER` for none and for others than the protocol has, `UNSUPPORTED` to set `EFI_MEMORY_RP`.
pub fn attributes(bits: u64, change: Change) -> Result<MemoryAttribute, Status> {
    let attributes = MemoryAttribute::from_bits_retain(bits);
    if attributes.is_empty() || !ALL.contains(attributes) {
        return Err(Status::INVALID_PARAMETER);
    }
    if change == Change::Set && attributes.contains(MemoryAttribute::READ_PROTECT) {
        return Err(Status::UNSUPPORTED);
    }
    Ok(attributes)
}

/// The attributes of memory with this access.
#[must_use]
pub const fn of(access: Access) -> MemoryAttribute {
    match access {
        Access::Any => MemoryAttribute::empty(),
        Access::Code => MemoryAttribute::READ_ONLY,
        Access::Data => MemoryAttribute::EXECUTE_PROTECT,
        Access::Constants => MemoryAttribute::READ_ONLY.union(MemoryAttribute::EXECUTE_PROTECT),
    }
}

/// The access to memory after `change`, if it has been `access`.
#[must_use]
pub fn changed(access: Access, attributes: MemoryAttribute, change: Change) -> Access {
    let new = match change {
        Change::Set => of(access) | attributes,
        Change::Clear => of(access).difference(attributes),
    };
    match (new.contains(MemoryAttribute::READ_ONLY), new.contains(MemoryAttribute::EXECUTE_PROTECT)) {
        (false, false) => Access::Any,
        (true, false) => Access::Code,
        (false, true) => Access::Data,
        (true, true) => Access::Constants,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ_ONLY: u64 = MemoryAttribute::READ_ONLY.bits();
    const NO_EXECUTE: u64 = MemoryAttribute::EXECUTE_PROTECT.bits();
    const READ_PROTECT: u64 = MemoryAttribute::READ_PROTECT.bits();

    #[test]
    fn pages_are_whole_and_at_least_one() {
        assert_eq!(pages(0x1000, 0x2000).unwrap().len(), 0x2000);
        assert_eq!(pages(0x1000, 0), Err(Status::INVALID_PARAMETER));
        for (base, len) in [(0x1001, 0x1000), (0x1000, 0x1001), (0x1000, 1), (u64::MAX - 0xfff, 0x2000)] {
            assert_eq!(pages(base, len), Err(Status::UNSUPPORTED), "{base:#x} {len:#x}");
        }
    }

    #[test]
    fn memory_cannot_become_unreadable_and_other_attributes_are_invalid() {
        for change in [Change::Set, Change::Clear] {
            for bits in [0, 1, MemoryAttribute::RUNTIME.bits(), READ_ONLY | MemoryAttribute::WRITE_PROTECT.bits()] {
                assert_eq!(attributes(bits, change), Err(Status::INVALID_PARAMETER), "{bits:#x}");
            }
            assert_eq!(attributes(READ_ONLY | NO_EXECUTE, change).unwrap().bits(), READ_ONLY | NO_EXECUTE);
        }
        assert_eq!(attributes(READ_PROTECT | READ_ONLY, Change::Set), Err(Status::UNSUPPORTED));
        assert!(attributes(READ_PROTECT, Change::Clear).is_ok());
    }

    #[test]
    fn each_attribute_changes_by_itself() {
        let all = [Access::Any, Access::Code, Access::Data, Access::Constants];
        for access in all {
            for bits in [READ_ONLY, NO_EXECUTE, READ_ONLY | NO_EXECUTE, READ_PROTECT] {
                let attributes = MemoryAttribute::from_bits_retain(bits);
                let now = of(changed(access, attributes, Change::Clear)).bits();
                assert_eq!(now, of(access).bits() & !bits);
                if bits != READ_PROTECT {
                    assert_eq!(of(changed(access, attributes, Change::Set)).bits(), of(access).bits() | bits);
                }
            }
        }
    }
}
