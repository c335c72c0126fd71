//! `cargo xtask run`: boots a kernel or a disk with the image in QEMU.
//!
//! With a terminal, this process becomes QEMU, so that keys, signals and the exit code are QEMU's own and no process remains.
//! Without one, it passes on the serial output, and ends a guest that does not end by itself. QEMU always ends together with this
//! program.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal, Read as _, Write};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::disk::{Bus, Disk};
use crate::progress::{command_line, say, shell_word};
use crate::qemu::{self, Launch, Request};
use crate::{child, guest, image, packages, paths};

/// The last line of the default guest's report.
const REPORT_END: &str = "firstlight-guest: done";

/// The first words of an error of the firmware. The firmware stops after it.
const FIRMWARE_ERROR: &str = "firstlight: error:";

/// How many of the last lines of serial output are shown when a boot fails.
const LAST_LINES: usize = 12;

/// The kernel parameters that control its log. If the user sets one of them, the kernel's log is shown.
const LOG_PARAMETERS: [&str; 5] = ["loglevel=", "quiet", "debug", "ignore_loglevel", "console="];

/// What a Linux kernel prints when it panics, at any log level.
const KERNEL_PANIC: &str = "Kernel panic - not syncing";

/// How long a guest may take to power off after its report. Some machines cannot (`isapc`).
const POWER_OFF: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });

/// What the firmware's error begins with when an EFI program has done its work.
const PROGRAM_SUCCEEDED: &str = "the EFI program returned: SUCCESS";

/// The fewest bytes that QEMU accepts as a kernel: a boot sector and four more (`hw/i386/x86.c`, `x86_load_linux`).
const SHORTEST_KERNEL: usize = 5 * 512;

/// A Multiboot header begins with these bytes at a multiple of four in this many bytes (Multiboot 0.6.96, 3.1).
const MULTIBOOT: [u8; 4] = 0x1bad_b002_u32.to_le_bytes();
const MULTIBOOT_WITHIN: u64 = 8192;

/// How long the firmware may go on printing after its error.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The longest line of serial output in bytes. A longer one is split.
const MAX_LINE: u64 = 4096;

/// Boot Linux, or a disk, in QEMU with the firmware image
///
/// Installs what is missing, builds the image, fetches the default guest, and boots it with the serial console on the
/// terminal. On a terminal the guest starts a shell; leaving it powers off, and Ctrl-A X ends QEMU at once. Without a
/// terminal (in a script, with the output in a file or a pipe) the guest prints a short report and powers off.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask run                                      boot the default guest on q35
  cargo xtask run --machine pc --smp 2 --memory 6G
  cargo xtask run --kernel bzImage --initrd rootfs.cpio --append 'loglevel=7'
  cargo xtask run --efi                                enter the kernel by its EFI stub
  cargo xtask run --efi=tables                         with EFI tables and runtime services
  cargo xtask run --disk disk.img --memory 2G          boot from a disk, as UEFI does
  cargo xtask run --disk netinst.iso --bus scsi        from a CD
  cargo xtask run --gdb                                wait for gdb before the first instruction
  cargo xtask run -- -drive file=disk.img,if=virtio,format=raw")]
pub struct Args {
    /// Kernel to boot, of any kind in docs/support.md [default: Debian's cloud kernel, downloaded into target/guest; if
    /// apt does not have it, the newest /boot/vmlinuz-*]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// Initramfs to boot with [default: the default guest's; none when --kernel is given]
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,

    /// Words for the end of the kernel command line; `loglevel=7` shows the kernel's log
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    append: Option<String>,

    /// Disk image to boot from, raw or qcow2, or a CD's with a name that ends with .iso; with --kernel, a disk of the guest
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,

    /// The disk's bus [default: virtio; for a CD ahci on q35, else scsi]
    #[arg(long, value_enum, value_name = "BUS", requires = "disk")]
    bus: Option<Bus>,

    /// QEMU's machine type, such as q35 or pc
    #[arg(long, value_name = "TYPE", default_value = "q35")]
    machine: String,

