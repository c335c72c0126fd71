use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;
use uefi_raw::table::boot::MemoryType;

use super::*;
use crate::addr::{PhysAddr, PhysRange};
use crate::checksum::sum;
use crate::failure::Failure;
use crate::fakes::chipset::{FakeConfigPorts, FakePm1};
use crate::fakes::fw_cfg::FakeFwCfg;
use crate::fakes::known_hosts::known_hosts;
use crate::fakes::machine::{Access, FakeDevice, FakeMachine, FakeMemory};
use crate::fakes::{golden, tables as made};
use crate::host::SYSTEM_STATES;
use crate::layout::{RESUME_RECORD, WAKE_RAM};
use crate::memory_map::MemoryMap;
use crate::start_info::Start;
use crate::tables;

mod decision;
mod tpm;

/// CMOS memory that a test can read while the machine owns it.
#[derive(Clone)]
struct Cmos(Rc<RefCell<(u8, [u8; 128])>>);

impl Cmos {
    fn with_status(status: u8) -> Self {
        let mut registers = [0; 128];
        registers[0x0f] = status;
        Self(Rc::new(RefCell::new((0, registers))))
    }

    fn status(&self) -> u8 {
        self.0.borrow().1[0x0f]
    }
}

impl FakeDevice for Cmos {
    fn claims(&self, port: u16) -> bool {
        port == 0x70 || port == 0x71
    }
    fn read(&mut self, _: u16, _: u8, _: &mut FakeMemory) -> u32 {
        let (index, registers) = *self.0.borrow();
        registers[usize::from(index)].into()
    }
    fn write(&mut self, port: u16, _: u8, value: u32, _: &mut FakeMemory) {
        let (index, registers) = &mut *self.0.borrow_mut();
        match port {
            0x70 => *index = value as u8 & 0x7f,
            _ => registers[usize::from(*index)] = value as u8,
        }
    }
}

fn range(start: u64, len: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), len).unwrap()
}

fn record() -> Record {
    let writes = [("etc/vmgenid_addr", 0, &[1, 2, 3, 4, 5, 6, 7, 8][..]), ("etc/another", 12, &[9, 10, 11, 12])];
    let writes = writes.map(|(file, offset, bytes)| HostWrite::new(file.as_bytes(), offset, bytes).unwrap()).to_vec();
    Record { rsdp: PhysAddr::new(0xf_0000), writes }
}

/// A machine with the record in its memory.
fn with_record(record: &Record) -> FakeMachine {
    let mut machine = FakeMachine::new();
    record.store(&mut machine);
    machine
}

#[test]
fn a_stored_record_loads_unchanged() {
    for record in [record(), Record { rsdp: PhysAddr::new(0x10), writes: Vec::new() }] {
        let mut machine = with_record(&record);
        assert_eq!(Record::load(&mut machine), Ok(record));
        assert!(machine.accesses.is_empty());
    }
}

#[test]
fn a_record_with_any_bit_changed_is_refused() {
    let mut machine = with_record(&record());
    let start = RESUME_RECORD.start().get();
    let len = 32 + 2 * 72;
    assert_eq!(machine.memory.bytes(start + len, 64), [0; 64], "the end of the record");
    for at in start..start + len {
        let [byte] = machine.memory.bytes(at, 1)[..] else { unreachable!() };
        for bit in 0..8 {
            machine.memory.store(at, &[byte ^ 1 << bit]);
            assert_eq!(Record::load(&mut machine), Err(Error::Record), "bit {bit} at {:#x}", at - start);
        }
        machine.memory.store(at, &[byte]);
    }
    assert_eq!(Record::load(&mut machine), Ok(record()));
}

/// The length of a record's header, and of each write after it.
const HEADER_LEN: u64 = 32;
const WRITE_LEN: usize = 72;

