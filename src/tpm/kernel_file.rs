//! The kernel's setup code as it is in the file.
//!
//! The host modifies the setup header before it passes it to the firmware, and the changes depend on the machine. The
//! fields that it may modify count as zero, so that the measurement can be predicted from the file.
//!
//! Sources: QEMU `hw/i386/x86.c`, `x86_load_linux`, for the modified fields; Linux `Documentation/arch/x86/boot.rst`,
//! "Details of Header Fields", for their offsets.

/// The fields that the host writes as a boot loader would: offset and length in bytes.
const WRITTEN_BY_LOADER: [(usize, usize); 6] = [
    // vid_mode
    (0x1fa, 2),
    // type_of_loader
    (0x210, 1),
    // ramdisk_image, ramdisk_size
    (0x218, 8),
    // heap_end_ptr
    (0x224, 2),
    // cmd_line_ptr
    (0x228, 4),
    // setup_data
    (0x250, 8),
];
/// `loadflags`, and its bit `CAN_USE_HEAP`, which the host sets.
const LOADFLAGS: usize = 0x211;
const CAN_USE_HEAP: u8 = 1 << 7;

/// "HdrS" at this offset begins the setup header of a Linux kernel, and its version follows (boot.rst, "The Real-Mode Kernel
/// Header"). From this version on, the command line's address is in the header. Of any other file, the host writes it to four
/// bytes of the DOS header, which are zero in every known EFI program.
const MAGIC: &[u8] = b"HdrS";
const MAGIC_AT: usize = 0x202;
const WITH_COMMAND_LINE: u16 = 0x202;
const OLD_COMMAND_LINE: (usize, usize) = (0x20, 4);

/// Sets to zero what the host writes into the first part of any file that it divides.
pub fn forget_host(setup: &mut [u8]) {
    let header = setup.get(MAGIC_AT..).and_then(|header| header.strip_prefix(MAGIC));
    let version = header.and_then(<[u8]>::first_chunk).map_or(0, |version| u16::from_le_bytes(*version));
    if version >= WITH_COMMAND_LINE {
        return forget_loader(setup);
    }
    let (at, len) = OLD_COMMAND_LINE;
    if let Some(field) = setup.get_mut(at..at.saturating_add(len)) {
        field.fill(0);
    }
}

/// Sets the fields of the setup header that a loader writes to zero.
pub fn forget_loader(setup: &mut [u8]) {
    for (at, len) in WRITTEN_BY_LOADER {
        if let Some(field) = setup.get_mut(at..at.saturating_add(len)) {
            field.fill(0);
        }
    }
    if let Some(flags) = setup.get_mut(LOADFLAGS) {
        *flags &= !CAN_USE_HEAP;
    }
}
