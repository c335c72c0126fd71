//! Xen's `hvm_start_info`, from a host that starts the firmware at its PVH entry point.
//!
//! Input: its address, and the contents of memory: each piece with its address and bytes.

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::fakes::machine::FakeMachine;
use firstlight::layout;
use firstlight::memory_map::HostMap;
use firstlight::start_info::abi::{Header, MAGIC, MapEntry, Module, VERSION};
use firstlight::start_info::{MOST_MODULES, StartInfo};
use zerocopy::{FromZeros, IntoBytes};

use crate::input::Input;
use crate::{check, one_line};

/// Reads it. Nothing is written. Modules are not empty, not the firmware's, and within the limit. The command line has no NUL.
/// The map made from it has only the listed RAM, with image and modules reserved.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let at: u32 = input.take();
    let mut machine = FakeMachine::new();
    machine.keeps_accesses = false;
    machine.has_page_zero = true;
    while !input.is_empty() {
        let at: u32 = input.take();
        machine.memory.store(at.into(), input.short());
    }
    machine.memory.keep_stores();
    let info = match StartInfo::read(&mut machine, PhysAddr::new(at.into())) {
        Ok(info) => info,
        Err(error) => return one_line(&error.to_string()),
    };
    assert_eq!(machine.memory.stores(), []);
    assert!(!info.command_line.contains(&0) && info.modules.len() <= MOST_MODULES);
    for module in &info.modules {
        assert!(!module.is_empty(), "{module}");
        assert!(!module.overlaps(layout::BOOT_RAM) && !module.overlaps(layout::LOADED_IMAGE), "{module}");
    }
    let Ok(mut map) = HostMap::from_start_info(&info.memory_map) else { return };
    check::map(&map);
    if map.carve_pc().is_err() {
        return;
    }
    let before = map.clone();
    if info.reserve(&mut map).is_err() {
        return;
    }
    check::map(&map);
    for region in map.regions().filter(|region| map.is_ram(region.range)) {
        assert!(before.is_ram(region.range), "{region:?} is made up");
    }
    let held: Vec<PhysRange> = info.modules.iter().copied().chain([layout::LOADED_IMAGE]).collect();
    for part in held {
        assert!(
            !map.regions().any(|region| map.is_free(region.range) && region.range.overlaps(part)),
            "{part} is free"
        );
    }
}

/// The structure at `at` with its lists behind it: for the machine of a seed.
pub(crate) fn pieces(at: u32, modules: &[(u64, u64)], command_line: &[u8], ram: &[(u64, u64)]) -> Vec<(u32, Vec<u8>)> {
    let mut header = Header::new_zeroed();
    header.magic.set(MAGIC);
    header.version.set(VERSION);
    header.nr_modules.set(modules.len() as u32);
    header.modlist_paddr.set(u64::from(at) + 0x100);
    header.cmdline_paddr.set(u64::from(at) + 0x200);
    header.memmap_paddr.set(u64::from(at) + 0x300);
    header.memmap_entries.set(ram.len() as u32);
    let module = |&(start, size): &(u64, u64)| {
        let mut module = Module::new_zeroed();
        module.paddr.set(start);
        module.size.set(size);
        module.as_bytes().to_vec()
    };
    let entry = |&(start, size): &(u64, u64)| {
        let entry = firstlight::memory_map::E820Entry { addr: start.into(), size: size.into(), kind: 1.into() };
        MapEntry::new(entry).as_bytes().to_vec()
    };
    vec![
        (at, header.as_bytes().to_vec()),
        (at + 0x100, modules.iter().flat_map(module).collect()),
        (at + 0x200, [command_line, b"\0"].concat()),
        (at + 0x300, ram.iter().flat_map(entry).collect()),
    ]
}

/// The data of hosts, with modules and without.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let seed = |at: u32, pieces: &[(u32, Vec<u8>)]| {
        let mut bytes = at.to_le_bytes().to_vec();
        for (at, piece) in pieces {
            bytes.extend(at.to_le_bytes());
            bytes.push(piece.len() as u8);
            bytes.extend(piece);
        }
        bytes
    };
    let ram = [(0, 0xa_0000), (0x10_0000, 0x7ff0_0000), (1 << 32, 1 << 30)];
    let mut seeds = Vec::new();
    for at in [0x6000, 0x7_0000_u32, 0x500] {
        for modules in [&[][..], &[(0x200_0000, 0x1000)], &[(0x200_0000, 0x1000), (0x300_0000, 0x5000), (0x9_0000, 16)]]
        {
            seeds.push(seed(at, &pieces(at, modules, b"console=ttyS0", &ram)));
        }
    }
    seeds
}
