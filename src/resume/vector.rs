//! Where the operating system wants to wake up: from the RSDP over the RSDT or XSDT and the FADT to the FACS, and the
//! address that the operating system left in there.
//!
//! Source: ACPI specification 6.5, 5.2.10 (FACS).

use super::error::Error;
use crate::acpi::{HEADER_LEN, Root, TableReader};
use crate::addr::{PhysAddr, PhysRange};
use crate::hal::Memory;
use crate::layout;
use crate::memory_map::Regions;

/// An address in real mode at which an operating system wakes up: RAM, below 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakingVector(u32);

impl WakingVector {
    /// Where the operating system whose root pointer is at `rsdp` wants to wake up.
    ///
    /// # Errors
    /// [`Error::Table`], [`Error::NoFadt`], [`Error::NoVector`], [`Error::Vector`].
    pub fn find(memory: &mut impl Memory, map: &Regions, rsdp: PhysAddr) -> Result<Self, Error> {
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

    /// The address: CS is it without its low four bits, divided by 16; IP is those bits (5.2.10, "32-bit Firmware Waking
    /// Vector").
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// The FACS: where in it the waking vector is, and what it has at least up to there.
const FACS_WAKING_VECTOR: u64 = 12;
const FACS_LEAST: u32 = 64;

/// The FADT among the tables that `root` lists: the first that says that it is one, and the only one that is summed up.
fn fadt<M: Memory>(tables: &mut TableReader<'_, M>, root: &Root) -> Result<PhysRange, Error> {
    let mut index = 0_u64;
    // As many rounds as a root has entries.
    while let Some(at) = tables.entry(root, index) {
        // Its signature is not its name.
        if tables.any_table(at, HEADER_LEN).is_some_and(|(name, _)| name == *b"FACP") {
            return Ok(tables.table("FACP", at, HEADER_LEN, true)?);
        }
        index = index.saturating_add(1);
    }
    Err(Error::NoFadt)
}

/// Whether there is memory, and no device: RAM, or where the BIOS was.
#[inline(never)]
fn is_memory(map: &Regions, range: PhysRange) -> bool {
    map.is_ram(range) || layout::F_SEGMENT.contains(range)
}
