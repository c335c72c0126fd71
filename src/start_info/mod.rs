//! The data of a host that starts the firmware at the PVH entry point instead of the reset vector: Xen's `hvm_start_info` with
//! the lists that it points to.
//!
//! All of it is read once, before the firmware puts anything into memory, because hosts put it anywhere below 1 MiB. Modules are
//! ranges of memory; [`crate::boot`] reads their contents.
//!
//! Assumed: the low 4 GiB are mapped. Left out: the command lines of modules.
//!
//! The contract is Xen's `docs/misc/pvh.pandoc`, the structures are in [`abi`].

pub mod abi;
mod error;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use uefi_raw::table::boot::MemoryType;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

pub use error::{Error, Part};

use crate::addr::{PhysAddr, PhysRange};
use crate::hal::{Memory, MemoryError};
use crate::heap;
use crate::layout;
use crate::memory_map::{self, E820Entry, HostMap};
use abi::{Header, MapEntry, Module};

/// The most entries of a memory map.
const MOST_ENTRIES: u32 = 1024;
/// The most modules: a kernel, an initrd, and some that are neither.
pub const MOST_MODULES: usize = 8;
/// The longest command line, in bytes without its NUL: Cloud Hypervisor's limit.
const MOST_COMMAND_LINE: usize = 0x1_0000;
/// How many bytes of a command line are read at a time, up to a multiple of it: the firmware may not be allowed to read the
/// memory after the line.
const COMMAND_LINE_PIECE: usize = 256;

/// The host's data, checked and copied out of its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartInfo {
    /// The memory map in the host's order; empty if there is none.
    pub memory_map: Vec<E820Entry>,
    /// The command line, without the NUL at its end.
    pub command_line: Vec<u8>,
    /// The memory of each module, in the host's order. None is empty or overlaps the firmware's memory.
    pub modules: ArrayVec<PhysRange, MOST_MODULES>,
    /// The address of the RSDP, if the host has put ACPI tables into memory.
    pub rsdp: Option<PhysAddr>,
}

/// How the firmware was started. `T` is the host's data: first its address, then its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start<T = StartInfo> {
    /// At the reset vector: the machine is in its reset state.
    Reset,
    /// At the PVH entry point, with the host's data. The host may have set up the machine.
    Pvh(T),
}

impl Start<PhysAddr> {
    /// Reads the host's data. Called before the firmware puts anything into memory, because the data may be anywhere.
    ///
    /// # Errors
    /// As of [`StartInfo::read`].
    pub fn read(self, memory: &mut dyn Memory) -> Result<Start, Error> {
        match self {
            Self::Reset => Ok(Start::Reset),
            Self::Pvh(at) => StartInfo::read(memory, at).map(Start::Pvh),
        }
    }
}

impl Start {
    /// The host's data, if there is any.
    #[must_use]
    pub const fn info(&self) -> Option<&StartInfo> {
        match self {
            Self::Reset => None,
            Self::Pvh(info) => Some(info),
        }
    }
}

impl StartInfo {
    /// Reads the structure at `at` and what it points to.
    ///
    /// # Errors
    /// [`Error::NoMagic`], [`Error::Unreachable`], [`Error::TooManyEntries`], [`Error::CommandLineTooLong`],
    /// [`Error::ModuleOverFirmware`], [`Error::HeapFull`].
    #[cold]
    #[inline(never)]
    pub fn read(memory: &mut dyn Memory, at: PhysAddr) -> Result<Self, Error> {
        let mut header = Header::new_zeroed();
        read(memory, at, header.as_mut_bytes(), Part::StartInfo)?;
        if header.magic.get() != abi::MAGIC {
            return Err(Error::NoMagic { at, seen: header.magic.get() });
        }
        let rsdp = Some(PhysAddr::new(header.rsdp_paddr.get())).filter(|at| at.get() != 0);
        Ok(Self {
            memory_map: read_memory_map(memory, &header)?,
            command_line: read_command_line(memory, PhysAddr::new(header.cmdline_paddr.get()))?,
            modules: read_modules(memory, &header)?,
            rsdp,
        })
    }

