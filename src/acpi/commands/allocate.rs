//! Command 1: loads a file.

use alloc::vec::Vec;

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, transmute_ref};

use super::super::error::{Cause, Error};
use super::super::host::{Host, Zone};
use super::ARGUMENTS_LEN;
use crate::addr::{Alignment, PhysRange};

/// The length of a file name with its NUL (QEMU's `FW_CFG_MAX_FILE_PATH`).
pub(super) const NAME_LEN: usize = 56;

/// `alloc` of `BiosLinkerLoaderEntry`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Arguments {
    file: [u8; NAME_LEN],
    alignment: U32,
    zone: u8,
    unused: [u8; 63],
}

/// Load a file into memory of its own. No command touches memory other than that of the files.
#[derive(Debug)]
pub(in crate::acpi) struct Allocate<'s> {
    /// The file's name in fw_cfg.
    pub(in crate::acpi) name: &'s [u8],
    /// The name field as it is in the script.
    pub(in crate::acpi) field: &'s [u8; NAME_LEN],
    /// Its length in bytes.
    pub(in crate::acpi) len: u32,
    /// The zone of memory for the file.
    pub(in crate::acpi) zone: Zone,
    alignment: Alignment,
}

impl<'s> Allocate<'s> {
    /// Checks the arguments. The alignment is at least 16 bytes: the RSDP needs that, and not every host asks for it
    /// (Cloud Hypervisor asks for 4).
    pub(in crate::acpi) fn parse(
        arguments: &'s [u8; ARGUMENTS_LEN],
        len_of: impl Fn(&[u8]) -> Option<u32>,
    ) -> Result<Self, Cause> {
        let arguments: &Arguments = transmute_ref!(arguments);
        let name = name(&arguments.file)?;
        let alignment = arguments.alignment.get();
        Ok(Self {
            name,
            field: &arguments.file,
            len: len_of(name).ok_or(Cause::Absent)?,
            zone: match arguments.zone {
                1 => Zone::High,
                2 => Zone::FSegment,
                unknown => return Err(Cause::Zone(unknown)),
            },
            alignment: Alignment::new(alignment.max(1).into())
                .ok_or(Cause::Alignment(alignment))?
                .max(Alignment::PARAGRAPH),
        })
    }

    /// Allocates memory for the file and returns its range.
    pub(in crate::acpi) fn allocate<H: Host>(&self, host: &mut H) -> Result<PhysRange, Error<H::Error>> {
        let no_room = Error::NoRoom { len: self.len, zone: self.zone };
        host.allocate(self.len.into(), self.alignment, self.zone).ok_or(no_room)
    }

    /// Loads the file to its range.
    pub(in crate::acpi) fn load<H: Host>(&self, host: &mut H, place: PhysRange) -> Result<(), Error<H::Error>> {
        host.load(self.name, place).map_err(Error::Host)
    }
}

/// The files that a script allocates.
#[derive(Debug, Default)]
pub(in crate::acpi) struct Files<'s> {
    /// The files to load. None is empty.
    pub(in crate::acpi) loaded: Vec<Allocate<'s>>,
    /// The names of empty files. Commands that refer to them do nothing.
    pub(in crate::acpi) empty: Vec<&'s [u8]>,
}

/// The index of a file to load. Only [`Files::find`] makes one.
#[derive(Clone, Copy, Debug)]
pub(in crate::acpi) struct FileIndex(u16);

impl FileIndex {
    /// The range of this file. `places` has one for each file to load. Returns an empty range if the list has no entry.
    pub(super) fn of(self, places: &[PhysRange]) -> PhysRange {
        places.get(usize::from(self.0)).copied().unwrap_or_default()
    }
}

impl Files<'_> {
    /// The allocated file with this name field, and its length in bytes. `None` if the file is empty.
    ///
    /// # Errors
    /// [`Cause::Name`], [`Cause::NotAllocated`].
    pub(in crate::acpi) fn find(&self, field: &[u8; NAME_LEN]) -> Result<Option<(FileIndex, u32)>, Cause> {
        // Usually the field equals that of the command that allocated the file, including the padding.
        // The first bytes tell most names apart without a call.
        let start = field.first_chunk::<16>();
        for (file, index) in self.loaded.iter().zip(0..u16::MAX) {
            if file.field.first_chunk() == start && file.field == field {
                return Ok(Some((FileIndex(index), file.len)));
            }
        }
        let name = name(field)?;
        for (file, index) in self.loaded.iter().zip(0..u16::MAX) {
            if file.name == name {
                return Ok(Some((FileIndex(index), file.len)));
            }
        }
        if self.empty.contains(&name) { Ok(None) } else { Err(Cause::NotAllocated) }
    }
}

/// The file name up to its NUL. It need not be text, only the name of one of the host's files.
pub(super) fn name(field: &[u8; NAME_LEN]) -> Result<&[u8], Cause> {
    let len = field.iter().position(|&byte| byte == 0).filter(|&len| len != 0);
    len.and_then(|len| field.get(..len)).ok_or(Cause::Name)
}
