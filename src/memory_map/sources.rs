//! The sources of a map: the host's e820 file, `hvm_start_info`, or the memory sizes in CMOS.

use uefi_raw::table::boot::MemoryType;
use zerocopy::FromBytes;

use super::e820::{self, E820Entry};
use super::error::Error;
use super::host_map::HostMap;
use crate::addr::{PhysAddr, PhysRange};
use crate::cmos;
use crate::hal::Ports;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

impl HostMap {
    /// The map from the contents of the fw_cfg file `etc/e820`: packed [`E820Entry`] records in any order.
    ///
    /// Empty records are skipped. If records overlap, the more restrictive type wins, also in a whole page if a record begins or
    /// ends inside it. If there are too many records, RAM is dropped, never a reservation. Dropped RAM is warned about, except
    /// parts of pages.
    ///
    /// # Errors
    /// [`Error::NoRamInE820`], [`Error::RamWraps`], [`Error::HeapFull`], or [`Error::Full`] if the reservations leave no room for
    /// any RAM.
    pub fn from_e820(file: &[u8]) -> Result<Self, Error> {
        let (records, rest) = file.as_chunks::<{ size_of::<E820Entry>() }>();
        let entries = <[E820Entry]>::ref_from_bytes(records.as_flattened()).unwrap_or_default();
        if !rest.is_empty() {
            crate::warn!("etc/e820: {} bytes at its end are no whole record", rest.len());
        }
        Self::from_entries("etc/e820", entries, Error::NoRamInE820)
    }

    /// The map from a host's `hvm_start_info`, as [`Self::from_e820`].
    ///
    /// # Errors
    /// [`Error::NoRamInStartInfo`], [`Error::RamWraps`], [`Error::HeapFull`], or [`Error::Full`] if the reservations leave no
    /// room for any RAM.
    pub fn from_start_info(entries: &[E820Entry]) -> Result<Self, Error> {
        Self::from_entries("hvm_start_info", entries, Error::NoRamInStartInfo)
    }

    fn from_entries(source: &str, entries: &[E820Entry], no_ram: Error) -> Result<Self, Error> {
        let mut map = Self::default();
        // Reservations first: RAM that is entered later cannot uncover them, even if it does not all fit.
        for entry in entries {
            let kind = e820::kind_of(entry.kind.get());
            if kind != MemoryType::CONVENTIONAL {
                map.describe_listed(clipped(entry), kind)?;
            }
        }
        let (mut left_out, mut first, mut why) = (0_u32, 0, no_ram);
        for entry in entries {
            if e820::kind_of(entry.kind.get()) != MemoryType::CONVENTIONAL || entry.size.get() == 0 {
                continue;
            }
            let range = PhysRange::new(PhysAddr::new(entry.addr.get()), entry.size.get()).ok_or(Error::RamWraps);
            let added = range.and_then(|range| map.describe_listed(range, MemoryType::CONVENTIONAL));
            if let Err(error) = added {
                if error == Error::HeapFull {
                    return Err(error);
                }
                if why != Error::Full {
                    why = error;
                }
                if left_out == 0 {
                    first = entry.addr.get();
                }
                left_out = left_out.saturating_add(1);
            }
        }
        if left_out > 0 {
            crate::warn!(
                "{source}: {left_out} pieces of RAM left out, the first at {first:#x}: they wrap, or the map is full"
            );
        }
        map.round_out();
        match map.ram_bytes() {
            0 => Err(why),
            _ => Ok(map),
        }
    }

    /// The map from CMOS memory, for hosts without `etc/e820`: RAM from zero on, and from 4 GiB on.
    ///
    /// The registers are those that QEMU sets (`hw/i386/pc.c`, `pc_cmos_init`), and Bochs before it: RAM above 16 MiB; if there
    /// is none, RAM above 1 MiB, as configured or as found (IBM PC/AT technical reference, 0x30 and 0x17); and RAM above 4 GiB.
    /// RAM below 1 MiB (0x15) is not read: the firmware needs 640 KiB.
    ///
    /// # Errors
    /// [`Error::NoRamInCmos`] if the registers are zero, because nobody set them, or all ones, because there is no CMOS.
    pub fn from_cmos(ports: &mut impl Ports) -> Result<Self, Error> {
        let above_16_mib = u64::from(cmos16(ports, 0x34)) << 16;
        let low_end = if above_16_mib == 0 {
            // At most 64 MiB.
            let found = cmos16(ports, 0x30);
            let kib = if found == 0 { cmos16(ports, 0x17) } else { found };
            MIB.saturating_add(u64::from(kib) << 10)
        } else {
            (16 * MIB).saturating_add(above_16_mib)
        };
        // A PC has devices below 4 GiB. RAM that ends this high is all ones from an absent port.
        let low_ram = PhysRange::new(PhysAddr::new(0), low_end).filter(|ram| ram.len() > MIB && ram.len() < 4 * GIB);
        let Some(low_ram) = low_ram else { return Err(Error::NoRamInCmos) };
        let mut map = Self::default();
        map.describe(low_ram, MemoryType::CONVENTIONAL)?;

        let high_units = u64::from(cmos16(ports, 0x5b)) | u64::from(cmos::read(ports, 0x5d)) << 16;
        if high_units != 0xff_ffff
            && let Some(high_ram) = PhysRange::new(PhysRange::LOW_4_GIB.end(), high_units << 16)
        {
            map.describe(high_ram, MemoryType::CONVENTIONAL)?;
        }
        map.round_out();
        Ok(map)
    }
}

/// The range of a reservation. One that wraps reaches to the end of the address space.
fn clipped(entry: &E820Entry) -> PhysRange {
    let start = PhysAddr::new(entry.addr.get());
    let end = PhysAddr::new(entry.addr.get().saturating_add(entry.size.get()));
    PhysRange::from_bounds(start, end).unwrap_or_default()
}

/// A CMOS register and the one after it, low byte first.
fn cmos16(ports: &mut impl Ports, register: u8) -> u16 {
    let low = cmos::read(ports, register);
    let high = cmos::read(ports, register.wrapping_add(1));
    u16::from_le_bytes([low, high])
}
