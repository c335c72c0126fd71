//! Which bytes of a file its Authenticode digest covers: all except the checksum, the certificates and the place of these. So a
//! signature does not change the digest.
//!
//! Source: Microsoft, "Windows Authenticode Portable Executable Signature Format", "Calculating the PE Image Hash"
//! (download.microsoft.com, Authenticode_PE.docx).
//!
//! Left out: zeros that signing tools append to a file whose length is no multiple of 8. They are in the digest once they are in the
//! file.

use arrayvec::ArrayVec;

use super::error::Error;
use super::headers::{CERTIFICATE_DIRECTORY, Directory, Headers, OptionalHeader, SectionHeader};
use super::{MOST_SECTIONS, Span};

/// As many parts are hashed at most: three of the headers, the sections and what follows them.
pub const MOST_HASHED: usize = MOST_SECTIONS + 4;

/// The offset of the directory entry of the certificates in the optional header.
const DIRECTORY_AT: usize = size_of::<OptionalHeader>() + CERTIFICATE_DIRECTORY * size_of::<Directory>();

/// The parts of a file of `file_len` bytes, as offsets in it, in the order in which they are hashed. No part is empty. `start` has
/// the first [`super::MOST_HEADERS`] bytes of the file, or all of a shorter file.
///
/// # Errors
/// Those of the headers, [`Error::SectionTruncated`], [`Error::Certificates`].
pub fn hashed(start: &[u8], file_len: u64) -> Result<ArrayVec<Span, MOST_HASHED>, Error> {
    let found = Headers::find(start, file_len)?;
    let headers_len = found.optional.headers_len.get();
    if u64::from(headers_len) > file_len {
        return Err(Error::HeadersTruncated { file: file_len });
    }
    if found.end > headers_len as usize {
        return Err(Error::HeadersLength(headers_len));
    }
    let within = |offset: usize| found.optional_at.saturating_add(offset) as u32;
    let checksum = within(core::mem::offset_of!(OptionalHeader, checksum));
    let directory = within(DIRECTORY_AT);
    let certificates = found.directory(CERTIFICATE_DIRECTORY);
    let skipped_to = match certificates {
        Some(_) => directory.saturating_add(size_of::<Directory>() as u32),
        None => directory,
    };
    let (_, certificates_len) = certificates.unwrap_or_default();

    let mut parts = ArrayVec::new();
    // There is room for all.
    let mut add = |start: u32, end: u32| {
        let span = Some(Span { start, end }).filter(|span| !span.is_empty());
        let _ = span.map(|span| parts.try_push(span));
    };
    add(0, checksum);
    add(checksum.saturating_add(4), directory.min(headers_len));
    add(skipped_to.min(headers_len), headers_len);

    for (index, header) in found.sections.iter().enumerate() {
        let (offset, len) = (header.raw_offset.get(), header.raw_len.get());
        let end = u64::from(offset).saturating_add(len.into());
        if len > 0 && (end > file_len || end > u32::MAX.into()) {
            return Err(Error::SectionTruncated { section: index as u16, end, file: file_len });
        }
    }
    let mut sum = u64::from(headers_len);
    // Each time the next one by offset. Of those with the same offset, the order is that of the table.
    let mut last = None;
    let section = |(header, index): (&SectionHeader, usize)| (header.raw_offset.get(), index, header.raw_len.get());
    while let Some((start, index, len)) = found
        .sections
        .iter()
        .zip(0..MOST_SECTIONS)
        .map(section)
        .filter(|&(at, index, _)| last.is_none_or(|last| (at, index) > last))
        .min()
    {
        last = Some((start, index));
        add(start, start.saturating_add(len));
        sum = sum.saturating_add(len.into());
    }

    if file_len > sum {
        let no_room = Error::Certificates { len: certificates_len, file: file_len };
        let end = file_len.checked_sub(certificates_len.into()).filter(|&end| end >= sum).ok_or(no_room)?;
        let [sum, end] = [sum, end].map(u32::try_from);
        add(sum.map_err(|_| no_room)?, end.map_err(|_| no_room)?);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;
    use crate::efi::pe::MOST_HEADERS;
    use crate::efi::pe::tests::{CODE, DATA, OPTIONAL, file_with, section};

    const CHECKSUM: usize = OPTIONAL + 64;
    const DIRECTORY: usize = OPTIONAL + 112 + 8 * 4;

    fn put(file: &mut [u8], at: usize, number: u32) {
        file[at..][..4].copy_from_slice(&number.to_le_bytes());
    }

    fn parts(file: &[u8]) -> Result<Vec<Span>, Error> {
        Ok(hashed(&file[..file.len().min(MOST_HEADERS)], file.len() as u64)?.to_vec())
    }

    fn spans(of: &[(usize, usize)]) -> Vec<Span> {
        of.iter().map(|&(start, end)| Span { start: start as u32, end: end as u32 }).collect()
    }

    /// Sections in another order than in the file, then 24 bytes, then certificates of 16 bytes.
    fn signed(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let sections = [section(0x1000, 0x200, 0x600, 0x200, CODE), section(0x2000, 0x180, 0x400, 0x200, DATA)];
        let mut file = file_with(&sections, |file| put(file, DIRECTORY + 4, 16));
        file.extend([7; 40]);
        change(&mut file);
        file
    }

    #[test]
    fn a_digest_covers_all_but_checksum_and_certificates() {
        let headers = [(0, CHECKSUM), (CHECKSUM + 4, DIRECTORY), (DIRECTORY + 8, 0x400)];
        let expected = [&headers[..], &[(0x400, 0x600), (0x600, 0x800), (0x800, 0x818)]].concat();
        assert_eq!(parts(&signed(|_| {})), Ok(spans(&expected)));
    }

    #[test]
    fn a_file_without_a_directory_of_certificates_has_all_of_its_headers_in_the_digest() {
        let few = signed(|file| put(file, OPTIONAL + 108, 4));
        let expected = [
            (0, CHECKSUM),
            (CHECKSUM + 4, DIRECTORY),
            (DIRECTORY, 0x400),
            (0x400, 0x600),
            (0x600, 0x800),
            (0x800, 0x828),
        ];
        assert_eq!(parts(&few), Ok(spans(&expected)));
    }

    #[test]
    fn a_section_without_contents_is_not_in_the_digest_wherever_it_says_that_it_is() {
        let sections = [section(0x1000, 0x200, 0x400, 0x200, CODE), section(0x2000, 0x200, 0, 0, DATA)];
        let mut file = file_with(&sections, |_| {});
        let expected = parts(&file).unwrap();
        assert_eq!(expected.len(), 4);
        // The offset of the second section.
        put(&mut file, OPTIONAL + 112 + 128 + 40 + 20, u32::MAX);
        assert_eq!(parts(&file), Ok(expected));
    }

    #[test]
    fn a_file_that_no_digest_covers_is_an_error() {
        let len = signed(|_| {}).len() as u64;
        let too_long = signed(|file| put(file, DIRECTORY + 4, 41));
        assert_eq!(parts(&too_long), Err(Error::Certificates { len: 41, file: len }));
        let sections = [section(0x1000, 0x200, 0x400, 0x200, CODE)];
        let mut cut = file_with(&sections, |_| {});
        cut.pop();
        assert_eq!(parts(&cut), Err(Error::SectionTruncated { section: 0, end: 0x600, file: 0x5ff }));
        assert_eq!(parts(b"MZ"), Err(Error::NotPe));
        assert_eq!(parts(&signed(|file| put(file, OPTIONAL + 60, 0x100))), Err(Error::HeadersLength(0x100)));
        let longer = signed(|file| put(file, OPTIONAL + 60, 0x1000));
        assert_eq!(parts(&longer), Err(Error::HeadersTruncated { file: len }));
    }
}
