//! The runtime services, but for how they are called (UEFI 8).
//!
//! They go on when the operating system runs, and it may move them to other addresses once. So their code is a program of its
//! own, which runs wherever it is (`src/firmware/runtime`). It calls these functions; all that they keep is in [`Shared`].
//!
//! Left out: alarms and capsules, which are `UNSUPPORTED`, and drivers that stay. `SetVirtualAddressMap` notifies nobody, so
//! `ConvertPointer` never has a map to convert by.

mod image;
mod shared;
#[cfg(test)]
mod tests;

use uefi_raw::Status;
use uefi_raw::table::boot::MemoryAttribute;
use uefi_raw::time::{Daylight, Time};

pub use self::image::{ATTRIBUTES_TABLE_LEN, Error, Placed, RuntimeImage};
pub use self::shared::{
    ConfigurationEntry, FUNCTIONS, PowerOff, REVISION, RuntimeServices, Shared, State, SystemTable, TableHeader, VENDOR,
};
use super::clock::{self, Zone};
use super::variables::Phase;
use crate::hal::Ports;

/// Which of the services work after `ExitBootServices` (UEFI 4.6.2): those for the time but for alarms, the variables, virtual
/// addresses, the monotonic count, the reset.
pub const SUPPORTED: u32 =
    GET_TIME | SET_TIME | VARIABLES | SET_VIRTUAL_ADDRESS_MAP | CONVERT_POINTER | MONOTONIC_COUNT | RESET;
const GET_TIME: u32 = 1 << 0;
const SET_TIME: u32 = 1 << 1;
/// `GetVariable`, `GetNextVariableName`, `SetVariable`, `QueryVariableInfo`.
const VARIABLES: u32 = 1 << 4 | 1 << 5 | 1 << 6 | 1 << 13;
const SET_VIRTUAL_ADDRESS_MAP: u32 = 1 << 7;
const CONVERT_POINTER: u32 = 1 << 8;
const MONOTONIC_COUNT: u32 = 1 << 9;
const RESET: u32 = 1 << 10;

/// `EFI_RT_PROPERTIES_TABLE`: version 1, its length, [`SUPPORTED`].
#[must_use]
pub fn properties_table() -> [u8; 8] {
    let [a, b, c, d] = SUPPORTED.to_le_bytes();
    [1, 0, 8, 0, a, b, c, d]
}

/// An entry of the map that an operating system gives `SetVirtualAddressMap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where the pages are.
    pub physical: u64,
    /// Where the operating system has them.
    pub virtual_: u64,
    /// The length in bytes.
    pub len: u64,
    /// [`MemoryAttribute::RUNTIME`] says that the services need them.
    pub attributes: MemoryAttribute,
}

impl Mapping {
    fn convert(&self, address: u64) -> Option<u64> {
        let offset = address.checked_sub(self.physical).filter(|&offset| offset < self.len)?;
        let address = self.virtual_.wrapping_add(offset);
        Some(address).filter(|_| self.attributes.contains(MemoryAttribute::RUNTIME))
    }
}

/// `ConvertPointer` of `address`. Zero stays zero if `disposition` allows it.
///
/// # Errors
/// `INVALID_PARAMETER` for a zero that is not allowed. `NOT_FOUND` for any other address: only who is notified by
/// `SetVirtualAddressMap` may call this, and nobody is.
pub const fn convert_pointer(disposition: usize, address: u64) -> Result<(), Status> {
    match address {
        0 if disposition & OPTIONAL_POINTER != 0 => Ok(()),
        0 => Err(Status::INVALID_PARAMETER),
        _ => Err(Status::NOT_FOUND),
    }
}

/// `EFI_OPTIONAL_PTR` (UEFI 8.4.2).
const OPTIONAL_POINTER: usize = 1;

impl Shared {
    /// Who calls.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        if self.state.is_runtime == 0 { Phase::Boot } else { Phase::Runtime }
    }

    /// `GetTime`.
    ///
    /// # Errors
    /// Those of [`clock::time`].
    pub fn time(&self, ports: &mut impl Ports) -> Result<Time, Status> {
        let daylight = Daylight::from_bits_retain(self.state.daylight);
        clock::time(ports, Zone { minutes: self.state.zone, daylight })
    }

    /// `SetTime`.
    ///
    /// # Errors
    /// Those of [`clock::set_time`].
    pub fn set_time(&mut self, ports: &mut impl Ports, time: &Time) -> Result<(), Status> {
        let zone = clock::set_time(ports, time)?;
        (self.state.zone, self.state.daylight) = (zone.minutes, zone.daylight.bits());
        Ok(())
    }

    /// `GetNextHighMonotonicCount`.
    pub const fn next_high_count(&mut self) -> u32 {
        self.state.high_count = self.state.high_count.wrapping_add(1);
        self.state.high_count
    }

    /// Boot services have ended: the table has no addresses of theirs.
    pub fn end_boot_services(&mut self) {
        self.state.is_runtime = 1;
        let system = &mut self.system;
        (system.input, system.output, system.errors, system.boot_services) = ([0; 2], [0; 2], [0; 2], 0);
        self.seal();
    }

    /// `SetVirtualAddressMap`: converts the addresses of the tables.
    ///
    /// # Errors
    /// `UNSUPPORTED` while there are boot services, and the second time; `NO_MAPPING` when the services are not in the map. Nothing
    /// is changed then.
    pub fn set_virtual_address_map(&mut self, map: impl Iterator<Item = Mapping> + Clone) -> Result<(), Status> {
        if self.state.is_runtime == 0 || self.state.is_virtual != 0 {
            return Err(Status::UNSUPPORTED);
        }
        let convert = |address: &mut u64| {
            *address = map.clone().find_map(|mapping| mapping.convert(*address)).ok_or(Status::NO_MAPPING)?;
            Ok::<_, Status>(())
        };
        let (mut system, mut runtime, mut power_off) = (self.system, self.runtime, self.state.power_off);
        runtime.functions.iter_mut().try_for_each(convert)?;
        [&mut system.vendor, &mut system.runtime_services, &mut system.configuration]
            .into_iter()
            .try_for_each(convert)?;
        if power_off.register != 0 {
            convert(&mut power_off.register)?;
        }
        (self.system, self.runtime, self.state.power_off) = (system, runtime, power_off);
        self.state.is_virtual = 1;
        self.seal();
        Ok(())
    }
}
