//! The structure that describes this firmware (DSP0134 3.6, 7.1), made at compile time.

use crate::layout;

/// The type of the structure that describes the firmware (7.1).
pub const TYPE_FIRMWARE_INFORMATION: u8 = 0;
/// The vendor.
const VENDOR: &str = "Firstlight";
/// The package's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The release date, mm/dd/yyyy: the day of the commit and not of the build, so that the same sources give the same image.
/// Linux applies workarounds to machines whose firmware is dated before 2008 (`arch/x86/pci/acpi.c`).
const RELEASE_DATE: &str = env!("FIRSTLIGHT_RELEASE_DATE");
/// The same in the short form, mm/dd/yy.
#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
pub const SHORT_RELEASE_DATE: [u8; 8] = {
    let date = RELEASE_DATE.as_bytes();
    [date[0], date[1], date[2], date[3], date[4], date[5], date[8], date[9]]
};
/// The start of a legacy BIOS's runtime part, in units of 16 bytes: here, the F-segment with the tables.
const SEGMENT: u16 = (layout::F_SEGMENT.start().get() >> 4) as u16;
/// Bit 3: the bits for the features of a BIOS are not supported (7.1.1).
const CHARACTERISTICS: u64 = 1 << 3;
/// Second extension byte, bit 4: the machine is virtual. Bit 3, UEFI, is clear (7.1.2.2).
const EXTENSION: [u8; 2] = [0, 1 << 4];
/// The version of the embedded controller: there is none.
const NO_CONTROLLER: [u8; 2] = [0xff, 0xff];
/// The size of the ROM in units of 64 KiB, minus one.
const ROM_SIZE: u8 = (layout::FIRMWARE_ROM.len() >> 16) as u8 - 1;

/// The length of the formatted area.
const FORMATTED_LEN: usize = 0x18;
/// The length of the structure in bytes. Each string ends with a zero byte, and the last one is followed by another.
pub const FIRMWARE_INFORMATION_LEN: usize =
    FORMATTED_LEN + VENDOR.len() + 1 + VERSION.len() + 1 + RELEASE_DATE.len() + 1 + 1;

/// The offset of the handle, two bytes (6.1.2).
const HANDLE: usize = 2;

/// The structure with its strings and this handle.
pub fn firmware_information(handle: u16) -> [u8; FIRMWARE_INFORMATION_LEN] {
    let mut bytes = FIRMWARE_INFORMATION;
    [bytes[HANDLE], bytes[HANDLE + 1]] = handle.to_le_bytes();
    bytes
}

/// The structure with its strings, without a handle.
const FIRMWARE_INFORMATION: [u8; FIRMWARE_INFORMATION_LEN] = {
    let [segment_low, segment_high] = SEGMENT.to_le_bytes();
    let [c0, c1, c2, c3, c4, c5, c6, c7] = CHARACTERISTICS.to_le_bytes();
    let formatted: [u8; FORMATTED_LEN] = [
        TYPE_FIRMWARE_INFORMATION,
        FORMATTED_LEN as u8,
        0,
        0,
        // The first string is the vendor, the second the version.
        1,
        2,
        segment_low,
        segment_high,
        // The third string is the date.
        3,
        ROM_SIZE,
        c0,
        c1,
        c2,
        c3,
        c4,
        c5,
        c6,
        c7,
        EXTENSION[0],
        EXTENSION[1],
        decimal(env!("CARGO_PKG_VERSION_MAJOR")),
        decimal(env!("CARGO_PKG_VERSION_MINOR")),
        NO_CONTROLLER[0],
        NO_CONTROLLER[1],
    ];
    let mut bytes = [0; FIRMWARE_INFORMATION_LEN];
    let mut at = put(&mut bytes, 0, &formatted);
    at = put(&mut bytes, at, VENDOR.as_bytes()) + 1;
    at = put(&mut bytes, at, VERSION.as_bytes()) + 1;
    put(&mut bytes, at, RELEASE_DATE.as_bytes());
    bytes
};

/// Copies `part` to `bytes` from `at` on, and returns the end.
#[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn put(bytes: &mut [u8; FIRMWARE_INFORMATION_LEN], at: usize, part: &[u8]) -> usize {
    let mut i = 0;
    while i < part.len() {
        bytes[at + i] = part[i];
        i += 1;
    }
    at + part.len()
}

/// A decimal number below 256.
const fn decimal(digits: &str) -> u8 {
    match u8::from_str_radix(digits, 10) {
        Ok(number) => number,
        #[allow(clippy::panic, reason = "evaluated by the compiler")]
        Err(_) => panic!("a version number above 255"),
    }
}
