//! Tables that the host has put into memory itself. They stay unchanged: their memory is reserved, and the kernel gets the RSDP.
//! If the firmware or a module is in their place, the tables are lost, and the signature of their entry point is removed.
//!
//! They are searched where an operating system without other information searches: in the last KiB below 640 KiB and from 0xe0000
//! to 0xfffff, on 16-byte boundaries. If this is memory, the search costs instructions, but no exits. A page that begins with all
//! ones counts as absent.
//!
//! The tables are trusted, so they must be from this start, not from a guest that ran before a reset. Memory cannot show that. So
//! tables are searched only on hosts that are known to put them there and to give each start new memory
//! ([`crate::fw_cfg::HostKind::puts_tables_into_memory`]). QEMU does neither.
//!
//! Assumed: the host itself reserves what its tables point to, except other tables (a TPM's log, buffers of devices). Left out:
//! tables above 4 GiB.

#[cfg(test)]
mod tests;

use arrayvec::ArrayVec;
use uefi_raw::table::boot::MemoryType;

use crate::acpi::{HEADER_LEN, NoTable, TableReader};
use crate::addr::{Alignment, PhysAddr, PhysRange, constant_range as range};
use crate::checksum;
use crate::fw_cfg::FwCfg;
use crate::hal::{Memory, MemoryError};
use crate::layout::{self, F_SEGMENT};
use crate::logging::RateLimited;
use crate::memory_map::{HostMap, Regions};
use crate::smbios::{EntryPoint, MAX_ENTRY_POINT};

/// Where entry points are searched: the usual extended BIOS data area, and the BIOS's segments (ACPI 6.5, 5.2.5.1; MultiProcessor
/// Specification 1.4, chapter 4).
const SCANNED: [PhysRange; 2] = [layout::EBDA, range(0xe_0000, F_SEGMENT.end().get())];

/// The length of the longer RSDP (ACPI 6.5, table 5.3).
const RSDP_LEN: u64 = 36;

const PAGE: usize = 4096;
/// Entry points are at multiples of this.
const PARAGRAPH: usize = 16;
/// The most entry points with valid checksums that are used. A host has one of each kind.
const MOST_ENTRY_POINTS: usize = 16;

/// The most tables that are read from a list of tables.
const MOST_TABLES: u64 = 128;
/// The longest valid table, in bytes.
const MOST_LEN: u64 = 4 << 20;

/// The tables that the host has put into memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InMemory {
    /// The ACPI root pointer.
    pub rsdp: Option<PhysAddr>,
    /// Whether there is an MP table.
    pub mp_table: bool,
    /// Whether some of it is in the extended BIOS data area, which must then not be overwritten.
    pub in_ebda: bool,
}

impl InMemory {
    /// Finds the tables, on hosts that put them into memory, and reserves them in `map` before anything else is put there. ACPI
    /// tables are searched if `wants_acpi`, because the host has none in fw_cfg.
    pub fn of_host(machine: &mut dyn Memory, fw_cfg: &FwCfg, wants_acpi: bool, map: &mut HostMap) -> Self {
        if !fw_cfg.host_kind().puts_tables_into_memory() {
            return Self::default();
        }
        find(machine, map, wants_acpi).unwrap_or_else(|error| {
            crate::warn!("tables in memory cannot be searched: {error}");
            Self::default()
        })
    }
}

/// Reserves the ACPI tables whose root pointer is at `rsdp`. Returns `rsdp` if it is a root pointer.
pub fn reserve_acpi(memory: &mut dyn Memory, map: &mut HostMap, rsdp: PhysAddr) -> Option<PhysAddr> {
    let mut warnings = Warnings::default();
    let outcome = try_reserve_acpi(memory, map, rsdp, &mut warnings);
    warnings.say_rest();
    if outcome == Outcome::Lost {
        remove_entry_point(memory, rsdp);
    }
    (outcome == Outcome::Kept).then_some(rsdp)
}

