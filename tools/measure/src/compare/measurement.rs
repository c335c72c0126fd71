//! The measurement itself: times every firmware in every scenario, counts, and sums up.
//!
//! The first firmware of each scenario is the base line, an image that ends at the reset vector: what it takes is QEMU's own.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;
use xtask::progress::{Rounds, command_line, say, shell_word};
use xtask::qemu::{self, Accelerator};

use super::firmware::Choice;
use super::report::{Measured, Report, Row, Run, Times};
use super::stats::{Summary, millis};
use super::timing::{self, Sample};
use crate::boot::counts::{self, Counts};
use crate::boot::host;
use crate::boot::host_instructions::{self, OverBaseLine};
use crate::boot::probe::Files;
use crate::boot::scenario::{PayloadFiles, Scenario};

/// The number of rounds in which a real kernel is booted. It takes seconds.
const LINUX_RUNS: usize = 3;

/// A firmware that has taken this long in a scenario is not run again in it after its least number of runs.
const SLOW: Duration = Duration::from_secs(8);
const SLOW_RUNS: usize = 3;

/// A firmware whose fastest run takes longer would take minutes under valgrind.
const SLOW_FOR_VALGRIND: Duration = Duration::from_secs(1);

/// A firmware with more accesses polls a clock for long. With the clock of the exact counts, it would not come to an end.
const MOST_ACCESSES: u64 = 700_000;

/// One firmware in one scenario, with the results so far.
#[derive(Default)]
struct Entry {
    /// Its image. `None` if there is none, or if it has failed.
    image: Option<PathBuf>,
    /// What QEMU gets besides it, in the form of [`Scenario::devices`].
    options: &'static [&'static str],
    samples: Vec<Sample>,
    /// The samples of the probe that stands in for a real kernel.
    twins: Vec<Sample>,
    taken: Duration,
    host_instructions: Vec<u64>,
    row: Row,
}

impl Entry {
    fn new(firmware: String, image: Result<PathBuf, String>, options: &'static [&'static str]) -> Self {
        let row = Row { firmware, failure: image.as_ref().err().cloned(), ..Row::default() };
        Self { image: image.ok(), options, row, ..Self::default() }
    }

    /// Whether it is to run in this round.
    fn is_due(&self, round: usize, linux: bool) -> bool {
        let slow = self.taken > SLOW && self.samples.len() >= SLOW_RUNS;
        self.image.is_some() && !slow && !(linux && round >= LINUX_RUNS)
    }
}

/// A scenario and its payload.
struct Place {
    scenario: Scenario,
    payload: PayloadFiles,
}

impl Place {
    fn new(scenario: Scenario, files: &Files) -> anyhow::Result<Self> {
        Ok(Self { payload: scenario.payload.files(files)?, scenario })
    }
}

/// A place, and each firmware in it. The first entry is the base line.
struct Group {
    place: Place,
    /// For a real kernel, the same place with a probe of its size. A real kernel does not mark its start, and the time until then
    /// depends only on its size.
    twin: Option<Place>,
    entries: Vec<Entry>,
}

impl Group {
    fn new(scenario: Scenario, files: &Files, entries: Vec<Entry>) -> anyhow::Result<Self> {
        let place = Place::new(scenario, files)?;
        let twin = place.scenario.payload.twin(&place.payload)?;
        let twin = twin.map(|payload| Place::new(Scenario { payload, ..place.scenario.clone() }, files)).transpose()?;
        Ok(Self { place, twin, entries })
    }
}

/// All scenarios, with what was measured so far.
pub struct Measurement {
    groups: Vec<Group>,
    log: PathBuf,
}

impl Measurement {
    pub fn new(
        choices: &[Choice],
        scenarios: Vec<Scenario>,
        built: Option<&Path>,
        files: &Files,
    ) -> anyhow::Result<Self> {
        let base_line = files.base_line()?;
        let mut groups = Vec::new();
        for scenario in scenarios {
            let mut entries = vec![Entry::new("base line".to_owned(), Ok(base_line.clone()), &[])];
            let entry =
                |choice: &Choice| Entry::new(choice.name(), choice.image(&scenario.machine, built), choice.options());
            entries.extend(choices.iter().map(entry));
            groups.push(Group::new(scenario, files, entries)?);
        }
        Ok(Self { groups, log: files.log() })
    }

    /// Measures everything.
    pub fn run(&mut self, runs: usize) -> anyhow::Result<()> {
        let entries: usize = self.groups.iter().map(|group| group.entries.len()).sum();
        let valgrind = self.has_valgrind_work();
        let progress = Rounds::start(entries * (runs + 1 + usize::from(valgrind)));
        let kvm = qemu::kvm_opens();
        let log = self.log.clone();
        for round in 0..runs {
            let name = format!("run {} of {runs}", round + 1);
            progress.round(&format!("Timing, {name}"));
            self.each(&progress, &name, round, |entry, place, twin, base| {
                if !entry.is_due(round, twin.is_some()) {
                    return Ok(());
                }
                time(entry, place, twin.filter(|_| !base), &log)?;
                match &entry.row.failure {
                    Some(why) if base && round == 0 => {
                        bail!(
                            "{}: nothing can be measured, because QEMU with the base line image {why}",
                            place.scenario.name()
                        )
                    }
                    _ => Ok(()),
                }
            })?;
        }
        progress.round("Counting accesses and instructions");
        self.each(
            &progress,
            "counting",
            0,
            |entry, place, twin, base| {
                if base { Ok(()) } else { count(entry, twin.unwrap_or(place), kvm) }
            },
        )?;
        if valgrind {
            progress.round("Counting host instructions");
            self.each(&progress, "host instructions", 0, |entry, place, twin, _| {
                count_host_instructions(entry, twin.unwrap_or(place))
            })?;
        }
        Ok(())
    }