/// Corrects the checksum of a record with this many writes: FNV-1a over the words after it.
fn sum_up(memory: &mut FakeMemory, writes: usize) {
    let start = RESUME_RECORD.start().get();
    let words = memory.bytes(start + 16, HEADER_LEN as usize - 16 + writes * WRITE_LEN);
    let words = words.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word));
    let sum = words.fold(0xcbf2_9ce4_8422_2325_u64, |sum, word| (sum ^ word).wrapping_mul(0x0100_0000_01b3));
    memory.store(start + 8, &sum.to_le_bytes());
}

/// A write as memory may have it: a name that may be empty or not text, an offset, a length that may be too large.
fn any_write() -> impl Strategy<Value = (Vec<u8>, u32, u32, [u8; 8])> {
    let name = prop_oneof![
        8 => "[a-z/]{1,56}".prop_map(String::into_bytes),
        1 => Just(Vec::new()),
        1 => prop_oneof![Just(vec![0xff]), Just(b"a\n".to_vec())],
    ];
    let len = prop_oneof![8 => 1..=8_u32, 1 => Just(0), 1 => any::<u32>()];
    (name, any::<u32>(), len, any::<[u8; 8]>())
}

proptest! {
    /// A record with a correct checksum and any contents loads only if a boot could have stored each field.
    #[test]
    fn any_record_in_memory_is_loaded_or_refused(
        (start, end) in prop_oneof![
            4 => Just((WAKE_RAM.start().get() as u32, WAKE_RAM.end().get() as u32)),
            1 => any::<(u32, u32)>(),
        ],
        rsdp: u32,
        writes in proptest::collection::vec(any_write(), 0..=4),
        count in prop_oneof![8 => Just(None), 1 => (17..=u32::MAX).prop_map(Some)],
        is_summed in prop_oneof![8 => Just(true), 1 => Just(false)],
    ) {
        let mut machine = with_record(&Record { rsdp: PhysAddr::new(0x10), writes: Vec::new() });
        let at = RESUME_RECORD.start().get();
        let count = count.unwrap_or(writes.len() as u32);
        machine.memory.store(at + 16, &[start, end, rsdp, count].map(u32::to_le_bytes).concat());
        for ((name, offset, len, bytes), at) in writes.iter().zip((at + HEADER_LEN..).step_by(WRITE_LEN)) {
            machine.memory.store(at, name);
            machine.memory.store(at + 56, &[offset.to_le_bytes(), len.to_le_bytes()].concat());
            machine.memory.store(at + 64, bytes);
        }
        sum_up(&mut machine.memory, count.min(16) as usize);
        if !is_summed {
            let [byte] = machine.memory.bytes(at + 8, 1)[..] else { unreachable!() };
            machine.memory.store(at + 8, &[byte ^ 1]);
        }

        let is_write = |(name, _, len, _): &(Vec<u8>, u32, u32, [u8; 8])| {
            !name.is_empty() && name.iter().all(u8::is_ascii_graphic) && (1..=8).contains(len)
        };
        let is_record = is_summed && count as usize == writes.len() && writes.iter().all(is_write);
        let is_ours = start <= end && u64::from(start) <= WAKE_RAM.start().get() && WAKE_RAM.end().get() <= u64::from(end);
        match Record::load(&mut machine) {
            Ok(record) => {
                prop_assert!(is_record && is_ours);
                prop_assert_eq!(record.rsdp, PhysAddr::new(rsdp.into()));
                prop_assert_eq!(record.writes.len(), writes.len());
                for (seen, (name, offset, len, bytes)) in record.writes.iter().zip(&writes) {
                    prop_assert_eq!(seen.file().as_bytes(), &name[..]);
                    prop_assert_eq!((seen.offset(), seen.bytes()), (*offset, &bytes[..*len as usize]));
                }
            }
            Err(Error::OtherMemory(_)) => prop_assert!(is_record && !is_ours),
            Err(_) => prop_assert!(!is_record || start > end),
        }
    }
}

