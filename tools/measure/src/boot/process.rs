//! Runs QEMU with a time limit, so that it never outlives the measurement. However this program ends, QEMU ends with it
//! (`xtask::child`).

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use wait_timeout::ChildExt as _;
use xtask::child;
use xtask::qemu::Launch;

/// How many bytes of the end of an output are kept.
const KEPT: usize = 4096;

/// How QEMU ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    /// When it was started.
    pub started: SystemTime,
    /// Whether it was ended because its time was over.
    pub timed_out: bool,
    /// The end of the output of the guest's serial port.
    pub serial: Vec<u8>,
    /// The last line of QEMU's standard error that is a message for the user.
    pub message: Option<String>,
}

/// Runs QEMU, and ends it after `limit`. Its standard output is the guest's serial port. Each line of its standard error goes to
/// `each_message`.
pub fn run(command: &Command, limit: Duration, mut each_message: impl FnMut(&str) + Send) -> anyhow::Result<Ended> {
    let mut command = child::tied(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = SystemTime::now();
    let mut child = command.spawn().context("cannot start QEMU")?;
    let stdout = child.stdout.take().context("QEMU has no standard output")?;
    let stderr = child.stderr.take().context("QEMU has no standard error")?;
    std::thread::scope(|scope| {
        let serial = scope.spawn(|| end_of(stdout));
        let message = scope.spawn(move || {
            let mut last = None;
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line);
                each_message(&line);
                last = Some(line).filter(|line| line.starts_with("qemu")).and_then(|line| last_line(&line)).or(last);
            }
            last
        });
        let status = child.wait_timeout(limit).context("cannot wait for QEMU")?;
        if status.is_none() {
            child.kill().context("cannot end QEMU")?;
        }
        let timed_out = status.is_none();
        let status = status.map_or_else(|| child.wait(), Ok).context("cannot wait for QEMU")?;
        let serial = serial.join().unwrap_or_default();
        Ok(Ended { status, started, timed_out, serial, message: message.join().unwrap_or_default() })
    })
}

/// Runs QEMU as [`run`], with a log of these trace events. Returns the log too.
pub fn run_with_log(launch: &Launch, events: &[&str], limit: Duration) -> anyhow::Result<(Ended, String)> {
    let log = tempfile::NamedTempFile::new()?;
    let mut command = launch.command();
    command.arg("-D").arg(log.path()).args(events.iter().flat_map(|event| ["-trace", event]));
    let ended = run(&command, limit, |_| {})?;
    let text = fs::read(log.path()).context("cannot read QEMU's log")?;
    Ok((ended, String::from_utf8_lossy(&text).into_owned()))
}

/// Reads everything, and keeps the end.
fn end_of(mut from: impl Read) -> Vec<u8> {
    let mut tail = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        tail.extend(&buffer[..read]);
        tail.drain(..tail.len().saturating_sub(KEPT));
    }
    tail
}

/// The last line that is neither empty nor a warning. Most of QEMU's warnings are harmless.
fn last_line(text: &str) -> Option<String> {
    let text = console::strip_ansi_codes(text);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty() && !line.contains("warning: "))?;
    // The line may be the guest's, so no control code of it may reach the terminal.
    Some(line.chars().filter(|c| !c.is_control()).take(200).collect())
}

impl Ended {
    /// Why there is no result, for the user.
    pub fn failure(&self, goal: &str, limit: Duration) -> String {
        let line = last_line(&String::from_utf8_lossy(&self.serial)).or_else(|| self.message.clone());
        let line = line.map(|line| format!("; its last line: {line}")).unwrap_or_default();
        if self.timed_out {
            format!("did not reach {goal} within {} s{line}", limit.as_secs())
        } else {
            format!("ended without reaching {goal} (QEMU: {}){line}", self.status)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_ended() {
        let mut hangs = Command::new("sh");
        hangs.args(["-c", "echo words; echo qemu: one >&2; echo two >&2; exec sleep 60"]);
        let (mut messages, limit) = (Vec::new(), Duration::from_millis(500));
        let ended = run(&hangs, limit, |line| messages.push(line.to_owned())).unwrap();
        assert!(ended.timed_out && ended.started.elapsed().unwrap() < Duration::from_secs(30));
        assert!(ended.failure("the kernel", limit).ends_with("its last line: words"));
        assert_eq!(
            (messages, ended.message),
            (vec!["qemu: one".to_owned(), "two".to_owned()], Some("qemu: one".to_owned()))
        );
    }
}