    /// Whether to count host instructions. Says why if they cannot be counted.
    fn has_valgrind_work(&self) -> bool {
        let tcg = self.groups.iter().any(|group| group.place.scenario.accelerator == Accelerator::Tcg);
        let lack = if tcg { host_instructions::lack() } else { None };
        if let Some(lack) = &lack {
            say(&format!("Host instructions are not counted: {lack}"));
        }
        tcg && lack.is_none()
    }

    /// Does `work` for every firmware in every scenario. Starts with the firmware of the number `first`, so that their order changes
    /// from round to round. The last argument of `work` is whether the firmware is the base line.
    fn each(
        &mut self,
        progress: &Rounds,
        what: &str,
        first: usize,
        mut work: impl FnMut(&mut Entry, &Place, Option<&Place>, bool) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for group in &mut self.groups {
            let count = group.entries.len();
            for number in (0..count).map(|number| (number + first) % count) {
                let Some(entry) = group.entries.get_mut(number) else { continue };
                progress.next(&format!("{what}: {}, {}", entry.row.firmware, group.place.scenario.name()));
                work(entry, &group.place, group.twin.as_ref(), number == 0)?;
            }
        }
        Ok(())
    }

    /// The report. `version` is that of this firmware, if it was measured.
    pub fn report(self, choices: &[Choice], version: Option<String>) -> Report {
        let firmware = choices.iter().map(Choice::name).collect();
        let log = self.log;
        let scenarios = self.groups.into_iter().map(|group| group.measured(&log)).collect();
        let arguments = std::env::args().skip(1).map(|word| shell_word(&word));
        let command = ["cargo xtask".to_owned()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ");
        Report { command, version, date: host::date(), host: host::describe(), firmware, scenarios }
    }
}

/// Counts at full speed, and then with the exact clock.
fn count(entry: &mut Entry, place: &Place, kvm: bool) -> anyhow::Result<()> {
    let Some(image) = &entry.image else { return Ok(()) };
    let scenario = place.scenario.with(entry.options);
    // The firmware boots, but may take too long while it is counted.
    let mut counts = match counts::at_full_speed(&scenario, image, &place.payload)? {
        Ok(counts) => counts,
        Err(why) => {
            entry.row.not_counted.push(format!("not counted: {why}"));
            return Ok(());
        }
    };
    let exact = if counts.accesses >= MOST_ACCESSES {
        Err(format!("the firmware polls a device, with {} accesses", counts.accesses))
    } else {
        counts::exact(&scenario, image, &place.payload, kvm)?
    };
    match exact {
        Ok(mut exact) => {
            entry.row.not_counted.append(&mut exact.not_counted);
            counts = Counts { accesses: counts.accesses, ..exact };
        }
        Err(why) => entry.row.not_counted.push(format!("instructions and exits are not counted: {why}")),
    }
    entry.row.counts = Some(counts);
    Ok(())
}

/// Counts the host's instructions if TCG executes the guest and the firmware is fast enough for valgrind.
fn count_host_instructions(entry: &mut Entry, place: &Place) -> anyhow::Result<()> {
    let Some(image) = &entry.image else { return Ok(()) };
    if place.scenario.accelerator != Accelerator::Tcg {
        return Ok(());
    }
    let samples = if entry.twins.is_empty() { &entry.samples } else { &entry.twins };
    let fastest = samples.iter().map(|sample| sample.guest).min().unwrap_or_default();
    if fastest > SLOW_FOR_VALGRIND {
        entry
            .row
            .not_counted
            .push("host instructions are not counted: the firmware is too slow under valgrind".to_owned());
        return Ok(());
    }
    let counted = host_instructions::count(
        &place.scenario.with(entry.options),
        image,
        &place.payload,
        &mut entry.host_instructions,
    )?;
    if let Err(why) = counted {
        entry.row.not_counted.push(format!("host instructions are not counted: {why}"));
    }
    Ok(())
}

fn time(entry: &mut Entry, place: &Place, twin: Option<&Place>, log: &Path) -> anyhow::Result<()> {
    let start = Instant::now();
    for (place, is_twin) in twin.map(|twin| (twin, true)).into_iter().chain([(place, false)]) {
        let Some(image) = &entry.image else { break };
        match timing::run(&place.scenario.with(entry.options), image, &place.payload, log)? {
            Ok(sample) if is_twin => entry.twins.push(sample),
            Ok(sample) => entry.samples.push(sample),
            Err(failure) => (entry.image, entry.row.failure) = (None, Some(failure)),
        }
    }
    entry.taken += start.elapsed();
    Ok(())
}

impl Group {
    fn measured(self, log: &Path) -> Measured {
        let Place { scenario, payload } = self.place;
        let base = self.entries.first().map(|entry| entry.samples.as_slice()).unwrap_or_default();
        let base = Summary::of(base.iter().map(|sample| sample.guest)).map_or(0.0, |base| base.median);
        let base_runs = self.entries.first().map(|entry| entry.host_instructions.clone()).unwrap_or_default();
        let row = |(number, entry): (usize, Entry)| {
            let twins = self.twin.as_ref().filter(|_| number > 0).map(|_| entry.twins.as_slice());
            let end = twins.unwrap_or(&entry.samples).first().or(entry.samples.first());
            let with_options = scenario.with(entry.options);
            let launch = |image: &PathBuf| command_line(&timing::launch(&with_options, image, &payload, log).command());
            Row {
                runs: entry.samples.len(),
                end: end.map(|sample| sample.end.name().to_owned()),
                times: if number == 0 { base_times(&entry.samples) } else { times(&entry.samples, twins, base) },
                median_run: median_run(&entry.samples, twins),
                host_instructions: OverBaseLine::of(&entry.host_instructions, &base_runs).filter(|_| number > 0),
                command: entry.image.as_ref().map(launch).unwrap_or_default(),
                ..entry.row
            }
        };
        let mut rows: Vec<_> = self.entries.into_iter().enumerate().map(row).collect();
        let base_line = rows.remove(0);
        Measured { name: scenario.name(), scenario, base_line, rows }
    }
}

/// The times of the base line image, which are QEMU's own.
fn base_times(samples: &[Sample]) -> Times {
    Times {
        qemu: Summary::of(samples.iter().map(|sample| sample.qemu)),
        firmware: Summary::of(samples.iter().map(|sample| sample.guest)),
        total: Summary::of(samples.iter().map(Sample::total)),
        ..Times::default()
    }
}

/// The time from the first instruction to the kernel's, in milliseconds: the median of the probes that stand in for it.
fn before_kernel(twins: &[Sample]) -> Option<f64> {
    Summary::of(twins.iter().map(|sample| sample.guest)).map(|guest| guest.median)
}

/// The phases of the run with the median total. A real kernel starts at the time of its probes.
fn median_run(samples: &[Sample], twins: Option<&[Sample]>) -> Option<Run> {
    let mut sorted: Vec<_> = samples.iter().collect();
    sorted.sort_by_key(|sample| sample.total());
    let sample = sorted.get(sorted.len().checked_sub(1)? / 2)?;
    let guest = millis(sample.guest);
    let before = twins.and_then(before_kernel).map_or(guest, |before| before.min(guest));
    let firmware = sample.firmware.map_or(before, |firmware| millis(firmware).min(before));
    Some(Run {
        qemu: millis(sample.qemu),
        firmware,
        loading: sample.firmware.map(|_| before - firmware),
        kernel: twins.map(|_| guest - before),
    })
}

/// The times of a firmware. `twins` are the samples of the probe that stands in for a real kernel. `base` is the time of the base
/// line image from its first instruction to its last, in milliseconds.
fn times(samples: &[Sample], twins: Option<&[Sample]>, base: f64) -> Times {
    let probes = twins.unwrap_or(samples);
    let less = |samples: &[Sample], other: f64| {
        Summary::of_millis(samples.iter().map(|sample| (millis(sample.guest) - other).max(0.0)).collect())
    };
    let kernel = twins.and_then(before_kernel);
    Times {
        firmware: Summary::of(samples.iter().filter_map(|sample| sample.firmware)),
        loading: Summary::of(probes.iter().filter_map(|sample| sample.loading)),
        kernel: kernel.and_then(|before| less(samples, before)),
        over_base_line: less(probes, base),
        ..base_times(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::probe::End;

    fn sample(guest: u64) -> Sample {
        Sample {
            qemu: Duration::from_millis(40),
            firmware: Some(Duration::from_millis(1)),
            loading: Some(Duration::from_millis(guest - 1)),
            guest: Duration::from_millis(guest),
            end: End::Long64,
        }
    }

    #[test]
    fn a_real_kernel_starts_at_the_end_of_its_probe() {
        let times = times(&[sample(1010), sample(1030)], Some(&[sample(10), sample(10), sample(12)]), 0.0);
        let kernel = times.kernel.unwrap();
        assert_eq!((kernel.min, kernel.max), (1000.0, 1020.0));
        assert_eq!(times.loading.unwrap().median, 9.0);
        assert_eq!(times.over_base_line.unwrap().median, 10.0);
        assert_eq!(times.total.unwrap().max, 1070.0);
        let run = median_run(&[sample(1010), sample(1030)], Some(&[sample(10), sample(10), sample(12)])).unwrap();
        assert_eq!(run.phases(), [Some(40.0), Some(1.0), Some(9.0), Some(1000.0)]);
    }
}
