//! What the firmware and the runtime services share: tables that an operating system reads, and what the services keep.
//!
//! All of it is in memory of the runtime services' own. It is laid out in C's way and holds numbers only: addresses in it are
//! physical until `SetVirtualAddressMap` converts them.

use uefi_raw::Guid;
use uefi_raw::table::Revision;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::clock::Zone;
use super::super::configuration::{MOST_TABLES, Table};
use crate::checksum::crc32;

/// The revision of the specification that the tables conform to.
pub const REVISION: Revision = Revision::EFI_2_100;

/// "Firstlight" in UTF-16 with its NUL, for the system table.
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "evaluated by the compiler")]
pub const VENDOR: [u16; 12] = {
    let (name, mut text, mut at) = (*b"Firstlight", [0; 12], 0);
    while at < name.len() {
        text[at] = name[at] as u16;
        at += 1;
    }
    text
};

/// What each table begins with (UEFI 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct TableHeader {
    /// Which table it is.
    pub signature: u64,
    /// [`REVISION`].
    pub revision: u32,
    /// The length of the table in bytes.
    pub len: u32,
    /// The checksum over all of the table, with zero for itself.
    pub crc: u32,
    /// Zero.
    pub reserved: u32,
}

/// `EFI_SYSTEM_TABLE` (UEFI 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct SystemTable {
    /// The header.
    pub header: TableHeader,
    /// The address of [`VENDOR`].
    pub vendor: u64,
    /// The firmware's version: major in the upper half.
    pub vendor_revision: u32,
    /// Zero.
    pub reserved: u32,
    /// The handle and the protocol of the input.
    pub input: [u64; 2],
    /// The handle and the protocol of the output.
    pub output: [u64; 2],
    /// The handle and the protocol of the output for errors.
    pub errors: [u64; 2],
    /// The address of [`RuntimeServices`].
    pub runtime_services: u64,
    /// The address of the boot services; zero once they have ended.
    pub boot_services: u64,
    /// As many configuration tables there are.
    pub configuration_count: u64,
    /// The address of the list of configuration tables.
    pub configuration: u64,
}

/// `EFI_RUNTIME_SERVICES` (UEFI 4.5): the addresses of its functions, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct RuntimeServices {
    /// The header.
    pub header: TableHeader,
    /// From `GetTime` to `QueryVariableInfo`.
    pub functions: [u64; FUNCTIONS],
}

/// As many runtime services there are.
pub const FUNCTIONS: usize = 14;

/// "IBI SYST" and "RUNTSERV" (UEFI 4.3.1, 4.5.1).
const SYSTEM_SIGNATURE: u64 = u64::from_le_bytes(*b"IBI SYST");
const RUNTIME_SIGNATURE: u64 = u64::from_le_bytes(*b"RUNTSERV");

/// An entry of the list of configuration tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct ConfigurationEntry {
    /// What the table is.
    pub guid: [u8; 16],
    /// Where it is: physical, also after `SetVirtualAddressMap`.
    pub address: u64,
}

/// How the machine is turned off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct PowerOff {
    /// The address of an 8-bit register in memory, or zero.
    pub register: u64,
    /// An I/O port, 16 bits wide, or zero. Without either there is no way.
    pub port: u16,
    /// What is written.
    pub value: u16,
    /// Zero.
    pub reserved: u32,
}

/// What the services keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct State {
    /// How the machine is turned off.
    pub power_off: PowerOff,
    /// The upper half of the monotonic count.
    pub high_count: u32,
    /// Minutes from UTC, as the clock was set.
    pub zone: i16,
    /// Daylight saving time, as the clock was set.
    pub daylight: u8,
    /// Whether boot services have ended.
    pub is_runtime: u8,
    /// Whether the addresses are virtual.
    pub is_virtual: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

impl State {
    /// The state at the start.
    pub const NEW: Self = Self {
        power_off: PowerOff { register: 0, port: 0, value: 0, reserved: 0 },
        high_count: 0,
        zone: Zone::UNSPECIFIED.minutes,
        daylight: 0,
        is_runtime: 0,
        is_virtual: 0,
        reserved: [0; 7],
    };
}

/// All that is shared, but for the variables, which are a run of bytes of their own.
#[derive(Clone, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Shared {
    /// The system table.
    pub system: SystemTable,
    /// The runtime services table.
    pub runtime: RuntimeServices,
    /// The configuration tables.
    pub configuration: [ConfigurationEntry; MOST_TABLES],
    /// [`VENDOR`].
    pub vendor: [u16; 12],
    /// What the services keep.
    pub state: State,
}

impl Shared {
    /// As it is before it has its place: no addresses, no configuration tables.
    pub const EMPTY: Self = Self {
        system: SystemTable {
            header: header(SYSTEM_SIGNATURE, size_of::<SystemTable>()),
            vendor: 0,
            vendor_revision: 0,
            reserved: 0,
            input: [0; 2],
            output: [0; 2],
            errors: [0; 2],
            runtime_services: 0,
            boot_services: 0,
            configuration_count: 0,
            configuration: 0,
        },
        runtime: RuntimeServices {
            header: header(RUNTIME_SIGNATURE, size_of::<RuntimeServices>()),
            functions: [0; FUNCTIONS],
        },
        configuration: [ConfigurationEntry { guid: [0; 16], address: 0 }; MOST_TABLES],
        vendor: VENDOR,
        state: State::NEW,
    };

    /// Sets the addresses for a structure that is at `at`, with services at `functions`, and the configuration tables.
    pub fn place(&mut self, at: u64, functions: [u64; FUNCTIONS], tables: &[Table]) {
        let field = |offset: usize| at.wrapping_add(offset as u64);
        self.runtime.functions = functions;
        self.system.vendor = field(core::mem::offset_of!(Self, vendor));
        self.system.runtime_services = field(core::mem::offset_of!(Self, runtime));
        self.system.configuration = field(core::mem::offset_of!(Self, configuration));
        self.set_tables(tables);
        self.seal();
    }

    /// Sets the configuration tables, as many as there is room for.
    pub fn set_tables(&mut self, tables: &[Table]) {
        let mut count = 0_u64;
        self.configuration = [ConfigurationEntry::default(); MOST_TABLES];
        for (entry, table) in self.configuration.iter_mut().zip(tables) {
            *entry = ConfigurationEntry { guid: Guid::to_bytes(table.guid), address: table.address };
            count = count.saturating_add(1);
        }
        self.system.configuration_count = count;
    }

    /// Sets the checksums of the tables.
    pub fn seal(&mut self) {
        self.seal_system();
        self.runtime.header.crc = 0;
        self.runtime.header.crc = crc32(self.runtime.as_bytes());
    }

    /// Sets the checksum of the system table, where only that has changed.
    pub fn seal_system(&mut self) {
        self.system.header.crc = 0;
        self.system.header.crc = crc32(self.system.as_bytes());
    }
}

const fn header(signature: u64, len: usize) -> TableHeader {
    TableHeader { signature, revision: REVISION.0, len: len as u32, crc: 0, reserved: 0 }
}

const _: () = assert!(size_of::<SystemTable>() == size_of::<uefi_raw::table::system::SystemTable>());
const _: () = assert!(size_of::<RuntimeServices>() == size_of::<uefi_raw::table::runtime::RuntimeServices>());
const _: () =
    assert!(size_of::<ConfigurationEntry>() == size_of::<uefi_raw::table::configuration::ConfigurationTable>());
