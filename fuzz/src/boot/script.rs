//! A machine as an input describes it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::OnceLock;

use firstlight::addr::{PhysAddr, PhysRange};
use firstlight::boot::Entry;
use firstlight::boot::linux::SetupHeader;
use firstlight::fakes::machine::{FakeMachine, FakeMemory, FakeRegisters};
use firstlight::hal::Cpuid;
use firstlight::layout;
use firstlight::start_info::Start;
use log::LevelFilter;

use crate::bzimage::SETUP;
use crate::cmos::{Cmos, Pm1};
use crate::directory::Defects;
use crate::input::Input;
use crate::machines;
use crate::pci::model::{Model, Ports, Window};
use crate::tpm::{Registers, Tpm};

pub const COMMAND_LINE: &[u8] = b"console=ttyS0 quiet\0";

/// Numbered items (`include/standard-headers/linux/qemu_fw_cfg.h`).
pub const KERNEL_ADDR: u16 = 0x07;
pub const KERNEL_SIZE: u16 = 0x08;
pub const INITRD_SIZE: u16 = 0x0b;
pub const KERNEL_ENTRY: u16 = 0x10;
pub const KERNEL_DATA: u16 = 0x11;
pub const INITRD_DATA: u16 = 0x12;
pub const CMDLINE_SIZE: u16 = 0x14;
pub const CMDLINE_DATA: u16 = 0x15;
pub const SETUP_SIZE: u16 = 0x17;
pub const SETUP_DATA: u16 = 0x18;
const NUMBERS: [u16; 6] = [KERNEL_ADDR, KERNEL_SIZE, INITRD_SIZE, KERNEL_ENTRY, CMDLINE_SIZE, SETUP_SIZE];
pub const NUMBERED: [u16; 13] = [
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
    // The directory, which is then wrong.
    0x19,
    0x00,
];

