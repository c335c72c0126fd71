//! The kernel's setup code as the file has it.
//!
//! The host writes into the setup header before it gives it to the firmware, and what it writes depends on the machine. The
//! fields that it may write count as zero, so that a measurement can be told from the file.
//!
//! Sources: QEMU `hw/i386/x86.c`, `x86_load_linux`, for which fields; Linux `Documentation/arch/x86/boot.rst`, "Details of
//! Header Fields", for where they are.

/// The fields that the host writes in a boot loader's place: offset and length in bytes.
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

/// Sets what a loader writes to the setup header to zero.
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
