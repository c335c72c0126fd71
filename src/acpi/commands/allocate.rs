//! Command 1: load a file.

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, transmute_ref};

use super::super::error::{Cause, Error};
use super::super::host::{Host, Zone};
use super::super::plan::{ARGUMENTS_LEN, NAME_LEN, name};
use crate::addr::{Alignment, PhysRange};

/// `alloc` of `BiosLinkerLoaderEntry`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Arguments {
    file: [u8; NAME_LEN],
    alignment: U32,
    zone: u8,
    unused: [u8; 63],
}

/// Load a file into memory of its own. No other command touches any other memory.
#[derive(Debug)]
pub(in crate::acpi) struct Allocate<'s> {
    /// The file's name in fw_cfg.
    pub(in crate::acpi) name: &'s [u8],
    /// The same as it stands in the script.
    pub(in crate::acpi) field: &'s [u8; NAME_LEN],
    /// Its length in bytes.
    pub(in crate::acpi) len: u32,
    /// Where it belongs.
    pub(in crate::acpi) zone: Zone,
    alignment: Alignment,
}

impl<'s> Allocate<'s> {
    /// Checks the arguments. The alignment is at least 16 bytes, because the RSDP needs that and not every host asks
    /// for it (Cloud Hypervisor asks for 4).
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

    /// Allocates memory for the file and gives its place.
    pub(in crate::acpi) fn allocate<H: Host>(&self, host: &mut H) -> Result<PhysRange, Error<H::Error>> {
        let no_room = Error::NoRoom { len: self.len, zone: self.zone };
        host.allocate(self.len.into(), self.alignment, self.zone).ok_or(no_room)
    }

    /// Loads the file to its place.
    pub(in crate::acpi) fn load<H: Host>(&self, host: &mut H, place: PhysRange) -> Result<(), Error<H::Error>> {
        host.load(self.name, place).map_err(Error::Host)
    }
}
