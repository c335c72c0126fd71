//! A plain reset: what the operating system leaves must not change the next boot.

use std::ops::Range;

use firstlight::addr::PhysRange;
use firstlight::boot::Handover;
use firstlight::failure::Failure;
use firstlight::fakes::machine::FakeMachine;
use firstlight::start_info::Start;

use super::parameters::Parameters;
use super::script::{AtReset, KERNEL_SIZE, Script, is_usable};
use super::start;

/// The memory that an operating system scans for tables: the extended BIOS data area and the F-segment.
const SCANNED: [(u64, usize); 2] = [(0x9_fc00, 0x400), (0xf_0000, 0x1_0000)];

/// The visible results of a boot.
#[derive(Debug, PartialEq)]
pub struct Seen {
    /// The kernel's parameters and its entry point, or the error.
    outcome: Result<(Parameters, Handover), String>,
    /// The commands to the TPM.
    commands: Vec<Vec<u8>>,
    /// The writes above 4 GiB, where a DMA address that a guest left would lead.
    high: Vec<Range<u64>>,
    scanned: [Vec<u8>; 2],
}

impl Seen {
    /// The results of the boot after which `machine` is.
    pub fn of(script: &Script, machine: &FakeMachine, result: &Result<Handover, Failure>) -> Self {
        let outcome = match result {
            Ok(handover) => Ok((Parameters::of(script, machine, handover), handover.clone())),
            Err(failure) => Err(failure.error.to_string()),
        };
        let commands = script.tpm.as_ref().map(|tpm| tpm.executed().take()).unwrap_or_default();
        let scanned = SCANNED.map(|(at, len)| machine.memory.bytes(at, len));
        let high = machine.memory.stores().iter().filter(|store| store.end > 1 << 32).cloned().collect();
        Self { outcome, commands, high, scanned }
    }
}

/// Resets the machine after the boot with the results `first`, with memory as the operating system leaves it, a wake as the
/// reason in CMOS, and half of an address in the fw_cfg device. The next boot must have the same results.
///
/// # Panics
/// If it does not.
pub fn check(script: &Script, first: &Seen, booted: &FakeMachine, ram: &[PhysRange]) {
    // The host loads a kernel in memory again, with zeros between its parts.
    let Some(kernel) = script.kernel_address() else { return };
    let start_with = AtReset { shutdown_status: Some(0xfe), dma_address: Some(1), ..AtReset::PLAIN };
    let mut machine = script.machine(ram.to_vec(), start_with);
    machine.memory = booted.memory.clone();
    for (at, bytes) in script.later.iter().filter(|(at, _)| is_usable(*at)) {
        machine.memory.store(*at, bytes);
    }
    machine.memory.clear(kernel.into(), script.number(KERNEL_SIZE).into());
    for (at, bytes) in script.at_reset.iter().filter(|(at, _)| is_usable(*at)) {
        machine.memory.store(*at, bytes);
    }
    machine.memory.keep_stores();
    let result = start(&mut machine, Start::Reset);
    let mut again = Seen::of(script, &machine, &result);
    for ((at, len), (first, again)) in SCANNED.iter().zip(first.scanned.iter().zip(&mut again.scanned)) {
        // Where a boot that succeeds puts nothing there is no memory, or the image; the data area is always there.
        let is_written = |store: &Range<u64>| store.start < at + *len as u64 && *at < store.end;
        let is_memory = *at < 0xa_0000 || machine.memory.stores().iter().any(is_written);
        if result.is_err() || !is_memory {
            again.clone_from(first);
        }
    }
    assert!(*first == again, "a reset makes another boot:\n{first:x?}\n{again:x?}");
}