#[test]
fn a_record_with_a_correct_checksum_is_still_checked() {
    // As another image could have stored it.
    let store = |writes: &[HostWrite]| {
        let record = Record { writes: writes.to_vec(), ..record() };
        Record::load(&mut with_record(&record))
    };
    assert_eq!(store(&[HostWrite::new(b"", 0, &[1]).unwrap()]), Err(Error::Record), "a write without a file");
    assert_eq!(store(&[HostWrite::new(b"etc/x", 0, &[]).unwrap()]), Err(Error::Record), "a write without bytes");
    // A name that prints as separate lines. A guest can write it into a record with a correct checksum.
    let record = Record { writes: vec![HostWrite::new(b"etc/xy", 0, &[1]).unwrap()], ..record() };
    let mut machine = with_record(&record);
    let start = RESUME_RECORD.start().get();
    machine.memory.store(start + 32 + 4, b"\n");
    sum_up(&mut machine.memory, 1);
    assert_eq!(Record::load(&mut machine), Err(Error::Record), "a name with a newline");
    assert_eq!(HostWrite::new(b"etc/\nx", 0, &[1]), None);
    assert_eq!(HostWrite::new(b"etc/x", 0, &[0; 9]), None);
    assert_eq!(HostWrite::new(&[b'x'; 57], 0, &[1]), None);
    assert_eq!(HostWrite::new(&[b'x'; 56], 0, &[1]).unwrap().file(), "x".repeat(56));
    // Of too many, not all are stored.
    let many = vec![HostWrite::new(b"etc/x", 0, &[1]).unwrap(); 17];
    assert_eq!(store(&many).unwrap().writes, many[..16]);
}

#[test]
fn a_record_of_an_image_that_reserved_less_memory_is_refused() {
    let mut machine = with_record(&Record { rsdp: PhysAddr::new(0xf_0000), writes: Vec::new() });
    let at = RESUME_RECORD.start().get();
    let kept = [WAKE_RAM.start().get() as u32 + 4096, WAKE_RAM.end().get() as u32];
    machine.memory.store(at + 16, &kept.map(u32::to_le_bytes).concat());
    sum_up(&mut machine.memory, 0);
    let expected = range(WAKE_RAM.start().get() + 4096, WAKE_RAM.len() - 4096);
    assert_eq!(Record::load(&mut machine), Err(Error::OtherMemory(expected)));
}

#[test]
fn on_a_machine_that_was_just_switched_on_cmos_is_not_read() {
    let mut machine = FakeMachine::new().with(Cmos::with_status(STATUS_WAKE));
    assert!(!is_requested(&mut machine));
    machine.memory.store(RESUME_RECORD.start().get(), &[0xff; 3072]);
    assert!(!is_requested(&mut machine));
    assert_eq!(machine.accesses, [], "memory tells");
}

#[test]
fn only_the_shutdown_code_for_it_requests_a_wake_and_only_once() {
    for status in 0..=u8::MAX {
        let cmos = Cmos::with_status(status);
        let mut machine = with_record(&record()).with(cmos.clone());
        let requested = is_requested(&mut machine);
        assert_eq!(requested, status == 0xfe, "{status:#x}");
        // After another reset there is no record. After a wake there is one, for the next.
        assert_eq!(Record::load(&mut machine).is_ok(), requested);
        assert_eq!(cmos.status(), if requested { 0 } else { status });
        assert!(!is_requested(&mut machine), "{status:#x}: the next reset requests none");
    }
}

/// The contents of `etc/system-states` on a machine with S3 (QEMU `hw/acpi/core.c`).
const STATES: [u8; 6] = [128, 0, 0, 129, 2, 128];

/// The items of a machine, including `etc/system-states` with S3.
fn device(name: &str) -> FakeFwCfg {
    device_without(name, "").with_file(SYSTEM_STATES, &STATES)
}

