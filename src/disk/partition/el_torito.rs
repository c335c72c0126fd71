//! The boot images of a CD: a catalog that a volume descriptor of ISO 9660 leads to ("El Torito" Bootable CD-ROM Format
//! Specification 1.0).
//!
//! Positions in it are in sectors of 2048 bytes, also if the CD's image is a disk of shorter blocks.
//!
//! Lengths are in sectors of 512 bytes, with 16 bits. As edk2 does, they are taken for sectors of 2048 bytes here: so an image
//! longer than 32 MiB, whose length does not fit, is not cut off. The file system in it knows its own length.
//!
//! Left out: images of hard disks.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{Extent, List, Partition, Scheme, read};
use crate::disk::{Blocks, Error};

/// The length of a sector.
const SECTOR: u64 = 2048;
/// The first volume descriptor (ECMA-119, 6.2.1), and the most that are read.
const DESCRIPTORS: u64 = 16 * SECTOR;
const MOST_DESCRIPTORS: u64 = 32;
/// What a volume descriptor begins with after its type; the type of one that is a boot record, and what that begins with
/// (El Torito, figure 7).
const STANDARD: [u8; 5] = *b"CD001";
const BOOT_RECORD: u8 = 0;
const SYSTEM: [u8; 23] = *b"EL TORITO SPECIFICATION";

/// The kinds of entries in a catalog (El Torito, figures 2 to 5). Others are not bootable, or extend the one before.
const VALIDATION: u8 = 0x01;
const BOOTABLE: u8 = 0x88;
const SECTION: u8 = 0x90;
const LAST_SECTION: u8 = 0x91;
/// The last bytes of a validation entry.
const KEY: u16 = 0xaa55;
/// The kinds of images, in the low half of a byte.
const NO_EMULATION: u8 = 0;
const DISKETTES: [(u8, u64); 3] = [(1, 1200 << 10), (2, 1440 << 10), (3, 2880 << 10)];

/// The beginning of a boot record's descriptor.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Descriptor {
    kind: u8,
    standard: [u8; 5],
    version: u8,
    system: [u8; 23],
    rest: [u8; 41],
    catalog: U32,
}

/// An entry of a catalog.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    kind: u8,
    /// The kind of image, or the platform in a validation entry and in a section's header.
    what: u8,
    unknown: [u8; 4],
    sectors: U16,
    start: U32,
    rest: [u8; 18],
    key: U16,
}

/// Adds the boot images.
pub(super) fn find(blocks: &mut dyn Blocks, list: &mut List) -> Result<(), Error> {
    if u64::from(blocks.block_len().get()) > SECTOR {
        return Ok(());
    }
    for number in 0..MOST_DESCRIPTORS {
        let mut bytes = [0; size_of::<Descriptor>()];
        let at = DESCRIPTORS.saturating_add(number.saturating_mul(SECTOR));
        if read(blocks, at, &mut bytes)?.is_none() {
            break;
        }
        let descriptor: &Descriptor = zerocopy::transmute_ref!(&bytes);
        if descriptor.standard != STANDARD {
            break;
        }
        if descriptor.kind == BOOT_RECORD && descriptor.system == SYSTEM {
            return find_images(blocks, u64::from(descriptor.catalog.get()).saturating_mul(SECTOR), list);
        }
    }
    Ok(())
}

/// Adds the images of the catalog at byte `at`.
fn find_images(blocks: &mut dyn Blocks, at: u64, list: &mut List) -> Result<(), Error> {
    let mut bytes = [0; SECTOR as usize];
    if read(blocks, at, &mut bytes)?.is_none() {
        return Ok(());
    }
    let (words, _) = bytes.as_chunks();
    let sum =
        words.iter().take(size_of::<Entry>() / 2).fold(0_u16, |sum, word| sum.wrapping_add(u16::from_le_bytes(*word)));
    let catalog: &[Entry; SECTOR as usize / size_of::<Entry>()] = zerocopy::transmute_ref!(&bytes);
    let [validation, entries @ ..] = catalog;
    if validation.kind != VALIDATION || validation.key.get() != KEY || sum != 0 {
        return Ok(());
    }
    let mut platform = validation.what;
    let mut number = 0;
    for entry in entries {
        match entry.kind {
            SECTION | LAST_SECTION => platform = entry.what,
            BOOTABLE => {
                if let Some(extent) = image(blocks, entry) {
                    list.add(Partition {
                        extent,
                        scheme: Scheme::ElTorito { entry: number, platform },
                        extended: None,
                    });
                }
                number = number.saturating_add(1);
            }
            _ => {}
        }
        // The first entry is the default one, bootable or not.
        number = number.max(1);
    }
    Ok(())
}

/// The blocks of an image that the disk has. A length of 0 or 1 means up to the end (UEFI 2.10, 13.3.2.1).
fn image(blocks: &dyn Blocks, entry: &Entry) -> Option<Extent> {
    let block_len = u64::from(blocks.block_len().get());
    let start = u64::from(entry.start.get()).checked_mul(SECTOR)?;
    let len = match (entry.what & 0xf, entry.sectors.get()) {
        (NO_EMULATION, 0 | 1) => u64::MAX,
        (NO_EMULATION, sectors) => u64::from(sectors).checked_mul(SECTOR)?,
        (kind, _) => DISKETTES.iter().find(|(diskette, _)| *diskette == kind)?.1,
    };
    // The length of a block divides a sector's.
    let first = start.checked_div(block_len).filter(|&first| first != 0)?;
    let rest = blocks.blocks().checked_sub(first)?;
    let count = len.div_ceil(block_len).min(rest);
    (count != 0).then_some(Extent { first, blocks: count })
}
