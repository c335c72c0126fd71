//! Counts what a firmware costs: device accesses, topology writes, DMA transfers, instructions, exits to QEMU.
//!
//! There are two runs under TCG, because none can count everything:
//! - at full speed: a firmware that polls a clock does more or less work depending on its speed;
//! - with `-icount`, where time is the number of executed instructions: this run is always the same.
//!
//! The exits come from a run under KVM.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use xtask::qemu::{Accelerator, Launch};

use super::probe::End;
use super::process;
use super::scenario::{PayloadFiles, Scenario};
use super::trace::{self, Event};

/// The time limit of a run that counts. It is many times slower than other runs.
pub const LIMIT: Duration = Duration::from_secs(20);

/// QEMU's arguments for a clock that advances by a nanosecond with each instruction. The RTC has the same time in every run.
const EXACT: [&str; 4] = ["-icount", "shift=0,sleep=off", "-rtc", "base=2024-01-01,clock=vm"];

/// The costs of a firmware from reset to the kernel's first instruction.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Accesses to devices: ports and memory-mapped registers. A string instruction counts once per element.
    pub accesses: u64,
    /// Accesses to PCI configuration space among them.
    pub config_accesses: u64,
    /// Writes after which QEMU rebuilt the guest's memory topology.
    pub topology_writes: u64,
    /// fw_cfg's DMA transfers.
    pub dma_transfers: u64,
    /// Executed instructions. `None` if they were not counted.
    pub instructions: Option<u64>,
    /// Exits from KVM to QEMU. `None` if no KVM runs the firmware. A write to port 0xcf8 counts as one, even if KVM coalesces it
    /// with the next exit.
    pub exits: Option<u64>,
    /// The exits that are left if KVM coalesces the writes to port 0xcf8.
    pub exits_coalesced: Option<u64>,
    /// The topology writes: device, register and value.
    pub topology: Vec<String>,
    /// The missing counts, each with the reason.
    #[serde(skip)]
    pub not_counted: Vec<String>,
}

/// The result of a boot, or a sentence for the user about why it did not reach its end. The outer error means that QEMU or a
/// tool cannot run at all.
pub type Attempt<T> = anyhow::Result<Result<T, String>>;

/// Counts with the clock of instructions, so that every run has the same counts. With `kvm`, also counts the exits.
///
/// A firmware that polls a device until a time has passed polls more often than with a real clock.
pub fn exact(scenario: &Scenario, firmware: &Path, payload: &PayloadFiles, kvm: bool) -> Attempt<Counts> {
    let mut launch = launch(scenario, firmware, payload);
    launch.extra.extend(EXACT.map(Into::into));
    let mut counts = match count(&launch)? {
        Ok(counts) => counts,
        Err(failure) => return Ok(Err(failure)),
    };
    let mut missing = Vec::new();
    if kvm {
        // Some KVMs cannot run some firmware. That is no failure of the firmware.
        let exits =
            exits(scenario, firmware, payload)?.inspect_err(|why| missing.push(format!("no exits (KVM): {why}"))).ok();
        counts.exits = exits.map(|exits| exits.others + exits.address_writes);
        counts.exits_coalesced = exits.map(|exits| exits.others);
    }
    counts.not_counted = missing;
    Ok(Ok(counts))
}

/// Counts with a real clock, at full speed. Does not count instructions.
pub fn at_full_speed(scenario: &Scenario, firmware: &Path, payload: &PayloadFiles) -> Attempt<Counts> {
    let counts = count(&launch(scenario, firmware, payload))?;
    Ok(counts.map(|counts| Counts { instructions: None, ..counts }))
}

/// QEMU's launch under TCG, with a trace of the counted events.
fn launch(scenario: &Scenario, firmware: &Path, payload: &PayloadFiles) -> Launch {
    let mut launch = Scenario { accelerator: Accelerator::Tcg, ..scenario.clone() }.launch(firmware, payload);
    let events = [trace::STATE, trace::SELECT, trace::ACCESSES, trace::CONFIG_WRITE, trace::NEW_VIEW];
    launch.extra.extend(events.iter().flat_map(|event| ["-trace".into(), (*event).into()]));
    // The trace goes to a log file, as in timed runs: QEMU 7.2 reads a PVH kernel's first bytes from a freed stack frame, so
    // they depend on such details.
    launch.extra.extend(["-D".into(), "/dev/stderr".into()]);
    launch
}

