extern crate std;

use std::string::ToString;
use std::vec::Vec;

use proptest::prelude::*;
use uefi_raw::table::boot::MemoryType;

use super::super::setup_header::tests::debian_with;
use super::super::{BootParams, Relocation};
use super::*;
use crate::addr::Alignment;
use crate::boot::Handover;
use crate::layout;
use crate::memory_map::HostMap;
use crate::memory_map::Placement;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The protected-mode part of the Debian kernel, with its signature.
const KERNEL: u64 = 0xd8_27c0;
const SIZES: Needs = Needs { kernel: KERNEL, initrd: 0, initrd_at: None, command_line: 20 };
const DEBIAN_INIT_SIZE: u64 = 0x337_8000;

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
}

/// A PC with `len` bytes of RAM below 4 GiB and some above.
fn pc(len: u64) -> MemoryMap {
    let mut map = HostMap::default();
    map.describe(range(0, len), MemoryType::CONVENTIONAL).unwrap();
    map.describe(range(4 * GIB, 5 * GIB), MemoryType::CONVENTIONAL).unwrap();
    map.carve_pc().unwrap();
    MemoryMap::new(map)
}

/// A PC with `low` bytes of RAM below 4 GiB, and `high` bytes above.
fn pc_with(low: u64, high: u64) -> MemoryMap {
    let mut map = HostMap::default();
    map.describe(range(0, low), MemoryType::CONVENTIONAL).unwrap();
    map.describe(range(4 * GIB, 4 * GIB + high), MemoryType::CONVENTIONAL).unwrap();
    map.carve_pc().unwrap();
    MemoryMap::new(map)
}

fn plan_in(map: &mut MemoryMap, patches: &[(usize, &[u8])], sizes: Needs) -> Result<LoadPlan, Error> {
    let header = SetupHeader::parse(&debian_with(patches)).unwrap();
    plan(&header, &sizes, Some(PhysAddr::new(MIB)), map)
}

#[test]
fn debians_kernel_runs_at_its_preferred_address_on_512_mib() {
    let mut map = pc(512 * MIB);
    let before: Vec<_> = map.e820().collect();
    let plan = plan_in(&mut map, &[], Needs { initrd: 5_000_001, ..SIZES }).unwrap();
    assert_eq!(plan.kernel, range(16 * MIB, 16 * MIB + KERNEL));
    assert_eq!(plan.kernel_run, range(16 * MIB, 16 * MIB + DEBIAN_INIT_SIZE));
    assert_eq!(plan.kernel_alignment, None);
    assert_eq!(plan.entry, Entry::Linux64(PhysAddr::new(16 * MIB + 0x200)));
    assert_eq!(plan.initrd, Some(range(506 * MIB, 506 * MIB + 5_000_001)));
    assert_eq!(plan.boot_params, range(0x1_0000, 0x1_1000));
    assert_eq!(plan.command_line, range(0x1_1000, 0x1_1015));
    assert_eq!(plan.handover(), Handover::new(plan.entry, PhysAddr::new(0x1_0000)));
    assert_eq!(map.e820().collect::<Vec<_>>(), before, "all of it stays RAM to the kernel");
}

#[test]
fn a_kernel_without_a_64_bit_entry_point_is_entered_at_its_start() {
    let plan = plan_in(&mut pc(512 * MIB), &[(0x236, &[0, 0])], SIZES).unwrap();
    assert_eq!(plan.entry, Entry::Linux32(PhysAddr::new(16 * MIB)));
}

