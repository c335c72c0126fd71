//! The numbers of items.

use core::fmt;

/// The number that selects an item (QEMU `include/standard-headers/linux/qemu_fw_cfg.h`). The directory has the numbers
/// of named items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u16);

impl Key {
    /// Four bytes, "QEMU".
    pub const SIGNATURE: Self = Self(0x00);
    /// The interface's features, 32 bits.
    pub const ID: Self = Self(0x01);
    /// Number of CPUs at the start, 16 bits on QEMU and 32 bits on others.
    pub const NB_CPUS: Self = Self(0x05);
    /// Length of the kernel without its setup code, 32 bits, in bytes.
    pub const KERNEL_SIZE: Self = Self(0x08);
    /// Length of the initial RAM disk, 32 bits, in bytes.
    pub const INITRD_SIZE: Self = Self(0x0b);
    /// The address where the host wants the kernel, 32 bits.
    pub const KERNEL_ADDR: Self = Self(0x07);
    /// Whether the user may choose what boots, 16 bits.
    pub const BOOT_MENU: Self = Self(0x0e);
    /// The entry point of a kernel that is not a bzImage, 32 bits.
    pub const KERNEL_ENTRY: Self = Self(0x10);
    /// The kernel without its setup code.
    pub const KERNEL_DATA: Self = Self(0x11);
    /// The initial RAM disk.
    pub const INITRD_DATA: Self = Self(0x12);
    /// Length of the command line with its NUL, 32 bits, in bytes.
    pub const CMDLINE_SIZE: Self = Self(0x14);
    /// The command line with its NUL.
    pub const CMDLINE_DATA: Self = Self(0x15);
    /// Length of the kernel's setup code, 32 bits, in bytes.
    pub const SETUP_SIZE: Self = Self(0x17);
    /// The kernel's setup code, which begins with the boot sector that holds the setup header.
    pub const SETUP_DATA: Self = Self(0x18);
    /// The directory of named items.
    pub const FILE_DIR: Self = Self(0x19);

    /// The key with this number.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
