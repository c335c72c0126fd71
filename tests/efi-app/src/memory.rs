//! The memory map, pages and pools.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ptr::NonNull;

use uefi::boot::{self, AllocateType, MemoryAttribute, MemoryType};
use uefi::mem::memory_map::MemoryMap;
use uefi_raw::table::boot::MemoryDescriptor;

use crate::report::{line, result, status};
use crate::system;

const PAGE: u64 = 4096;

/// The memory map, sorted.
fn map() -> Vec<MemoryDescriptor> {
    let map = boot::memory_map(MemoryType::LOADER_DATA);
    let mut entries: Vec<_> = map.iter().flat_map(|map| map.entries().copied()).collect();
    entries.sort_by_key(|entry| entry.phys_start);
    entries
}

/// The type of the memory at an address.
fn kind_at(at: u64) -> Option<MemoryType> {
    let holds = |entry: &&MemoryDescriptor| at.wrapping_sub(entry.phys_start) < entry.page_count * PAGE;
    map().iter().find(holds).map(|entry| entry.ty)
}

/// How much memory of a kind there is, in KiB.
fn kib(entries: &[MemoryDescriptor], is_kind: impl Fn(MemoryType) -> bool) -> u64 {
    entries.iter().filter(|entry| is_kind(entry.ty)).map(|entry| entry.page_count * 4).sum()
}

/// Whether the memory map has a type that only firmware allocates.
fn is_firmwares(kind: MemoryType) -> bool {
    use MemoryType as Kind;
    [
        Kind::BOOT_SERVICES_CODE,
        Kind::BOOT_SERVICES_DATA,
        Kind::RUNTIME_SERVICES_CODE,
        Kind::RUNTIME_SERVICES_DATA,
        Kind::ACPI_RECLAIM,
        Kind::ACPI_NON_VOLATILE,
    ]
    .contains(&kind)
}

/// Prints what is in the memory map, and what the services do to it.
pub fn check() {
    let entries = map();
    // This line differs on every firmware, and is no part of the comparison.
    line("# KiB of the firmware", kib(&entries, is_firmwares));
    let mut kinds: Vec<u32> = entries.iter().map(|entry| entry.ty.0).collect();
    kinds.sort_unstable();
    kinds.dedup();
    let mut names = String::new();
    for kind in kinds {
        let _ = write!(names, "{:?} ", MemoryType(kind));
    }
    line("memory map: types", names.trim_end());
    let ends = |entry: &MemoryDescriptor| entry.phys_start + entry.page_count * PAGE;
    line("memory map: no overlap", entries.windows(2).all(|two| ends(&two[0]) <= two[1].phys_start));
    line("memory map: pages", entries.iter().all(|entry| entry.phys_start % PAGE == 0 && entry.page_count > 0));
    let runtime = |entry: &&MemoryDescriptor| {
        [MemoryType::RUNTIME_SERVICES_CODE, MemoryType::RUNTIME_SERVICES_DATA].contains(&entry.ty)
    };
    line(
        "memory map: runtime attribute",
        entries.iter().filter(runtime).all(|entry| entry.att.contains(MemoryAttribute::RUNTIME)),
    );
    let write_back = entries
        .iter()
        .filter(|entry| entry.ty == MemoryType::CONVENTIONAL)
        .all(|entry| entry.att.contains(MemoryAttribute::WRITE_BACK));
    line("memory map: RAM is cached", write_back);
    line("memory map: 64 MiB are free", kib(&entries, |kind| kind == MemoryType::CONVENTIONAL) > 64 << 10);

    check_map_service();
    check_pages();
    check_pools();
}

fn check_map_service() {
    let services = system::table().boot_services;
    let (mut size, mut key, mut step, mut version) = (0, 0, 0, 0);
    // SAFETY: the size says that there is no room, so only the numbers are written.
    let answer =
        unsafe { ((*services).get_memory_map)(&mut size, core::ptr::null_mut(), &mut key, &mut step, &mut version) };
    status("GetMemoryMap: no room", answer);
    line("GetMemoryMap: size of a descriptor", step);
    line("GetMemoryMap: version", version);
    line("GetMemoryMap: whole descriptors", size > 0 && size % step == 0);
    // SAFETY: null is what the service has to find.
    let answer = unsafe {
        ((*services).get_memory_map)(core::ptr::null_mut(), core::ptr::null_mut(), &mut key, &mut step, &mut version)
    };
    status("GetMemoryMap: null", answer);
}

