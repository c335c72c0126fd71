//! The whole boot and a wake after it, on a machine that an input makes up.
//!
//! Input: which captured machine it is like, what it has, and then orders that change it, to the end: items, files,
//! functions on PCI, registers, memory. Without any it boots Debian's kernel.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::OnceLock;

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::boot::{Entry, Handover, SetupHeader};
use firstlight::fw_cfg::FwCfg;
use firstlight::hal::Cpuid;
use firstlight::hal::fake::{FakeMachine, FakeMemory, FakeRegisters};
use firstlight::layout;
use firstlight::memory_map::{E820Entry, MemoryMap};
use log::LevelFilter;

use crate::cmos::Cmos;
use crate::directory::Defects;
use crate::input::Input;
use crate::pci::model::{Model, Ports, Window};
use crate::tpm::{Registers, Tpm};
use crate::{check, machines, one_line};

/// The first 1024 bytes of Debian's kernel.
const SETUP: &[u8] = include_bytes!("../../src/boot/testdata/vmlinuz-6.1.0-56-cloud-amd64.setup");
const COMMAND_LINE: &[u8] = b"console=ttyS0 quiet\0";

/// Numbered items (`include/standard-headers/linux/qemu_fw_cfg.h`).
const KERNEL_ADDR: u16 = 0x07;
const KERNEL_SIZE: u16 = 0x08;
const INITRD_SIZE: u16 = 0x0b;
const KERNEL_ENTRY: u16 = 0x10;
const KERNEL_DATA: u16 = 0x11;
const INITRD_DATA: u16 = 0x12;
const CMDLINE_SIZE: u16 = 0x14;
const CMDLINE_DATA: u16 = 0x15;
const SETUP_SIZE: u16 = 0x17;
const SETUP_DATA: u16 = 0x18;
const NUMBERED: [u16; 13] = [
    0x05,
    KERNEL_ADDR,
    KERNEL_SIZE,
    INITRD_SIZE,
    KERNEL_ENTRY,
    KERNEL_DATA,
    INITRD_DATA,
    CMDLINE_SIZE,
    CMDLINE_DATA,
    SETUP_SIZE,
    SETUP_DATA,
    // The directory, which lies then.
    0x19,
    0x00,
];

/// Files that the firmware knows.
const FILES: [&str; 24] = [
    "etc/e820",
    "etc/table-loader",
    "etc/acpi/tables",
    "etc/acpi/rsdp",
    "etc/acpi/nvdimm-mem",
    "etc/vmgenid_guid",
    "etc/vmgenid_addr",
    "etc/tpm/log",
    "etc/hardware_errors",
    "etc/hardware_errors_addr",
    "etc/smbios/smbios-anchor",
    "etc/smbios/smbios-tables",
    "etc/system-states",
    "etc/boot-fail-wait",
    "etc/extra-pci-roots",
    "etc/reserved-memory-end",
    "etc/msr_feature_control",
    "etc/ramfb",
    "opt/org.firstlight/log",
    "opt/org.firstlight/trace",
    "opt/org.firstlight/kernel",
    "etc/boot/kernel",
    "opt/org.firstlight/initrd",
    "opt/org.firstlight/cmdline",
];

/// More accesses than this are an endless loop.
const MOST_STEPS: u64 = 2_000_000;
/// Longer files than this are cut where a machine has a TPM, which makes the firmware hash: that is slow, and no more.
const MOST_HASHED: u32 = 1 << 14;

/// Where a captured machine's chipset is told from.
const CHIPSETS: [Option<u32>; 4] = [Some(0x29c0_8086), Some(0x1237_8086), None, Some(0x0d57_1b36)];