/// A known mistake of other firmware: an initrd behind the kernel's file but inside its `init_size` is overwritten when
/// the kernel unpacks.
#[test]
fn init_size_never_overlaps_the_initrd() {
    // Just enough for both: the initrd is right behind the run range, far behind the file.
    let ram = 16 * MIB + DEBIAN_INIT_SIZE + MIB;
    let sizes = Needs { initrd: MIB, ..SIZES };
    let plan = plan_in(&mut pc(ram), &[], sizes).unwrap();
    assert_eq!(plan.initrd, Some(range(16 * MIB + DEBIAN_INIT_SIZE, ram)));
    // One more byte, and the initrd goes below the kernel, never into it.
    let plan = plan_in(&mut pc(ram), &[], Needs { initrd: MIB + 1, ..SIZES }).unwrap();
    assert_eq!(plan.initrd, Some(range(14 * MIB, 15 * MIB + 1)));
    assert!(!plan.initrd.unwrap().overlaps(plan.kernel_run));
}

#[test]
fn a_machine_whose_memory_ends_with_init_size_is_large_enough() {
    // The initrd goes below the kernel, and everything else into low memory.
    let least = 16 * MIB + DEBIAN_INIT_SIZE;
    let sizes = |initrd| Needs { initrd, command_line: 2048, ..SIZES };
    let plan = plan_in(&mut pc_with(least, 0), &[], sizes(15 << 20)).unwrap();
    assert_eq!(plan.kernel_run, range(16 * MIB, least));
    assert_eq!(plan.initrd, Some(range(MIB, 16 * MIB)));
    assert!(matches!(plan_in(&mut pc_with(least, 0), &[], sizes((15 << 20) + 1)), Err(Error::InitrdDoesNotFit { .. })));
    let less = least - Alignment::PAGE.bytes();
    assert!(matches!(plan_in(&mut pc_with(less, 0), &[], sizes(0)), Err(Error::KernelDoesNotFit { .. })));
}

#[test]
fn a_file_longer_than_init_size_is_reserved_whole() {
    let plan = plan_in(&mut pc(512 * MIB), &[(0x260, &[0, 0x10, 0, 0])], SIZES).unwrap();
    assert!(plan.kernel_run.contains(plan.kernel));
}

#[test]
fn an_occupied_preferred_address_moves_the_kernel_up() {
    let mut map = pc(512 * MIB);
    map.reserve(range(32 * MIB, 32 * MIB + 0x1000), MemoryType::RESERVED).unwrap();
    let plan = plan_in(&mut map, &[], SIZES).unwrap();
    assert_eq!(plan.kernel.start(), PhysAddr::new(34 * MIB), "the next multiple of kernel_alignment");
    assert_eq!(plan.kernel_run.len(), DEBIAN_INIT_SIZE);
}

/// If a large alignment leaves no room, a smaller one may, and the kernel's header must say so.
#[test]
fn alignment_is_reduced_if_there_is_no_room_otherwise() {
    let patches: &[(usize, &[u8])] = &[(0x230, &(64 * MIB as u32).to_le_bytes()), (0x235, &[21])];
    let mut map = pc(16 * MIB + DEBIAN_INIT_SIZE);
    let plan = plan_in(&mut map, patches, SIZES).unwrap();
    assert_eq!(plan.kernel.start(), PhysAddr::new(16 * MIB));
    assert_eq!(plan.kernel_alignment, Some(16 * MIB as u32));
    let header = SetupHeader::parse(&debian_with(patches)).unwrap();
    let page = BootParams::new(&header, &plan, &map, None).unwrap();
    assert_eq!(page.bytes()[0x230..0x234], (16 * MIB as u32).to_le_bytes());
    // But not below the kernel's minimum.
    let patches: &[(usize, &[u8])] = &[(0x230, &(64 * MIB as u32).to_le_bytes()), (0x235, &[26]), (0x236, &[1, 0])];
    assert!(matches!(
        plan_in(&mut pc(16 * MIB + DEBIAN_INIT_SIZE), patches, SIZES),
        Err(Error::KernelDoesNotFit { .. })
    ));
}