/// The items of a machine, without one of them and without `etc/system-states`.
fn device_without(name: &str, left_out: &str) -> FakeFwCfg {
    let items: BTreeMap<_, _> = golden::items(name).into_iter().collect();
    let items = items.iter().filter(|(name, _)| *name != left_out && *name != SYSTEM_STATES);
    items.fold(FakeFwCfg::new(true), |device, (name, bytes)| device.with_file(name, bytes))
}

const Q35: u32 = 0x29c0_8086;
const I440FX: u32 = 0x1237_8086;

/// The memory of a machine of this kind after a boot.
fn booted(name: &str, bridge: u32) -> FakeMemory {
    let mut machine = FakeMachine::new().with(device(name)).with(FakeConfigPorts::with_host_bridge(bridge));
    let fw_cfg = FwCfg::probe(&mut machine).unwrap();
    let mut map = host::memory_map(&mut machine, &fw_cfg, &Start::Reset).unwrap();
    let sources = tables::Sources::of_host(&mut machine, &fw_cfg, &mut map);
    let mut map = MemoryMap::new(map);
    let mut boot = Boot { machine: &mut machine, fw_cfg: &fw_cfg, map: &mut map, start: &Start::Reset };
    let tables = tables::load(&mut boot, sources, true);
    prepare(&mut boot, tables.rsdp, tables.writes);
    machine.memory
}

fn u32_at(memory: &FakeMemory, at: u64) -> u64 {
    u32::from_le_bytes(memory.bytes(at, 4).try_into().unwrap()).into()
}

/// The table with this signature in the RSDT that the RSDP points to.
fn table(memory: &FakeMemory, signature: &[u8]) -> u64 {
    let rsdt = u32_at(memory, rsdp(memory) + 16);
    let entries = (rsdt + 36..rsdt + u32_at(memory, rsdt + 4)).step_by(4);
    entries.map(|at| u32_at(memory, at)).find(|&at| memory.bytes(at, 4) == signature).unwrap()
}

fn rsdp(memory: &FakeMemory) -> u64 {
    (0xf_0000..0x10_0000).step_by(16).find(|&at| memory.bytes(at, 8) == b"RSD PTR ").unwrap()
}

fn facs(memory: &FakeMemory) -> u64 {
    u32_at(memory, table(memory, b"FACP") + 36)
}

/// The memory that the operating system leaves when it suspends.
fn suspended(name: &str, bridge: u32, vector: u32) -> FakeMemory {
    let mut memory = booted(name, bridge);
    memory.store(facs(&memory) + 12, &vector.to_le_bytes());
    memory
}

/// A machine of this kind at a reset of this kind.
fn reset_with(memory: FakeMemory, device: FakeFwCfg, bridge: u32, pm1: FakePm1) -> FakeMachine {
    let mut machine = FakeMachine::new().with(device).with(FakeConfigPorts::with_host_bridge(bridge)).with(pm1);
    machine.memory = memory;
    machine
}

/// A machine of this kind that was woken.
fn reset(memory: FakeMemory, device: FakeFwCfg, bridge: u32) -> FakeMachine {
    reset_with(memory, device, bridge, FakePm1::WOKEN)
}

/// The waking vector of a machine that was woken.
fn wake_on(machine: &mut FakeMachine) -> Result<WakingVector, Failure> {
    crate::wake(machine).map(|vector| vector.expect("the host says that it is a wake"))
}

fn wake(memory: FakeMemory) -> Result<WakingVector, Failure> {
    wake_on(&mut reset(memory, device("q35"), Q35))
}

#[test]
fn an_operating_system_wakes_at_its_waking_vector() {
    for (name, bridge) in [("q35", Q35), ("q35-vmgenid", Q35), ("pc", I440FX)] {
        let memory = suspended(name, bridge, 0x9_2c05 - 0x1_0000);
        let vector = wake_on(&mut reset(memory, device(name), bridge)).unwrap();
        assert_eq!(vector.get(), 0x8_2c05);
    }
}

