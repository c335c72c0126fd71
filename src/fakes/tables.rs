//! Tables like those of hosts, for tests: in memory, with their addresses; and in fw_cfg, with the script that places
//! them, under the hosts' file names.
//!
//! Source of the script's commands: QEMU `hw/acpi/bios-linker-loader.c`.

extern crate std;

use std::borrow::ToOwned;
use std::string::String;
use std::vec;
use std::vec::Vec;

use crate::checksum;

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
const HIGH: u8 = 1;
const F_SEGMENT: u8 = 2;

const NAME_LEN: usize = 56;
const COMMAND_LEN: usize = 128;

/// Bytes and their address.
pub type Piece = (u64, Vec<u8>);

/// The length of the DSDT.
pub const DSDT_LEN: usize = 300;
/// The length of the FACS.
pub const FACS_LEN: usize = 64;
/// The length of an MP table's header.
const MP_HEADER_LEN: usize = 44;

/// An RSDP at `rsdp`, and from `tables` on an XSDT, a FADT of ACPI 5 with FACS and DSDT, and an MCFG with one window of
/// 64 buses at `ecam`.
#[must_use]
pub fn acpi(rsdp: u64, tables: u64, ecam: u64) -> Vec<Piece> {
    let mut at = tables;
    let mut place = |len: usize| {
        let place = at;
        // The FACS is on a 64-byte boundary.
        at = (at + len as u64).next_multiple_of(64);
        place
    };
    let (xsdt, fadt, mcfg) = (place(36 + 16), place(268), place(60));
    let (facs, dsdt) = (place(FACS_LEN), place(DSDT_LEN));

    let mut fadt_bytes = vec![0; 268 - 36];
    fadt_bytes[132 - 36..][..8].copy_from_slice(&facs.to_le_bytes());
    fadt_bytes[140 - 36..][..8].copy_from_slice(&dsdt.to_le_bytes());
    let mcfg_bytes = [&[0; 8][..], &ecam.to_le_bytes(), &[0, 0, 0, 63, 0, 0, 0, 0]].concat();
    let mut facs_bytes = vec![0; FACS_LEN];
    facs_bytes[..4].copy_from_slice(b"FACS");
    facs_bytes[4] = FACS_LEN as u8;

    let mut root = b"RSD PTR \0HOST  \x02\0\0\0\0".to_vec();
    root.extend(36u32.to_le_bytes());
    root.extend(xsdt.to_le_bytes());
    root.extend([0; 4]);
    sum_up(&mut root[..20], 8);
    sum_up(&mut root, 32);
    vec![
        (rsdp, root),
        (xsdt, table(b"XSDT", &[fadt, mcfg].map(u64::to_le_bytes).concat())),
        (fadt, table(b"FACP", &fadt_bytes)),
        (mcfg, table(b"MCFG", &mcfg_bytes)),
        (facs, facs_bytes),
        (dsdt, table(b"DSDT", &vec![0xa3; DSDT_LEN - 36])),
    ]
}

/// An SMBIOS 3 entry point at `entry_point`, and at `structures` the structure that ends a list.
#[must_use]
pub fn smbios(entry_point: u64, structures: u64) -> Vec<Piece> {
    let end = vec![127, 4, 0xff, 0xfe, 0, 0];
    let mut bytes = b"_SM3_\0\x18\x03\x03\0\x01\0".to_vec();
    bytes.extend((end.len() as u32).to_le_bytes());
    bytes.extend(structures.to_le_bytes());
    sum_up(&mut bytes, 5);
    vec![(entry_point, bytes), (structures, end)]
}

/// An MP floating pointer at `pointer`, and an empty table at `table`.
#[must_use]
pub fn mp_table(pointer: u64, table: u64) -> Vec<Piece> {
    long_mp_table(pointer, table, MP_HEADER_LEN)
}

/// The same with a table of `len` bytes.
#[must_use]
pub fn long_mp_table(pointer: u64, table: u64, len: usize) -> Vec<Piece> {
    let mut bytes = b"_MP_".to_vec();
    bytes.extend((table as u32).to_le_bytes());
    bytes.extend([1, 4, 0, 0, 0, 0, 0, 0]);
    sum_up(&mut bytes, 10);
    let mut contents = b"PCMP\0\0\x04\0".to_vec();
    contents[4..6].copy_from_slice(&(len as u16).to_le_bytes());
    contents.resize(MP_HEADER_LEN, 0);
    contents.resize(len, 0xa7);
    sum_up(&mut contents, 7);
    vec![(pointer, bytes), (table, contents)]
}

/// A table with this signature and these contents after the header.
#[must_use]
pub fn table(signature: &[u8; 4], contents: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend((36 + contents.len() as u32).to_le_bytes());
    bytes.extend(b"\x05\0HOST  TABLES  \x01\0\0\0HOST\x01\0\0\0");
    bytes.extend(contents);
    sum_up(&mut bytes, 9);
    bytes
}

/// Sets the byte at `checksum` so that the sum of `bytes` is zero.
pub fn sum_up(bytes: &mut [u8], checksum: usize) {
    bytes[checksum] = 0;
    bytes[checksum] = checksum::sum(bytes).wrapping_neg();
}

/// An RSDP with an XSDT that names no table, like Cloud Hypervisor's: 8-byte pointers, a checksum byte that is not
/// zero, and one checksum of no bytes. `rsdp` and `tables` are the files' names.
#[must_use]
pub fn acpi_files(rsdp: &str, tables: &str) -> Vec<(String, Vec<u8>)> {
    let mut xsdt = Vec::new();
    xsdt.extend(b"XSDT");
    xsdt.extend(36u32.to_le_bytes());
    xsdt.extend([1, 0]);
    xsdt.extend(b"OEMID TABLE   ");
    xsdt.extend([0; 12]);
    sum_up(&mut xsdt, 9);

    let mut root = Vec::new();
    root.extend(b"RSD PTR \0OEMID \x02");
    root.extend([0; 4]);
    root.extend(36u32.to_le_bytes());
    root.extend([0; 12]);
    sum_up(&mut root[..20], 8);
    sum_up(&mut root, 32);

    let script = [
        command(ALLOCATE, &[name(rsdp), 16u32.to_le_bytes().to_vec(), vec![F_SEGMENT]]),
        command(ALLOCATE, &[name(tables), 64u32.to_le_bytes().to_vec(), vec![HIGH]]),
        command(ADD_POINTER, &[name(rsdp), name(tables), 24u32.to_le_bytes().to_vec(), vec![8]]),
        command(ADD_CHECKSUM, &[name(rsdp), numbers(&[8, 0, 20])]),
        command(ADD_CHECKSUM, &[name(rsdp), numbers(&[32, 0, 36])]),
        command(ADD_CHECKSUM, &[name(tables), numbers(&[9, 0, 0])]),
    ]
    .concat();
    vec![("etc/table-loader".to_owned(), script), (rsdp.to_owned(), root), (tables.to_owned(), xsdt)]
}

fn command(number: u32, parts: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend(parts.concat());
    bytes.resize(COMMAND_LEN, 0);
    bytes
}

fn name(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(NAME_LEN, 0);
    bytes
}

fn numbers(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