/// A kernel that is not relocatable moves itself to its preferred address. Both places are reserved, and the memory
/// between.
#[test]
fn a_fixed_kernel() {
    let plan = plan_in(&mut pc(512 * MIB), &[(0x234, &[0])], SIZES).unwrap();
    assert_eq!(plan.kernel.start(), PhysAddr::new(MIB));
    assert_eq!(plan.kernel_run, range(MIB, 16 * MIB + DEBIAN_INIT_SIZE));
    assert_eq!(plan.entry, Entry::Linux64(PhysAddr::new(MIB + 0x200)));
    let mut map = pc(512 * MIB);
    map.reserve(range(20 * MIB, 21 * MIB), MemoryType::RESERVED).unwrap();
    assert!(matches!(plan_in(&mut map, &[(0x234, &[0])], SIZES), Err(Error::KernelDoesNotFit { .. })));
}

/// The header of protocol 2.06 does not say how much memory the kernel needs.
#[test]
fn an_old_kernel_gets_an_estimated_run_range() {
    let sizes = Needs { kernel: 2 * MIB, initrd: MIB, ..SIZES };
    let patches: &[(usize, &[u8])] =
        &[(0x1f4, &[0, 0, 2, 0]), (0x206, &[6, 2]), (0x22c, &0x37ff_ffff_u32.to_le_bytes())];
    let plan = plan_in(&mut pc(2 * GIB), patches, sizes).unwrap();
    assert_eq!(plan.kernel_run, range(MIB, 25 * MIB));
    assert_eq!(plan.entry, Entry::Linux32(PhysAddr::new(MIB)));
    assert_eq!(plan.initrd.unwrap().end(), PhysAddr::new(0x3800_0000 - MIB), "on a large page below initrd_addr_max");
}

/// A 64-bit kernel's `initrd_addr_max` is a limit of its 32-bit sibling.
#[test]
fn initrd_limits() {
    let sizes = Needs { initrd: 64 * MIB, ..SIZES };
    let plan = plan_in(&mut pc(3 * GIB), &[], sizes).unwrap();
    assert_eq!(plan.initrd.unwrap().end(), PhysAddr::new(3 * GIB));
    let plan = plan_in(&mut pc(3 * GIB), &[(0x236, &[1, 0])], sizes).unwrap();
    assert_eq!(plan.initrd.unwrap().end(), PhysAddr::new(2 * GIB));
}

#[test]
fn messages_say_what_to_change() {
    let text = |ram, patches: &[(usize, &[u8])], sizes| plan_in(&mut pc(ram), patches, sizes).unwrap_err().to_string();
    assert_eq!(
        text(64 * MIB, &[(0x236, &[1, 0])], SIZES),
        "the kernel needs 52 MiB in one piece from 0x1000000 up, which ends at 68 MiB; the machine has 1088 MiB in all: \
         give it more memory"
    );
    assert_eq!(
        text(128 * MIB, &[(0x236, &[1, 0])], Needs { initrd: 300 * MIB, ..SIZES }),
        "the initrd of 300 MiB does not fit below 0x80000000, 60 MiB are free in one piece; give the machine more \
         memory"
    );
    assert_eq!(
        text(128 * MIB, &[], Needs { initrd: 1025 * MIB, ..SIZES }),
        "the initrd of 1025 MiB does not fit, 1024 MiB are free in one piece; give the machine more memory"
    );
    assert_eq!(
        text(128 * MIB, &[], Needs { command_line: 2049, ..SIZES }),
        "the command line has 2048 bytes, the kernel accepts 2047; shorten it"
    );
    // No machine has that much memory, or the header is wrong.
    let beyond = "is the file whole?";
    let wrapping: &[(usize, &[u8])] = &[(0x258, &[0xff; 8])];
    assert_eq!(
        text(128 * MIB, wrapping, SIZES),
        "the kernel's header asks for 52 MiB from 0xffffffffffffffff up (init_size, pref_address), and it can use none \
         from 0x400000000000 on; is the file whole?"
    );
    let all: &[(usize, &[u8])] = &[(0x236, &[1, 0]), (0x260, &[0xff; 4])];
    assert!(text(128 * MIB, all, SIZES).contains("4096 MiB from 0x1000000 up"));
    assert!(text(128 * MIB, all, SIZES).contains("none from 0x100000000 on; is the file whole?"));
    let fixed: &[(usize, &[u8])] = &[(0x234, &[0]), (0x258, &[0, 0, 0, 0, 1, 0, 0, 0])];
    assert!(text(128 * MIB, fixed, SIZES).contains("none from 0x100000000 on; is the file whole?"));
    let low: &[(usize, &[u8])] =
        &[(0x211, &[0]), (0x214, &[0, 0x10, 0, 0]), (0x1f4, &[1, 0, 0, 0]), (0x258, &[0xff; 8])];
    assert!(text(128 * MIB, low, Needs { kernel: 4096, ..SIZES }).ends_with(beyond));
    // Memory above 4 GiB would do for this one.
    assert!(text(64 * MIB, &[(0x260, &[0xff; 4])], SIZES).ends_with("give it more memory"));
    assert_eq!(
        text(128 * MIB, &[], Needs { kernel: KERNEL - 0x1000, ..SIZES }),
        "the kernel file is cut short: it has 14182336 bytes, and 14184960 by its header; build or copy it again"
    );
    let no_limit: &[(usize, &[u8])] = &[(0x238, &[0xff; 4])];
    assert!(text(128 * MIB, no_limit, Needs { command_line: MIB, ..SIZES }).contains("below 640 KiB"));
}

