extern crate std;

use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::fakes::fw_cfg::FakeFwCfg;
use crate::fakes::known_hosts::known_hosts;
use crate::fakes::machine::FakeMachine;
use crate::fakes::tables::{self as fake, DSDT_LEN, FACS_LEN, Piece, sum_up, table};
use crate::memory_map::E820Entry;
use crate::tables::TABLE_LOADER;

const MIB: u64 = 1 << 20;
const ECAM: u64 = 0xe000_0000;

/// The device of a host that puts tables into memory.
fn crosvm() -> FakeFwCfg {
    known_hosts().into_iter().find(|host| host.name == "crosvm").unwrap().device()
}

fn machine(pieces: &[Piece]) -> FakeMachine {
    machine_with(crosvm(), pieces)
}

fn machine_with(device: FakeFwCfg, pieces: &[Piece]) -> FakeMachine {
    let mut machine = FakeMachine::new().with(device);
    for (at, bytes) in pieces {
        machine.memory.store(*at, bytes);
    }
    machine
}

/// 64 MiB of RAM with the holes of a PC.
fn map() -> HostMap {
    let mut map = HostMap::default();
    map.describe(range(0, 64 * MIB), MemoryType::CONVENTIONAL).unwrap();
    map.carve_pc().unwrap();
    map
}

fn of_host(machine: &mut FakeMachine, fw_cfg: &FwCfg, map: &mut HostMap) -> InMemory {
    InMemory::of_host(machine, fw_cfg, fw_cfg.find(TABLE_LOADER).is_none(), map)
}

fn look(pieces: &[Piece]) -> (InMemory, HostMap) {
    let (mut machine, mut map) = (machine(pieces), map());
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let found = of_host(&mut machine, &fw_cfg, &mut map);
    for (at, bytes) in pieces {
        assert_eq!(machine.memory.bytes(*at, bytes.len()), *bytes, "the tables stay as they are");
    }
    (found, map)
}

fn rsdp_of(pieces: &[Piece]) -> Option<u64> {
    look(pieces).0.rsdp.map(PhysAddr::get)
}

/// The e820 type at an address.
fn kind(map: &HostMap, at: u64) -> Option<u32> {
    let covers = |entry: &E820Entry| (entry.addr.get()..entry.addr.get() + entry.size.get()).contains(&at);
    map.e820().find(covers).map(|entry| entry.kind.get())
}

#[test]
fn acpi_tables_are_found_wherever_an_operating_system_looks() {
    for at in [0x9_fc00, 0x9_fff0 - 32, 0xe_0000, 0xe_1230, 0xf_0000, 0xf_2400, 0xf_ffd0] {
        let (found, map) = look(&fake::acpi(at, 32 * MIB, ECAM));
        assert_eq!(found.rsdp, Some(PhysAddr::new(at)), "{at:#x}");
        assert_eq!(found.in_ebda, at < 0xa_0000);
        assert!(!map.is_ram(PhysRange::new(PhysAddr::new(at), 36).unwrap()), "{at:#x}");
    }
    for at in [0x9_f000, 0xe_0008, 0xd_fff0, 0x10_0000, 0x8000] {
        let (found, unchanged) = look(&fake::acpi(at, 32 * MIB, ECAM));
        assert_eq!((found, unchanged), (InMemory::default(), map()), "{at:#x}");
    }
}

#[test]
fn an_mp_pointer_to_the_firmwares_own_memory_costs_no_acpi_tables() {
    for table in [0x5_0000, 0x10, 0xffff_0000] {
        let mut pieces = fake::acpi(0xe_0000, 32 * MIB, ECAM);
        let [(pointer, bytes), _] = fake::mp_table(0xf_0000, table).try_into().unwrap();
        pieces.push((pointer, bytes));
        let (mut machine, mut map) = (machine(&pieces), map());
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        let found = of_host(&mut machine, &fw_cfg, &mut map);
        assert_eq!((found.rsdp, found.mp_table), (Some(PhysAddr::new(0xe_0000)), false), "{table:#x}");
    }
}

