//! `cargo xtask compare`: measures the boot time of this firmware and of its peers, and counts what they do.
//!
//! The times come from runs at full speed, in rounds: each round runs every firmware in every scenario once, so that other load
//! on the machine affects all alike. The counts come from separate runs (`counts`), and so do the host instructions
//! (`host_instructions`), which under TCG do not depend on the machine's load.
//!
//! There is no option to repeat until the times are stable. Other load lasts longer than a measurement, so a rule that stops at a
//! small spread stops by chance and hides noise. `--runs` fixes the number beforehand, the spread is shown, and exact figures are
//! counted.

mod disk;
mod firmware;
mod measurement;
mod plan;
mod report;
mod stats;
mod timing;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use xtask::disk::Bus;
use xtask::progress::say;
use xtask::qemu::{self, Request};
use xtask::{image, packages, paths};

use self::firmware::Choice;
use self::measurement::Measurement;
use self::report::{Report, svg, table};
use crate::boot::probe::{self, Files};
use crate::boot::scenario::Transport;

/// Compare boot times and costs with other firmware
///
/// Boots a probe kernel, which ends QEMU at its first instruction, and a real kernel under several firmware images, in
/// rounds. Counts device accesses, exits and instructions. If valgrind is installed, it also counts the host's instructions
/// under TCG, which do not depend on the machine's load as times do. Prints tables, and writes tables in Markdown, a chart and
/// the numbers to target/compare. Without options, it measures this firmware, SeaBIOS, qboot and, if OVMF is installed, that and
/// this firmware with EFI on q35, pc and microvm; that takes some minutes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask compare
  cargo xtask compare --firmware firstlight,qboot --machine microvm --runs 21
  cargo xtask compare --machine q35 --transport dma,pio --kernel-size 14M --initrd-size 32M
  cargo xtask compare --machine q35 --device VGA --device 'pcie-root-port,id=a virtio-rng-pci,bus=a'
  cargo xtask compare --device 'virtio-blk-pci,drive=d -blockdev driver=null-co,node-name=d'
  cargo xtask compare --firmware firstlight,qboot --growth
  cargo xtask compare --disk target/guest/disks/c-uki257.img --firmware firstlight,ovmf
  cargo xtask compare --firmware firstlight,./bios.bin --kernel bzImage --initrd rootfs.cpio")]
pub struct Args {
    /// Firmware to measure: firstlight, firstlight-efi (which enters the kernel by EFI), seabios, qboot, ovmf, or the path of an
    /// image (with a / or a . in it)
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    firmware: Vec<Choice>,

    /// QEMU machine types [default: q35,pc,microvm]
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    machine: Vec<String>,

    /// How the firmware reads from fw_cfg [default: dma]
    #[arg(long, value_enum, value_name = "KINDS", value_delimiter = ',')]
    transport: Vec<Transport>,

    /// What executes the guest's instructions in timed runs; auto is KVM if the CPU has vmx or svm, else TCG
    #[arg(long, value_enum, value_name = "KINDS", value_delimiter = ',', default_value = "auto")]
    accel: Vec<Request>,

    /// A real kernel, to boot up to user space instead of the probe
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// The real kernel's initramfs; the program that ends the measurement is added to it
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,

    /// The probe kernel's size, such as 256K or 14M
    #[arg(long, value_name = "SIZE", value_parser = qemu::parse_size)]
    kernel_size: Option<u64>,

    /// The size of the probe's initrd; 0 is no initrd
    #[arg(long, value_name = "SIZE", value_parser = qemu::parse_size)]
    initrd_size: Option<u64>,

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

    /// Measure a boot from this disk image instead; may be repeated. Counts instructions, accesses to devices and reads of the
    /// disk, on q35 or the machine of --machine
    #[arg(long, value_name = "FILE", conflicts_with_all = ["growth", "kernel", "initrd", "kernel_size", "initrd_size", "device"])]
    disk: Vec<PathBuf>,

    /// The disk's bus [default: virtio; for a CD ahci on q35, else scsi]
    #[arg(long, value_enum, value_name = "BUS", requires = "disk")]
    bus: Option<Bus>,

    /// The text on the serial console at which the boot from disk ends: for another disk than those of `disks`, one that it prints
    #[arg(long, value_name = "TEXT", requires = "disk", default_value = disk::TEXT)]
    until: String,

    /// How often each is run; a real kernel is run three times at most
    #[arg(long, value_name = "NUMBER", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
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
    for device in &args.device {
        ensure!(
            !device.split_whitespace().any(|word| word.starts_with("isa-debug-exit")),
            "--device {device}: the measurement has its own isa-debug-exit, at port {:#x}; another one at 0xf4 would end \
             the guest at a trace point of the firmware",
            probe::EXIT_PORT
        );
    }
    let accelerators = args.accel.iter().map(|request| Ok(qemu::accelerator(*request)?.0));
    let accelerators = accelerators.collect::<anyhow::Result<Vec<_>>>()?;
    for choice in &choices {
        choice.check().context("--firmware")?;
    }
    for (option, file) in [("--kernel", &args.kernel), ("--initrd", &args.initrd)] {
        if let Some(file) = file {
            fs::File::open(file).with_context(|| format!("{option} {}", file.display()))?;
        }
    }

    packages::ensure(&[packages::QEMU])?;
    for need in choices.iter().filter(|_| chosen).filter_map(Choice::need) {
        // If one cannot be installed, its row says so.
        let _ = packages::ensure(&[need]).inspect_err(|error| say(&format!("{error:#}")));
    }
    if !args.disk.is_empty() {
        return disk::run(&disk::Boots {
            firmware: &choices,
            disks: &args.disk,
            bus: args.bus,
            machine: args.machine.first().map_or("q35", String::as_str),
            memory: args.memory.as_deref().unwrap_or("1G"),
            text: &args.until,
        });
    }
    let built = if choices.iter().any(Choice::is_own) { Some(image::build()?) } else { None };
    let scenarios = plan::scenarios(args, &accelerators)?;
    let files = Files::new(&paths::target().join("compare"))?;
    let mut measurement =
        Measurement::new(&choices, scenarios, built.as_ref().map(|image| image.bin.as_path()), &files)?;
    measurement.run(usize::from(args.runs))?;
    let report = measurement.report(&choices, built.map(|image| image.version.name()));

    let width = console::Term::stdout().size_checked().map(|(_, columns)| columns);
    println!("{}", table::render(&report, width));
    write(&report)
}

/// Writes the files, unless no firmware was measured.
fn write(report: &Report) -> anyhow::Result<()> {
    let measured = report.scenarios.iter().any(|measured| measured.rows.iter().any(|row| row.failure.is_none()));
    ensure!(measured, "no firmware could be measured, so no file was written");
    for (name, contents) in [
        ("compare.json", serde_json::to_string_pretty(report)? + "\n"),
        ("compare.svg", svg::render(report)),
        ("compare.md", table::markdown(report)),
    ] {
        let path = paths::target().join("compare").join(name);
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
        say(&format!("Written: {}", paths::shown(&path)));
    }
    Ok(())
}
