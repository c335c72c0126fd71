//! `cargo xtask compare --disk`: what a boot from disk costs, up to a text on the serial console.
//!
//! A plugin of QEMU counts instructions (`boot/count.c`), the trace has the accesses to devices, and QEMU's monitor the requests
//! to the disk. QEMU ends some milliseconds after the text, in which a guest executes up to ten million instructions.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;
use xtask::disk::{Bus, Disk};
use xtask::packages::{self, QEMU_PROGRAM};
use xtask::progress::{run_quietly, say, step};
use xtask::qemu::{Accelerator, Launch};
use xtask::{child, elf_file, image};

use super::firmware::Choice;
use crate::boot::trace::{self, Event};
use crate::numbers::{grouped, millions, shown};

/// The plugin's source, for `cc`.
const PLUGIN: &str = include_str!("../boot/count.c");
/// The end of the addresses at which the image is linked (`linker.ld`).
const OWN_END: u64 = 0xffff_ffff_c000_0000;

/// What the test disks print first in user space.
pub const TEXT: &str = "firstlight-guest: booted from disk";

/// The time limit of a boot. It is several times slower than other boots.
const LIMIT: Duration = Duration::from_secs(600);

/// What is measured.
pub struct Boots<'a> {
    pub firmware: &'a [Choice],
    pub disks: &'a [PathBuf],
    pub bus: Option<Bus>,
    pub machine: &'a str,
    pub memory: &'a str,
    /// The text at which a boot ends.
    pub text: &'a str,
}

/// What a boot costs.
struct Costs {
    /// Executed instructions, and those of this firmware among them.
    instructions: [u64; 2],
    /// The same when a loader has executed a few thousand instructions. `None` if none has.
    before_loader: Option<[u64; 2]>,
    /// Accesses to devices, and those until the loader.
    accesses: u64,
    accesses_before_loader: u64,
    /// Reads of the disk that reached QEMU.
    requests: u64,
}

/// Boots each disk with each firmware, and prints a table.
///
/// # Errors
/// If a disk is none, or QEMU or a compiler does not run. A firmware under which the text is not printed is no error.
pub fn run(boots: &Boots<'_>) -> anyhow::Result<()> {
    let of_file = |path: &PathBuf| {
        let disk = Disk::of_file(path, boots.bus, boots.machine);
        Ok(disk.with_context(|| format!("--disk {}", path.display()))?.discarding())
    };
    let disks: Vec<_> = boots.disks.iter().map(of_file).collect::<anyhow::Result<_>>()?;
    packages::ensure(&[packages::QEMU, packages::COMPILER])?;
    let built = if boots.firmware.iter().any(Choice::is_own) { Some(image::build()?) } else { None };
    let folder = tempfile::tempdir()?;
    let plugin = plugin(folder.path())?;
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header([
        "disk",
        "firmware",
        "instructions, M",
        "of the firmware, M",
        "to the loader, M",
        "accesses",
        "to the loader",
        "reads of the disk",
    ]);
    for disk in disks {
        for firmware in boots.firmware {
            let Ok(image) = firmware.image(boots.machine, built.as_ref().map(|image| image.bin.as_path())) else {
                say(&format!("{}: missing", firmware.name()));
                continue;
            };
            let step = step(&format!("Booting {} with {}", disk.name(), firmware.name()));
            let result = boot(boots, &disk, firmware, &image, &plugin, folder.path())?;
            step.done();
            let mut words = vec![disk.name(), firmware.name()];
            words.extend(match result {
                Ok(costs) => costs.words(firmware.is_own()),
                Err(why) => {
                    say(&format!("{}: {why}", firmware.name()));
                    vec!["the text was not printed".to_owned()]
                }
            });
            table.add_row(words);
        }
    }
    println!("{table}");
    if let Some(image) = built {
        println!("\nMeasured: {}.", image.version.name());
    }
    Ok(())
}

/// Compiles the plugin.
fn plugin(folder: &Path) -> anyhow::Result<PathBuf> {
    let (source, plugin) = (folder.join("count.c"), folder.join("count.so"));
    fs::write(&source, PLUGIN)?;
    let version =
        if packages::qemu_version(Path::new(QEMU_PROGRAM)).is_some_and(|(major, _)| major >= 9) { 2 } else { 1 };
    let start = OWN_END - elf_file::LIMIT as u64;
    let mut cc = Command::new(packages::COMPILER.program);
    cc.args(["-O2", "-shared", "-fPIC", &format!("-DVERSION={version}")]);
    cc.args([format!("-DOWN_START={start:#x}ULL"), format!("-DOWN_END={OWN_END:#x}ULL"), "-o".to_owned()]);
    run_quietly(cc.args([&plugin, &source]))?;
    Ok(plugin)
}

