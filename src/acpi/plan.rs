//! A script, understood: which files to place, and what to do to them in what order.

use alloc::vec::Vec;

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, transmute_ref};

use super::commands::{AddChecksum, AddPointer, Allocate, Link, WritePointer};
use super::error::{Cause, ScriptError};
use crate::addr::PhysRange;
use crate::heap;

/// The length of a command (`BiosLinkerLoaderEntry` in QEMU's `hw/acpi/bios-linker-loader.c`).
const COMMAND_LEN: usize = 128;
/// The length of a file name with the zero byte that ends it (QEMU's `FW_CFG_MAX_FILE_PATH`).
pub(super) const NAME_LEN: usize = 56;
/// The length of what follows a command's number.
pub(super) const ARGUMENTS_LEN: usize = COMMAND_LEN - size_of::<u32>();

/// How many times the bytes of all files may be summed. A host asks for each table's sum once, and for the RSDP's twice.
const MOST_SUMS: u64 = 4;

/// A command: its number (`BIOS_LINKER_LOADER_COMMAND_*`), and arguments whose layout depends on it.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Command {
    number: U32,
    arguments: [u8; ARGUMENTS_LEN],
}

/// Which of a plan's files: an index that only [`Plan::file`] makes.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileIndex(u16);

impl FileIndex {
    /// Where this file is, by a list with a place for each file of the plan. From a list without one it is a range that
    /// nothing lies in.
    pub(super) fn of(self, places: &[PhysRange]) -> PhysRange {
        places.get(usize::from(self.0)).copied().unwrap_or_default()
    }
}

/// A script whose commands are known to make sense: every file they name exists, is allocated once and before it is
/// used, and every offset lies inside its file. `'s` is the script, which the file names are borrowed from.
///
/// What only the contents of the files can tell, whether a pointer in them is sound, is checked as it is relocated.
#[derive(Debug)]
pub struct Plan<'s> {
    /// The files to load, none of them empty.
    pub(super) files: Vec<Allocate<'s>>,
    /// What to do to the loaded files, in this order.
    pub(super) links: Vec<Link>,
    /// Which addresses to tell the host. They depend on no file's contents, so they can come last.
    pub(super) write_pointers: Vec<WritePointer<'s>>,
    /// Names of empty files. Commands that refer to them do nothing.
    empty: Vec<&'s [u8]>,
    /// The length of all files, in bytes.
    loaded: u64,
    /// How many bytes are summed up, each as often as it is.
    summed: u64,
}

impl<'s> Plan<'s> {
    /// The most bytes a script may have: QEMU never makes one larger (`ACPI_BUILD_LOADER_MAX_SIZE`).
    pub const MAX_SCRIPT: usize = 64 << 10;

    /// Understands a script. `len_of` gives the length of a host's file in bytes, or `None` when there is no such file.
    ///
    /// Commands with unknown numbers do nothing; number 0 is the padding at the end of a script.
    ///
    /// # Errors
    /// [`ScriptError`]: the first command that makes no sense, or all checksums together.
    pub fn parse(script: &'s [u8], len_of: impl Fn(&[u8]) -> Option<u32>) -> Result<Self, ScriptError> {
        let (commands, rest) = script.as_chunks::<COMMAND_LEN>();
        if !rest.is_empty() || script.len() > Self::MAX_SCRIPT {
            return Err(ScriptError::Length(script.len()));
        }
        // Most commands of a script change files; room for all of them is taken at once.
        let links = heap::with_capacity(commands.len()).map_err(|_| ScriptError::HeapFull)?;
        let (files, write_pointers, empty) = (Vec::new(), Vec::new(), Vec::new());
        let mut plan = Self { files, links, write_pointers, empty, loaded: 0, summed: 0 };
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
                if self.file(file.field).is_ok() {
                    return Err(bad(Cause::AllocatedTwice));
                }
                self.loaded = self.loaded.saturating_add(file.len.into());
                if file.len == 0 { push(&mut self.empty, file.name) } else { push(&mut self.files, file) }
            }
            2 => match AddPointer::parse(arguments, self).map_err(bad)? {
                Some(link) => push(&mut self.links, Link::AddPointer(link, number)),
                None => Ok(()),
            },
            3 => match AddChecksum::parse(arguments, self).map_err(bad)? {
                Some(link) => {
                    self.summed = self.summed.saturating_add(link.len.into());
                    push(&mut self.links, Link::AddChecksum(link, number))
                }
                None => Ok(()),
            },
            4 => match WritePointer::parse(arguments, number, self, len_of).map_err(bad)? {
                Some(pointer) => push(&mut self.write_pointers, pointer),
                None => Ok(()),
            },
            unknown => {
                log::debug!("acpi: command {number} of the script is of the unknown kind {unknown}");
                Ok(())
            }
        }
    }

    /// The allocated file that a name field means, with its length in bytes, or `None` when the file is empty.
    ///
    /// # Errors
    /// [`Cause::Name`], [`Cause::NotAllocated`].
    pub(super) fn file(&self, field: &[u8; NAME_LEN]) -> Result<Option<(FileIndex, u32)>, Cause> {
        // Nearly all fields are equal to the one that allocated the file, in their padding too.
        for (file, index) in self.files.iter().zip(0..u16::MAX) {
            if file.field == field {
                return Ok(Some((FileIndex(index), file.len)));
            }
        }
        let name = name(field)?;
        for (file, index) in self.files.iter().zip(0..u16::MAX) {
            if file.name == name {
                return Ok(Some((FileIndex(index), file.len)));
            }
        }
        if self.empty.contains(&name) { Ok(None) } else { Err(Cause::NotAllocated) }
    }
}

fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), ScriptError> {
    heap::push(list, item).map_err(|_| ScriptError::HeapFull)
}

/// A file name, ended by a zero byte. It need not be text: what counts is that the host has a file of that name.
pub(super) fn name(field: &[u8; NAME_LEN]) -> Result<&[u8], Cause> {
    let len = field.iter().position(|&byte| byte == 0).filter(|&len| len != 0);
    len.and_then(|len| field.get(..len)).ok_or(Cause::Name)
}
