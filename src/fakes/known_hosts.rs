//! The known hosts with the device: how it differs from QEMU's, and what the machine is like.
//!
//! The facts are from their sources, unless `docs/hosts.md` says otherwise. Unknown details default to QEMU's.

extern crate std;

use std::borrow::ToOwned;
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::fw_cfg::{Absent, AddressReads, FakeFwCfg, Quirks};
use super::tables::{Piece, acpi, acpi_files, long_mp_table, mp_table, smbios};

/// A record of `etc/e820`: start, length, type.
pub type E820Record = (u64, u64, u32);
/// A PCI function on bus 0: device, function, and its vendor and device numbers, the vendor in the low half.
pub type FunctionId = (u8, u8, u32);

/// The description of a known host.
#[derive(Clone, Copy, Debug)]
pub struct KnownHost {
    /// Its name.
    pub name: &'static str,
    /// Whether it has DMA.
    pub dma: bool,
    /// How its device differs from QEMU's.
    pub quirks: Quirks,
    /// The value of an absent port.
    pub absent_port: u32,
    /// Whether the end of the image is visible below 1 MiB.
    pub alias: bool,
    /// Whether it starts a flat image at the reset vector. If not, it only starts an ELF file by the PVH entry point.
    pub reset_vector: bool,
    /// The list in `etc/e820` for this many bytes of RAM, at most 2 GiB. If `None`, CMOS has the memory sizes.
    pub e820: Option<fn(u64) -> Vec<E820Record>>,
    /// Files that the firmware does not read, but may identify the host by. They are empty.
    pub other_files: &'static [&'static str],
    /// The names of the files with the ACPI root pointer and tables, which `etc/table-loader` places.
    pub acpi: Option<(&'static str, &'static str)>,
    /// The tables that the host puts into memory.
    pub in_memory: fn() -> Vec<Piece>,
    /// The PCI functions by which the firmware identifies the chipset. None without PCI.
    pub functions: &'static [FunctionId],
    /// The longest access in bytes that q35's configuration space in memory accepts. A longer write is lost, and a
    /// longer read of a present function returns zeros.
    pub longest_config_access: u8,
}

impl KnownHost {
    /// Its device, without files.
    #[must_use]
    pub fn device(&self) -> FakeFwCfg {
        FakeFwCfg::new(self.dma).with_quirks(self.quirks)
    }

    /// The named items of a machine with this many bytes of RAM.
    #[must_use]
    pub fn files(&self, ram: u64) -> Vec<(String, Vec<u8>)> {
        let record = |(start, len, kind): E820Record| {
            [&start.to_le_bytes()[..], &len.to_le_bytes(), &kind.to_le_bytes()].concat()
        };
        let e820 = self.e820.map(|e820| ("etc/e820".to_owned(), e820(ram).into_iter().flat_map(record).collect()));
        let acpi = self.acpi.map(|(rsdp, tables)| acpi_files(rsdp, tables));
        let others = self.other_files.iter().map(|&name| (name.to_owned(), Vec::new()));
        e820.into_iter().chain(acpi.into_iter().flatten()).chain(others).collect()
    }

    /// Whether the host bridge is one of QEMU's, together with QEMU's ISA bridge.
    #[must_use]
    pub fn has_chipset(&self) -> bool {
        let ids: Vec<_> = self.functions.iter().map(|(.., id)| *id).collect();
        [[ID_440FX, ID_PIIX3], [ID_Q35, ID_ICH9]].iter().any(|chipset| chipset.iter().all(|id| ids.contains(id)))
    }
}

const RAM: u32 = 1;
const RESERVED: u32 = 2;
const ACPI: u32 = 3;
const MIB: u64 = 1 << 20;

const ID_440FX: u32 = 0x1237_8086;
const ID_PIIX3: u32 = 0x7000_8086;
const ID_PIIX4_PM: u32 = 0x7113_8086;
const ID_Q35: u32 = 0x29c0_8086;
const ID_ICH9: u32 = 0x2918_8086;

/// `pc`.
const PC: &[FunctionId] = &[(0, 0, ID_440FX), (1, 0, ID_PIIX3), (1, 3, ID_PIIX4_PM)];
/// The same with power management at another place.
const PC_OF_VIRTUALBOX: &[FunctionId] = &[(0, 0, ID_440FX), (1, 0, ID_PIIX3), (7, 0, ID_PIIX4_PM)];
/// `q35`.
const Q35: &[FunctionId] = &[(0, 0, ID_Q35), (0x1f, 0, ID_ICH9)];
/// The 440FX's numbers, and a virtio device in place of the ISA bridge.
const CROSVM: &[FunctionId] = &[(0, 0, ID_440FX), (1, 0, 0x1042_1af4)];

/// RAM in one piece, with the holes of a PC.
fn one_piece(ram: u64) -> Vec<E820Record> {
    vec![(0, ram, RAM)]
}

/// Unsorted and truncated.
fn of_cloud_hypervisor(ram: u64) -> Vec<E820Record> {
    vec![
        (0, 0xa_0000, RAM),
        (0xc000_0000, 640 * MIB, RESERVED),
        (0xe800_0000, 256 * MIB, RESERVED),
        (0xfffe_0000, 0x2_0000, RESERVED),
        (MIB, ram - MIB, RAM),
    ]
}

/// With regions above RAM.
fn of_propolis(ram: u64) -> Vec<E820Record> {
    vec![(0, ram, RAM), (0xe000_0000, 256 * MIB, RESERVED), (0xffe0_0000, 2 * MIB, RESERVED)]
}

/// With KVM's own memory.
fn of_stratovirt(ram: u64) -> Vec<E820Record> {
    vec![(0, ram, RAM), (0xfef0_c000, 0x4000, RESERVED)]
}