/// Boots once. The inner error says why the text did not appear.
fn boot(
    boots: &Boots<'_>,
    disk: &Disk,
    firmware: &Choice,
    image: &Path,
    plugin: &Path,
    folder: &Path,
) -> anyhow::Result<Result<Costs, String>> {
    let (log, monitor) = (folder.join("log"), folder.join("monitor"));
    let mut extra: Vec<_> = ["-nodefaults", "-d", "plugin"].map(Into::into).into();
    extra.extend(["-plugin".into(), plugin.as_os_str().to_owned(), "-D".into(), log.clone().into_os_string()]);
    extra.extend([trace::STATE, trace::ACCESSES].iter().flat_map(|event| ["-trace".into(), (*event).into()]));
    extra.extend(["-monitor".into(), format!("unix:{},server=on,wait=off", monitor.display()).into()]);
    extra.extend(firmware.options().iter().map(Into::into));
    let launch = Launch {
        machine: boots.machine.to_owned(),
        memory: boots.memory.to_owned(),
        cpus: 1,
        accelerator: Accelerator::Tcg,
        dma: true,
        efi: None,
        log: false,
        gdb: false,
        terminal: false,
        firmware: image.to_owned(),
        kernel: None,
        initrd: None,
        append: String::new(),
        disk: disk.arguments(boots.machine),
        extra,
    };
    let mut command = child::tied(&launch.command());
    let mut qemu = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start QEMU")?;
    let output = qemu.stdout.take().context("QEMU has no output")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(output).split(b'\n').map_while(Result::ok);
        for line in lines.map(|line| String::from_utf8_lossy(&line).into_owned()) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let (end, mut last) = (Instant::now() + LIMIT, String::new());
    let reached = loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) if line.contains(boots.text) => break true,
            Ok(line) => last = line,
            Err(_) => break false,
        }
    };
    let answer = if reached { ask(&monitor).unwrap_or_default() } else { String::new() };
    // The plugin prints its counts when QEMU ends in order.
    let killed = if reached { Ok(()) } else { qemu.kill() };
    killed.and_then(|()| qemu.wait()).context("cannot end QEMU")?;
    if !reached {
        return Ok(Err(format!("did not print {:?}; its last line: {}", boots.text, last.trim_end().escape_debug())));
    }
    let log = fs::File::open(&log).context("QEMU has no log")?;
    Ok(Ok(Costs::of(BufReader::new(log).split(b'\n').map_while(Result::ok), requests(&answer))?))
}

/// Asks QEMU for what the disk has done, and ends it. Returns its answer.
fn ask(monitor: &Path) -> anyhow::Result<String> {
    let mut monitor = UnixStream::connect(monitor)?;
    monitor.write_all(b"info blockstats\nquit\n")?;
    let mut answer = Vec::new();
    // The connection may end with an error, when QEMU does.
    let _ = monitor.read_to_end(&mut answer);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The reads in "disk (#block1): rd_bytes=1024 wr_bytes=0 rd_operations=2 …".
fn requests(answer: &str) -> u64 {
    let line = answer.lines().find(|line| line.starts_with("disk"));
    let words = line.into_iter().flat_map(str::split_whitespace);
    words.filter_map(|word| word.strip_prefix("rd_operations=")?.parse::<u64>().ok()).sum()
}

impl Costs {
    /// From the lines of the log: the trace, and what the plugin prints.
    fn of(lines: impl Iterator<Item = Vec<u8>>, requests: u64) -> anyhow::Result<Self> {
        let (mut accesses, mut loader, mut end) = (0, None, None);
        for line in lines {
            let line = String::from_utf8_lossy(&line);
            match line.strip_prefix("counted at ").and_then(|rest| rest.split_once(": ")) {
                Some((what, numbers)) => {
                    let counts = pair(numbers).context("the plugin's counts")?;
                    *(if what == "loader" { &mut loader } else { &mut end }) = Some((counts, accesses));
                }
                None if matches!(trace::parse(&line), Some(line) if matches!(line.event, Event::Access(_))) => {
                    accesses += 1
                }
                None => {}
            }
        }
        let (instructions, accesses) = end.context("the plugin has printed no counts")?;
        ensure!(instructions[0] > 0, "the plugin has counted nothing");
        Ok(Self {
            instructions,
            before_loader: loader.map(|(counts, _)| counts),
            accesses,
            accesses_before_loader: loader.map_or(0, |(_, accesses)| accesses),
            requests,
        })
    }

    /// The cells of the table. What is before the loader is known of this firmware only.
    fn words(&self, is_own: bool) -> Vec<String> {
        let shown = |count| shown(millions(count));
        let own = |text: String| if is_own { text } else { "-".to_owned() };
        let [all, of_firmware] = self.instructions;
        let before = self.before_loader.map_or_else(|| "-".to_owned(), |[all, _]| shown(all));
        vec![
            shown(all),
            own(shown(of_firmware)),
            own(before),
            grouped(self.accesses),
            own(grouped(self.accesses_before_loader)),
            grouped(self.requests),
        ]
    }
}

/// Two numbers with a space between them.
fn pair(text: &str) -> Option<[u64; 2]> {
    let (all, own) = text.trim().split_once(' ')?;
    Some([all.parse().ok()?, own.parse().ok()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_counted_up_to_the_loader_and_up_to_the_end() {
        let access = "memory_region_ops_write cpu 0 mr 0x5 addr 0xcf8 value 0x8 size 4 name 'pci-conf-idx'";
        let log = [access, "counted at loader: 900 900", access, access, "counted at end: 5000 1000"];
        let costs = Costs::of(log.iter().map(|line| line.as_bytes().to_vec()), 7).unwrap();
        assert_eq!((costs.instructions, costs.before_loader), ([5000, 1000], Some([900, 900])));
        assert_eq!((costs.accesses, costs.accesses_before_loader, costs.requests), (3, 1, 7));
        assert!(Costs::of(log.iter().take(4).map(|line| line.as_bytes().to_vec()), 7).is_err());
    }

    #[test]
    fn the_requests_are_those_of_the_disk() {
        let answer =
            "(qemu) info blockstats\r\ndisk (#block1): rd_bytes=1024 wr_bytes=0 rd_operations=21 wr_operations=0\r\n";
        assert_eq!(requests(answer), 21);
        assert_eq!(requests(""), 0);
    }
}
