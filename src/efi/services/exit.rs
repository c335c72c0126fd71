//! `ExitBootServices` (UEFI 7.4).

use uefi_raw::Status;
use uefi_raw::table::boot::Tpl;
use zerocopy::{FromZeros, IntoBytes};

use super::Services;
use super::utilities::update;
use crate::efi::events::{BEFORE_EXIT_BOOT_SERVICES, EXIT_BOOT_SERVICES, MEMORY_MAP_CHANGE};
use crate::efi::runtime::TableHeader;
use crate::hal::Memory;

impl Services {
    /// The first step: signals those who want to know before the map is checked, and stops nothing. The caller runs the
    /// notifications, and then calls [`Self::check_map_key`].
    ///
    /// They are signalled once, also if the map key is wrong and the image tries again.
    pub fn before_exit(&mut self) {
        if !core::mem::replace(&mut self.is_ending, true) {
            self.events.signal_group(BEFORE_EXIT_BOOT_SERVICES);
        }
    }

    /// Signals those who want to know of changes of the memory map, if it has changed since this was called last. What changes at
    /// a raised level, such as in a function that is told of a change, is told later.
    pub fn signal_map_change(&mut self) {
        if self.events.level() != Tpl::APPLICATION {
            return;
        }
        let key = self.memory.key();
        if core::mem::replace(&mut self.told_key, key) != key {
            self.events.signal_group(MEMORY_MAP_CHANGE);
        }
    }

    /// The second step: stops all timers, and checks the map key. Signals those who want to know. The caller runs the
    /// notifications, and then calls [`Self::end`].
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a key that is not the present one.
    pub fn check_map_key(&mut self, key: u64) -> Result<(), Status> {
        self.events.stop_timers();
        if key != self.memory.key() {
            return Err(Status::INVALID_PARAMETER);
        }
        self.events.signal_group(EXIT_BOOT_SERVICES);
        Ok(())
    }

    /// The last step: the tables have nothing of boot services any more.
    ///
    /// # Errors
    /// `OUT_OF_RESOURCES` if the tables cannot be accessed.
    pub fn end(&mut self, machine: &mut impl Memory) -> Result<(), Status> {
        update(machine, self.system_table, |shared| shared.end_boot_services())?;
        // Refused if an image has made the table read-only. The system table names it no more.
        let _ = machine.write(self.boot_table, TableHeader::new_zeroed().as_bytes());
        Ok(())
    }
}
