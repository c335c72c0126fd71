//! Programs for UEFI: PE32+ images for x86-64 (UEFI 2.1.1).
//!
//! [`Image::parse`] checks the headers once, and the rest needs no more checks. [`Image::contents`] says where each byte of the
//! file goes, and [`Image::zeros`] what to clear. [`relocate`] adapts the image to its address. [`Image::protection`] says how to
//! map its pages. [`hashed`] says what a digest of the file covers. The pages of an image in memory have its headers and the contents
//! of its sections, and zeros beside them. If sections overlap, the later one in the table wins. Other pages between
//! sections are left as they are, as by EDK II: a unified kernel image may have 50 MiB of them.
//!
//! Assumed: the memory for an image has [`Image::len`] bytes and begins at a page.
//!
//! Left out: certificates (they follow the last section), symbols, debug data and resources.

mod error;
mod hashed;
mod headers;
mod relocations;
#[cfg(test)]
pub(crate) mod tests;

use arrayvec::ArrayVec;

pub use self::error::Error;
pub use self::hashed::{MOST_HASHED, hashed};
use self::headers::{
    EXECUTABLE, Headers, NX_COMPATIBLE, RELOCATION_DIRECTORY, RELOCATIONS_STRIPPED, SectionHeader, WRITABLE,
};
pub use self::relocations::relocate;
use crate::addr::Alignment;
use crate::hal::paging::Access;
use crate::heap;

/// The limit for sections, which is that of Windows (PE, "COFF File Header").
pub const MOST_SECTIONS: usize = 96;
/// The limit for the headers, in bytes: room for the largest section table, and 3 KiB before it.
pub const MOST_HEADERS: usize = 0x2000;

/// The kind of a program, which decides the type of its memory (UEFI 7.4, `EFI_BOOT_SERVICES.LoadImage`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subsystem {
    /// Runs and returns.
    Application,
    /// Stays until the end of boot services.
    BootDriver,
    /// Stays for the operating system.
    RuntimeDriver,
}

/// A part of the file and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Bytes from the start of the file.
    pub offset: u32,
    /// Bytes from the start of the image.
    pub address: u32,
    /// The length in bytes.
    pub len: u32,
}

impl Contents {
    /// Where it ends in the image.
    const fn end(self) -> u32 {
        self.address.saturating_add(self.len)
    }
}

/// Bytes of an image, from `start` to `end` exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first, from the start of the image.
    pub start: u32,
    /// One past the last.
    pub end: u32,
}

impl Span {
    const fn new(start: u32, len: u32) -> Option<Self> {
        match start.checked_add(len) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// Whether there is no byte in it.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// The length in bytes.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.end.saturating_sub(self.start)
    }

    const fn contains(self, at: u32) -> bool {
        self.start <= at && at < self.end
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Section {
    /// Its place in the image, without the rest of its last page.
    span: Span,
    /// The offset of its contents in the file.
    offset: u32,
    /// How many bytes of it are in the file.
    file_len: u32,
    access: Access,
}

/// An image with valid headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    len: u32,
    headers_len: u32,
    entry: u32,
    base: u64,
    subsystem: Subsystem,
    alignment: u32,
    is_fixed: bool,
    is_nx_compatible: bool,
    version: u16,
    sections: ArrayVec<Section, MOST_SECTIONS>,
    relocations: Span,
}

impl Image {
    /// Checks the headers of a file of `file_len` bytes. `start` has its first [`MOST_HEADERS`] bytes, or all of a shorter file.
    ///
    /// # Errors
    /// Every [`Error`] except those of [`relocate`].
    pub fn parse(start: &[u8], file_len: u64) -> Result<Self, Error> {
        let found = Headers::find(start, file_len)?;
        let optional = found.optional;
        let subsystem = match optional.subsystem.get() {
            headers::SUBSYSTEM_APPLICATION => Subsystem::Application,
            headers::SUBSYSTEM_BOOT_DRIVER => Subsystem::BootDriver,
            headers::SUBSYSTEM_RUNTIME_DRIVER => Subsystem::RuntimeDriver,
            other => return Err(Error::Subsystem(other)),
        };
        let alignment = optional.section_alignment.get();
        for alignment in [alignment, optional.file_alignment.get()] {
            if !alignment.is_power_of_two() {
                return Err(Error::Alignment(alignment));
            }
        }
        let headers_len = optional.headers_len.get();
        let (headers, len) = (Span { start: 0, end: headers_len }, optional.image_len.get());
        if u64::from(headers_len) > file_len {
            return Err(Error::HeadersTruncated { file: file_len });
        }
        if found.end > headers_len as usize || headers_len > len {
            return Err(Error::HeadersLength(headers_len));
        }

        let mut sections = ArrayVec::new();
        for (index, header) in found.sections.iter().enumerate() {
            // There is room for all.
            let section = Section::parse(index as u16, header, headers, len, file_len)?;
            let _ = sections.try_push(section);
        }
        let entry = optional.entry_point.get();
        let is_nx_compatible = optional.dll_characteristics.get() & NX_COMPATIBLE != 0;
        let can_be_entered = |section: &Section| {
            section.span.contains(entry) && (!is_nx_compatible || matches!(section.access, Access::Code | Access::Any))
        };
        if !sections.iter().any(can_be_entered) {
            return Err(Error::EntryOutside(entry));
        }
        let relocations = found.directory(RELOCATION_DIRECTORY).unwrap_or_default();
        // Elsewhere nothing is loaded.
        let is_loaded = |span: &Span| {
            let mut places =
                sections.iter().map(|section: &Section| (section.span.start, up_to_page(section.span.end)));
            span.end <= len && places.any(|(start, end)| start <= span.start && u64::from(span.end) <= end)
        };
        let relocations = match relocations {
            (_, 0) => Span::default(),
            (address, size) => Span::new(address, size).filter(is_loaded).ok_or(Error::Relocations { at: address })?,
        };
        let [version, _] = optional.image_version;
        Ok(Self {
            len,
            headers_len,
            entry,
            base: optional.image_base.get(),
            subsystem,
            alignment,
            is_fixed: found.coff.characteristics.get() & RELOCATIONS_STRIPPED != 0,
            is_nx_compatible,
            version: version.get(),
            sections,
            relocations,
        })
    }

