//! Linux kernels: the setup header, the plan of addresses, and the page of parameters.
//!
//! Input: sizes, the host's own address, up to 15 regions of memory, and changes to the setup code of Debian's kernel, or other
//! setup code.

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::boot::linux::{self, BootParams, SetupHeader};
use firstlight::boot::{Entry, Needs};
use firstlight::hal::paging;
use firstlight::memory_map::{E820Entry, HostMap, MemoryMap};

use crate::input::Input;
use crate::{check, one_line};

/// The first 1024 bytes of Debian's kernel, but for the length (`syssize`): that of a file with 16 bytes of it, so that one
/// of any size is whole.
pub(crate) const SETUP: &[u8] = &{
    let mut setup = *include_bytes!("../../src/boot/testdata/vmlinuz-6.1.0-56-cloud-amd64.setup");
    [setup[0x1f4], setup[0x1f5], setup[0x1f6], setup[0x1f7]] = [1, 0, 0, 0];
    setup
};

/// A map from up to 15 regions, in pages; RAM from zero to a number of MiB first.
pub(crate) fn map(input: &mut Input<'_>) -> Option<HostMap> {
    let (mib, count): (u16, u8) = (input.take(), input.take());
    let entry =
        |addr: u64, size: u64, kind: u32| [&addr.to_le_bytes()[..], &size.to_le_bytes(), &kind.to_le_bytes()].concat();
    let mut file = entry(0, u64::from(mib) << 20, E820Entry::RAM);
    for _ in 0..count & 15 {
        let (page, pages, kind): (u32, u32, u8) = (input.take(), input.take(), input.take());
        file.extend(entry(u64::from(page) << 12, u64::from(pages) << 12, u32::from(kind & 7)));
    }
    let mut map = HostMap::from_e820(&file).ok()?;
    if count & 16 == 0 { map.carve_pc() } else { map.carve_pc_that_sleeps() }.ok()?;
    Some(map)
}

/// Parses the header, plans, and makes the page. All parts were free RAM, are disjoint, and are RAM to the kernel. The kernel is
/// at an address that its header allows, the initrd where the kernel can find it; the page has their addresses.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let [kernel, initrd, command_line, host]: [u32; 4] = input.take();
    let Some(map) = map(&mut input) else { return };
    let mut map = MemoryMap::new(map);
    let patches = input.take::<u8>();
    let mut setup = SETUP.to_vec();
    if patches == 0xff {
        setup = input.rest().to_vec();
    } else {
        for _ in 0..patches & 15 {
            let (at, bytes): (u16, u32) = (input.take(), input.take());
            let at = 0x1e0 + usize::from(at) % 0xb0;
            setup.iter_mut().skip(at).zip(bytes.to_le_bytes()).for_each(|(to, from)| *to = from);
        }
    }
    let header = match SetupHeader::parse(&setup) {
        Ok(header) => header,
        Err(error) => return one_line(&error.to_string()),
    };
    let [kernel, initrd, command_line] = [kernel, initrd, command_line].map(u64::from);
    let needs = Needs { kernel, initrd, initrd_at: None, command_line };
    let before = map.clone();
    let plan = match linux::plan(&header, &needs, Some(PhysAddr::new(host.into())), &mut map) {
        Ok(plan) => plan,
        Err(error) => return one_line(&error.to_string()),
    };
    check::map(&map);
    let low = match plan.entry {
        Entry::LinuxLow { block, .. } => Some(block.staged),
        _ => None,
    };
    let mut parts = match low {
        Some(staged) => {
            for part in [plan.command_line, plan.boot_params] {
                assert!(staged.contains(part), "{part} is not in {staged}");
            }
            check::disjoint(&[plan.command_line, plan.boot_params, plan.kernel]);
            vec![plan.kernel_run, staged]
        }
        None => vec![plan.kernel_run, plan.command_line, plan.boot_params],
    };
    assert!(parts[..2].iter().any(|part| part.contains(plan.kernel)), "{}", plan.kernel);
    parts.extend(plan.initrd);
    parts.extend(plan.page_tables);
    parts.extend(plan.appended.map(|appended| appended.place).filter(|place| !place.is_empty()));
    check::disjoint(&parts);
    for part in parts {
        assert!(before.is_free(part), "{part} was not free");
        assert!(map.is_ram(part) && !map.is_free(part), "{part} is not reserved");
    }
    assert!(plan.kernel.len() == kernel, "{}", plan.kernel);
    assert_eq!(plan.initrd.map_or(0, PhysRange::len), initrd);
    for part in
        plan.initrd.iter().filter(|initrd| !header.initrd_space().contains(**initrd)).chain(&above(plan.kernel_run))
    {
        assert!(header.may_be_above_4_gib() && paging::can_map(*part) && plan.page_tables.is_some(), "{part}");
    }
    assert!(plan.command_line.len() > command_line.saturating_sub(1));
    let offset = header.entry_offset(kernel).unwrap();
    match plan.entry {
        Entry::Linux64(at) => assert_eq!(Some(at), plan.kernel.start().checked_add(0x200)),
        Entry::LinuxLow { at, block } => assert_eq!(Some(at), block.at_entry(plan.kernel.start()).checked_add(offset)),
        entry => assert_eq!(entry, Entry::Linux32(plan.kernel.start().checked_add(offset).unwrap())),
    }
    let page = BootParams::new(&header, &plan, &map, None).unwrap();
    let page = page.bytes();
    let u32_at = |at: usize| u64::from(u32::from_le_bytes(page[at..at + 4].try_into().unwrap()));
    assert_eq!(page.len(), 4096);
    assert_eq!(u32_at(0x218) | u32_at(0xc0) << 32, plan.initrd.unwrap_or_default().start().get());
    assert!(low.is_some() || u32_at(0x228) | u32_at(0xc8) << 32 == plan.command_line.start().get());
    assert_eq!(usize::from(page[0x1e8]), map.e820().count().min(128));
    assert_eq!(page[0x1ef], 0, "the sentinel");
}

