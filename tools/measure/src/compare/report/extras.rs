//! What a device costs: the counts and the time of a machine with it, less those of the bare machine.

use super::{COUNTS, Measured, NONE, Report, Row, Words};
use crate::boot::scenario::Scenario;
use crate::numbers::{grouped, shown};

/// A table for each bare machine that was also measured with devices. For each firmware, it has the costs of the bare machine and
/// then those that each device adds.
pub fn tables(report: &Report) -> Vec<Words> {
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

fn table(bare: &Measured, with: &[&Measured]) -> Words {
    let counts = COUNTS.map(|(head, _)| head);
    let heads = [bare.name.as_str(), "firmware"].into_iter().chain(counts).chain(["fastest run, ms"]);
    let mut words = vec![heads.map(str::to_owned).collect::<Vec<_>>()];
    words.extend(bare.rows.iter().map(|row| line("bare", row, None)));
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
    words.resize(3 + COUNTS.len(), NONE.to_owned());
    words
}

/// The values of a row, or their differences from those of `base`.
fn line(name: &str, row: &Row, base: Option<&Row>) -> Vec<String> {
    let counts = COUNTS.map(|(_, of)| {
        let own = of(row.counts.as_ref()?)?;
        Some(match base {
            None => grouped(own),
            Some(base) => {
                let base = of(base.counts.as_ref()?)?;
                format!("{}{}", if own < base { "-" } else { "+" }, grouped(own.abs_diff(base)))
            }
        })
    });
    // On a busy host, runs differ by more than a device costs. The fastest runs are the least disturbed.
    let time = |row: &Row| row.times.over_base_line.map(|over| over.min);
    let time = match base {
        None => time(row).map(shown),
        Some(base) => time(row)
            .zip(time(base))
            .map(|(own, base)| format!("{}{}", if own < base { "-" } else { "+" }, shown((own - base).abs()))),
    };
    let words = counts.into_iter().chain([time]).map(|word| word.unwrap_or_else(|| NONE.to_owned()));
    [name.to_owned(), row.firmware.clone()].into_iter().chain(words).collect()
}
