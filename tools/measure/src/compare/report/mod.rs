//! The result of a comparison, and its output formats.

mod extras;
pub mod svg;
pub mod table;

use serde::Serialize;

use super::stats::Summary;
use crate::boot::counts::Counts;
use crate::boot::host::Host;
use crate::boot::host_instructions::OverBaseLine;
use crate::boot::scenario::Scenario;
use crate::numbers::{millions, shown};

/// The text for a missing value.
pub const NONE: &str = "-";

/// The counts that tables show: the head of the column, and the value.
type Count = (&'static str, fn(&Counts) -> Option<u64>);
pub const COUNTS: [Count; 6] = [
    ("exits (KVM)", |counts| counts.exits),
    ("device accesses", |counts| Some(counts.accesses)),
    ("of these PCI config", |counts| Some(counts.config_accesses)),
    ("topology writes", |counts| Some(counts.topology_writes)),
    ("DMA transfers", |counts| Some(counts.dma_transfers)),
    ("instructions", |counts| counts.instructions),
];

/// A table as rows of texts. The first row has the heads.
pub type Words = Vec<Vec<String>>;

/// A whole comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub command: String,
    /// The version and commit of this firmware, if it was measured.
    pub version: Option<String>,
    /// The time of the measurement, in UTC.
    pub date: String,
    pub host: Host,
    pub firmware: Vec<String>,
    pub scenarios: Vec<Measured>,
}

/// One scenario under every firmware.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub name: String,
    pub scenario: Scenario,
    /// The image that ends at the reset vector: QEMU's own costs.
    pub base_line: Row,
    /// A row for each firmware.
    pub rows: Vec<Row>,
}

impl Measured {
    /// The base line's row, and the others.
    pub fn all_rows(&self) -> impl Iterator<Item = &Row> {
        std::iter::once(&self.base_line).chain(&self.rows)
    }
}

/// One firmware in a scenario.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Row {
    pub firmware: String,
    /// Why there are no times.
    pub failure: Option<String>,
    /// The number of successful runs.
    pub runs: usize,
    /// Where the measurement ended. For a probe, that is the entry point that the firmware used.
    pub end: Option<String>,
    pub times: Times,
    /// The run with the median total. For an even number of runs, the faster one of the two in the middle.
    pub median_run: Option<Run>,
    pub counts: Option<Counts>,
    /// The instructions of the whole QEMU process over the base line, if TCG executed the guest.
    pub host_instructions: Option<OverBaseLine>,
    /// The missing counts, each with the reason.
    pub not_counted: Vec<String>,
    /// QEMU's command line.
    pub command: String,
}

/// The times of one firmware in a scenario, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Times {
    /// From the start of the process to the first guest instruction.
    pub qemu: Option<Summary>,
    /// From there to the first loaded item: kernel, initrd or command line.
    pub firmware: Option<Summary>,
    /// From there to the kernel's first instruction.
    pub loading: Option<Summary>,
    /// From there to user space.
    pub kernel: Option<Summary>,
    /// From the start of the process to the end of the measurement.
    pub total: Option<Summary>,
    /// From the first guest instruction to the kernel's first, less the base line image's time.
    pub over_base_line: Option<Summary>,
}

/// The phases of one run, in milliseconds. They add up to its total. The medians of the phases of many runs would not add up to the
/// median of the totals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Run {
    /// From the start of the process to the first guest instruction.
    pub qemu: f64,
    /// From there to the first loaded item, or to the end of an image that loads none.
    pub firmware: f64,
    /// From there to the kernel's first instruction.
    pub loading: Option<f64>,
    /// From there to user space.
    pub kernel: Option<f64>,
}

/// The names of the phases, in order.
pub const PHASES: [&str; 4] = ["QEMU start", "firmware", "kernel loading", "kernel to user space"];

impl Run {
    /// The phases, in the order of their names.
    pub fn phases(&self) -> [Option<f64>; 4] {
        [Some(self.qemu), Some(self.firmware), self.loading, self.kernel]
    }

    pub fn total(&self) -> f64 {
        self.phases().into_iter().flatten().sum()
    }
}

impl Report {
    /// How much the times and counts of the same firmware differ on this machine.
    pub fn noise(&self) -> String {
        let ranges: Vec<_> = self.scenarios.iter().filter_map(|measured| measured.base_line.times.total?.iqr).collect();
        let bound = |pick: fn(f64, f64) -> f64| ranges.iter().copied().reduce(pick).map(shown);
        let times = match (bound(f64::min), bound(f64::max)) {
            (Some(least), Some(most)) => {
                format!("Noise: half of the base line's runs lie within {least} to {most} ms, depending on the panel.")
            }
            _ => "The noise is not known, because the base line has too few runs.".to_owned(),
        };
        let rows = self.scenarios.iter().flat_map(|measured| &measured.rows);
        let counted: Vec<_> = rows.filter_map(|row| row.host_instructions).map(|host| host.noise).collect();
        match (counted.iter().min(), counted.iter().max()) {
            (Some(least), Some(most)) => {
                let (least, most) = (shown(millions(*least)), shown(millions(*most)));
                format!("{times} Host instructions: the runs of one firmware lie within {least} to {most} M.")
            }
            _ => times,
        }
    }

    /// The explanation below the tables.
    pub fn explanation(&self) -> String {
        let mut text = "Times are in milliseconds. The phases and the total are those of the run with the median total, so they add \
             up; below each are the minimum and the maximum of all runs. QEMU start ends at the first guest instruction, \
             firmware at the first loaded item, kernel loading at the kernel's first instruction. The base line is an image \
             that ends at the reset vector. Over base line is the median of firmware and kernel loading together, less the \
             base line. A real kernel does not mark its start, so that time is from a probe of the same size. Counts end at \
             the kernel's first instruction. Instructions repeat exactly; the accesses of a firmware that polls a clock do \
             not."
            .to_owned();
        if self.scenarios.iter().flat_map(|measured| &measured.rows).any(|row| row.host_instructions.is_some()) {
            text.push_str(
                " Host instructions are those of the whole QEMU process, in millions: the smaller count of two runs, less \
                 that of the base line. The spread is the difference between these runs. They do not depend on the load of \
                 the machine, so under TCG they compare firmware better than times do.",
            );
        }
        if !self.host.kvm.is_empty() {
            text.push(' ');
            text.push_str(self.host.kvm);
        }
        text
    }
}