/// With part of the firmware's own RAM, and everything from 640 KiB to 1 MiB.
fn of_alioth(ram: u64) -> Vec<E820Record> {
    vec![
        (0, 0x500, RESERVED),
        (0x500, 0x7_fb00, RAM),
        (0x8_0000, 0x2_0000, ACPI),
        (0xa_0000, ram - 0xa_0000, RAM),
        (0xe000_0000, 256 * MIB, RESERVED),
    ]
}

fn nothing() -> Vec<Piece> {
    Vec::new()
}

fn in_memory_of_cloud_hypervisor() -> Vec<Piece> {
    let others = [smbios(0xf_0000, 0xf_0018), mp_table(0xf_0090, 0xf_00a0)].concat();
    [acpi(0xa_0000, 0xa_0040, 0xe800_0000), others].concat()
}

fn in_memory_of_crosvm() -> Vec<Piece> {
    // As long as with four CPUs.
    let others = [smbios(0xf_0000, 0xf_0018), long_mp_table(0x9_fff0, 0x9_e800, 284)].concat();
    [acpi(0xe_0000, 0xe_0040, 0xf400_0000), others].concat()
}

fn in_memory_of_bhyve() -> Vec<Piece> {
    [acpi(0xf_2400, 0xf_2440, 0xe000_0000), smbios(0xf_1000, 0xf_1020)].concat()
}

/// In the firmware's own memory. fw_cfg has the same tables.
fn in_memory_of_alioth() -> Vec<Piece> {
    acpi(0x8_0000, 0x8_0040, 0xe000_0000)
}

/// The known hosts with the device.
#[must_use]
pub fn known_hosts() -> Vec<KnownHost> {
    let none = Quirks::default();
    let qemu = KnownHost {
        name: "QEMU",
        dma: true,
        quirks: none,
        absent_port: u32::MAX,
        alias: true,
        reset_vector: true,
        e820: Some(one_piece),
        other_files: &["bios-geometry", "bootorder", "etc/system-states"],
        acpi: Some(("etc/acpi/rsdp", "etc/acpi/tables")),
        in_memory: nothing,
        functions: PC,
        longest_config_access: 8,
    };
    let other = KnownHost { other_files: &["bootorder"], longest_config_access: 4, ..qemu };
    vec![
        qemu,
        KnownHost { name: "QEMU without DMA", dma: false, ..qemu },
        KnownHost {
            name: "Cloud Hypervisor",
            alias: false,
            reset_vector: false,
            e820: Some(of_cloud_hypervisor),
            acpi: Some(("acpi/rsdp", "acpi/tables")),
            in_memory: in_memory_of_cloud_hypervisor,
            functions: &[(0, 0, 0x0d57_8086)],
            quirks: Quirks {
                address_reads: AddressReads::LastAddress,
                long_signature: true,
                moves_control_bits: true,
                no_zero_fill: true,
                leaves_a_short_string: true,
                absent: Absent::Refused,
                ..none
            },
            ..other
        },
        KnownHost {
            name: "crosvm",
            dma: false,
            alias: false,
            e820: None,
            acpi: None,
            in_memory: in_memory_of_crosvm,
            functions: CROSVM,
            absent_port: 0,
            reset_vector: true,
            other_files: &[],
            longest_config_access: 4,
            quirks: Quirks {
                address_reads: AddressReads::Zero,
                id: Some(0x0100_0000),
                absent: Absent::PreviousItem,
                ..none
            },
        },
        KnownHost {
            name: "propolis",
            alias: false,
            e820: Some(of_propolis),
            quirks: Quirks { address_reads: AddressReads::LastUntilTransfer, lists_numbered_items: true, ..none },
            ..other
        },
        KnownHost {
            name: "bhyve",
            dma: false,
            alias: false,
            in_memory: in_memory_of_bhyve,
            other_files: &["bootorder", "opt/bhyve/hw.ncpu"],
            functions: &[(0, 0, 0x1275_1275)],
            quirks: Quirks { ends_at_other_widths: true, ..none },
            ..other
        },
        KnownHost {
            name: "VirtualBox",
            dma: false,
            functions: PC_OF_VIRTUALBOX,
            quirks: Quirks { absent: Absent::Directory, ..none },
            ..other
        },
        KnownHost {
            name: "VirtualBox with DMA",
            functions: PC_OF_VIRTUALBOX,
            quirks: Quirks { address_reads: AddressReads::Zero, no_zero_fill: true, absent: Absent::Directory, ..none },
            ..other
        },
        KnownHost { name: "OpenBSD vmd", e820: None, acpi: None, functions: &[(0, 0, 0x0666_0b5d)], ..other },
        KnownHost {
            name: "StratoVirt",
            e820: Some(of_stratovirt),
            functions: Q35,
            quirks: Quirks { ignores_skip: true, absent: Absent::NeverEnds, short_id: true, ..none },
            ..other
        },
        KnownHost {
            name: "alioth",
            alias: false,
            e820: Some(of_alioth),
            acpi: Some(("acpi/rsdp", "acpi/tables")),
            in_memory: in_memory_of_alioth,
            functions: &[(0, 0, 0x1480_1022)],
            quirks: Quirks {
                address_reads: AddressReads::LastAddress,
                selects_the_id: true,
                no_zero_fill: true,
                absent: Absent::Refused,
                ends_at_write: true,
                ..none
            },
            ..other
        },
        KnownHost {
            name: "AxVisor",
            functions: &[],
            quirks: Quirks { address_reads: AddressReads::LastAddress, id: Some(2), needs_high_half: true, ..none },
            ..other
        },
    ]
}