#[test]
fn every_table_in_ram_and_the_configuration_space_are_reserved() {
    let tables = 32 * MIB + 0x800;
    let pieces = fake::acpi(0xe_0000, tables, ECAM);
    let (_, map) = look(&pieces);
    for (at, bytes) in &pieces[1..] {
        let expected = if bytes.len() == FACS_LEN { [E820Entry::NVS; 2] } else { [E820Entry::ACPI, E820Entry::NVS] };
        // They share a page, which has the more restrictive kind.
        assert!(expected.contains(&kind(&map, *at).unwrap()), "{at:#x}");
        assert!(expected.contains(&kind(&map, at + bytes.len() as u64 - 1).unwrap()), "{at:#x}");
    }
    assert_eq!(kind(&map, 32 * MIB - 1), Some(E820Entry::RAM));
    assert_eq!(kind(&map, 32 * MIB + 0x1000), Some(E820Entry::RAM));
    assert_eq!([ECAM, ECAM + (64 << 20) - 1].map(|at| kind(&map, at)), [Some(E820Entry::RESERVED); 2]);
    assert_eq!(kind(&map, ECAM + (64 << 20)), None);
    assert_eq!(pieces.last().unwrap().1.len(), DSDT_LEN);
}

#[test]
fn kinds_in_the_hosts_map_are_kept() {
    let (mut machine, mut map) = (machine(&fake::acpi(0xe_0000, 32 * MIB, ECAM)), map());
    map.describe(range(32 * MIB, 33 * MIB), MemoryType::RESERVED).unwrap();
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    assert!(of_host(&mut machine, &fw_cfg, &mut map).rsdp.is_some());
    assert_eq!(kind(&map, 32 * MIB), Some(E820Entry::RESERVED));
}

#[test]
fn an_rsdp_of_acpi_1_leads_to_an_rsdt() {
    let (rsdt, ssdt) = (32 * MIB, 33 * MIB);
    let mut root = b"RSD PTR \0HOST  \0".to_vec();
    root.extend((rsdt as u32).to_le_bytes());
    sum_up(&mut root, 8);
    let pieces =
        vec![(0xf_0000, root), (rsdt, table(b"RSDT", &(ssdt as u32).to_le_bytes())), (ssdt, table(b"SSDT", &[0; 9]))];
    let (found, map) = look(&pieces);
    assert_eq!(found.rsdp, Some(PhysAddr::new(0xf_0000)));
    assert_eq!([rsdt, ssdt, ssdt + 44].map(|at| kind(&map, at)), [Some(E820Entry::ACPI); 3]);
}

#[test]
fn an_invalid_rsdp_does_not_hide_the_next_one() {
    let good = fake::acpi(0xf_0000, 32 * MIB, ECAM);
    for changed in (0..36).filter(|byte| ![8, 32].contains(byte)) {
        let mut bad = good[0].1.clone();
        bad[changed] ^= 0x40;
        assert_eq!(rsdp_of(&[(0xe_0000, bad.clone())]), None, "{changed}");
        let both = [vec![(0xe_0000, bad)], good.clone()].concat();
        assert_eq!(rsdp_of(&both), Some(0xf_0000), "{changed}");
    }
    // With valid sums, but an invalid length.
    for len in [0, 20, 35, u32::MAX] {
        let mut bad = good[0].1.clone();
        bad[20..24].copy_from_slice(&len.to_le_bytes());
        sum_up(&mut bad, 32);
        assert_eq!(rsdp_of(&[vec![(0xe_0000, bad)], good.clone()].concat()), Some(0xf_0000), "{len}");
    }
}

#[test]
fn beginnings_of_entry_points_do_not_hide_the_hosts_tables() {
    let beginnings = [&b"RSD "[..], b"RSD PTR ", b"_MP_", b"_SM_", b"_SM3_"];
    for beginning in beginnings {
        let mut pieces: Vec<Piece> = (0x9_fc00..0xa_0000).step_by(16).map(|at| (at, beginning.to_vec())).collect();
        pieces.extend(fake::acpi(0xe_0000, 32 * MIB, ECAM));
        assert_eq!(rsdp_of(&pieces), Some(0xe_0000), "{beginning:?}");
    }
    // Entry points of a kind that is not wanted do not hide them either: with ACPI tables in fw_cfg, the rest is still found.
    let mut pieces: Vec<Piece> = (0..64).flat_map(|i| fake::acpi(0x9_fc00 + i * 64, 32 * MIB, ECAM)).collect();
    pieces.retain(|(at, bytes)| *at < 0xa_0000 && bytes.len() <= 48);
    pieces.extend(fake::mp_table(0xf_0000, 32 * MIB));
    let mut machine = machine_with(crosvm().with_file(TABLE_LOADER, &[0]), &pieces);
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let found = of_host(&mut machine, &fw_cfg, &mut map());
    assert_eq!(found, InMemory { mp_table: true, ..InMemory::default() });
}