/// The result for the tables of an entry point.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// They are reserved.
    Kept,
    /// The firmware, its image or a module is in their place.
    Lost,
    /// There are none.
    None,
}

impl Outcome {
    const fn of(is_kept: bool) -> Self {
        if is_kept { Self::Kept } else { Self::Lost }
    }
}

#[inline(never)]
fn try_reserve_acpi(memory: &mut dyn Memory, map: &mut HostMap, rsdp: PhysAddr, warnings: &mut Warnings) -> Outcome {
    let mut parts = Parts::new();
    if let Err(error) = acpi_parts(memory, rsdp, &mut parts, warnings) {
        warnings.left_out.warn(format_args!("the host's ACPI tables in memory are left out: {error}"));
        return Outcome::None;
    }
    let mut is_kept = true;
    for part in parts {
        let (range, kind) = part;
        // Only windows have this kind, and no window overlaps RAM.
        if kind == MemoryType::RESERVED && map.ram_end(range).is_some() {
            warnings.windows.warn(format_args!(
                "the host's ACPI tables in memory have PCI configuration at {range}, which is RAM: it is not kept"
            ));
            continue;
        }
        is_kept &= reserve(map, part, "ACPI", warnings);
    }
    Outcome::of(is_kept)
}

#[inline(never)]
fn find(memory: &mut dyn Memory, map: &mut HostMap, wants_acpi: bool) -> Result<InMemory, MemoryError> {
    let mut found = InMemory::default();
    let mut warnings = Warnings::default();
    for (kind, at) in entry_points(memory, wants_acpi)? {
        let outcome = match kind {
            Kind::Rsdp if found.rsdp.is_none() => try_reserve_acpi(memory, map, at, &mut warnings),
            Kind::Rsdp => Outcome::None,
            Kind::Smbios => reserve_smbios(memory, map, at, &mut warnings),
            Kind::MpTable => reserve_mp_table(memory, map, at, &mut warnings),
        };
        match (outcome, kind) {
            (Outcome::Kept, Kind::Rsdp) => found.rsdp = Some(at),
            (Outcome::Kept, Kind::MpTable) => found.mp_table = true,
            (Outcome::Lost, _) if !is_in_rsdp(found.rsdp, at) => remove_entry_point(memory, at),
            _ => {}
        }
        found.in_ebda |= outcome != Outcome::None && layout::EBDA.contains_addr(at);
    }
    warnings.say_rest();
    Ok(found)
}

/// Warnings about tables in memory. Only the first of each kind is logged, because a list may point to hundreds of tables.
#[derive(Default)]
struct Warnings {
    /// Root pointers without a valid list.
    left_out: RateLimited<1>,
    /// Pointers without a valid table.
    none: RateLimited<1>,
    /// Windows of configuration space that overlap RAM.
    windows: RateLimited<1>,
    /// Tables in the firmware's place.
    lost: RateLimited<1>,
    /// Tables that do not fit into the firmware's lists.
    not_reserved: RateLimited<1>,
}

impl Warnings {
    fn say_rest(&self) {
        let Self { left_out, none, windows, lost, not_reserved } = self;
        let rest = [left_out, none, windows, lost, not_reserved].map(|warnings| warnings.rest().unwrap_or(0));
        let rest = rest.into_iter().fold(0, u32::saturating_add);
        if rest > 0 {
            crate::warn!("the host's tables in memory: {rest} more warnings like these");
        }
    }
}

/// The kind of an entry point, by its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsdp,
    Smbios,
    MpTable,
}

impl Kind {
    fn of(paragraph: &[u8; PARAGRAPH]) -> Option<Self> {
        match paragraph {
            [b'R', b'S', b'D', b' ', ..] => Some(Self::Rsdp),
            [b'_', b'S', b'M', b'_' | b'3', ..] => Some(Self::Smbios),
            [b'_', b'M', b'P', b'_', ..] => Some(Self::MpTable),
            _ => None,
        }
    }

