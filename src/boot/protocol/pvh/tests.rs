extern crate std;

use std::vec::Vec;

use proptest::prelude::*;

use uefi_raw::table::boot::MemoryType;

use super::*;
use crate::layout;
use crate::memory_map::HostMap;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
}

/// A PC with `len` bytes of RAM below 4 GiB and some above, and a region of each kind.
fn pc(len: u64) -> HostMap {
    let mut map = HostMap::default();
    map.describe(range(0, len), MemoryType::CONVENTIONAL).unwrap();
    map.describe(range(4 * GIB, 5 * GIB), MemoryType::CONVENTIONAL).unwrap();
    map.describe(range(5 * GIB, 6 * GIB), MemoryType::PERSISTENT_MEMORY).unwrap();
    map.describe(range(6 * GIB, 7 * GIB), MemoryType::UNUSABLE).unwrap();
    map.reserve(range(len - 2 * MIB, len - MIB), MemoryType::ACPI_RECLAIM).unwrap();
    map.reserve(range(len - MIB, len), MemoryType::ACPI_NON_VOLATILE).unwrap();
    map.carve_pc().unwrap();
    map
}

fn kernel(start: u64, size: u32) -> PlacedKernel {
    PlacedKernel::new(PhysAddr::new(start), size, PhysAddr::new(start)).unwrap()
}