/// Runs QEMU and counts the events that it prints.
fn count(launch: &Launch) -> Attempt<Counts> {
    let mut counter = Counter::default();
    let ended = process::run(&launch.command(), LIMIT, |line| counter.take(line))?;
    Ok(counter.result().ok_or_else(|| ended.failure("the kernel", LIMIT)))
}

/// The exits of a run under KVM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Exits {
    /// Writes to PCI's address port, 0xcf8. QEMU requests KVM to coalesce them (QEMU, `hw/pci-host/{i440fx,q35}.c`). A KVM that
    /// can do so collects them until the guest accesses the data port.
    address_writes: u64,
    /// All others.
    others: u64,
}

/// Counts the exits under KVM.
fn exits(scenario: &Scenario, firmware: &Path, payload: &PayloadFiles) -> Attempt<Exits> {
    let launch = Scenario { accelerator: Accelerator::Kvm, ..scenario.clone() }.launch(firmware, payload);
    let events = [trace::STATE, trace::SELECT, trace::ACCESSES, trace::EXIT];
    let (ended, log) = process::run_with_log(&launch, &events, LIMIT)?;
    let exits = exits_in(&log);
    Ok(exits.ok_or_else(|| ended.failure("the kernel under KVM", LIMIT)))
}

/// The exits in a trace, without the one of the kernel's marker. Behind each exit the trace has its accesses. If KVM does not
/// coalesce, some exits have an address write only.
fn exits_in(text: &str) -> Option<Exits> {
    let mut exits = Exits::default();
    // Whether the last exit had an address write, and anything else.
    let mut last: Option<(bool, bool)> = None;
    for line in text.lines().filter_map(trace::parse) {
        match line.event {
            Event::Running => (exits, last) = (Exits::default(), None),
            Event::Exit => {
                let is_other = last.replace((false, false)).is_some_and(|brought| brought != (true, false));
                exits.others += u64::from(is_other);
            }
            Event::Access(access) => {
                let is_address = access.is_config_address();
                exits.address_writes += u64::from(is_address);
                if let Some((address, other)) = &mut last {
                    *address |= is_address;
                    *other |= !is_address;
                }
            }
            event if trace::end(&event).is_some() => return last.map(|_| exits),
            _ => {}
        }
    }
    None
}

/// Counts the lines of a trace.
#[derive(Debug, Default)]
struct Counter {
    counts: Counts,
    /// Whether the guest runs.
    running: bool,
    /// The end that was reached, and the two halves of the clock that follow it.
    end: Option<End>,
    clock: Vec<u64>,
    /// The last access, if it was a write, which may change the topology.
    write: Option<String>,
}

impl Counter {
    /// Takes one line.
    fn take(&mut self, text: &str) {
        let Some(line) = trace::parse(text) else { return };
        if !self.running {
            self.running = line.event == Event::Running;
            return;
        }
        if self.end.is_some() {
            if let Event::Access(access) = line.event {
                self.clock.extend(access.clock());
            }
            return;
        }
        match line.event {
            Event::Access(access) => {
                self.counts.accesses += 1;
                self.counts.config_accesses += u64::from(access.is_config());
                self.write =
                    access.write.then(|| format!("{} {:#x} <- {:#x}", access.region, access.address, access.value));
                self.counts.dma_transfers += u64::from(access.is_doorbell());
            }
            // This is part of the access in the line before.
            Event::ConfigWrite(what) => self.write = Some(what.to_owned()),
            Event::NewView => {
                if let Some(write) = self.write.take() {
                    self.counts.topology_writes += 1;
                    self.counts.topology.push(write);
                }
            }
            event => {
                self.end = trace::end(&event);
                if self.end.is_some() {
                    // The marker itself is the kernel's.
                    self.counts.accesses -= 1;
                }
            }
        }
    }

