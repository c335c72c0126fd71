//! Command 4: writes an address to the host.

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, transmute_ref};

use super::super::error::{Cause, Error};
use super::super::host::Host;
use super::allocate::{FileIndex, Files, NAME_LEN, name};
use super::{ARGUMENTS_LEN, PointerSize, bad, check_inside, range_in};
use crate::addr::PhysRange;

/// `wr_pointer` of `BiosLinkerLoaderEntry`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Arguments {
    dest: [u8; NAME_LEN],
    source: [u8; NAME_LEN],
    dest_offset: U32,
    source_offset: U32,
    size: u8,
    unused: [u8; 3],
}

/// Write the address of a byte of the loaded file `source`, little-endian, into one of the host's files.
#[derive(Debug)]
pub(in crate::acpi) struct WritePointer<'s> {
    /// The name in fw_cfg of the file to write. It is not a loaded file.
    pub(in crate::acpi) dest: &'s [u8],
    source: FileIndex,
    /// The offset in `dest`.
    dest_offset: u32,
    /// The offset of the byte in `source`.
    source_offset: u32,
    size: PointerSize,
    /// The number of the command in the script.
    number: u16,
}

impl<'s> WritePointer<'s> {
    /// Checks the arguments. Returns `None` if one of the files is empty.
    pub(in crate::acpi) fn parse(
        arguments: &'s [u8; ARGUMENTS_LEN],
        number: u16,
        files: &Files<'_>,
        len_of: impl Fn(&[u8]) -> Option<u32>,
    ) -> Result<Option<Self>, Cause> {
        let arguments: &Arguments = transmute_ref!(arguments);
        let dest = name(&arguments.dest)?;
        let dest_len = len_of(dest).ok_or(Cause::Absent)?;
        let source = files.find(&arguments.source)?;
        let (Some((source, source_len)), 1..) = (source, dest_len) else { return Ok(None) };
        let command = Self {
            dest,
            source,
            dest_offset: arguments.dest_offset.get(),
            source_offset: arguments.source_offset.get(),
            size: PointerSize::new(arguments.size)?,
            number,
        };
        check_inside(command.dest_offset, command.size.bytes(), dest_len)?;
        check_inside(command.source_offset, 1, source_len)?;
        Ok(Some(command))
    }

    /// Writes the address to the host.
    pub(in crate::acpi) fn run<H: Host>(&self, host: &mut H, places: &[PhysRange]) -> Result<(), Error<H::Error>> {
        let address = range_in(self.source.of(places), self.source_offset.into(), 1, self.number)?.start();
        if !self.size.holds(address) {
            return Err(bad(self.number, Cause::PointerTooLarge(address.get())).into());
        }
        let mut bytes = address.get().to_le_bytes();
        host.write_file(self.dest, self.dest_offset, self.size.of(&mut bytes)).map_err(Error::Host)
    }
}