    /// The guest's memory: a number with K, M, G or T
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = qemu::parse_memory)]
    memory: String,

    /// The number of the guest's CPUs
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    smp: u16,

    /// What executes the guest's instructions; auto is KVM if /dev/kvm opens and the CPU has vmx or svm
    #[arg(long, value_enum, value_name = "KIND", default_value_t = Request::Auto)]
    accel: Request,

    /// Turn off fw_cfg's DMA, so that the firmware reads everything through ports
    #[arg(long)]
    no_dma: bool,

    /// Ask the firmware for EFI (docs/efi.md); `--efi` is `--efi=on`, and a value needs the `=`
    #[arg(long, value_enum, value_name = "REQUEST", num_args = 0..=1, require_equals = true, default_missing_value = "on")]
    efi: Option<qemu::Efi>,

    /// Wait for gdb before the first instruction; prints the command that connects it
    #[arg(long)]
    gdb: bool,

    /// Show the firmware's log on the serial console, and QEMU's command line
    #[arg(long)]
    debug: bool,

    /// Without a terminal, end the guest after this many seconds; 0 is no limit
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    time_limit: u64,

    /// More arguments for QEMU, after `--`
    #[arg(last = true, value_name = "QEMU ARGUMENTS")]
    qemu: Vec<OsString>,
}

/// Runs the command; the exit code is QEMU's.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let kernel = args.kernel.as_deref().map(|path| given_file("--kernel", path)).transpose()?;
    let initrd = args.initrd.as_deref().map(|path| given_file("--initrd", path)).transpose()?;
    let of_file = |path: &PathBuf| {
        Disk::of_file(path, args.bus, &args.machine).with_context(|| format!("--disk {}", path.display()))
    };
    let disk = args.disk.as_ref().map(of_file).transpose()?;
    let boots_disk = disk.is_some() && kernel.is_none();
    if boots_disk {
        let option = [("--initrd", initrd.is_some()), ("--append", args.append.is_some())];
        if let Some((option, _)) = option.iter().find(|(_, is_given)| *is_given) {
            bail!("{option}: goes with --kernel; the loader on the disk has its own");
        }
        ensure!(args.efi.is_none(), "--efi: goes with a kernel; a boot from disk always has EFI");
    }
    let is_program = kernel.as_deref().map(is_efi_program).transpose()?.unwrap_or_default();
    if is_program && initrd.is_some() {
        bail!(
            "--initrd: QEMU has none for an EFI program that is no bzImage; make a unified kernel image with the initramfs \
             in it, as ukify does"
        );
    }
    let (accelerator, why) = qemu::accelerator(args.accel)?;
    if args.gdb {
        TcpListener::bind(qemu::GDB_ADDRESS).with_context(|| {
            format!("--gdb: cannot listen at {}; does another QEMU wait for gdb there?", qemu::GDB_ADDRESS)
        })?;
    }
    let default_guest = kernel.is_none() && initrd.is_none() && !boots_disk;
    let needs = [packages::QEMU, packages::BUSYBOX, packages::KMOD];
    packages::ensure(if default_guest { &needs } else { &needs[..1] })?;

    let image = image::build()?;
    let (kernel, initrd) = match (kernel, initrd) {
        (Some(kernel), initrd) => {
            if is_program {
                say("An EFI program gets only the words of --append.");
            } else if initrd.is_none() {
                say("This kernel boots without an initramfs; --initrd FILE adds one.");
            }
            (Some(kernel), initrd)
        }
        (None, Some(initrd)) => (Some(guest::kernel()?.image), Some(initrd)),
        (None, None) if boots_disk => (None, None),
        (None, None) => {
            let guest = guest::prepare()?;
            (Some(guest.kernel.image), Some(guest.initrd))
        }
    };

    let console = Console::choose(default_guest, boots_disk, args.append.as_deref());
    let terminal = matches!(console, Console::Terminal | Console::Shell(_));
    // They would replace the command line in a unified kernel image.
    let append = if is_program {
        args.append.clone().unwrap_or_default()
    } else {
        kernel_command_line(console, qemu::timer_words(&args.machine, accelerator), args.append.as_deref())
    };
    let launch = Launch {
        machine: args.machine.clone(),
        memory: args.memory.clone(),
        cpus: args.smp,
        accelerator,
        dma: !args.no_dma,
        efi: args.efi,
        log: args.debug,
        gdb: args.gdb,
        terminal,
        firmware: image.bin,
        kernel,
        initrd,
        append,
        disk: disk.as_ref().map(|disk| disk.arguments(&args.machine)).unwrap_or_default(),
        extra: args.qemu.clone(),
    };
    let plural = if launch.cpus == 1 { "" } else { "s" };
    if disk.as_ref().is_some_and(|disk| !disk.is_writable()) {
        say("The disk's file cannot be written, so what the guest writes is lost at its end.");
    }
    let what = match &launch.kernel {
        Some(kernel) => kernel.file_name().unwrap_or_default().display().to_string(),
        None => disk.as_ref().map(Disk::name).unwrap_or_default(),
    };
    say(&format!("Accelerator: {} ({why})", accelerator.name()));
    say(&format!("Booting {what} on {} with {} CPU{plural}, {} of memory", args.machine, args.smp, args.memory));
    if args.debug {
        say(&command_line(&launch.command()));
    }
    if args.gdb {
        let elf = shell_word(&paths::shown(&image.elf));
        say(&format!("QEMU waits for gdb: gdb {elf} -ex 'target remote {}'", qemu::GDB_ADDRESS));
    }
    if terminal {
        say("Ctrl-A X ends QEMU.");
        // `exec` returns only if it fails.
        return Err(launch.command().exec()).context("cannot start QEMU");
    }
    let limit = (args.time_limit > 0 && !args.gdb).then(|| Duration::from_secs(args.time_limit));
    watch(&launch.command(), std::io::stdout(), limit, console)
}