#[test]
fn command_lines_of_any_permitted_length_fit() {
    let plan = |command_line| plan_in(&mut pc(128 * MIB), &[], Needs { command_line, ..SIZES }).unwrap();
    assert_eq!(plan(2048).command_line.len(), 2049);
    assert_eq!(plan(1).command_line.len(), 2);
    assert_eq!(plan(0).command_line.len(), 1, "the kernel needs an empty one");
}

/// A kernel that may be above 4 GiB, and its initrd, go there only if they do not fit below.
#[test]
fn parts_that_do_not_fit_below_4_gib_go_above() {
    let sizes = Needs { initrd: 100 * MIB, ..SIZES };
    let plan = plan_in(&mut pc_with(512 * MIB, 4 * GIB), &[], sizes).unwrap();
    assert!(plan.initrd.unwrap().end().get() <= 512 * MIB && plan.page_tables.is_none());
    assert_eq!(plan.above_4_gib().count(), 0);

    // Only the initrd.
    let plan = plan_in(&mut pc_with(128 * MIB, 4 * GIB), &[], sizes).unwrap();
    assert_eq!(plan.kernel.start(), PhysAddr::new(16 * MIB));
    assert_eq!(plan.initrd, Some(range(8 * GIB - 100 * MIB, 8 * GIB)));
    assert_eq!(plan.above_4_gib().collect::<Vec<_>>(), [plan.initrd.unwrap()]);
    assert_eq!(plan.page_tables, Some(range(0x1_2000, 0x1_4000)));

    // The kernel, aligned, and the initrd below.
    let plan = plan_in(&mut pc_with(64 * MIB, 4 * GIB), &[], Needs { initrd: 10 * MIB, ..SIZES }).unwrap();
    assert_eq!(plan.kernel_run, range(4 * GIB, 4 * GIB + DEBIAN_INIT_SIZE));
    assert_eq!(plan.entry, Entry::Linux64(PhysAddr::new(4 * GIB + 0x200)));
    assert!(plan.initrd.unwrap().end().get() <= 64 * MIB);
    assert_eq!(plan.above_4_gib().collect::<Vec<_>>(), [plan.kernel_run]);

    // Both.
    let plan = plan_in(&mut pc_with(64 * MIB, 4 * GIB), &[], sizes).unwrap();
    assert_eq!(plan.kernel.start(), PhysAddr::new(4 * GIB));
    assert_eq!(plan.initrd, Some(range(8 * GIB - 100 * MIB, 8 * GIB)));
    assert_eq!(plan.page_tables.unwrap().len(), 4 * 4096);

    // Nothing goes above 4 GiB if the flag is missing, the 64-bit entry point is missing, or the kernel is not
    // relocatable.
    for patches in [&[(0x236, &[1, 0][..])], &[(0x236, &[2, 0][..])]] {
        assert!(matches!(
            plan_in(&mut pc_with(64 * MIB, 4 * GIB), patches, SIZES),
            Err(Error::KernelDoesNotFit { .. })
        ));
        assert!(matches!(
            plan_in(&mut pc_with(128 * MIB, 4 * GIB), patches, sizes),
            Err(Error::InitrdDoesNotFit { limit: Some(_), .. })
        ));
    }
    assert!(plan_in(&mut pc_with(64 * MIB, 4 * GIB), &[(0x234, &[0])], SIZES).is_err());
}

