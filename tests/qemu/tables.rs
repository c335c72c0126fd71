//! The host's ACPI and SMBIOS tables, as a kernel finds them.

use std::ops::Range;

use crate::bzimage::BzImage;
use crate::machine::{Kind, Machine, Transport};
use crate::probe::{BootParams, E820_RAM, Probe};

/// Where an operating system scans for entry points (ACPI 6.5, 5.2.5.1; DMTF DSP0134 3.7, 5.2).
const F_SEGMENT: Range<u64> = 0xf_0000..0x10_0000;

fn probe(machine: &Machine) -> (Probe, BootParams) {
    let mut probe = Probe::boot(machine, &BzImage::new(), None, None);
    let page = probe.boot_params();
    (probe, page)
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte)) == 0
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// The position of `signature` at a multiple of 16 bytes.
pub fn scan(bytes: &[u8], signature: &[u8]) -> Option<usize> {
    (0..bytes.len()).step_by(16).find(|&at| bytes[at..].starts_with(signature))
}

/// The complete, checked ACPI table at `address`, with its signature.
fn table(probe: &mut Probe, page: &BootParams, address: u32) -> (String, Vec<u8>) {
    let header = probe.read(address.into(), 36);
    let table = probe.read(address.into(), u32_at(&header, 4) as usize);
    let signature = String::from_utf8_lossy(&table[..4]).into_owned();
    // The FACS has no checksum.
    assert!(signature == "FACS" || sums_to_zero(&table), "{signature} at {address:#x}");
    let range = u64::from(address)..u64::from(address) + table.len() as u64;
    for entry in page.e820().iter().filter(|entry| entry.kind == E820_RAM) {
        let apart = range.end <= entry.start || entry.end <= range.start;
        assert!(apart, "{signature} at {range:x?} is in memory that the kernel takes for free, {entry:x?}");
    }
    (signature, table)
}

/// All the tables that the RSDP leads to.
pub fn tables(probe: &mut Probe, page: &BootParams) -> Vec<(String, Vec<u8>)> {
    let rsdp = probe.read(page.rsdp(), 20);
    assert!(rsdp.starts_with(b"RSD PTR "), "{rsdp:x?} at {:#x}", page.rsdp());
    assert!(sums_to_zero(&rsdp), "{rsdp:x?}");
    let (signature, rsdt) = table(probe, page, u32_at(&rsdp, 16));
    assert_eq!(signature, "RSDT");
    let mut tables: Vec<_> = rsdt[36..].chunks(4).map(|address| table(probe, page, u32_at(address, 0))).collect();
    let fadt = tables.iter().find(|(signature, _)| signature == "FACP").expect("a FADT").1.clone();
    // FIRMWARE_CTRL and DSDT (ACPI 6.5, table 5.9).
    tables.push(table(probe, page, u32_at(&fadt, 36)));
    tables.push(table(probe, page, u32_at(&fadt, 40)));
    tables
}

#[test]
fn every_acpi_table_is_intact_and_reserved() {
    for kind in Kind::ALL {
        for transport in Transport::ALL {
            eprintln!("{kind:?}, {transport:?}");
            let (mut probe, page) = probe(&Machine { transport, ..Machine::new(kind) });
            let tables = tables(&mut probe, &page);
            let find = |wanted: &str| tables.iter().find(|(signature, _)| signature == wanted).map(|(_, table)| table);
            for wanted in ["FACP", "FACS", "DSDT", "APIC", "HPET", "WAET"] {
                assert!(find(wanted).is_some(), "no {wanted}");
            }
            // The power management registers are where the firmware put them before QEMU made the tables.
            let fadt = find("FACP").unwrap();
            assert_eq!([u32_at(fadt, 56), u32_at(fadt, 64)], [0x600, 0x604], "PM1a event and control blocks");
            assert_eq!(u32_at(fadt, 76), 0x608, "the timer");
            match (kind, find("MCFG")) {
                (Kind::Q35, Some(mcfg)) => assert_eq!(u32_at(mcfg, 44), 0xb000_0000, "configuration space"),
                (Kind::Pc, None) => {}
                (_, mcfg) => panic!("{kind:?}: MCFG {mcfg:x?}"),
            }
        }
    }
}

