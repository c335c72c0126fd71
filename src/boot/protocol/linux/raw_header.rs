//! The setup header as it is in a kernel file and in `boot_params`.
//!
//! Field names and meanings are those of boot.rst, "The Real-Mode Kernel Header" and "Details of Header Fields".

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Where the header begins, in the kernel file and in `boot_params`.
pub const HEADER_START: usize = 0x1f1;
/// Where the room for it in `boot_params` ends (`struct boot_params`, Linux `arch/x86/include/uapi/asm/bootparam.h`).
pub const HEADER_ROOM_END: usize = 0x290;

/// `loadflags`: the protected-mode part runs at 1 MiB or above.
pub const LOADED_HIGH: u8 = 1 << 0;
/// `loadflags`: the kernel prints no early messages.
pub const QUIET_FLAG: u8 = 1 << 5;
/// The header as it is in the file, little-endian. Fields beyond the end of the kernel's header are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    pub setup_sects: u8,
    pub root_flags: U16,
    pub syssize: U32,
    pub ram_size: U16,
    pub vid_mode: U16,
    pub root_dev: U16,
    pub boot_flag: U16,
    pub jump: [u8; 2],
    pub header: [u8; 4],
    pub version: U16,
    pub realmode_swtch: U32,
    pub start_sys_seg: U16,
    pub kernel_version: U16,
    pub type_of_loader: u8,
    pub loadflags: u8,
    pub setup_move_size: U16,
    pub code32_start: U32,
    pub ramdisk_image: U32,
    pub ramdisk_size: U32,
    pub bootsect_kludge: U32,
    pub heap_end_ptr: U16,
    pub ext_loader_ver: u8,
    pub ext_loader_type: u8,
    pub cmd_line_ptr: U32,
    pub initrd_addr_max: U32,
    pub kernel_alignment: U32,
    pub relocatable_kernel: u8,
    pub min_alignment: u8,
    pub xloadflags: U16,
    pub cmdline_size: U32,
    pub hardware_subarch: U32,
    pub hardware_subarch_data: U64,
    pub payload_offset: U32,
    pub payload_length: U32,
    pub setup_data: U64,
    pub pref_address: U64,
    pub init_size: U32,
    pub handover_offset: U32,
    pub kernel_info_offset: U32,
    /// For fields of later protocols.
    pub later: [u8; HEADER_ROOM_END - 0x26c],
}

/// The lower half of an address or a length that is in two fields.
#[must_use]
pub const fn low_half(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

/// The upper half.
#[must_use]
pub const fn high_half(value: u64) -> u32 {
    (value >> 32) as u32
}
