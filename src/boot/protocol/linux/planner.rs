//! Decides where everything goes. It changes nothing but the memory map.
//!
//! A part that does not fit below 4 GiB goes above, if the kernel allows it. Such a part has to be mapped, so the plan
//! reserves room for page tables.

use super::low;
use super::plan::{BOOT_PARAMS_LEN, LoadPlan, parts_above_4_gib};
use super::run_range::{place_kernel, spaces_above};
use super::setup_data::Appended;
use super::setup_header::SetupHeader;
use crate::addr::{PhysAddr, PhysRange};
use crate::boot::error::Error;
use crate::boot::extras::Needs;
use crate::boot::handover::Entry;
use crate::boot::room::{allocate_command_line, allocate_low, place_initrd};
use crate::hal::paging;
use crate::memory_map::MemoryMap;

/// Finds a place for everything and reserves it in `map` as `LOADER_DATA`, which is RAM to the kernel. `host_address`
/// is the kernel's address for which the host has computed the pointers in the header, if it provides one.
///
/// # Errors
/// [`Error::RealModeOnly`], [`Error::EntryMoved`], [`Error::FileTruncated`], [`Error::CommandLineTooLong`],
/// [`Error::NoLowMemory`], [`Error::CommandLineDoesNotFit`], [`Error::KernelDoesNotFit`], [`Error::KernelOutOfReach`],
/// [`Error::InitrdDoesNotFit`]; for a kernel in low memory [`Error::ZImageTooLong`], [`Error::NoPcMemory`]. Then the
/// parts that did fit stay reserved in `map`.
#[inline]
pub fn plan(
    header: &SetupHeader,
    needs: &Needs,
    host_address: Option<PhysAddr>,
    map: &mut MemoryMap,
) -> Result<LoadPlan, Error> {
    let entry_offset = header.entry_offset(needs.kernel)?;
    // The header counts in units of 16 bytes.
    if needs.kernel.saturating_add(15) < header.kernel_len() {
        let seen = needs.kernel.saturating_add(header.setup_len().into());
        return Err(Error::FileTruncated { seen, needed: header.file_len() });
    }
    check_command_line(header, needs)?;
    if low::is_for(header) {
        return low::plan(header, needs, entry_offset, map);
    }
    let boot_params = allocate_low(map, BOOT_PARAMS_LEN)?;
    let command_line = allocate_command_line(map, needs.command_line)?;
    let kernel = place_kernel(header, needs.kernel, map)?;
    let initrd = match (needs.initrd, needs.initrd_at) {
        (0, _) => None,
        (_, Some(place)) if header.may_be_above_4_gib() || header.initrd_space().contains(place) => Some(place),
        (len, _) => Some(place_any_initrd(header, len, map)?),
    };
    let appended =
        if header.setup_data() == 0 { None } else { Appended::plan(header, needs.kernel, host_address, map) };
    let page_tables = place_page_tables(kernel.run, initrd, map)?;
    // The address of a byte of the file.
    let entry = PhysAddr::new(kernel.file.start().get().saturating_add(entry_offset));
    let entry = if header.is_64_bit() { Entry::Linux64(entry) } else { Entry::Linux32(entry) };
    Ok(LoadPlan {
        setup_len: header.setup_len(),
        kernel: kernel.file,
        kernel_run: kernel.run,
        kernel_alignment: kernel.alignment,
        initrd,
        command_line,
        boot_params,
        page_tables,
        appended,
        entry,
    })
}

/// Room for the page tables of parts above 4 GiB.
fn place_page_tables(
    kernel: PhysRange,
    initrd: Option<PhysRange>,
    map: &mut MemoryMap,
) -> Result<Option<PhysRange>, Error> {
    match parts_above_4_gib(kernel, initrd).map(paging::room_for).fold(0, u64::saturating_add) {
        0 => Ok(None),
        len => allocate_low(map, len).map(Some),
    }
}

/// Below 4 GiB if possible, else above if the kernel allows it.
fn place_any_initrd(header: &SetupHeader, len: u64, map: &mut MemoryMap) -> Result<PhysRange, Error> {
    let mut result = place_initrd(header.initrd_space(), len, map);
    for &space in spaces_above(header) {
        let Err(Error::InitrdDoesNotFit { free: other, .. }) = result else { break };
        result = place_initrd(space, len, map).map_err(|error| match error {
            // The kernel sets no limit; only the room is too small.
            Error::InitrdDoesNotFit { size, free, .. } => {
                Error::InitrdDoesNotFit { size, limit: None, free: free.max(other) }
            }
            error => error,
        });
    }
    result
}

fn check_command_line(header: &SetupHeader, needs: &Needs) -> Result<(), Error> {
    // The host counts the NUL.
    let len = needs.command_line.saturating_sub(1);
    let limit = header.command_line_limit();
    if len > limit { Err(Error::CommandLineTooLong { len, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