    /// Whether a wanted entry point of this kind, with a valid checksum, is at `at`.
    fn is_at(self, memory: &mut dyn Memory, at: PhysAddr, wants_acpi: bool) -> bool {
        match self {
            Self::Rsdp => wants_acpi && is_rsdp(memory, at),
            Self::Smbios => F_SEGMENT.contains_addr(at) && smbios_structures(memory, at).is_some(),
            Self::MpTable => mp_pointer(memory, at).is_some(),
        }
    }
}

/// The entry points that were found.
type EntryPoints = ArrayVec<(Kind, PhysAddr), MOST_ENTRY_POINTS>;

/// Finds all entry points; those of ACPI only if they are wanted.
fn entry_points(memory: &mut dyn Memory, wants_acpi: bool) -> Result<EntryPoints, MemoryError> {
    let mut entry_points = EntryPoints::new();
    let mut page = [0; PAGE];
    for area in SCANNED {
        let mut at = area.start();
        while at < area.end() {
            let len = area.end().get().saturating_sub(at.get()).min(PAGE as u64);
            let (Some(next), Some(bytes)) = (at.checked_add(len), page.get_mut(..len as usize)) else { break };
            let (paragraphs, _) = bytes.as_chunks_mut::<PARAGRAPH>();
            if let Some(first) = paragraphs.first_mut() {
                memory.read(at, first)?;
                if *first != [0xff; PARAGRAPH] {
                    memory.read(at, bytes)?;
                    if !collect(memory, bytes, at, wants_acpi, &mut entry_points) {
                        crate::warn!(
                            "more than {MOST_ENTRY_POINTS} entry points of tables are in memory below 1 MiB: those above {at} are \
                             not all looked at; report it with the host's version"
                        );
                        return Ok(entry_points);
                    }
                }
            }
            at = next;
        }
    }
    Ok(entry_points)
}

/// Adds the entry points in `bytes`, which are at `start`. Returns whether there was room.
///
/// Only valid entry points take room.
fn collect(
    memory: &mut dyn Memory,
    bytes: &[u8],
    start: PhysAddr,
    wants_acpi: bool,
    entry_points: &mut EntryPoints,
) -> bool {
    bytes.as_chunks::<PARAGRAPH>().0.iter().zip(0_u64..).all(|(paragraph, number)| {
        let Some(kind) = Kind::of(paragraph) else { return true };
        let Some(at) = start.checked_add(number.saturating_mul(PARAGRAPH as u64)) else { return true };
        !kind.is_at(memory, at, wants_acpi) || entry_points.try_push((kind, at)).is_ok()
    })
}

/// Anything below 4 GiB may be memory: hosts put tables at addresses that are not in their maps. The firmware's own memory is not
/// read.
const fn may_be_memory(range: PhysRange) -> bool {
    layout::may_access(range)
}

fn is_rsdp(memory: &mut dyn Memory, at: PhysAddr) -> bool {
    TableReader::new(memory, &may_be_memory).rsdp(at).is_ok()
}

/// A range of memory, and its kind in the map.
type Part = (PhysRange, MemoryType);
/// The RSDP, two lists, and for each list the tables, the FACS, the DSDT and four windows.
type Parts = ArrayVec<Part, { MOST_TABLES as usize + 16 }>;

