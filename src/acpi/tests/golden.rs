//! The scripts and tables of real machines, captured from QEMU (`tests/data/README.md`). After linking, an operating
//! system finds every table at its address, complete and with a valid checksum.

use super::*;
use crate::checksum::sum;
use crate::fakes::golden;

/// A captured machine: its script, and a host with its other files at their full length.
fn machine(folder: &str) -> (FakeHost, Vec<u8>) {
    let mut host = FakeHost::new(&[]);
    host.files = golden::items(folder);
    let script = host.files.remove("etc/table-loader").unwrap();
    (host, script)
}

fn u32_at(table: &[u8], at: usize) -> u64 {
    u32::from_le_bytes(table[at..at + 4].try_into().unwrap()).into()
}

fn u64_at(table: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(table[at..at + 8].try_into().unwrap())
}

/// A table with a standard header. It must be complete and its bytes must add up to zero.
fn table(host: &mut FakeHost, address: u64) -> (String, Vec<u8>) {
    let header = host.bytes(address, 36);
    let bytes = host.bytes(address, u32_at(&header, 4) as usize);
    let signature = String::from_utf8(header[..4].to_vec()).unwrap();
    assert_eq!(sum(&bytes), 0, "the checksum of {signature}");
    (signature, bytes)
}

/// All tables that the RSDP leads to, and the host after loading.
fn tables(folder: &str) -> (FakeHost, Vec<(String, Vec<u8>)>) {
    let (mut host, script) = machine(folder);
    let rsdp = load(&mut host, &script).unwrap().get();
    assert!((0xf_0000..0x10_0000).contains(&rsdp) && rsdp % 16 == 0);
    let bytes = host.bytes(rsdp, 20);
    assert_eq!(sum(&bytes), 0);

    let (root, pointers): (_, Vec<u64>) = if bytes[15] == 0 {
        let (signature, root) = table(&mut host, u32_at(&bytes, 16));
        (signature, root[36..].chunks(4).map(|pointer| u32_at(pointer, 0)).collect())
    } else {
        let bytes = host.bytes(rsdp, 36);
        assert_eq!(sum(&bytes), 0);
        let (signature, root) = table(&mut host, u64_at(&bytes, 24));
        (signature, root[36..].chunks(8).map(|pointer| u64_at(pointer, 0)).collect())
    };
    assert_eq!(root, if bytes[15] == 0 { "RSDT" } else { "XSDT" });

    let mut tables: Vec<_> = pointers.into_iter().map(|pointer| table(&mut host, pointer)).collect();
    let (_, fadt) = tables.iter().find(|(signature, _)| signature == "FACP").unwrap().clone();
    if u32_at(&fadt, 36) != 0 {
        let facs = host.bytes(u32_at(&fadt, 36), 64);
        assert_eq!(&facs[..4], b"FACS");
    }
    // Revision 1 of the FADT, on pc, has no 64-bit pointer; on microvm there is no 32-bit one.
    let wide = if fadt.len() >= 148 { u64_at(&fadt, 140) } else { 0 };
    let dsdt = if wide != 0 { wide } else { u32_at(&fadt, 40) };
    assert!(u32_at(&fadt, 40) == 0 || u32_at(&fadt, 40) == dsdt, "the two pointers to the DSDT differ");
    tables.push(table(&mut host, dsdt));
    assert_eq!(tables.last().unwrap().0, "DSDT");
    (host, tables)
}

fn signatures(tables: &[(String, Vec<u8>)]) -> Vec<&str> {
    tables.iter().map(|(signature, _)| signature.as_str()).collect()
}

fn find<'t>(tables: &'t [(String, Vec<u8>)], signature: &str) -> &'t [u8] {
    &tables.iter().find(|table| table.0 == signature).unwrap().1
}

/// The FADT's PM1a event block (ACPI 6.5, table 5.9), which QEMU takes from the chipset.
const PM1A_EVENT: usize = 56;

#[test]
fn q35_has_its_tables() {
    for folder in ["q35", "q35-6g", "q35-smbios3", "q35-host-bios"] {
        let (host, tables) = tables(folder);
        assert_eq!(signatures(&tables), ["FACP", "APIC", "HPET", "MCFG", "WAET", "DSDT"], "{folder}");
        assert_eq!(u64_at(find(&tables, "MCFG"), 44), 0xb000_0000);
        assert_eq!(u32_at(find(&tables, "FACP"), PM1A_EVENT), 0x600);
        assert_eq!(host.told, []);
    }
}

#[test]
fn pc_has_its_tables() {
    for folder in ["pc", "pc-128m"] {
        let (_, tables) = tables(folder);
        assert_eq!(signatures(&tables), ["FACP", "APIC", "HPET", "WAET", "DSDT"], "{folder}");
        assert_eq!(u32_at(find(&tables, "FACP"), PM1A_EVENT), 0x600);
    }
}

#[test]
fn microvm_has_an_rsdp_of_acpi_2() {
    let (_, tables) = tables("microvm");
    assert_eq!(signatures(&tables), ["FACP", "APIC", "DSDT"]);
}

#[test]
fn q35_with_vm_generation_id_and_nvdimm_has_their_tables() {
    let (mut host, tables) = tables("q35-vmgenid");
    assert_eq!(signatures(&tables), ["FACP", "APIC", "SSDT", "HPET", "SRAT", "MCFG", "SSDT", "NFIT", "WAET", "DSDT"]);
    // 12345678-9abc-def0-1234-56789abcdef0, its first three fields little-endian, at offset 40 of its file.
    let guid = [0x78, 0x56, 0x34, 0x12, 0xbc, 0x9a, 0xf0, 0xde, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0];
    let [(file, 0, address)] = host.told.as_slice() else { panic!("{:?}", host.told) };
    assert_eq!(file, "etc/vmgenid_addr");
    let address = u64_at(address, 0);
    assert_eq!(address % 4096, 40);
    assert_eq!(host.bytes(address, 16), guid);
}

#[test]
fn a_truncated_or_changed_script_does_no_harm() {
    let (_, script) = machine("q35-vmgenid");
    for end in (0..script.len()).step_by(61) {
        let (mut host, _) = machine("q35-vmgenid");
        let _ = load(&mut host, &script[..end]);
        let mut bent = script.clone();
        bent[end] ^= 0x80;
        let (mut host, _) = machine("q35-vmgenid");
        let _ = load(&mut host, &bent);
    }
}
