//! The framebuffer as the kernel reads it: `struct screen_info`, the first 64 bytes of `boot_params`.
//!
//! Source: Linux `include/uapi/linux/screen_info.h`. All fields but those of a framebuffer are zero. For a kernel, all
//! zero means no screen, and a framebuffer means no text mode.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::raw_header::{high_half, low_half};
use crate::framebuffer::{Framebuffer, Mode};

/// `VIDEO_TYPE_VLFB`: a linear framebuffer, as VESA's BIOS extension sets it.
const VIDEO_TYPE_VLFB: u8 = 0x23;
/// `VIDEO_TYPE_EFI`: a linear framebuffer, as EFI firmware sets it.
const VIDEO_TYPE_EFI: u8 = 0x70;
/// `VIDEO_CAPABILITY_64BIT_BASE`: `ext_lfb_base` is valid.
const CAPABILITY_64BIT_BASE: u32 = 1 << 1;
/// `lfb_size` counts in units of two to this power, in bytes (Linux `drivers/firmware/sysfb_simplefb.c`).
const SIZE_UNIT_ORDER: u32 = 16;

/// The screen.
#[derive(Clone, Copy, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ScreenInfo {
    cursor: [u8; 2],
    /// KiB of RAM from 1 MiB to the first hole, as far as 16 bits count. Kernels before 2.2 read nothing else.
    ext_mem_k: U16,
    text_mode: [u8; 0xb],
    orig_video_is_vga: u8,
    orig_video_points: U16,
    /// Pixels in a line.
    lfb_width: U16,
    /// Lines.
    lfb_height: U16,
    /// Bits per pixel.
    lfb_depth: U16,
    /// The address of the framebuffer, low half.
    lfb_base: U32,
    /// All of the video memory, in units of 64 KiB.
    lfb_size: U32,
    cl_magic: U16,
    cl_offset: U16,
    /// Bytes from one line to the next.
    lfb_linelength: U16,
    red: Component,
    green: Component,
    blue: Component,
    rsvd: Component,
    vesapm_seg: U16,
    vesapm_off: U16,
    pages: U16,
    vesa_attributes: U16,
    capabilities: U32,
    /// The address of the framebuffer, high half.
    ext_lfb_base: U32,
    reserved: [u8; 2],
}

/// A color component of a pixel, in bits.
#[derive(Clone, Copy, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Component {
    size: u8,
    position: u8,
}

impl Component {
    const fn byte(number: u8) -> Self {
        Self { size: 8, position: number.saturating_mul(8) }
    }
}

/// `cl_magic` if `cl_offset` is valid (boot.rst, "The Kernel Command Line").
const CL_MAGIC: u16 = 0xa33f;

impl ScreenInfo {
    /// No screen, with what kernels before protocol 2.02 read from the same structure: the size of RAM from 1 MiB on,
    /// and the offset of the command line from these parameters.
    pub fn for_old_kernel(kib_above_1_mib: u32, command_line_offset: u16) -> Self {
        let mut this = Self::new_zeroed();
        this.ext_mem_k.set(u16::try_from(kib_above_1_mib).unwrap_or(u16::MAX));
        this.cl_magic.set(CL_MAGIC);
        this.cl_offset.set(command_line_offset);
        this
    }

    /// This screen, with `other`'s fields for old kernels.
    pub fn with_old_fields_of(self, other: &Self) -> Self {
        let &Self { ext_mem_k, cl_magic, cl_offset, .. } = other;
        Self { ext_mem_k, cl_magic, cl_offset, ..self }
    }

    /// The screen that shows `framebuffer`, for a kernel with or without an `efi_stub`.
    ///
    /// The screen's type selects the kernel's driver. A kernel with a stub has `efifb` or `simpledrm`, and
    /// `earlycon=efifb`, which writes from the first line on. Kernels for clouds have no driver for the other type. A
    /// kernel without a stub can only be expected to have `vesafb`.
    pub fn new(framebuffer: &Framebuffer, efi_stub: bool) -> Self {
        let (mode, base) = (framebuffer.mode, framebuffer.memory.start().get());
        let mut this = Self::new_zeroed();
        this.orig_video_is_vga = if efi_stub { VIDEO_TYPE_EFI } else { VIDEO_TYPE_VLFB };
        this.lfb_width.set(mode.width());
        this.lfb_height.set(mode.height());
        this.lfb_depth.set(Mode::BITS_PER_PIXEL);
        this.lfb_base.set(low_half(base));
        this.lfb_size.set(low_half(framebuffer.memory.len() >> SIZE_UNIT_ORDER));
        this.lfb_linelength.set(mode.line_bytes());
        // XRGB8888.
        [this.blue, this.green, this.red, this.rsvd] = [0, 1, 2, 3].map(Component::byte);
        if high_half(base) != 0 {
            this.capabilities.set(CAPABILITY_64BIT_BASE);
            this.ext_lfb_base.set(high_half(base));
        }
        this
    }
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;
    use crate::addr::{PhysAddr, PhysRange};