/// The RSDP of `fake::acpi`, with another XSDT.
fn with_xsdt(xsdt: &[u8]) -> Vec<Piece> {
    let mut pieces = fake::acpi(0xe_0000, 32 * MIB, ECAM);
    pieces.truncate(1);
    pieces.push((32 * MIB, xsdt.to_vec()));
    pieces
}

fn entries(addresses: &[u64]) -> Vec<u8> {
    table(b"XSDT", &addresses.iter().copied().flat_map(u64::to_le_bytes).collect::<Vec<_>>())
}

#[test]
fn entries_of_lists_that_are_not_tables_are_skipped() {
    // Without a list nothing is passed on.
    let mut broken = entries(&[]);
    broken[0] ^= 1;
    assert_eq!(rsdp_of(&with_xsdt(&broken)), None);
    let mut long = entries(&[]);
    long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    sum_up(&mut long, 9);
    assert_eq!(rsdp_of(&with_xsdt(&long)), None);
    // Entries that are not tables are skipped: absent memory, above 4 GiB, the list itself, the RSDP, many.
    let nowhere = [0, 1, 0xfff, u64::MAX, u64::MAX - 7, 1 << 32, 0xffff_fff8, 0x4_0000, 20 * MIB];
    for entries in [entries(&nowhere), entries(&[32 * MIB; 100]), entries(&[0xe_0000]), entries(&[0; 8000])] {
        let (found, map) = look(&with_xsdt(&entries));
        assert_eq!(found.rsdp, Some(PhysAddr::new(0xe_0000)));
        assert_eq!(kind(&map, 20 * MIB), Some(E820Entry::RAM));
        assert!(map.ram_bytes() > 62 * MIB);
    }
}

#[test]
fn tables_with_impossible_lengths_and_pointers_cost_no_memory() {
    let place = 40 * MIB;
    for len in [0_u32, 7, (4 << 20) + 1, 1 << 30, u32::MAX] {
        let mut ssdt = table(b"SSDT", &[]);
        ssdt[4..8].copy_from_slice(&len.to_le_bytes());
        let (found, map) = look(&[with_xsdt(&entries(&[place])), vec![(place, ssdt)]].concat());
        assert!(found.rsdp.is_some());
        assert_eq!(kind(&map, place), Some(E820Entry::RAM), "{len:#x}");
    }
    // A FADT that ends before its pointers, one that points to itself, one that points to absent memory.
    for facs in [place, 0xffff_ffff, 0] {
        let mut contents = vec![0; 232];
        contents[96..104].copy_from_slice(&facs.to_le_bytes());
        contents[104..112].copy_from_slice(&facs.to_le_bytes());
        for fadt in [table(b"FACP", &contents), table(b"FACP", &[])] {
            assert!(rsdp_of(&[with_xsdt(&entries(&[place])), vec![(place, fadt)]].concat()).is_some());
        }
    }
    // Windows with descending buses, and windows that wrap.
    for (base, first, last) in [(ECAM, 9, 8), (u64::MAX, 0, 255), (u64::MAX - 0xfff_ffff, 255, 255)] {
        let mcfg = [&[0; 8][..], &u64::to_le_bytes(base), &[0, 0, first, last, 0, 0, 0, 0]].concat();
        let pieces = [with_xsdt(&entries(&[place])), vec![(place, table(b"MCFG", &mcfg))]].concat();
        assert!(rsdp_of(&pieces).is_some());
    }
}

#[test]
fn tables_in_the_firmwares_memory_are_not_passed_on() {
    // In memory that the firmware must not read, and in the rest of its memory.
    for tables in [0x5_0000, 0x9_e7c0] {
        let (mut machine, mut map) = (machine(&fake::acpi(0xe_0000, tables, ECAM)), map());
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        assert_eq!(of_host(&mut machine, &fw_cfg, &mut map).rsdp, None, "{tables:#x}");
    }
}

