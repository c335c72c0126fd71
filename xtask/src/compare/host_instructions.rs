//! The instructions that the whole QEMU process executes on the host, counted by valgrind.
//!
//! Under TCG that is the figure behind the milliseconds: it depends neither on the speed of the machine nor on its load.
//! A run takes some seconds. QEMU's start is part of it and is taken off by a run of the base line image, so the result
//! is in instructions over the base line.
//!
//! Two runs of one image differ by about 1 million instructions. QEMU frees what a change of its memory map left over in a
//! thread of its own, some 10 ms later, and a process may or may not end before that. So several runs are made and the
//! least counts.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde::Serialize;

use super::counts::Attempt;
use super::probe::End;
use super::process::Running;
use super::scenario::{PayloadFiles, Scenario};
use crate::packages;
use crate::qemu::Accelerator;

/// How often the instructions of one image are counted.
const RUNS: usize = 3;

/// How long one run may take. It runs at a thirtieth of the usual speed.
const LIMIT: Duration = Duration::from_secs(120);

/// valgrind's tool that counts instructions, and nothing else. No file of the user's adds options to it. QEMU may be a
/// script that starts QEMU.
const OPTIONS: [&str; 5] = [
    "--command-line-only=yes",
    "--tool=cachegrind",
    "--cache-sim=no",
    "--cachegrind-out-file=/dev/null",
    "--trace-children=yes",
];

/// What a user's environment would change in valgrind or in QEMU's libraries.
const NOT_INHERITED: [&str; 3] = ["VALGRIND_OPTS", "DEBUGINFOD_URLS", "GLIBC_TUNABLES"];

/// The counts of some runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs(pub Vec<u64>);

/// Host instructions over the base line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OverBaseLine {
    /// The least of the firmware's runs less the least of the base line's.
    pub instructions: u64,
    /// The noise: how far the runs of the firmware lie apart, and those of the base line, whichever is more.
    pub noise: u64,
}

/// A number of instructions in millions, as a report shows it.
pub fn millions(instructions: u64) -> f64 {
    instructions as f64 / 1e6
}

impl OverBaseLine {
    /// From the runs of a firmware and of the base line image. `None` where one of them has no run.
    pub fn of(firmware: &Runs, base_line: &Runs) -> Option<Self> {
        let instructions = firmware.least()?.saturating_sub(base_line.least()?);
        Some(Self { instructions, noise: firmware.spread()?.max(base_line.spread()?) })
    }
}

impl Runs {
    fn least(&self) -> Option<u64> {
        self.0.iter().min().copied()
    }

    fn spread(&self) -> Option<u64> {
        Some(self.0.iter().max()? - self.least()?)
    }
}

/// Why nothing can be counted on this machine, if it cannot.
pub fn lack() -> Option<String> {
    packages::VALGRIND.found().is_none().then(|| format!("missing: {}", packages::VALGRIND))
}

/// Boots a few times under TCG and valgrind, and counts. The runs are added to `runs`.
///
/// # Errors
/// The outer one when valgrind cannot be run at all; the inner one when the kernel was not reached.
pub fn count(scenario: &Scenario, firmware: &Path, payload: &PayloadFiles, runs: &mut Runs) -> Attempt<()> {
    for _ in 0..RUNS {
        match run(scenario, firmware, payload)? {
            Ok(count) => runs.0.push(count),
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(()))
}

fn run(scenario: &Scenario, firmware: &Path, payload: &PayloadFiles) -> Attempt<u64> {
    let log = tempfile::NamedTempFile::new()?;
    let launch = Scenario { accelerator: Accelerator::Tcg, ..scenario.clone() }.launch(firmware, payload);
    let (running, _) = Running::start(&under_valgrind(&launch.command(), log.path()), false)?;
    let ended = running.wait(LIMIT)?;
    let text = std::fs::read(log.path())?;
    let counted = counted(&String::from_utf8_lossy(&text)).filter(|_| reached_its_end(ended.status));
    Ok(counted.ok_or_else(|| ended.failure("the kernel under valgrind", LIMIT)))
}

/// The same command under valgrind, whose report goes to `log`.
fn under_valgrind(command: &Command, log: &Path) -> Command {
    let mut valgrind = Command::new(packages::VALGRIND_PROGRAM);
    valgrind.args(OPTIONS).arg(format!("--log-file={}", log.display()));
    valgrind.arg(command.get_program()).args(command.get_args());
    for name in NOT_INHERITED {
        valgrind.env_remove(name);
    }
    valgrind
}

/// Whether the guest ended QEMU at an end of a measurement.
fn reached_its_end(status: ExitStatus) -> bool {
    status.code().and_then(End::of_status).is_some()
}

/// The number in "==5615== I   refs:      91,397,501".
fn counted(text: &str) -> Option<u64> {
    let number = text.lines().find_map(|line| {
        let (name, number) = line.split_once("refs:")?;
        name.trim_end().ends_with(" I").then_some(number)
    })?;
    number.trim().replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn the_count_is_read_from_valgrinds_report() {
        // valgrind 3.19, with a simulated cache, and 3.23.
        let report = "==5615== Cachegrind, a cache and branch-prediction profiler\n==5615== \n\
            ==5615== I   refs:      91,397,501\n==5615== I1  misses:    1\n==5615== D   refs:  2 (1 rd + 1 wr)\n";
        assert_eq!(counted(report), Some(91_397_501));
        assert_eq!(counted("==7== I refs:        4,096\n"), Some(4096));
        for bad in ["", "==7== D   refs:  2\n", "==7== I refs: \n", "==7== I refs: many\n", "==7== LL refs: 3\n"] {
            assert_eq!(counted(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_least_runs_count_and_the_spread_is_the_noise() {
        let (firmware, base) = (Runs(vec![190_100, 189_300, 190_000]), Runs(vec![91_400, 90_300]));
        assert_eq!(OverBaseLine::of(&firmware, &base), Some(OverBaseLine { instructions: 99_000, noise: 1_100 }));
        assert_eq!(OverBaseLine::of(&base, &firmware).map(|over| over.instructions), Some(0));
        assert_eq!(OverBaseLine::of(&firmware, &Runs::default()), None);
        assert_eq!(OverBaseLine::of(&Runs::default(), &base), None);
    }

    #[test]
    fn only_a_guest_that_reached_an_end_is_counted() {
        let ended = |code: i32| reached_its_end(ExitStatus::from_raw(code << 8));
        assert!(ended(0x30 * 2 + 1) && ended(0x70 * 2 + 1));
        assert!(!ended(0) && !ended(1) && !ended(2));
        assert!(!reached_its_end(ExitStatus::from_raw(9)), "a signal");
    }

    #[test]
    fn the_users_options_do_not_reach_valgrind() {
        let mut qemu = Command::new("qemu");
        qemu.args(["-append", "two words"]);
        let command = under_valgrind(&qemu, Path::new("/a log"));
        let arguments: Vec<_> = command.get_args().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(arguments[0], "--command-line-only=yes");
        assert_eq!(arguments[OPTIONS.len()..], ["--log-file=/a log", "qemu", "-append", "two words"]);
        assert!(command.get_envs().any(|(name, value)| name == "VALGRIND_OPTS" && value.is_none()));
    }
}