/// A machine to be.
struct Script {
    chipset: Option<u32>,
    defects: Defects,
    absent: u32,
    numbered: BTreeMap<u16, Vec<u8>>,
    files: Files,
    pci: Model,
    tpm: Option<Tpm>,
    cmos: Vec<u8>,
    cpuid: Vec<((u32, u32), Cpuid)>,
    msrs: Vec<(u32, u64)>,
    /// What is in memory at reset, and what the operating system writes before it suspends.
    at_reset: Vec<(u64, Vec<u8>)>,
    later: Vec<(u64, Vec<u8>)>,
    /// What the local APIC's and displays' registers read as.
    register: u64,
}

impl Script {
    fn take(input: &mut Input<'_>) -> Self {
        let (base, kind, flags): (u8, u8, u8) = (input.take(), input.take(), input.take());
        log::set_max_level(if flags & 64 != 0 { LevelFilter::Trace } else { LevelFilter::Warn });
        let chipset = CHIPSETS[usize::from(kind & 3)];
        let mut files: Files = captured().get(usize::from(base)).cloned().unwrap_or_default();
        if flags & 2 != 0 && !files.iter().any(|(name, _)| name == "etc/system-states") {
            files.push(("etc/system-states".into(), vec![0; 6]));
        }
        let size = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes().to_vec();
        let (kernel, initrd) = (pattern(3000, 1), pattern(2000, 2));
        let numbered = BTreeMap::from([
            (KERNEL_SIZE, size(&kernel)),
            (KERNEL_DATA, kernel),
            (INITRD_SIZE, size(&initrd)),
            (INITRD_DATA, initrd),
            (CMDLINE_SIZE, size(COMMAND_LINE)),
            (CMDLINE_DATA, COMMAND_LINE.to_vec()),
            (SETUP_DATA, SETUP.to_vec()),
            (SETUP_SIZE, size(SETUP)),
        ]);
        let mut none = Input::new(&[]);
        let board: &[_] = match chipset {
            Some(id @ 0x29c0_8086) => &[(0, id), (0xf8, 0x2918_8086), (0xfa, 0x2922_8086), (0xfb, 0x2930_8086)],
            Some(id @ 0x1237_8086) => &[(0, id), (8, 0x7000_8086), (9, 0x7010_8086), (11, 0x7113_8086)],
            Some(id) => &[(0, id)],
            None => &[],
        };
        let mut script = Self {
            chipset,
            defects: if flags & 4 != 0 { input.take() } else { Defects::none(flags & 1 == 0) },
            absent: if flags & 8 != 0 { 0 } else { u32::MAX },
            numbered,
            files,
            pci: Model::take(if flags & 16 != 0 { &mut *input } else { &mut none }, kind >> 2 & 15, board).relaxed(),
            tpm: (flags & 32 != 0).then(|| Tpm::take(input)),
            cmos: Vec::new(),
            cpuid: Vec::new(),
            msrs: Vec::new(),
            at_reset: Vec::new(),
            later: Vec::new(),
            register: 0xb0c5,
        };
        while !input.is_empty() {
            script.order(input);
        }
        script
    }

