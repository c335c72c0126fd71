//! The system table, the configuration tables and the services that belong to no other group.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::time::Duration;

use uefi::table::cfg::ConfigTableEntry;
use uefi::{Guid, boot, guid, runtime, system};
use uefi_raw::table::Header;
use uefi_raw::table::system::SystemTable;

use crate::report::{line, result, status};

/// Configuration tables, by the names in UEFI 4.6 and in Linux `include/linux/efi.h`.
const TABLES: [(&str, Guid); 9] = [
    ("ACPI 2.0", ConfigTableEntry::ACPI2_GUID),
    ("ACPI 1.0", ConfigTableEntry::ACPI_GUID),
    ("SMBIOS", ConfigTableEntry::SMBIOS_GUID),
    ("SMBIOS 3", ConfigTableEntry::SMBIOS3_GUID),
    ("memory attributes", ConfigTableEntry::MEMORY_ATTRIBUTES_GUID),
    ("RT properties", guid!("eb66918a-7eef-402a-842e-931d21c38ae9")),
    ("Linux random seed", guid!("1ce1e5bc-7ceb-42f2-81e5-8aadf180f57b")),
    ("ESRT", ConfigTableEntry::ESRT_GUID),
    ("debug images", ConfigTableEntry::DEBUG_IMAGE_INFO_GUID),
];

/// The system table.
pub fn table() -> &'static SystemTable {
    let table = uefi::table::system_table_raw().map_or(core::ptr::null(), |table| table.as_ptr().cast_const());
    // SAFETY: the crate has it from the entry point, and it stays until the machine is turned off.
    unsafe { &*table }
}

/// Whether a table's checksum is right (UEFI 4.2).
fn is_sealed(header: *const Header) -> bool {
    // SAFETY: the caller has a table that begins with this header.
    let header = unsafe { &*header };
    let len = (header.size as usize).min(4096);
    // SAFETY: the table is as long as its header says.
    let bytes = unsafe { core::slice::from_raw_parts(core::ptr::from_ref(header).cast::<u8>(), len) };
    let mut copy = Vec::from(bytes);
    copy[16..20].fill(0);
    boot::calculate_crc32(&copy).is_ok_and(|crc| crc == header.crc)
}

/// Prints what is in the tables.
pub fn check() {
    let table = table();
    line("system table: checksum", is_sealed(&table.header));
    line("system table: length", table.header.size);
    line("boot services: checksum", is_sealed(table.boot_services.cast()));
    line("runtime services: checksum", is_sealed(table.runtime_services.cast()));
    line("system table: UEFI 2.0 or later", system::uefi_revision().0 >= 2 << 16);
    line("system table: console input", !table.stdin.is_null());
    line("system table: console output", !table.stdout.is_null());
    line("system table: error output", !table.stderr.is_null());
    check_tables();
    check_functions();
}

fn check_tables() {
    let found: Vec<(Guid, usize)> =
        system::with_config_table(|tables| tables.iter().map(|table| (table.guid, table.address.addr())).collect());
    let mut names = String::new();
    for (name, guid) in TABLES {
        if found.iter().any(|(found, _)| *found == guid) {
            let _ = write!(names, "{}{name}", if names.is_empty() { "" } else { ", " });
        }
    }
    line("configuration tables", names);
    let starts_with = |guid: Guid, magic: &[u8]| {
        let table = found.iter().find(|(found, _)| *found == guid);
        // SAFETY: a table that is listed is at least as long as its signature.
        table.is_none_or(|(_, at)| unsafe { core::slice::from_raw_parts(*at as *const u8, magic.len()) } == magic)
    };
    line("ACPI: signature", starts_with(ConfigTableEntry::ACPI2_GUID, b"RSD PTR "));
    line("SMBIOS: signature", starts_with(ConfigTableEntry::SMBIOS_GUID, b"_SM_"));

    const OWN: Guid = guid!("2c4f2d36-7a5d-4f0e-9a0b-51d6a2f3c001");
    static CONTENTS: u64 = 1;
    let contents = (&raw const CONTENTS).cast();
    let install = |at| {
        // SAFETY: the table is a static, and nobody looks for its GUID.
        unsafe { boot::install_configuration_table(&OWN, at) }
    };
    result("configuration table: add", install(contents));
    let count = || system::with_config_table(|tables| tables.iter().filter(|table| table.guid == OWN).count());
    line("configuration table: is there", count());
    result("configuration table: add again", install(contents));
    line("configuration table: is there once", count());
    result("configuration table: remove", install(core::ptr::null()));
    line("configuration table: is gone", count());
    result("configuration table: remove again", install(core::ptr::null()));
    line("system table: checksum after changes", is_sealed(&self::table().header));
}

fn check_functions() {
    line("CalculateCrc32", boot::calculate_crc32(b"123456789").is_ok_and(|crc| crc == 0xcbf4_3926));
    result("CalculateCrc32: no bytes", boot::calculate_crc32(b""));
    let services = table().boot_services;
    let (mut from, mut to) = (*b"some bytes", [0; 10]);
    // SAFETY: both arrays have ten bytes.
    unsafe { ((*services).copy_mem)(to.as_mut_ptr(), from.as_ptr(), 10) };
    line("CopyMem", to == from);
    // SAFETY: source and destination overlap within the array.
    unsafe { ((*services).copy_mem)(from.as_mut_ptr().add(1), from.as_ptr(), 9) };
    line("CopyMem: overlapping", &from == b"ssome byte");
    // SAFETY: the array has ten bytes.
    unsafe { ((*services).set_mem)(to.as_mut_ptr(), 10, 7) };
    line("SetMem", to == [7; 10]);
    let (mut first, mut second) = (0, 0);
    // SAFETY: the number is written.
    status("GetNextMonotonicCount", unsafe { ((*services).get_next_monotonic_count)(&mut first) });
    // SAFETY: the number is written.
    let _ = unsafe { ((*services).get_next_monotonic_count)(&mut second) };
    line("GetNextMonotonicCount: grows", second > first);
    // SAFETY: there is nowhere to write to, which the service has to find.
    status("GetNextMonotonicCount: null", unsafe { ((*services).get_next_monotonic_count)(core::ptr::null_mut()) });
    result("SetWatchdogTimer: off", boot::set_watchdog_timer(0, 0x1_0000, None));
    result("SetWatchdogTimer: five minutes", boot::set_watchdog_timer(300, 0x1_0000, None));
    let _ = boot::set_watchdog_timer(0, 0x1_0000, None);
    boot::stall(Duration::from_micros(50));
    let time = runtime::get_time();
    line("GetTime", time.is_ok_and(|time| time.is_valid().is_ok() && time.year() >= 2020));
    // SAFETY: null is what the service has to find.
    status("GetTime: null", unsafe {
        ((*table().runtime_services).get_time)(core::ptr::null_mut(), core::ptr::null_mut())
    });
}
