//! SMBIOS: loads the structures and the entry point.

use super::place::Place;
use crate::addr::{Alignment, PhysAddr, PhysRange};
use crate::fw_cfg::{self, Item};
use crate::hal::{HostAccess, MemoryError};
use crate::layout::F_SEGMENT;
use crate::smbios::{
    self, EntryPoint, FIRMWARE_INFORMATION_LEN, MAX_ENTRY_POINT, USE_SMBIOS_3, Walk, firmware_information,
};

/// Structures up to this many bytes go to the F-segment, next to the entry point.
const SMALL: u64 = 4096;

/// Why there is no SMBIOS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's data is not valid SMBIOS.
    #[error(transparent)]
    Smbios(#[from] smbios::Error),
    /// It cannot be transferred.
    #[error(transparent)]
    FwCfg(#[from] fw_cfg::Error),
    /// There is no room for this many bytes.
    #[error("no room for {0} bytes; add memory")]
    NoRoom(u64),
}

impl From<MemoryError> for Error {
    fn from(error: MemoryError) -> Self {
        Self::FwCfg(error.into())
    }
}

/// Loads the structures, puts the firmware's own first, and writes the entry point, whose address it returns. The firmware's is left out if the host has
/// one of its kind, or if the entry point's counters have no room for it.
///
/// Without room in the F-segment they go below 640 KiB, apart from an MP table's pointer. Nothing searches for them there, which
/// is a property of the machine and not an error.
pub fn load<M: HostAccess>(place: &mut Place<'_, M>, entry_point: Item, tables: Item) -> Result<PhysAddr, Error> {
    if !F_SEGMENT.contains_addr(place.scanned.start()) {
        crate::info!(
            "SMBIOS tables will not be found: {F_SEGMENT}, where they are looked for, is no RAM or the host's own"
        );
        place.scanned = PhysRange::empty_at(place.scanned.end());
    }
    let mut bytes = [0; MAX_ENTRY_POINT];
    place.fw_cfg.read(place.machine, entry_point, &mut bytes);
    let entry_point = EntryPoint::parse(&bytes)?;

    let own = FIRMWARE_INFORMATION_LEN as u64;
    let len = own.saturating_add(tables.len().into());
    let room =
        if len <= SMALL { place.scanned(len, Alignment::PARAGRAPH) } else { place.high(len, Alignment::PARAGRAPH) };
    let room = room.ok_or(Error::NoRoom(len))?;
    let theirs = room.start().checked_add(own).and_then(|start| PhysRange::from_bounds(start, room.end()));
    let theirs = theirs.ok_or(Error::NoRoom(len))?;
    place.load(tables, theirs.start())?;

    let mut walk = Walk::default();
    place.machine.inspect(theirs, &mut |piece| walk.add(piece))?;
    let summary = walk.finish()?;
    let entry_point = if summary.has_firmware_information {
        entry_point.finish(theirs.start(), &summary)?
    } else {
        match entry_point.finish(room.start(), &summary.with_firmware_information()) {
            Err(smbios::Error::TooLarge(_)) => {
                crate::warn!(
                    "SMBIOS does not name the firmware: no room beside the host's structures of {} bytes; {USE_SMBIOS_3}",
                    tables.len()
                );
                entry_point.finish(theirs.start(), &summary)?
            }
            entry_point => {
                place.machine.write(room.start(), &firmware_information(summary.free_handle()))?;
                entry_point?
            }
        }
    };
    let at =
        place.scanned(entry_point.len() as u64, Alignment::PARAGRAPH).ok_or(Error::NoRoom(entry_point.len() as u64))?;
    place.machine.write(at.start(), &entry_point)?;
    Ok(at.start())
}
