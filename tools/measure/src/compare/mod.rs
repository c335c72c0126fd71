//! `cargo xtask compare`: measures the boot time of this firmware and of its peers, and counts what they do.
//!
//! The times come from runs at full speed, in rounds: each round runs every firmware in every scenario once, so that other load
//! on the machine affects all alike. The counts come from separate runs (`counts`), and so do the host instructions
//! (`host_instructions`), which under TCG do not depend on the machine's load.
//!
//! There is no option to repeat until the times are stable. Other load lasts longer than a measurement, so a rule that stops at a
//! small spread stops by chance and hides noise. `--runs` fixes the number beforehand, the spread is shown, and exact figures are
//! counted.

mod firmware;
mod measurement;
mod plan;
mod report;
mod stats;
mod timing;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use xtask::progress::say;
use xtask::qemu::{self, Accelerator, Request};
use xtask::{guest, image, packages, paths};

use self::firmware::Choice;
use self::measurement::Measurement;
use self::plan::Wishes;
use self::report::{Report, html, svg, table};
use crate::boot::probe::{self, Files, Format};
use crate::boot::scenario::{Scenario, Transport, parse_size};

/// Compare boot times and costs with other firmware
///
/// Boots a probe kernel, which ends QEMU at its first instruction, and a real kernel under several firmware images, in
/// rounds. Counts device accesses, exits and instructions. If valgrind is installed, it also counts the host's instructions
/// under TCG, which do not depend on the machine's load as times do. Prints tables, and writes a chart, a page and the
/// numbers to target/compare. Without options, it measures this firmware, SeaBIOS, qboot and, if installed, OVMF on q35, pc
/// and microvm; that takes some minutes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask compare
  cargo xtask compare --firmware firstlight,qboot --machine microvm --runs 21
  cargo xtask compare --machine q35 --transport dma,pio --kernel-size 14M --initrd-size 32M
  cargo xtask compare --machine q35 --device VGA --device 'pcie-root-port,id=a virtio-rng-pci,bus=a'
  cargo xtask compare --device 'virtio-blk-pci,drive=d -blockdev driver=null-co,node-name=d'
  cargo xtask compare --firmware firstlight,qboot --growth
  cargo xtask compare --firmware firstlight,./bios.bin --reference bios.bin --kernel bzImage --initrd rootfs.cpio")]
pub struct Args {
    /// Firmware to measure: firstlight, seabios, qboot, ovmf, or the path of an image (with a / or a . in it)
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    firmware: Vec<Choice>,

    /// QEMU machine types [default: q35,pc,microvm]
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    machine: Vec<String>,

    /// How the firmware reads from fw_cfg [default: dma]
    #[arg(long, value_enum, value_name = "KINDS", value_delimiter = ',')]
    transport: Vec<Transport>,

    /// What executes the guest's instructions in timed runs [default: KVM if the CPU has vmx or svm, else TCG]
    #[arg(long, value_enum, value_name = "KINDS", value_delimiter = ',')]
    accel: Vec<Request>,

    /// A real kernel, to boot up to user space instead of the probe
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// The real kernel's initramfs; the program that ends the measurement is added to it
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,

    /// The probe kernel's size, such as 256K or 14M
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    kernel_size: Option<u64>,

    /// The size of the probe's initrd; 0 is no initrd
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    initrd_size: Option<u64>,

    /// The probe kernel's form
    #[arg(long, value_enum, value_name = "FORM")]
    probe: Option<Format>,

    /// A device whose cost is measured, in the form of QEMU's -device. Its cost is the difference from the machine without
    /// it. Several devices that belong together, or other options of QEMU with their values, are separated by spaces. The
    /// option may be repeated; each is measured by itself [default: on q35 and pc, with the small payload]
    #[arg(long, value_name = "DEVICE")]
    device: Vec<String>,

    /// The number of the guest's CPUs
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    smp: u16,

    /// The guest's memory [default: 512M, or what the payload needs]
    #[arg(long, value_name = "SIZE", value_parser = qemu::parse_memory)]
    memory: Option<String>,

    /// Measure how the cost grows with devices, CPUs and the size of the payload, on q35 or the machines of --machine
    #[arg(long, conflicts_with_all = ["kernel", "initrd", "kernel_size", "initrd_size", "device", "smp"])]
    growth: bool,

    /// How often each is run; a real kernel is run three times at most
    #[arg(long, value_name = "NUMBER", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,

    /// The firmware that the ratios refer to [default: seabios if it is measured, else the first]
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,

