//! `cargo xtask run`: boots a kernel with the image in QEMU.
//!
//! With a terminal this process becomes QEMU, so that keys, signals and the exit code are QEMU's own and nothing is left
//! behind. Without one it stays, passes the serial output on, and ends a guest that does not end by itself. However this
//! program ends, QEMU ends with it.

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::progress::{command_line, say, shell_word};
use crate::qemu::{self, Launch, Request};
use crate::{child, guest, image, packages, paths};

/// The last line of the default guest's report.
const REPORT_END: &str = "firstlight-guest: done";

/// What the firmware's own errors start with; it stops after one.
const FIRMWARE_ERROR: &str = "firstlight: error:";

/// How long the firmware's last words may take after its error.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The longest line of serial output that is looked at.
const MAX_LINE: usize = 4096;

/// Boot Linux in QEMU with the firmware image
///
/// Installs what is missing, builds the image, fetches the default guest, and boots it with the serial console on the
/// terminal. On a terminal the guest gives a shell; leaving it powers off, and Ctrl-A X ends QEMU at once. Without a
/// terminal (in a script, with the output in a file or a pipe) the guest prints a short report and powers off.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask run                                      boot the default guest on q35
  cargo xtask run --machine pc --smp 2 --memory 6G
  cargo xtask run --kernel bzImage --initrd rootfs.cpio --append 'loglevel=7'
  cargo xtask run --gdb                                wait for gdb before the first instruction
  cargo xtask run -- -drive file=disk.img,if=virtio,format=raw")]
pub struct Args {
    /// Kernel to boot (a bzImage) [default: Debian's cloud kernel, downloaded into target/guest; where apt does not
    /// have it, the newest /boot/vmlinuz-*]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// Initramfs to boot with [default: the default guest's; none when --kernel is given]
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,

    /// Words to add to the kernel command line, after `console=ttyS0 quiet`
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    append: Option<String>,

    /// QEMU's machine type, such as q35 or pc
    #[arg(long, value_name = "TYPE", default_value = "q35")]
    machine: String,

    /// The guest's memory: a number and K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = qemu::parse_memory)]
    memory: String,

    /// How many CPUs the guest has
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    smp: u16,

    /// What executes the guest's instructions; auto takes KVM where /dev/kvm opens and the CPU has vmx or svm
    #[arg(long, value_enum, value_name = "KIND", default_value_t = Request::Auto)]
    accel: Request,

    /// Take DMA away from fw_cfg, so that the firmware reads everything through ports
    #[arg(long)]
    no_dma: bool,

    /// Stop before the first instruction and wait for gdb; says how to connect it
    #[arg(long)]
    gdb: bool,

    /// Turn the firmware's log on (it goes to the serial console), and show QEMU's command line
    #[arg(long)]
    debug: bool,

    /// Without a terminal, end the guest after this many seconds; 0 never does
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    time_limit: u64,

    /// More arguments for QEMU, after `--`
    #[arg(last = true, value_name = "QEMU ARGUMENTS")]
    qemu: Vec<OsString>,
}

/// Runs the command; the exit code is QEMU's.
///
/// # Errors
/// When something needed is missing, and, without a terminal, when the guest did not get to its end.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let kernel = args.kernel.as_deref().map(|path| given_file("--kernel", path)).transpose()?;
    let initrd = args.initrd.as_deref().map(|path| given_file("--initrd", path)).transpose()?;
    let (accelerator, why) = qemu::accelerator(args.accel)?;
    let default_guest = kernel.is_none() && initrd.is_none();
    let needs = [packages::QEMU, packages::BUSYBOX];
    packages::ensure(if default_guest { &needs } else { &needs[..1] })?;

    let image = image::build()?;
    let (kernel, initrd) = match (kernel, initrd) {
        (Some(kernel), initrd) => {
            if initrd.is_none() {
                say("No initramfs: the default guest's goes with the default kernel only. --initrd gives one.");
            }
            (kernel, initrd)
        }
        (None, Some(initrd)) => (guest::kernel()?.image, Some(initrd)),
        (None, None) => {
            let guest = guest::prepare()?;
            (guest.kernel.image, Some(guest.initrd))
        }
    };

    let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let launch = Launch {
        machine: args.machine.clone(),
        memory: args.memory.clone(),
        cpus: args.smp,
        accelerator,
        dma: !args.no_dma,
        log: args.debug,
        gdb: args.gdb,
        terminal,
        firmware: image.bin,
        kernel,
        initrd,
        append: kernel_command_line(default_guest, terminal.then(terminal_size), args.append.as_deref()),
        extra: args.qemu.clone(),
    };
    announce(&launch, &why);
    if args.debug {
        say(&command_line(&launch.command()));
    }
    if args.gdb {
        let elf = shell_word(&paths::shown(&image.elf));
        say(&format!("QEMU waits for gdb: gdb {elf} -ex 'target remote localhost:{}'", qemu::GDB_PORT));
    }
    if terminal {
        say("Ctrl-A X ends QEMU.");
        // Returns only if it fails.
        return Err(launch.command().exec()).context("cannot start QEMU");
    }
    let limit = (args.time_limit > 0 && !args.gdb).then(|| Duration::from_secs(args.time_limit));
    // Who chooses another mode for the guest may not get a report.
    let report = default_guest && !launch_mode_is_chosen(args.append.as_deref());
    watch(&launch.command(), std::io::stdout(), limit, report)
}

