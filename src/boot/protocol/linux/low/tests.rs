extern crate std;

use std::string::ToString;
use std::vec::Vec;

use super::super::setup_header::tests::debian_with;
use super::super::{BootParams, ScreenInfo, plan};
use super::*;
use crate::boot::Handover;
use crate::framebuffer::{Framebuffer, Mode};
use crate::memory_map::HostMap;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const SIZES: Needs = Needs { kernel: 600 << 10, initrd: 3 << 20, initrd_at: None, command_line: 20 };
const ZIMAGE: Needs = Needs { kernel: 400 << 10, ..SIZES };

/// The length in the header, for both kinds.
const LEN: (usize, &[u8]) = (0x1f4, &[0, 0x64, 0, 0]);

/// A PC whose operating system can sleep, which leaves less low memory to the kernel.
fn pc(len: u64) -> MemoryMap {
    let mut map = HostMap::default();
    map.describe(range(0, len), MemoryType::CONVENTIONAL).unwrap();
    map.carve_pc_that_sleeps().unwrap();
    MemoryMap::new(map)
}

/// A header of a protocol. Fields that such an old kernel does not have are left in.
fn header(version: u8, loadflags: u8) -> SetupHeader {
    let code32_start: u32 = if loadflags == 0 { 0x1000 } else { 0x10_0000 };
    let code32_start = code32_start.to_le_bytes();
    let patches: &[(usize, &[u8])] = &[LEN, (0x206, &[version, 2]), (0x211, &[loadflags]), (0x214, &code32_start)];
    SetupHeader::parse(&debian_with(patches)).unwrap()
}

fn plan_in(map: &mut MemoryMap, header: &SetupHeader, sizes: Needs) -> Result<LoadPlan, Error> {
    plan(header, &sizes, None, map)
}

fn block_of(plan: &LoadPlan) -> LowBlock {
    let Entry::LinuxLow { block, .. } = plan.entry else { panic!("{:?}", plan.entry) };
    block
}

/// What is in memory when the kernel runs: each part at its address then.
fn at_entry(plan: &LoadPlan) -> Vec<PhysRange> {
    let parts = [plan.kernel, plan.boot_params, plan.command_line];
    parts.map(|part| PhysRange::new(plan.at_entry(part.start()), part.len()).unwrap()).to_vec()
}

#[test]
fn a_bzimage_of_2_01_has_its_parameters_at_0x90000() {
    let mut map = pc(64 * MIB);
    let before: Vec<_> = map.e820().collect();
    let plan = plan_in(&mut map, &header(1, 1), SIZES).unwrap();
    let command_line = range(0x9_1000, 0x9_1015);
    assert_eq!(at_entry(&plan), [range(MIB, MIB + 600 * KIB), range(0x9_0000, 0x9_1000), command_line]);
    let block = block_of(&plan);
    assert_eq!((block.place, block.staged.len()), (PhysAddr::new(0x9_0000), 0x2000));
    assert_eq!(plan.entry, Entry::LinuxLow { at: PhysAddr::new(MIB), block });
    assert_eq!(plan.handover(), Handover::new(plan.entry, PhysAddr::new(0x9_0000)));
    assert_eq!(plan.boot_params.start(), block.staged.start());
    // Five times its length and 2 MiB, and nothing else there.
    assert_eq!(plan.kernel_run, range(MIB, 3 * MIB + 3000 * KIB));
    for part in [plan.initrd.unwrap(), block.staged] {
        assert!(!part.overlaps(plan.kernel_run) && part.start() >= PhysAddr::new(MIB) && map.is_ram(part));
    }
    assert!(!plan.initrd.unwrap().overlaps(block.staged));
    assert_eq!(map.e820().collect::<Vec<_>>(), before, "all of it stays RAM to the kernel");
}

#[test]
fn from_2_02_on_a_bzimage_has_its_parameters_anywhere_in_low_memory() {
    let plan = plan_in(&mut pc(64 * MIB), &header(2, 1), SIZES).unwrap();
    assert_eq!(plan.entry, Entry::Linux32(PhysAddr::new(MIB)));
    assert_eq!(plan.boot_params, range(0x1_0000, 0x1_1000));
}

