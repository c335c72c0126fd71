//! The machine that measures, described for the report.

use std::fs;
use std::num::NonZero;
use std::process::Command;

use serde::Serialize;
use xtask::packages::QEMU_PROGRAM;
use xtask::progress::run_quietly;
use xtask::qemu;

/// The machine that measured.
#[derive(Debug, Clone, Serialize)]
pub struct Host {
    /// The CPU's name.
    pub cpu: String,
    /// The number of CPUs.
    pub cpus: usize,
    /// The kernel's release.
    pub kernel: String,
    /// The distribution.
    pub system: String,
    /// QEMU's version.
    pub qemu: String,
    /// A remark about its KVM.
    pub kvm: String,
}

/// Describes this machine. A field that cannot be found out is empty.
pub fn describe() -> Host {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    Host {
        cpu: value(&read("/proc/cpuinfo"), "model name", ':'),
        cpus: std::thread::available_parallelism().map_or(1, NonZero::get),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        system: value(&read("/etc/os-release"), "PRETTY_NAME", '=').trim_matches('"').to_owned(),
        qemu: qemu_build(),
        kvm: kvm().to_owned(),
    }
}

/// The time in UTC.
pub fn date() -> String {
    printed(Command::new("date").args(["--utc", "+%Y-%m-%dT%H:%M:%SZ"])).trim().to_owned()
}

/// QEMU's version and package: "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)". Empty if there is none.
pub fn qemu_build() -> String {
    printed(Command::new(QEMU_PROGRAM).arg("--version")).lines().next().unwrap_or_default().to_owned()
}

/// A remark about this machine's KVM for the reader of a report.
fn kvm() -> &'static str {
    match (qemu::kvm_opens(), qemu::cpu_virtualizes()) {
        (false, _) => "This machine has no KVM, so exits were not counted.",
        (true, true) => "",
        (true, false) => {
            "This machine's KVM works without vmx and svm, and emulates part of the firmware: its exits are those of other \
             machines, but its times are not."
        }
    }
}

fn printed(command: &mut Command) -> String {
    run_quietly(command).unwrap_or_default()
}

/// The value of the first line "key SEPARATOR value".
fn value(text: &str, key: &str, separator: char) -> String {
    let mut pairs = text.lines().filter_map(|line| line.split_once(separator));
    pairs.find(|(name, _)| name.trim() == key).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}