    /// How many bytes of memory it needs.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "no image is empty")]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Its kind.
    #[must_use]
    pub const fn subsystem(&self) -> Subsystem {
        self.subsystem
    }

    /// The entry point, in bytes from the start of the image; it is in a section.
    #[must_use]
    pub const fn entry(&self) -> u32 {
        self.entry
    }

    /// The address for which it is linked, which may be zero, and whether it can run only there.
    #[must_use]
    pub const fn base(&self) -> (u64, bool) {
        (self.base, self.is_fixed)
    }

    /// The major version of the program. A Linux kernel with 1 or above loads its initrd by a protocol (Linux
    /// `drivers/firmware/efi/libstub/efistub.h`, `LINUX_EFISTUB_MAJOR_VERSION`).
    #[must_use]
    pub const fn version(&self) -> u16 {
        self.version
    }

    /// Which bytes of the file go where. Copy them in this order: a later piece may overwrite an earlier one. No piece is empty.
    ///
    /// If file and memory have the same layout, there is one piece, which includes the bytes between the sections.
    pub fn contents(&self) -> impl Iterator<Item = Contents> + '_ {
        let whole = self.is_laid_out_as_file().then(|| Contents { offset: 0, address: 0, len: self.file_end() });
        let pieces = self.pieces().filter(move |_| whole.is_none());
        whole.into_iter().chain(pieces)
    }

