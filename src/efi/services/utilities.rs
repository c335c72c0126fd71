//! Services for few things (UEFI 7.5).

use uefi_raw::{Guid, Status};

use super::Services;
use super::pointers::{Pointers, bytes};
use crate::checksum::Crc32;
use crate::efi::runtime::Shared;
use crate::hal::Memory;
use zerocopy::{FromZeros, IntoBytes};

impl Services {
    /// `InstallConfigurationTable`, with the address of the GUID. A null table is taken away.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a null pointer; those of [`crate::efi::configuration::Tables::install`].
    pub fn install_configuration_table(
        &mut self,
        machine: &mut impl Memory,
        guid: u64,
        table: u64,
    ) -> Result<(), Status> {
        let guid = machine.guid(guid)?;
        self.install_table(machine, guid, table)
    }

    /// As [`Self::install_configuration_table`], for a table of the firmware's own.
    ///
    /// # Errors
    /// Those of [`crate::efi::configuration::Tables::install`].
    pub fn install_table(&mut self, machine: &mut impl Memory, guid: Guid, table: u64) -> Result<(), Status> {
        self.configuration.install(guid, table)?;
        let tables = &self.configuration;
        update(machine, self.system_table, |shared| {
            shared.set_tables(tables.list());
            shared.seal_system();
        })
    }

    /// `GetNextMonotonicCount`. The count is written to `at`; `high` is its upper half.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a null pointer.
    pub fn next_monotonic_count(&mut self, machine: &mut impl Memory, at: u64) -> Result<(), Status> {
        machine.check_number(at)?;
        let next = self.count.checked_add(1);
        self.count = next.unwrap_or_default();
        let mut high = 0;
        update(machine, self.system_table, |shared| {
            high = if next.is_none() { shared.next_high_count() } else { shared.state.high_count };
        })?;
        machine.set_number(at, u64::from(high) << 32 | u64::from(self.count))
    }

    /// `CalculateCrc32` of `len` bytes at `from`. The checksum is written to `at`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for null pointers and no bytes.
    pub fn crc32(&self, machine: &mut impl Memory, from: u64, len: u64, at: u64) -> Result<(), Status> {
        if len == 0 {
            return Err(Status::INVALID_PARAMETER);
        }
        let mut crc = Crc32::default();
        let range = bytes(from, len)?;
        machine.inspect(range, &mut |piece| crc.add(piece)).map_err(|_| Status::INVALID_PARAMETER)?;
        machine.put(at, &crc.value().to_le_bytes())
    }

    /// `SetWatchdogTimer`: there is none to be set.
    ///
    /// # Errors
    /// `UNSUPPORTED`, unless it is turned off.
    pub const fn set_watchdog_timer(&self, seconds: u64) -> Result<(), Status> {
        if seconds == 0 { Ok(()) } else { Err(Status::UNSUPPORTED) }
    }
}

/// `CopyMem`: the two may overlap. Memory that images may not access is left as it is.
pub fn copy(machine: &mut impl Memory, to: u64, from: u64, len: u64) {
    if let Ok(from) = bytes(from, len) {
        // The service returns no status.
        let _ = machine.copy(from, crate::addr::PhysAddr::new(to));
    }
}

/// `SetMem`. Memory that images may not access is left as it is.
pub fn fill(machine: &mut impl Memory, at: u64, len: u64, byte: u8) {
    if let Ok(range) = bytes(at, len) {
        // The service returns no status.
        let _ = machine.fill(range, byte);
    }
}

/// Changes what the firmware shares with the runtime services. An image may have changed other parts of it.
///
/// # Errors
/// `OUT_OF_RESOURCES` if it cannot be accessed.
pub(super) fn update(
    machine: &mut impl Memory,
    at: crate::addr::PhysAddr,
    change: impl FnOnce(&mut Shared),
) -> Result<(), Status> {
    let mut shared = Shared::new_zeroed();
    machine.read(at, shared.as_mut_bytes()).map_err(super::no_room)?;
    change(&mut shared);
    machine.write(at, shared.as_bytes()).map_err(super::no_room)
}
