//! Progress output for the user, and the running of quiet commands.
//!
//! On a terminal, a step shows a spinner with the elapsed time. Afterwards one line stays if it took longer than a second.
//! Without a terminal, each step prints one plain line.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::process::{Command, ExitCode, Output};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};

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
    spinner: Option<ProgressBar>,
}

/// Starts a step. `what` describes it, such as "Downloading the kernel".
pub fn step(what: &str) -> Step {
    let spinner = std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let spinner = ProgressBar::new_spinner().with_style(style).with_message(what.to_owned());
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner
    });
    if spinner.is_none() {
        say(what);
    }
    Step { what: what.to_owned(), start: Instant::now(), spinner }
}

impl Step {
    /// Ends a successful step.
    pub fn done(mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
            let taken = self.start.elapsed();
            if taken >= WORTH_A_LINE {
                say(&format!("{} ({:.1} s)", self.what, taken.as_secs_f64()));
            }
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }
}

/// A series of many short runs. On a terminal it shows a bar with the current run, otherwise one line per round.
pub struct Rounds {
    bar: Option<ProgressBar>,
}

impl Rounds {
    /// Starts a series of this many runs.
    pub fn start(runs: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len} ({elapsed}) {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(u64::try_from(runs).unwrap_or(u64::MAX)).with_style(style);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar }
    }

    /// Shows that a round begins.
    pub fn round(&self, what: &str) {
        if self.bar.is_none() {
            say(what);
        }
    }

    /// Shows that the next run begins.
    pub fn next(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
            bar.set_message(what.to_owned());
        }
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
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

/// Runs a command as a step. Returns its standard output.
pub fn run_step(what: &str, command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let step = step(what);
    let printed = run_quietly(command)?;
    step.done();
    Ok(printed)
}

/// Runs the compiler as a step, and shows each of its warnings once.
pub fn run_step_with_warnings(what: &str, command: &mut Command) -> anyhow::Result<()> {
    let step = step(what);
    let output = run(command)?;
    step.done();
    warnings(&String::from_utf8_lossy(&output.stderr)).iter().for_each(|warning| say(warning));
    Ok(())
}

/// The compiler's warnings, each once and with its indented lines, without cargo's counts of them.
fn warnings(printed: &str) -> Vec<String> {
    let mut warnings: Vec<String> = Vec::new();
    let mut lines = printed.lines().peekable();
    while let Some(line) = lines.next() {
        if !line.starts_with("warning: ") || line.contains(") generated ") {
            continue;
        }
        let mut warning = line.to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(' ') && !line.trim().is_empty()) {
            warning = format!("{warning}\n{more}");
        }
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    warnings
}

/// Runs a command without showing anything. Returns its standard output.
pub fn run_quietly(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    Ok(run(command)?.stdout)
}

fn run(command: &mut Command) -> anyhow::Result<Output> {
    let line = command_line(command);
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({}){}", output.status, tail(&output));
    }
    Ok(output)
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
    let errors = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    let text = if errors.trim().is_empty() { printed.trim() } else { errors.trim() };
    if text.is_empty() {
        return String::new();
    }
    let lines: Vec<_> = text.lines().collect();
    format!(":\n{}", lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_can_be_pasted_into_a_shell() {
        let mut command = Command::new("qemu");
        command.args(["-append", "console=ttyS0 quiet", "-kernel", "a'b", ""]);
        assert_eq!(command_line(&command), r"qemu -append 'console=ttyS0 quiet' -kernel 'a'\''b' ''");
    }

    #[test]
    fn each_warning_of_the_compiler_is_shown_once() {
        let printed = "   Compiling a v1\nwarning: unstable feature `sse2`\n  |\n  = note: this will be an error\n\n\
            warning: unstable feature `sse2`\n  |\n  = note: this will be an error\n\n\
            warning: `a` (lib) generated 1 warning\n    Finished\n";
        assert_eq!(warnings(printed), ["warning: unstable feature `sse2`\n  |\n  = note: this will be an error"]);
        assert!(warnings("    Finished in 1 s\n").is_empty());
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
}
