//! ACPI tables and the script that places them, under names that hosts choose.
//!
//! Source: QEMU `hw/acpi/bios-linker-loader.c` for the script's commands.
#![forbid(unsafe_code)]

const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
const HIGH: u8 = 1;
const F_SEGMENT: u8 = 2;

const NAME_LEN: usize = 56;
const COMMAND_LEN: usize = 128;

/// An RSDP with an XSDT that names no table, as Cloud Hypervisor has it: 8-byte pointers, a checksum byte that is not
/// zero, and one checksum of no bytes. `rsdp` and `tables` are the files' names.
#[must_use]
pub fn files(rsdp: &str, tables: &str) -> Vec<(String, Vec<u8>)> {
    let mut xsdt = Vec::new();
    xsdt.extend(b"XSDT");
    xsdt.extend(36u32.to_le_bytes());
    xsdt.extend([1, 0]);
    xsdt.extend(b"OEMID TABLE   ");
    xsdt.extend([0; 12]);
    xsdt[9] = checksum(&xsdt);

    let mut root = Vec::new();
    root.extend(b"RSD PTR \0OEMID \x02");
    root.extend([0; 4]);
    root.extend(36u32.to_le_bytes());
    root.extend([0; 12]);
    root[8] = checksum(&root[..20]);
    root[32] = checksum(&root);

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

/// The byte that makes the sum of `bytes` zero, where its own place holds zero.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte))
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
