//! The commands of a script, one per file. Each checks its arguments once, and can then be run.

mod add_checksum;
mod add_pointer;
mod allocate;
mod write_pointer;

pub(super) use add_checksum::AddChecksum;
pub(super) use add_pointer::AddPointer;
pub(super) use allocate::{Allocate, Files};
pub(super) use write_pointer::WritePointer;

use super::error::{Cause, Error, ScriptError};
use super::host::Host;
use crate::addr::{PhysAddr, PhysRange};

/// The length of a command (`BiosLinkerLoaderEntry` in QEMU's `hw/acpi/bios-linker-loader.c`).
pub(super) const COMMAND_LEN: usize = 128;
/// The length of a command's arguments, which follow its number.
pub(super) const ARGUMENTS_LEN: usize = COMMAND_LEN - size_of::<u32>();

/// A command that changes loaded files, and its number in the script.
#[derive(Debug)]
pub(super) enum Link {
    /// Relocate a pointer.
    AddPointer(AddPointer, u16),
    /// Compute a checksum.
    AddChecksum(AddChecksum, u16),
}

impl Link {
    /// Runs the command on files that are loaded at `places`.
    pub(super) fn run<H: Host>(&self, host: &mut H, places: &[PhysRange]) -> Result<(), Error<H::Error>> {
        match self {
            Self::AddPointer(command, number) => command.run(host, places, *number),
            Self::AddChecksum(command, number) => command.run(host, places, *number),
        }
    }
}

/// The size of a pointer in bytes.
#[derive(Clone, Copy, Debug)]
enum PointerSize {
    One = 1,
    Two = 2,
    Four = 4,
    Eight = 8,
}

impl PointerSize {
    fn new(bytes: u8) -> Result<Self, Cause> {
        match bytes {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            4 => Ok(Self::Four),
            8 => Ok(Self::Eight),
            _ => Err(Cause::PointerSize(bytes)),
        }
    }

    const fn bytes(self) -> u32 {
        self as u32
    }

    /// The bytes of the pointer, which are the first of those of a 64-bit pointer.
    fn of(self, bytes: &mut [u8; 8]) -> &mut [u8] {
        bytes.get_mut(..self as usize).unwrap_or_default()
    }

    /// Whether `address` fits.
    const fn holds(self, address: PhysAddr) -> bool {
        let most = match self {
            Self::One => u8::MAX as u64,
            Self::Two => u16::MAX as u64,
            Self::Four => u32::MAX as u64,
            Self::Eight => u64::MAX,
        };
        address.get() <= most
    }
}

/// The `len` bytes of a loaded file from `offset` on.
fn range_in(place: PhysRange, offset: u64, len: u64, number: u16) -> Result<PhysRange, ScriptError> {
    let range = place.start().checked_add(offset).and_then(|start| PhysRange::new(start, len));
    range.filter(|&range| place.contains(range)).ok_or(bad(number, Cause::PastEnd))
}

/// Checks that the `len` bytes from `offset` on are inside a file.
fn check_inside(offset: u32, len: u32, file_len: u32) -> Result<(), Cause> {
    match offset.checked_add(len) {
        Some(end) if end <= file_len => Ok(()),
        _ => Err(Cause::PastEnd),
    }
}

fn bad(number: u16, cause: Cause) -> ScriptError {
    ScriptError::Command { number, cause }
}
