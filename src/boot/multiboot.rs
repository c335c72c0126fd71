//! Kernels for Multiboot, as hosts pass them: GNU Mach, Xen, many hobby and teaching kernels.
//!
//! The host has read the file. It gives one item with the kernel as it is to be in memory, the list of modules, the
//! command lines and the modules, all for fixed addresses, and another with the information that the kernel is to find
//! (QEMU `hw/i386/multiboot.c`). The first goes where the host says. Of the second, [`HostInfo`] is what was understood;
//! all that it points to is checked to be in the first. Memory sizes, memory map and screen are the firmware's to add:
//! [`MultibootInfo`]. That goes to a place of the firmware's choosing, since nothing of the host's points to it.
//!
//! Source: the Multiboot specification, version 0.6.96; "section" below. All fields are little-endian.
//!
//! Left out: what no host gives (symbols, drives, a configuration table, APM, VBE), setting the mode that a kernel asks
//! for, VGA text mode, and Multiboot 2.

use alloc::boxed::Box;
use alloc::vec::Vec;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Error;
use crate::addr::{PhysAddr, PhysRange, constant_range};
use crate::framebuffer::{Framebuffer, Mode};
use crate::hal::Memory;
use crate::memory_map::{CAPACITY, E820Entry, MemoryMap};
use crate::{heap, layout};

/// Which fields mean something (section 3.3, `flags`).
mod flags {
    pub(super) const MEMORY: u32 = 1 << 0;
    pub(super) const BOOT_DEVICE: u32 = 1 << 1;
    pub(super) const COMMAND_LINE: u32 = 1 << 2;
    pub(super) const MODULES: u32 = 1 << 3;
    pub(super) const MEMORY_MAP: u32 = 1 << 6;
    pub(super) const LOADER_NAME: u32 = 1 << 9;
    pub(super) const FRAMEBUFFER: u32 = 1 << 12;
}

/// The flags of fields that are passed on as the host has them.
const FROM_HOST: u32 = flags::BOOT_DEVICE | flags::COMMAND_LINE | flags::MODULES | flags::LOADER_NAME;

/// `framebuffer_type`: pixels of red, green and blue.
const FRAMEBUFFER_RGB: u8 = 1;

/// The memory of which `mem_upper` tells.
const UPPER_MEMORY: PhysRange = constant_range(1 << 20, 1 << 32);

/// The bytes of a string that are looked at together.
const STRING_PIECE: u64 = 64;

/// The Multiboot information (section 3.3), without the video information that follows.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Fields {
    flags: U32,
    /// KiB from 0, and from 1 MiB on.
    mem_lower: U32,
    mem_upper: U32,
    boot_device: U32,
    command_line: U32,
    modules_count: U32,
    modules: U32,
    symbols: [U32; 4],
    /// In bytes.
    memory_map_length: U32,
    memory_map: U32,
    drives: [U32; 2],
    config_table: U32,
    loader_name: U32,
}

/// An entry of the list of modules.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ModuleEntry {
    start: U32,
    /// One past the last byte.
    end: U32,
    command_line: U32,
    reserved: U32,
}

/// A module that is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its bytes.
    pub bytes: PhysRange,
    /// Its command line, with the NUL at the end.
    pub command_line: PhysRange,
}

/// What the host tells the kernel.
#[derive(Clone)]
pub struct HostInfo(Fields);

impl HostInfo {
    /// The bytes of the host's item that are read, from its start.
    pub const LEN: usize = size_of::<Fields>();

    /// What is in the first bytes of the host's item, which has `len`.
    ///
    /// # Errors
    /// [`Error::MultibootInfo`].
    pub fn parse(bytes: &[u8; Self::LEN], len: u32) -> Result<Self, Error> {
        let needed = Self::LEN as u32;
        if len < needed {
            return Err(Error::MultibootInfo { len, needed });
        }
        let told: Fields = zerocopy::transmute!(*bytes);
        let zero = Fields::new_zeroed();
        let given = |flag, field: U32| if told.flags.get() & flag != 0 { field } else { zero.flags };
        Ok(Self(Fields {
            flags: U32::new(told.flags.get() & FROM_HOST),
            boot_device: given(flags::BOOT_DEVICE, told.boot_device),
            command_line: given(flags::COMMAND_LINE, told.command_line),
            modules_count: given(flags::MODULES, told.modules_count),
            modules: given(flags::MODULES, told.modules),
            loader_name: given(flags::LOADER_NAME, told.loader_name),
            ..zero
        }))
    }

    fn has(&self, flag: u32) -> bool {
        self.0.flags.get() & flag != 0
    }

