//! The first sector, with the numbers that describe the file system (FAT, "Boot Sector and BPB").

use core::num::NonZeroU32;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{Fat, Kind, Place};

/// The length of an entry of a directory.
const ENTRY_LEN: u64 = 32;
/// Fewer clusters than this are FAT12 (FAT, "FAT Type Determination").
const LEAST_FAT16: u64 = 4085;
/// Fewer clusters than this are FAT16.
const LEAST_FAT32: u64 = 65525;
/// As many clusters can be numbered beside the marks for an end and for a bad cluster.
const MOST_CLUSTERS: u64 = 0xfff_fff5;

/// The fields up to the last one that is used.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BootSector {
    jump: [u8; 3],
    maker: [u8; 8],
    sector_len: U16,
    cluster_sectors: u8,
    reserved_sectors: U16,
    tables: u8,
    root_entries: U16,
    sectors_16: U16,
    media: u8,
    table_sectors_16: U16,
    geometry: [U16; 2],
    hidden_sectors: U32,
    sectors_32: U32,
    rest: [u8; 54],
}

/// What follows in FAT12 and FAT16, and in FAT32 at the end.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Identity {
    drive: [u8; 2],
    signature: u8,
    serial: U32,
    label: [u8; 11],
}

/// What follows in FAT32.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Fat32 {
    table_sectors: U32,
    flags: U16,
    version: U16,
    root_cluster: U32,
    information_sector: U16,
    copy_sector: U16,
    reserved: [u8; 12],
    identity: Identity,
}

/// [`Identity::signature`]: a serial number follows; and also a label.
const HAS_SERIAL: [u8; 2] = [0x28, 0x29];
const HAS_LABEL: u8 = 0x29;
/// [`Fat32::flags`]: only the table of the number in the low bits is in use.
const ONE_TABLE: u16 = 1 << 7;
const TABLE_NUMBER: u16 = 0xf;

impl BootSector {
    /// The file system, if that is what the sector begins. The numbers that must hold are those that edk2's driver checks, and
    /// that there is room for a cluster.
    pub fn volume(&self) -> Option<Fat> {
        let sector_len = u64::from(self.sector_len.get());
        let cluster_sectors = u64::from(self.cluster_sectors);
        let is_plausible = sector_len.is_power_of_two()
            && (512..=4096).contains(&sector_len)
            && cluster_sectors.is_power_of_two()
            && self.reserved_sectors.get() > 0
            && self.tables > 0
            && matches!(self.media, 0 | 1 | 0xf0 | 0xf8..);
        if !is_plausible {
            return None;
        }
        let (fat32, _) = Fat32::ref_from_prefix(&self.rest).ok()?;
        let (identity, _) = Identity::ref_from_prefix(&self.rest).ok()?;
        let is_fat32 = self.table_sectors_16.get() == 0;
        let identity = if is_fat32 { &fat32.identity } else { identity };
        let table_sectors =
            if is_fat32 { fat32.table_sectors.get().into() } else { u64::from(self.table_sectors_16.get()) };
        let sectors = match self.sectors_16.get() {
            0 => u64::from(self.sectors_32.get()),
            few => few.into(),
        };

        let root_entries = if is_fat32 { 0 } else { u64::from(self.root_entries.get()) };
        let root_sectors = root_entries.checked_mul(ENTRY_LEN)?.div_ceil(sector_len);
        let root_sector =
            u64::from(self.tables).checked_mul(table_sectors)?.checked_add(self.reserved_sectors.get().into())?;
        let data_sector = root_sector.checked_add(root_sectors)?;
        let clusters = sectors.checked_sub(data_sector)?.checked_div(cluster_sectors)?;

        let (kind, table) = if is_fat32 {
            let flags = fat32.flags.get();
            let table = if flags & ONE_TABLE == 0 { 0 } else { u64::from(flags & TABLE_NUMBER) };
            if fat32.version.get() != 0 || table >= self.tables.into() {
                return None;
            }
            (Kind::Fat32, table)
        } else if root_entries == 0 || clusters >= LEAST_FAT32 {
            return None;
        } else {
            (if clusters < LEAST_FAT16 { Kind::Fat12 } else { Kind::Fat16 }, 0)
        };
        let table_len = table_sectors.checked_mul(sector_len)?;
        // The first two entries of the table are not those of clusters.
        let described = table_len.checked_mul(8)?.checked_div(kind.bits())?.saturating_sub(2);
        let clusters =
            u32::try_from(clusters.min(described).min(MOST_CLUSTERS)).ok().filter(|&clusters| clusters > 0)?;

        let table = table.checked_mul(table_sectors)?.checked_add(self.reserved_sectors.get().into())?;
        let root_at = root_sector.checked_mul(sector_len)?;
        let root = match kind {
            Kind::Fat32 => Place::Chain(fat32.root_cluster.get() & kind.mask()),
            _ => Place::Row { at: root_at, len: u32::try_from(root_entries.checked_mul(ENTRY_LEN)?).ok()? },
        };
        Some(Fat {
            kind,
            table: table.checked_mul(sector_len)?,
            table_len,
            root,
            data: data_sector.checked_mul(sector_len)?,
            cluster_len: NonZeroU32::new(u32::try_from(sector_len.checked_mul(cluster_sectors)?).ok()?)?,
            clusters,
            serial: if HAS_SERIAL.contains(&identity.signature) { identity.serial.get() } else { 0 },
            label: if identity.signature == HAS_LABEL { identity.label } else { [b' '; 11] },
        })
    }
}
