//! Reads the trace points that a firmware emits, on the ports and with the codes of qboot and qemu-boot-time.
//!
//! This firmware emits them when the host gives it the item `opt/org.firstlight/trace`. Each port has a debug console
//! of QEMU, whose bytes come through a FIFO and get their time here.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc;
use std::time::SystemTime;

use anyhow::Context as _;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde::Serialize;

use super::counts::Attempt;
use super::process::Running;
use super::scenario::{PayloadFiles, Scenario};
use super::stats::millis;
use super::timing;

/// The port of the firmware's codes, and that of the kernel's (qboot, `include/benchmark.h`).
const PORTS: [u16; 2] = [0xf5, 0xf4];

/// A trace point that was emitted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// The port.
    pub port: u16,
    /// The code.
    pub code: u8,
    /// Milliseconds from the start of QEMU's process.
    pub at: f64,
}

impl Point {
    /// What the code stands for (qboot, `include/benchmark.h`; qemu-boot-time, `README.md`).
    pub fn meaning(&self) -> &'static str {
        match (self.port, self.code) {
            (0xf5, 1) => "firmware starts",
            (0xf5, 5) => "firmware is set up",
            (0xf4, 2) => "kernel is loaded from fw_cfg",
            (0xf4, 3) => "kernel is entered",
            (0xf4, 4) => "PVH kernel is entered",
            (0xf4, 6) => "kernel runs",
            (0xf4, 7) => "user space runs",
            _ => "other",
        }
    }
}

/// Runs QEMU once and hands over the trace points. A firmware that has none gives none.
///
/// # Errors
/// The outer one when QEMU cannot be run at all; the inner one when its run did not end by itself.
pub fn read(scenario: &Scenario, firmware: &Path, payload: &PayloadFiles) -> Attempt<Vec<Point>> {
    let folder = tempfile::tempdir()?;
    let mut launch = scenario.launch(firmware, payload);
    launch.extra.extend(["-fw_cfg".into(), "name=opt/org.firstlight/trace,string=on".into()]);
    let (sender, receiver) = mpsc::channel();
    let mut ends = Vec::new();
    for port in PORTS {
        let path = folder.path().join(format!("port-{port:x}"));
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).context("cannot make a FIFO")?;
        // Opened for writing too, so that the opening does not wait for QEMU, and kept until QEMU has ended, so that
        // the reader does not see an end before QEMU has opened its own.
        let fifo = File::options().read(true).write(true).open(&path).context("cannot open a FIFO")?;
        let reader = fifo.try_clone().context("cannot open a FIFO")?;
        let sender = sender.clone();
        std::thread::spawn(move || stamp(reader, port, &sender));
        ends.push(fifo);
        launch.extra.extend(["-chardev".into(), format!("file,id=port-{port:x},path={}", path.display()).into()]);
        launch.extra.extend(["-device".into(), format!("isa-debugcon,iobase={port:#x},chardev=port-{port:x}").into()]);
    }
    drop(sender);
    let limit = timing::limit(scenario);
    let (running, _) = Running::start(&mut launch.command(), false)?;
    let ended = running.wait(limit)?;
    for mut end in ends {
        // The reader's last byte: no firmware emits it.
        std::io::Write::write_all(&mut end, &[END]).context("cannot write to a FIFO")?;
    }
    let mut points: Vec<_> = receiver
        .into_iter()
        .map(|(port, code, time)| Point {
            port,
            code,
            at: millis(time.duration_since(ended.started).unwrap_or_default()),
        })
        .collect();
    points.sort_by(|a, b| a.at.total_cmp(&b.at));
    Ok(if ended.timed_out { Err(ended.failure("its end", limit)) } else { Ok(points) })
}

/// What this tool writes behind the last code.
const END: u8 = 0xff;

fn stamp(mut from: impl Read, port: u16, to: &mpsc::Sender<(u16, u8, SystemTime)>) {
    let mut buffer = [0; 64];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let now = SystemTime::now();
        for code in &buffer[..read] {
            if *code == END || to.send((port, *code, now)).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stamped_up_to_the_end() {
        let (sender, receiver) = mpsc::channel();
        stamp([1, 5, END, 2].as_slice(), 0xf5, &sender);
        drop(sender);
        let codes: Vec<_> = receiver.into_iter().map(|(port, code, _)| (port, code)).collect();
        assert_eq!(codes, [(0xf5, 1), (0xf5, 5)]);
    }

    #[test]
    fn codes_have_their_names() {
        let meaning = |port, code| Point { port, code, at: 0.0 }.meaning();
        assert_eq!(meaning(0xf5, 1), "firmware starts");
        assert_eq!(meaning(0xf4, 3), "kernel is entered");
        assert_eq!(meaning(0xf5, 3), "other");
    }
}