    /// One order.
    fn order(&mut self, input: &mut Input<'_>) {
        match input.take::<u8>() % 12 {
            0 => {
                let key = input.pick(&NUMBERED);
                self.numbered.insert(key, input.long().to_vec());
            }
            1 => {
                let (key, value): (_, u32) = (input.pick(&NUMBERED), input.take());
                self.numbered.insert(key, value.to_le_bytes().to_vec());
            }
            2 => {
                let name = input.pick(&FILES);
                let bytes = input.long().to_vec();
                self.files.retain(|(file, _)| file != name);
                self.files.push((name.into(), bytes));
            }
            3 => {
                let (number, at, bytes): (u8, u32, u32) = (input.take(), input.take(), input.take());
                let number = usize::from(number) % self.files.len().max(1);
                let len = self.files.get(number).map_or(1, |(_, bytes)| bytes.len().max(1));
                if let Some((_, file)) = self.files.get_mut(number) {
                    file.iter_mut().skip(at as usize % len).zip(bytes.to_le_bytes()).for_each(|(to, from)| *to = from);
                }
            }
            4 => {
                let (at, bytes): (u16, u32) = (input.take(), input.take());
                let setup = self.numbered.get_mut(&SETUP_DATA).map(Vec::as_mut_slice).unwrap_or_default();
                let at = usize::from(at) % 1024;
                setup.iter_mut().skip(at).zip(bytes.to_le_bytes()).for_each(|(to, from)| *to = from);
            }
            5 => {
                let number: u8 = input.take();
                if let Some((name, _)) = self.files.get_mut(usize::from(number)) {
                    *name = String::from_utf8_lossy(input.short()).chars().take(18).collect();
                }
            }
            6 => {
                let (leaf, eax, ebx, ecx, edx) = (
                    input.pick(&[0, 1, 7, 0x8000_0000, 0x8000_0008]),
                    input.take(),
                    input.take(),
                    input.take(),
                    input.take(),
                );
                self.cpuid.push(((leaf, 0), Cpuid { eax, ebx, ecx, edx }));
            }
            7 => {
                let (register, value) = (input.pick(&[0xfe, 0x1b, 0x3a, 0x179, 0x2ff]), input.take::<u64>());
                // The local APIC is where it is after a reset: the machine's own registers can be had there alone.
                let value = if register == 0x1b { 0xfee0_0000 | value & 0xd00 } else { value };
                self.msrs.push((register, value));
            }
            8 => self.cmos = input.short().to_vec(),
            9 => {
                let at: u32 = input.take();
                self.at_reset.push((at.into(), input.short().to_vec()));
            }
            10 => {
                let at: u32 = input.take();
                self.later.push((at.into(), input.short().to_vec()));
            }
            _ => self.register = input.take(),
        }
    }

    fn item(&self, key: u16) -> &[u8] {
        self.numbered.get(&key).map(Vec::as_slice).unwrap_or_default()
    }

    /// The first file of a name.
    fn file(&self, name: &str) -> &[u8] {
        self.files.iter().find(|(file, _)| file == name).map(|(_, bytes)| bytes.as_slice()).unwrap_or_default()
    }

    /// The named file with a kernel, where there is no other kernel.
    fn kernel_file(&self) -> Option<&[u8]> {
        let files = ["opt/org.firstlight/kernel", "etc/boot/kernel"].map(|name| self.file(name));
        files.into_iter().find(|file| !file.is_empty() && self.number(KERNEL_SIZE) == 0)
    }

    /// What the kernel is to be, from the sectors of its setup code on: its bytes, and how many the host says it has.
    fn kernel(&self, setup_sects: u8) -> (&[u8], u64) {
        match self.kernel_file() {
            Some(file) => {
                let setup = (if setup_sects == 0 { 4 } else { usize::from(setup_sects) } + 1) * 512;
                let rest = file.get(setup..).unwrap_or_default();
                (rest, rest.len() as u64)
            }
            None => (self.item(KERNEL_DATA), self.number(KERNEL_SIZE).into()),
        }
    }

    /// How far into the kernel its entry is.
    fn entry_offset(&self, entry: Entry) -> u64 {
        if let Entry::Linux64(_) = entry {
            return 0x200;
        }
        let mut setup = self.kernel_file().unwrap_or(self.item(SETUP_DATA)).to_vec();
        setup.resize(1024, 0);
        let header = SetupHeader::parse(&setup).unwrap();
        header.entry_offset(self.kernel(setup[0x1f1]).1).unwrap()
    }

    /// What the initrd is to be, in the same way.
    fn initrd(&self) -> (&[u8], u64) {
        match self.number(INITRD_SIZE) {
            0 if self.kernel_file().is_some() => {
                let file = self.file("opt/org.firstlight/initrd");
                (file, file.len() as u64)
            }
            size => (self.item(INITRD_DATA), size.into()),
        }
    }

