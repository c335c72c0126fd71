use std::vec;
use std::vec::Vec;

use uefi_raw::table::boot::MemoryType;

use super::*;
use crate::addr::constant_range as range;
use crate::checksum::sum;
use crate::fakes::fw_cfg::FakeFwCfg;
use crate::fakes::golden;
use crate::fakes::machine::FakeMachine;
use crate::host::TPM_LOG;
use crate::layout::{CONVENTIONAL, F_SEGMENT};
use crate::memory_map::MemoryMap;
use crate::smbios::{FIRMWARE_INFORMATION_LEN, firmware_information};

/// A machine with this device, and a map with 512 MiB of RAM.
fn host(device: FakeFwCfg) -> (FakeMachine, FwCfg, MemoryMap) {
    let mut machine = FakeMachine::new().with(device);
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let mut map = HostMap::default();
    map.describe(range(0, 512 << 20), MemoryType::CONVENTIONAL).unwrap();
    map.carve_pc().unwrap();
    (machine, fw_cfg, MemoryMap::new(map))
}

fn u32_at(machine: &FakeMachine, at: u64) -> u64 {
    u32::from_le_bytes(machine.memory.bytes(at, 4).try_into().unwrap()).into()
}

/// The address of `entry_point` on a 16-byte boundary.
fn scan(machine: &FakeMachine, within: PhysRange, entry_point: &[u8]) -> Option<u64> {
    let mut places = (within.start().get()..within.end().get()).step_by(16);
    places.find(|&at| machine.memory.bytes(at, entry_point.len()) == entry_point)
}

fn load_all(machine: &mut FakeMachine, fw_cfg: &FwCfg, map: &mut MemoryMap, f_segment: bool) -> Tables {
    // No tables are in memory yet.
    let sources = Sources::of_host(machine, fw_cfg, &mut HostMap::default());
    load(&mut Boot { machine, fw_cfg, map, start: &Start::Reset }, sources, f_segment)
}

#[test]
fn an_operating_system_finds_the_tables_by_scanning() {
    for dma in [true, false] {
        let (mut machine, fw_cfg, mut map) = host(golden::device("q35", dma));
        let rsdp = load_all(&mut machine, &fw_cfg, &mut map, true).rsdp.unwrap().get();
        assert_eq!(scan(&machine, F_SEGMENT, b"RSD PTR "), Some(rsdp));
        assert_eq!(sum(&machine.memory.bytes(rsdp, 20)), 0);
        let rsdt = u32_at(&machine, rsdp + 16);
        assert_eq!(machine.memory.bytes(rsdt, 4), b"RSDT");
        let tables = range(rsdt, rsdt + u32_at(&machine, rsdt + 4));
        assert!(!map.is_ram(tables), "the kernel would reuse the tables");

        let entry_point = scan(&machine, F_SEGMENT, b"_SM_").unwrap();
        assert_eq!(sum(&machine.memory.bytes(entry_point, 31)), 0);
        let structures = u32_at(&machine, entry_point + 0x18);
        assert_eq!(machine.memory.bytes(structures, FIRMWARE_INFORMATION_LEN), firmware_information(0));
    }
}

#[test]
fn a_type_0_structure_of_the_host_is_the_only_one() {
    let (mut machine, fw_cfg, mut map) = host(golden::device("q35-host-bios", true));
    load_all(&mut machine, &fw_cfg, &mut map, true);
    let entry_point = scan(&machine, F_SEGMENT, b"_SM3_").unwrap();
    assert_eq!(sum(&machine.memory.bytes(entry_point, 24)), 0);
    let structures = u32_at(&machine, entry_point + 16);
    let theirs = &golden::items("q35-host-bios")["etc/smbios/smbios-tables"];
    assert_eq!(&machine.memory.bytes(structures, theirs.len()), theirs);
}

#[test]
fn the_address_of_the_generation_id_is_written_into_the_hosts_file() {
    let device = golden::device("q35-vmgenid", true);
    let record = device.record();
    let (mut machine, fw_cfg, mut map) = host(device);
    let tables = load_all(&mut machine, &fw_cfg, &mut map, true);
    let written = record.borrow().written.clone();
    let [(_, 0, address)] = &written[..] else { panic!("{written:?}") };
    assert_eq!(tables.writes, [HostWrite::new(b"etc/vmgenid_addr", 0, address).unwrap()], "for a wake from suspend");
    let address = u64::from_le_bytes(address[..].try_into().unwrap());
    let guid = &golden::items("q35-vmgenid")["etc/vmgenid_guid"][0x28..0x38];
    assert_eq!(machine.memory.bytes(address, 16), guid);
}

