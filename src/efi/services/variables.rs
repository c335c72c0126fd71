//! Variables, by the functions of the runtime services table: the firmware is one of their callers, like an image.
//!
//! A program can have put its own functions into the table. What they return is not trusted.

use alloc::vec::Vec;

use uefi_raw::table::boot::MemoryType;
use uefi_raw::table::runtime::VariableAttributes;
use uefi_raw::{Guid, Status};
use zerocopy::{FromZeros, IntoBytes};

use super::load::Caller;
use super::pointers::Pointers;
use super::{Services, no_room};
use crate::addr::PhysAddr;
use crate::efi::runtime::{RuntimeServices, SystemTable};
use crate::hal::Memory;
use crate::heap;

/// The functions in the table (UEFI 4.5).
const GET_VARIABLE: usize = 6;
const SET_VARIABLE: usize = 8;

/// The most bytes of a variable that are read.
const MOST_BYTES: u64 = 4096;
/// What the pool for a call has before the data: a GUID, a length, and a name with its NUL.
const LEN_AT: u64 = 16;
const NAME_AT: u64 = 24;
const MOST_NAME: usize = 32;
const DATA_AT: u64 = NAME_AT + 2 * MOST_NAME as u64;

/// The data of a variable.
///
/// # Errors
/// Those of `GetVariable`; `BUFFER_TOO_SMALL` for more data than the boot manager needs; `OUT_OF_RESOURCES`.
pub fn variable(caller: &mut impl Caller, name: &str, vendor: Guid) -> Result<Vec<u8>, Status> {
    with_pool(caller, name, vendor, &[], |caller, at, function| {
        caller.with(|machine, _| machine.set_number(at.saturating_add(LEN_AT), MOST_BYTES))?;
        let (name, len, data) = (at.saturating_add(NAME_AT), at.saturating_add(LEN_AT), at.saturating_add(DATA_AT));
        match caller.call(function(GET_VARIABLE), [name, at, 0, len, data]) {
            Status::SUCCESS => {}
            status => return Err(status),
        }
        caller.with(|machine, _| {
            let len = machine.number(len)?.min(MOST_BYTES);
            let mut bytes = u8::new_vec_zeroed(len as usize).map_err(no_room)?;
            machine.read(PhysAddr::new(data), &mut bytes).map_err(no_room)?;
            Ok(bytes)
        })
    })
}

/// Sets a variable, or deletes it if there is no data.
///
/// # Errors
/// Those of `SetVariable`; `OUT_OF_RESOURCES`.
pub fn set_variable(
    caller: &mut impl Caller,
    name: &str,
    vendor: Guid,
    attributes: VariableAttributes,
    data: &[u8],
) -> Result<(), Status> {
    with_pool(caller, name, vendor, data, |caller, at, function| {
        let (name, bytes) = (at.saturating_add(NAME_AT), at.saturating_add(DATA_AT));
        let attributes = attributes.bits().into();
        match caller.call(function(SET_VARIABLE), [name, at, attributes, data.len() as u64, bytes]) {
            Status::SUCCESS => Ok(()),
            status => Err(status),
        }
    })
}

/// Does something with a pool that has the vendor, the name and `data`, and with the functions of the table.
fn with_pool<C: Caller, R>(
    caller: &mut C,
    name: &str,
    vendor: Guid,
    data: &[u8],
    work: impl FnOnce(&mut C, u64, &dyn Fn(usize) -> u64) -> Result<R, Status>,
) -> Result<R, Status> {
    let mut bytes = Vec::new();
    let mut units = [0; 2 * MOST_NAME];
    let (places, _) = units.as_chunks_mut::<2>();
    places
        .iter_mut()
        .zip(name.encode_utf16().take(MOST_NAME - 1))
        .for_each(|(place, unit)| *place = unit.to_le_bytes());
    for part in [&vendor.to_bytes()[..], &[0; 8], &units, data] {
        heap::extend(&mut bytes, part).map_err(no_room)?;
    }
    let (pool, functions) = caller.with(|machine, services| {
        let mut system = SystemTable::new_zeroed();
        machine.read(services.system_table(), system.as_mut_bytes()).map_err(no_room)?;
        let mut runtime = RuntimeServices::new_zeroed();
        let at = PhysAddr::new(system.runtime_services);
        machine.read(at, runtime.as_mut_bytes()).map_err(no_room)?;
        let len = DATA_AT.saturating_add(MOST_BYTES);
        let pool = services.memory.allocate_pool(MemoryType::BOOT_SERVICES_DATA, len)?;
        machine.write(pool, &bytes).map_err(no_room)?;
        Ok((pool.get(), runtime.functions))
    })?;
    let result = work(caller, pool, &|index| functions.get(index).copied().unwrap_or_default());
    // It is the firmware's, so it can be freed.
    let _ = caller.with(|machine, services: &mut Services| services.free_pool(machine, pool));
    result
}
