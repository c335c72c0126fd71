//! Runs QEMU with a time limit, so that it never outlives the measurement. However this program ends, QEMU ends with it
//! (`child`).

use std::io::Read;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use xtask::child;

/// How much of the end of an output is kept.
const KEPT: usize = 4096;

/// A running QEMU. Dropping it ends it.
pub struct Running {
    child: Child,
    pid: Pid,
    /// When it was started.
    pub started: SystemTime,
    stdout: Option<JoinHandle<Output>>,
    stderr: Option<JoinHandle<Output>>,
    reaped: bool,
}

/// The last of what a program printed.
#[derive(Debug, Default)]
pub struct Output(Vec<u8>);

/// How QEMU ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// When it was started.
    pub started: SystemTime,
    /// When it had ended.
    pub ended: SystemTime,
    /// Whether it was ended because its time was up.
    pub timed_out: bool,
    /// What the guest printed on its serial port.
    pub serial: Output,
    /// What QEMU printed on its standard error, if that was not read by someone else.
    pub messages: Output,
}

impl Running {
    /// Starts QEMU. Its standard output is the guest's serial port; its standard error is left to the caller where
    /// `take_stderr` asks for that. It ends with the calling thread.
    pub fn start(command: &Command, take_stderr: bool) -> anyhow::Result<(Self, Option<ChildStderr>)> {
        let mut command = child::tied(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = SystemTime::now();
        let mut child = command.spawn().context("cannot start QEMU")?;
        let number = i32::try_from(child.id()).context("a process number out of range")?;
        let stdout = child.stdout.take().map(|pipe| std::thread::spawn(move || collect(pipe)));
        let taken = if take_stderr { child.stderr.take() } else { None };
        let stderr = child.stderr.take().map(|pipe| std::thread::spawn(move || collect(pipe)));
        Ok((Self { child, pid: Pid::from_raw(number), started, stdout, stderr, reaped: false }, taken))
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until QEMU has ended, and ends it when `limit` is over.
    pub fn wait(mut self, limit: Duration) -> anyhow::Result<Ended> {
        let watch = Watch::start(self.pid, limit);
        // It stays there as a zombie, so that its number cannot name another process while it may still be killed.
        waitid(Id::Pid(self.pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).context("cannot wait for QEMU")?;
        let ended = SystemTime::now();
        let timed_out = watch.stop();
        self.reaped = true;
        let status = self.child.wait().context("cannot wait for QEMU")?;
        let output =
            |thread: Option<JoinHandle<Output>>| thread.and_then(|thread| thread.join().ok()).unwrap_or_default();
        let (serial, messages) = (output(self.stdout.take()), output(self.stderr.take()));
        Ok(Ended { status, started: self.started, ended, timed_out, serial, messages })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Ends a process when its time is over.
pub struct Watch {
    stop: mpsc::Sender<()>,
    thread: JoinHandle<bool>,
}

impl Watch {
    /// Starts to watch.
    pub fn start(pid: Pid, limit: Duration) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let late = stopped.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                let _ = kill(pid, Signal::SIGKILL);
            }
            late
        });
        Self { stop, thread }
    }

    /// Ends the watch, before the process is reaped. Returns whether its time was over.
    pub fn stop(self) -> bool {
        let _ = self.stop.send(());
        self.thread.join().unwrap_or(false)
    }
}

/// Reads all that comes, and keeps the last of it.
fn collect(mut from: impl Read) -> Output {
    let mut tail = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        tail.extend(&buffer[..read]);
        let excess = tail.len().saturating_sub(KEPT);
        tail.drain(..excess);
    }
    Output(tail)
}

impl Output {
    /// The last line with something on it that is no warning.
    pub fn last_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.0);
        let text = console::strip_ansi_codes(&text);
        // QEMU warns of much that does no harm.
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty() && !line.contains("warning: "))?;
        // The guest wrote it: nothing in it may reach the terminal as a control code.
        Some(line.chars().filter(|c| !c.is_control()).take(200).collect())
    }
}

impl Ended {
    /// Why a measurement is not there, for a user.
    pub fn failure(&self, goal: &str, limit: Duration) -> String {
        let words = self.serial.last_line().or_else(|| self.messages.last_line());
        let words = words.map(|line| format!("; last words: {line}")).unwrap_or_default();
        if self.timed_out {
            format!("did not reach {goal} within {} s{words}", limit.as_secs())
        } else {
            format!("ended without reaching {goal} (QEMU: {}){words}", self.status)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_hangs_is_ended() {
        let (running, _) = Running::start(Command::new("sh").args(["-c", "echo words; exec sleep 60"]), false).unwrap();
        let pid = running.pid();
        let ended = running.wait(Duration::from_millis(200)).unwrap();
        assert!(ended.timed_out);
        assert!(ended.failure("the kernel", Duration::from_secs(1)).ends_with("last words: words"));
        assert!(kill(pid, None).is_err(), "it is still there");
    }
}