/// The absolute path of a file that the user named.
fn given_file(option: &str, path: &Path) -> anyhow::Result<PathBuf> {
    let checked = || -> anyhow::Result<_> {
        ensure!(File::open(path)?.metadata()?.is_file(), "not a regular file");
        Ok(std::path::absolute(path)?)
    };
    checked().with_context(|| format!("{option} {}", path.display()))
}

/// Whether a kernel file is an EFI program and has no setup header, by which it would be a Linux kernel too.
fn is_efi_program(kernel: &Path) -> anyhow::Result<bool> {
    let context = || format!("--kernel {}", kernel.display());
    let mut first = Vec::new();
    File::open(kernel).and_then(|file| file.take(MULTIBOOT_WITHIN).read_to_end(&mut first)).with_context(context)?;
    if first.len() < SHORTEST_KERNEL {
        bail!("--kernel {}: only {} bytes, which is no kernel and no EFI program", kernel.display(), first.len());
    }
    let is_boot_sector = first.get(0x1fe..0x200) == Some(&[0x55, 0xaa]);
    let is_multiboot = || first.chunks_exact(MULTIBOOT.len()).any(|word| word == MULTIBOOT);
    let is_known = first.starts_with(b"MZ") || first.starts_with(b"\x7fELF") || is_boot_sector || is_multiboot();
    ensure!(is_known, "--kernel {}: no bzImage, ELF, Multiboot or EFI file", kernel.display());
    Ok(first.starts_with(b"MZ") && first.get(0x202..0x206) != Some(b"HdrS"))
}

/// What the guest's serial port is connected to, and what the guest prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Console {
    /// A terminal, with the user's guest.
    Terminal,
    /// A terminal, with the default guest's shell. It has these rows and columns, if they are known.
    Shell(Option<(u16, u16)>),
    /// No terminal. The guest prints anything.
    Other,
    /// No terminal. A loader on a disk prints anything, and so does what it starts.
    Disk,
    /// No terminal. The guest prints the kernel's log as the user chose it, and the default guest's report.
    Report,
    /// No terminal. The guest prints the kernel's log and the report. The log is hidden; its end is shown if there is no report.
    ReportAfterLog,
}

impl Console {
    fn choose(default_guest: bool, boots_disk: bool, append: Option<&str>) -> Self {
        let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        match (terminal, default_guest) {
            (true, true) => Self::Shell(terminal_size()),
            (true, false) => Self::Terminal,
            (false, false) if boots_disk => Self::Disk,
            // Another mode of the guest may print no report.
            (false, _) if !default_guest || has_parameter(append, &["firstlight.mode="]) => Self::Other,
            (false, _) if has_parameter(append, &LOG_PARAMETERS) => Self::Report,
            (false, _) => Self::ReportAfterLog,
        }
    }
}

