//! A parsed script: which files to load, and how to change them, in order.

use alloc::vec::Vec;

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, transmute_ref};

use super::commands::{ARGUMENTS_LEN, AddChecksum, AddPointer, Allocate, COMMAND_LEN, Files, Link, WritePointer};
use super::error::{Cause, ScriptError};
use crate::heap;

/// The sums may cover all bytes of all files this many times. Hosts request each table's sum once, and the RSDP's
/// twice.
const MOST_SUMS: u64 = 4;

/// A command: its number (`BIOS_LINKER_LOADER_COMMAND_*`), and arguments whose layout depends on the number.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Command {
    number: U32,
    arguments: [u8; ARGUMENTS_LEN],
}

/// A script whose commands are valid: every file that they name exists and is allocated once, before it is used, and
/// every offset is inside its file. `'s` is the lifetime of the script, from which file names are borrowed.
///
/// Whether a pointer in a file is valid depends on the file's contents. It is checked when the pointer is relocated.
#[derive(Debug)]
pub struct Plan<'s> {
    /// The files to load.
    pub(super) files: Files<'s>,
    /// The changes to the loaded files, in this order.
    pub(super) links: Vec<Link>,
    /// The addresses to write to the host. They do not depend on any file's contents, so they come last.
    pub(super) write_pointers: Vec<WritePointer<'s>>,
    /// The length of all files, in bytes.
    loaded: u64,
    /// The bytes that are summed. Bytes that are summed twice count twice.
    summed: u64,
}

impl<'s> Plan<'s> {
    /// The longest valid script in bytes. QEMU never makes a longer one (`ACPI_BUILD_LOADER_MAX_SIZE`).
    pub const MAX_SCRIPT: usize = 64 << 10;

    /// Parses a script. `len_of` returns the length of a host's file in bytes, or `None` if there is no such file.
    ///
    /// Commands with unknown numbers do nothing. Number 0 is padding at the end of a script.
    ///
    /// # Errors
    /// [`ScriptError`]: the first invalid command, or too many bytes to sum.
    pub fn parse(script: &'s [u8], len_of: impl Fn(&[u8]) -> Option<u32>) -> Result<Self, ScriptError> {
        let (commands, rest) = script.as_chunks::<COMMAND_LEN>();
        if !rest.is_empty() || script.len() > Self::MAX_SCRIPT {
            return Err(ScriptError::Length(script.len()));
        }
        // Most commands of a script change files, so room for all is taken at once.
        let links = heap::with_capacity(commands.len()).map_err(|_| ScriptError::HeapFull)?;
        let (files, write_pointers) = (Files::default(), Vec::new());
        let mut plan = Self { files, links, write_pointers, loaded: 0, summed: 0 };
        for (command, number) in commands.iter().zip(0..u16::MAX) {
            plan.add(transmute_ref!(command), number, &len_of)?;
        }
        let Self { loaded, summed, .. } = plan;
        if summed > loaded.saturating_mul(MOST_SUMS) { Err(ScriptError::Sums { loaded, summed }) } else { Ok(plan) }
    }

    fn add(
        &mut self,
        command: &'s Command,
        number: u16,
        len_of: &impl Fn(&[u8]) -> Option<u32>,
    ) -> Result<(), ScriptError> {
        let bad = |cause| ScriptError::Command { number, cause };
        let arguments = &command.arguments;
        match command.number.get() {
            0 => Ok(()),
            1 => {
                let file = Allocate::parse(arguments, len_of).map_err(bad)?;
                if self.files.find(file.field).is_ok() {
                    return Err(bad(Cause::AllocatedTwice));
                }
                self.loaded = self.loaded.saturating_add(file.len.into());
                let Files { loaded, empty } = &mut self.files;
                if file.len == 0 { push(empty, file.name) } else { push(loaded, file) }
            }
            2 => match AddPointer::parse(arguments, &self.files).map_err(bad)? {
                Some(link) => push(&mut self.links, Link::AddPointer(link, number)),
                None => Ok(()),
            },
            3 => match AddChecksum::parse(arguments, &self.files).map_err(bad)? {
                Some(link) => {
                    self.summed = self.summed.saturating_add(link.len.into());
                    push(&mut self.links, Link::AddChecksum(link, number))
                }
                None => Ok(()),
            },
            4 => match WritePointer::parse(arguments, number, &self.files, len_of).map_err(bad)? {
                Some(pointer) => push(&mut self.write_pointers, pointer),
                None => Ok(()),
            },
            unknown => {
                crate::debug!("acpi: command {number} of the script is of the unknown kind {unknown}");
                Ok(())
            }
        }
    }
}

fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), ScriptError> {
    heap::push(list, item).map_err(|_| ScriptError::HeapFull)
}
