//! The fields of a PC BIOS's data areas that operating systems read without calling the BIOS.
//!
//! Two words of the BIOS data area hold the segment of the extended area and the size of low memory. A kernel without
//! ACPI searches the beginning of the extended area for the MP table or the RSDP (MultiProcessor Specification 1.4,
//! chapter 4; ACPI 6.5, 5.2.5.1). Linux does not use memory from the lower of the two addresses on. They agree with the
//! memory map, in which both are reserved. On a machine that can sleep, low memory ends where the memory for a wake
//! begins, which is below the extended area.
//!
//! The words are in page zero, which is not mapped while the firmware runs. The last code of the firmware writes them
//! before every kernel. It does not write them at a wake, when page zero is the operating system's, nor after a start
//! by the PVH entry point, when page zero is as the host or its firmware has left it.
//!
//! Left out: all other fields. They are for programs that call a BIOS.
//!
//! Source: IBM PC/AT technical reference, "BIOS data area"; IBM Personal System/2 and Personal Computer BIOS Interface
//! Technical Reference, "Extended BIOS data area".

use crate::addr::{PhysAddr, PhysRange, constant_range};
use crate::hal::{Memory, MemoryError};
use crate::layout;
use crate::memory_map::Regions;

/// The end of the real-mode vectors and the BIOS data area, which begin at address zero.
pub const END: u64 = 0x500;

/// The segment of the extended BIOS data area.
const EBDA_SEGMENT: PhysAddr = PhysAddr::new(0x40e);
/// The KiB of memory from 0 on.
const MEMORY_SIZE: PhysAddr = PhysAddr::new(0x413);
/// The memory that is counted: above page zero, the beginning of which a host may reserve.
const CONVENTIONAL: PhysRange = constant_range(layout::PAGE_ZERO.end().get(), layout::CONVENTIONAL.end().get());

/// The two words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BiosData {
    ebda_segment: u16,
    memory_kib: u16,
}

impl BiosData {
    /// The words for a machine with this map, in which all memory that the kernel must not use is reserved.
    #[must_use]
    pub fn of(map: &Regions) -> Self {
        // Both are below 640 KiB.
        Self {
            ebda_segment: (layout::EBDA.start().get() >> 4) as u16,
            memory_kib: (map.ram_run_end(CONVENTIONAL).get() >> 10) as u16,
        }
    }

    /// Each word with its address, which can be odd.
    #[must_use]
    pub const fn words(self) -> [(PhysAddr, u16); 2] {
        [(EBDA_SEGMENT, self.ebda_segment), (MEMORY_SIZE, self.memory_kib)]
    }
}

/// Writes the first 16 bytes of the extended BIOS data area: a byte with its length in KiB, and zeros. Tables come
/// after that, in [`layout::EBDA_TABLES`].
///
/// # Errors
/// [`MemoryError`] if the firmware may not write there. It always may.
pub fn mark_ebda(memory: &mut impl Memory) -> Result<(), MemoryError> {
    let mut paragraph = [0; (layout::EBDA_TABLES.start().get() - layout::EBDA.start().get()) as usize];
    let [length, ..] = &mut paragraph;
    *length = (layout::EBDA.len() >> 10) as u8;
    memory.write(layout::EBDA.start(), &paragraph)
}

#[cfg(test)]
mod tests {
    use uefi_raw::table::boot::MemoryType;

    use super::*;
    use crate::fakes::machine::FakeMachine;
    use crate::memory_map::HostMap;

    fn map() -> HostMap {
        let mut map = HostMap::default();
        map.describe(PhysRange::new(PhysAddr::default(), 256 << 20).unwrap(), MemoryType::CONVENTIONAL).unwrap();
        map
    }

    #[test]
    fn the_words_agree_with_the_memory_map() {
        let mut awake = map();
        awake.carve_pc().unwrap();
        let mut sleeps = map();
        sleeps.carve_pc_that_sleeps().unwrap();
        for (map, kib) in [(awake, 639), (sleeps, 524)] {
            let [(_, segment), (_, memory)] = BiosData::of(&map).words();
            assert_eq!((segment, memory), (0x9fc0, kib));
            let reserved = PhysRange::from_bounds(PhysAddr::new(u64::from(memory) << 10), CONVENTIONAL.end()).unwrap();
            assert!(map.is_withheld(reserved) && reserved.contains_addr(PhysAddr::new(u64::from(segment) << 4)));
            let below = PhysRange::from_bounds(PhysAddr::default(), reserved.start()).unwrap();
            assert!(map.is_ram(below));
        }
        // alioth reserves the beginning of page zero, and has tables at 512 KiB.
        let mut cut = map();
        cut.carve_pc().unwrap();
        for (start, end) in [(0, 0x500), (0x8_0000, 0xa_0000)] {
            cut.reserve(constant_range(start, end), MemoryType::RESERVED).unwrap();
        }
        assert_eq!(BiosData::of(&cut).words()[1], (MEMORY_SIZE, 512));
    }

    #[test]
    fn the_extended_area_begins_with_its_length() {
        let mut machine = FakeMachine::new();
        machine.memory.store(0x9_fc00, &[0x55; 16]);
        mark_ebda(&mut machine).unwrap();
        let paragraph: [u8; 16] = core::array::from_fn(|at| u8::from(at == 0));
        assert_eq!(machine.memory.bytes(0x9_fc00, 16), paragraph);
    }
}
