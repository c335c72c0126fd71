//! Command 3: computes a checksum.

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, transmute_ref};

use super::super::error::{Cause, Error};
use super::super::host::Host;
use super::allocate::{FileIndex, Files, NAME_LEN};
use super::{ARGUMENTS_LEN, check_inside, range_in};
use crate::acpi::sum;
use crate::addr::PhysRange;

/// `cksum` of `BiosLinkerLoaderEntry`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Arguments {
    file: [u8; NAME_LEN],
    offset: U32,
    start: U32,
    len: U32,
    unused: [u8; 56],
}

/// Change one byte of a file so that the bytes of a range add up to zero.
#[derive(Debug)]
pub(in crate::acpi) struct AddChecksum {
    file: FileIndex,
    /// The offset of the byte in the file.
    offset: u32,
    /// The start of the range in the file.
    start: u32,
    /// The length of the range. One of Cloud Hypervisor's commands has a length of 0 and a checksum that is already
    /// right.
    pub(in crate::acpi) len: u32,
}

impl AddChecksum {
    /// Checks the arguments. Returns `None` if the file is empty.
    pub(in crate::acpi) fn parse(arguments: &[u8; ARGUMENTS_LEN], files: &Files<'_>) -> Result<Option<Self>, Cause> {
        let arguments: &Arguments = transmute_ref!(arguments);
        let Some((file, file_len)) = files.find(&arguments.file)? else { return Ok(None) };
        let command =
            Self { file, offset: arguments.offset.get(), start: arguments.start.get(), len: arguments.len.get() };
        check_inside(command.offset, 1, file_len)?;
        check_inside(command.start, command.len, file_len)?;
        Ok(Some(command))
    }

    /// Sets the checksum. The sum is subtracted from the byte, which need not be zero before.
    pub(in crate::acpi) fn run<H: Host>(
        &self,
        host: &mut H,
        places: &[PhysRange],
        number: u16,
    ) -> Result<(), Error<H::Error>> {
        let place = self.file.of(places);
        let field = range_in(place, self.offset.into(), 1, number)?.start();
        let sum = sum(host, range_in(place, self.start.into(), self.len.into(), number)?)?;
        let mut byte = [0];
        host.read(field, &mut byte).map_err(Error::Host)?;
        host.write(field, &byte.map(|byte: u8| byte.wrapping_sub(sum))).map_err(Error::Host)
    }
}
