//! Progress output for the user, and the running of quiet commands.
//!
//! On a terminal, a step shows a spinner with the elapsed time. Afterwards one line stays if it took longer than a second.
//! Without a terminal, each step prints one plain line.

use std::fmt::Write as _;
use std::process::{Command, ExitCode, Output};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

/// A step that takes less time leaves no line on a terminal.
const WORTH_A_LINE: Duration = Duration::from_secs(1);

/// How many of the last lines of a failed command are shown.
const TAIL_LINES: usize = 20;

/// Prints one line for the user.
pub fn say(text: &str) {
    eprintln!("{text}");
}

/// The exit code for the result of a command. Prints an error.
pub fn exit_code(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        say(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

/// A running step. Dropping it without [`Step::done`], after an error, removes its spinner.
pub struct Step {
    what: String,
    start: Instant,
    spinner: ProgressBar,
}

/// Starts a step. `what` describes it, such as "Downloading the kernel".
pub fn step(what: &str) -> Step {
    let spinner =
        on_a_terminal(ProgressBar::new_spinner(), "{spinner} {msg} ({elapsed})").with_message(what.to_owned());
    if spinner.is_hidden() {
        say(what);
    }
    Step { what: what.to_owned(), start: Instant::now(), spinner }
}

impl Step {
    /// Ends a successful step.
    pub fn done(self) {
        let taken = self.start.elapsed();
        self.spinner.finish_and_clear();
        if !self.spinner.is_hidden() && taken >= WORTH_A_LINE {
            say(&format!("{} ({:.1} s)", self.what, taken.as_secs_f64()));
        }
    }
}

/// A series of many short runs. On a terminal it shows a bar with the current run, otherwise one line per round.
pub struct Rounds(ProgressBar);

impl Rounds {
    /// Starts a series of this many runs.
    pub fn start(runs: usize) -> Self {
        let bar = ProgressBar::new(u64::try_from(runs).unwrap_or(u64::MAX));
        Self(on_a_terminal(bar, "{bar:24} {pos}/{len} ({elapsed}) {wide_msg}"))
    }

    /// Shows that a round begins.
    pub fn round(&self, what: &str) {
        if self.0.is_hidden() {
            say(what);
        }
    }

    /// Shows that the next run begins.
    pub fn next(&self, what: &str) {
        self.0.inc(1);
        self.0.set_message(what.to_owned());
    }
}

/// The bar in this form. It is hidden without a terminal, and removed at its end.
fn on_a_terminal(bar: ProgressBar, form: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = bar.with_style(style).with_finish(ProgressFinish::AndClear);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Does `work` for all items, `at_once` at a time. Returns the results in the order of the items. After an error, it starts no
/// other item.
pub fn parallel<T: Sync, R: Send>(
    items: &[T],
    at_once: usize,
    work: impl Fn(&T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let queue = Mutex::new(items.iter().enumerate());
    let next = || queue.lock().ok()?.next();
    let worker = || -> anyhow::Result<Vec<_>> {
        let mut results = Vec::new();
        while let Some((number, item)) = next() {
            let result = work(item).inspect_err(|_| while next().is_some() {})?;
            results.push((number, result));
        }
        Ok(results)
    };
    let mut results = Vec::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            results.extend(worker.join().map_err(|_| anyhow!("a thread has panicked"))??);
        }
        anyhow::Ok(())
    })?;
    results.sort_by_key(|(number, _)| *number);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// Runs a command as a step.
pub fn run_step(what: &str, command: &mut Command) -> anyhow::Result<()> {
    let step = step(what);
    run(command)?;
    step.done();
    Ok(())
}

/// Runs a command without showing anything. Returns the text that it prints to its standard output.
pub fn run_quietly(command: &mut Command) -> anyhow::Result<String> {
    Ok(String::from_utf8_lossy(&run(command)?).into_owned())
}

/// Runs a command without showing anything. Returns the bytes of its standard output.
pub fn run(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let line = command_line(command);
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({}){}", output.status, tail(&output));
    }
    Ok(output.stdout)
}

/// The program and arguments of a command, killed after `limit`, or when the thread ends that starts them with
/// [`crate::child::tied`]. `timeout` must pass that on: its child does not inherit the signal, and has a process group of its own,
/// which Ctrl-C does not reach.
pub fn limited(command: &Command, limit: Duration) -> Command {
    let mut limited = Command::new("timeout");
    limited.args(["--signal=KILL", &limit.as_secs().to_string(), "setpriv", "--pdeathsig", "KILL", "--"]);
    limited.arg(command.get_program()).args(command.get_args());
    limited
}

/// The command as a user can type it.
pub fn command_line(command: &Command) -> String {
    let mut line = shell_word(&command.get_program().to_string_lossy());
    for argument in command.get_args() {
        let _ = write!(line, " {}", shell_word(&argument.to_string_lossy()));
    }
    line
}

/// `word`, quoted for a POSIX shell if necessary.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+,./:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The last lines of a failed command's standard error, or of its standard output if the standard error is empty.
fn tail(output: &Output) -> String {
    let texts = [&output.stderr, &output.stdout].map(|bytes| String::from_utf8_lossy(bytes));
    let text = texts.iter().map(|text| text.trim()).find(|text| !text.is_empty());
    let lines: Vec<_> = text.unwrap_or_default().lines().collect();
    let shown = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    if shown.is_empty() { String::new() } else { format!(":\n{}", shown.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child;
    use crate::child::tests::{SLEEPER, assert_ends_with_its_starter, is_inner, shell};

    #[test]
    fn command_lines_can_be_pasted_into_a_shell() {
        let mut command = Command::new("qemu");
        command.args(["-append", "console=ttyS0 quiet", "-kernel", "a'b", ""]);
        assert_eq!(command_line(&command), r"qemu -append 'console=ttyS0 quiet' -kernel 'a'\''b' ''");
    }

    #[test]
    fn results_are_in_order_and_nothing_starts_after_an_error() {
        let squares = parallel(&[1, 2, 3, 4], 2, |number| Ok(number * number)).unwrap();
        assert_eq!(squares, [1, 4, 9, 16]);
        let started = Mutex::new(Vec::new());
        let failed = parallel(&[1, 2, 3], 1, |number| {
            started.lock().unwrap().push(*number);
            if *number == 2 { bail!("no {number}") } else { Ok(()) }
        });
        assert_eq!(failed.unwrap_err().to_string(), "no 2");
        assert_eq!(started.into_inner().unwrap(), [1, 2]);
    }

    #[test]
    #[ignore = "the inner part of the next test"]
    fn starts_a_limited_program() {
        if is_inner() {
            child::tied(&limited(&shell(SLEEPER), Duration::from_secs(600))).status().expect("timeout starts");
        }
    }

    #[test]
    fn a_limited_program_ends_with_its_starter_and_after_its_time() {
        assert_ends_with_its_starter("progress::tests::starts_a_limited_program");
        let start = Instant::now();
        assert!(!limited(&shell("sleep 600"), Duration::from_secs(1)).status().unwrap().success());
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}
