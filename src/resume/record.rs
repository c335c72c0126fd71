//! The record that a boot stores for a wake, in reserved memory at [`RESUME_RECORD`].
//!
//! It is a header and a list, little-endian, in whole 64-bit words, which the checksum is calculated over.

use alloc::vec::Vec;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::Error;
use crate::addr::{PhysAddr, PhysRange};
use crate::hal::Memory;
use crate::host::HostWrite;
use crate::layout::{RESUME_RECORD, WAKE_RAM};

/// The magic number of a record. Its last byte is the version of the format.
const MAGIC: [u8; 8] = *b"FLwake\0\x03";

/// The most writes in a record.
const MOST_WRITES: usize = 16;

/// The header of a record.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; MAGIC.len()],
    /// The checksum of everything after this field.
    checksum: U64,
    /// The reserved memory: start and end.
    kept_start: U32,
    kept_end: U32,
    rsdp: U32,
    /// The number of [`HostWrite`]s that follow.
    writes: U32,
}

/// The offset in the header after its checksum.
const CHECKED_FROM: usize = 16;

const _: () = assert!(size_of::<Header>().is_multiple_of(8) && size_of::<HostWrite>().is_multiple_of(8));
const _: () = assert!((size_of::<Header>() + MOST_WRITES * size_of::<HostWrite>()) as u64 <= RESUME_RECORD.len());

/// What a wake needs from the boot.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// The address of the ACPI root pointer.
    pub rsdp: PhysAddr,
    /// What was written into the host's files.
    pub writes: Vec<HostWrite>,
}

impl Record {
    /// Stores the record. If there are more than 16 writes, the rest is left out and warned about.
    pub fn store(&self, memory: &mut impl Memory) {
        let Some(rsdp) = self.rsdp.get32() else { return clear(memory) };
        let writes = self.writes.get(..MOST_WRITES).unwrap_or_else(|| &self.writes);
        if writes.len() < self.writes.len() {
            crate::warn!("resume: only the first {MOST_WRITES} addresses in the host's files are stored");
        }
        let mut header = Header {
            magic: MAGIC,
            checksum: U64::ZERO,
            kept_start: (WAKE_RAM.start().get() as u32).into(),
            kept_end: (WAKE_RAM.end().get() as u32).into(),
            rsdp: rsdp.into(),
            writes: (writes.len() as u32).into(),
        };
        header.checksum = checksum(&header, writes).into();
        let start = RESUME_RECORD.start();
        // The firmware may write the record's memory: see the assertions here and in `layout`.
        let _ = memory.write(start, header.as_bytes());
        if !writes.is_empty() {
            let _ = memory.write(list_start(), writes.as_bytes());
        }
        // Clear the rest, which may have data of an earlier guest that a kernel could find.
        let end = list_start().checked_add(writes.as_bytes().len() as u64);
        if let Some(rest) = end.and_then(|end| PhysRange::from_bounds(end, RESUME_RECORD.end())) {
            let _ = memory.fill(rest, 0);
        }
    }

    /// The record in memory.
    ///
    /// # Errors
    /// [`Error::Record`], [`Error::OtherMemory`], [`Error::HeapFull`].
    pub fn load(memory: &mut impl Memory) -> Result<Self, Error> {
        let mut header = Header::new_zeroed();
        memory.read(RESUME_RECORD.start(), header.as_mut_bytes()).map_err(|_| Error::Record)?;
        let count = header.writes.get() as usize;
        if header.magic != MAGIC || count > MOST_WRITES {
            return Err(Error::Record);
        }
        let mut writes = HostWrite::new_vec_zeroed(count).map_err(|_| Error::HeapFull)?;
        memory.read(list_start(), writes.as_mut_bytes()).map_err(|_| Error::Record)?;
        if header.checksum.get() != checksum(&header, &writes) || !writes.iter().all(HostWrite::is_valid) {
            return Err(Error::Record);
        }
        let [start, end] = [header.kept_start, header.kept_end].map(|at| PhysAddr::new(at.get().into()));
        let kept = PhysRange::from_bounds(start, end).ok_or(Error::Record)?;
        if !kept.contains(WAKE_RAM) {
            return Err(Error::OtherMemory(kept));
        }
        Ok(Self { rsdp: PhysAddr::new(header.rsdp.get().into()), writes })
    }
}

/// Whether memory has a record's magic number.
pub fn is_present(memory: &mut impl Memory) -> bool {
    let mut magic = [0; MAGIC.len()];
    memory.read(RESUME_RECORD.start(), &mut magic).is_ok() && magic == MAGIC
}

/// Removes the record.
pub fn remove(memory: &mut impl Memory) {
    // The firmware may write the record's memory: see the assertion in `layout`.
    let _ = memory.write(RESUME_RECORD.start(), &[0; MAGIC.len()]);
}

/// Clears all of the record's memory.
pub fn clear(memory: &mut impl Memory) {
    // As in `remove`.
    let _ = memory.fill(RESUME_RECORD, 0);
}

fn list_start() -> PhysAddr {
    // Inside the record's memory.
    RESUME_RECORD.start().checked_add(size_of::<Header>() as u64).unwrap_or_default()
}

/// A checksum that detects every change of a single word: FNV-1a over 64-bit words.
fn checksum(header: &Header, writes: &[HostWrite]) -> u64 {
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let header = header.as_bytes().get(CHECKED_FROM..).unwrap_or_default();
    let words = header.as_chunks().0.iter().chain(writes.as_bytes().as_chunks().0);
    words.fold(START, |sum, word| (sum ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME))
}