#[test]
fn an_initrd_of_6_gib_fits_on_a_guest_of_16_gib() {
    let header = SetupHeader::parse(&debian_with(&[])).unwrap();
    let sizes = Needs { initrd: 6 * GIB + 1, ..SIZES };
    // As q35 has it: 2 GiB below 4 GiB.
    let mut map = pc_with(2 * GIB, 14 * GIB);
    let before: Vec<_> = map.e820().collect();
    let plan = plan(&header, &sizes, None, &mut map).unwrap();
    assert_eq!(plan.kernel.start(), PhysAddr::new(16 * MIB));
    assert_eq!(plan.initrd, Some(range(12 * GIB - 2 * MIB, 18 * GIB - 2 * MIB + 1)));
    // Seven page directories and the table above them.
    assert_eq!(plan.page_tables.unwrap().len(), 8 * 4096);
    let page = BootParams::new(&header, &plan, &map, None).unwrap();
    let field = |at: usize| u64::from(u32::from_le_bytes(page.bytes()[at..at + 4].try_into().unwrap()));
    let initrd = plan.initrd.unwrap();
    assert_eq!(field(0xc0) << 32 | field(0x218), initrd.start().get());
    assert_eq!(field(0xc4) << 32 | field(0x21c), 6 * GIB + 1);
    assert_eq!(map.e820().collect::<Vec<_>>(), before, "all of it stays RAM to the kernel");
    // With 2 + 6 GiB it does not fit: all memory above 4 GiB is one byte too little.
    let error = super::plan(&header, &sizes, None, &mut pc_with(2 * GIB, 6 * GIB)).unwrap_err();
    assert_eq!(error, Error::InitrdDoesNotFit { size: 6 * GIB + 1, limit: None, free: 6 * GIB });
}

#[derive(Debug, Clone)]
struct Case {
    ram: Vec<(u64, u64)>,
    reserved: Vec<(u64, u64)>,
    header: Vec<(usize, Vec<u8>)>,
    sizes: Needs,
}