fn check_pages() {
    let pages = |wanted, count| boot::allocate_pages(wanted, MemoryType::LOADER_DATA, count);
    let free = |at: u64, count| {
        let at = NonNull::new(at as *mut u8).unwrap_or(NonNull::dangling());
        // SAFETY: the program has no reference to pages that it has allocated.
        unsafe { boot::free_pages(at, count) }
    };
    let Some(at) = result("AllocatePages: four pages", pages(AllocateType::AnyPages, 4)) else { return };
    let at = at.as_ptr().addr() as u64;
    line("AllocatePages: aligned", at % PAGE == 0);
    line("AllocatePages: in the map", kind_at(at) == Some(MemoryType::LOADER_DATA));
    result("AllocatePages: at an address that is not free", pages(AllocateType::Address(at), 1));
    result("FreePages: the second page", free(at + PAGE, 1));
    line("FreePages: in the map", kind_at(at + PAGE) == Some(MemoryType::CONVENTIONAL));
    result("FreePages: again", free(at + PAGE, 1));
    result("FreePages: not at a page", free(at + 1, 1));
    result("AllocatePages: at the free address", pages(AllocateType::Address(at + PAGE), 1));
    result("FreePages: all four", free(at, 4));
    result("AllocatePages: not at a page", pages(AllocateType::Address(at + 1), 1));
    let below = result("AllocatePages: below 16 MiB", pages(AllocateType::MaxAddress(0xff_ffff), 2));
    line("AllocatePages: is below", below.is_some_and(|at| (at.as_ptr().addr() as u64) < 0x100_0000 - PAGE));
    if let Some(at) = below {
        result("FreePages: below 16 MiB", free(at.as_ptr().addr() as u64, 2));
    }
    result("AllocatePages: below 4 KiB", pages(AllocateType::MaxAddress(0xfff), 2));
    result("AllocatePages: more than there is", pages(AllocateType::AnyPages, 1 << 40));
    let of = |kind| boot::allocate_pages(AllocateType::AnyPages, kind, 1);
    result("AllocatePages: of persistent memory", of(MemoryType::PERSISTENT_MEMORY));
    result("AllocatePages: of an unknown type", of(MemoryType(0x1000)));
    if let Some(at) = result("AllocatePages: of the system's own type", of(MemoryType(0x8000_0001))) {
        let at = at.as_ptr().addr() as u64;
        line("AllocatePages: own type in the map", kind_at(at) == Some(MemoryType(0x8000_0001)));
        result("FreePages: own type", free(at, 1));
    }
    let wanted = uefi_raw::table::boot::AllocateType(7);
    let mut at = 0;
    // SAFETY: the address is written.
    let answer =
        unsafe { ((*system::table().boot_services).allocate_pages)(wanted, MemoryType::LOADER_DATA, 1, &mut at) };
    status("AllocatePages: unknown way", answer);
}

fn check_pools() {
    let before = kib(&map(), |kind| kind == MemoryType::CONVENTIONAL);
    let sizes = [1, 7, 8, 100, 4096, 100_000];
    let all: Vec<_> =
        sizes.iter().filter_map(|size| boot::allocate_pool(MemoryType::LOADER_DATA, *size).ok()).collect();
    line("AllocatePool: number", all.len());
    line("AllocatePool: aligned", all.iter().all(|at| at.as_ptr().addr() % 8 == 0));
    for (at, size) in all.iter().zip(sizes) {
        // SAFETY: the pool has as many bytes.
        unsafe { at.as_ptr().write_bytes(0xa5, size) };
    }
    // SAFETY: nothing refers to the pools.
    line("FreePool: number", all.iter().filter(|at| unsafe { boot::free_pool(**at) }.is_ok()).count());
    let after = kib(&map(), |kind| kind == MemoryType::CONVENTIONAL);
    line("FreePool: memory comes back", before.abs_diff(after) <= 64);
    result("AllocatePool: no bytes", boot::allocate_pool(MemoryType::LOADER_DATA, 0));
    result("AllocatePool: more than there is", boot::allocate_pool(MemoryType::LOADER_DATA, 1 << 50));
    result("AllocatePool: of an unknown type", boot::allocate_pool(MemoryType(0x1000), 8));
    // SAFETY: null is what the service has to find.
    status("FreePool: null", unsafe { ((*system::table().boot_services).free_pool)(core::ptr::null_mut()) });
}