#[test]
fn without_the_f_segment_the_rsdp_is_in_the_extended_bios_data_area() {
    for dma in [true, false] {
        let (mut machine, fw_cfg, mut map) = host(golden::device("microvm", dma));
        let rsdp = load_all(&mut machine, &fw_cfg, &mut map, false).rsdp.unwrap();
        assert_eq!(rsdp, EBDA_TABLES.start());
        assert_eq!(machine.memory.bytes(0x9_fc00, 2), [1, 0], "the area's length in KiB");
        assert!(!map.is_ram(PhysRange::new(rsdp, 36).unwrap()));
        assert_eq!(machine.memory.bytes(F_SEGMENT.start().get(), 0x1_0000), std::vec![0; 0x1_0000]);
    }
}

#[test]
fn a_broken_script_costs_only_the_acpi_tables() {
    let device = golden::items("q35").iter().fold(FakeFwCfg::new(true), |device, (name, bytes)| match &name[..] {
        TABLE_LOADER => device.with_file(name, &bytes[..100]),
        _ => device.with_file(name, bytes),
    });
    let (mut machine, fw_cfg, mut map) = host(device);
    assert_eq!(load_all(&mut machine, &fw_cfg, &mut map, true).rsdp, None);
    assert_eq!(scan(&machine, F_SEGMENT, b"RSD PTR "), None);
    assert!(scan(&machine, F_SEGMENT, b"_SM_").is_some());
}

#[test]
fn broken_smbios_structures_leave_no_entry_point() {
    let device = golden::items("q35").iter().fold(FakeFwCfg::new(true), |device, (name, bytes)| match &name[..] {
        SMBIOS_TABLES => device.with_file(name, &bytes[..bytes.len() - 3]),
        _ => device.with_file(name, bytes),
    });
    let (mut machine, fw_cfg, mut map) = host(device);
    assert!(load_all(&mut machine, &fw_cfg, &mut map, true).rsdp.is_some());
    assert_eq!(scan(&machine, F_SEGMENT, b"_SM_"), None);
}

#[test]
fn the_entry_point_of_structures_without_an_f_segment_was_where_the_mp_tables_pointer_goes() {
    let q35 = golden::items("q35");
    for script in [None, Some(&q35[TABLE_LOADER][..100])] {
        let names = [SMBIOS_ANCHOR, SMBIOS_TABLES];
        let device = names.iter().fold(FakeFwCfg::new(true), |device, name| device.with_file(name, &q35[*name]));
        let device = if let Some(script) = script { device.with_file(TABLE_LOADER, script) } else { device };
        let (mut machine, fw_cfg, mut map) = host(device);
        let loaded = load_all(&mut machine, &fw_cfg, &mut map, false);
        let entry_point = scan(&machine, CONVENTIONAL, b"_SM_").expect("an entry point below 640 KiB");
        assert_eq!(loaded, Tables { smbios: Some(PhysAddr::new(entry_point)), ..Tables::default() });
        assert!(
            !EBDA_TABLES.contains_addr(PhysAddr::new(entry_point)) && !map.is_ram(range(entry_point, entry_point + 31)),
            "{entry_point:#x}"
        );
    }
}

/// The 2.x entry point's data on a host whose structures have `len` bytes, if there is an entry point: their length and address.
fn with_structures_of(len: usize) -> Option<(usize, u64, FakeMachine)> {
    // A type 11 structure, type 127, and their handles.
    let mut tables = [11, 5, 0, 1, 1].to_vec();
    tables.resize(len - 8, b'x');
    tables.extend([0, 0, 127, 4, 0, 2, 0, 0]);
    let entry_point = golden::items("q35").remove(SMBIOS_ANCHOR).unwrap();
    let device = FakeFwCfg::new(true).with_file(SMBIOS_ANCHOR, &entry_point).with_file(SMBIOS_TABLES, &tables);
    let (mut machine, fw_cfg, mut map) = host(device);
    load_all(&mut machine, &fw_cfg, &mut map, true);
    let entry_point = scan(&machine, F_SEGMENT, b"_SM_")?;
    assert_eq!(sum(&machine.memory.bytes(entry_point, 31)), 0);
    let len = u32_at(&machine, entry_point + 0x16) & 0xffff;
    let start = u32_at(&machine, entry_point + 0x18);
    assert!(!map.is_ram(PhysRange::new(PhysAddr::new(start), len).unwrap()));
    Some((len as usize, start, machine))
}

#[test]
fn as_many_structures_as_a_2_x_entry_point_counts_are_kept_with_or_without_our_own() {
    let room = 0xffff - FIRMWARE_INFORMATION_LEN;
    let first = |machine: &FakeMachine, start| machine.memory.bytes(start, 4);
    let (len, start, machine) = with_structures_of(room).unwrap();
    assert_eq!((len, first(&machine, start)), (0xffff, [0, 24, 0, 0].to_vec()));
    for size in [room + 1, 0xffff] {
        let (len, start, machine) = with_structures_of(size).unwrap();
        assert_eq!((len, first(&machine, start)), (size, [11, 5, 0, 1].to_vec()));
    }
    assert!(with_structures_of(0x1_0000).is_none(), "the entry point cannot say how many there are");
}