/// Collects the ranges of the tables.
fn acpi_parts(
    memory: &mut dyn Memory,
    rsdp: PhysAddr,
    parts: &mut Parts,
    warnings: &mut Warnings,
) -> Result<(), NoTable> {
    let mut tables = TableReader::new(memory, &may_be_memory);
    let mut add = |range, kind| {
        if parts.try_push((range, kind)).is_err() {
            let text = format_args!("there are too many ACPI tables in memory: {range} may be overwritten");
            warnings.not_reserved.warn(text);
        }
    };
    add(tables.rsdp(rsdp)?, MemoryType::ACPI_RECLAIM);
    let root = tables.root(rsdp)?;
    add(root.table, MemoryType::ACPI_RECLAIM);
    for index in 0..MOST_TABLES {
        let Some(at) = tables.entry(&root, index) else { break };
        let Some((name, table)) = believed(&mut tables, at, &mut warnings.none) else { continue };
        add(table, MemoryType::ACPI_RECLAIM);
        match &name {
            b"FACP" => {
                let (facs, dsdt) = (tables.facs(table), tables.dsdt(table));
                for (at, kind) in [(facs, MemoryType::ACPI_NON_VOLATILE), (dsdt, MemoryType::ACPI_RECLAIM)] {
                    if let Some((_, table)) = believed(&mut tables, at, &mut warnings.none) {
                        add(table, kind);
                    }
                }
            }
            b"MCFG" => {
                for number in 0..MOST_WINDOWS {
                    let Some(window) = config_window(&mut tables, table, number) else { break };
                    add(window, MemoryType::RESERVED);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The table at `at` (zero for none), if its length is valid.
fn believed(tables: &mut TableReader<'_>, at: PhysAddr, none: &mut RateLimited<1>) -> Option<([u8; 4], PhysRange)> {
    if at == PhysAddr::default() {
        return None;
    }
    let found = tables.any_table(at, LEAST_LEN).filter(|(_, table)| table.len() <= MOST_LEN);
    if found.is_none() {
        none.warn(format_args!("there is no ACPI table at {at}, where the host's tables in memory point"));
    }
    found
}

/// The shortest header of a table.
const LEAST_LEN: u32 = 8;
const _: () = assert!(LEAST_LEN <= HEADER_LEN);

/// The MCFG's windows, from byte 44 on, 16 bytes each: base, segment, first and last bus (PCI Firmware Specification 3.3,
/// table 4-3).
const MCFG_WINDOWS: u64 = 44;
const MCFG_WINDOW_LEN: u64 = 16;
/// The most windows that are read.
const MOST_WINDOWS: u64 = 4;

/// A window of configuration space, which operating systems use only if it is reserved.
fn config_window(tables: &mut TableReader<'_>, mcfg: PhysRange, number: u64) -> Option<PhysRange> {
    let entry = number.checked_mul(MCFG_WINDOW_LEN)?.checked_add(MCFG_WINDOWS)?;
    let base = tables.number(mcfg, entry, 8)?;
    let (first, last) =
        (tables.number(mcfg, entry.checked_add(10)?, 1)?, tables.number(mcfg, entry.checked_add(11)?, 1)?);
    let buses = last.checked_sub(first)?.checked_add(1)?;
    PhysRange::new(PhysAddr::new(base.checked_add(first << 20)?), buses << 20)
}

/// The structures of the SMBIOS entry point at `at`, if it is one.
fn smbios_structures(memory: &mut dyn Memory, at: PhysAddr) -> Option<PhysRange> {
    let mut bytes = [0; MAX_ENTRY_POINT];
    let within = PhysRange::from_bounds(at, F_SEGMENT.end()).map_or(0, PhysRange::len);
    memory.read(at, bytes.get_mut(..MAX_ENTRY_POINT.min(within as usize))?).ok()?;
    EntryPoint::locate(&bytes).ok().filter(|structures| structures.len() <= MOST_LEN)
}

/// Reserves the structures of the SMBIOS entry point at `at`, if it is one.
fn reserve_smbios(memory: &mut dyn Memory, map: &mut HostMap, at: PhysAddr, warnings: &mut Warnings) -> Outcome {
    match smbios_structures(memory, at) {
        Some(structures) => Outcome::of(reserve(map, (structures, MemoryType::RESERVED), "SMBIOS", warnings)),
        None => Outcome::None,
    }
}

/// The target of the MP floating pointer at `at`, if it is one: zero for a default configuration without a table.
fn mp_pointer(memory: &mut dyn Memory, at: PhysAddr) -> Option<PhysAddr> {
    let mut pointer = [0; PARAGRAPH];
    memory.read(at, &mut pointer).ok()?;
    let [_, _, _, _, a, b, c, d, length, ..] = pointer;
    let table = PhysAddr::new(u32::from_le_bytes([a, b, c, d]).into());
    (length == 1 && checksum::sum(&pointer) == 0).then_some(table)
}

/// Reserves the table of the MP floating pointer at `at`, if it is one.
fn reserve_mp_table(memory: &mut dyn Memory, map: &mut HostMap, at: PhysAddr, warnings: &mut Warnings) -> Outcome {
    let Some(table) = mp_pointer(memory, at) else { return Outcome::None };
    // No table: one of the default configurations.
    if table == PhysAddr::default() {
        return Outcome::Kept;
    }
    let mut header = [0; 8];
    // If the firmware cannot read it, there is no table; the tables found before stay.
    let _ = memory.read(table, &mut header);
    let len = match header {
        [b'P', b'C', b'M', b'P', low, high, ..] => u16::from_le_bytes([low, high]),
        // Its beginning is already lost.
        _ if layout::FIRMWARE_RAM.contains_addr(table) => header.len() as u16,
        _ => return Outcome::None,
    };
    let range = PhysRange::new(table, len.into()).unwrap_or_default();
    Outcome::of(reserve(map, (range, MemoryType::RESERVED), "MP", warnings))
}

/// Whether the entry point at `at` is inside the RSDP that was found, which stays unchanged.
fn is_in_rsdp(rsdp: Option<PhysAddr>, at: PhysAddr) -> bool {
    rsdp.and_then(|rsdp| PhysRange::new(rsdp, RSDP_LEN)).is_some_and(|rsdp| rsdp.contains_addr(at))
}

/// Removes the signature of the entry point at `at`, whose tables are lost: an operating system would follow it to what is there
/// instead. An entry point in ROM stays.
fn remove_entry_point(memory: &mut dyn Memory, at: PhysAddr) {
    // It was read, so it is accessible.
    let _ = memory.write(at, &[0; 4]);
}

/// Whether the firmware itself is in `range`. The record for a wake only exists on a machine that can suspend, where all of that
/// memory is reserved.
fn is_own(map: &Regions, range: PhysRange) -> bool {
    range.overlaps(layout::FIRMWARE_RAM)
        || range.overlaps(layout::STARTUP_CODE)
        || range.overlaps(layout::RESUME_RECORD) && map.is_withheld(layout::KEPT_RAM)
}

/// Reserves `part`, in whole pages. Returns `false` if the firmware itself or a module is there: the host's tables are then lost.
fn reserve(map: &mut HostMap, (range, kind): Part, tables: &str, warnings: &mut Warnings) -> bool {
    // Nothing to reserve, at any address.
    if range.is_empty() {
        return true;
    }
    if is_own(map, range) {
        let text = format_args!("the host's {tables} table at {range} is lost: the firmware runs there");
        warnings.lost.warn(text);
        return false;
    }
    // Only the image and modules of a PVH start are loaded so far, in whole pages. They stay RAM to the kernel.
    if map.has_loaded(range) {
        let text =
            format_args!("the host's {tables} table at {range} is lost: the firmware's image or a module is there");
        warnings.lost.warn(text);
        return false;
    }
    let start = range.start().align_down(Alignment::PAGE);
    let pages = range.end().align_up(Alignment::PAGE).and_then(|end| PhysRange::from_bounds(start, end));
    if map.reserve(pages.unwrap_or(range), kind).is_err() {
        let text = format_args!("the memory map is full: the host's {tables} table at {range} may be overwritten");
        warnings.not_reserved.warn(text);
    }
    true
}