#[test]
fn a_wake_sets_the_registers_of_a_boot_except_those_of_pci_functions() {
    let config = FakeConfigPorts::with_host_bridge(I440FX);
    let writes = config.writes();
    let mut machine = FakeMachine::new().with(device("pc")).with(config).with(FakePm1::WOKEN);
    machine.memory = suspended("pc", I440FX, 0x8000);
    wake_on(&mut machine).unwrap();
    let expected = [
        (0x0860, 4, 0x0b0b_0a0a), // PIIX3: interrupts
        (0x0940, 4, 0x8000_8000), // IDE
        (0x0b40, 4, 0x601),       // power management
        (0x0b80, 1, 1),
        (0x58 + 1, 1, 0x30), // PAM0
    ];
    assert_eq!(*writes.borrow(), expected);
    assert!(machine.accesses.contains(&Access::Out(0x4d1, 1, 0x0c)));
}

#[test]
fn a_wake_writes_the_addresses_into_the_hosts_files_again() {
    let memory = suspended("q35-vmgenid", Q35, 0x8000);
    let device = device("q35-vmgenid");
    let record = device.record();
    wake_on(&mut reset(memory, device, Q35)).unwrap();
    let written = record.borrow().written.clone();
    let [(_, 0, address)] = &written[..] else { panic!("{written:?}") };
    assert_ne!(*address, [0; 8]);
}

#[test]
fn several_files_are_written_again_each_at_its_offset() {
    let device = device("q35").with_file("etc/first", &[0; 8]).with_file("etc/second", &[0; 64]);
    let written = device.record();
    let mut memory = suspended("q35", Q35, 0x8000);
    let writes = [
        HostWrite::new(b"etc/first", 0, &[1; 8]).unwrap(),
        HostWrite::new(b"etc/second", 16, &[2; 4]).unwrap(),
        HostWrite::new(b"etc/gone", 0, &[3; 8]).unwrap(),
        HostWrite::new(b"etc/second", 56, &[4; 8]).unwrap(),
        HostWrite::new(b"etc/second", 60, &[5; 8]).unwrap(),
    ];
    let record = Record { rsdp: PhysAddr::new(rsdp(&memory)), writes: writes.to_vec() };
    let mut stored = with_record(&record);
    memory.store(RESUME_RECORD.start().get(), &stored.memory.bytes(RESUME_RECORD.start().get(), 3072));
    assert!(Record::load(&mut stored).is_ok());
    wake_on(&mut reset(memory, device, Q35)).unwrap();
    // Without the file that is gone and the one that is too short.
    let written: Vec<_> = written.borrow().written.iter().map(|(_, at, bytes)| (*at, bytes.clone())).collect();
    assert_eq!(written, [(0, vec![1; 8]), (16, vec![2; 4]), (56, vec![4; 8])]);
}

/// The reason of a failed wake, which leaves no record and requests a restart.
fn failure(memory: FakeMemory) -> std::string::String {
    let mut machine = reset(memory, device("q35"), Q35);
    let failure = crate::wake(&mut machine).unwrap_err();
    assert_eq!(failure.restart_after, Some(0));
    assert_eq!(Record::load(&mut machine), Err(Error::Record), "the record is gone");
    let text = failure.error.to_string();
    let reason = text.strip_prefix("the guest cannot wake up from suspend and boots again: ");
    reason.unwrap_or_else(|| panic!("{text}")).to_string()
}

#[test]
fn a_waking_vector_outside_ram_below_1_mib_is_refused() {
    let suspended = |vector: u32| {
        static MEMORY: std::sync::OnceLock<FakeMemory> = std::sync::OnceLock::new();
        let mut memory = MEMORY.get_or_init(|| booted("q35", Q35)).clone();
        memory.store(facs(&memory) + 12, &vector.to_le_bytes());
        memory
    };
    assert_eq!(failure(suspended(0)), "it left no address to wake up at in the FACS");
    for vector in [0x8_3000, 0x9_fc00, 0xa_0000, 0xf_0000, 0x10_0000, 0x10_0001, 0xffff_fff0] {
        let reason = failure(suspended(vector));
        assert!(reason.starts_with(&std::format!("{vector:#x}, where it wants to wake up")), "{reason}");
    }
    for vector in [1, 0x1000, 0x8_2fff] {
        assert_eq!(wake(suspended(vector)).unwrap().get(), vector);
    }
}

