//! The kernel's parameters, by every protocol, and their checks.

use std::ops::Range;

use firstlight::boot::{Entry, Handover};
use firstlight::fakes::machine::FakeMachine;
use firstlight::memory_map::{E820Entry, Regions};
use firstlight::start_info::Start;

use super::range;
use super::script::Script;
use crate::check;

/// The kernel's parameters.
#[derive(Debug, PartialEq)]
pub struct Parameters {
    /// The memory of the kernel and of its parts: start and end of each.
    parts: Vec<Range<u64>>,
    /// Address of the kernel and sectors of its setup code, if it was loaded, the initrd, and the command line's address.
    kernel: Option<(u64, u8)>,
    initrd: Range<u64>,
    command_line: Option<u64>,
    /// The root pointer of ACPI, zero for none.
    rsdp: u64,
    /// Whether it is an old kernel, whose parameters are in memory that is reserved for a wake.
    is_old: bool,
    /// RAM and the rest.
    e820: Vec<(Range<u64>, u32)>,
}

/// The entry point of the host's EFI program, if there is one.
fn efi_entry(handover: &Handover) -> Option<u64> {
    let boot = handover.efi.clone().take()?;
    boot.program().map(|program| program.placed.entry.get())
}

impl Parameters {
    /// Reads them at the addresses in `handover`.
    pub fn of(script: &Script, machine: &FakeMachine, handover: &Handover) -> Self {
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
                    rsdp: u64_at(0x70),
                    is_old: matches!(handover.entry, Entry::LinuxLow { .. }),
                    command_line: match handover.entry {
                        Entry::LinuxLow { .. } => None,
                        _ => Some(wide(0x228, 0xc8)),
                    },
                    e820: entries.map(|at| (u64_at(at)..u64_at(at) + u64_at(at + 8), u32_at(at + 16) as u32)).collect(),
                }
            }
            // Boot services have the memory map.
            Entry::Efi => Self {
                parts: efi_entry(handover).map(|entry| entry..entry + 1).into_iter().collect(),
                kernel: None,
                initrd: 0..0,
                rsdp: 0,
                command_line: None,
                is_old: false,
                e820: Vec::new(),
            },
            Entry::Multiboot(entry) => {
                let (len, list) = (u32_at(44), u32_at(48));
                let entry_at = |at: u64| {
                    let bytes = machine.memory.bytes(at, 24);
                    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
                    (number(4)..number(4) + number(12), u32::from_le_bytes(bytes[20..24].try_into().unwrap()))
                };
                Self {
                    parts: vec![at..at + 88, entry.get()..entry.get() + 1, list..list + len],
                    kernel: script.kernel_address().map(|at| (at.into(), 0)),
                    initrd: 0..0,
                    rsdp: 0,
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
                    rsdp: u64_at(32),
                    command_line: Some(u64_at(24)),
                    is_old: false,
                    e820: entries.map(|at| (number(at)..number(at) + number(at + 8), number(at + 16) as u32)).collect(),
                }
            }
        }
    }

    /// Checks them against the host's items and map.
    pub fn check(mut self, script: &Script, machine: &FakeMachine, host: &Regions) {
        let mut end = 0;
        for (entry, kind) in &self.e820 {
            assert!(entry.start >= end && entry.end > entry.start, "{:x?}", self.e820);
            end = entry.end;
            assert!(*kind != E820Entry::RAM || host.is_ram(range(entry.start, entry.end)), "{entry:x?} is no RAM");
        }
        // The host may have the kernel and what goes with it as modules.
        let modules = script.start != Start::Reset;
        let size = if modules { 1 } else { script.command_line().1 };
        self.parts.extend(self.command_line.map(|at| at..at + size.max(1)));
        if let Some((kernel, setup_sects)) = self.kernel.filter(|_| !modules) {
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
        if !modules && script.defects.is_none() && !script.numbered.contains_key(&0x19) {
            self.check_contents(script, machine);
        }
    }

    /// Checks that all contents are the host's, and zero after their end.
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