    /// What the command line is to be, without the end of a line.
    fn command_line(&self) -> (&[u8], u64) {
        let named = self.files.iter().any(|(name, _)| name == "opt/org.firstlight/cmdline");
        match self.number(CMDLINE_SIZE) {
            0 | 1 if self.kernel_file().is_some() && named => {
                let file = self.file("opt/org.firstlight/cmdline");
                (file.strip_suffix(b"\n").unwrap_or(file), file.len() as u64)
            }
            size => (self.item(CMDLINE_DATA), size.into()),
        }
    }

    fn number(&self, key: u16) -> u32 {
        let bytes = self.item(key);
        bytes.iter().take(4).rev().fold(0, |value, &byte| value << 8 | u32::from(byte))
    }

    /// The machine. It has a TPM only where there is not too much to hash.
    fn machine(&self, ram: Vec<PhysRange>) -> FakeMachine {
        let mut device = self.defects.device();
        for (key, bytes) in &self.numbered {
            device = device.with_item(*key, bytes);
        }
        for (name, bytes) in &self.files {
            let large = [KERNEL_SIZE, INITRD_SIZE].iter().any(|&key| self.number(key) > MOST_HASHED);
            let lost = name == "etc/tpm/log" && large;
            device = device.with_file(name, if lost { &[] } else { bytes });
        }
        let pci = Rc::new(RefCell::new(self.pci.clone()));
        let mut machine = FakeMachine::new().with(device).with(Cmos::new(&self.cmos, 0));
        if self.chipset.is_some() {
            machine = machine.with(Ports::new(pci.clone()));
        }
        machine.absent = self.absent;
        machine.keeps_accesses = false;
        machine.ticks_per_look = 1 << 31;
        machine.most_steps = MOST_STEPS;
        machine.cpuid.extend(self.cpuid.iter().copied());
        machine.msrs.extend(self.msrs.iter().copied());
        for (at, bytes) in self.at_reset.iter().filter(|(at, _)| is_usable(*at)) {
            machine.memory.store(*at, bytes);
        }
        if self.chipset == CHIPSETS[0] && !ram.iter().any(|ram| ram.overlaps(window())) {
            machine.registers.push(Box::new(Window(pci)));
        }
        if let Some(tpm) = &self.tpm {
            machine.registers.push(Box::new(Registers(Rc::new(RefCell::new(tpm.clone())))));
        }
        machine.registers.push(Box::new(Devices { ram, value: self.register }));
        machine
    }
}

fn window() -> PhysRange {
    PhysRange::from_bounds(PhysAddr::new(Window::START), PhysAddr::new(Window::END)).unwrap()
}

/// Named items in the order of their keys.
type Files = Vec<(String, Vec<u8>)>;

/// The captured items of each machine.
fn captured() -> &'static [Files] {
    static CAPTURED: OnceLock<Vec<Files>> = OnceLock::new();
    CAPTURED.get_or_init(|| machines().into_iter().map(|items| items.into_iter().collect()).collect())
}

fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i / 256) as u8 ^ (i as u8).wrapping_mul(13) ^ seed).collect()
}

/// Registers of other devices: everything between RAM and 4 GiB, and the local APIC and the TPM whatever is there.
struct Devices {
    ram: Vec<PhysRange>,
    value: u64,
}

impl FakeRegisters for Devices {
    fn claims(&self, at: u64) -> bool {
        let is_ram = self.ram.iter().any(|ram| ram.contains_addr(PhysAddr::new(at)));
        (0x8000_0000..layout::FIRMWARE_ROM.start().get()).contains(&at) && !is_ram
            || (0xfee0_0000..0xfee0_1000).contains(&at)
            || (0xfed4_0000..0xfed4_5000).contains(&at)
    }
    fn read(&mut self, _at: u64, _size: u8) -> u64 {
        self.value
    }
    fn write(&mut self, _at: u64, _size: u8, _value: u64, _memory: &mut FakeMemory) {}
}

/// Whether what an input has in memory can be there.
fn is_usable(at: u64) -> bool {
    PhysRange::new(PhysAddr::new(at), 256).is_some_and(layout::may_access)
}