/// The little-endian number of `len` bytes at `at`.
fn number(bytes: &[u8], at: u64, len: usize) -> u64 {
    bytes[at as usize..][..len].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

#[test]
fn an_entry_point_outside_the_kernel_is_refused() {
    let new = |start, size, entry| PlacedKernel::new(PhysAddr::new(start), size, PhysAddr::new(entry)).is_ok();
    assert!(new(MIB, 16, MIB) && new(MIB, 16, MIB + 15) && new(4 * GIB - 16, 16, 4 * GIB - 1));
    assert!(!new(MIB, 16, MIB - 1) && !new(MIB, 16, MIB + 16) && !new(MIB, 0, MIB));
    assert!(!new(4 * GIB - 15, 16, 4 * GIB - 15));
}

#[test]
fn whole_pages_are_reserved_for_a_kernel_and_stay_ram() {
    let mut map = pc(512 * MIB);
    let before: Vec<_> = map.e820().collect();
    kernel(MIB + 0x1234, 0x10).reserve(&mut map).unwrap();
    assert!(map.is_free(range(MIB, MIB + 0x1000)) && map.is_free(range(MIB + 0x2000, 2 * MIB)));
    assert!(!map.is_free(range(MIB + 0x1000, MIB + 0x1001)) && !map.is_free(range(MIB + 0x1fff, MIB + 0x2000)));
    assert_eq!(map.e820().collect::<Vec<_>>(), before);
    // Next to the firmware on both sides.
    kernel(0x1000, 0x3_f000).reserve(&mut pc(512 * MIB)).unwrap();
}

#[test]
fn a_kernel_over_the_firmware_or_outside_ram_is_refused() {
    let reserve = |start, size| kernel(start, size).reserve(&mut pc(512 * MIB));
    for (start, size) in [(0x3_ffff, 2), (0x9_fbff, 1), (0x1000, 64 << 20), (0x8_0000, 16)] {
        let expected = Error::KernelOverFirmware { kernel: kernel(start, size).image, firmware: layout::BOOT_RAM };
        assert_eq!(reserve(start, size), Err(expected), "{start:#x}");
    }
    for (start, size) in [(0xfff, 2), (0x9_fc00, 1), (0xa_0000, 1), (0xf_ffff, 2), (510 * MIB - 1, 2), (513 * MIB, 1)] {
        assert_eq!(
            reserve(start, size),
            Err(Error::KernelOutsideRam { kernel: kernel(start, size).image }),
            "{start:#x}"
        );
    }
}

#[test]
fn every_start_info_field_has_its_value() {
    let mut map = pc(512 * MIB);
    let kernel = kernel(16 * MIB, 0x12_3456);
    kernel.reserve(&mut map).unwrap();
    let mut map = MemoryMap::new(map);
    let sizes = Needs { initrd: 5_000_001, command_line: 20, ..Needs::default() };
    let plan = PvhPlan::new(kernel, &sizes, &mut map).unwrap();
    assert_eq!(plan.initrd, Some(range(504 * MIB, 504 * MIB + 5_000_001)));
    assert_eq!(plan.command_line.len(), 21);
    let handover = plan.handover();
    assert_eq!(handover.entry, Entry::Pvh(kernel.entry));

    let info = HvmStartInfo::new(&plan, &map, Some(PhysAddr::new(0xf_1230))).unwrap();
    let (bytes, start) = (info.bytes(), handover.parameters.get());
    assert_eq!(plan.start_info, PhysRange::new(PhysAddr::new(start), bytes.len() as u64).unwrap());
    let wide = |at| number(bytes, at, 8);
    let narrow = |at| number(bytes, at, 4);
    assert_eq!([narrow(0), narrow(4), narrow(8), narrow(12)], [0x336e_c578, 1, 0, 1]);
    let module = wide(16) - start;
    assert_eq!(wide(24), plan.command_line.start().get());
    assert_eq!(wide(32), 0xf_1230);
    let list = wide(40) - start;
    assert_eq!(narrow(52), 0);
    assert_eq!([0, 8, 16, 24].map(|at| wide(module + at)), [504 * MIB, 5_000_001, 0, 0]);
    let entries = narrow(48);
    let entry = |i| list + i * 24;
    let seen: Vec<_> = (0..entries).map(|i| (wide(entry(i)), wide(entry(i) + 8), narrow(entry(i) + 16))).collect();
    let told: Vec<_> = map.e820().map(|e| (e.addr.get(), e.size.get(), u64::from(e.kind.get()))).collect();
    assert_eq!(seen, told);
    for kind in [1, 2, 3, 4, 5, 7] {
        assert!(seen.iter().any(|entry| entry.2 == kind), "type {kind}");
    }
    assert!((0..entries).all(|i| narrow(entry(i) + 20) == 0));
    assert!(bytes[entry(entries) as usize..].iter().all(|&byte| byte == 0));
}

#[test]
fn without_initrd_and_rsdp_their_fields_are_zero() {
    let mut map = MemoryMap::new(pc(64 * MIB));
    let plan = PvhPlan::new(kernel(MIB, 16), &Needs::default(), &mut map).unwrap();
    let info = HvmStartInfo::new(&plan, &map, None).unwrap();
    assert_eq!(number(info.bytes(), 12, 4), 0);
    assert_eq!([16, 32].map(|at| number(info.bytes(), at, 8)), [0, 0]);
    assert_eq!(plan.command_line.len(), 1, "the NUL");
}

#[test]
fn the_message_says_which_part_does_not_fit() {
    let mut map = pc(64 * MIB);
    kernel(2 * MIB, 50 << 20).reserve(&mut map).unwrap();
    let map = MemoryMap::new(map);
    let plan = |sizes| PvhPlan::new(kernel(2 * MIB, 50 << 20), &sizes, &mut map.clone());
    let initrd = plan(Needs { initrd: 11 << 20, ..Needs::default() });
    let too_large = Error::InitrdDoesNotFit { size: 11 << 20, limit: Some(PhysRange::LOW_4_GIB.end()), free: 10 * MIB };
    assert_eq!(initrd, Err(too_large));
    let command_line = plan(Needs { command_line: 1 << 20, ..Needs::default() });
    assert_eq!(command_line, Err(Error::CommandLineDoesNotFit { needed: MIB + 1 }));
}

proptest! {
    #[test]
    fn no_two_parts_overlap_wherever_the_kernel_is(
        start in 0_u64..(128 * MIB), size in 1_u32..(64 << 20), initrd in 0_u64..(64 << 20), command_line in 0_u64..0x2_0000,
    ) {
        let mut map = pc(128 * MIB);
        let fresh = map.clone();
        let kernel = kernel(start, size);
        let needs = Needs { initrd, command_line, ..Needs::default() };
        if kernel.reserve(&mut map).is_ok()
            && let Ok(plan) = PvhPlan::new(kernel, &needs, &mut MemoryMap::new(map))
        {
            let parts: Vec<_> =
                [Some(kernel.image), plan.initrd, Some(plan.command_line), Some(plan.start_info)].into_iter().flatten().collect();
            for (i, part) in parts.iter().enumerate() {
                prop_assert!(fresh.is_free(*part), "{part} was not free");
                prop_assert!(parts[..i].iter().all(|other| !other.overlaps(*part)), "{parts:?}");
            }
        }
    }
}