    #[test]
    fn fields_have_the_offsets_of_linux() {
        assert_eq!(offset_of!(ScreenInfo, orig_video_is_vga), 0x0f);
        assert_eq!(offset_of!(ScreenInfo, orig_video_points), 0x10);
        assert_eq!(offset_of!(ScreenInfo, lfb_width), 0x12);
        assert_eq!(offset_of!(ScreenInfo, lfb_height), 0x14);
        assert_eq!(offset_of!(ScreenInfo, lfb_depth), 0x16);
        assert_eq!(offset_of!(ScreenInfo, lfb_base), 0x18);
        assert_eq!(offset_of!(ScreenInfo, lfb_size), 0x1c);
        assert_eq!(offset_of!(ScreenInfo, cl_magic), 0x20);
        assert_eq!(offset_of!(ScreenInfo, lfb_linelength), 0x24);
        assert_eq!(offset_of!(ScreenInfo, red), 0x26);
        assert_eq!(offset_of!(ScreenInfo, green), 0x28);
        assert_eq!(offset_of!(ScreenInfo, blue), 0x2a);
        assert_eq!(offset_of!(ScreenInfo, rsvd), 0x2c);
        assert_eq!(offset_of!(ScreenInfo, vesapm_seg), 0x2e);
        assert_eq!(offset_of!(ScreenInfo, pages), 0x32);
        assert_eq!(offset_of!(ScreenInfo, vesa_attributes), 0x34);
        assert_eq!(offset_of!(ScreenInfo, capabilities), 0x36);
        assert_eq!(offset_of!(ScreenInfo, ext_lfb_base), 0x3a);
        assert_eq!(offset_of!(ScreenInfo, reserved), 0x3e);
        assert_eq!(size_of::<ScreenInfo>(), 0x40);
    }

    fn screen(start: u64, len: u64) -> [u8; 0x40] {
        let memory = PhysRange::new(PhysAddr::new(start), len).unwrap();
        let info = ScreenInfo::new(&Framebuffer { memory, mode: Mode::DEFAULT, function: None }, false);
        info.as_bytes().try_into().unwrap()
    }

    #[test]
    fn a_framebuffer_is_described_byte_for_byte() {
        let mut expected = [0; 0x40];
        expected[0x0f] = 0x23;
        // 1024, 768, 32 bits; the address; 256 units of 64 KiB; 4096 bytes a line.
        expected[0x12..0x18].copy_from_slice(&[0, 4, 0, 3, 32, 0]);
        expected[0x18..0x20].copy_from_slice(&[0, 0, 0, 0xfd, 0, 1, 0, 0]);
        expected[0x24..0x26].copy_from_slice(&[0, 0x10]);
        // Size and position of red, green, blue, and the unused bits.
        expected[0x26..0x2e].copy_from_slice(&[8, 16, 8, 8, 8, 0, 8, 24]);
        assert_eq!(screen(0xfd00_0000, 16 << 20), expected);
    }

    #[test]
    fn a_kernel_with_an_efi_stub_gets_an_efi_screen() {
        let memory = PhysRange::new(PhysAddr::new(0xfd00_0000), 16 << 20).unwrap();
        let info = ScreenInfo::new(&Framebuffer { memory, mode: Mode::DEFAULT, function: None }, true);
        let mut expected = screen(0xfd00_0000, 16 << 20);
        expected[0x0f] = 0x70;
        assert_eq!(info.as_bytes(), expected);
    }

    #[test]
    fn an_address_above_4_gib_is_marked_as_64_bit() {
        let high = screen(0x12_3456_0000, 64 << 20);
        assert_eq!(high[0x18..0x20], [0, 0, 0x56, 0x34, 0, 4, 0, 0]);
        assert_eq!(high[0x36..0x40], [2, 0, 0, 0, 0x12, 0, 0, 0, 0, 0]);
    }
}