/// Boots, and wakes up again.
///
/// A boot ends in a handover or in one line that says why not. It writes only to RAM that the host's map has and nobody
/// holds, to the F-segment, and to what is the firmware's own; the kernel gets a map in which all that it is handed is
/// RAM and apart, with the bytes that the host has for it. A wake writes only to the firmware's own memory, and goes on in
/// RAM below 1 MiB or not at all. None of it takes more than a bounded number of accesses.
///
/// # Panics
/// When that is not so.
pub fn run(bytes: &[u8]) {
    let _ = boot(bytes);
}

/// How it went.
#[derive(Debug)]
enum Outcome {
    /// No boot.
    Failed,
    /// A boot, and no wake.
    Booted,
    /// Both.
    Woken,
}

fn boot(bytes: &[u8]) -> Outcome {
    let script = Script::take(&mut Input::new(bytes));
    let map = host_map(&script);
    let ram: Vec<_> = map.iter().flat_map(MemoryMap::regions).map(|region| region.range).collect();
    let ram: Vec<_> = ram.into_iter().filter(|range| map.as_ref().is_some_and(|map| map.is_ram(*range))).collect();
    let mut machine = script.machine(ram.clone());
    machine.memory.keep_stores();
    let result = firstlight::run(&mut machine);
    let may_be_written = |store: &Range<u64>| {
        let store = range(store.start, store.end);
        let f_segment = range(0xf_0000, 0x10_0000);
        layout::BOOT_RAM.contains(store)
            || range(0x9_fc00, 0xa_0000).contains(store)
            || f_segment.contains(store)
            || map.as_ref().is_some_and(|map| map.is_ram(store))
    };
    for store in machine.memory.stores() {
        assert!(may_be_written(store), "{store:x?} is written; RAM is {ram:?}");
    }
    let handover = match result {
        Ok(handover) => handover,
        Err(failure) => {
            one_line(&failure.error.to_string());
            return Outcome::Failed;
        }
    };
    if let Entry::LinuxLow { block, .. } = handover.entry {
        // As the last jump does.
        let bytes = machine.memory.bytes(block.staged.start().get(), block.staged.len() as usize);
        machine.memory.store(block.place.get(), &bytes);
    }
    let told = Told::of(&script, &machine, handover);
    told.check(&script, &machine, map.as_ref().expect("no kernel without a map"));

    for (at, bytes) in script.later.iter().filter(|(at, _)| is_usable(*at)) {
        machine.memory.store(*at, bytes);
    }
    machine.memory.keep_stores();
    machine.steps = 0;
    let woken = firstlight::wake(&mut machine);
    for store in machine.memory.stores() {
        assert!(layout::BOOT_RAM.contains(range(store.start, store.end)), "{store:x?} is written in a wake");
    }
    match woken {
        Ok(vector) => {
            let at = u64::from(vector.get());
            let is_ram = map.as_ref().is_some_and(|map| map.is_ram(range(at, at + 1)));
            assert!(at != 0 && at < 1 << 20 && is_ram, "{at:#x}");
            Outcome::Woken
        }
        Err(failure) => {
            one_line(&failure.error.to_string());
            Outcome::Booted
        }
    }
}

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::from_bounds(PhysAddr::new(start), PhysAddr::new(end)).unwrap()
}

/// The map as the firmware makes it of what the host says, with a PC's holes cut out.
fn host_map(script: &Script) -> Option<MemoryMap> {
    let mut machine = script.machine(Vec::new());
    let fw_cfg = FwCfg::probe(&mut machine).ok()?;
    MemoryMap::of_host(&mut machine, &fw_cfg).ok()
}

/// What the kernel is told.
struct Told {
    /// Where it is and what is handed to it: start and end each.
    parts: Vec<Range<u64>>,
    /// Address of the kernel and sectors of its setup code, if it was loaded, the initrd, and the command line's address.
    kernel: Option<(u64, u8)>,
    initrd: Range<u64>,
    command_line: Option<u64>,
    /// Whether it is an old kernel, which has its parameters where they are reserved for a wake.
    is_old: bool,
    /// RAM and the rest.
    e820: Vec<(Range<u64>, u32)>,
}

