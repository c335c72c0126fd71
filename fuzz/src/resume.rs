//! A wake from suspend: the decision whether it is one, the firmware's own record, and the operating system's tables up to the
//! waking vector.
//!
//! Input: a byte with what is repaired, the host's data about the reset, the changes to a valid record, an address for the RSDP,
//! and memory from there on, with the tables that it points to.

use std::cell::RefCell;
use std::rc::Rc;

use arbitrary::Arbitrary;
use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::fakes::fw_cfg::FakeFwCfg;
use firstlight::fakes::machine::{FakeMachine, FakeMemory};
use firstlight::host::HostWrite;
use firstlight::layout;
use firstlight::memory_map::HostMap;
use firstlight::resume::{self, Record, WakingVector};
use uefi_raw::table::boot::MemoryType;

use crate::boot::{CHIPSETS, board};
use crate::cmos::{Cmos, Pm1};
use crate::input::Input;
use crate::one_line;
use crate::pci::model::{Model, Ports};
use crate::tpm::{Registers, Tpm};

/// Where the tables of an input begin.
const TABLES: u64 = 0x7f_0000;
/// The end of RAM.
const RAM_END: u64 = 0x80_0000;

/// The host's data about a reset, and what a guest can have written in addition to memory.
#[derive(Arbitrary, Clone, Copy, Debug, Default)]
struct Reset {
    /// CMOS 0x0f, which the guest can write.
    shutdown_status: u8,
    pm1: u16,
    /// Of `etc/system-states` the byte of S3.
    s3: u8,
    /// Bit 0: no DMA. Bit 1: no ACPI tables. Bit 2: no `etc/system-states`. Bits 3 and 4: the chipset.
    host: u8,
}

impl Reset {
    /// A machine that was asleep.
    const WOKEN: [u8; 5] = [0xfe, 0x01, 0x81, 0x81, 0];

    /// Whether the host says that the machine was asleep.
    fn is_wake(self) -> bool {
        let can_sleep = self.host & 6 == 0 && self.s3 & 0x80 != 0 && self.host >> 3 & 3 < 2;
        can_sleep && self.pm1 != u16::MAX && self.pm1 & Pm1::WOKEN != 0
    }

    /// The machine, with what the guest left in memory.
    fn machine(self, memory: FakeMemory, tpm: &Tpm, has_log: bool) -> FakeMachine {
        let e820 = [&[0; 8][..], &RAM_END.to_le_bytes(), &[1, 0, 0, 0]].concat();
        let mut device = FakeFwCfg::new(self.host & 1 == 0).with_file("etc/e820", &e820);
        if self.host & 2 == 0 {
            device = device.with_file("etc/table-loader", &[]);
        }
        if self.host & 4 == 0 {
            device = device.with_file("etc/system-states", &[128, 0, 0, self.s3, 2, 128]);
        }
        if has_log {
            device = device.with_file("etc/tpm/log", &[0; 64]);
        }
        let chipset = CHIPSETS[usize::from(self.host >> 3 & 3)];
        let pci = Model::take(&mut Input::new(&[]), 0, &board(chipset)).relaxed();
        let mut cmos = [0; 16];
        cmos[0x0f] = self.shutdown_status;
        let mut machine = FakeMachine::new().with(device).with(Cmos::new(&cmos, 0)).with(Pm1(self.pm1));
        if chipset.is_some() {
            machine = machine.with(Ports::new(Rc::new(RefCell::new(pci))));
        }
        machine.registers.push(Box::new(Registers(Rc::new(RefCell::new(tpm.clone())))));
        machine.memory = memory;
        machine.keeps_accesses = false;
        machine.most_steps = 10_000;
        machine
    }
}

