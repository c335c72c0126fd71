//! The memory for tables, and loading to it.

use alloc::vec::Vec;

use uefi_raw::table::boot::MemoryType;

use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::fw_cfg::{self, FwCfg, Item, Transport};
use crate::hal::{HostAccess, MemoryError};
use crate::host::HostWrite;
use crate::layout::CONVENTIONAL;
use crate::memory_map::{MemoryMap, Placement};

/// The machine, with the free memory of the F-segment and of RAM.
pub struct Place<'a, M> {
    pub machine: &'a mut M,
    pub fw_cfg: &'a FwCfg,
    map: &'a mut MemoryMap,
    /// The free part of the memory that an operating system scans; may be empty.
    pub scanned: PhysRange,
    /// The scanned memory that has not been cleared since the reset, and may have tables of an earlier guest. It is cleared
    /// before anything else is loaded to it.
    stale: PhysRange,
    /// The writes into the host's files.
    pub writes: Vec<HostWrite>,
    /// The log of a TPM.
    pub tpm_log: Option<PhysRange>,
}

impl<'a, M: HostAccess> Place<'a, M> {
    /// Creates it, with `scanned` as the memory that an operating system scans.
    pub fn new(machine: &'a mut M, fw_cfg: &'a FwCfg, map: &'a mut MemoryMap, scanned: PhysRange) -> Self {
        Self { machine, fw_cfg, map, scanned, stale: scanned, writes: Vec::new(), tpm_log: None }
    }

    /// Allocates memory at the top of RAM below 4 GiB.
    ///
    /// It is reserved, not ACPI reclaimable or non-volatile: devices keep writing some of the files, which must neither be reused
    /// nor written back on resume.
    pub fn high(&mut self, len: u64, alignment: Alignment) -> Option<PhysRange> {
        let within = PhysRange::LOW_4_GIB;
        self.map.allocate(len, alignment, within, Placement::Top, MemoryType::RESERVED)
    }

    /// Allocates scanned memory or, if there is none, memory below 640 KiB.
    pub fn scanned(&mut self, len: u64, alignment: Alignment) -> Option<PhysRange> {
        let start = self.scanned.start().align_up(alignment.max(Alignment::PARAGRAPH))?;
        match PhysRange::new(start, len).filter(|&found| self.scanned.contains(found)) {
            Some(found) => {
                self.scanned = PhysRange::from_bounds(found.end(), self.scanned.end())?;
                Some(found)
            }
            None => self.map.allocate(len, alignment, CONVENTIONAL, Placement::Top, MemoryType::RESERVED),
        }
    }

    /// Loads `item` to `to`. The first load to scanned memory also clears the rest of it: on QEMU by the same transfer, which
    /// returns zeros past the end of an item.
    pub fn load(&mut self, item: Item, to: PhysAddr) -> Result<(), fw_cfg::Error> {
        let rest = PhysRange::from_bounds(to, self.stale.end()).filter(|rest| self.stale.contains(*rest));
        let Some(rest) = rest.filter(|rest| !rest.is_empty()) else {
            return self.fw_cfg.load(self.machine, item, to).map(|_| ());
        };
        let before = PhysRange::from_bounds(self.stale.start(), to).unwrap_or_default();
        if self.fw_cfg.transport(self.machine) == Transport::QemuDma && item.len() <= rest.len() as u32 {
            self.fill(before)?;
            self.fw_cfg.load(self.machine, Item::new(item.key(), rest.len() as u32), to)?;
        } else {
            self.fill(self.stale)?;
            self.fw_cfg.load(self.machine, item, to)?;
        }
        self.stale = PhysRange::default();
        Ok(())
    }

    /// Clears the scanned memory, if nothing was loaded to it.
    pub fn clear_stale(&mut self) {
        self.clear(self.stale);
    }

    /// Clears scanned memory.
    pub fn clear(&mut self, range: PhysRange) {
        if let Err(error) = self.fill(range) {
            crate::warn!("tables from before the reset may be found: {error}");
        }
    }

    /// Sets a range, which may be empty, to zero.
    fn fill(&mut self, range: PhysRange) -> Result<(), MemoryError> {
        if range.is_empty() { Ok(()) } else { self.machine.fill(range, 0) }
    }
}
