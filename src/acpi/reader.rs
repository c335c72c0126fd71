//! ACPI tables in memory, from any source. The target of a pointer is checked before it is used.
//!
//! Assumed: the tables are below 4 GiB, because the firmware accesses no others. Left out: the contents of tables,
//! except pointers to other tables.
//!
//! Sources: ACPI specification 6.5, 5.2.5 (RSDP), 5.2.6 (header), 5.2.7 (RSDT), 5.2.8 (XSDT), 5.2.9 (FADT).

use super::{RSDP_LEN, RSDP_REVISION, RSDP_SIGNATURE, RSDP_TOTAL, RSDP_XSDT_REVISION, RSDP2_LEN};
use crate::addr::{PhysAddr, PhysRange};
use crate::checksum;
use crate::hal::Memory;

/// The length of a table's header: signature, length, and more.
pub const HEADER_LEN: u32 = 36;
/// The longest table whose contents are read, in bytes.
const MOST: u32 = 64 << 10;

/// Offsets in the RSDP: the RSDT's address, 32 bits, and the XSDT's, 64 bits.
const RSDP_RSDT: u64 = 16;
const RSDP_XSDT: u64 = 24;
/// The offset of a table's length, 32 bits.
const LENGTH: u64 = 4;
/// Offsets in the FADT: the addresses of FACS and DSDT, 32 bits, and the same with 64 bits. A 64-bit address takes
/// precedence if it is there and not zero.
const FADT_FACS: (u64, u64) = (36, 132);
const FADT_DSDT: (u64, u64) = (40, 140);

/// A pointer does not lead to the expected table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no valid {signature} at {at}")]
pub struct NoTable {
    /// The expected signature.
    pub signature: &'static str,
    /// The target of the pointer.
    pub at: PhysAddr,
}

/// A list of tables: the RSDT or the XSDT.
#[derive(Clone, Copy, Debug)]
pub struct Root {
    /// The whole table.
    pub table: PhysRange,
    /// The length of an entry in bytes.
    entry_len: u64,
}

/// Memory that may contain tables: every range that `is_memory` accepts.
pub struct TableReader<'a> {
    memory: &'a mut dyn Memory,
    is_memory: &'a dyn Fn(PhysRange) -> bool,
}

impl<'a> TableReader<'a> {
    /// Reads only ranges that `is_memory` accepts.
    pub fn new(memory: &'a mut dyn Memory, is_memory: &'a dyn Fn(PhysRange) -> bool) -> Self {
        Self { memory, is_memory }
    }

    /// The RSDP at `rsdp`, with valid checksums.
    ///
    /// # Errors
    /// [`NoTable`].
    pub fn rsdp(&mut self, rsdp: PhysAddr) -> Result<PhysRange, NoTable> {
        self.find_rsdp(rsdp).ok_or(NoTable { signature: "RSDP", at: rsdp })
    }

    fn find_rsdp(&mut self, rsdp: PhysAddr) -> Option<PhysRange> {
        let first = PhysRange::new(rsdp, RSDP_LEN.into()).filter(|&range| (self.is_memory)(range))?;
        let mut signature = [0; RSDP_SIGNATURE.len()];
        self.memory.read(rsdp, &mut signature).ok()?;
        if signature != *RSDP_SIGNATURE || self.sum(first)? != 0 {
            return None;
        }
        if self.number(first, RSDP_REVISION as u64, 1)? < RSDP_XSDT_REVISION.into() {
            return Some(first);
        }
        let least = PhysRange::new(rsdp, RSDP2_LEN.into()).filter(|&range| (self.is_memory)(range))?;
        let total = self.number(least, RSDP_TOTAL as u64, 4)?;
        let whole = PhysRange::new(rsdp, total).filter(|&range| (self.is_memory)(range))?;
        let valid = (RSDP2_LEN.into()..=u64::from(MOST)).contains(&total) && self.sum(whole)? == 0;
        valid.then_some(whole)
    }

