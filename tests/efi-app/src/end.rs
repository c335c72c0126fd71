//! The end of boot services, and the runtime services after it. The memory of boot services is overwritten before they are called.

use alloc::vec::Vec;
use core::arch::asm;
use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};

use uefi::boot::{self, EventType, MemoryAttribute, MemoryType, Tpl};
use uefi::runtime::{ResetType, VariableAttributes};
use uefi::{CStr16, Event, Guid, Status, cstr16, guid};
use uefi_raw::table::boot::MemoryDescriptor;
use uefi_raw::table::runtime::RuntimeServices;
use uefi_raw::time::Time;

use crate::report::{line, result, status};
use crate::system;

const VENDOR: Guid = guid!("ba57e015-65b3-4c3c-b274-659192f60002");
const VOLATILE: &CStr16 = cstr16!("Volatile");
const KEPT: &CStr16 = cstr16!("Kept");
const PAGE: u64 = 4096;

static NOTIFIED: AtomicU64 = AtomicU64::new(0);

unsafe extern "efiapi" fn notify(_: Event, _: Option<NonNull<c_void>>) {
    NOTIFIED.fetch_add(1, Ordering::Relaxed);
}

/// The most page tables that a firmware has, and the room around the stack pointer that stays.
const MOST_TABLES: usize = 2048;
const STACK: u64 = 128 << 10;

/// Room for the memory map, which is read when nothing can be allocated.
const ROOM: usize = 32 << 10;

/// The memory map as it was at the end.
struct Map {
    bytes: NonNull<u8>,
    len: usize,
    step: usize,
    version: u32,
    key: usize,
}

impl Map {
    fn read(bytes: NonNull<u8>) -> (Self, Status) {
        let mut map = Self { bytes, len: ROOM, step: 0, version: 0, key: 0 };
        let services = system::table().boot_services;
        // SAFETY: the pool has as many bytes.
        let status = unsafe {
            ((*services).get_memory_map)(
                &mut map.len,
                bytes.as_ptr().cast(),
                &mut map.key,
                &mut map.step,
                &mut map.version,
            )
        };
        (map, status)
    }

    fn entries(&self) -> impl Iterator<Item = *mut MemoryDescriptor> {
        let (bytes, step) = (self.bytes, self.step);
        // SAFETY: the firmware has filled in as many descriptors.
        (0..self.len / step.max(1)).map(move |index| unsafe { bytes.as_ptr().add(index * step) }.cast())
    }
}

/// Ends boot services, calls runtime services, and turns the machine off.
pub fn check() -> ! {
    let boot_only = VariableAttributes::BOOTSERVICE_ACCESS;
    let volatile = boot_only | VariableAttributes::RUNTIME_ACCESS;
    let vendor = uefi::runtime::VariableVendor(VENDOR);
    let _ = uefi::runtime::set_variable(VOLATILE, &vendor, volatile, b"volatile");
    let _ = uefi::runtime::set_variable(cstr16!("Boot"), &vendor, boot_only, b"boot");
    let _ = uefi::runtime::set_variable(KEPT, &vendor, volatile | VariableAttributes::NON_VOLATILE, b"kept");
    // SAFETY: the function only counts.
    result("CreateEvent: end of boot services", unsafe {
        boot::create_event(EventType::SIGNAL_EXIT_BOOT_SERVICES, Tpl::CALLBACK, Some(notify), None)
    });
    let Some(room) = result("AllocatePool: for the map", boot::allocate_pool(MemoryType::LOADER_DATA, ROOM)) else {
        turn_off()
    };
    let services = system::table().boot_services;
    let exit = |key| {
        // SAFETY: after it, the program calls no boot services but this.
        unsafe { ((*services).exit_boot_services)(boot::image_handle().as_ptr(), key) }
    };
    let tables = page_tables();
    let (stale, _) = Map::read(room);
    let _ = boot::allocate_pages(boot::AllocateType::AnyPages, MemoryType::LOADER_DATA, 1);
    status("ExitBootServices: stale key", exit(stale.key));
    let (map, answer) = Map::read(room);
    status("GetMemoryMap: after that", answer);
    status("ExitBootServices", exit(map.key));
    line("ExitBootServices: notifications", NOTIFIED.load(Ordering::Relaxed));

    let table = system::table();
    line("system table: boot services are gone", table.boot_services.is_null());
    line("system table: console is gone", table.stdout.is_null());
    overwrite(&map, &tables);
    runtime_services(&map, table.runtime_services)
}

/// The page tables that the CPU uses, found before boot services end.
fn page_tables() -> Vec<u64> {
    const ADDRESS: u64 = 0xf_ffff_ffff_f000;
    fn search(table: u64, level: u32, found: &mut Vec<u64>) {
        if found.contains(&table) {
            return;
        }
        found.push(table);
        for index in 0..512 {
            // SAFETY: the table is the CPU's, and memory is mapped at its own addresses.
            let entry = unsafe { ((table + index * 8) as *const u64).read_volatile() };
            if entry & 1 != 0 && level > 1 && entry & 1 << 7 == 0 {
                search(entry & ADDRESS, level - 1, found);
            }
        }
    }
    let cr3: u64;
    // SAFETY: reads a register; the program runs in ring 0.
    unsafe { asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack, preserves_flags)) };
    let mut found = Vec::with_capacity(MOST_TABLES);
    search(cr3 & ADDRESS, 4, &mut found);
    found
}

