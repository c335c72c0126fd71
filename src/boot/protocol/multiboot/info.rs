//! The Multiboot information for the kernel: the host's, with memory sizes, the memory map and the framebuffer added.

use alloc::boxed::Box;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::host_info::{Fields, HostInfo, flags};
use crate::addr::PhysRange;
use crate::boot::error::Error;
use crate::framebuffer::{Framebuffer, Mode};
use crate::layout;
use crate::memory_map::{CAPACITY, E820Entry, MemoryMap};

/// `framebuffer_type`: pixels of red, green and blue.
const FRAMEBUFFER_RGB: u8 = 1;

/// The fields for VBE and the framebuffer after [`Fields`] (section 3.3, `vbe_*` and `framebuffer_*`).
#[derive(Clone, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Video {
    apm_table: U32,
    vbe: [U32; 2],
    vbe_mode: [U16; 4],
    framebuffer: U64,
    /// Bytes from one line to the next.
    pitch: U32,
    /// In pixels.
    width: U32,
    height: U32,
    bits_per_pixel: u8,
    framebuffer_type: u8,
    /// Lowest bit and number of bits, for red, green and blue.
    colors: [[u8; 2]; 3],
}

/// An entry of the memory map. Its types are those of e820 (section 3.3, `mmap_addr`).
#[derive(Clone, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MapEntry {
    /// The length of the entry without this field.
    size: U32,
    entry: E820Entry,
}

/// The Multiboot information, followed by the memory map, ready to be stored.
#[derive(Clone, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MultibootInfo {
    fields: Fields,
    video: Video,
    memory_map: [MapEntry; CAPACITY],
}

impl MultibootInfo {
    /// The information for a kernel that finds it at `place`, on a machine with this map and framebuffer. Everything
    /// loaded is already reserved in the map.
    ///
    /// # Errors
    /// [`Error::HeapFull`].
    pub fn new(
        host: &HostInfo,
        place: PhysRange,
        map: &MemoryMap,
        framebuffer: Option<&Framebuffer>,
    ) -> Result<Box<Self>, Error> {
        let mut info = Self::new_box_zeroed().map_err(|_| Error::HeapFull)?;
        info.fields = host.0.clone();
        let mut valid = info.fields.flags.get() | flags::MEMORY | flags::MEMORY_MAP;
        info.fields.mem_lower.set(map.ram_run_kib(layout::CONVENTIONAL));
        info.fields.mem_upper.set(map.ram_run_kib(layout::EXTENDED));
        let size = U32::new(size_of::<E820Entry>() as u32);
        let count = map.fill_from_e820(&mut info.memory_map, |entry| MapEntry { size, entry });
        info.fields.memory_map_length.set(count.saturating_mul(size_of::<MapEntry>() as u32));
        let at = place.start().get().saturating_add(core::mem::offset_of!(Self, memory_map) as u64);
        // The place is in low memory.
        info.fields.memory_map.set(at as u32);
        if let Some(framebuffer) = framebuffer {
            valid |= flags::FRAMEBUFFER;
            info.video.set_screen(framebuffer);
        }
        info.fields.flags.set(valid);
        Ok(info)
    }

    /// The bytes to be stored.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Video {
    fn set_screen(&mut self, framebuffer: &Framebuffer) {
        let mode = framebuffer.mode;
        self.framebuffer.set(framebuffer.memory.start().get());
        self.pitch.set(mode.line_bytes().into());
        self.width.set(mode.width().into());
        self.height.set(mode.height().into());
        // 32 fits.
        self.bits_per_pixel = Mode::BITS_PER_PIXEL as u8;
        self.framebuffer_type = FRAMEBUFFER_RGB;
        // XRGB8888.
        self.colors = [[16, 8], [8, 8], [0, 8]];
    }
}
