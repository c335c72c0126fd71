//! A wake from suspend: the firmware's own record, and the operating system's tables up to the waking vector.
//!
//! Input: a byte with what is repaired, what is changed in a record that a boot could have left, an address for the RSDP,
//! and memory from there on, with the tables that it points to.

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::hal::fake::FakeMachine;
use firstlight::layout;
use firstlight::memory_map::MemoryMap;
use firstlight::resume::{self, HostWrite, Record, WakingVector};
use uefi_raw::table::boot::MemoryType;

use crate::input::Input;
use crate::one_line;

/// Where the tables of an input begin.
const TABLES: u64 = 0x7f_0000;
/// The end of RAM.
const RAM_END: u64 = 0x80_0000;

/// Loads the record and looks for the vector. A record that loads is one that can be stored and loads the same again, and
/// names files and bytes that are not empty; a vector is RAM below 1 MiB, and the one that the FACS has. Nothing is written.
///
/// # Panics
/// When that is not so.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let flags: u8 = input.take();
    let mut machine = FakeMachine::new();
    machine.keeps_accesses = false;
    machine.most_steps = 1000;
    let (name, offset, told): (_, u32, _) = (input.short(), input.take(), input.short());
    let writes = str::from_utf8(name).ok().and_then(|name| HostWrite::new(name, offset, told)).into_iter();
    let writes = writes.cycle().take(usize::from(flags >> 3)).collect();
    let stored = Record { rsdp: PhysAddr::new(TABLES), writes, has_tpm: flags & 1 != 0 };
    stored.store(&mut machine);
    let changed = flags & 2 != 0;
    if changed {
        let at = u64::from(input.take::<u16>()) % layout::RESUME_RECORD.len();
        let bytes = input.short();
        let len = bytes.len().min((layout::RESUME_RECORD.len() - at) as usize);
        machine.memory.store(layout::RESUME_RECORD.start().get() + at, &bytes[..len]);
    }
    let step: u16 = input.take();
    let rsdp = PhysAddr::new(if flags & 4 == 0 { TABLES + u64::from(step) } else { input.take() });
    let tables = input.rest();
    let len = tables.len().min((RAM_END - TABLES) as usize);
    machine.memory.store(TABLES, &tables[..len]);
    machine.memory.keep_stores();

    record(&mut machine, &stored, changed);
    vector(&mut machine, rsdp);
    assert_eq!(machine.memory.stores(), []);
}

fn record(machine: &mut FakeMachine, stored: &Record, changed: bool) {
    match Record::load(machine) {
        Ok(record) => {
            assert!(changed || record.rsdp == stored.rsdp && record.has_tpm == stored.has_tpm);
            assert!(record.writes.iter().all(|write| !write.file().is_empty() && !write.bytes().is_empty()));
            let mut other = FakeMachine::new();
            record.store(&mut other);
            assert_eq!(Record::load(&mut other).unwrap(), record);
        }
        Err(error) => one_line(&error.to_string()),
    }
    // Without ports nobody says that this is a wake.
    let mut copy = FakeMachine::new();
    copy.memory = machine.memory.clone();
    assert!(!resume::is_pending(&mut copy));
    assert!(Record::load(&mut copy).is_err(), "the record is still there");
}

fn vector(machine: &mut FakeMachine, rsdp: PhysAddr) {
    let mut map = MemoryMap::new();
    let ram = PhysRange::new(PhysAddr::new(0), RAM_END).unwrap();
    map.describe(ram, MemoryType::CONVENTIONAL).unwrap();
    map.carve_pc_that_sleeps().unwrap();
    match WakingVector::find(machine, &map, rsdp) {
        Ok(vector) => {
            let at = PhysAddr::new(vector.get().into());
            let byte = PhysRange::new(at, 1).unwrap();
            assert!(vector.get() != 0 && PhysRange::LOW_1_MIB.contains(byte) && map.is_ram(byte), "{at}");
            let memory = machine.memory.bytes(TABLES - 0x1000, (RAM_END - TABLES + 0x1000) as usize);
            let is_facs = |bytes: &[u8]| bytes.starts_with(b"FACS") && bytes[12..16] == vector.get().to_le_bytes();
            assert!(memory.windows(64).any(is_facs), "no FACS has {at}");
        }
        Err(error) => one_line(&error.to_string()),
    }
}

/// Tables with a FACS, by an RSDT and by an XSDT, and records.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let sum = |bytes: &[u8]| bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte));
    let table = |signature: &[u8; 4], body: &[u8]| {
        let len = 36 + body.len() as u32;
        let mut table = [&signature[..], &len.to_le_bytes(), &[1], &[0; 27], body].concat();
        table[9] = sum(&table);
        table
    };
    let mut seeds = Vec::new();
    for (revision, entry_len) in [(0, 4), (2, 8)] {
        // RSDP at 0, FACS at 0x40, RSDT or XSDT at 0x80, FADT at 0x100.
        let at = |offset: u64| TABLES + offset;
        let mut rsdp = [&b"RSD PTR "[..], &[0], b"FLIGHT", &[revision], &[0; 4], &36_u32.to_le_bytes()].concat();
        rsdp.extend(at(0x80).to_le_bytes());
        rsdp.resize(36, 0);
        rsdp[16..20].copy_from_slice(&at(0x80).to_le_bytes()[..4]);
        rsdp[8] = sum(&rsdp[..20]);
        let root: Vec<_> = [at(0x40), at(0x100)].iter().flat_map(|at| at.to_le_bytes()[..entry_len].to_vec()).collect();
        let root = table(if entry_len == 4 { b"RSDT" } else { b"XSDT" }, &root);
        let mut body = [0; 132 - 36 + 8];
        body[..4].copy_from_slice(&at(0x40).to_le_bytes()[..4]);
        let mut memory = vec![0; 0x200];
        let facs = [&b"FACS"[..], &64_u32.to_le_bytes(), &[0; 4], &0x9_a000_u32.to_le_bytes()].concat();
        let parts = [(0, rsdp), (0x40, facs), (0x80, root), (0x100, table(b"FACP", &body))];
        for (at, part) in parts {
            memory[at..at + part.len()].copy_from_slice(&part);
        }
        for vector in [0x1000_u32, 0, 0x9_f000, 0x10_0000] {
            memory[0x4c..0x50].copy_from_slice(&vector.to_le_bytes());
            let name = b"etc/vmgenid_addr";
            let record = [&[1 | 2 << 3, name.len() as u8][..], name, &[0; 4], &[8, 1, 2, 3, 4, 5, 6, 7, 8]].concat();
            seeds.push([record.as_slice(), &[0; 2], &memory].concat());
            seeds.push([&[2, 0, 0, 0, 0, 0, 0], &[0x20, 0, 2, 1, 1][..], &[0; 2], &memory].concat());
        }
    }
    seeds
}
