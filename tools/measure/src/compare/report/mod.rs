//! The result of a comparison, and its output formats.

mod extras;
pub mod html;
pub mod svg;
pub mod table;

use serde::Serialize;

use super::stats::Summary;
use crate::boot::counts::Counts;
use crate::boot::host::Host;
use crate::boot::host_instructions::OverBaseLine;
use crate::boot::scenario::Scenario;
use crate::numbers::{millions, shown};

/// A whole comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The command that made it.
    pub command: String,
    /// When it was made, in UTC.
    pub date: String,
    /// Where it was made.
    pub host: Host,
    /// The firmware whose times the ratios refer to.
    pub reference: String,
    /// The firmware images.
    pub firmware: Vec<Firmware>,
    /// What was measured.
    pub scenarios: Vec<Measured>,
}

/// A firmware.
#[derive(Debug, Clone, Serialize)]
pub struct Firmware {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// One scenario under every firmware.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// What was measured, in words.
    pub name: String,
    /// What was measured.
    pub scenario: Scenario,
    /// QEMU itself: the image that ends at the reset vector.
    pub base_line: Row,
    /// One row a firmware.
    pub rows: Vec<Row>,
}

/// One firmware in a scenario.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Row {
    /// Its name.
    pub firmware: String,
    /// Why there are no times.
    pub failure: Option<String>,
    /// How many runs succeeded.
    pub runs: usize,
    /// Where the measurement ended: for a probe, the kernel's entry that was used.
    pub end: Option<String>,
    /// The times.
    pub times: Times,
    /// The run with the median total; of an even number of runs, the faster one of the two in the middle.
    pub median_run: Option<Run>,
    /// Its time over the base line, as a multiple of the reference's.
    pub ratio: Option<f64>,
    /// The counts.
    pub counts: Option<Counts>,
    /// The instructions of the whole QEMU process over the base line, where TCG executed the guest.
    pub host_instructions: Option<OverBaseLine>,
    /// The counts that could not be had, each with the reason.
    pub not_counted: Vec<String>,
    /// QEMU's command line.
    pub command: String,
}

/// The times of one firmware in a scenario, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Times {
    /// From the start of the process to the first guest instruction.
    pub qemu: Option<Summary>,
    /// From there to the first item that is loaded: kernel, initrd or command line.
    pub firmware: Option<Summary>,
    /// From there to the kernel's first instruction.
    pub loading: Option<Summary>,
    /// From there to user space.
    pub kernel: Option<Summary>,
    /// From the start of the process to the end of the measurement.
    pub total: Option<Summary>,
    /// From there to the end of the process.
    pub stop: Option<Summary>,
    /// From the first guest instruction to the kernel's first, less what the base line image takes.
    pub over_base_line: Option<Summary>,
}

/// One run, phase by phase, in milliseconds. Medians of the phases of many runs do not add up to the median of the totals;
/// these add up to the total of this run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Run {
    /// From the start of the process to the first guest instruction.
    pub qemu: f64,
    /// From there to the first item that is loaded, or to the end of an image that loads none.
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

    /// All of it.
    pub fn total(&self) -> f64 {
        self.phases().into_iter().flatten().sum()
    }
}

impl Report {
    /// How far the same run differs from itself on this machine.
    pub fn noise(&self) -> String {
        let ranges = self.scenarios.iter().filter_map(|measured| measured.base_line.times.total?.iqr);
        let ranges: Vec<_> = ranges.collect();
        let least = ranges.iter().copied().reduce(f64::min).map(shown).unwrap_or_default();
        let times = match ranges.iter().copied().reduce(f64::max).map(shown) {
            None => "Noise: not known, as the base line has too few runs.".to_owned(),
            Some(most) if most == least => format!("Noise: half of the base line's runs lie within {most} ms."),
            Some(most) => {
                format!("Noise: half of the base line's runs lie within {least} to {most} ms, depending on the panel.")
            }
        };
        let rows = self.scenarios.iter().flat_map(|measured| &measured.rows);
        let counted: Vec<_> = rows.filter_map(|row| row.host_instructions).map(|host| host.noise).collect();
        match (counted.iter().min(), counted.iter().max()) {
            (Some(least), Some(most)) => {
                let (least, most) = (shown(millions(*least)), shown(millions(*most)));
                let range = if least == most { most } else { format!("{least} to {most}") };
                format!("{times} Host instructions: the runs of one firmware lie within {range} M.")
            }
            _ => times,
        }
    }

    /// Whether host instructions were counted at all.
    pub fn has_host_instructions(&self) -> bool {
        self.scenarios.iter().flat_map(|measured| &measured.rows).any(|row| row.host_instructions.is_some())
    }

    /// The remark about the phases that stands below a table.
    pub fn explanation(&self) -> String {
        let mut text = "Times are in milliseconds. The phases and the total are those of the run with the median total, so \
             they add up; below each are the minimum and maximum of all runs. QEMU start ends at the first guest \
             instruction, firmware at the first item that is loaded, kernel loading at the kernel's first instruction. The \
             base line is an image that ends at the reset vector. Over base line is the median of firmware and kernel \
             loading together, less what the base line takes. IQR is the interquartile range: half of the totals lie within \
             it; that of the base line is the noise of this machine. A real kernel does not tell when it starts: that time is a probe's of the same size. Counts go up to \
             the kernel's first instruction; instructions repeat exactly, the accesses of a firmware that polls \
             a clock do not."
            .to_owned();
        if self.has_host_instructions() {
            text.push_str(
                " Host instructions are those of the whole QEMU process, in millions: the lesser of two runs, less the \
                 lesser of the base line's. The spread is how far these runs lie apart. Another load on the machine does not \
                 change them, so under TCG they compare firmware better than times do.",
            );
        }
        if !self.host.kvm.is_empty() {
            text.push(' ');
            text.push_str(&self.host.kvm);
        }
        text
    }
}