/// Overwrites the memory of boot services, except the stack and the page tables that the CPU uses.
fn overwrite(map: &Map, tables: &[u64]) {
    // A firmware may have protected its code, so CR0.WP is cleared. An interrupt would find nothing.
    // SAFETY: the program runs in ring 0, and has all memory for itself.
    unsafe { asm!("cli", "mov {0}, cr0", "btr {0}, 16", "mov cr0, {0}", out(reg) _, options(nomem, nostack)) };
    let stack = (&raw const map).addr() as u64;
    let is_used = |page: &u64| *page == 0 || page.abs_diff(stack) < STACK || tables.contains(page);
    for entry in map.entries() {
        // SAFETY: the descriptor is in the map.
        let entry = unsafe { entry.read_unaligned() };
        if ![MemoryType::BOOT_SERVICES_CODE, MemoryType::BOOT_SERVICES_DATA].contains(&entry.ty) {
            continue;
        }
        let pages = (0..entry.page_count).map(|page| entry.phys_start + page * PAGE);
        for page in pages.filter(|page| !is_used(page)) {
            // SAFETY: boot services have ended, so the memory is the program's.
            unsafe { (page as *mut u8).write_bytes(0xcc, PAGE as usize) };
        }
    }
    line("boot services' memory", "overwritten");
}

fn runtime_services(map: &Map, services: *mut RuntimeServices) -> ! {
    // SAFETY: runtime services stay.
    let services = unsafe { &*services };
    let mut buffer = [0; 16];
    let get = |name: &CStr16, buffer: &mut [u8; 16]| {
        let (mut len, mut attributes) = (buffer.len(), VariableAttributes::empty());
        // SAFETY: name, vendor and buffer are the program's.
        unsafe {
            (services.get_variable)(name.as_ptr().cast(), &VENDOR, &mut attributes, &mut len, buffer.as_mut_ptr())
        }
    };
    let set = |name: &CStr16, attributes, data: &[u8]| {
        // SAFETY: name, vendor and data are the program's.
        unsafe { (services.set_variable)(name.as_ptr().cast(), &VENDOR, attributes, data.len(), data.as_ptr()) }
    };
    let volatile = VariableAttributes::BOOTSERVICE_ACCESS | VariableAttributes::RUNTIME_ACCESS;
    status("runtime: GetVariable", get(VOLATILE, &mut buffer));
    line("runtime: GetVariable, data", buffer.starts_with(b"volatile"));
    status("runtime: GetVariable, of boot services only", get(cstr16!("Boot"), &mut buffer));
    status("runtime: SetVariable, volatile", set(VOLATILE, volatile, b"other"));
    status("runtime: SetVariable, not volatile", set(KEPT, volatile | VariableAttributes::NON_VOLATILE, b"other"));
    status("runtime: GetVariable, not volatile", get(KEPT, &mut buffer));
    line("runtime: GetVariable, other data", buffer.starts_with(b"other"));
    let mut time = Time::default();
    // SAFETY: the time is written.
    status("runtime: GetTime", unsafe { (services.get_time)(&mut time, ptr::null_mut()) });
    line("runtime: GetTime, a year", time.year >= 2020);
    let mut count = 0;
    // SAFETY: the number is written.
    status("runtime: GetNextHighMonotonicCount", unsafe { (services.get_next_high_monotonic_count)(&mut count) });

    // The services stay where they are.
    for entry in map.entries() {
        // SAFETY: the descriptor is in the map.
        let mut copy = unsafe { entry.read_unaligned() };
        if copy.att.contains(MemoryAttribute::RUNTIME) {
            copy.virt_start = copy.phys_start;
        }
        // SAFETY: the same.
        unsafe { entry.write_unaligned(copy) };
    }
    let set_map = || {
        // SAFETY: all memory is mapped at its own addresses.
        unsafe { (services.set_virtual_address_map)(map.len, map.step, map.version, map.bytes.as_ptr().cast()) }
    };
    status("runtime: SetVirtualAddressMap", set_map());
    status("runtime: SetVirtualAddressMap, again", set_map());
    status("runtime: GetVariable, after that", get(KEPT, &mut buffer));
    status("runtime: SetVariable, delete", set(KEPT, volatile | VariableAttributes::NON_VOLATILE, b""));
    status("runtime: GetVariable, deleted", get(KEPT, &mut buffer));
    line("end", "of the report");
    turn_off()
}

/// Turns the machine off.
pub fn turn_off() -> ! {
    uefi::runtime::reset(ResetType::SHUTDOWN, Status::SUCCESS, None)
}
