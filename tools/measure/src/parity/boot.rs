//! Boots the guest, two machines at a time, and returns what it printed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use xtask::packages::QEMU_PROGRAM;
use xtask::progress::{Rounds, command_line, parallel};

use super::list::Machine;
use super::transcript;
use crate::boot::process;

/// The guest's script.
const SCRIPT: &str = include_str!("guest.sh");

/// The time limit of a boot. On an idle host, it takes some seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// How many boots run at a time. More do not help on two CPUs, and disturb the guests' clocks.
const AT_ONCE: usize = 2;

/// The kernel's command line. It turns off random addresses and the measurement of the clock and the CPU: on an emulated CPU, the
/// results and the warnings about them depend on the host's load.
const COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 nokaslr lpj=10000000 tsc_early_khz=2500000 tsc=reliable no_timer_check \
    firstlight.mode=script";

/// A block device of zeros, for devices that need one.
const DISK: [&str; 2] = ["-blockdev", "driver=null-co,node-name=disk,read-zeroes=on,size=1048576"];

/// One boot.
#[derive(Debug)]
pub struct Boot<'a> {
    pub machine: &'a Machine,
    pub firmware: &'static str,
    /// The firmware's image for this machine.
    pub image: PathBuf,
}

/// The files of all boots.
pub struct Files<'a> {
    /// This firmware.
    pub image: &'a Path,
    pub kernel: &'a Path,
    pub initrd: &'a Path,
    /// The folder for the guests' output, if it is kept.
    pub keep: Option<&'a Path>,
}

/// Runs the boots. Returns their outputs, in order. Starts no other boot after one has failed.
pub fn all(boots: &[Boot<'_>], files: &Files<'_>) -> anyhow::Result<Vec<String>> {
    let progress = Rounds::start(boots.len());
    progress.round("Booting under SeaBIOS and under Firstlight");
    parallel(boots, AT_ONCE, |boot| {
        progress.next(&format!("{} under {}", boot.machine.name, boot.firmware));
        boot.run(files)
    })
}

impl Boot<'_> {
    /// Boots, and returns the output of the serial port.
    fn run(&self, files: &Files<'_>) -> anyhow::Result<String> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let (script, serial) = (folder.path().join("script"), folder.path().join("serial"));
        fs::write(&script, SCRIPT).context("cannot write the guest's script")?;
        let command = self.command(files, &script, &serial);
        let typed = command_line(&command);
        let ended = process::run(&command, LIMIT, |_| {})?;
        let printed = String::from_utf8_lossy(&fs::read(&serial).unwrap_or_default()).replace("\r\n", "\n");
        if let Some(folder) = files.keep {
            let path = folder.join(format!("{}-{}.txt", self.machine.name, self.firmware));
            fs::create_dir_all(folder)
                .and_then(|()| fs::write(&path, &printed))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        if ended.timed_out || !ended.status.success() || !transcript::is_complete(&printed) {
            let why = ended.failure("the end of its script", LIMIT);
            let (machine, firmware) = (&self.machine.name, self.firmware);
            bail!("{machine} under {firmware}: the guest {why}\n{typed}\n---- serial port\n{printed}\n----");
        }
        Ok(printed)
    }

    fn command(&self, files: &Files<'_>, script: &Path, serial: &Path) -> Command {
        let mut command = Command::new(QEMU_PROGRAM);
        command.args(["-no-user-config", "-display", "none", "-monitor", "none", "-parallel", "none", "-no-reboot"]);
        command.args(["-accel", "tcg", "-m", "512M"]).args(DISK).args(self.machine.arguments.split_whitespace());
        command.arg("-bios").arg(&self.image).arg("-kernel").arg(files.kernel).arg("-initrd").arg(files.initrd);
        command.args(["-append", COMMAND_LINE]);
        command.args(["-fw_cfg", &format!("name=opt/org.firstlight/script,file={}", doubled(script))]);
        command.args(["-chardev", &format!("file,id=com1,path={}", doubled(serial)), "-serial", "chardev:com1"]);
        command
    }
}

/// A path inside an option of QEMU, with its commas doubled.
fn doubled(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}
