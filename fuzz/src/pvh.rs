//! ELF kernels that the host has put into memory, and their parameters.
//!
//! Input: the kernel's address, its size and entry point, the sizes of its other parts, and up to 15 regions of memory.

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::boot::pvh::{HvmStartInfo, PvhPlan};
use firstlight::boot::{Entry, Needs, PlacedKernel};
use firstlight::layout;
use firstlight::memory_map::MemoryMap;

use crate::input::Input;
use crate::{check, one_line};

/// Reserves the kernel, plans, and makes the structure. The kernel was free RAM, not the firmware's, and contains its entry
/// point. All parts were free RAM and are disjoint. The structure has their addresses, and its lists are inside it.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let [start, size, entry, initrd, command_line]: [u32; 5] = input.take();
    let Some(mut map) = crate::bzimage::map(&mut input) else { return };
    let before = map.clone();
    let address = |at: u32| PhysAddr::new(at.into());
    let kernel = match PlacedKernel::new(address(start), size, address(entry)) {
        Ok(kernel) => kernel,
        Err(error) => return one_line(&error.to_string()),
    };
    if let Err(error) = kernel.reserve(&mut map) {
        assert_eq!(map, before, "the map is another after: {error}");
        return one_line(&error.to_string());
    }
    let mut map = MemoryMap::new(map);
    assert!(before.is_free(kernel.image) && !kernel.image.overlaps(layout::BOOT_RAM));
    assert!(kernel.image.contains_addr(kernel.entry));
    let needs = Needs { initrd: initrd.into(), command_line: command_line.into(), ..Needs::default() };
    let plan = match PvhPlan::new(kernel, &needs, &mut map) {
        Ok(plan) => plan,
        Err(error) => return one_line(&error.to_string()),
    };
    check::map(&map);
    let mut parts = vec![kernel.image, plan.command_line, plan.start_info];
    parts.extend(plan.initrd);
    check::disjoint(&parts);
    for part in parts {
        assert!(before.is_free(part), "{part} was not free");
        assert!(map.is_ram(part) && !map.is_free(part), "{part} is not reserved");
    }
    assert_eq!(plan.initrd.map_or(0, PhysRange::len), u64::from(initrd));
    assert_eq!(plan.handover().entry, Entry::Pvh(kernel.entry));
    let info = HvmStartInfo::new(&plan, &map, None).unwrap();
    let info = info.bytes();
    let u32_at = |at: usize| u32::from_le_bytes(info[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(info[at..at + 8].try_into().unwrap());
    let own = |at: u64| usize::try_from(at - plan.start_info.start().get()).unwrap();
    assert!(info.len() as u64 <= plan.start_info.len());
    assert_eq!((u32_at(0), u32_at(12)), (0x336e_c578, u32::from(initrd != 0)));
    if initrd != 0 {
        let module = own(u64_at(16));
        assert_eq!(u64_at(module), plan.initrd.unwrap().start().get());
        assert_eq!(u64_at(module + 8), u64::from(initrd));
    }
    assert_eq!(u64_at(24), plan.command_line.start().get());
    let entries = own(u64_at(40));
    assert_eq!(u32_at(48) as usize, map.e820().count());
    for (number, entry) in map.e820().enumerate() {
        let at = entries + 24 * number;
        assert_eq!(
            (u64_at(at), u64_at(at + 8), u32_at(at + 16)),
            (entry.addr.get(), entry.size.get(), entry.kind.get())
        );
    }
}

/// Kernels at 1 MiB and elsewhere.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (start, size, entry) in [
        (0x10_0000, 0x2000, 0x10_0010),
        (0x100_0000, 0x200_0000, 0x120_0000),
        (0x9_0000, 0x1000, 0x9_0000),
        (0x1_0000, 0x2_0000, 0x1_0000),
        (0xf_ff00, 0x1000, 0x10_0000),
        (0xffff_f000, 0x1000, 0xffff_f000),
    ] {
        for (initrd, command_line) in [(0, 0), (0x12_3457, 20), (1 << 30, 5000)] {
            let numbers: [u32; 5] = [start, size, entry, initrd, command_line];
            seeds.push([&numbers.map(u32::to_le_bytes).concat()[..], &512_u16.to_le_bytes(), &[16]].concat());
        }
    }
    seeds
}