    /// Reserves the firmware's image and the modules in `map`. Both are RAM to the kernel.
    ///
    /// # Errors
    /// [`memory_map::Error::Full`].
    pub fn reserve(&self, map: &mut HostMap) -> Result<(), memory_map::Error> {
        map.reserve(layout::LOADED_IMAGE, MemoryType::LOADER_CODE)?;
        self.modules.iter().try_for_each(|module| map.reserve(module.pages(), MemoryType::LOADER_DATA))
    }
}

fn read(memory: &mut dyn Memory, at: PhysAddr, into: &mut [u8], part: Part) -> Result<(), Error> {
    // A list without entries may have any address.
    if into.is_empty() {
        return Ok(());
    }
    memory.read(at, into).map_err(|MemoryError { range }| Error::Unreachable { part, range })
}

fn read_memory_map(memory: &mut dyn Memory, header: &Header) -> Result<Vec<E820Entry>, Error> {
    // Version 0 ends before these fields.
    let count = if header.version.get() == 0 { 0 } else { header.memmap_entries.get() };
    if count > MOST_ENTRIES {
        return Err(Error::TooManyEntries { count, limit: MOST_ENTRIES });
    }
    let mut entries = MapEntry::new_vec_zeroed(count as usize).map_err(|_| Error::HeapFull)?;
    read(memory, PhysAddr::new(header.memmap_paddr.get()), entries.as_mut_bytes(), Part::MemoryMap)?;
    let mut map = heap::with_capacity(entries.len()).map_err(|_| Error::HeapFull)?;
    for entry in &entries {
        heap::push_within_capacity(&mut map, entry.as_e820()).map_err(|_| Error::HeapFull)?;
    }
    Ok(map)
}

fn read_command_line(memory: &mut dyn Memory, at: PhysAddr) -> Result<Vec<u8>, Error> {
    let mut line = Vec::new();
    if at.get() == 0 {
        return Ok(line);
    }
    let mut from = at;
    while line.len() <= MOST_COMMAND_LINE {
        let mut buffer = [0; COMMAND_LINE_PIECE];
        let (_, piece) = buffer.split_at_mut(from.get() as usize % COMMAND_LINE_PIECE);
        read(memory, from, piece, Part::CommandLine)?;
        let text = piece.split(|byte| *byte == 0).next().unwrap_or_default();
        heap::extend(&mut line, text).map_err(|_| Error::HeapFull)?;
        if text.len() < piece.len() && line.len() <= MOST_COMMAND_LINE {
            return Ok(line);
        }
        // An address that was read does not wrap.
        from = PhysAddr::new(from.get().saturating_add(piece.len() as u64));
    }
    Err(Error::CommandLineTooLong { at, limit: MOST_COMMAND_LINE })
}

fn read_modules(memory: &mut dyn Memory, header: &Header) -> Result<ArrayVec<PhysRange, MOST_MODULES>, Error> {
    let count = header.nr_modules.get();
    let mut list = [const { [0; size_of::<Module>()] }; MOST_MODULES];
    let list = list.get_mut(..(count as usize).min(MOST_MODULES)).unwrap_or_default();
    if count as usize > list.len() {
        crate::warn!("the host gives {count} modules, the first {MOST_MODULES} are looked at");
    }
    read(memory, PhysAddr::new(header.modlist_paddr.get()), list.as_mut_bytes(), Part::ModuleList)?;
    let mut modules = ArrayVec::new();
    for module in list.iter().filter_map(|bytes| Module::ref_from_bytes(bytes).ok()) {
        let (start, size) = (PhysAddr::new(module.paddr.get()), module.size.get());
        let range = PhysRange::new(start, size).ok_or(Error::ModuleWraps { start, size })?;
        if range.overlaps(layout::BOOT_RAM) || range.overlaps(layout::LOADED_IMAGE) {
            return Err(Error::ModuleOverFirmware { module: range });
        }
        if !range.is_empty() {
            // The list has no more than that.
            let _ = modules.try_push(range);
        }
    }
    Ok(modules)
}