/// A kernel that finds the entry point would follow it to what the firmware has put there.
#[test]
fn the_entry_point_of_tables_that_are_lost_is_removed() {
    let acpi_and_mp = [fake::acpi(0xe_0000, 32 * MIB, ECAM), fake::mp_table(0x9_fc00, 0x9_e7e0)].concat();
    let acpi_and_mp_in_heap = [fake::acpi(0xe_0000, 32 * MIB, ECAM), fake::mp_table(0x9_fc00, 0x5_0000)].concat();
    for (pieces, entry_point, rsdp) in [
        (fake::acpi(0xe_0000, 0x9_e7c0, ECAM), 0xe_0000, None),
        (fake::smbios(0xf_0000, 0x9_e000), 0xf_0000, None),
        (fake::smbios(0xf_0000, 0x5_0000), 0xf_0000, None),
        (acpi_and_mp, 0x9_fc00, Some(0xe_0000)),
        (acpi_and_mp_in_heap, 0x9_fc00, Some(0xe_0000)),
    ] {
        let (mut machine, mut map) = (machine(&pieces), map());
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        let found = of_host(&mut machine, &fw_cfg, &mut map);
        assert_eq!((found.rsdp.map(PhysAddr::get), found.mp_table), (rsdp, false), "{entry_point:#x}");
        assert_eq!(machine.memory.bytes(entry_point, 4), [0; 4], "{entry_point:#x}");
    }
}

/// crosvm has it from 0x9e800 on, with its pointer at the end of low memory: with some CPUs, and with the most.
#[test]
fn an_mp_table_after_the_code_for_started_cpus_is_reserved() {
    for len in [284, 0x17f0] {
        let (found, map) = look(&fake::long_mp_table(0x9_fff0, 0x9_e800, len));
        assert!(found.mp_table, "{len:#x}");
        assert_eq!(kind(&map, 0x9_e800), Some(E820Entry::RESERVED));
        assert_eq!(kind(&map, 0x9_e800 + len as u64 - 1), Some(E820Entry::RESERVED));
        assert_eq!(kind(&map, 0x9_dfff), Some(E820Entry::RAM));
    }
    // On a machine that can suspend, the record for a wake overwrites it.
    let mut sleeps = HostMap::default();
    sleeps.describe(range(0, 64 * MIB), MemoryType::CONVENTIONAL).unwrap();
    sleeps.carve_pc_that_sleeps().unwrap();
    for (len, is_kept) in [(0x800, true), (0x801, false)] {
        let mut machine = machine(&fake::long_mp_table(0x9_fff0, 0x9_e800, len));
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        assert_eq!(of_host(&mut machine, &fw_cfg, &mut sleeps.clone()).mp_table, is_kept, "{len:#x}");
    }
}

#[test]
fn smbios_structures_are_reserved() {
    for at in [0xf_0000, 0xf_1000, 0xf_ffe0] {
        let (found, map) = look(&fake::smbios(at, 32 * MIB));
        assert_eq!(found, InMemory::default());
        assert_eq!(kind(&map, 32 * MIB), Some(E820Entry::RESERVED));
    }
    // Not at an address that nobody searches, nor with a wrong sum.
    let mut broken = fake::smbios(0xf_0000, 32 * MIB);
    broken[0].1[23] = 1;
    for pieces in [fake::smbios(0xe_0000, 32 * MIB), broken] {
        assert_eq!(look(&pieces), (InMemory::default(), map()));
    }
    // The 2.x form, as hosts have it in fw_cfg and as the firmware completes it.
    let mut bytes = [0; MAX_ENTRY_POINT];
    let entry_point = crate::fakes::golden::items("q35")["etc/smbios/smbios-anchor"].clone();
    bytes[..entry_point.len()].copy_from_slice(&entry_point);
    let summary = crate::smbios::Summary { structures: 1, len: 0x321, max_structure: 64, ..Default::default() };
    let entry_point = EntryPoint::parse(&bytes).unwrap().finish(PhysAddr::new(32 * MIB), &summary).unwrap();
    let (_, map) = look(&[(0xf_1230, entry_point.to_vec())]);
    assert_eq!(kind(&map, 32 * MIB), Some(E820Entry::RESERVED));
}

/// Found by fuzzing: an entry point that tells of no bytes, where the firmware runs, took their page from the RAM of the firmware.
#[test]
fn structures_without_bytes_take_none_of_the_firmwares_memory() {
    let mut pieces = fake::smbios(0xf_0000, layout::FIRMWARE_RAM.start().get() + 0x1_0010);
    let entry_point = &mut pieces[0].1;
    entry_point[12..16].fill(0);
    entry_point[5] = 0;
    fake::sum_up(entry_point, 5);
    pieces.truncate(1);
    let (_, map) = look(&pieces);
    assert!(map.is_ram(layout::FIRMWARE_RAM));
}