#[test]
fn overwritten_tables_are_detected() {
    let intact = suspended("q35", Q35, 0x8000);
    let changed = |at: u64| {
        let mut memory = intact.clone();
        memory.store(at, &[!memory.bytes(at, 1)[0]]);
        failure(memory)
    };
    let at = rsdp(&intact);
    for offset in 0..20 {
        assert!(changed(at + offset).starts_with("no valid RSDP at"), "{offset}");
    }
    let rsdt = u32_at(&intact, at + 16);
    for offset in 0..u32_at(&intact, rsdt + 4) {
        assert!(changed(rsdt + offset).starts_with("no valid RSDT at"), "{offset}");
    }
    let fadt = table(&intact, b"FACP");
    for offset in 0..u32_at(&intact, fadt + 4) {
        let expected = if offset < 4 { "no ACPI table is the FADT" } else { "no valid FACP at" };
        // A changed length may be invalid for a table.
        let is_length = (4..8).contains(&offset);
        let reason = changed(fadt + offset);
        assert!(
            reason.starts_with(expected) || is_length && reason == "no ACPI table is the FADT",
            "{offset}: {reason}"
        );
    }
    for offset in 0..4 {
        assert!(changed(facs(&intact) + offset).starts_with("no valid FACS at"), "{offset}");
    }
    // Page zero is RAM to a guest, and not mapped in a wake.
    let mut memory = intact.clone();
    let mut bytes = memory.bytes(at, 20);
    bytes[16..20].copy_from_slice(&0x500_u32.to_le_bytes());
    made::sum_up(&mut bytes, 8);
    memory.store(at, &bytes);
    assert!(failure(memory).starts_with("no valid RSDT at 0x500"));
    for len in [0, 63, 1 << 20, u32::MAX] {
        let mut memory = intact.clone();
        memory.store(facs(&memory) + 4, &len.to_le_bytes());
        assert!(failure(memory).starts_with("no valid FACS at"), "{len}");
    }
}

/// Changes bytes of a table and makes its sum zero again. The checksum is byte 9 of every table, and byte 8 of the RSDP.
fn patch(memory: &mut FakeMemory, table: u64, len: usize, sum_at: u64, changes: &[(u64, &[u8])]) {
    for (at, bytes) in changes {
        memory.store(table + at, bytes);
    }
    let [old] = memory.bytes(table + sum_at, 1)[..] else { unreachable!() };
    let excess = sum(&memory.bytes(table, len));
    memory.store(table + sum_at, &[old.wrapping_sub(excess)]);
}

#[test]
fn tables_with_invalid_pointers_are_refused() {
    let intact = suspended("q35", Q35, 0x8000);
    for to in [0_u32, 0xb000_0000, 0xfed0_0000, 0xffff_fff0, 0x2000_0000] {
        let mut memory = intact.clone();
        let at = rsdp(&memory);
        patch(&mut memory, at, 20, 8, &[(16, &to.to_le_bytes())]);
        assert!(failure(memory).starts_with("no valid RSDT at"), "{to:#x}");

        let mut memory = intact.clone();
        let fadt = table(&memory, b"FACP");
        let len = u32_at(&memory, fadt + 4) as usize;
        patch(&mut memory, fadt, len, 9, &[(36, &to.to_le_bytes())]);
        assert!(failure(memory).starts_with("no valid FACS at"), "{to:#x}");
    }
    // A record whose address has no RSDP.
    for rsdp in [0, 0x1000, 0xb000_0000, 0xffff_fff8] {
        let mut memory = intact.clone();
        let stored = with_record(&Record { rsdp: PhysAddr::new(rsdp), writes: Vec::new() });
        memory.store(RESUME_RECORD.start().get(), &stored.memory.bytes(RESUME_RECORD.start().get(), 3072));
        assert!(failure(memory).starts_with("no valid RSDP at"), "{rsdp:#x}");
    }
}

