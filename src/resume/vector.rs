//! The waking vector of the operating system. It is in the FACS, which is found from the RSDP through RSDT or XSDT and FADT.
//!
//! Source: ACPI specification 6.5, 5.2.10 (FACS).

use super::error::Error;
use crate::acpi::{HEADER_LEN, Root, TableReader};
use crate::addr::{PhysAddr, PhysRange};
use crate::hal::Memory;
use crate::layout;
use crate::memory_map::Regions;

/// A waking vector: the real-mode address at which an operating system continues, in RAM below 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakingVector(u32);

impl WakingVector {
    /// Finds the waking vector of the operating system with this root pointer.
    ///
    /// # Errors
    /// [`Error::Table`], [`Error::NoFadt`], [`Error::NoVector`], [`Error::Vector`].
    #[inline(never)]
    pub fn find(memory: &mut dyn Memory, map: &Regions, rsdp: PhysAddr) -> Result<Self, Error> {
        let is_memory = |range| is_memory(map, range);
        let mut tables = TableReader::new(memory, &is_memory);
        let root = tables.root(rsdp)?;
        let fadt = fadt(&mut tables, &root)?;
        let facs = tables.facs(fadt);
        // The one table without a checksum.
        let facs = tables.table("FACS", facs, FACS_LEAST, false)?;
        let mut vector = [0; 4];
        let at = facs.start().checked_add(FACS_WAKING_VECTOR).ok_or(Error::NoVector)?;
        memory.read(at, &mut vector).map_err(|_| Error::NoVector)?;
        Self::new(u32::from_le_bytes(vector), map)
    }

    fn new(vector: u32, map: &Regions) -> Result<Self, Error> {
        let at = PhysRange::new(PhysAddr::new(vector.into()), 1);
        match at.filter(|&at| vector == 0 || PhysRange::LOW_1_MIB.contains(at) && map.is_ram(at)) {
            Some(_) if vector == 0 => Err(Error::NoVector),
            Some(_) => Ok(Self(vector)),
            None => Err(Error::Vector(vector)),
        }
    }

    /// The address. CS is the address without its low four bits, divided by 16; IP is those bits (5.2.10, "32-bit Firmware Waking
    /// Vector").
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// The FACS: the offset of the waking vector, and the least length up to its end.
const FACS_WAKING_VECTOR: u64 = 12;
const FACS_LEAST: u32 = 64;

/// The FADT among the tables that `root` lists: the first with its signature, and the only one whose sum is checked.
fn fadt(tables: &mut TableReader<'_>, root: &Root) -> Result<PhysRange, Error> {
    let mut index = 0_u64;
    // At most one iteration for each entry of the root.
    while let Some(at) = tables.entry(root, index) {
        // The FADT's signature is "FACP".
        if tables.any_table(at, HEADER_LEN).is_some_and(|(name, _)| name == *b"FACP") {
            return Ok(tables.table("FACP", at, HEADER_LEN, true)?);
        }
        index = index.saturating_add(1);
    }
    Err(Error::NoFadt)
}

/// Whether the range is memory, not a device: RAM, or the BIOS's segments.
fn is_memory(map: &Regions, range: PhysRange) -> bool {
    map.is_ram(range) || layout::F_SEGMENT.contains(range)
}
