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

/// How many bytes of the end of an output are kept.
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

/// The end of a program's output.
#[derive(Debug, Default)]
pub struct Output(Vec<u8>);

/// How QEMU ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// When it was started.
    pub started: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// Whether it was ended because its time was over.
    pub timed_out: bool,
    /// The output of the guest's serial port.
    pub serial: Output,
    /// QEMU's standard error, unless the caller has taken it.
    pub messages: Output,
}

impl Running {
    /// Starts QEMU, which ends with the calling thread. Its standard output is the guest's serial port. With `take_stderr`, the
    /// caller gets its standard error.
    pub fn start(command: &Command, take_stderr: bool) -> anyhow::Result<(Self, Option<ChildStderr>)> {
        let mut command = child::tied(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = SystemTime::now();
        let mut child = command.spawn().context("cannot start QEMU")?;
        let number = i32::try_from(child.id()).context("QEMU's process number is out of range")?;
        let stdout = child.stdout.take().map(|pipe| std::thread::spawn(move || collect(pipe)));
        let taken = if take_stderr { child.stderr.take() } else { None };
        let stderr = child.stderr.take().map(|pipe| std::thread::spawn(move || collect(pipe)));
        Ok((Self { child, pid: Pid::from_raw(number), started, stdout, stderr, reaped: false }, taken))
    }

    /// Its process number.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Waits until QEMU ends, and ends it after `limit`.
    pub fn wait(mut self, limit: Duration) -> anyhow::Result<Ended> {
        let watch = Watch::start(self.pid, limit);
        // It stays a zombie, so that no other process gets its number while the watch may still kill it.
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
    /// Starts the watch.
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

    /// Ends the watch. To be called before the process is reaped. Returns whether its time was over.
    pub fn stop(self) -> bool {
        let _ = self.stop.send(());
        self.thread.join().unwrap_or(false)
    }
}

/// Reads everything, and keeps the end.
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
    /// The last line that is neither empty nor a warning.
    pub fn last_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.0);
        let text = console::strip_ansi_codes(&text);
        // Most of QEMU's warnings are harmless.
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty() && !line.contains("warning: "))?;
        // The line may be the guest's, so no control code of it may reach the terminal.
        Some(line.chars().filter(|c| !c.is_control()).take(200).collect())
    }
}

impl Ended {
    /// Why there is no result, for the user.
    pub fn failure(&self, goal: &str, limit: Duration) -> String {
        let words = self.serial.last_line().or_else(|| self.messages.last_line());
        let words = words.map(|line| format!("; its last line: {line}")).unwrap_or_default();
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
        assert!(ended.failure("the kernel", Duration::from_secs(1)).ends_with("its last line: words"));
        assert!(kill(pid, None).is_err(), "it is still there");
    }
}
