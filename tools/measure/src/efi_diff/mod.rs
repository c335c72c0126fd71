//! `cargo xtask efi-diff`: boots disks under OVMF and under this firmware, and compares each call of the boot loaders.
//!
//! A program on a second disk (`tests/efi-app/src/bin/efi-trace`) starts the loader and prints each call that it, and what it
//! starts, makes, with the arguments and the result. The two lists of calls are aligned (`calls`). A call with another result, and
//! one that only one side has, is either in the list of intended differences, `tools/measure/efi-diff.toml`, or an error. An
//! unused entry of that list is an error too.
//!
//! Both disks are on the same controller: this firmware starts a controller only if its disks are tried, and then shows all of them.

mod calls;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Deserialize;
use xtask::packages::QEMU_PROGRAM;
use xtask::progress::{Rounds, command_line, parallel, run_step, say};
use xtask::{efi_app, image, packages, paths};

use crate::boot::process;
use crate::intended::{self, Entry};

/// The list of boots and intended differences, from the repository's top folder.
const LIST: &str = "tools/measure/efi-diff.toml";

/// The time limit of a boot. On an idle host, it takes some seconds.
const LIMIT: Duration = Duration::from_secs(300);

/// How many boots run at a time.
const AT_ONCE: usize = 2;

/// The port of the calls (`tests/efi-app/src/bin/efi-trace/line.rs`).
const PORT: &str = "isa-debugcon,iobase=0x4e9,chardev=calls";

/// Compare the calls of boot loaders, and their results, under OVMF and under this firmware
///
/// Boots the disks of `cargo xtask disks` under both, up to the end of boot services. Fails for a call with another result, and for
/// one that only one side has, that tools/measure/efi-diff.toml does not list, and for an entry of that list without a difference.
#[derive(clap::Args)]
pub struct Args {
    /// Boots to compare, such as a-sdboot257 [default: all]
    #[arg(value_name = "BOOTS")]
    boots: Vec<String>,

    /// Also show the intended differences, with their reasons
    #[arg(long)]
    intended: bool,

    /// Write the lists of calls to this folder
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

/// The list in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// The version of QEMU that it is for.
    qemu: String,
    boot: Vec<Boot>,
    intended: Vec<Entry>,
}

/// What is booted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Boot {
    name: String,
    /// The disk, if it does not have the same name.
    disk: Option<String>,
    #[serde(default)]
    bus: Bus,
    /// More of QEMU's arguments, separated by white space.
    #[serde(default)]
    arguments: String,
}

/// What the disks are on. A controller of virtio-blk has only one.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Bus {
    #[default]
    Ahci,
    Scsi,
    Nvme,
}

impl Bus {
    /// QEMU's devices: the controller, the tracer's disk, and the other disk.
    fn devices(self, is_cd: bool) -> [&'static str; 3] {
        match (self, is_cd) {
            // The machine has the controller.
            (Self::Ahci, false) => ["", "ide-hd,bus=ide.0", "ide-hd,bus=ide.1"],
            (Self::Ahci, true) => ["", "ide-hd,bus=ide.0", "ide-cd,bus=ide.1"],
            // OVMF does not find another target.
            (Self::Scsi, false) => ["virtio-scsi-pci", "scsi-hd,scsi-id=0,lun=0", "scsi-hd,scsi-id=0,lun=1"],
            (Self::Scsi, true) => ["virtio-scsi-pci", "scsi-hd,scsi-id=0,lun=0", "scsi-cd,scsi-id=0,lun=1"],
            (Self::Nvme, _) => ["nvme,serial=1", "nvme-ns,nsid=1", "nvme-ns,nsid=2"],
        }
    }
}

impl List {
    fn load() -> anyhow::Result<Self> {
        let text = fs::read_to_string(paths::root().join(LIST)).with_context(|| format!("cannot read {LIST}"))?;
        let list: Self = toml::from_str(&text).context(LIST)?;
        intended::check(&list.intended, &list.names()).context(LIST)?;
        Ok(list)
    }