/// The kernel command line: the tool's words for this console, then `timers`, then the user's words, `append`.
fn kernel_command_line(console: Console, timers: &str, append: Option<&str>) -> String {
    let own = match console {
        Console::Terminal => "quiet".to_owned(),
        Console::Shell(None) => "quiet firstlight.mode=shell".to_owned(),
        Console::Shell(Some((rows, columns))) => {
            format!("quiet firstlight.mode=shell firstlight.terminal={rows}x{columns}")
        }
        // On a terminal, a panic stays visible. Elsewhere it ends QEMU, which does not reboot there.
        Console::Other | Console::Disk | Console::Report => "quiet panic=-1".to_owned(),
        Console::ReportAfterLog => "loglevel=7 panic=-1".to_owned(),
    };
    let words = ["console=ttyS0", &own, timers, append.unwrap_or_default()];
    words.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Whether one of the user's words begins with one of `parameters`.
fn has_parameter(append: Option<&str>, parameters: &[&str]) -> bool {
    let mut words = append.unwrap_or_default().split_ascii_whitespace();
    words.any(|word| parameters.iter().any(|parameter| word.starts_with(parameter)))
}

/// The terminal's rows and columns.
fn terminal_size() -> Option<(u16, u16)> {
    console::Term::stdout().size_checked().filter(|(rows, columns)| *rows > 0 && *columns > 0)
}

/// Runs QEMU without a terminal until it ends or its time is over. Writes its output to `to`, line by line.
fn watch(command: &Command, mut to: impl Write, limit: Option<Duration>, console: Console) -> anyhow::Result<ExitCode> {
    let mut command = child::tied(command);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start QEMU")?;
    let output = child.stdout.take().context("QEMU has no output")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).is_ok_and(|read| read > 0)
            && sender.send(std::mem::take(&mut line)).is_ok()
        {}
    });

    let mut deadline = limit.map(|limit| Instant::now() + limit);
    let mut last = VecDeque::new();
    let (mut error, mut reported, mut panicked, mut late) = (None, false, false, false);
    loop {
        // Without a deadline, waits for a long time, again and again.
        let remaining = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        let line = match lines.recv_timeout(remaining.min(Duration::from_secs(3600))) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if deadline.take_if(|deadline| *deadline <= Instant::now()).is_some() {
                    // Its last output is still in the pipe.
                    child.kill().context("cannot end QEMU")?;
                    late = true;
                }
                continue;
            }
        };
        let text = String::from_utf8_lossy(&line);
        // An EFI program may have left a line open, or the colours of its text.
        if let Some((_, text)) = text.split_once(FIRMWARE_ERROR).filter(|_| error.is_none()) {
            error = Some(text.trim().to_owned());
            deadline = Some(Instant::now() + LAST_WORDS);
        } else if text.trim() == REPORT_END {
            reported = true;
            deadline = Some(Instant::now() + POWER_OFF);
        }
        panicked |= text.contains(KERNEL_PANIC);
        let is_shown = console != Console::ReportAfterLog || !is_log(&text);
        if is_shown && to.write_all(&line).and_then(|()| to.flush()).is_err() {
            child.kill().context("cannot end QEMU")?;
            child.wait().context("cannot wait for QEMU")?;
            bail!("the standard output was closed, so the guest was ended");
        }
        keep(&text, &mut last);
    }
    let status = child.wait().context("cannot wait for QEMU")?;
    if error.as_ref().is_some_and(|text| text.starts_with(PROGRAM_SUCCEEDED)) {
        say("The EFI program returned, with success.");
        return Ok(ExitCode::SUCCESS);
    }
    // The output has its line.
    ensure!(error.is_none(), "the firmware stopped; its error is above");
    if late && reported {
        say("The guest printed its report but did not power off, so it was ended.");
        return Ok(ExitCode::SUCCESS);
    }
    let what = if late {
        let seconds = limit.unwrap_or_default().as_secs();
        format!("the guest did not end within {seconds} s (--time-limit changes the limit)")
    } else if panicked {
        "the kernel panicked".to_owned()
    } else if status.success() && matches!(console, Console::Report | Console::ReportAfterLog) && !reported {
        "the guest ended before its report was complete".to_owned()
    } else {
        return Ok(exit_code(status));
    };
    let heading = if last.is_empty() { "; the guest printed nothing" } else { "; its last lines:" };
    let more = match console {
        Console::Other | Console::Report => "\n(--append loglevel=7 shows the log of a Linux kernel)",
        _ => "",
    };
    bail!("{what}{heading}{}{more}", last.iter().map(|line| format!("\n  {line}")).collect::<String>())
}

