//! Access to memory as functions that images call: `EFI_MEMORY_ATTRIBUTE_PROTOCOL`.

use uefi_raw::Status;

use firstlight::efi::protocols::memory_attribute::Change;
use firstlight::efi::services::Pointers;

use super::calls::call;
use super::state::Running;

/// The functions, in the order of the protocol (UEFI 37.8).
pub fn interface() -> [u64; 3] {
    [get_attributes as *const () as u64, set_attributes as *const () as u64, clear_attributes as *const () as u64]
}

extern "efiapi" fn get_attributes(_this: u64, base: u64, len: u64, at: u64) -> Status {
    call(|Running { machine, services, .. }| {
        machine.check_number(at)?;
        let attributes = services.attributes(machine, base, len)?;
        machine.set_number(at, attributes.bits())
    })
}

fn change(base: u64, len: u64, bits: u64, change: Change) -> Status {
    call(|Running { machine, services, .. }| services.change_attributes(machine, base, len, bits, change))
}

extern "efiapi" fn set_attributes(_this: u64, base: u64, len: u64, bits: u64) -> Status {
    change(base, len, bits, Change::Set)
}

extern "efiapi" fn clear_attributes(_this: u64, base: u64, len: u64, bits: u64) -> Status {
    change(base, len, bits, Change::Clear)
}
