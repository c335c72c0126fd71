//! Configuration tables: addresses by GUID (UEFI 4.6).
//!
//! Left out: where the list is that images see. Whoever keeps that writes it anew after each change.

use alloc::vec::Vec;

use uefi_raw::{Guid, Status, guid};

use crate::heap;

/// ACPI tables: the address is that of the RSDP of ACPI 2.0 and later (UEFI 4.6.1).
pub const ACPI_20: Guid = guid!("8868e871-e4f1-11d3-bc22-0080c73c8881");
/// ACPI tables: the address is that of the RSDP of ACPI 1.0.
pub const ACPI_10: Guid = guid!("eb9d2d30-2d88-11d3-9a16-0090273fc14d");
/// The SMBIOS entry point of 32 bits.
pub const SMBIOS: Guid = guid!("eb9d2d31-2d88-11d3-9a16-0090273fc14d");
/// The SMBIOS entry point of 64 bits.
pub const SMBIOS_3: Guid = guid!("f2fd1544-9794-4a2c-992e-e5bbcf20e394");
/// How the pages of the runtime services may be mapped (UEFI 4.6.4).
pub const MEMORY_ATTRIBUTES: Guid = guid!("dcfa911d-26eb-469f-a220-38b7dc461220");
/// Which runtime services there are after `ExitBootServices` (UEFI 4.6.2).
pub const RUNTIME_PROPERTIES: Guid = guid!("eb66918a-7eef-402a-842e-931d21c38ae9");
/// The events of a TPM after its log was read (TCG EFI Protocol Specification 1.00, 7).
pub const TPM_FINAL_EVENTS: Guid = guid!("1e2ed096-30e2-4254-bd89-863bbef82325");
/// Random bytes for Linux (`include/linux/efi.h`, `LINUX_EFI_RANDOM_SEED_TABLE_GUID`).
pub const LINUX_RANDOM_SEED: Guid = guid!("1ce1e5bc-7ceb-42f2-81e5-8aadf180f57b");

/// As many tables there can be. A boot through shim has some twelve.
pub const MOST_TABLES: usize = 32;

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// What it is.
    pub guid: Guid,
    /// Where it is; never zero.
    pub address: u64,
}

/// The tables, in the order in which they were installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    tables: Vec<Table>,
}

impl Tables {
    /// No tables.
    #[must_use]
    pub const fn new() -> Self {
        Self { tables: Vec::new() }
    }

    /// The tables.
    #[must_use]
    pub fn list(&self) -> &[Table] {
        &self.tables
    }

    /// Installs a table, or another one in its place. Without an address it is taken away.
    ///
    /// # Errors
    /// `NOT_FOUND` when there is none to be taken away, `OUT_OF_RESOURCES`.
    pub fn install(&mut self, guid: Guid, address: u64) -> Result<(), Status> {
        let is_full = self.tables.len() == MOST_TABLES;
        let old = self.tables.iter_mut().find(|table| table.guid == guid);
        match (old, address) {
            (None, 0) => return Err(Status::NOT_FOUND),
            (Some(_), 0) => self.tables.retain(|table| table.guid != guid),
            (Some(old), address) => old.address = address,
            (None, _) if is_full => return Err(Status::OUT_OF_RESOURCES),
            (None, address) => {
                heap::push(&mut self.tables, Table { guid, address }).map_err(|_| Status::OUT_OF_RESOURCES)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_installed_replaced_and_taken_away() {
        let mut tables = Tables::new();
        let table = |guid, address| Table { guid, address };
        assert_eq!(tables.install(ACPI_20, 0), Err(Status::NOT_FOUND));
        assert_eq!(tables.install(ACPI_20, 0x1000), Ok(()));
        assert_eq!(tables.install(SMBIOS, 0x2000), Ok(()));
        assert_eq!(tables.install(ACPI_20, 0x3000), Ok(()));
        assert_eq!(tables.list(), [table(ACPI_20, 0x3000), table(SMBIOS, 0x2000)]);
        assert_eq!(tables.install(ACPI_20, 0), Ok(()));
        assert_eq!(tables.list(), [table(SMBIOS, 0x2000)]);
    }

    #[test]
    fn there_is_no_room_for_more_tables_than_the_list_has() {
        let mut tables = Tables::new();
        for number in 0..MOST_TABLES as u8 {
            assert_eq!(tables.install(Guid::from_bytes([number; 16]), 1), Ok(()));
        }
        assert_eq!(tables.install(Guid::from_bytes([0xff; 16]), 1), Err(Status::OUT_OF_RESOURCES));
        assert_eq!(tables.install(Guid::from_bytes([0; 16]), 2), Ok(()));
    }
}