/// The exit code for a status, as in a shell.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Adds a line to the last ones, unless it is empty. Removes control codes: the line comes from the guest.
fn keep(line: &str, last: &mut VecDeque<String>) {
    let line: String = console::strip_ansi_codes(line).chars().filter(|c| !c.is_control()).take(200).collect();
    if !line.trim().is_empty() {
        last.push_back(line);
        last.drain(..last.len().saturating_sub(LAST_LINES));
    }
}

/// Whether the line is of the kernel's log: "[    0.123456] text", where the number is the seconds since its start.
fn is_log(line: &str) -> bool {
    let seconds = line.strip_prefix('[').and_then(|rest| Some(rest.split_once("] ")?.0.trim_start()));
    let parts = seconds.and_then(|seconds| seconds.split_once('.'));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    parts.is_some_and(|(whole, micros)| digits(whole) && micros.len() == 6 && digits(micros))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::child::tests::{SLEEPER, assert_ends_with_its_starter, is_inner, shell};

    #[test]
    fn the_kernels_log_is_hidden_and_its_end_is_shown_with_the_error() {
        let log: String = (0..100).map(|n| format!("[    0.{n:06}] message\x1b[31m {n}\r\n")).collect();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("printed");
        let printed = [log.as_bytes(), b"[ok] not the kernel's\r\n\xff\n", &[b'x'; 3 * MAX_LINE as usize]].concat();
        std::fs::write(&file, printed).unwrap();
        let mut output = Vec::new();
        let command = shell(&format!("cat {}", file.display()));
        let error = watch(&command, &mut output, None, Console::ReportAfterLog).unwrap_err().to_string();
        assert!(output.starts_with(b"[ok] not the kernel's\r\n\xff\n") && output.ends_with(b"xxx"));
        assert!(error.contains("[    0.000099] message 99\n") && !error.contains("message 80\n"), "{error}");
    }

    #[test]
    #[ignore = "the inner part of the next test"]
    fn watches_a_guest() {
        if is_inner() {
            watch(&shell(SLEEPER), io::stdout(), None, Console::Other).unwrap();
        }
    }

    #[test]
    fn a_guest_ends_with_the_tool() {
        assert_ends_with_its_starter("run::tests::watches_a_guest");
    }

    #[test]
    fn an_efi_program_is_a_file_without_a_setup_header() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kernel");
        let result = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            is_efi_program(&file)
        };
        let empty = vec![0; SHORTEST_KERNEL];
        assert!(result(&empty).unwrap_err().to_string().contains("no bzImage, ELF, Multiboot or EFI file"));
        for (at, start) in [(0, &b"\x7fELF"[..]), (0x1fe, &[0x55, 0xaa]), (0x400, &MULTIBOOT)] {
            let mut bytes = empty.clone();
            bytes[at..][..start.len()].copy_from_slice(start);
            assert!(!result(&bytes).unwrap(), "{start:x?}");
        }
        let mut bytes = empty;
        bytes[..2].copy_from_slice(b"MZ");
        assert!(result(&bytes).unwrap());
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(!result(&bytes).unwrap());
        assert!(result(b"MZ").unwrap_err().to_string().contains("only 2 bytes"));
    }

    #[test]
    fn an_efi_program_that_returns_success_is_one() {
        let result = |status| {
            let line = format!("printf '\\033[0;37;40mfirstlight: error: the EFI program returned: {status}; more\\n'");
            watch(&shell(&line), io::sink(), None, Console::Other)
        };
        assert!(result("SUCCESS").is_ok());
        assert!(result("NOT_FOUND").unwrap_err().to_string().contains("the firmware stopped"));
    }

    #[test]
    fn the_error_for_a_failed_guest_has_its_last_lines() {
        let log = "echo '[    0.000001] before'; echo '[    0.000002] Kernel panic';";
        let hangs = shell(&format!("{log} exec sleep 100"));
        let limit = Some(Duration::from_millis(500));
        let error = watch(&hangs, io::sink(), limit, Console::ReportAfterLog).unwrap_err().to_string();
        assert!(error.contains("--time-limit"), "{error}");
        assert!(error.ends_with("\n  [    0.000001] before\n  [    0.000002] Kernel panic"), "{error}");
        let error = watch(&shell(log), io::sink(), None, Console::Report).unwrap_err().to_string();
        assert!(error.contains("[    0.000002] Kernel panic\n(--append loglevel=7"), "{error}");
        let error = watch(&shell("exec sleep 100"), io::sink(), limit, Console::Other).unwrap_err().to_string();
        assert!(error.contains("printed nothing"), "{error}");
    }
}