#[test]
fn the_64_bit_fields_are_used_if_they_exist() {
    // A FACS at another address, and an XSDT that lists only the FADT.
    let mut memory = suspended("q35", Q35, 0x8000);
    let (other, xsdt) = (0x20_0000_u64, 0x30_0000_u64);
    let at = facs(&memory);
    let bytes = memory.bytes(at, 64);
    memory.store(other, &bytes);
    memory.store(other + 12, &0x1234_u32.to_le_bytes());
    let fadt = table(&memory, b"FACP");
    let len = u32_at(&memory, fadt + 4) as usize;
    assert!(len >= 140, "a FADT with 64-bit fields");
    patch(&mut memory, fadt, len, 9, &[(132, &other.to_le_bytes())]);
    memory.store(xsdt, b"XSDT");
    patch(&mut memory, xsdt, 44, 9, &[(4, &44_u32.to_le_bytes()), (36, &fadt.to_le_bytes())]);
    let root = rsdp(&memory);
    patch(&mut memory, root, 20, 8, &[(15, &[2]), (16, &[0; 4]), (24, &xsdt.to_le_bytes())]);
    patch(&mut memory, root, 36, 32, &[(20, &36_u32.to_le_bytes())]);
    assert_eq!(wake(memory).unwrap().get(), 0x1234);
}

#[test]
fn in_a_list_of_fadts_with_wrong_sums_only_the_first_is_summed() {
    let mut memory = suspended("q35", Q35, 0x8000);
    // 1,000 times the same table, of the longest length that is read.
    let (xsdt, fadt, entries) = (0x30_0000_u64, 0x40_0000_u64, 1000);
    memory.store(fadt, b"FACP");
    memory.store(fadt + 4, &0x1_0000_u32.to_le_bytes());
    memory.store(xsdt, b"XSDT");
    (0..entries).for_each(|entry| memory.store(xsdt + 36 + 8 * entry, &fadt.to_le_bytes()));
    let len = 36 + 8 * entries as u32;
    patch(&mut memory, xsdt, len as usize, 9, &[(4, &len.to_le_bytes())]);
    let root = rsdp(&memory);
    patch(&mut memory, root, 20, 8, &[(15, &[2]), (16, &[0; 4]), (24, &xsdt.to_le_bytes())]);
    patch(&mut memory, root, 36, 32, &[(20, &36_u32.to_le_bytes())]);
    let mut machine = reset(memory, device("q35"), Q35);
    let text = crate::wake(&mut machine).unwrap_err().error.to_string();
    assert!(text.ends_with("no valid FACP at 0x400000; the guest must not overwrite ACPI tables"), "{text}");
    assert!(machine.inspected < 0x2_0000, "{} bytes", machine.inspected);
}

#[test]
fn an_image_without_its_record_does_not_wake() {
    let mut memory = suspended("q35", Q35, 0x8000);
    memory.store(RESUME_RECORD.start().get() + 24, &[0xff]);
    let reason = failure(memory);
    assert!(reason.starts_with("the firmware's record at 0x9f000 was overwritten"), "{reason}");
}

/// Stores the record of a boot with this map, with the tables at `rsdp` only.
fn prepare_with(machine: &mut FakeMachine, fw_cfg: &FwCfg, map: &MemoryMap, rsdp: Option<PhysAddr>) -> Clears {
    let mut boot = Boot { machine, fw_cfg, map: &mut map.clone(), start: &Start::Reset };
    prepare(&mut boot, rsdp, Vec::new())
}

