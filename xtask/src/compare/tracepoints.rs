//! Reads the trace points that a firmware emits, on the ports and with the codes of qboot and qemu-boot-time.
//!
//! This firmware emits them when the host gives it the item `opt/org.firstlight/trace`. The ports need no device: QEMU's
//! trace has every write to any port, with its time. That costs a little time itself, so the points come from a run of
//! their own, not from one of those that are compared.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use serde::Serialize;

use super::counts::Attempt;
use super::process::Running;
use super::scenario::{PayloadFiles, Scenario};
use super::stats::millis;
use super::timing;
use super::trace::{self, Event};

/// The port of the firmware's codes, and that of the kernel's (qboot, `include/benchmark.h`).
const PORTS: [u64; 2] = [0xf5, 0xf4];

/// A trace point that was emitted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// The port.
    pub port: u64,
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
pub fn read(scenario: &Scenario, firmware: &Path, payload: &PayloadFiles, log: &Path) -> Attempt<Vec<Point>> {
    let mut launch = timing::launch(scenario, firmware, payload, log);
    launch.extra.extend(["-fw_cfg", "name=opt/org.firstlight/trace,string=on"].map(Into::into));
    launch.extra.extend(["-trace", trace::WRITES].map(Into::into));
    let limit = timing::limit(scenario);
    std::fs::write(log, "").with_context(|| format!("cannot write {}", log.display()))?;
    let (running, _) = Running::start(&launch.command(), false)?;
    let ended = running.wait(limit)?;
    let text = std::fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    let started = ended.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let points = points(&String::from_utf8_lossy(&text), started);
    Ok(if ended.timed_out { Err(ended.failure("its end", limit)) } else { Ok(points) })
}

/// The trace points in a trace. `started` is when the process was started.
fn points(trace: &str, started: Duration) -> Vec<Point> {
    let point = |line: trace::Line<'_>| {
        let Event::Access(access) = line.event else { return None };
        let code = u8::try_from(access.value).ok()?;
        let port = PORTS.into_iter().find(|port| access.write && access.address == *port)?;
        Some(Point { port, code, at: millis(line.time?.checked_sub(started)?) })
    };
    trace.lines().filter_map(trace::parse).filter_map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_points_are_the_writes_to_their_ports() {
        let trace = "\
7@100.001000:vm_state_notify running 1 reason 9 (running)
9@100.001500:memory_region_ops_write cpu 0 mr 0x5 addr 0xf5 value 0x1 size 1 name 'io'
9@100.001600:memory_region_ops_write cpu 0 mr 0x5 addr 0xcf8 value 0x80000000 size 4 name 'pci-conf-idx'
9@100.002000:memory_region_ops_write cpu 0 mr 0x5 addr 0xf4 value 0x3 size 1 name 'io'
";
        let points = points(trace, Duration::from_secs(100));
        let found: Vec<_> = points.iter().map(|point| (point.port, point.code, point.at)).collect();
        assert_eq!(found, [(0xf5, 1, 1.5), (0xf4, 3, 2.0)]);
    }

    #[test]
    fn codes_have_their_names() {
        let meaning = |port, code| Point { port, code, at: 0.0 }.meaning();
        assert_eq!(meaning(0xf5, 1), "firmware starts");
        assert_eq!(meaning(0xf4, 3), "kernel is entered");
        assert_eq!(meaning(0xf5, 3), "other");
    }
}
