//! The image in the test VMM.
#![forbid(unsafe_code)]

use std::ops::Range;
use std::sync::OnceLock;
use std::time::Duration;

use firstlight::fakes::machine::GuestMemory;
use vmm::{Outcome, Setup, machine};

use crate::host::{Host, RAM};
use crate::written::{Handed, strays};
use crate::{Boot, BootResult, End, Fault, InVmm, Runner};

/// More than a boot takes that waits for one deadline.
const LIMIT: Duration = Duration::from_secs(40);
const PAGE: usize = 4096;
/// The registers of the local APIC, which the CPU says that it has.
const LOCAL_APIC: Range<u64> = 0xfee0_0000..0xfee0_1000;
/// What stands before each line of the firmware's.
const PREFIX: &str = "firstlight: ";

/// The test VMM with an image.
pub struct Vmm {
    image: Vec<u8>,
    why_not: Option<String>,
    /// Which pattern memory has before the next boot.
    inverted: bool,
}

impl Vmm {
    /// With this image, if there is one.
    pub fn new(image: Option<Vec<u8>>) -> Self {
        let why_not = match &image {
            None => Some("no image was given".to_owned()),
            Some(_) => machine::why_not(),
        };
        Self { image: image.unwrap_or_default(), why_not, inverted: true }
    }
}

impl Runner for Vmm {
    fn why_not(&self) -> Option<String> {
        self.why_not.clone()
    }

    fn is_complete(&self) -> bool {
        false
    }

    fn takes(&self, fault: &Fault, case: u32) -> Result<bool, &'static str> {
        match fault.vmm {
            InVmm::All => Ok(true),
            InVmm::Every(number) => Ok(case.is_multiple_of(number)),
            InVmm::No(why) => Err(why),
        }
    }

    fn boot(&mut self, host: &Host) -> BootResult {
        self.inverted = !self.inverted;
        let memory = [&[(0, before(self.inverted).to_vec())][..], &host.memory].concat();
        let setup = Setup {
            host: host.known,
            image: self.image.clone(),
            ram: RAM as usize,
            items: host.items.iter().map(|(key, bytes)| (*key, bytes.clone())).collect(),
            files: host.files.clone(),
            memory,
            serial: true,
            extra: Some(host.extra),
        };
        BootResult(match setup.boot(LIMIT) {
            Ok(outcome) => self.look(host, &outcome),
            Err(error) => Boot {
                end: End::Other(format!("no machine: {error:#}")),
                lines: Vec::new(),
                transfers: 0,
                allocations: 0,
                problems: Vec::new(),
                different: Vec::new(),
            },
        })
    }
}

impl Vmm {
    fn look(&self, host: &Host, outcome: &Outcome) -> Boot {
        let (end, parameters) = match &outcome.end {
            vmm::End::Exit(parameters) => (End::WentOn, Some(u64::from(*parameters))),
            vmm::End::Halt => (End::Stopped, None),
            other => (End::Other(format!("{other:?}")), None),
        };
        let handed = parameters.map(|parameters| Handed::of(host, &outcome.ram, parameters));
        let mut problems = strays(host, handed.as_ref(), &changes(host, before(self.inverted), &outcome.ram));
        let elsewhere: Vec<_> = outcome.mmio_writes.iter().filter(|at| !LOCAL_APIC.contains(at)).collect();
        if !elsewhere.is_empty() {
            problems.push(format!("written where there is no memory, or ROM: {elsewhere:x?}"));
        }
        if outcome.ram.bytes((1 << 32) - self.image.len() as u64, self.image.len()) != self.image {
            problems.push("the image was written".to_owned());
        }
        let lines = outcome.serial.lines().map(|line| match line.strip_prefix(PREFIX) {
            Some(line) => line.to_owned(),
            None => format!("not a line of the firmware's: {line:?}"),
        });
        Boot {
            end,
            lines: lines.collect(),
            transfers: outcome.fw_cfg.transfers,
            allocations: 0,
            problems,
            different: handed.map_or_else(Vec::new, |handed| handed.differences(host, &outcome.ram)),
        }
    }
}

/// The contents of all RAM before a boot: one of two patterns, each with the other's bits inverted. A write of the same bytes
/// is not seen with one pattern, but with the other.
fn before(inverted: bool) -> &'static [u8] {
    static BYTES: [OnceLock<Vec<u8>>; 2] = [const { OnceLock::new() }; 2];
    let word = |number: u64| {
        // The steps of SplitMix64: no byte is like those around it.
        let mut word = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word ^= word >> 27;
        (if inverted { !word } else { word }).to_le_bytes()
    };
    BYTES[usize::from(inverted)].get_or_init(|| (0..RAM / 8).flat_map(word).collect())
}

/// Where memory is not as before.
fn changes(host: &Host, before: &[u8], ram: &dyn GuestMemory) -> Vec<Range<u64>> {
    let mut changes = Vec::<Range<u64>>::new();
    for (number, was) in before.chunks(PAGE).enumerate() {
        let start = (number * PAGE) as u64;
        let mut was = was.to_vec();
        let here = start..start + PAGE as u64;
        for (at, bytes) in
            host.memory.iter().filter(|(at, bytes)| *at < here.end && here.start < at + bytes.len() as u64)
        {
            for (byte, at) in bytes.iter().zip(*at..) {
                if let Some(place) = at.checked_sub(start).and_then(|offset| was.get_mut(offset as usize)) {
                    *place = *byte;
                }
            }
        }
        let is = ram.bytes(start, PAGE);
        if is == was {
            continue;
        }
        for ((is, was), at) in is.iter().zip(&was).zip(start..) {
            match changes.last_mut() {
                _ if is == was => {}
                Some(last) if last.end == at => last.end += 1,
                _ => changes.push(at..at + 1),
            }
        }
    }
    changes
}