    /// The list of tables: the XSDT if the RSDP has one, else the RSDT.
    ///
    /// # Errors
    /// [`NoTable`].
    pub fn root(&mut self, rsdp: PhysAddr) -> Result<Root, NoTable> {
        let range = self.rsdp(rsdp)?;
        // A short RSDP has no XSDT.
        let xsdt = self.number(range, RSDP_XSDT, 8).unwrap_or(0);
        let (signature, at, entry_len) =
            if xsdt == 0 { ("RSDT", self.number(range, RSDP_RSDT, 4).unwrap_or(0), 4) } else { ("XSDT", xsdt, 8) };
        let table = self.table(signature, PhysAddr::new(at), HEADER_LEN, true)?;
        Ok(Root { table, entry_len })
    }

    /// The address in entry `index` of `root`. `None` after the last entry. A root has at most 16,375 entries.
    pub fn entry(&mut self, root: &Root, index: u64) -> Option<PhysAddr> {
        let offset = index.checked_mul(root.entry_len)?.checked_add(HEADER_LEN.into())?;
        self.number(root.table, offset, root.entry_len).map(PhysAddr::new)
    }

    /// The address of the FACS in a FADT. Zero if there is none.
    pub fn facs(&mut self, fadt: PhysRange) -> PhysAddr {
        self.pointer(fadt, FADT_FACS)
    }

    /// The address of the DSDT in a FADT. Zero if there is none.
    pub fn dsdt(&mut self, fadt: PhysRange) -> PhysAddr {
        self.pointer(fadt, FADT_DSDT)
    }

    fn pointer(&mut self, fadt: PhysRange, (narrow, wide): (u64, u64)) -> PhysAddr {
        let wide = self.number(fadt, wide, 8).filter(|&at| at != 0);
        PhysAddr::new(wide.or_else(|| self.number(fadt, narrow, 4)).unwrap_or(0))
    }

    /// The table at `at` with at least `least` bytes, and with a valid checksum if it is `summed`.
    ///
    /// # Errors
    /// [`NoTable`].
    pub fn table(
        &mut self,
        signature: &'static str,
        at: PhysAddr,
        least: u32,
        summed: bool,
    ) -> Result<PhysRange, NoTable> {
        let found = self.any_table(at, least).filter(|&(name, table)| {
            name == signature.as_bytes() && table.len() <= MOST.into() && (!summed || self.sum(table) == Some(0))
        });
        found.map(|(_, table)| table).ok_or(NoTable { signature, at })
    }

    /// The signature and the range of any table at `at` whose header has a length of at least `least`.
    pub fn any_table(&mut self, at: PhysAddr, least: u32) -> Option<([u8; 4], PhysRange)> {
        let header = PhysRange::new(at, least.into()).filter(|&range| (self.is_memory)(range))?;
        let mut name = [0; 4];
        self.memory.read(header.start(), &mut name).ok()?;
        let len = self.number(header, LENGTH, 4).filter(|&len| len >= least.into())?;
        let table = PhysRange::new(at, len).filter(|&range| (self.is_memory)(range))?;
        Some((name, table))
    }

    /// The little-endian number of `len` bytes, at most eight, at `offset` in `table`. `None` if it is not all inside.
    #[inline(never)]
    pub fn number(&mut self, table: PhysRange, offset: u64, len: u64) -> Option<u64> {
        let at = PhysRange::new(table.start().checked_add(offset)?, len).filter(|&at| table.contains(at))?;
        let mut bytes = [0; 8];
        self.memory.read(at.start(), bytes.get_mut(..len as usize)?).ok()?;
        Some(u64::from_le_bytes(bytes))
    }

    fn sum(&mut self, table: PhysRange) -> Option<u8> {
        let mut sum = 0_u8;
        self.memory.inspect(table, &mut |piece| sum = sum.wrapping_add(checksum::sum(piece))).ok()?;
        Some(sum)
    }
}