/// A file the user named, as an absolute path.
fn given_file(option: &str, path: &Path) -> anyhow::Result<PathBuf> {
    let data = path.metadata().with_context(|| format!("{option} {}", path.display()))?;
    if !data.is_file() {
        bail!("{option} {}: this is no file", path.display());
    }
    File::open(path).with_context(|| format!("{option} {}", path.display()))?;
    std::path::absolute(path).with_context(|| format!("{option} {}", path.display()))
}

/// The kernel command line. `terminal` is there when the console is a terminal, with its size if that is known.
fn kernel_command_line(default_guest: bool, terminal: Option<Option<(u16, u16)>>, append: Option<&str>) -> String {
    let mut words = vec!["console=ttyS0".to_owned(), "quiet".to_owned()];
    match terminal {
        // On a terminal a panic stays to be read; elsewhere it ends QEMU, which does not reboot there.
        None => words.push("panic=-1".to_owned()),
        Some(size) if default_guest => {
            words.push("firstlight.mode=shell".to_owned());
            words.extend(size.map(|(rows, columns)| format!("firstlight.terminal={rows}x{columns}")));
        }
        Some(_) => {}
    }
    words.extend(append.map(str::to_owned));
    words.join(" ")
}

fn launch_mode_is_chosen(append: Option<&str>) -> bool {
    append.is_some_and(|words| words.split_ascii_whitespace().any(|word| word.starts_with("firstlight.mode=")))
}

/// The terminal's rows and columns.
fn terminal_size() -> Option<(u16, u16)> {
    console::Term::stdout().size_checked().filter(|(rows, columns)| *rows > 0 && *columns > 0)
}

fn announce(launch: &Launch, why: &str) {
    let accelerator = launch.accelerator.name();
    let plural = if launch.cpus == 1 { "" } else { "s" };
    say(&format!("Accelerator: {accelerator} ({why})"));
    say(&format!(
        "Booting {} on {} with {} CPU{plural}, {} of memory",
        launch.kernel.file_name().unwrap_or_default().display(),
        launch.machine,
        launch.cpus,
        launch.memory
    ));
}

/// What became of the guest's output.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// The firmware printed an error, and stops.
    FirmwareError(String),
    /// The report is complete.
    ReportEnd,
    /// QEMU closed its output: it has ended.
    Closed,
    /// Nobody reads this program's output any more.
    Unread,
}

/// Runs QEMU without a terminal until it ends or has to be ended; its output goes to `to`.
fn watch(
    command: &Command,
    to: impl Write + Send + 'static,
    limit: Option<Duration>,
    report: bool,
) -> anyhow::Result<ExitCode> {
    let mut command = child::tied(command);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start QEMU")?;
    let output = child.stdout.take().context("QEMU has no output")?;
    let (sender, events) = mpsc::channel();
    std::thread::spawn(move || pass_on(output, to, &sender));

    let mut deadline = limit.map(|limit| Instant::now() + limit);
    let mut error = None;
    let mut reported = false;
    loop {
        // Without a deadline, a long time and round again.
        let remaining = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        match events.recv_timeout(remaining.min(Duration::from_secs(3600))) {
            Ok(Event::FirmwareError(line)) => {
                error = Some(line);
                deadline = Some(Instant::now() + LAST_WORDS);
            }
            Ok(Event::ReportEnd) => reported = true,
            Ok(Event::Closed) => break,
            Ok(Event::Unread) => {
                end(&mut child)?;
                bail!("the output cannot be written any more, so the guest was ended");
            }
            Err(_) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => {
                end(&mut child)?;
                if let Some(line) = error {
                    bail!("the firmware stopped: {line}");
                }
                let seconds = limit.unwrap_or_default().as_secs();
                bail!("the guest was ended after {seconds} s, the limit without a terminal (--time-limit changes it)");
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
    }
    let status = child.wait().context("cannot wait for QEMU")?;
    if let Some(line) = error {
        bail!("the firmware stopped: {line}");
    }
    if status.success() && report && !reported {
        bail!("the guest ended before its report was complete");
    }
    Ok(exit_code(status))
}

fn end(child: &mut Child) -> anyhow::Result<()> {
    child.kill().context("cannot end QEMU")?;
    child.wait().context("cannot wait for QEMU")?;
    Ok(())
}

/// The exit code that stands for a status, as a shell has it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Copies the serial output as it comes, and tells of the lines that matter.
fn pass_on(mut from: impl Read, mut to: impl Write, events: &mpsc::Sender<Event>) {
    let mut line = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => &buffer[..read],
        };
        if to.write_all(read).and_then(|()| to.flush()).is_err() {
            // The receiver is gone only when the outcome is settled.
            let _ = events.send(Event::Unread);
            return;
        }
        for byte in read {
            match byte {
                b'\n' => {
                    if let Some(event) = meaning(&String::from_utf8_lossy(&line)) {
                        let _ = events.send(event);
                    }
                    line.clear();
                }
                _ if line.len() < MAX_LINE => line.push(*byte),
                _ => {}
            }
        }
    }
    let _ = events.send(Event::Closed);
}