#[test]
fn an_mp_table_is_reserved_and_no_other_is_made() {
    for pointer in [0x9_fc00, 0xf_0000] {
        let (found, map) = look(&fake::mp_table(pointer, 32 * MIB));
        assert!(found.mp_table, "{pointer:#x}");
        assert_eq!(kind(&map, 32 * MIB), Some(E820Entry::RESERVED));
    }
    let mut broken = fake::mp_table(0xf_0000, 32 * MIB);
    broken[1].1[0] = 0;
    assert!(!look(&broken).0.mp_table);
    // Page zero is not mapped.
    assert!(!look(&fake::mp_table(0xf_0000, 0x500)).0.mp_table);
}

/// The same tables on each host. A guest may have left them before a reset; the firmware cannot tell.
#[test]
fn only_hosts_that_put_tables_into_new_memory_are_searched() {
    let pieces = [fake::acpi(0xe_0000, 32 * MIB, ECAM), fake::mp_table(0x9_fc00, 33 * MIB)].concat();
    let found = InMemory { rsdp: Some(PhysAddr::new(0xe_0000)), mp_table: true, in_ebda: true };
    for host in known_hosts() {
        for (script, rsdp) in [(false, found.rsdp), (true, None)] {
            let device = host.device();
            let device = if script { device.with_file(TABLE_LOADER, &[0]) } else { device.with_file("opt/x", &[0]) };
            let (mut machine, mut map) = (machine_with(device, &pieces), map());
            let fw_cfg = FwCfg::probe(&mut machine).unwrap();
            let expected = if host.name == "crosvm" { InMemory { rsdp, ..found } } else { InMemory::default() };
            assert_eq!(of_host(&mut machine, &fw_cfg, &mut map), expected, "{}", host.name);
            let is_reserved = !map.is_ram(range(33 * MIB, 33 * MIB + 1));
            assert_eq!(is_reserved, host.name == "crosvm", "{}", host.name);
        }
    }
    // Without the device, the firmware is started by the PVH entry point, and the host has just loaded it.
    let (mut machine, mut map) = (machine(&pieces), map());
    assert_eq!(of_host(&mut machine, &FwCfg::absent(), &mut map), found);
}

proptest! {
    /// Any bytes in the searched memory, with any pointers.
    #[test]
    fn any_bytes_are_survived(
        changes in prop::collection::vec((0..0x400_u64, any::<u8>()), 0..40),
        sums in any::<bool>(),
    ) {
        let pieces = [fake::acpi(0xe_0000, 0xe_0040, ECAM), fake::smbios(0xf_0000, 0xf_0020)].concat();
        let (mut machine, mut map) = (machine(&pieces), map());
        for (at, byte) in changes {
            machine.memory.store(0xe_0000 + at, &[byte]);
        }
        if sums {
            // Corrects checksums, to reach the code after them.
            for (start, len, sum_at) in [(0xe_0000, 20, 8), (0xe_0000, 36, 32), (0xe_0040, 52, 9)] {
                let mut bytes = machine.memory.bytes(start, len);
                sum_up(&mut bytes, sum_at);
                machine.memory.store(start, &bytes);
            }
        }
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        let _ = of_host(&mut machine, &fw_cfg, &mut map);
        prop_assert!(map.ram_bytes() > 16 * MIB);
    }
}

#[test]
fn an_unreadable_mp_table_costs_no_acpi_tables() {
    for table in [0xffff_f000, 0xffff_ffff] {
        let pieces =
            [fake::acpi(0xf_0000, 2 * MIB, ECAM), vec![fake::mp_table(0xf_1000, table).swap_remove(0)]].concat();
        let (found, _) = look(&pieces);
        assert_eq!((found.rsdp.map(PhysAddr::get), found.mp_table), (Some(0xf_0000), false), "{table:#x}");
    }
}

#[test]
fn a_configuration_window_over_ram_does_not_take_the_ram() {
    let (found, map) = look(&fake::acpi(0xf_0000, 2 * MIB, 16 * MIB));
    assert_eq!(found.rsdp.map(PhysAddr::get), Some(0xf_0000));
    assert!(map.is_ram(range(16 * MIB, 64 * MIB)));
}