#[test]
fn the_firmwares_structure_gets_a_unique_handle() {
    let tables = [[1, 4, 0, 0, 0, 0], [127, 4, 1, 0, 0, 0]].concat();
    let entry_point = golden::items("q35").remove(SMBIOS_ANCHOR).unwrap();
    let device = FakeFwCfg::new(true).with_file(SMBIOS_ANCHOR, &entry_point).with_file(SMBIOS_TABLES, &tables);
    let (mut machine, fw_cfg, mut map) = host(device);
    load_all(&mut machine, &fw_cfg, &mut map, true);
    let entry_point = scan(&machine, F_SEGMENT, b"_SM_").unwrap();
    let structures = u32_at(&machine, entry_point + 0x18);
    assert_eq!(machine.memory.bytes(structures, 4), [0, 24, 2, 0]);
}

#[test]
fn structures_that_do_not_fit_the_f_segment_go_to_high_memory() {
    // A type 11 structure with a long string, 1,000 times.
    let mut tables = Vec::new();
    for _ in 0..1000 {
        tables.extend([11, 5, 0, 1, 1]);
        tables.extend([b'x'; 100]);
        tables.extend([0, 0]);
    }
    let entry_point = golden::items("q35-smbios3").remove(SMBIOS_ANCHOR).unwrap();
    let device = FakeFwCfg::new(true).with_file(SMBIOS_ANCHOR, &entry_point).with_file(SMBIOS_TABLES, &tables);
    let (mut machine, fw_cfg, mut map) = host(device);
    load_all(&mut machine, &fw_cfg, &mut map, true);
    let entry_point = scan(&machine, F_SEGMENT, b"_SM3_").unwrap();
    let structures = u32_at(&machine, entry_point + 16);
    assert!(structures > 0x10_0000);
    assert!(!map.is_ram(PhysRange::new(PhysAddr::new(structures), tables.len() as u64).unwrap()));
    let len = u32_at(&machine, entry_point + 12) as usize;
    assert_eq!(len, FIRMWARE_INFORMATION_LEN + tables.len());
    let own = structures + FIRMWARE_INFORMATION_LEN as u64;
    assert!(machine.memory.bytes(own, tables.len()) == tables);
}

/// A machine whose script also allocates the log of a TPM, of `len` bytes.
fn with_tpm_log(len: usize) -> FakeFwCfg {
    golden::items("q35")
        .iter()
        .fold(FakeFwCfg::new(true), |device, (name, bytes)| match &name[..] {
            TABLE_LOADER => device.with_file(name, &[bytes.as_slice(), &golden::allocate(TPM_LOG)].concat()),
            _ => device.with_file(name, bytes),
        })
        .with_file(TPM_LOG, &vec![0; len])
}

#[test]
fn the_log_of_a_tpm_is_at_the_scripts_address() {
    let (mut machine, fw_cfg, mut map) = host(with_tpm_log(0x1_0000));
    machine.memory.store(0x1ff0_0000, &[0x55; 0x10_0000]);
    let Presence::Described { log } = load_all(&mut machine, &fw_cfg, &mut map, true).tpm else { panic!("no log") };
    assert_eq!(log.len(), 0x1_0000);
    assert!(!map.is_ram(log), "the kernel would reuse the log");
    assert_eq!(machine.memory.bytes(log.start().get(), 0x1_0000), vec![0; 0x1_0000]);
}

#[test]
fn a_machine_without_a_tpm_has_no_log() {
    let (mut machine, fw_cfg, mut map) = host(with_tpm_log(0));
    assert_eq!(load_all(&mut machine, &fw_cfg, &mut map, true).tpm, Presence::Absent);
    let (mut machine, fw_cfg, mut map) = host(golden::device("q35", true));
    assert_eq!(load_all(&mut machine, &fw_cfg, &mut map, true).tpm, Presence::Absent);
    // Tables that an operating system does not find do not describe the log.
    let broken = || {
        golden::items("q35").iter().fold(FakeFwCfg::new(true), |device, (name, bytes)| match &name[..] {
            TABLE_LOADER => device.with_file(name, &golden::allocate(TPM_LOG)),
            _ => device.with_file(name, bytes),
        })
    };
    for (len, tpm) in [(0x1000, Presence::Undescribed), (0, Presence::Absent)] {
        for device in [broken(), FakeFwCfg::new(true)] {
            let (mut machine, fw_cfg, mut map) = host(device.with_file(TPM_LOG, &vec![0; len]));
            let loaded = load_all(&mut machine, &fw_cfg, &mut map, true);
            assert_eq!(loaded, Tables { tpm, smbios: loaded.smbios, ..Tables::default() });
        }
    }
}