    /// The counts, if the kernel was reached.
    fn result(&self) -> Option<Counts> {
        self.end?;
        let [low, high] = self.clock.as_slice() else { return None };
        Some(Counts { instructions: Some(high << 32 | low), ..self.counts.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cut from a run of qboot with the probe under QEMU 7.2.
    const TRACE: &str = "\
memory_region_ops_write cpu -1 mr 0x5 addr 0xfee00000 value 0x0 size 4 name 'apic-msi'
flatview_new 0x55b50f8f83b0 (root 0x55b50ecd1000)
fw_cfg_select 0x55b50ef850b0 key 0x0000 'signature', ret: 1
vm_state_notify running 1 reason 9 (running)
memory_region_ops_write cpu 0 mr 0x5 addr 0xcf8 value 0x80000000 size 4 name 'pci-conf-idx'
pci_cfg_read mch 00:00.0 @0x0 -> 0x29c08086
memory_region_ops_read cpu 0 mr 0x5 addr 0xcfc value 0x29c08086 size 4 name 'pci-conf-data'
memory_region_ops_write cpu 0 mr 0x5 addr 0xcfd value 0x33 size 1 name 'pci-conf-data'
pci_cfg_write mch 00:00.0 @0x91 <- 0x33
flatview_new 0x7f95b40512e0 (root 0x556bfab582e0)
flatview_new 0x7f95b4061820 (root 0x556bfab03ae0)
qemu-system-x86_64: warning: a message
memory_region_ops_write cpu 0 mr 0x5 addr 0x518 value 0x7bb0 size 4 name 'fwcfg.dma'
fw_cfg_select 0x55b50ef850b0 key 0x0011 'kernel_data', ret: 1
memory_region_ops_write cpu 0 mr 0x5 addr 0x510 value 0x3f30 size 2 name 'fwcfg'
fw_cfg_select 0x55b50ef850b0 key 0x3f30 'unknown', ret: 0
memory_region_ops_write cpu 0 mr 0x5 addr 0x508 value 0x12345 size 4 name 'io'
memory_region_ops_write cpu 0 mr 0x5 addr 0x508 value 0x1 size 4 name 'io'
memory_region_ops_write cpu 0 mr 0x5 addr 0x501 value 0x30 size 1 name 'isa-debug-exit'
";

    #[test]
    fn only_the_firmwares_accesses_are_counted() {
        let mut counter = Counter::default();
        TRACE.lines().for_each(|line| counter.take(line));
        let counts = counter.result().unwrap();
        let wanted = Counts {
            accesses: 4,
            config_accesses: 2,
            topology_writes: 1,
            dma_transfers: 1,
            instructions: Some(0x1_0001_2345),
            topology: vec!["mch 00:00.0 @0x91 <- 0x33".to_owned()],
            ..Counts::default()
        };
        assert_eq!(counts, wanted);
    }

    /// The exits of two accesses to configuration space and of the write that starts a transfer.
    fn exits_of(coalesced: bool) -> Option<Exits> {
        let exit = "kvm_run_exit cpu_index 0, reason 2\n";
        let access = |name: &str, region| {
            format!("memory_region_ops_{name} cpu 0 mr 0x5 addr 0xcf8 value 0x8 size 4 name '{region}'\n")
        };
        let address = [if coalesced { "" } else { exit }, &access("write", "pci-conf-idx")].concat();
        let data = access("read", "pci-conf-data");
        // With coalescing, the address is part of the exit of the data.
        let config = if coalesced { [exit, &address, &data].concat() } else { [&address, exit, &data].concat() };
        let transfer = [exit, &access("write", "fwcfg.dma")].concat();
        let marker = [exit, "fw_cfg_select 0x1 key 0x3f20 'unknown', ret: 0\n"].concat();
        let start = "vm_state_notify running 1 reason 9 (running)\n";
        exits_in(&[start, &config, &config, &transfer, &marker].concat())
    }

    #[test]
    fn exits_are_counted_alike_with_and_without_coalescing() {
        assert_eq!(exits_of(false), Some(Exits { address_writes: 2, others: 3 }));
        assert_eq!(exits_of(true), exits_of(false));
    }
}