/// Files that the firmware knows.
pub const FILES: [&str; 24] = [
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
pub const MOST_STEPS: u64 = 2_000_000;
/// Longer files are cut if the machine has a TPM, because the firmware hashes them, which is slow.
pub const MOST_HASHED: u32 = 1 << 14;

/// The host bridges that identify a captured machine's chipset.
pub const CHIPSETS: [Option<u32>; 4] = [Some(0x29c0_8086), Some(0x1237_8086), None, Some(0x0d57_1b36)];

/// The functions of a chipset: device and function number, and IDs.
pub fn board(chipset: Option<u32>) -> Vec<(u8, u32)> {
    match chipset {
        Some(id @ 0x29c0_8086) => vec![(0, id), (0xf8, 0x2918_8086), (0xfa, 0x2922_8086), (0xfb, 0x2930_8086)],
        Some(id @ 0x1237_8086) => vec![(0, id), (8, 0x7000_8086), (9, 0x7010_8086), (11, 0x7113_8086)],
        Some(id) => vec![(0, id)],
        None => Vec::new(),
    }
}

/// How a machine starts.
#[derive(Clone, Copy, Debug)]
pub struct AtReset {
    /// The reason of the reset in CMOS; `None` for the input's value.
    pub shutdown_status: Option<u8>,
    /// Its PM1 status register.
    pub pm1: u16,
    /// The high half of a DMA address that was left in the fw_cfg device.
    pub dma_address: Option<u32>,
}

impl AtReset {
    /// Switched on, or reset: nothing says that it was suspended.
    pub const PLAIN: Self = Self { shutdown_status: None, pm1: 1, dma_address: None };
}

/// The description of a machine.
pub struct Script {
    chipset: Option<u32>,
    pub defects: Defects,
    absent: u32,
    pub numbered: BTreeMap<u16, Vec<u8>>,
    files: Files,
    pub pci: Model,
    pub tpm: Option<Tpm>,
    cmos: Vec<u8>,
    cpuid: Vec<((u32, u32), Cpuid)>,
    msrs: Vec<(u32, u64)>,
    /// The contents of memory at reset, and those that the operating system writes before it suspends.
    pub at_reset: Vec<(u64, Vec<u8>)>,
    pub later: Vec<(u64, Vec<u8>)>,
    /// The value of the local APIC's and displays' registers.
    register: u64,
    /// Whether the operating system resets the machine before it suspends.
    pub resets: bool,
    /// How the firmware is started.
    pub start: Start<PhysAddr>,
}

impl Script {
    pub fn take(input: &mut Input<'_>) -> Self {
        let (base, kind, flags): (u8, u8, u8) = (input.take(), input.take(), input.take());
        log::set_max_level(if flags & 64 != 0 { LevelFilter::Trace } else { LevelFilter::Warn });
        let chipset = CHIPSETS[usize::from(kind & 3)];
        let mut files: Files = captured().get(usize::from(base)).cloned().unwrap_or_default();
        if flags & 2 != 0 && !files.iter().any(|(name, _)| name == "etc/system-states") {
            files.push(("etc/system-states".into(), vec![128, 0, 0, 129, 2, 128]));
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
        let board = board(chipset);
        let mut script = Self {
            chipset,
            defects: if flags & 4 != 0 { input.take() } else { Defects::none(flags & 1 == 0) },
            absent: if flags & 8 != 0 { 0 } else { u32::MAX },
            numbered,
            files,
            pci: Model::take(if flags & 16 != 0 { &mut *input } else { &mut none }, kind >> 2 & 15, &board).relaxed(),
            tpm: (flags & 32 != 0).then(|| Tpm::take(input)),
            cmos: Vec::new(),
            cpuid: Vec::new(),
            msrs: Vec::new(),
            at_reset: Vec::new(),
            later: Vec::new(),
            register: 0xb0c5,
            resets: kind & 64 != 0,
            start: if flags & 128 == 0 { Start::Reset } else { Start::Pvh(PhysAddr::new(input.take::<u32>().into())) },
        };
        while !input.is_empty() {
            script.order(input);
        }
        script
    }

    /// Applies one change of the input.
    fn order(&mut self, input: &mut Input<'_>) {
        match input.take::<u8>() % 13 {
            0 => {
                let key = input.pick(&NUMBERED);
                let mut bytes = input.long().to_vec();
                if NUMBERS.contains(&key) && !self.defects.is_none() {
                    // The missing bytes of a number depend on the defects, so the expected number would be unknown.
                    bytes.resize(bytes.len().max(4), 0);
                }
                self.numbered.insert(key, bytes);
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
                // The local APIC stays at its reset address: the machine's own registers exist only there.
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
            11 => self.register = input.take(),
            _ => {
                // A kernel that is a module.
                let (at, sects): (u32, u8) = (input.take(), input.take());
                let mut kernel = [SETUP, &pattern(2000, 5)].concat();
                kernel[0x1f1] = sects;
                self.at_reset.push((at.into(), kernel));
            }
        }
    }

    fn item(&self, key: u16) -> &[u8] {
        self.numbered.get(&key).map(Vec::as_slice).unwrap_or_default()
    }

    /// The first file of a name.
    fn file(&self, name: &str) -> &[u8] {
        self.files.iter().find(|(file, _)| file == name).map(|(_, bytes)| bytes.as_slice()).unwrap_or_default()
    }

    /// The named file with a kernel, if there is no other kernel.
    fn kernel_file(&self) -> Option<&[u8]> {
        let files = ["opt/org.firstlight/kernel", "etc/boot/kernel"].map(|name| self.file(name));
        files.into_iter().find(|file| !file.is_empty() && self.number(KERNEL_SIZE) == 0)
    }

    /// The expected kernel, from the sectors of its setup code on: its bytes, and the number of bytes that the host reports.
    pub fn kernel(&self, setup_sects: u8) -> (&[u8], u64) {
        match self.kernel_file() {
            Some(file) => {
                let setup = (if setup_sects == 0 { 4 } else { usize::from(setup_sects) } + 1) * 512;
                let rest = file.get(setup..).unwrap_or_default();
                (rest, rest.len() as u64)
            }
            None => (self.item(KERNEL_DATA), self.number(KERNEL_SIZE).into()),
        }
    }

    /// The offset of the entry point in the kernel.
    pub fn entry_offset(&self, entry: Entry) -> u64 {
        if let Entry::Linux64(_) = entry {
            return 0x200;
        }
        let mut setup = self.kernel_file().unwrap_or(self.item(SETUP_DATA)).to_vec();
        setup.resize(1024, 0);
        let header = SetupHeader::parse(&setup).unwrap();
        header.entry_offset(self.kernel(setup[0x1f1]).1).unwrap()
    }

    /// The expected initrd, in the same form.
    pub fn initrd(&self) -> (&[u8], u64) {
        match self.number(INITRD_SIZE) {
            0 if self.kernel_file().is_some() => {
                let file = self.file("opt/org.firstlight/initrd");
                (file, file.len() as u64)
            }
            size => (self.item(INITRD_DATA), size.into()),
        }
    }

    /// The expected command line, without a newline.
    pub fn command_line(&self) -> (&[u8], u64) {
        let named = self.files.iter().any(|(name, _)| name == "opt/org.firstlight/cmdline");
        match self.number(CMDLINE_SIZE) {
            0 | 1 if self.kernel_file().is_some() && named => {
                let file = self.file("opt/org.firstlight/cmdline");
                (file.strip_suffix(b"\n").unwrap_or(file), file.len() as u64)
            }
            size => (self.item(CMDLINE_DATA), size.into()),
        }
    }

    /// Where the host has loaded the kernel. `None` if it does not say, and has defects: then another item may be read, and the
    /// address is unknown.
    pub fn kernel_address(&self) -> Option<u32> {
        let is_described = self.numbered.contains_key(&KERNEL_ADDR) || self.defects.is_none();
        is_described.then(|| self.number(KERNEL_ADDR))
    }

    pub fn number(&self, key: u16) -> u32 {
        let bytes = self.item(key);
        bytes.iter().take(4).rev().fold(0, |value, &byte| value << 8 | u32::from(byte))
    }

    /// The machine. It has a TPM only if there is not too much to hash.
    pub fn machine(&self, ram: Vec<PhysRange>, start: AtReset) -> FakeMachine {
        let mut device = self.defects.device();
        if let Some(high) = start.dma_address {
            device = device.with_address_left(high);
        }
        for (key, bytes) in &self.numbered {
            device = device.with_item(*key, bytes);
        }
        for (name, bytes) in &self.files {
            let large = [KERNEL_SIZE, INITRD_SIZE].iter().any(|&key| self.number(key) > MOST_HASHED);
            let lost = name == "etc/tpm/log" && large;
            device = device.with_file(name, if lost { &[] } else { bytes });
        }
        let pci = Rc::new(RefCell::new(self.pci.clone()));
        let mut cmos = self.cmos.clone();
        if let Some(status) = start.shutdown_status {
            cmos.resize(cmos.len().max(16), 0);
            cmos[0x0f] = status;
        }
        let mut machine = FakeMachine::new().with(device).with(Cmos::new(&cmos, 0)).with(Pm1(start.pm1));
        if self.chipset.is_some() {
            machine = machine.with(Ports::new(pci.clone()));
        }
        machine.absent = self.absent;
        machine.has_page_zero = matches!(self.start, Start::Pvh(_));
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
pub type Files = Vec<(String, Vec<u8>)>;

/// The captured items of each machine.
pub fn captured() -> &'static [Files] {
    static CAPTURED: OnceLock<Vec<Files>> = OnceLock::new();
    CAPTURED.get_or_init(|| machines().into_iter().map(|items| items.into_iter().collect()).collect())
}

pub fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i / 256) as u8 ^ (i as u8).wrapping_mul(13) ^ seed).collect()
}

/// Registers of other devices: everything between RAM and 4 GiB, and always the local APIC and the TPM.
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

/// Whether an input may have contents at this address.
pub fn is_usable(at: u64) -> bool {
    PhysRange::new(PhysAddr::new(at), 4096).is_some_and(layout::may_access)
}
