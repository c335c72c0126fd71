//! Where the operating system wants to wake up: from the RSDP over the RSDT or XSDT and the FADT to the FACS, and the
//! address that the operating system left in there.
//!
//! Sources: ACPI specification 6.5, 5.2.5 (RSDP), 5.2.7 (RSDT), 5.2.8 (XSDT), 5.2.9 (FADT), 5.2.10 (FACS).

use super::Error;
use crate::acpi::{RSDP_SIGNATURE, RSDP_XSDT_REVISION};
use crate::addr::{PhysAddr, PhysRange};
use crate::checksum;
use crate::hal::Memory;
use crate::memory_map::MemoryMap;

/// An address in real mode at which an operating system wakes up: RAM, below 1 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakingVector(u32);

impl WakingVector {
    /// Where the operating system whose root pointer is at `rsdp` wants to wake up.
    ///
    /// # Errors
    /// [`Error::Table`], [`Error::NoFadt`], [`Error::NoVector`], [`Error::Vector`].
    pub fn find(memory: &mut impl Memory, map: &MemoryMap, rsdp: PhysAddr) -> Result<Self, Error> {
        let facs = Tables { memory, map }.facs(rsdp)?;
        let mut vector = [0; 4];
        let at = facs.start().checked_add(FACS_WAKING_VECTOR).ok_or(Error::NoVector)?;
        memory.read(at, &mut vector).map_err(|_| Error::NoVector)?;
        Self::new(u32::from_le_bytes(vector), map)
    }

    fn new(vector: u32, map: &MemoryMap) -> Result<Self, Error> {
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
/// The FADT: FIRMWARE_CTRL, 32 bits, and X_FIRMWARE_CTRL, 64 bits, which counts where it is there and not zero.
const FADT_FIRMWARE_CTRL: u64 = 36;
const FADT_X_FIRMWARE_CTRL: u64 = 132;

/// The RSDP: the RSDT's address, 32 bits, and from revision 2 on the XSDT's, 64 bits.
const RSDP_LEN: u64 = 20;
const RSDP_REVISION: u64 = 15;
const RSDP_RSDT: u64 = 16;
const RSDP_XSDT: u64 = 24;

/// The header that tables begin with: signature, length, and more.
const HEADER_LEN: u32 = 36;
/// Most bytes of a table that is looked at.
const MOST: u32 = 64 << 10;

/// Where an operating system looks for the RSDP.
const BIOS_SEGMENT: (u64, u64) = (0xf_0000, 0x10_0000);

struct Tables<'a, M> {
    memory: &'a mut M,
    map: &'a MemoryMap,
}

impl<M: Memory> Tables<'_, M> {
    /// The FACS.
    fn facs(&mut self, rsdp: PhysAddr) -> Result<PhysRange, Error> {
        let (root, entry_len) = self.root(rsdp)?;
        let fadt = self.fadt(root, entry_len)?;
        let at = match self.number(fadt, FADT_X_FIRMWARE_CTRL, 8) {
            None | Some(0) => self.number(fadt, FADT_FIRMWARE_CTRL, 4).unwrap_or(0),
            Some(at) => at,
        };
        // The one table without a checksum.
        self.table("FACS", PhysAddr::new(at), FACS_LEAST, false)
    }

    /// The RSDT or XSDT, with the length of its entries.
    fn root(&mut self, rsdp: PhysAddr) -> Result<(PhysRange, u64), Error> {
        let bad = Error::Table { signature: "RSDP", at: rsdp };
        let header = PhysRange::new(rsdp, RSDP_LEN).filter(|&range| self.is_memory(range)).ok_or(bad.clone())?;
        let mut signature = [0; RSDP_SIGNATURE.len()];
        self.memory.read(rsdp, &mut signature).map_err(|_| bad.clone())?;
        if signature != *RSDP_SIGNATURE || self.sum(header) != Some(0) {
            return Err(bad);
        }
        let number = |this: &mut Self, at, len| {
            PhysRange::new(rsdp, RSDP_XSDT + 8).and_then(|whole| this.number(whole, at, len)).unwrap_or(0)
        };
        let revision = number(self, RSDP_REVISION, 1);
        let xsdt = if revision >= u64::from(RSDP_XSDT_REVISION) { number(self, RSDP_XSDT, 8) } else { 0 };
        let (signature, at, entry_len) =
            if xsdt == 0 { ("RSDT", number(self, RSDP_RSDT, 4), 4) } else { ("XSDT", xsdt, 8) };
        Ok((self.table(signature, PhysAddr::new(at), HEADER_LEN, true)?, entry_len))
    }

    /// The FADT among the tables that `root` lists.
    fn fadt(&mut self, root: PhysRange, entry_len: u64) -> Result<PhysRange, Error> {
        let mut at = u64::from(HEADER_LEN);
        // As many rounds as a table of at most MOST bytes has entries.
        while let Some(table) = self.number(root, at, entry_len) {
            // Its signature is not its name.
            match self.table("FACP", PhysAddr::new(table), HEADER_LEN, true) {
                Ok(fadt) => return Ok(fadt),
                Err(_) => at = at.saturating_add(entry_len),
            }
        }
        Err(Error::NoFadt)
    }

    /// The table at `at`, `least` bytes or longer.
    fn table(&mut self, signature: &'static str, at: PhysAddr, least: u32, summed: bool) -> Result<PhysRange, Error> {
        self.find_table(signature, at, least, summed).ok_or(Error::Table { signature, at })
    }

    fn find_table(&mut self, signature: &str, at: PhysAddr, least: u32, summed: bool) -> Option<PhysRange> {
        let header = PhysRange::new(at, least.into()).filter(|&range| self.is_memory(range))?;
        let mut name = [0; 4];
        self.memory.read(header.start(), &mut name).ok()?;
        let len = u32::try_from(self.number(header, 4, 4)?).ok()?;
        let table = PhysRange::new(at, len.into()).filter(|&range| self.is_memory(range))?;
        let valid = name == signature.as_bytes() && (least..=MOST).contains(&len);
        (valid && (!summed || self.sum(table)? == 0)).then_some(table)
    }

    /// Whether there is memory, and no device: RAM, or where the BIOS was.
    #[inline(never)]
    fn is_memory(&self, range: PhysRange) -> bool {
        let bios = PhysRange::from_bounds(PhysAddr::new(BIOS_SEGMENT.0), PhysAddr::new(BIOS_SEGMENT.1));
        self.map.is_ram(range) || bios.is_some_and(|bios| bios.contains(range))
    }

    /// The little-endian number of `len` bytes, eight at most, at `offset` in `table`, if all of it is inside.
    #[inline(never)]
    fn number(&mut self, table: PhysRange, offset: u64, len: u64) -> Option<u64> {
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
