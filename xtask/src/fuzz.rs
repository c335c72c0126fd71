//! `cargo xtask fuzz`: runs the targets of `fuzz/` under libFuzzer.
//!
//! cargo-fuzz builds the targets with the project's own stable toolchain: without a sanitizer, because the code under test has no
//! `unsafe`, but with overflow checks and debug assertions. All output goes to `target/fuzz`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context, bail};

use crate::paths::{self, shown};
use crate::progress::{parallel, run_step, say};
use crate::{child, packages};

/// The version of cargo-fuzz that is installed.
const VERSION: &str = "0.13.2";
/// The folder of cargo-fuzz's programs, below the build folder: the host's own target.
const PROGRAMS: &str = "x86_64-unknown-linux-gnu/release";

/// Seconds after which one input counts as an endless loop.
const TIMEOUT: u32 = 20;
/// The most memory of a program, in MiB.
const MEMORY: u32 = 2048;

/// Fuzz the parsers, the planners and the whole boot
///
/// Runs the targets of fuzz/ in parallel, as many at once as there are CPUs, and prints a table. Continues from the corpus of
/// earlier runs (target/fuzz/corpus). Fails if something is found, and prints where the input is.
#[derive(clap::Args)]
pub struct Args {
    /// How many seconds each target runs at most
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        value_parser = clap::value_parser!(u32).range(1..=i32::MAX.into())
    )]
    time: u32,

    /// End a target after this many inputs, or when its time is over
    #[arg(long, value_name = "NUMBER")]
    inputs: Option<u32>,

    /// Do not trace comparisons: two to three times as many inputs per second, but the fuzzer has to guess constants
    #[arg(long)]
    no_compares: bool,

    /// Only these targets
    targets: Vec<String>,
}