fn cases() -> impl Strategy<Value = Case> {
    let piece = |len: u64| (0..1024 * MIB / 0x800, 1..len / 0x800).prop_map(|(at, len)| (at * 0x800, len * 0x800));
    let exponent = prop_oneof![6 => 12..25_u32, 1 => 0..34_u32];
    let version = prop::sample::select(std::vec![
        0x200_u16, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x209, 0x20a, 0x20c, 0x20f, 0xffff
    ]);
    let size = |most: u64| prop_oneof![16 => 1..most as u32, 2 => Just(0), 1 => any::<u32>()];
    let address = prop_oneof![8 => (0..64_u64).prop_map(|n| n * MIB), 1 => 0..4 * GIB, 1 => any::<u64>()];
    let header = (
        (version, any::<u8>(), exponent, 0..40_u8, any::<u16>(), prop_oneof![4 => Just(1_u8), 1 => Just(0)]),
        (size(64 * MIB), prop_oneof![8 => 256..4096_u32, 1 => any::<u32>()], address.clone(), size(2 * GIB), address),
    )
        .prop_map(
            |(
                (version, movable, alignment, least, xloadflags, loadflags),
                (init_size, line, preferred, initrd, data),
            )| {
                std::vec![
                    (0x1f4, std::vec![1, 0, 0, 0]),
                    (0x206, version.to_le_bytes().to_vec()),
                    (0x211, std::vec![loadflags]),
                    (0x22c, initrd.to_le_bytes().to_vec()),
                    (0x230, 1_u32.checked_shl(alignment).unwrap_or(1).to_le_bytes().to_vec()),
                    (0x234, std::vec![movable & 1, least]),
                    (0x236, xloadflags.to_le_bytes().to_vec()),
                    (0x238, line.to_le_bytes().to_vec()),
                    (0x250, data.to_le_bytes().to_vec()),
                    (0x258, preferred.to_le_bytes().to_vec()),
                    (0x260, init_size.to_le_bytes().to_vec()),
                ]
            },
        );
    let sizes = (1..32 * MIB, size(256 * MIB), size(1024)).prop_map(|(kernel, initrd, command_line)| Needs {
        kernel,
        initrd: initrd.into(),
        initrd_at: None,
        command_line: command_line.into(),
    });
    let ram = prop::collection::vec(piece(1024 * MIB), 1..6).prop_map(|mut ram| {
        ram.push((0, 640 * KIB));
        ram.push((MIB, 96 * MIB));
        ram
    });
    let high = prop_oneof![
        2 => Just((4 * GIB, 0)),
        2 => (0..256 * MIB, 0..1024 * MIB).prop_map(|(at, len)| (4 * GIB + at, len)),
        1 => (500..520_u64, 1..16 * GIB).prop_map(|(at, len)| (at * GIB, len)),
    ];
    let ram = (ram, high).prop_map(|(mut ram, high)| {
        ram.push(high);
        ram
    });
    (ram, prop::collection::vec(piece(16 * MIB), 0..4), header, sizes).prop_map(|(ram, reserved, header, sizes)| Case {
        ram,
        reserved,
        header,
        sizes,
    })
}

fn whole_pages(range: PhysRange) -> PhysRange {
    let end = range.end().align_up(Alignment::PAGE).unwrap();
    PhysRange::from_bounds(range.start().align_down(Alignment::PAGE), end).unwrap()
}