    /// The part of what the host has `loaded` that is the kernel itself: all before the list of modules.
    #[must_use]
    pub fn kernel(&self, loaded: PhysRange) -> PhysRange {
        let end = if self.has(flags::MODULES) { address(self.0.modules) } else { loaded.end() };
        PhysRange::from_bounds(loaded.start(), end.min(loaded.end())).unwrap_or(loaded)
    }

    /// The kernel's command line, with the NUL at its end; empty when there is none. It and the boot loader's name are
    /// checked to be in what the host has `loaded`.
    ///
    /// # Errors
    /// [`Error::MultibootPointer`], [`Error::FwCfg`] when the memory cannot be read.
    pub fn command_line(&self, memory: &mut impl Memory, loaded: PhysRange) -> Result<PhysRange, Error> {
        if self.has(flags::LOADER_NAME) {
            find_string(memory, loaded, self.0.loader_name, "boot loader's name")?;
        }
        if self.has(flags::COMMAND_LINE) {
            find_string(memory, loaded, self.0.command_line, "command line")
        } else {
            Ok(PhysRange::empty_at(loaded.start()))
        }
    }

    /// The modules, each checked to be in what the host has `loaded`, with its command line. Together they are no longer than
    /// that, so that what is done with all of them has an end.
    ///
    /// # Errors
    /// [`Error::MultibootPointer`], [`Error::MultibootOverlap`], [`Error::HeapFull`], [`Error::FwCfg`] when the memory cannot be read.
    pub fn modules(&self, memory: &mut impl Memory, loaded: PhysRange) -> Result<Vec<Module>, Error> {
        let count = self.0.modules_count.get();
        let at = address(self.0.modules);
        let list = PhysRange::new(at, u64::from(count).saturating_mul(size_of::<ModuleEntry>() as u64));
        let Some(list) = list.filter(|list| list.is_empty() || loaded.contains(*list)) else {
            return Err(Error::MultibootPointer { what: "list of modules", at, loaded });
        };
        let mut modules = heap::with_capacity(count as usize).map_err(|_| Error::HeapFull)?;
        let mut left = loaded.len();
        let mut next = list.start();
        while next < list.end() {
            let mut entry = [0; size_of::<ModuleEntry>()];
            memory.read(next, &mut entry)?;
            let module = module(memory, loaded, &zerocopy::transmute!(entry))?;
            let len = module.bytes.len().saturating_add(module.command_line.len());
            left = left.checked_sub(len).ok_or(Error::MultibootOverlap { at: module.bytes.start(), loaded })?;
            heap::push_within_capacity(&mut modules, module).map_err(|_| Error::HeapFull)?;
            // It is in the list, which ends below 4 GiB.
            next = PhysAddr::new(next.get().saturating_add(entry.len() as u64));
        }
        Ok(modules)
    }
}

fn address(field: U32) -> PhysAddr {
    PhysAddr::new(field.get().into())
}

fn module(memory: &mut impl Memory, loaded: PhysRange, entry: &ModuleEntry) -> Result<Module, Error> {
    let at = address(entry.start);
    let bytes = PhysRange::from_bounds(at, address(entry.end))
        .filter(|bytes| loaded.start() <= bytes.start() && bytes.end() <= loaded.end())
        .ok_or(Error::MultibootPointer { what: "module", at, loaded })?;
    // Zero stands for none (section 3.3, `mods_addr`).
    let command_line = match entry.command_line.get() {
        0 => PhysRange::empty_at(at),
        _ => find_string(memory, loaded, entry.command_line, "command line of a module")?,
    };
    Ok(Module { bytes, command_line })
}

/// The string that begins at `field`, with its NUL, which is to be in `loaded` as well.
fn find_string(
    memory: &mut impl Memory,
    loaded: PhysRange,
    field: U32,
    what: &'static str,
) -> Result<PhysRange, Error> {
    let start = address(field);
    let outside = Error::MultibootPointer { what, at: start, loaded };
    let mut at = start;
    while loaded.contains_addr(at) {
        let mut piece = [0; STRING_PIECE as usize];
        let len = loaded.end().get().saturating_sub(at.get()).min(STRING_PIECE);
        let piece = piece.get_mut(..len as usize).unwrap_or_default();
        memory.read(at, piece)?;
        let nul = piece.iter().position(|&byte| byte == 0);
        let len = nul.map_or(len, |nul| (nul as u64).saturating_add(1));
        // No further than the end of what is loaded.
        at = PhysAddr::new(at.get().saturating_add(len));
        if nul.is_some() {
            return PhysRange::from_bounds(start, at).ok_or(outside);
        }
    }
    Err(outside)
}

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

#[cfg(test)]
mod tests;
