//! The size of the image, once for everything that needs it: `layout.rs` and the tests have it by this module, `build.rs` passes it
//! to `linker.ld`, and `xtask` includes this file.

/// The room for the image in bytes: a multiple of 64 KiB, because QEMU takes no other `-bios` file. The image fills it. Half of it is for EFI
/// and disks, and none of that costs a boot with a kernel anything but the pages' entries in the page tables.
pub const IMAGE_SIZE: u64 = 512 << 10;
