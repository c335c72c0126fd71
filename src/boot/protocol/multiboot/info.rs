//! The Multiboot information that a kernel is handed: the host's, with memory sizes, memory map and screen.

use alloc::boxed::Box;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::host_info::{Fields, HostInfo, flags};
use crate::addr::{PhysRange, constant_range};
use crate::boot::error::Error;
use crate::framebuffer::{Framebuffer, Mode};
use crate::layout;
use crate::memory_map::{CAPACITY, E820Entry, MemoryMap};

/// `framebuffer_type`: pixels of red, green and blue.
const FRAMEBUFFER_RGB: u8 = 1;

/// The memory of which `mem_upper` tells.
const UPPER_MEMORY: PhysRange = constant_range(1 << 20, 1 << 32);

/// What of VBE and the screen follows [`Fields`] (section 3.3, `vbe_*` and `framebuffer_*`).
#[derive(Clone, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Video {
    apm_table: U32,
    vbe: [U32; 2],
    vbe_mode: [U16; 4],
    framebuffer: U64,
    /// Bytes from line to line.
    pitch: U32,
    /// In pixels.
    width: U32,
    height: U32,
    bits_per_pixel: u8,
    framebuffer_type: u8,
    /// Lowest bit and number of bits of red, of green and of blue.
    colors: [[u8; 2]; 3],
}

/// An entry of the memory map, whose types are those of e820 (section 3.3, `mmap_addr`).
#[derive(Clone, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MapEntry {
    /// The bytes that follow.
    size: U32,
    entry: E820Entry,
}

/// The information that the kernel is handed, with the memory map behind it, ready to be stored.
#[derive(Clone, FromZeros, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MultibootInfo {
    fields: Fields,
    video: Video,
    memory_map: [MapEntry; CAPACITY],
}

impl MultibootInfo {
    /// What a kernel is told that finds it at `place`, on a machine with this map (in which everything is already held) and
    /// with this screen.
    ///
    /// # Errors
    /// [`Error::HeapFull`].
    pub fn new(
        told: &HostInfo,
        place: PhysRange,
        map: &MemoryMap,
        framebuffer: Option<&Framebuffer>,
    ) -> Result<Box<Self>, Error> {
        let mut info = Self::new_box_zeroed().map_err(|_| Error::HeapFull)?;
        info.fields = told.0.clone();
        let mut given = info.fields.flags.get() | flags::MEMORY | flags::MEMORY_MAP;
        info.fields.mem_lower.set(kib_of_ram(layout::CONVENTIONAL, map));
        info.fields.mem_upper.set(kib_of_ram(UPPER_MEMORY, map));
        let mut length = 0_u32;
        for (to, entry) in info.memory_map.iter_mut().zip(map.e820()) {
            *to = MapEntry { size: U32::new(size_of::<E820Entry>() as u32), entry };
            // There are at most CAPACITY.
            length = length.saturating_add(size_of::<MapEntry>() as u32);
        }
        info.fields.memory_map_length.set(length);
        let at = place.start().get().saturating_add(core::mem::offset_of!(Self, memory_map) as u64);
        // The place is in low memory.
        info.fields.memory_map.set(at as u32);
        if let Some(framebuffer) = framebuffer {
            given |= flags::FRAMEBUFFER;
            info.video.set_screen(framebuffer);
        }
        info.fields.flags.set(given);
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
        // 32.
        self.bits_per_pixel = Mode::BITS_PER_PIXEL as u8;
        self.framebuffer_type = FRAMEBUFFER_RGB;
        // XRGB8888.
        self.colors = [[16, 8], [8, 8], [0, 8]];
    }
}

/// The KiB of RAM at the start of `within`, which is below 4 GiB.
fn kib_of_ram(within: PhysRange, map: &MemoryMap) -> u32 {
    (map.ram_run_end(within).get().saturating_sub(within.start().get()) >> 10) as u32
}
