//! The address space for PCI memory: what is free around RAM.

use crate::addr::{Alignment, PhysAddr, PhysRange, constant};
use crate::hal::Cpu;
use crate::memory_map::Regions;

/// CPUID: the highest extended leaf, and the sizes of addresses (AMD APM volume 3, appendix E.4.7).
const HIGHEST_EXTENDED_LEAF: u32 = 0x8000_0000;
const ADDRESS_SIZES: u32 = 0x8000_0008;
/// The fewest bits of an x86-64 CPU.
const LEAST_BITS: u8 = 36;
/// The most bits of an x86-64 CPU.
const MOST_BITS: u8 = 52;

/// The CPU's number of physical address bits.
pub fn physical_bits(cpu: &mut impl Cpu) -> u8 {
    if cpu.cpuid(HIGHEST_EXTENDED_LEAF, 0).eax < ADDRESS_SIZES {
        return LEAST_BITS;
    }
    let [bits, ..] = cpu.cpuid(ADDRESS_SIZES, 0).eax.to_le_bytes();
    bits.clamp(LEAST_BITS, MOST_BITS)
}

/// Apertures begin at a multiple of 1 GiB, so that large BARs are aligned.
const GRANULE: Alignment = constant(Alignment::new(1 << 30));

/// The free address space above 4 GiB: from the end of RAM, and of the host's `reserved` space for memory plugged in later, up to
/// the limit of `physical_bits`, without everything in the map. The ranges are in ascending order, and each begins at a multiple
/// of 1 GiB. QEMU reserves the 12 GiB below 1 TiB on AMD CPUs, for HyperTransport.
///
/// It is used from the bottom up, close to RAM, because some CPUs report more bits than their host has.
pub fn high_apertures(
    map: &Regions,
    reserved: Option<PhysAddr>,
    physical_bits: u8,
) -> impl Iterator<Item = PhysRange> + '_ {
    let four_gib = PhysRange::LOW_4_GIB.end();
    let top = PhysAddr::new(1u64.checked_shl(physical_bits.into()).unwrap_or(u64::MAX));
    let above = PhysRange::from_bounds(four_gib, top).unwrap_or_default();
    let ram_end = map.ram_end(above).unwrap_or(four_gib);
    // Where the next aperture may begin, if the address exists.
    let mut next = ram_end.max(reserved.unwrap_or(four_gib)).align_up(GRANULE);
    let taken = map.regions().map(|region| region.range).chain([PhysRange::empty_at(top)]);
    taken.filter_map(move |taken| {
        let start = next?;
        if taken.end() > start {
            next = taken.end().align_up(GRANULE);
        }
        PhysRange::from_bounds(start, taken.start().min(top)).filter(|window| !window.is_empty())
    })
}

/// The largest part of `window`, which is above RAM, that is not in the map. A host may have reserved some of it: propolis has
/// its configuration space there.
#[must_use]
pub fn unoccupied(map: &Regions, window: PhysRange) -> PhysRange {
    let mut largest = PhysRange::empty_at(window.start());
    let mut gap_start = window.start();
    let mut take = |start, end| {
        if let Some(gap) = PhysRange::from_bounds(start, end).filter(|gap| gap.len() > largest.len()) {
            largest = gap;
        }
    };
    for region in map.regions() {
        if let Some(taken) = region.range.intersection(window) {
            take(gap_start, taken.start());
            gap_start = taken.end();
        }
    }
    take(gap_start, window.end());
    largest
}