#[test]
fn memory_is_reserved_only_on_machines_that_can_suspend() {
    let map = |device: FakeFwCfg| {
        let mut machine = FakeMachine::new().with(device);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        (host::can_sleep(&fw_cfg), MemoryMap::new(host::memory_map(&mut machine, &fw_cfg, &Start::Reset).unwrap()))
    };
    let e820 = |device: FakeFwCfg| {
        let ram = [0, 128 << 20].map(u64::to_le_bytes).concat();
        device.with_file("etc/e820", &[&ram[..], &[1, 0, 0, 0]].concat())
    };
    let (sleeps, kept) = map(e820(FakeFwCfg::new(true).with_file("etc/system-states", &[0; 6])));
    assert!(sleeps);
    let reserved = PhysRange::from_bounds(WAKE_RAM.start(), PhysAddr::new(0xa_0000)).unwrap();
    assert!(kept.regions().any(|region| region.kind == MemoryType::RESERVED && region.range == reserved));
    let (sleeps, given) = map(e820(FakeFwCfg::new(true)));
    assert!(!sleeps && given.is_ram(range(0x1000, 0x9_ec00)));

    // A record is stored if memory is reserved for it, and if there are tables. Nothing else is cleared.
    let left = |device: FakeFwCfg, map: &MemoryMap, rsdp| {
        let mut machine = FakeMachine::new().with(device);
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        let clears = prepare_with(&mut machine, &fw_cfg, map, rsdp);
        (Record::load(&mut machine).is_ok(), clears)
    };
    let rsdp = Some(PhysAddr::new(0xf_0000));
    let sleeping = || FakeFwCfg::new(true).with_file("etc/system-states", &[0; 6]);
    assert_eq!(left(sleeping(), &kept, rsdp), (true, Clears::ByDma));
    assert_eq!(left(sleeping(), &kept, None), (false, Clears::ByDma));
    assert_eq!(left(sleeping(), &given, rsdp), (false, Clears::Nothing));
    assert_eq!(
        left(FakeFwCfg::new(true), &kept, rsdp),
        (false, Clears::Nothing),
        "memory that the host reserves is the host's"
    );
    assert_eq!(left(FakeFwCfg::new(false).with_file("etc/system-states", &[0; 6]), &kept, rsdp).1, Clears::ByCpu);
}

#[test]
fn a_host_table_in_the_page_of_the_record_does_not_enable_suspend() {
    let e820 = [&[0, 128 << 20].map(u64::to_le_bytes).concat()[..], &[1, 0, 0, 0]].concat();
    for sleeps in [false, true] {
        let crosvm = known_hosts().into_iter().find(|host| host.name == "crosvm").unwrap();
        let device = crosvm.device().with_file("etc/e820", &e820);
        let device = if sleeps { device.with_file("etc/system-states", &[0; 6]) } else { device };
        let mut machine = FakeMachine::new().with(device);
        // An MP table at crosvm's address, and ACPI tables in memory.
        let pieces = made::acpi(0xe_0000, 0xe_0040, 0xe000_0000);
        let pieces = pieces.into_iter().chain(made::mp_table(0x9_fc00, 0x9_fc10));
        pieces.for_each(|(at, bytes)| machine.memory.store(at, &bytes));
        let fw_cfg = FwCfg::probe(&mut machine).unwrap();
        let mut map = host::memory_map(&mut machine, &fw_cfg, &Start::Reset).unwrap();
        let in_memory = tables::Sources::of_host(&mut machine, &fw_cfg, &mut map).in_memory;
        assert!(in_memory.mp_table && !map.is_ram(RESUME_RECORD), "the page is the table's");
        assert_eq!(map.is_ram(WAKE_RAM), !sleeps);
        prepare_with(&mut machine, &fw_cfg, &MemoryMap::new(map), in_memory.rsdp);
        assert_eq!(Record::load(&mut machine).is_ok(), sleeps);
    }
}