#[test]
fn a_zimage_of_any_protocol_runs_at_0x1000_and_unpacks_itself_at_1_mib() {
    for version in [0, 1, 2, 6, 15] {
        let mut map = pc(128 * MIB);
        let plan = plan_in(&mut map, &header(version, 0), ZIMAGE).unwrap();
        let command_line = range(0x9_1000, 0x9_1015);
        assert_eq!(at_entry(&plan), [range(0x1000, 0x1000 + 400 * KIB), range(0x9_0000, 0x9_1000), command_line]);
        let block = block_of(&plan);
        assert_eq!(block.place, PhysAddr::new(0x1000));
        assert_eq!(plan.entry, Entry::LinuxLow { at: PhysAddr::new(0x1000), block });
        assert_eq!(plan.kernel.start(), block.staged.start());
        assert_eq!(plan.kernel_run.start(), PhysAddr::new(MIB));
        assert!(!block.staged.overlaps(plan.kernel_run) && !block.staged.overlaps(plan.initrd.unwrap()));
    }
}

#[test]
fn parameters_fill_the_fields_that_the_protocol_has() {
    let mut map = pc(64 * MIB);
    let old = header(1, 1);
    let plan = plan_in(&mut map, &old, SIZES).unwrap();
    let mut page = BootParams::new(&old, &plan, &map, None).unwrap();
    let check = |page: &[u8]| {
        assert_eq!(page[2..4], 64_512_u16.to_le_bytes(), "63 MiB");
        assert_eq!(page[0x20..0x24], [0x3f, 0xa3, 0, 0x10]);
        assert_eq!(page[0x228..0x22c], [0; 4], "2.02 has this field");
        assert_eq!(page[0x214..0x218], 0x10_0000_u32.to_le_bytes());
    };
    check(page.bytes());
    let memory = PhysRange::new(PhysAddr::new(0xfd00_0000), 16 << 20).unwrap();
    page.set_screen(ScreenInfo::new(&Framebuffer { memory, mode: Mode::DEFAULT, function: None }, false));
    check(page.bytes());
    assert_eq!(page.bytes()[0x0f], 0x23);

    let mut map = pc(64 * MIB);
    let new = header(6, 0);
    let plan = plan_in(&mut map, &new, ZIMAGE).unwrap();
    let page = BootParams::new(&new, &plan, &map, None).unwrap();
    assert_eq!(page.bytes()[..0x40], [0; 0x40]);
    assert_eq!(page.bytes()[0x228..0x22c], 0x9_1000_u32.to_le_bytes());
    assert_eq!(page.bytes()[0x214..0x218], 0x1000_u32.to_le_bytes());
}

#[test]
fn a_zimage_has_508_kib_at_most() {
    let plan = |kernel| plan_in(&mut pc(64 * MIB), &header(1, 0), Needs { kernel, ..ZIMAGE });
    assert_eq!(at_entry(&plan(508 << 10).unwrap())[0].end(), PhysAddr::new(0x8_0000));
    let error = plan((508 << 10) + 1).unwrap_err();
    assert_eq!(error, Error::ZImageTooLong { len: 520_193, limit: 520_192 });
    let text = "the kernel is a zImage with 520193 bytes, 520192 fit below 640 KiB; use a bzImage";
    assert_eq!(error.to_string(), text);
}

#[test]
fn the_command_line_ends_at_0x9a000_at_the_latest() {
    let long = debian_with(&[LEN, (0x211, &[0]), (0x214, &[0, 0x10, 0, 0]), (0x238, &[0xff, 0xff, 0, 0])]);
    let header = SetupHeader::parse(&long).unwrap();
    let plan = |command_line| plan_in(&mut pc(128 * MIB), &header, Needs { command_line, ..ZIMAGE });
    assert_eq!(at_entry(&plan(0x8fff).unwrap())[2], range(0x9_1000, 0x9_a000));
    assert_eq!(plan(0x9000), Err(Error::CommandLineDoesNotFit { needed: 0x9001 }));
}

#[test]
fn low_memory_that_is_not_free_is_not_overwritten() {
    let mut map = pc(64 * MIB);
    map.reserve(range(0x2_0000, 0x2_1000), MemoryType::RESERVED).unwrap();
    let error = plan_in(&mut map.clone(), &header(1, 0), ZIMAGE).unwrap_err();
    assert_eq!(error, Error::NoPcMemory { needed: range(0x1000, 0x9_2000) });
    assert!(error.to_string().contains("0x1000-0x91fff"), "{error}");
    assert!(plan_in(&mut map, &header(1, 1), SIZES).is_ok(), "a bzImage does not run there");
}

#[test]
fn the_message_for_a_small_machine_says_what_is_needed() {
    for (flags, sizes) in [(1, SIZES), (0, ZIMAGE)] {
        let error = plan_in(&mut pc(3 * MIB), &header(1, flags), sizes).unwrap_err();
        assert!(matches!(error, Error::KernelDoesNotFit { .. }), "{error:?}");
        assert!(plan_in(&mut pc(12 * MIB), &header(1, flags), sizes).is_ok());
    }
}