/// Decides whether the reset is a wake, loads the record and finds the vector.
///
/// It is a wake only if there is a record, CMOS requests one, and the host says that the machine was asleep. Then a TPM is
/// resumed, whatever the record is, if the host has one. Otherwise only the firmware's own memory is written, and no record
/// stays. A record that loads can be stored and loads the same again, and has names and bytes that are not empty. A vector is RAM
/// below 1 MiB, and the one in the FACS. Nothing is written.
///
/// # Panics
/// If that does not hold.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let flags: u8 = input.take();
    let reset: Reset = input.take();
    let mut machine = FakeMachine::new();
    machine.keeps_accesses = false;
    machine.most_steps = 1000;
    let (name, offset, bytes): (_, u32, _) = (input.short(), input.take(), input.short());
    let writes = HostWrite::new(name, offset, bytes).into_iter();
    let writes = writes.cycle().take(usize::from(flags >> 3)).collect();
    let stored = Record { rsdp: PhysAddr::new(TABLES), writes };
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
    decision(reset, machine.memory, flags & 1 != 0);
}

fn decision(reset: Reset, memory: FakeMemory, has_log: bool) {
    let tpm = Tpm::take(&mut Input::new(&[]));
    let has_record = memory.bytes(layout::RESUME_RECORD.start().get(), 8) == *b"FLwake\0\x03";
    let mut machine = reset.machine(memory, &tpm, has_log);
    machine.memory.keep_stores();
    let requested = resume::is_requested(&mut machine);
    assert_eq!(requested, has_record && reset.shutdown_status == 0xfe);
    let result = if requested { firstlight::wake(&mut machine) } else { Ok(None) };
    let is_wake = !matches!(result, Ok(None));
    assert_eq!(is_wake, requested && reset.is_wake(), "{reset:x?}");
    for store in machine.memory.stores() {
        // The window of configuration space, and above it the local APIC.
        let is_own = layout::BOOT_RAM.start().get() <= store.start && store.end <= layout::BOOT_RAM.end().get();
        assert!(is_own || store.start >= 0xb000_0000, "{store:x?} is written");
    }
    let executed = tpm.executed().take();
    // TPM2_Startup of the state that was saved.
    let resumed = executed.first().is_some_and(|command| command[6..] == [0, 0, 1, 0x44, 0, 1]);
    assert_eq!((resumed, executed.is_empty()), (is_wake && has_log, !is_wake || !has_log), "{executed:x?}");
    if let Err(failure) = &result {
        one_line(&failure.error.to_string());
    }
    // After a wake there is a record for the next one.
    assert_eq!(
        machine.memory.bytes(layout::RESUME_RECORD.start().get(), 8) == *b"FLwake\0\x03",
        matches!(result, Ok(Some(_)))
    );
    assert!(!resume::is_requested(&mut machine), "the next reset asks for a wake");
}

fn record(machine: &mut FakeMachine, stored: &Record, changed: bool) {
    match Record::load(machine) {
        Ok(record) => {
            assert!(changed || record.rsdp == stored.rsdp);
            assert!(record.writes.iter().all(|write| !write.file().is_empty() && !write.bytes().is_empty()));
            let mut other = FakeMachine::new();
            record.store(&mut other);
            assert_eq!(Record::load(&mut other).unwrap(), record);
        }
        Err(error) => one_line(&error.to_string()),
    }
    // Without ports nothing says that this is a wake.
    let mut copy = FakeMachine::new();
    copy.memory = machine.memory.clone();
    assert!(!resume::is_requested(&mut copy));
    assert!(Record::load(&mut copy).is_err(), "the record is still there");
}

fn vector(machine: &mut FakeMachine, rsdp: PhysAddr) {
    let mut map = HostMap::default();
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
            let writes = [&[name.len() as u8][..], name, &[0; 4], &[8, 1, 2, 3, 4, 5, 6, 7, 8]].concat();
            // Of a machine that was asleep, one that was reset, ones without S3, ACPI, fw_cfg's file, or a chipset.
            let mut resets = [Reset::WOKEN; 6];
            (resets[1][2], resets[2][3]) = (0, 1);
            (resets[3][4], resets[4][4], resets[5][4]) = (2, 4, 16);
            for reset in resets {
                seeds.push([&[1 | 2 << 3], &reset[..], &writes, &[0; 2], &memory].concat());
            }
            let damaged = [&[2], &Reset::WOKEN[..], &[0; 6], &[0x20, 0, 2, 1, 1], &[0; 2]].concat();
            seeds.push([damaged.as_slice(), &memory].concat());
        }
    }
    seeds
}