impl Told {
    fn of(script: &Script, machine: &FakeMachine, handover: Handover) -> Self {
        let at = handover.parameters.get();
        let bytes = machine.memory.bytes(at, 4096);
        let u32_at = |at: usize| u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let wide = |low: usize, high: usize| u32_at(low) | u32_at(high) << 32;
        match handover.entry {
            Entry::Linux64(entry) | Entry::Linux32(entry) | Entry::LinuxLow { at: entry, .. } => {
                let start = entry.get() - script.entry_offset(handover.entry);
                let entries = (0..usize::from(bytes[0x1e8])).map(|number| 0x2d0 + 20 * number);
                let initrd = wide(0x218, 0xc0);
                Self {
                    parts: vec![at..at + 4096, entry.get()..entry.get() + 1],
                    kernel: Some((start, bytes[0x1f1])),
                    initrd: initrd..initrd + wide(0x21c, 0xc4),
                    is_old: matches!(handover.entry, Entry::LinuxLow { .. }),
                    command_line: match handover.entry {
                        Entry::LinuxLow { .. } => None,
                        _ => Some(wide(0x228, 0xc8)),
                    },
                    e820: entries.map(|at| (u64_at(at)..u64_at(at) + u64_at(at + 8), u32_at(at + 16) as u32)).collect(),
                }
            }
            Entry::Multiboot(entry) => {
                let (len, list) = (u32_at(44), u32_at(48));
                let entry_at = |at: u64| {
                    let bytes = machine.memory.bytes(at, 24);
                    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
                    (number(4)..number(4) + number(12), u32::from_le_bytes(bytes[20..24].try_into().unwrap()))
                };
                Self {
                    parts: vec![at..at + 88, entry.get()..entry.get() + 1, list..list + len],
                    kernel: Some((script.number(KERNEL_ADDR).into(), 0)),
                    initrd: 0..0,
                    command_line: None,
                    is_old: false,
                    e820: (0..len / 24).map(|entry| entry_at(list + 24 * entry)).collect(),
                }
            }
            Entry::Pvh(entry) => {
                let (modules, list) = (u32_at(12), u64_at(16));
                let number = |at| {
                    let bytes = machine.memory.bytes(at, 8);
                    u64::from_le_bytes(bytes.try_into().unwrap())
                };
                let initrd = if modules == 0 { 0..0 } else { number(list)..number(list) + number(list + 8) };
                let entries = (0..u32_at(48)).map(|entry| u64_at(40) + 24 * entry);
                Self {
                    parts: vec![at..at + 56, entry.get()..entry.get() + 1],
                    kernel: None,
                    initrd,
                    command_line: Some(u64_at(24)),
                    is_old: false,
                    e820: entries.map(|at| (number(at)..number(at) + number(at + 8), number(at + 16) as u32)).collect(),
                }
            }
        }
    }

    fn check(mut self, script: &Script, machine: &FakeMachine, host: &MemoryMap) {
        let mut end = 0;
        for (entry, kind) in &self.e820 {
            assert!(entry.start >= end && entry.end > entry.start, "{:x?}", self.e820);
            end = entry.end;
            assert!(*kind != E820Entry::RAM || host.is_ram(range(entry.start, entry.end)), "{entry:x?} is no RAM");
        }
        let (_, size) = script.command_line();
        self.parts.extend(self.command_line.map(|at| at..at + size.max(1)));
        if let Some((kernel, setup_sects)) = self.kernel {
            self.parts[1] = kernel..kernel + script.kernel(setup_sects).1;
        }
        if !self.initrd.is_empty() {
            self.parts.push(self.initrd.clone());
        }
        check::disjoint(&self.parts.iter().map(|part| range(part.start, part.end)).collect::<Vec<_>>());
        for part in &self.parts {
            let is_ram = |(entry, kind): &(Range<u64>, u32)| {
                *kind == E820Entry::RAM && entry.start <= part.start && part.end <= entry.end
            };
            let is_low = self.is_old && part.end <= 0xa_0000;
            assert!(is_low || self.e820.iter().any(is_ram), "{part:x?} is not RAM to the kernel: {:x?}", self.e820);
        }
        if script.defects.is_none() && !script.numbered.contains_key(&0x19) {
            self.check_contents(script, machine);
        }
    }

