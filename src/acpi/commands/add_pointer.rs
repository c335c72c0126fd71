//! Command 2: relocates a pointer.

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, transmute_ref};

use super::super::error::{Cause, Error};
use super::super::host::Host;
use super::allocate::{FileIndex, Files, NAME_LEN};
use super::{ARGUMENTS_LEN, PointerSize, bad, check_inside, range_in};
use crate::addr::PhysRange;

/// `pointer` of `BiosLinkerLoaderEntry`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Arguments {
    dest: [u8; NAME_LEN],
    source: [u8; NAME_LEN],
    offset: U32,
    size: u8,
    unused: [u8; 7],
}

/// Turn an offset into the file `source`, stored little-endian in the file `dest`, into an address.
#[derive(Debug)]
pub(in crate::acpi) struct AddPointer {
    dest: FileIndex,
    source: FileIndex,
    /// The offset of the pointer in `dest`.
    offset: u32,
    size: PointerSize,
}

impl AddPointer {
    /// Checks the arguments. Returns `None` if one of the files is empty.
    pub(in crate::acpi) fn parse(arguments: &[u8; ARGUMENTS_LEN], files: &Files<'_>) -> Result<Option<Self>, Cause> {
        let arguments: &Arguments = transmute_ref!(arguments);
        let dest = files.find(&arguments.dest)?;
        let source = files.find(&arguments.source)?;
        let (Some((dest, dest_len)), Some((source, _))) = (dest, source) else { return Ok(None) };
        let size = PointerSize::new(arguments.size)?;
        let offset = arguments.offset.get();
        check_inside(offset, size.bytes(), dest_len)?;
        Ok(Some(Self { dest, source, offset, size }))
    }

    /// Relocates the pointer.
    ///
    /// An offset past the end of `source` is an error: through it, the operating system would read, or the host write,
    /// memory that belongs to something else.
    pub(in crate::acpi) fn run<H: Host>(
        &self,
        host: &mut H,
        places: &[PhysRange],
        number: u16,
    ) -> Result<(), Error<H::Error>> {
        let field = range_in(self.dest.of(places), self.offset.into(), self.size.bytes().into(), number)?.start();
        let mut bytes = [0; 8];
        host.read(field, self.size.of(&mut bytes)).map_err(Error::Host)?;

        let offset = u64::from_le_bytes(bytes);
        let source = self.source.of(places);
        let address = source.start().checked_add(offset).filter(|&address| source.contains_addr(address));
        let address = address.ok_or(bad(number, Cause::PointerPastEnd(offset)))?;
        if !self.size.holds(address) {
            return Err(bad(number, Cause::PointerTooLarge(address.get())).into());
        }
        let mut bytes = address.get().to_le_bytes();
        host.write(field, self.size.of(&mut bytes)).map_err(Error::Host)
    }
}
