//! Tables in memory, on a host that puts them there. On other hosts, the same memory has no tables.
//!
//! Input: whether ACPI tables are wanted, and the contents of memory: each piece with an address, the offset of a checksum to
//! correct, if any, and its bytes.

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::fakes::known_hosts::known_hosts;
use firstlight::fakes::machine::FakeMachine;
use firstlight::fakes::tables as fake;
use firstlight::fw_cfg::FwCfg;
use firstlight::layout;
use firstlight::memory_map::HostMap;
use firstlight::tables::InMemory;
use uefi_raw::table::boot::MemoryType;

use crate::check;
use crate::input::Input;

/// The end of RAM.
const RAM_END: u64 = 0x80_0000;

/// Searches the tables. Every table that is found is in searched memory, and an RSDP is valid. Only the signature of an entry
/// point whose tables are lost is written. The map has no more RAM than before, and the firmware's own is unchanged. On any other
/// host, nothing is found in the same memory, and the map is unchanged, because a guest may have left all of it.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    look(bytes);
}

fn look(bytes: &[u8]) -> InMemory {
    let mut input = Input::new(bytes);
    let wants_acpi: bool = input.take();
    let hosts = known_hosts();
    let device = |name: &str| hosts.iter().find(|host| host.name == name).unwrap().device();
    let mut machine = FakeMachine::new().with(device("crosvm"));
    machine.keeps_accesses = false;
    machine.most_steps = 1000;
    while !input.is_empty() {
        let (at, sums): (u32, u8) = (input.take(), input.take());
        let mut piece = input.short().to_vec();
        if piece.starts_with(b"RSD ") && piece.len() >= 36 && sums != 0 {
            fake::sum_up(&mut piece[..20], 8);
            fake::sum_up(&mut piece, 32);
        } else if usize::from(sums) < piece.len() && sums != 0 {
            fake::sum_up(&mut piece, sums.into());
        }
        machine.memory.store((u64::from(at) % RAM_END).max(0x1000), &piece);
    }
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let mut map = HostMap::default();
    map.describe(PhysRange::new(PhysAddr::new(0), RAM_END).unwrap(), MemoryType::CONVENTIONAL).unwrap();
    map.carve_pc().unwrap();
    let before = map.clone();
    for name in ["QEMU", "QEMU without DMA", "bhyve"] {
        let mut other = FakeMachine::new().with(device(name));
        other.memory = machine.memory.clone();
        let fw_cfg = FwCfg::probe(&mut other).unwrap();
        assert_eq!(InMemory::of_host(&mut other, &fw_cfg, wants_acpi, &mut map), InMemory::default(), "{name}");
        assert_eq!(map, before, "{name}");
    }
    machine.memory.keep_stores();
    let found = InMemory::of_host(&mut machine, &fw_cfg, wants_acpi, &mut map);
    for store in machine.memory.stores() {
        let is_searched = (0x9_fc00..0xa_0000).contains(&store.start) || (0xe_0000..0x10_0000).contains(&store.start);
        let is_entry_point = is_searched && store.start % 16 == 0 && store.end - store.start == 4;
        assert!(is_entry_point && machine.memory.bytes(store.start, 4) == [0; 4], "{store:x?}");
    }
    check::map(&map);
    for region in map.regions().filter(|region| map.is_ram(region.range)) {
        assert!(before.is_ram(region.range), "{region:?} is made up");
    }
    assert_eq!(before.is_ram(layout::FIRMWARE_RAM), map.is_ram(layout::FIRMWARE_RAM));
    if let Some(rsdp) = found.rsdp {
        assert!(wants_acpi && rsdp.get().is_multiple_of(16), "{rsdp}");
        assert!((0x9_fc00..0xa_0000).contains(&rsdp.get()) || (0xe_0000..0x10_0000).contains(&rsdp.get()), "{rsdp}");
        let bytes = machine.memory.bytes(rsdp.get(), 20);
        assert!(bytes.starts_with(b"RSD PTR ") && bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)) == 0);
        assert!(!map.is_ram(PhysRange::new(rsdp, 20).unwrap()), "{rsdp} is not reserved");
    }
    found
}

/// Tables in the forms of known hosts.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let seed = |pieces: &[fake::Piece]| {
        let mut bytes = vec![1];
        for (at, piece) in pieces {
            // Where the checksum is, by what it begins with.
            let sums = match &piece[..4] {
                b"RSD " => 8,
                b"_SM3" => 5,
                b"_MP_" => 10,
                b"PCMP" => 7,
                b"FACS" => 0,
                _ => 9,
            };
            let len = piece.len().min(255);
            bytes.extend((*at as u32).to_le_bytes());
            bytes.extend([sums, len as u8]);
            bytes.extend(&piece[..len]);
        }
        bytes
    };
    let mut seeds = Vec::new();
    for (rsdp, tables) in [(0xf_0000, 0x70_0000), (0x9_fc10, 0xe_1000), (0xe_0000, 0x6_0000)] {
        let mut pieces = fake::acpi(rsdp, tables, 0xb000_0000);
        seeds.push(seed(&pieces));
        pieces.extend(fake::smbios(0xf_1000, 0xf_2000));
        pieces.extend(fake::mp_table(0x9_fc00, 0xf_3000));
        seeds.push(seed(&pieces));
        pieces.extend(fake::mp_table(0xf_0100, 0x5_0000));
        seeds.push(seed(&pieces));
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_found() {
        let found: Vec<_> = seeds().iter().map(|seed| look(seed).rsdp.map(PhysAddr::get)).collect();
        let [first, second] = [0xf_0000, 0x9_fc10].map(Some);
        assert_eq!(found[..6], [first, first, first, second, second, second]);
        // The tables are where the firmware runs.
        assert_eq!(found[6..], [None; 3]);
    }
}