    fn names(&self) -> Vec<&str> {
        self.boot.iter().map(|boot| boot.name.as_str()).collect()
    }
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let list = List::load()?;
    let names = list.names();
    if let Some(unknown) = args.boots.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("no boot has the name {unknown}; the boots are {}", names.join(", "));
    }
    let chosen: Vec<_> =
        list.boot.iter().filter(|boot| args.boots.is_empty() || args.boots.contains(&boot.name)).collect();
    packages::ensure(&[packages::QEMU, packages::OVMF])?;
    let ovmf = packages::OVMF.found().context("OVMF is not installed")?;
    let firmware = [("ovmf", ovmf), ("firstlight", image::build()?.bin)];
    let tracer = efi_app::prepare("efi-trace")?;
    let mut disks = paths::member("disks");
    disks.args(chosen.iter().map(|boot| boot.disk()));
    run_step("Making the disks", &mut disks)?;

    let start = Instant::now();
    let runs: Vec<_> = chosen.iter().flat_map(|boot| firmware.iter().map(move |side| (*boot, side))).collect();
    let progress = Rounds::start(runs.len());
    progress.round("Booting under OVMF and under Firstlight");
    let printed = parallel(&runs, AT_ONCE, |(boot, (side, firmware))| {
        progress.next(&format!("{} under {side}", boot.name));
        let keep = args.keep.as_ref().map(|folder| folder.join(format!("{}-{side}.txt", boot.name)));
        boot.run(firmware, &tracer, keep).with_context(|| format!("under {side}"))
    })?;
    let mut found = BTreeMap::new();
    for (boot, pair) in chosen.iter().zip(printed.chunks_exact(2)) {
        found.insert(boot.name.as_str(), calls::differences(&pair[0], &pair[1]));
    }
    let judgement = intended::judge(&list.intended, &names, &found);
    intended::print(&judgement, "OVMF", args.intended);
    let calls: usize = printed.iter().map(|text| text.lines().count()).sum();
    say(&format!("Compared {} boots with {calls} calls in {:.1} s.", chosen.len(), start.elapsed().as_secs_f64()));
    let (wrong, stale) = (judgement.unintended.len(), judgement.stale.len());
    let strict = intended::is_for_qemu(&list.qemu);
    if stale > 0 && !strict {
        say(&format!("Unused entries of {LIST} are no errors here: it is for another version of QEMU."));
    }
    if wrong > 0 || stale > 0 && strict {
        bail!("{wrong} differences are not in {LIST}, and {stale} of its entries are unused");
    }
    Ok(())
}

impl Boot {
    fn disk(&self) -> &str {
        self.disk.as_deref().unwrap_or(&self.name)
    }

    /// Boots, and returns the list of calls.
    fn run(&self, firmware: &Path, tracer: &Path, keep: Option<PathBuf>) -> anyhow::Result<String> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let (volume, calls) = (folder.path().join("volume"), folder.path().join("calls"));
        let program = volume.join("EFI/BOOT");
        fs::create_dir_all(&program)
            .and_then(|()| fs::copy(tracer, program.join("BOOTX64.EFI")))
            .context("cannot copy the program")?;
        let command = self.command(firmware, &volume, &calls)?;
        let ended = process::run(&command, LIMIT, |_| {})?;
        let printed = String::from_utf8_lossy(&fs::read(&calls).unwrap_or_default()).into_owned();
        if let Some(path) = keep {
            let parent = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(parent)
                .and_then(|()| fs::write(&path, &printed))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        if ended.timed_out || !calls::is_complete(&printed) {
            let why = ended.failure("the end of boot services", LIMIT);
            let last: Vec<_> = printed.lines().rev().take(10).collect();
            let last = last.into_iter().rev().collect::<Vec<_>>().join("\n");
            bail!("{}: the guest {why}\n{}\n---- the last calls\n{last}\n----", self.name, command_line(&command));
        }
        Ok(printed)
    }

    fn command(&self, firmware: &Path, volume: &Path, calls: &Path) -> anyhow::Result<Command> {
        let file = |end| paths::disks_folder().join(format!("{}.{end}", self.disk()));
        let mut files = [(file("img"), false), (file("iso"), true)].into_iter();
        let disk = files.find(|(file, _)| file.is_file());
        let (disk, is_cd) = disk.with_context(|| format!("there is no disk {}", self.disk()))?;
        let [controller, tracer, device] = self.bus.devices(is_cd);
        let mut command = Command::new(QEMU_PROGRAM);
        command.args(["-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"]);
        command.args(["-machine", "q35", "-accel", "tcg", "-m", "512M"]).arg("-bios").arg(firmware);
        // QEMU makes a FAT volume of the folder.
        let drives = [("tracer", format!("fat:rw:{}", volume.display())), ("disk", disk.display().to_string())];
        for ((id, file), snapshot) in drives.into_iter().zip(["off", "on"]) {
            let file = file.replace(',', ",,");
            command.args(["-drive", &format!("if=none,id={id},format=raw,snapshot={snapshot},file={file}")]);
        }
        command.args(["-device", controller].iter().filter(|_| !controller.is_empty()));
        command.args(["-device", &format!("{tracer},drive=tracer,bootindex=0")]);
        command.args(["-device", &format!("{device},drive=disk,bootindex=1")]);
        let calls = calls.display().to_string().replace(',', ",,");
        command.args(["-chardev", &format!("file,id=calls,path={calls}"), "-device", PORT]);
        command.args(self.arguments.split_whitespace());
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_list_can_be_read() {
        super::List::load().unwrap();
    }
}
