//! The host's Multiboot information. Every pointer in it is checked to point into what the host has loaded.

use alloc::vec::Vec;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::addr::{PhysAddr, PhysRange};
use crate::boot::error::Error;
use crate::boot::loaded::BootModule;
use crate::hal::Memory;
use crate::heap;

/// Which fields are valid (section 3.3, `flags`).
pub mod flags {
    pub const MEMORY: u32 = 1 << 0;
    pub const BOOT_DEVICE: u32 = 1 << 1;
    pub const COMMAND_LINE: u32 = 1 << 2;
    pub const MODULES: u32 = 1 << 3;
    pub const MEMORY_MAP: u32 = 1 << 6;
    pub const LOADER_NAME: u32 = 1 << 9;
    pub const FRAMEBUFFER: u32 = 1 << 12;
}

/// The flags of fields that are passed on unchanged.
const FROM_HOST: u32 = flags::BOOT_DEVICE | flags::COMMAND_LINE | flags::MODULES | flags::LOADER_NAME;

/// Strings are read in pieces of this many bytes.
const STRING_PIECE: u64 = 64;

/// The Multiboot information (section 3.3), without the video information that follows.
#[derive(Clone, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Fields {
    pub flags: U32,
    /// KiB from 0 on, and from 1 MiB on.
    pub mem_lower: U32,
    pub mem_upper: U32,
    pub boot_device: U32,
    pub command_line: U32,
    pub modules_count: U32,
    pub modules: U32,
    pub symbols: [U32; 4],
    /// In bytes.
    pub memory_map_length: U32,
    pub memory_map: U32,
    pub drives: [U32; 2],
    pub config_table: U32,
    pub loader_name: U32,
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

/// The host's Multiboot information.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInfo(pub(super) Fields);

impl HostInfo {
    /// The bytes that are read from the start of the host's item.
    pub const LEN: usize = size_of::<Fields>();

    /// Parses the first bytes of the host's item, which has `len` bytes.
    ///
    /// # Errors
    /// [`Error::MultibootInfo`].
    pub fn parse(bytes: &[u8; Self::LEN], len: u32) -> Result<Self, Error> {
        let needed = Self::LEN as u32;
        if len < needed {
            return Err(Error::MultibootInfo { len, needed });
        }
        let host: Fields = zerocopy::transmute!(*bytes);
        let zero = Fields::new_zeroed();
        let if_valid = |flag, field: U32| if host.flags.get() & flag != 0 { field } else { zero.flags };
        Ok(Self(Fields {
            flags: U32::new(host.flags.get() & FROM_HOST),
            boot_device: if_valid(flags::BOOT_DEVICE, host.boot_device),
            command_line: if_valid(flags::COMMAND_LINE, host.command_line),
            modules_count: if_valid(flags::MODULES, host.modules_count),
            modules: if_valid(flags::MODULES, host.modules),
            loader_name: if_valid(flags::LOADER_NAME, host.loader_name),
            ..zero
        }))
    }

    fn has(&self, flag: u32) -> bool {
        self.0.flags.get() & flag != 0
    }

    /// The kernel itself: the part of `loaded` before the list of modules.
    #[must_use]
    pub fn kernel(&self, loaded: PhysRange) -> PhysRange {
        let end = if self.has(flags::MODULES) { address(self.0.modules) } else { loaded.end() };
        PhysRange::from_bounds(loaded.start(), end.min(loaded.end())).unwrap_or(loaded)
    }

    /// The kernel's command line with the NUL at its end. Empty if there is none. The command line and the boot
    /// loader's name are checked to be in `loaded`.
    ///
    /// # Errors
    /// [`Error::MultibootPointer`]; [`Error::FwCfg`] if the memory cannot be read.
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

    /// The modules. Each is checked to be in `loaded`, with its command line. Together they are no longer than
    /// `loaded`, which bounds the work on them.
    ///
    /// # Errors
    /// [`Error::MultibootPointer`], [`Error::MultibootOverlap`], [`Error::HeapFull`]; [`Error::FwCfg`] if the memory
    /// cannot be read.
    pub fn modules(&self, memory: &mut impl Memory, loaded: PhysRange) -> Result<Vec<BootModule>, Error> {
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
            // The address is in the list, which ends below 4 GiB.
            next = PhysAddr::new(next.get().saturating_add(entry.len() as u64));
        }
        Ok(modules)
    }
}

fn address(field: U32) -> PhysAddr {
    PhysAddr::new(field.get().into())
}

fn module(memory: &mut impl Memory, loaded: PhysRange, entry: &ModuleEntry) -> Result<BootModule, Error> {
    let at = address(entry.start);
    let bytes = PhysRange::from_bounds(at, address(entry.end))
        .filter(|bytes| loaded.start() <= bytes.start() && bytes.end() <= loaded.end())
        .ok_or(Error::MultibootPointer { what: "module", at, loaded })?;
    // Zero means none (section 3.3, `mods_addr`).
    let command_line = match entry.command_line.get() {
        0 => PhysRange::empty_at(at),
        _ => find_string(memory, loaded, entry.command_line, "command line of a module")?,
    };
    Ok(BootModule { bytes, command_line })
}

/// The string that begins at `field`, with its NUL, which must be in `loaded` as well.
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
        // Not beyond the end of `loaded`.
        at = PhysAddr::new(at.get().saturating_add(len));
        if nul.is_some() {
            return PhysRange::from_bounds(start, at).ok_or(outside);
        }
    }
    Err(outside)
}
