//! The image of the runtime services: where its parts are, and how it is put into memory.
//!
//! The image is made by the build (`src/firmware/runtime`, whose `header.s` says what it begins with). It is one run of pages:
//! code and constants, then what is written. It is one descriptor of the memory map, because an operating system may move two
//! descriptors to addresses that do not belong together. The table of memory attributes says which of its pages are written.

use uefi_raw::table::boot::{MemoryAttribute, MemoryDescriptor, MemoryType};
use zerocopy::little_endian::U32;
use zerocopy::{Immutable, IntoBytes};

use super::super::configuration::Table;
use super::super::memory;
use super::{FUNCTIONS, Shared, State};
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::hal::{Memory, MemoryError};
use crate::memory_map::{MemoryMap, Placement};

/// What the image begins with.
const MAGIC: &[u8] = b"FLRT";
/// The bytes of it and of the numbers after it, of 32 bits each.
const HEADER_LEN: u32 = (4 + 4 * (3 + FUNCTIONS)) as u32;

/// Why there are no runtime services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The firmware was built without the image, or with a broken one.
    #[error("this image of the firmware has no EFI runtime services: build it by cargo xtask image")]
    Image,
    /// There is no room below 4 GiB for so many bytes.
    #[error("no {} KiB below 4 GiB are free for the EFI runtime services: give the guest more memory", .0 >> 10)]
    Room(u64),
    /// Memory that the map calls free may not be accessed.
    #[error("the EFI runtime services cannot be put into memory that is free: {0}; give the guest more memory")]
    Memory(#[from] MemoryError),
}

/// An image whose numbers are in order.
#[derive(Clone, Copy, Debug)]
pub struct RuntimeImage<'a> {
    /// Code and constants, and what else is in the file.
    contents: &'a [u8],
    /// Where the shared structure goes.
    shared: u32,
    /// Where the code ends.
    data: u32,
    /// The length in memory.
    len: u32,
    functions: [u32; FUNCTIONS],
}

impl<'a> RuntimeImage<'a> {
    /// The image in `contents`.
    ///
    /// # Errors
    /// [`Error::Image`].
    pub fn parse(contents: &'a [u8]) -> Result<Self, Error> {
        let rest = contents.strip_prefix(MAGIC).ok_or(Error::Image)?;
        let (numbers, _) = rest.as_chunks::<4>();
        let mut numbers = numbers.iter().map(|number| u32::from_le_bytes(*number));
        let mut next = || numbers.next().ok_or(Error::Image);
        let [shared, data, len] = [next()?, next()?, next()?];
        let mut functions = [0; FUNCTIONS];
        for function in &mut functions {
            *function = next()?;
        }
        let shared_end = shared.checked_add(size_of::<Shared>() as u32).ok_or(Error::Image)?;
        let is_page = |at: u32| PhysAddr::new(at.into()).is_aligned(Alignment::PAGE);
        let in_order = is_page(data)
            && is_page(len)
            && data <= shared
            && shared_end <= len
            && shared.is_multiple_of(8)
            && contents.len() <= len as usize
            && functions.iter().all(|function| (HEADER_LEN..data).contains(function));
        if in_order { Ok(Self { contents, shared, data, len, functions }) } else { Err(Error::Image) }
    }

    /// Puts the services into memory, with these configuration tables. Returns where they are.
    ///
    /// # Errors
    /// [`Error::Room`], [`Error::Memory`].
    pub fn place(
        &self,
        memory: &mut impl Memory,
        map: &mut MemoryMap,
        state: State,
        tables: &[Table],
    ) -> Result<Placed, Error> {
        let len = u64::from(self.len);
        let kind = MemoryType::RUNTIME_SERVICES_CODE;
        let place = map.allocate(len, Alignment::PAGE, PhysRange::LOW_4_GIB, Placement::Top, kind);
        let place = place.ok_or(Error::Room(len))?;
        let at = |offset: u32| PhysAddr::new(place.start().get().saturating_add(offset.into()));
        let mut shared = Shared { state, ..Shared::EMPTY };
        shared.place(at(self.shared).get(), self.functions.map(|function| at(function).get()), tables);
        memory.fill(place, 0)?;
        memory.write(place.start(), self.contents)?;
        memory.write(at(self.shared), shared.as_bytes())?;
        let (code, data) = place.split_at(self.data.into());
        Ok(Placed { code, data, system_table: at(self.shared) })
    }
}

/// Where runtime services are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What is executed and read, in whole pages.
    pub code: PhysRange,
    /// What is read and written, in whole pages, behind it.
    pub data: PhysRange,
    /// The system table.
    pub system_table: PhysAddr,
}

/// The length of [`Placed::attributes_table`].
pub const ATTRIBUTES_TABLE_LEN: usize = size_of::<AttributesTable>();

/// That table: version, number and length of the descriptors, and flags; then the descriptors.
#[derive(Immutable, IntoBytes)]
#[repr(C)]
struct AttributesTable {
    header: [U32; 4],
    descriptors: [[u8; memory::DESCRIPTOR_LEN]; 2],
}

impl Placed {
    /// `EFI_MEMORY_ATTRIBUTES_TABLE` (UEFI 4.6.4): the code is not written, and the rest is not executed.
    #[must_use]
    pub fn attributes_table(&self) -> [u8; ATTRIBUTES_TABLE_LEN] {
        let descriptor = |range: PhysRange, att| MemoryDescriptor {
            // That of the descriptor in the memory map: Linux refuses another.
            ty: MemoryType::RUNTIME_SERVICES_CODE,
            padding: 0,
            phys_start: range.start().get(),
            virt_start: 0,
            page_count: range.len() >> memory::PAGE_SHIFT,
            att: MemoryAttribute::RUNTIME | att,
        };
        let descriptors = [
            descriptor(self.code, MemoryAttribute::READ_ONLY),
            descriptor(self.data, MemoryAttribute::EXECUTE_PROTECT),
        ];
        let header = [1, descriptors.len() as u32, memory::DESCRIPTOR_LEN as u32, 0].map(U32::new);
        zerocopy::transmute!(AttributesTable {
            header,
            descriptors: descriptors.each_ref().map(memory::descriptor_bytes)
        })
    }
}