fn meaning(line: &str) -> Option<Event> {
    let line = line.trim();
    if line == REPORT_END {
        return Some(Event::ReportEnd);
    }
    line.starts_with(FIRMWARE_ERROR).then(|| Event::FirmwareError(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::child::tests::{SLEEPER, assert_ends_with_its_starter, is_inner, shell};

    #[test]
    fn the_default_guest_is_told_what_to_do() {
        assert_eq!(kernel_command_line(true, None, None), "console=ttyS0 quiet panic=-1");
        assert_eq!(
            kernel_command_line(true, Some(Some((24, 80))), Some("debug")),
            "console=ttyS0 quiet firstlight.mode=shell firstlight.terminal=24x80 debug"
        );
        assert_eq!(kernel_command_line(false, Some(None), None), "console=ttyS0 quiet");
    }

    #[test]
    fn a_mode_in_the_users_words_is_seen() {
        assert!(launch_mode_is_chosen(Some("debug firstlight.mode=shell")));
        assert!(!launch_mode_is_chosen(Some("debug")) && !launch_mode_is_chosen(None));
    }

    #[test]
    fn files_that_cannot_be_booted_are_named_with_their_option() {
        let missing = given_file("--kernel", Path::new("/nonexistent/vmlinuz")).unwrap_err();
        assert!(format!("{missing:#}").starts_with("--kernel /nonexistent/vmlinuz: No such file"), "{missing:#}");
        let folder = given_file("--initrd", Path::new("/")).unwrap_err();
        assert_eq!(folder.to_string(), "--initrd /: this is no file");
    }

    fn events_of(input: &[u8]) -> (Vec<u8>, Vec<Event>) {
        let (sender, receiver) = mpsc::channel();
        let mut output = Vec::new();
        pass_on(input, &mut output, &sender);
        drop(sender);
        (output, receiver.iter().collect())
    }

    #[test]
    fn output_is_passed_on_and_its_lines_are_understood() {
        let long = [b'x'; 3 * MAX_LINE];
        let input = [b"a\r\nfirstlight-guest: done\r\n".as_slice(), &long, b"\nfirstlight: error: x\r\nrest"].concat();
        let (output, events) = events_of(&input);
        assert_eq!(output, input);
        assert_eq!(events, [Event::ReportEnd, Event::FirmwareError("firstlight: error: x".to_owned()), Event::Closed]);
    }

    #[test]
    fn output_that_is_not_utf8_is_passed_on() {
        let input = b"\xff\xfe\n";
        assert_eq!(events_of(input), (input.to_vec(), vec![Event::Closed]));
    }

    #[test]
    #[ignore = "the inner part of the next test"]
    fn watches_a_guest() {
        if is_inner() {
            watch(&shell(SLEEPER), io::stdout(), None, false).unwrap();
        }
    }

    #[test]
    fn a_guest_ends_with_the_tool() {
        assert_ends_with_its_starter("run::tests::watches_a_guest");
    }

    #[test]
    fn a_guest_without_end_is_ended() {
        let error = watch(&shell("exec sleep 100"), io::sink(), Some(Duration::from_millis(50)), false).unwrap_err();
        assert!(error.to_string().contains("--time-limit"), "{error}");
    }

    #[test]
    fn a_firmware_error_ends_the_wait() {
        let start = Instant::now();
        let error =
            watch(&shell("echo 'firstlight: error: no kernel'; exec sleep 100"), io::sink(), None, true).unwrap_err();
        assert!(error.to_string().contains("no kernel"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn the_report_has_to_be_complete() {
        assert!(watch(&shell("echo firstlight-guest: done"), io::sink(), None, true).is_ok());
        assert!(watch(&shell("true"), io::sink(), None, true).is_err());
        assert!(watch(&shell("true"), io::sink(), None, false).is_ok());
    }

    #[test]
    fn the_exit_code_is_the_programs() {
        let code = |script| format!("{:?}", watch(&shell(script), io::sink(), None, true).unwrap());
        assert_eq!(code("exit 7"), format!("{:?}", ExitCode::from(7)));
        assert_eq!(code("kill -9 $$"), format!("{:?}", ExitCode::from(137)));
    }
}