/// The result of a target.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    inputs: u64,
    per_second: u64,
    coverage: u64,
    findings: Vec<PathBuf>,
    /// The program's exit status, if it is not success.
    failure: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// If the targets cannot be built or started. A finding is not an error but a failure.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let all = targets()?;
    if let Some(unknown) = args.targets.iter().find(|target| !all.contains(*target)) {
        bail!(
            "there is no fuzz target {unknown:?}; the targets are {}",
            all.into_iter().collect::<Vec<_>>().join(", ")
        );
    }
    let wanted: Vec<&str> = all
        .iter()
        .map(String::as_str)
        .filter(|name| args.targets.is_empty() || args.targets.iter().any(|wanted| wanted == name))
        .collect();
    build(args)?;

    let cpus = thread::available_parallelism().map_or(1, NonZero::get);
    let reports = parallel(&wanted, cpus, |&name| {
        say(&format!("{name}: running, the log is {}", shown(&folder("logs").join(name))));
        Ok((name, fuzz(name, args).with_context(|| format!("cannot run {name}"))?))
    })?;
    say(&table(&reports));
    let mut found = false;
    for (name, report) in &reports {
        for path in &report.findings {
            let program = folder(PROGRAMS).join(name);
            say(&format!("{name} found something; to repeat it: {} {}", shown(&program), shown(path)));
            found = true;
        }
        if let Some(failure) = report.failure.as_ref().filter(|_| report.findings.is_empty()) {
            say(&format!("{name} ended with {failure}; its log is {}", shown(&folder("logs").join(name))));
            found = true;
        }
    }
    Ok(if found { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A folder of fuzzing's output.
fn folder(name: &str) -> PathBuf {
    paths::target().join("fuzz").join(name)
}

/// The names of the targets, from their programs' sources.
fn targets() -> anyhow::Result<BTreeSet<String>> {
    let sources = paths::root().join("fuzz").join("fuzz_targets");
    let entries = fs::read_dir(&sources).with_context(|| format!("cannot read {}", sources.display()))?;
    let name = |path: PathBuf| path.file_stem().map(|name| name.to_string_lossy().into_owned());
    Ok(entries.flatten().filter_map(|entry| name(entry.path())).collect())
}

/// Builds all targets, and writes their seeds.
fn build(args: &Args) -> anyhow::Result<()> {
    packages::ensure(&packages::FUZZING)?;
    let cargo_fuzz = cargo_fuzz()?;
    let target = folder("");
    let mut command = Command::new(cargo_fuzz);
    command.current_dir(paths::root()).args([
        "fuzz",
        "build",
        "--sanitizer",
        "none",
        "--release",
        "--debug-assertions",
    ]);
    command.args(["--features", "libfuzzer", "--fuzz-dir"]).arg(paths::root().join("fuzz"));
    command.args(args.no_compares.then_some("--no-trace-compares"));
    command.arg("--target-dir").arg(&target);
    run_step("Building the targets", &mut command)?;
    let mut seeds = paths::cargo();
    seeds.args(["run", "--quiet", "--example", "seeds", "--manifest-path", "fuzz/Cargo.toml"]);
    seeds.arg("--target-dir").arg(&target).arg("--").arg(folder("seeds"));
    run_step("Making the seeds", &mut seeds)?;
    Ok(())
}

/// The path of cargo-fuzz. Installs it into the build folder if this version is not there.
fn cargo_fuzz() -> anyhow::Result<PathBuf> {
    let tools = paths::target().join("tools");
    let mut install = paths::cargo();
    install.args(["install", "cargo-fuzz", "--locked", "--version", VERSION, "--root"]).arg(&tools);
    run_step(
        &format!("Installing cargo-fuzz {VERSION}, which builds the targets, into {}", shown(&tools)),
        &mut install,
    )?;
    Ok(tools.join("bin").join("cargo-fuzz"))
}

/// Runs one target to its end.
fn fuzz(name: &str, args: &Args) -> anyhow::Result<Report> {
    let [corpus, seeds, findings] = ["corpus", "seeds", "findings"].map(|part| folder(part).join(name));
    let logs = folder("logs");
    for folder in [&corpus, &findings, &logs] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let before = files(&findings);
    let log = logs.join(name);
    let program = folder(PROGRAMS).join(name);
    let mut command = Command::new(&program);
    command.args([format!("-max_total_time={}", args.time), format!("-timeout={TIMEOUT}")]);
    command.args([format!("-rss_limit_mb={MEMORY}"), "-print_final_stats=1".into()]);
    // Slow inputs are mutated less often.
    command.arg("-entropic_scale_per_exec_time=1");
    command.arg(format!("-artifact_prefix={}/", findings.display()));
    command.args(args.inputs.map(|inputs| format!("-runs={inputs}")));
    command.arg(&corpus).arg(&seeds);
    let mut command = child::tied(&command);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(File::create(&log).with_context(|| format!("cannot write {}", log.display()))?);
    let status = command.status().with_context(|| format!("cannot start {}", program.display()))?;
    let printed = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let mut report = Report::parse(&String::from_utf8_lossy(&printed));
    report.findings = files(&findings).difference(&before).cloned().collect();
    report.failure = (!status.success()).then(|| status.to_string());
    Ok(report)
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

impl Report {
    /// Parses libFuzzer's log of a run.
    fn parse(log: &str) -> Self {
        let number = |text: &str| text.trim().split(' ').next().and_then(|word| word.parse().ok());
        let statistic = |name: &str| {
            let line = log.lines().rev().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
            line.and_then(|line| number(line.trim_start_matches(':'))).unwrap_or(0)
        };
        let coverage = log.lines().rev().find_map(|line| number(line.split_once(" cov: ")?.1));
        Self {
            inputs: statistic("number_of_executed_units"),
            per_second: statistic("average_exec_per_sec"),
            coverage: coverage.unwrap_or(0),
            ..Self::default()
        }
    }
}

fn table(reports: &[(&str, Report)]) -> String {
    let row = |cells: [&str; 5]| {
        let [name, inputs, per_second, coverage, findings] = cells;
        format!("{name:<20} {inputs:>12} {per_second:>10} {coverage:>10} {findings:>10}\n")
    };
    let mut table = row(["target", "inputs", "a second", "coverage", "findings"]);
    for (name, report) in reports {
        let inputs = report.inputs.to_string();
        let findings = report.findings.len();
        table +=
            &row([name, &inputs, &report.per_second.to_string(), &report.coverage.to_string(), &findings.to_string()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_read_from_libfuzzers_log() {
        let log = "INFO: seed corpus: files: 32\n#32\tINITED cov: 411 ft: 900 corp: 20/9Kb exec/s: 0 rss: 27Mb\n\
            #20000\tDONE   cov: 523 ft: 1700 corp: 102/40Kb lim: 4096 exec/s: 10000 rss: 31Mb\n\
            Done 20000 runs in 2 second(s)\nstat::number_of_executed_units: 20000\n\
            stat::average_exec_per_sec:     10000\nstat::new_units_added:          102\n";
        let report = Report { inputs: 20_000, per_second: 10_000, coverage: 523, ..Report::default() };
        assert_eq!(Report::parse(log), report);
        assert_eq!(Report::parse("==1== ERROR"), Report::default());
    }
}
