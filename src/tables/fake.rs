//! Tables as hosts put them into memory, for tests: what is where.
#![forbid(unsafe_code)]

extern crate std;

use std::vec;
use std::vec::Vec;

use crate::checksum;

/// Bytes, and where they are.
pub type Piece = (u64, Vec<u8>);

/// The length of the DSDT and of the FACS.
pub const DSDT_LEN: usize = 300;
/// See there.
pub const FACS_LEN: usize = 64;

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

/// An SMBIOS 3 anchor at `anchor`, and at `structures` the one that ends a list.
#[must_use]
pub fn smbios(anchor: u64, structures: u64) -> Vec<Piece> {
    let end = vec![127, 4, 0xff, 0xfe, 0, 0];
    let mut bytes = b"_SM3_\0\x18\x03\x03\0\x01\0".to_vec();
    bytes.extend((end.len() as u32).to_le_bytes());
    bytes.extend(structures.to_le_bytes());
    sum_up(&mut bytes, 5);
    vec![(anchor, bytes), (structures, end)]
}

/// An MP floating pointer at `pointer`, and an empty table at `table`.
#[must_use]
pub fn mp_table(pointer: u64, table: u64) -> Vec<Piece> {
    let mut bytes = b"_MP_".to_vec();
    bytes.extend((table as u32).to_le_bytes());
    bytes.extend([1, 4, 0, 0, 0, 0, 0, 0]);
    sum_up(&mut bytes, 10);
    let mut header = b"PCMP\x2c\0\x04\0".to_vec();
    header.resize(44, 0);
    sum_up(&mut header, 7);
    vec![(pointer, bytes), (table, header)]
}

/// A table with this signature and what follows the header.
#[must_use]
pub fn table(signature: &[u8; 4], contents: &[u8]) -> Vec<u8> {
    let mut bytes = signature.to_vec();
    bytes.extend((36 + contents.len() as u32).to_le_bytes());
    bytes.extend(b"\x05\0HOST  TABLES  \x01\0\0\0HOST\x01\0\0\0");
    bytes.extend(contents);
    sum_up(&mut bytes, 9);
    bytes
}

/// Makes the sum of `bytes` zero by the one at `checksum`.
pub fn sum_up(bytes: &mut [u8], checksum: usize) {
    bytes[checksum] = 0;
    bytes[checksum] = checksum::sum(bytes).wrapping_neg();
}
