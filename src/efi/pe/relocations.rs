//! Base relocations: the addresses inside an image (PE, "The .reloc Section").

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::headers::{RELOCATION_ABSOLUTE, RELOCATION_DIR64, RelocationBlock};
use super::{Error, Image, Span};
use crate::addr::{PhysAddr, PhysRange};
use crate::hal::Memory;

/// How many bytes of a block are read at a time.
const PIECE: usize = 512;

/// Adapts `image` to the address `start`, where its contents are in place.
///
/// An image without relocations stays unchanged. It runs at any address, unless its relocations were stripped.
///
/// # Errors
/// [`Error::NotAtBase`], [`Error::Relocations`], [`Error::RelocationType`], [`Error::Memory`]. The image may then be partly
/// changed.
pub fn relocate(memory: &mut impl Memory, image: &Image, start: PhysAddr) -> Result<(), Error> {
    let difference = start.get().wrapping_sub(image.base);
    if difference == 0 {
        return Ok(());
    }
    if image.is_fixed {
        return Err(Error::NotAtBase(image.base));
    }
    let mut place = Place { memory, start, len: image.len, difference };
    let mut left = image.relocations;
    while !left.is_empty() {
        let broken = Error::Relocations { at: left.start };
        let mut block = RelocationBlock::new_zeroed();
        let entries = Span::new(left.start, size_of::<RelocationBlock>() as u32).ok_or(broken)?.end;
        place.read(left.start, block.as_mut_bytes(), broken)?;
        // The rest of the directory is padding.
        if block.len.get() == 0 {
            break;
        }
        let block_end = Span::new(left.start, block.len.get()).ok_or(broken)?.end;
        if block_end < entries || block_end > left.end {
            return Err(broken);
        }
        place.relocate_page(block.page.get(), Span { start: entries, end: block_end })?;
        left.start = block_end;
    }
    Ok(())
}

/// An image in memory.
struct Place<'a, M> {
    memory: &'a mut M,
    start: PhysAddr,
    len: u32,
    /// Added to each address in it, wrapping.
    difference: u64,
}

impl<M: Memory> Place<'_, M> {
    /// Applies the entries of one block, for the page at `page`.
    fn relocate_page(&mut self, page: u32, mut entries: Span) -> Result<(), Error> {
        while entries.len() >= size_of::<U16>() as u32 {
            let mut piece = [0; PIECE];
            let len = (entries.len() as usize).min(PIECE) & !1;
            let bytes = piece.get_mut(..len).unwrap_or_default();
            self.read(entries.start, bytes, Error::Relocations { at: entries.start })?;
            for entry in <[U16]>::ref_from_bytes(bytes).unwrap_or_default() {
                let (kind, offset) = (entry.get() >> 12, entry.get() & 0xfff);
                match kind {
                    RELOCATION_ABSOLUTE => {}
                    RELOCATION_DIR64 => self.relocate_address(page.checked_add(offset.into()), page)?,
                    other => return Err(Error::RelocationType(other)),
                }
            }
            entries.start = entries.start.saturating_add(len as u32);
        }
        Ok(())
    }

    fn relocate_address(&mut self, at: Option<u32>, page: u32) -> Result<(), Error> {
        let broken = Error::Relocations { at: page };
        let at = at.ok_or(broken)?;
        let mut address = [0; size_of::<u64>()];
        let place = self.read(at, &mut address, broken)?;
        let address = u64::from_le_bytes(address).wrapping_add(self.difference);
        Ok(self.memory.write(place.start(), &address.to_le_bytes())?)
    }

    /// Reads bytes of the image from `at` on, and returns where they are in memory.
    fn read(&mut self, at: u32, into: &mut [u8], outside: Error) -> Result<PhysRange, Error> {
        let len = into.len() as u64;
        let end = u64::from(at).saturating_add(len);
        let place = self.start.checked_add(at.into()).and_then(|start| PhysRange::new(start, len));
        let place = place.filter(|_| end <= self.len.into()).ok_or(outside)?;
        self.memory.read(place.start(), into)?;
        Ok(place)
    }
}