    /// All is as the host has it, up to the end, and zero beyond.
    fn check_contents(&self, script: &Script, machine: &FakeMachine) {
        let same = |at: u64, (item, size): (&[u8], u64), what: &str| {
            let item = &item[..item.len().min(size as usize)];
            assert!(machine.memory.bytes(at, item.len()) == item, "the {what} is not what is at {at:#x}");
        };
        if let Some((kernel, setup_sects)) = self.kernel {
            same(kernel, script.kernel(setup_sects), "kernel");
        }
        if !self.initrd.is_empty() {
            same(self.initrd.start, script.initrd(), "initrd");
        }
        if let Some(command_line) = self.command_line {
            same(command_line, script.command_line(), "command line");
        }
    }
}

/// Where a boot puts the FACS.
fn facs(bytes: &[u8]) -> Option<u32> {
    let script = Script::take(&mut Input::new(bytes));
    let end = host_map(&script)?.ram_end(PhysRange::LOW_4_GIB)?.get();
    let mut machine = script.machine(Vec::new());
    firstlight::run(&mut machine).ok()?;
    let high = machine.memory.bytes(end - (1 << 20), 1 << 20);
    let at = high.chunks(64).position(|chunk| chunk.starts_with(b"FACS"))?;
    u32::try_from(end - (1 << 20) + 64 * at as u64).ok()
}