proptest! {
    /// No parts overlap, all of them were free memory, and the kernel gets all that its header asks for.
    #[test]
    fn every_plan_holds(case in cases()) {
        let mut map = HostMap::default();
        for (start, len) in case.ram {
            map.describe(range(start, start + len), MemoryType::CONVENTIONAL).unwrap();
        }
        for (start, len) in case.reserved {
            map.describe(range(start, start + len), MemoryType::RESERVED).unwrap();
        }
        map.carve_pc().unwrap();
        let mut map = MemoryMap::new(map);
        let before = map.clone();
        let patches: Vec<_> = case.header.iter().map(|(at, bytes)| (*at, bytes.as_slice())).collect();
        let header = SetupHeader::parse(&debian_with(&patches)).unwrap();
        let plan = match plan(&header, &case.sizes, Some(PhysAddr::new(MIB)), &mut map) {
            Ok(plan) => plan,
            Err(Error::InitrdDoesNotFit { size, .. }) => {
                let pages = size.next_multiple_of(4096);
                let space = range(MIB, header.initrd_space().end().get().max(MIB));
                prop_assert_eq!(map.find_free(pages, Alignment::PAGE, space, Placement::Bottom), None);
                for space in paging::SPACES.iter().filter(|_| header.may_be_above_4_gib()) {
                    prop_assert_eq!(map.find_free(pages, Alignment::PAGE, *space, Placement::Bottom), None);
                }
                return Ok(());
            }
            Err(Error::KernelDoesNotFit { needed, at, .. }) => {
                if let (Relocation::Movable { least, .. }, true) = (header.relocation(), at < PhysRange::LOW_4_GIB.end()) {
                    let space = range(at.get(), 4 * GIB);
                    let pages = needed.next_multiple_of(4096);
                    let place = before.find_free(pages, least.max(Alignment::PAGE), space, Placement::Bottom);
                    prop_assert_eq!(place, None);
                }
                return Ok(());
            }
            Err(_) => return Ok(()),
        };

        let block = match plan.entry {
            Entry::LinuxLow { block, .. } => Some(block),
            _ => None,
        };
        let staged = block.map(|block| block.staged);
        // There may be no room for what the host appended, which is then left out.
        let appended = plan.appended.map(|appended| appended.place).filter(|place| !place.is_empty());
        let parts: Vec<_> = [Some(plan.kernel_run), plan.initrd, plan.page_tables, appended]
            .into_iter()
            .chain(if block.is_some() { [staged, None] } else { [Some(plan.command_line), Some(plan.boot_params)] })
            .flatten()
            .map(whole_pages)
            .collect();
        for (i, &part) in parts.iter().enumerate() {
            prop_assert!(before.is_free(part), "{part:?}");
            prop_assert!(map.is_ram(part) && !map.is_free(part));
            let low = PhysRange::LOW_4_GIB.contains(part);
            prop_assert!(low || header.may_be_above_4_gib() && paging::can_map(part), "{part:?}");
            prop_assert!(!layout::FIRMWARE_RAM.overlaps(part));
            prop_assert!(part.start().get() >= 0x1000);
            for &other in &parts[i + 1..] {
                prop_assert!(!part.overlaps(other));
            }
        }
        prop_assert_eq!(map.e820().collect::<Vec<_>>(), before.e820().collect::<Vec<_>>());

        let kernel = if header.is_loaded_high() { plan.kernel_run } else { staged.unwrap() };
        prop_assert!(kernel.contains(plan.kernel));
        if let Some(block) = block {
            prop_assert!(block.staged.contains(plan.command_line) && block.staged.contains(plan.boot_params));
            prop_assert!(block.place.get() >= 0x1000 && block.place.get() + block.staged.len() <= 0x9_a000);
        }
        let after = |part: PhysRange| PhysRange::new(plan.at_entry(part.start()), part.len()).unwrap();
        let low = [plan.command_line, plan.boot_params].map(after);
        prop_assert!(!low[0].overlaps(low[1]) && low.iter().all(|part| !part.overlaps(after(plan.kernel))));
        prop_assert_eq!(plan.kernel.len(), case.sizes.kernel);
        prop_assert_eq!(plan.initrd.map_or(0, PhysRange::len), case.sizes.initrd);
        let fits = |initrd| header.initrd_space().contains(initrd) || paging::can_map(initrd);
        prop_assert!(plan.initrd.is_none_or(fits));
        let tables = plan.above_4_gib().map(paging::room_for).sum::<u64>();
        prop_assert_eq!(plan.page_tables.map_or(0, PhysRange::len), tables);
        prop_assert!(low.iter().all(|part| part.end().get() <= 640 * KIB));

        // The runtime start by boot.rst, from the fields that the kernel itself reads.
        let page = BootParams::new(&header, &plan, &map, None).unwrap();
        let field = |at: usize| u32::from_le_bytes(page.bytes()[at..at + 4].try_into().unwrap());
        let load = plan.kernel.start().get();
        prop_assert_eq!(field(0x214), plan.at_entry(plan.kernel.start()).get() as u32);
        let start = match header.relocation() {
            Relocation::Fixed => header.preferred_address().get(),
            Relocation::Movable { least, .. } => {
                let alignment = u64::from(field(0x230));
                prop_assert!(alignment >= least.bytes().min(4096));
                load.next_multiple_of(alignment).max(header.preferred_address().get())
            }
        };
        prop_assert!(plan.kernel_run.contains(range(start, start + header.run_len(case.sizes.kernel))));
        let appended = MIB + header.kernel_len()..MIB + case.sizes.kernel + u64::from(header.setup_len());
        let is_appended = case.sizes.kernel > header.kernel_len() && appended.contains(&header.setup_data());
        prop_assert_eq!(plan.appended.is_some(), is_appended && block.is_none());
    }
}
