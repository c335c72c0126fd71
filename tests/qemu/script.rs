//! Commands in a guest with a distribution's kernel, `dmidecode` and `lspci`.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::environment;
use crate::linux::LATE_TIMERS;
use crate::machine::{Kind, Machine, Qemu};

/// What the guest prints before and after a script.
const BEGIN: &str = "firstlight-guest: script: begins\r\n";
const END: &str = "firstlight-guest: script: ended with ";

/// The guest's command line.
pub fn command_line() -> String {
    format!("console=ttyS0 quiet {LATE_TIMERS} panic=-1 firstlight.mode=script")
}

/// Boots the machine with the distribution's kernel, runs a shell script in it as root, and returns what that printed, with
/// lines that end in `\n`.
///
/// # Panics
/// If the guest does not get that far, or the script's last command fails.
pub fn run(machine: &Machine, script: &str) -> String {
    run_with(machine, script, |_| ())
}

/// As [`run`], with something done to the machine while the script runs.
pub fn run_with(machine: &Machine, script: &str, meanwhile: impl FnOnce(&mut Qemu)) -> String {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("script");
    fs::write(&file, script).expect("a file in the temporary folder");
    let mut qemu = guest(machine, &file).start();
    meanwhile(&mut qemu);
    qemu.wait_for_end();
    let com1 = qemu.com1();
    let printed = com1.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    let (output, status) = printed.expect("the script's first and last line");
    assert!(status.starts_with("0\r\n"), "the script failed");
    output.replace("\r\n", "\n")
}

/// The machine with a guest that runs the script in `file`: the distribution's kernel, unless the machine has one.
pub fn guest(machine: &Machine, file: &Path) -> Machine {
    let machine = Machine {
        kernel: machine.kernel.clone().or_else(|| Some(environment::kernel())),
        initrd: Some(environment::initrd_with_tools()),
        append: Some(command_line()),
        ..machine.clone()
    };
    machine.with(&format!("-fw_cfg name=opt/org.firstlight/script,file={}", file.display()))
}

#[test]
fn dmidecode_and_lspci_run_in_the_guest() {
    let printed = run(&Machine::new(Kind::Q35), "dmidecode -s bios-vendor && lspci -n -s 00:1f.0");
    assert_eq!(printed, "Firstlight\n00:1f.0 0601: 8086:2918 (rev 02)\n");
}