    /// The file for the numbers [default: target/compare/compare.json]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// The file for the chart [default: target/compare/compare.svg]
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// The file for the page [default: target/compare/compare.html]
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// The file for the overview tables in Markdown [default: none]
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// If nothing could be measured, or a file cannot be written. A firmware that is missing or does not boot is no error.
pub fn run(args: &Args) -> anyhow::Result<()> {
    // Checks the options before anything is built or installed.
    let chosen = !args.firmware.is_empty();
    let mut choices = if chosen { args.firmware.clone() } else { firmware::default_choices() };
    choices.dedup();
    let reference = reference(args.reference.as_deref(), &choices)?;
    for path in [&args.json, &args.svg, &args.html, &args.markdown].into_iter().flatten() {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        ensure!(folder.is_dir(), "{}: the folder {} does not exist", path.display(), folder.display());
    }
    for device in &args.device {
        ensure!(
            !device.split_whitespace().any(|word| word.starts_with("isa-debug-exit")),
            "--device {device}: the measurement has its own isa-debug-exit, at port {:#x}; another one at 0xf4 would end \
             the guest at a trace point of the firmware",
            probe::EXIT_PORT
        );
    }
    let accelerators = accelerators(&args.accel)?;
    for choice in &choices {
        choice.check().context("--firmware")?;
    }
    for (option, file) in [("--kernel", &args.kernel), ("--initrd", &args.initrd)] {
        if let Some(file) = file {
            fs::File::open(file).with_context(|| format!("{option} {}", file.display()))?;
        }
    }

    packages::ensure(&[packages::QEMU])?;
    for machine in &args.machine {
        qemu::check_machine(machine)?;
    }
    if chosen {
        install(&choices);
    }
    let built = if choices.contains(&Choice::Firstlight) { Some(image::build()?.bin) } else { None };
    let scenarios = scenarios(args, accelerators)?;
    let files = Files::new(&paths::target().join("compare"))?;
    let mut measurement = Measurement::new(&choices, scenarios, built.as_deref(), &files)?;
    measurement.run(usize::from(args.runs))?;
    let report = measurement.report(reference, &choices);

    let width = console::Term::stdout().size_checked().map(|(_, columns)| columns);
    println!("{}", table::render(&report, width));
    write(&report, args)
}

/// The name of the firmware that the ratios refer to.
fn reference(asked: Option<&str>, choices: &[Choice]) -> anyhow::Result<String> {
    let names: Vec<_> = choices.iter().map(Choice::name).collect();
    match asked {
        Some(name) if names.iter().any(|known| known == name) => Ok(name.to_owned()),
        Some(name) => bail!("--reference {name}: this firmware is not measured; measured are {}", names.join(", ")),
        None => {
            let seabios = names.iter().find(|name| *name == "seabios");
            Ok(seabios.or(names.first()).cloned().unwrap_or_default())
        }
    }
}

/// The accelerators that the user requests. Empty without a request.
fn accelerators(asked: &[Request]) -> anyhow::Result<Vec<Accelerator>> {
    let mut chosen = Vec::new();
    for request in asked {
        let (accelerator, _) = qemu::accelerator(*request)?;
        if !chosen.contains(&accelerator) {
            chosen.push(accelerator);
        }
    }
    Ok(chosen)
}

/// Installs the peers that the user requests. If one cannot be installed, its row says so.
fn install(choices: &[Choice]) {
    for need in choices.iter().filter_map(Choice::need) {
        if let Err(error) = packages::ensure(&[need]) {
            say(&format!("{error:#}"));
        }
    }
}

fn scenarios(args: &Args, accelerators: Vec<Accelerator>) -> anyhow::Result<Vec<Scenario>> {
    let absolute = |path: &PathBuf| std::path::absolute(path);
    let initrd = args.initrd.as_ref().map(absolute).transpose()?;
    let linux = match (&args.kernel, initrd) {
        (Some(kernel), initrd) => Some((absolute(kernel)?, initrd)),
        (None, Some(initrd)) => Some((guest::kernel()?.image, Some(initrd))),
        (None, None) => None,
    };
    let wishes = Wishes {
        machines: args.machine.clone(),
        transports: args.transport.clone(),
        accelerators,
        linux,
        kernel_size: args.kernel_size,
        initrd_size: args.initrd_size,
        format: args.probe,
        devices: Vec::new(),
        extras: args.device.iter().map(|device| device.split_whitespace().map(str::to_owned).collect()).collect(),
        cpus: args.smp,
        memory: args.memory.clone(),
    };
    let (accelerator, _) = qemu::accelerator(Request::Auto)?;
    if args.growth {
        return Ok(plan::growth(&wishes, accelerator));
    }
    // Without the default kernel, the rest is measured.
    let kernel = if wishes.nothing_chosen() {
        guest::kernel().map_err(|error| say(&format!("No Linux kernel is measured: {error:#}"))).ok()
    } else {
        None
    };
    Ok(plan::scenarios(&wishes, accelerator, kernel.map(|kernel| kernel.image)))
}

/// Writes the files, unless no firmware was measured.
fn write(report: &Report, args: &Args) -> anyhow::Result<()> {
    let measured = report.scenarios.iter().any(|measured| measured.rows.iter().any(|row| row.failure.is_none()));
    ensure!(measured, "no firmware could be measured, so no file was written");
    let chart = svg::render(report);
    let json = serde_json::to_string_pretty(report)? + "\n";
    let folder = paths::target().join("compare");
    let or_in_folder = |path: &Option<PathBuf>, name| path.clone().unwrap_or_else(|| folder.join(name));
    let mut files = vec![
        (or_in_folder(&args.json, "compare.json"), json),
        (or_in_folder(&args.html, "compare.html"), html::render(report, &chart)),
        (or_in_folder(&args.svg, "compare.svg"), chart),
    ];
    files.extend(args.markdown.clone().map(|path| (path, table::markdown(report))));
    for (path, contents) in files {
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
        say(&format!("Written: {}", paths::shown(&path)));
    }
    Ok(())
}
