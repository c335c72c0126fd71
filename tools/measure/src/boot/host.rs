//! The machine that measures, described for the report.

use std::process::Command;

use serde::Serialize;
use xtask::packages::QEMU_PROGRAM;
use xtask::progress::run_quietly;
use xtask::qemu;

/// The machine that measured.
#[derive(Debug, Clone, Serialize)]
pub struct Host {
    /// The kernel's release and the machine, as `uname -srm` prints them.
    pub system: String,
    pub qemu: String,
    /// A remark about its KVM.
    pub kvm: &'static str,
}

/// Describes this machine.
pub fn describe() -> Host {
    Host { system: printed(Command::new("uname").arg("-srm")), qemu: qemu_build(), kvm: kvm() }
}

/// The time in UTC.
pub fn date() -> String {
    printed(Command::new("date").args(["--utc", "+%Y-%m-%dT%H:%M:%SZ"]))
}

/// QEMU's version and package: "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)". Empty if there is none.
pub fn qemu_build() -> String {
    printed(Command::new(QEMU_PROGRAM).arg("--version")).lines().next().unwrap_or_default().to_owned()
}

/// A remark about this machine's KVM for the reader of a report.
fn kvm() -> &'static str {
    match (qemu::kvm_opens(), qemu::virtualization_flag().is_some()) {
        (false, _) => "This machine has no KVM, so exits were not counted.",
        (true, true) => "",
        (true, false) => {
            "This machine's KVM works without vmx and svm, and emulates part of the firmware: its exits are those of other \
             machines, but its times are not."
        }
    }
}

/// What the command prints. Empty if it fails.
fn printed(command: &mut Command) -> String {
    run_quietly(command).unwrap_or_default().trim().to_owned()
}