/// Machines as they were captured, with what each adds.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let order = |kind: u8, parts: &[&[u8]]| [&[kind], &parts.concat()[..]].concat();
    let number = |key: u16, value: u32| {
        let place = NUMBERED.iter().position(|&other| other == key).unwrap() as u8;
        order(1, &[&[place], &value.to_le_bytes()])
    };
    let file = |name: &str, bytes: &[u8]| {
        let place = FILES.iter().position(|&other| other == name).unwrap() as u8;
        order(2, &[&[place], &(bytes.len() as u16).to_le_bytes(), bytes])
    };
    for base in 0..=captured().len() as u8 {
        let chipset = match base {
            0 => 2,
            1 | 2 => 1,
            _ => 0,
        };
        seeds.push(vec![base, chipset, 0]);
        seeds.push(vec![base, chipset, 3 | 64]);
        // An operating system that is to wake up at 0x1000.
        if let Some(facs) = facs(&[base, chipset, 2]) {
            seeds
                .push([vec![base, chipset, 2], order(10, &[&(facs + 12).to_le_bytes(), &[4, 0, 0x10, 0, 0]])].concat());
        }
    }
    // CMOS in place of a list, on a machine without tables.
    let mut cmos = [0; 0x60];
    cmos[0x35] = 0x1f;
    seeds.push([vec![0xff, 2, 0], order(8, &[&[0x60], &cmos])].concat());
    // An ELF kernel in memory.
    let elf =
        [number(KERNEL_ADDR, 0x10_0000), number(KERNEL_ENTRY, 0x10_0010), order(4, &[&[0x02, 0x02], &[0; 4]])].concat();
    seeds.push([vec![3, 0, 2], elf.clone()].concat());
    seeds.push([vec![0, 2, 0], elf.clone()].concat());
    // A zImage, and a bzImage that finds its command line in low memory.
    let old = order(4, &[&0x206_u16.to_le_bytes(), &[0, 2, 0, 0]]);
    seeds.push([&[3, 0, 2], &old[..]].concat());
    seeds.push([&[3, 0, 0], &old[..], &order(4, &[&0x211_u16.to_le_bytes(), &[0, 0, 0, 0]])].concat());
    // A kernel for Multiboot.
    let (info, kernel) = crate::multiboot::with_modules();
    let item = |key: u16, bytes: &[u8]| {
        let place = NUMBERED.iter().position(|&other| other == key).unwrap() as u8;
        order(0, &[&[place], &(bytes.len() as u16).to_le_bytes(), bytes])
    };
    let sizes = [(KERNEL_SIZE, kernel.len()), (INITRD_SIZE, 88), (SETUP_SIZE, 0)];
    let sizes: Vec<_> = sizes.iter().flat_map(|&(key, size)| number(key, size as u32)).collect();
    let items = [item(KERNEL_DATA, &kernel), item(INITRD_DATA, &info)].concat();
    seeds.push([vec![3, 0, 2], elf.clone(), sizes.clone(), items.clone()].concat());
    seeds.push([vec![0, 2, 0], elf.clone(), sizes, items].concat());
    // A kernel that is a file.
    let mut setup = SETUP.to_vec();
    setup[0x1f1] = 1;
    let kernel = [setup.as_slice(), &pattern(2000, 3)].concat();
    let extras = [file("opt/org.firstlight/initrd", &pattern(700, 4)), file("opt/org.firstlight/cmdline", b"quiet\n")];
    for name in ["opt/org.firstlight/kernel", "etc/boot/kernel"] {
        let sizes = [KERNEL_SIZE, INITRD_SIZE, CMDLINE_SIZE].map(|key| number(key, 0)).concat();
        seeds.push([vec![4, 0, 2], sizes, file(name, &kernel), extras.concat()].concat());
    }
    // A TPM, whose log the script has to allocate.
    let mut script = captured()[3].iter().find(|(name, _)| name == "etc/table-loader").unwrap().1.clone();
    let used = script.chunks(128).rposition(|command| command[0] != 0).map_or(0, |last| last + 1);
    script.truncate(used * 128);
    script.extend(firstlight::golden::allocate("etc/tpm/log"));
    let log = [file("etc/tpm/log", &[0; 4096]), file("etc/table-loader", &script)].concat();
    for kind in [0, 1] {
        seeds.push([vec![3, 0, 2 | 32, kind, 0, 0], log.clone()].concat());
    }
    // PCI, a display, a framebuffer in RAM, CPUs.
    for pci in crate::pci::seeds() {
        seeds.push([&[3, 15 << 2, 16], &pci[9..]].concat());
        seeds.push([&[1, 1 | 15 << 2, 16], &pci[9..]].concat());
    }
    let features = order(6, &[&[1], &[0; 8], &0x20_u32.to_le_bytes(), &0x1200_u32.to_le_bytes()]);
    let control = [file("etc/msr_feature_control", &[5, 0, 0, 0, 0, 0, 0, 0]), number(5, 4)].concat();
    seeds.push([vec![3, 0, 0], features, control, file("etc/ramfb", &[0; 28])].concat());
    seeds.push(
        [vec![3, 0, 0], file("opt/org.firstlight/log", b"debug"), file("opt/org.firstlight/trace", b"on")].concat(),
    );
    seeds.push([vec![3, 0, 0], number(KERNEL_SIZE, 0x4000_0000), number(INITRD_SIZE, 0x3000_0000)].concat());
    // An initrd that is above 4 GiB.
    seeds.push([vec![4, 0, 2], number(INITRD_SIZE, 0xb000_0000)].concat());
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_boot_and_wake() {
        let outcomes: Vec<_> = seeds().iter().map(|seed| boot(seed)).collect();
        let count = |wanted: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| wanted(outcome)).count();
        let woken = count(|outcome| matches!(outcome, Outcome::Woken));
        let failed = count(|outcome| matches!(outcome, Outcome::Failed));
        // One has neither map nor CMOS, in two seeds, and one a kernel that is larger than memory.
        assert!(woken >= 7 && failed == 3, "{outcomes:#?}");
    }
}
