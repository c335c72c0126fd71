//! What a device costs: the counts and the time of a machine with it, less those of the bare machine.

use super::{Measured, Report, Row};
use crate::boot::scenario::Scenario;
use crate::numbers::{grouped, shown};

/// The text for a missing value.
const NONE: &str = "-";

/// The heads of the columns after the first two.
const HEADS: [&str; 7] = [
    "exits (KVM)",
    "device accesses",
    "of these PCI config",
    "topology writes",
    "DMA transfers",
    "instructions",
    "fastest run, ms",
];

/// A table for each bare machine that was also measured with devices. For each firmware, it has the costs of the bare machine and
/// then those that each device adds.
pub fn tables(report: &Report) -> Vec<Vec<Vec<String>>> {
    let bare = report.scenarios.iter().filter(|measured| measured.scenario.devices.is_empty());
    bare.filter_map(|bare| {
        let with: Vec<_> = report.scenarios.iter().filter(|other| adds_to(&other.scenario, &bare.scenario)).collect();
        (!with.is_empty()).then(|| table(bare, &with))
    })
    .collect()
}

/// Whether a scenario is the bare one with devices.
fn adds_to(scenario: &Scenario, bare: &Scenario) -> bool {
    !scenario.devices.is_empty() && Scenario { devices: Vec::new(), ..scenario.clone() } == *bare
}

fn table(bare: &Measured, with: &[&Measured]) -> Vec<Vec<String>> {
    let heads = [bare.name.as_str(), "firmware"].into_iter().chain(HEADS);
    let mut words = vec![heads.map(str::to_owned).collect::<Vec<_>>()];
    for row in &bare.rows {
        words.push(line("bare", row, None));
    }
    for measured in with {
        let name = format!("+ {}", measured.scenario.device_names());
        for row in &measured.rows {
            // There is a difference only if the firmware boots on both.
            let base = bare.rows.iter().find(|base| base.firmware == row.firmware);
            words.push(match base {
                Some(base) if base.failure.is_none() && row.failure.is_none() => line(&name, row, Some(base)),
                _ => failed(&name, row),
            });
        }
    }
    words
}

fn failed(name: &str, row: &Row) -> Vec<String> {
    let what = if row.failure.is_some() { "does not boot" } else { NONE };
    let mut words = vec![name.to_owned(), row.firmware.clone(), what.to_owned()];
    words.resize(2 + HEADS.len(), NONE.to_owned());
    words
}

fn line(name: &str, row: &Row, base: Option<&Row>) -> Vec<String> {
    let own = numbers(row);
    let numbers = match base {
        None => own.map(|number| number.map(grouped)),
        Some(base) => {
            let base = numbers(base);
            std::array::from_fn(|at| Some(difference(own[at]?, base[at]?)))
        }
    };
    // On a busy host, runs differ by more than a device costs. The fastest runs are the least disturbed.
    let time = |row: &Row| row.times.over_base_line.map(|over| over.min);
    let time = match base {
        None => time(row).map(shown),
        Some(base) => time(row).zip(time(base)).map(|(own, base)| {
            let more = own - base;
            format!("{}{}", if more < 0.0 { "-" } else { "+" }, shown(more.abs()))
        }),
    };
    let words = numbers.into_iter().chain([time]).map(|word| word.unwrap_or_else(|| NONE.to_owned()));
    [name.to_owned(), row.firmware.clone()].into_iter().chain(words).collect()
}

/// The counts, in the order of the heads.
fn numbers(row: &Row) -> [Option<u64>; 6] {
    let Some(counts) = &row.counts else { return [None; 6] };
    [
        counts.exits,
        Some(counts.accesses),
        Some(counts.config_accesses),
        Some(counts.topology_writes),
        Some(counts.dma_transfers),
        counts.instructions,
    ]
}

/// The difference of `own` from `base`, with its sign.
fn difference(own: u64, base: u64) -> String {
    let sign = if own < base { "-" } else { "+" };
    format!("{sign}{}", grouped(own.abs_diff(base)))
}