    /// What to clear, by ascending address: of the pages of the headers and the sections, everything except their contents. No
    /// span is empty. Clear them after [`Self::contents`] are in place.
    pub fn zeros(&self) -> impl Iterator<Item = Span> + '_ {
        let pages = || self.parts().map(|(span, _)| self.pages(span));
        let pieces = || self.pieces().map(|piece| Span { start: piece.address, end: piece.end() });
        let next = move |from: u32| {
            let mut start = from;
            // This ends, because each step goes to the end of another piece, or to the start of another part.
            loop {
                let has = |span: &Span| span.start <= start && start < span.end;
                if let Some(piece) = pieces().find(has) {
                    start = piece.end;
                } else if let Some(part) = pages().find(has) {
                    let next_piece = pieces().map(|piece| piece.start).filter(|&at| at > start).min();
                    return Some(Span { start, end: next_piece.unwrap_or(part.end).min(part.end) });
                } else {
                    start = pages().map(|part| part.start).filter(|&at| at > start).min()?;
                }
            }
        };
        core::iter::successors(next(0), move |gap| next(gap.end))
    }

    /// The permitted access to the pages of the headers, of each section and between them, by ascending address and without a gap.
    /// `None` if the image is not marked as compatible with NX, if a section is both writable and executable, or if sections share
    /// a page.
    #[must_use]
    pub fn protection(&self) -> Option<impl Iterator<Item = (Span, Access)> + '_> {
        let page_end = |span: Span| up_to_page(span.end);
        let share =
            |one: Span, other: Span| u64::from(one.start) < page_end(other) && u64::from(other.start) < page_end(one);
        let is_alone = |(span, access): (Span, Access)| {
            let sharing = self.parts().filter(|&(other, _)| share(span, other));
            let is_page = u64::from(span.start).is_multiple_of(Alignment::PAGE.bytes());
            access != Access::Any && is_page && heap::count(sharing) == 1
        };
        let is_fit = self.is_nx_compatible && u64::from(self.alignment) >= Alignment::PAGE.bytes();
        let following = |at: u32| self.parts().filter(|(span, _)| span.start >= at).min_by_key(|(span, _)| span.start);
        // A part with its last page, or what is between two.
        let next = move |at: u32| {
            let (span, access) = following(at).unwrap_or((Span { start: self.len, end: self.len }, Access::Data));
            let between = Span { start: at, end: span.start };
            let part = if between.is_empty() { (self.pages(span), access) } else { (between, Access::Data) };
            (at < self.len).then_some(part)
        };
        let whole = core::iter::successors(next(0), move |(span, _)| next(span.end));
        (is_fit && self.parts().all(is_alone)).then_some(whole)
    }

    /// The headers and each section that is not empty, with the access to it.
    fn parts(&self) -> impl Iterator<Item = (Span, Access)> + '_ {
        let headers = (Span { start: 0, end: self.headers_len }, Access::Constants);
        let sections = self.sections.iter().map(|section| (section.span, section.access));
        core::iter::once(headers).chain(sections).filter(|(span, _)| !span.is_empty())
    }

    /// The pages of a span, as far as they are in the image.
    fn pages(&self, Span { start, end }: Span) -> Span {
        const WITHIN: u32 = (Alignment::PAGE.bytes() - 1) as u32;
        Span { start: start & !WITHIN, end: u32::try_from(up_to_page(end)).unwrap_or(u32::MAX).min(self.len) }
    }

    /// The headers and the contents of each section.
    fn pieces(&self) -> impl Iterator<Item = Contents> + '_ {
        let headers = Contents { offset: 0, address: 0, len: self.headers_len };
        let sections = self.sections.iter().map(|section| Contents {
            offset: section.offset,
            address: section.span.start,
            len: section.file_len,
        });
        core::iter::once(headers).chain(sections).filter(|piece| piece.len > 0)
    }

    /// Whether each piece has the same offset in the file and in memory.
    fn is_laid_out_as_file(&self) -> bool {
        self.pieces().all(|piece| piece.offset == piece.address)
    }

    /// Where the last piece ends in memory.
    fn file_end(&self) -> u32 {
        self.pieces().map(Contents::end).max().unwrap_or(0)
    }
}

/// The first multiple of a page from `end` on.
pub fn up_to_page(end: u32) -> u64 {
    u64::from(end).checked_next_multiple_of(Alignment::PAGE.bytes()).unwrap_or(u64::MAX)
}

impl Section {
    fn parse(index: u16, header: &SectionHeader, headers: Span, image_len: u32, file_len: u64) -> Result<Self, Error> {
        let raw_len = header.raw_len.get();
        // Old linkers write zero.
        let len = match header.virtual_len.get() {
            0 => raw_len,
            len => len,
        };
        let start = header.virtual_address.get();
        let end = u64::from(start).saturating_add(len.into());
        let outside = Error::SectionOutside { section: index, start, end, headers: headers.end, image: image_len };
        let span = Span::new(start, len).ok_or(outside)?;
        if !span.is_empty() && (span.end > image_len || span.start < headers.end) {
            return Err(outside);
        }
        // The rest in the file is padding up to the file's alignment.
        let file_len_of_it = raw_len.min(len);
        let end = u64::from(header.raw_offset.get()).saturating_add(file_len_of_it.into());
        if file_len_of_it > 0 && end > file_len {
            return Err(Error::SectionTruncated { section: index, end, file: file_len });
        }
        let characteristics = header.characteristics.get();
        let access = match (characteristics & WRITABLE != 0, characteristics & EXECUTABLE != 0) {
            (false, false) => Access::Constants,
            (false, true) => Access::Code,
            (true, false) => Access::Data,
            (true, true) => Access::Any,
        };
        Ok(Self { span, offset: header.raw_offset.get(), file_len: file_len_of_it, access })
    }
}
