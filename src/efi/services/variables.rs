//! Variables, by the functions of the runtime services table: the firmware is one of their callers, like an image.
//!
//! A program can have put its own functions into the table. What they return is not trusted.

use alloc::vec::Vec;

use uefi_raw::table::boot::MemoryType;
use uefi_raw::table::runtime::VariableAttributes;
use uefi_raw::{Guid, Status};
use zerocopy::FromZeros;

use super::load::Caller;
use super::no_room;
use super::pointers::Pointers;
use crate::addr::PhysAddr;
use crate::efi::runtime::{RuntimeServices, SystemTable};
use crate::hal::Memory;

/// The functions in the table (UEFI 4.5).
const GET_VARIABLE: u64 = 6;
const SET_VARIABLE: u64 = 8;

/// The most bytes of a variable that are read.
const MOST_BYTES: u64 = 4096;
/// What the pool for a call has before the data: a GUID, a length, and a name with its NUL.
const LEN_AT: u64 = 16;
const NAME_AT: u64 = 24;
const MOST_NAME: usize = 32;
const DATA_AT: u64 = NAME_AT + 2 * MOST_NAME as u64;

/// A call.
enum Call<'a> {
    Get,
    Set(VariableAttributes, &'a [u8]),
}

/// The data of a variable.
///
/// # Errors
/// Those of `GetVariable`; `BUFFER_TOO_SMALL` for more data than the boot manager needs; `OUT_OF_RESOURCES`.
pub fn variable(caller: &mut impl Caller, name: &str, vendor: Guid) -> Result<Vec<u8>, Status> {
    call(caller, name, vendor, &Call::Get)
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
    call(caller, name, vendor, &Call::Set(attributes, data)).map(|_| ())
}

/// Calls a function. Returns the data, if it is asked for.
#[inline(never)]
fn call(caller: &mut impl Caller, name: &str, vendor: Guid, call: &Call<'_>) -> Result<Vec<u8>, Status> {
    let mut units = [[0; 2]; MOST_NAME];
    units.iter_mut().zip(name.bytes().take(MOST_NAME - 1)).for_each(|(unit, byte)| *unit = [byte, 0]);
    let (index, third, data) = match *call {
        Call::Get => (GET_VARIABLE, 0, &[][..]),
        Call::Set(attributes, data) => (SET_VARIABLE, attributes.bits().into(), data),
    };
    let (pool, function) = caller.with(|machine, services| {
        let system = services.system_table().get();
        let table = machine.number(system.saturating_add(RUNTIME_SERVICES))?;
        let function = machine.number(table.saturating_add(FUNCTIONS).saturating_add(index.saturating_mul(8)))?;
        let len = DATA_AT.saturating_add(MOST_BYTES.max(data.len() as u64));
        let pool = services.memory.allocate_pool(MemoryType::BOOT_SERVICES_DATA, len)?.get();
        let parts = [
            (0, &vendor.to_bytes()[..]),
            (LEN_AT, &MOST_BYTES.to_le_bytes()),
            (NAME_AT, units.as_flattened()),
            (DATA_AT, data),
        ];
        for (offset, part) in parts {
            machine.put(pool.saturating_add(offset), part)?;
        }
        Ok((pool, function))
    })?;
    let [len_at, name_at, data_at] = [LEN_AT, NAME_AT, DATA_AT].map(|offset| pool.saturating_add(offset));
    let fourth = if data.is_empty() && index == GET_VARIABLE { len_at } else { data.len() as u64 };
    let status = caller.call(function, [name_at, pool, third, fourth, data_at]);
    caller.with(|machine, services| {
        let len = if index == GET_VARIABLE { machine.number(len_at)?.min(MOST_BYTES) } else { 0 };
        let mut bytes = u8::new_vec_zeroed(len as usize).map_err(no_room)?;
        machine.read(PhysAddr::new(data_at), &mut bytes).map_err(no_room)?;
        // It is the firmware's, so it can be freed.
        let _ = services.free_pool(machine, pool);
        if status == Status::SUCCESS { Ok(bytes) } else { Err(status) }
    })
}

/// Where the address of the table is in the system table, and the first function in that.
const RUNTIME_SERVICES: u64 = core::mem::offset_of!(SystemTable, runtime_services) as u64;
const FUNCTIONS: u64 = core::mem::offset_of!(RuntimeServices, functions) as u64;
