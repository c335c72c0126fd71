//! The instructions that the whole QEMU process executes on the host, counted by valgrind.
//!
//! Under TCG, the milliseconds follow from this figure, which does not depend on the speed or the load of the machine.
//! A run takes some seconds. QEMU's start is part of it and is taken off by a run of the base line image, so the result
//! is in instructions over the base line.
//!
//! QEMU's thread that frees unused memory is left out. It first waits for 50 ms, so its work before the end depends on the
//! duration of the process, by 1 million instructions. The other threads repeat to 0.1 %.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use xtask::packages;
use xtask::qemu::Accelerator;

use super::counts::Attempt;
use super::probe::End;
use super::process;
use super::scenario::{PayloadFiles, Scenario};

/// How often the instructions of one image are counted.
const RUNS: usize = 2;

/// The time limit of a run. It takes about thirty times as long as without valgrind.
const LIMIT: Duration = Duration::from_secs(120);

/// Options for valgrind's tool that counts the instructions of each thread. The user's files add no options, and a script that
/// starts QEMU is followed.
const OPTIONS: [&str; 4] =
    ["--command-line-only=yes", "--tool=callgrind", "--separate-threads=yes", "--trace-children=yes"];

/// The name of a file with a thread's counts, without the thread's number.
const COUNTS: &str = "counts-";

/// The number of the thread that frees memory. QEMU starts it before all others, in a constructor (QEMU, `util/rcu.c`, `rcu_init`).
const RCU_THREAD: &str = "02";

/// Variables of the user's environment that change valgrind or QEMU's libraries.
const NOT_INHERITED: [&str; 3] = ["VALGRIND_OPTS", "DEBUGINFOD_URLS", "GLIBC_TUNABLES"];

/// Host instructions over the base line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct OverBaseLine {
    /// The smallest count of the firmware's runs, less the smallest of the base line's.
    pub instructions: u64,
    /// The noise: the largest difference between the runs of the firmware, or of the base line if that is larger.
    pub noise: u64,
}

impl OverBaseLine {
    /// From the counts of a firmware's runs and of the base line's. `None` if one of them has no run.
    pub fn of(firmware: &[u64], base_line: &[u64]) -> Option<Self> {
        let range = |runs: &[u64]| Some((*runs.iter().min()?, *runs.iter().max()?));
        let ((least, most), (base_least, base_most)) = range(firmware).zip(range(base_line))?;
        Some(Self { instructions: least.saturating_sub(base_least), noise: (most - least).max(base_most - base_least) })
    }
}

/// Why this machine cannot count them, if it cannot.
pub fn lack() -> Option<String> {
    packages::VALGRIND.found().is_none().then(|| format!("missing: {}", packages::VALGRIND))
}

/// Counts in some boots under TCG and valgrind. Adds the counts to `runs`.
pub fn count(scenario: &Scenario, firmware: &Path, payload: &PayloadFiles, runs: &mut Vec<u64>) -> Attempt<()> {
    for _ in 0..RUNS {
        match run(scenario, firmware, payload)? {
            Ok(count) => runs.push(count),
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(()))
}

fn run(scenario: &Scenario, firmware: &Path, payload: &PayloadFiles) -> Attempt<u64> {
    let folder = tempfile::tempdir()?;
    let launch = Scenario { accelerator: Accelerator::Tcg, ..scenario.clone() }.launch(firmware, payload);
    let ended = process::run(&under_valgrind(&launch.command(), folder.path()), LIMIT, |_| {})?;
    let counted = counted(folder.path())?.filter(|_| reached_its_end(ended.status));
    Ok(counted.ok_or_else(|| ended.failure("the kernel under valgrind", LIMIT)))
}

/// The command under valgrind, which writes its files to `folder`.
fn under_valgrind(command: &Command, folder: &Path) -> Command {
    let mut valgrind = Command::new(packages::VALGRIND.program);
    let file = |option: &str, name: &str| format!("--{option}={}", folder.join(name).display());
    valgrind.args(OPTIONS).args([file("log-file", "log"), file("callgrind-out-file", COUNTS.trim_end_matches('-'))]);
    valgrind.arg(command.get_program()).args(command.get_args());
    for name in NOT_INHERITED {
        valgrind.env_remove(name);
    }
    valgrind
}

/// Whether the guest reached an end and ended QEMU there.
fn reached_its_end(status: ExitStatus) -> bool {
    status.code().and_then(End::of_status).is_some()
}

/// The instructions of all threads except the one that frees memory. `None` if callgrind has written no counts.
fn counted(folder: &Path) -> anyhow::Result<Option<u64>> {
    let mut sum = None;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let thread = name.to_str().and_then(|name| name.strip_prefix(COUNTS));
        if thread.is_some_and(|thread| thread != RCU_THREAD) {
            let text = std::fs::read(entry.path())?;
            let count = total(&String::from_utf8_lossy(&text));
            sum = Some(sum.unwrap_or(0) + count.with_context(|| format!("callgrind's file {name:?} has no total"))?);
        }
    }
    Ok(sum)
}

/// The number in "totals: 86921719".
fn total(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_of_all_threads_but_the_freeing_one_are_added() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("log", "==5615== Callgrind, a call-graph generating cache profiler\n");
        write("counts", "# callgrind format\n");
        assert_eq!(counted(folder.path()).unwrap(), None);
        write("counts-01", "# callgrind format\nevents: Ir\nfn=(1) main\n16 5\nsummary: 9\ntotals: 86921719\n");
        write("counts-02", "totals: 1124158\n");
        write("counts-03", "totals: 3256974\n");
        assert_eq!(counted(folder.path()).unwrap(), Some(90_178_693));
        write("counts-04", "events: Ir\n");
        assert!(counted(folder.path()).is_err(), "cut off");
    }
}
