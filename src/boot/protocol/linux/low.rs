//! Kernels that use a PC's low memory: zImages, and bzImages before protocol 2.02.
//!
//! Such a kernel reads its parameters at 0x90000, whatever register points to them (boot.rst, "Memory Layout"). A
//! zImage runs below them, where its own setup code would move it. The firmware itself is in this memory. So the
//! firmware prepares everything elsewhere, as one block that is an image of low memory. The last jump moves the block
//! to its place, when nothing of the firmware is needed any more.
//!
//! What a wake from suspend needs is kept: its record is above the block, and the wake initializes its memory again.

use uefi_raw::table::boot::MemoryType;

use super::plan::{BOOT_PARAMS_LEN, LoadPlan};
use super::run_range::{does_not_fit, place_kernel};
use super::setup_header::{DEFAULT_ADDRESS, SetupHeader};
use crate::addr::{Alignment, PhysAddr, PhysRange, constant_range as range};
use crate::boot::error::Error;
use crate::boot::extras::Needs;
use crate::boot::handover::{Entry, LowBlock};
use crate::boot::room::place_initrd;
use crate::layout;
use crate::memory_map::{MemoryMap, Placement};

/// Where the parameters are (boot.rst, "Memory Layout").
const PARAMETERS: PhysAddr = PhysAddr::new(0x9_0000);
/// The offset of the command line from there. The command line ends, rounded up to a page, at 0x9a000 at the latest
/// (boot.rst, "Memory Layout of The Real-Mode Code").
pub const COMMAND_LINE_OFFSET: u16 = 0x1000;
const COMMAND_LINES: PhysRange = range(PARAMETERS.get() + COMMAND_LINE_OFFSET as u64, 0x9_a000);
/// A zImage ends below this. It has at most 508 KiB (Linux 2.6.29 `arch/x86/boot/tools/build.c`, `DEF_SYSSIZE`). The 64
/// KiB above it are for its variables and its heap, which reaches up to the parameters.
const ZIMAGE_END: u64 = 0x8_0000;

/// Whether a kernel with this header needs such a block.
pub fn is_for(header: &SetupHeader) -> bool {
    !header.is_loaded_high() || !header.has_cmd_line_ptr()
}

/// Reserves memory for a block from `place` to the end of a command line of `command_line` bytes.
fn allocate(place: PhysAddr, command_line: u64, map: &mut MemoryMap) -> Result<LowBlock, Error> {
    let whole = command_line
        .checked_next_multiple_of(Alignment::PAGE.bytes())
        .and_then(|len| PhysRange::new(COMMAND_LINES.start(), len))
        .filter(|&pages| COMMAND_LINES.contains(pages))
        .and_then(|pages| PhysRange::from_bounds(place, pages.end()))
        .ok_or(Error::CommandLineDoesNotFit { needed: command_line })?;
    // The rest of the block's place is the firmware's memory, which is RAM.
    let below = PhysRange::from_bounds(place, layout::BOOT_RAM.start()).unwrap_or_default();
    if !map.is_free(below) {
        return Err(Error::NoPcMemory { needed: whole });
    }
    let above = layout::EXTENDED;
    let staged = map
        .allocate(whole.len(), Alignment::PAGE, above, Placement::Top, MemoryType::LOADER_DATA)
        .ok_or_else(|| Error::KernelDoesNotFit { needed: whole.len(), at: above.start(), ram: map.ram_bytes() })?;
    Ok(LowBlock { staged, place })
}

/// Finds a place for everything, as [`super::plan()`] does. `entry_offset` is the offset of the entry point in the
/// kernel.
///
/// # Errors
/// [`Error::ZImageTooLong`], [`Error::NoPcMemory`]; else as [`super::plan()`].
pub fn plan(header: &SetupHeader, needs: &Needs, entry_offset: u64, map: &mut MemoryMap) -> Result<LoadPlan, Error> {
    // The host counts a NUL, and the firmware adds one more.
    let command_line_len = needs.command_line.saturating_add(1);
    let (file, kernel_run, place) = if header.is_loaded_high() {
        let kernel = place_kernel(header, needs.kernel, map)?;
        (Some(kernel.file), kernel.run, PARAMETERS)
    } else {
        (None, reserve_for_unpacking(header, needs.kernel, map)?, header.default_address())
    };
    let initrd = if needs.initrd == 0 { None } else { Some(place_initrd(header.initrd_space(), needs.initrd, map)?) };
    let block = allocate(place, command_line_len, map)?;
    let no_room = Error::CommandLineDoesNotFit { needed: command_line_len };
    let kernel = match file {
        Some(file) => file,
        None => block.staged_for(place, needs.kernel).ok_or(no_room)?,
    };
    if header.setup_data() != 0 {
        crate::warn!("setup_data is left out: a zImage would overwrite it");
    }
    let entry = block.at_entry(kernel.start());
    Ok(LoadPlan {
        setup_len: header.setup_len(),
        kernel,
        kernel_run,
        kernel_alignment: None,
        initrd,
        command_line: block.staged_for(COMMAND_LINES.start(), command_line_len).ok_or(no_room)?,
        boot_params: block.staged_for(PARAMETERS, BOOT_PARAMS_LEN).ok_or(no_room)?,
        // Such a kernel is below 4 GiB, and so is its initrd.
        page_tables: None,
        appended: None,
        entry: Entry::LinuxLow { at: PhysAddr::new(entry.get().saturating_add(entry_offset)), block },
    })
}

/// Reserves the memory from 1 MiB on, to which a zImage unpacks itself.
fn reserve_for_unpacking(header: &SetupHeader, kernel_len: u64, map: &mut MemoryMap) -> Result<PhysRange, Error> {
    let limit = ZIMAGE_END.saturating_sub(header.default_address().get());
    if kernel_len > limit {
        return Err(Error::ZImageTooLong { len: kernel_len, limit });
    }
    let needed = header.run_len(kernel_len);
    let end = header.preferred_address().max(DEFAULT_ADDRESS).checked_add(needed);
    let run = end
        .and_then(|end| PhysRange::from_bounds(DEFAULT_ADDRESS, end))
        .filter(|&run| PhysRange::LOW_4_GIB.contains(run) && map.is_free(run))
        .ok_or_else(|| does_not_fit(header, kernel_len, map))?;
    map.reserve(run, MemoryType::LOADER_DATA)?;
    Ok(run)
}

const _: () = assert!(COMMAND_LINES.end().get() <= layout::STARTUP_PAGE.start().get());
const _: () = assert!(layout::BOOT_RAM.start().get() <= PARAMETERS.get());

#[cfg(test)]
mod tests;
