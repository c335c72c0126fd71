//! One run of QEMU, and the duration of each part.
//!
//! QEMU's own clock stamps a few cheap trace events: the start of the guest, and each selection of a fw_cfg item, which
//! is also how the probe and the user program mark their progress. Nothing else is traced, because that would cost time.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use xtask::qemu::Launch;

use crate::boot::counts::Attempt;
use crate::boot::probe::End;
use crate::boot::process::{self, Ended};
use crate::boot::scenario::{PayloadFiles, Scenario};
use crate::boot::trace::{self, Event};

/// The times of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// From the start of the process to the first guest instruction.
    pub qemu: Duration,
    /// From there to the first loaded item: kernel, initrd or command line. `None` for the base line image, which loads none.
    pub firmware: Option<Duration>,
    /// From there to the end of the measurement.
    pub loading: Option<Duration>,
    /// From the first guest instruction to the end of the measurement.
    pub guest: Duration,
    /// Where the measurement ended. For a probe, that is the entry point that the firmware used.
    pub end: End,
}

impl Sample {
    /// From the start of the process to the end of the measurement.
    pub fn total(&self) -> Duration {
        self.qemu + self.guest
    }
}

/// The time limit of a run.
pub fn limit(scenario: &Scenario) -> Duration {
    Duration::from_secs(if scenario.payload.is_linux() { 60 } else { 20 })
}

/// QEMU's launch for a timed run. It writes its trace to `log`.
pub fn launch(scenario: &Scenario, firmware: &Path, payload: &PayloadFiles, log: &Path) -> Launch {
    let mut launch = scenario.launch(firmware, payload);
    launch.extra.extend(["-msg".into(), "timestamp=on".into(), "-D".into(), log.into()]);
    launch.extra.extend([trace::STATE, trace::SELECT].iter().flat_map(|event| ["-trace".into(), (*event).into()]));
    launch
}

/// Runs QEMU once.
pub fn run(scenario: &Scenario, firmware: &Path, payload: &PayloadFiles, log: &Path) -> Attempt<Sample> {
    let launch = launch(scenario, firmware, payload, log);
    let limit = limit(scenario);
    // QEMU appends to the file.
    std::fs::write(log, "").with_context(|| format!("cannot write {}", log.display()))?;
    let ended = process::run(&launch.command(), limit, |_| {})?;
    let text = std::fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    let goal = if scenario.payload.is_linux() { "user space" } else { "the kernel" };
    Ok(sample(&String::from_utf8_lossy(&text), &ended).ok_or_else(|| ended.failure(goal, limit)))
}

/// The times, if the end was reached and the clock was not changed meanwhile.
fn sample(trace: &str, ended: &Ended) -> Option<Sample> {
    let (mut running, mut first_load) = (None, None);
    for line in trace.lines().filter_map(trace::parse) {
        let Some(time) = line.time else { continue };
        if let Some(end) = trace::end(&line.event) {
            let running: Duration = running?;
            let started = ended.started.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            return Some(Sample {
                qemu: running.checked_sub(started)?,
                firmware: first_load.and_then(|item: Duration| item.checked_sub(running)),
                loading: first_load.and_then(|item| time.checked_sub(item)),
                guest: time.checked_sub(running)?,
                end,
            });
        }
        match line.event {
            Event::Running => running = running.or(Some(time)),
            Event::Select(key) if running.is_some() && trace::is_loaded_key(key) => {
                first_load = first_load.or(Some(time))
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    /// From a run of qboot with the probe under QEMU 7.2.
    const TRACE: &str = "\
7898@100.450471:fw_cfg_select 0x5 key 0x0000 'signature', ret: 1
7898@100.451000:vm_state_notify running 1 reason 9 (running)
7903@100.453794:fw_cfg_select 0x5 key 0x0019 'file_dir', ret: 1
7903@100.456388:fw_cfg_select 0x5 key 0x0014 'cmdline_size', ret: 1
7903@100.456549:fw_cfg_select 0x5 key 0x0011 'kernel_data', ret: 1
";

    fn ended() -> Ended {
        Ended {
            status: ExitStatus::from_raw(0),
            started: SystemTime::UNIX_EPOCH + micros(100_400_000),
            timed_out: false,
            serial: Vec::new(),
            message: None,
        }
    }

    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn a_probes_measurement_ends_with_the_loading() {
        let trace = format!("{TRACE}7903@100.460000:fw_cfg_select 0x5 key 0x3f10 'unknown', ret: 0\n");
        let wanted = Sample {
            qemu: micros(51_000),
            firmware: Some(micros(5_549)),
            loading: Some(micros(3_451)),
            guest: micros(9_000),
            end: End::Real16,
        };
        assert_eq!(sample(&trace, &ended()), Some(wanted));
        assert_eq!(wanted.total(), micros(60_000));
    }
}