#[test]
fn the_rsdp_is_where_an_old_kernel_scans_for_it() {
    for kind in Kind::ALL {
        let (mut probe, page) = probe(&Machine::new(kind));
        assert!(F_SEGMENT.contains(&page.rsdp()), "{:#x}", page.rsdp());
        let segment = probe.read(F_SEGMENT.start, 0x1_0000);
        let found = scan(&segment, b"RSD PTR ").map(|at| F_SEGMENT.start + at as u64);
        assert_eq!(found, Some(page.rsdp()));
    }
}

#[test]
fn without_acpi_there_is_no_rsdp() {
    let (_, page) = probe(&Machine { properties: ",acpi=off", ..Machine::new(Kind::Q35) });
    assert_eq!(page.rsdp(), 0);
}

/// The first bytes of a fw_cfg file (QEMU docs/specs/fw_cfg.rst: the directory is item 0x19, its numbers big-endian).
pub fn file(probe: &mut Probe, name: &str, len: usize) -> Vec<u8> {
    let count = u32::from_be_bytes(probe.fw_cfg(0x19, 4).try_into().unwrap());
    let directory = probe.fw_cfg(0x19, 4 + 64 * count as usize);
    let name = format!("{name}\0");
    let entry = directory[4..].chunks(64).find(|entry| entry[8..].starts_with(name.as_bytes())).expect("the file");
    probe.fw_cfg(u16::from_be_bytes(entry[4..6].try_into().unwrap()), len)
}

/// QEMU's device with a pointer that the firmware has to write back (`WRITE_POINTER`).
#[test]
fn the_host_gets_the_address_of_the_generation_id() {
    let guid = "324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87";
    let bytes = [0xaf, 0x6e, 0x4e, 0x32, 0xd1, 0xd1, 0xf6, 0x4b, 0xbf, 0x41, 0xb9, 0xbb, 0x6c, 0x91, 0xfb, 0x87];
    for kind in Kind::ALL {
        let (mut probe, page) = probe(&Machine::new(kind).with(&format!("-device vmgenid,guid={guid}")));
        // The name VGIA in the SSDT, and the dword that was patched (QEMU docs/specs/vmgenid.rst).
        let tables = tables(&mut probe, &page);
        let address = tables.iter().find_map(|(signature, table)| {
            let at = table.windows(5).position(|name| name == b"VGIA\x0c")?;
            (signature == "SSDT").then(|| u32_at(table, at + 5))
        });
        let address = u64::from(address.expect("an SSDT with VGIA"));
        assert_eq!(probe.read(address + 40, 16), bytes);
        let written = file(&mut probe, "etc/vmgenid_addr", 8);
        assert_eq!(written, (address + 40).to_le_bytes());
    }
}

/// The structures of SMBIOS up to the one that ends them (type 127), each with its strings (DSP0134 3.6, 6.1).
fn split(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut structures: Vec<&[u8]> = Vec::new();
    while structures.last().is_none_or(|last| last[0] != 127) {
        let formatted = usize::from(bytes[1]);
        let strings = bytes[formatted..].windows(2).position(|pair| pair == [0, 0]).expect("the end of the strings");
        let (structure, rest) = bytes.split_at(formatted + strings + 2);
        structures.push(structure);
        bytes = rest;
    }
    structures
}