/// The range, if it is not all below 4 GiB.
fn above(range: PhysRange) -> Option<PhysRange> {
    Some(range).filter(|range| !PhysRange::LOW_4_GIB.contains(*range))
}

/// The host's sizes and memory at its simplest: sizes, address, MiB, no region.
fn head(sizes: [u32; 4], mib: u16) -> Vec<u8> {
    [&sizes.map(u32::to_le_bytes).concat()[..], &mib.to_le_bytes(), &[0]].concat()
}

/// Kernels that fit, that just do not, and headers of older protocols.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (kernel, initrd, mib) in [
        (0xd8_27c0, 0x12_3457, 512),
        (0xd8_27c0, 0, 64),
        (1, 0, 32),
        (9 << 20, 1 << 30, 2048),
        (9 << 20, 3 << 30, 2048),
    ] {
        let head = head([kernel, initrd, 20, 0x10_0000], mib);
        seeds.push([head.as_slice(), &[0]].concat());
        for version in
            [0x200_u16, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x208, 0x209, 0x20a, 0x20b, 0x20c, 0x20f, 0xffff]
        {
            let [low, high] = version.to_le_bytes();
            seeds.push([head.as_slice(), &[1, 0x26, 0, low, high, 0, 0]].concat());
        }
        // A zImage: not loaded high, and of an old protocol.
        seeds.push([head.as_slice(), &[3, 0x31, 0, 0, 0, 0, 0, 0x34, 0, 0, 0x10, 0, 0, 0x26, 0, 0, 2, 0, 0]].concat());
        // Longer than the file.
        seeds.push([head.as_slice(), &[1, 0x14, 0, 0xff, 0xff, 0xff, 0xff]].concat());
        // No relocation, setup_data behind the kernel, another preferred address, another init_size.
        seeds.push([head.as_slice(), &[1, 0x54, 0, 0, 0, 0x15, 0]].concat());
        seeds.push([head.as_slice(), &[2, 0x70, 0, 0, 0, 0x20, 0, 0x74, 0, 0, 0, 0, 0]].concat());
        seeds.push([head.as_slice(), &[1, 0x78, 0, 0, 0, 0, 0xff]].concat());
        seeds.push([head.as_slice(), &[1, 0x80, 0, 0xff, 0xff, 0xff, 0xff]].concat());
        seeds.push([head.as_slice(), &[0xff], SETUP].concat());
        let region =
            |page: u32, pages: u32, kind: u8| [&page.to_le_bytes()[..], &pages.to_le_bytes(), &[kind]].concat();
        let mut regions = head.clone();
        *regions.last_mut().unwrap() = 2 | 16;
        seeds.push([regions, region(0x1000, 0x10, 2), region(0x10_0000, 0x10_0000, 1), vec![0]].concat());
    }
    seeds
}
