//! Kernels for Multiboot: the host's description, and the kernel's parameters.
//!
//! Input: the host's item of 88 bytes and its length, the kernel's address, a screen, up to 15 regions of memory, and the kernel
//! with its modules and strings.

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::boot::multiboot::{HostInfo, MultibootInfo};
use firstlight::boot::{BootModule, PlacedKernel};
use firstlight::fakes::machine::FakeMachine;
use firstlight::framebuffer::{Framebuffer, Mode};
use firstlight::layout;
use firstlight::memory_map::MemoryMap;

use crate::input::Input;
use crate::one_line;

/// Reads the host's description. Each string and each module is inside what the host has loaded, a string ends with its only NUL,
/// and nothing is written. The information has the machine's map, and no flag without its field.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut item = [0; HostInfo::LEN];
    let bytes = input.bytes(HostInfo::LEN);
    item[..bytes.len()].copy_from_slice(bytes);
    let (len, start, flags): (u8, u32, u8) = (input.take(), input.take(), input.take());
    let Some(map) = crate::bzimage::map(&mut input).map(MemoryMap::new) else { return };
    let image = input.rest();
    let host = match HostInfo::parse(&item, len.into()) {
        Ok(host) => host,
        Err(error) => return one_line(&error.to_string()),
    };
    let Ok(kernel) = PlacedKernel::new(PhysAddr::new(start.into()), image.len() as u32, PhysAddr::new(start.into()))
    else {
        return;
    };
    if !layout::may_access(kernel.image) {
        return;
    }
    let mut machine = FakeMachine::new();
    machine.memory.store(start.into(), image);
    machine.memory.keep_stores();
    let check = |string: PhysRange| {
        let offset = (string.start().get() - kernel.image.start().get()) as usize;
        let bytes = &image[offset..][..string.len() as usize];
        assert!(bytes.is_empty() || bytes.iter().position(|&byte| byte == 0) == Some(bytes.len() - 1), "{string}");
    };
    assert!(kernel.image.contains(host.kernel(kernel.image)));
    match host.command_line(&mut machine, kernel.image) {
        Ok(string) => check(string),
        Err(error) => one_line(&error.to_string()),
    }
    match host.modules(&mut machine, kernel.image) {
        Ok(modules) => {
            let len = |module: &BootModule| module.bytes.len() + module.command_line.len();
            assert!(modules.iter().map(len).sum::<u64>() <= kernel.image.len());
            for module in modules {
                assert!(kernel.image.contains(module.bytes), "{}", module.bytes);
                check(module.command_line);
            }
        }
        Err(error) => one_line(&error.to_string()),
    }
    assert_eq!(machine.memory.stores(), []);

    let memory = PhysRange::new(PhysAddr::new(0xfd00_0000), 3 << 20).unwrap();
    let framebuffer = Framebuffer { memory, mode: Mode::DEFAULT, function: None };
    let place = PhysRange::new(PhysAddr::new(0x1_0000), size_of::<MultibootInfo>() as u64).unwrap();
    let info = MultibootInfo::new(&host, place, &map, (flags & 1 != 0).then_some(&framebuffer)).unwrap();
    let info = info.bytes();
    let number = |at: usize, len: usize| info[at..at + len].iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte));
    assert_eq!(number(0, 4) & !0x124f, 0, "flags of what no host gives");
    assert_eq!(number(0, 4) >> 12 & 1, u64::from(flags & 1));
    let entries = (number(48, 4) - 0x1_0000) as usize;
    assert_eq!(number(44, 4) as usize, 24 * map.e820().count());
    for (index, entry) in map.e820().enumerate() {
        let at = entries + 24 * index;
        assert_eq!((number(at, 4), number(at + 4, 8), number(at + 12, 8)), (20, entry.addr.get(), entry.size.get()));
    }
}

/// A kernel with two modules, as QEMU has them: the host's item and all that is at 1 MiB.
#[must_use]
pub(crate) fn with_modules() -> ([u8; 88], Vec<u8>) {
    let mut item = [0; 88];
    for (at, value) in [(0, 0x24f_u32), (16, 0x10_0220), (20, 2), (24, 0x10_0200), (48, 0x9000), (64, 0x10_0230)] {
        item[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let mut image = vec![0x90; 0x200];
    for field in [0x10_0300_u32, 0x10_0323, 0x10_0235, 0, 0x10_0400, 0x10_0401, 0x10_023b, 0] {
        image.extend(field.to_le_bytes());
    }
    image.extend(b"kernel words\0\0\0\0qemu\0first\0second\0");
    image.resize(0x500, 7);
    (item, image)
}

/// That kernel, with a screen and without, and with fields that point elsewhere.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let (item, image) = with_modules();
    let mut seeds = Vec::new();
    let seed = |item: &[u8; 88], flags: u8| {
        let rest = [&[88][..], &0x10_0000_u32.to_le_bytes(), &[flags], &512_u16.to_le_bytes(), &[0]].concat();
        [&item[..], &rest, &image].concat()
    };
    for flags in [0, 1] {
        seeds.push(seed(&item, flags));
        for at in [0, 16, 20, 24, 64] {
            for value in [0, 0x10_0000_u32, 0x10_04f8, 0x10_0500, u32::MAX] {
                let mut item = item;
                item[at..at + 4].copy_from_slice(&value.to_le_bytes());
                seeds.push(seed(&item, flags));
            }
        }
    }
    seeds
}