/// The strings of the SMBIOS structure of type 0 (DSP0134, 7.1) among `structures`: vendor, version, date.
fn firmware_strings(structures: &[u8]) -> Vec<String> {
    let own = split(structures).into_iter().find(|structure| structure[0] == 0).expect("a structure of type 0");
    let strings = &own[usize::from(own[1])..own.len() - 2];
    strings.split(|&byte| byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

/// The entry points: signature, offsets of its length, of the structures' address and of their length.
const ENTRY_POINTS: [(&[u8], usize, usize, usize); 2] = [(b"_SM_", 5, 24, 22), (b"_SM3_", 6, 16, 12)];

#[test]
fn the_smbios_structures_name_the_firmware() {
    for kind in Kind::ALL {
        for (properties, (signature, len, address, size)) in
            [",smbios-entry-point-type=32", ",smbios-entry-point-type=64"].into_iter().zip(ENTRY_POINTS)
        {
            eprintln!("{kind:?}{properties}");
            let (mut probe, page) = probe(&Machine { properties, ..Machine::new(kind) });
            let segment = probe.read(F_SEGMENT.start, 0x1_0000);
            let at = scan(&segment, signature).expect("an entry point in the F-segment");
            let entry_point = &segment[at..at + usize::from(segment[at + len])];
            assert!(sums_to_zero(entry_point), "{entry_point:x?}");
            if signature == b"_SM_" {
                assert!(
                    entry_point[16..].starts_with(b"_DMI_") && sums_to_zero(&entry_point[16..]),
                    "{entry_point:x?}"
                );
            }
            let start = u64::from(u32_at(entry_point, address));
            let size = u32_at(entry_point, size) & 0xffff;
            let is_ram =
                |entry: &crate::probe::E820| entry.kind == E820_RAM && (entry.start..entry.end).contains(&start);
            assert!(!page.e820().iter().any(is_ram), "{start:#x} is free memory");
            let strings = firmware_strings(&probe.read(start, size as usize));
            assert_eq!(strings[0], "Firstlight", "{strings:?}");
            assert_eq!(strings[1], env!("CARGO_PKG_VERSION"), "{strings:?}");
            // A PC's BIOS has its date there in a short form.
            let short = probe.read(0xf_fff5, 8);
            let date = strings[2].split('/').collect::<Vec<_>>();
            let &[month, day, year] = date.as_slice() else { panic!("no date in {strings:?}") };
            let expected = format!("{month}/{day}/{}", year.strip_prefix("20").expect("a year of this century"));
            assert_eq!(short, expected.as_bytes(), "{strings:?}");
        }
    }
}

#[test]
fn the_firmware_that_the_host_names_is_kept() {
    let (mut probe, _) = probe(
        &Machine { properties: ",smbios-entry-point-type=32", ..Machine::new(Kind::Q35) }
            .with("-smbios type=0,vendor=Somebody,version=7"),
    );
    let segment = probe.read(F_SEGMENT.start, 0x1_0000);
    let entry_point = scan(&segment, b"_SM_").expect("an entry point");
    let start = u32_at(&segment, entry_point + 24);
    let strings = firmware_strings(&probe.read(start.into(), 512));
    assert_eq!(strings[0], "Somebody", "{strings:?}");
}

/// As much memory as 40 address bits allow; the host provides only what is touched.
#[test]
fn every_memory_module_is_described() {
    let memory = "-object memory-backend-ram,id=ram,size=900G,reserve=off -machine memory-backend=ram";
    let (mut probe, _) = probe(
        &Machine { memory: "900G", properties: ",smbios-entry-point-type=32", ..Machine::new(Kind::Q35) }.with(memory),
    );
    let segment = probe.read(F_SEGMENT.start, 0x1_0000);
    let entry_point = scan(&segment, b"_SM_").expect("an entry point");
    let [start, len] = [u32_at(&segment, entry_point + 24), u32_at(&segment, entry_point + 22) & 0xffff];
    let structures = probe.read(start.into(), len as usize);
    // The firmware's own, then the host's as they were.
    let structures = split(&structures);
    let (own, rest) = structures.split_first().expect("a structure");
    assert_eq!(own[0], 0);
    let theirs: Vec<u8> = rest.concat();
    assert_eq!(own.len() + theirs.len(), len as usize);
    assert!(theirs == file(&mut probe, "etc/smbios/smbios-tables", theirs.len()), "not as the host has them");
    // Modules of 16 GiB.
    assert_eq!(rest.iter().filter(|structure| structure[0] == 17).count(), 57);
}
