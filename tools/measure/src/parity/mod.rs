//! `cargo xtask parity`: boots one guest under SeaBIOS and under this firmware, and compares its view of the machine.
//!
//! Two boots run at a time. The guest (`guest.sh`) prints sections on its serial port (`transcript`). Modules
//! read the sections into facts (`fact`): a key and a value, both text. Values that may differ between boots are
//! masked. The facts of the two boots are compared key by key. A difference is either in the list of intended ones,
//! `tools/measure/parity.toml` (`intended`), or an error. An unused entry of that list is an error too.

mod acpi;
mod boot;
mod dmi;
mod fact;
mod list;
mod log;
mod pci;
mod proc;
mod resources;
mod transcript;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use xtask::progress::say;
use xtask::{guest, guest_programs, image, packages, paths};

use self::boot::Boot;
use self::fact::{Facts, differences, without_parts};
use self::list::{Intended, Machine};
use self::transcript::Transcript;
use crate::intended::{self, Difference};

/// The list of machines and intended differences, from the repository's top folder.
const INTENDED: &str = "tools/measure/parity.toml";

/// Compare what a guest sees under SeaBIOS and under this firmware
///
/// Boots a Linux guest under both on several machines, and compares its memory map, ACPI and SMBIOS tables, PCI functions,
/// resources, interrupts, MTRRs, CPUs, clocks, sleep states and kernel log. Fails for a difference that
/// tools/measure/parity.toml does not list, and for an entry of that list without a difference.
#[derive(clap::Args)]
pub struct Args {
    /// Machines to boot, such as q35 or pc-virtio [default: all]
    #[arg(value_name = "MACHINES")]
    machines: Vec<String>,

    /// Also show the intended differences, with their reasons
    #[arg(long)]
    intended: bool,

    /// Write the guests' output to this folder
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let list = Intended::load(&paths::root().join(INTENDED))?;
    let names = list.names();
    if let Some(unknown) = args.machines.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("no machine has the name {unknown}; the machines are {}", names.join(", "));
    }
    packages::ensure(&[packages::QEMU, packages::BUSYBOX, packages::KMOD, packages::IASL])?;
    packages::ensure(&[packages::SEABIOS, packages::SEABIOS_MICROVM])?;
    let image = image::build()?.bin;
    let initrd = guest::prepare().and_then(|guest| Ok((guest.initrd_with(&guest_programs::prepare()?)?, guest)));
    let (initrd, guest) = initrd.context("cannot prepare the default guest")?;
    let start = Instant::now();
    let chosen =
        list.machine.iter().filter(|machine| args.machines.is_empty() || args.machines.contains(&machine.name));
    let chosen: Vec<_> = chosen.collect();
    let files = boot::Files { image: &image, kernel: &guest.kernel.image, initrd: &initrd, keep: args.keep.as_deref() };
    let mut differing = compare_boots(&chosen, &files)?;
    let doubtful: Vec<_> = {
        let judgement = list.judge(&differing);
        let is_doubtful =
            |name: &str| judgement.unintended.iter().any(|(on, one)| *on == name && one.section == log::SECTION);
        chosen.iter().copied().filter(|machine| is_doubtful(&machine.name)).collect()
    };
    if !doubtful.is_empty() {
        let names: Vec<_> = doubtful.iter().map(|machine| machine.name.as_str()).collect();
        say(&format!("Booting again, because the kernel's log differs: {}", names.join(", ")));
        for (name, again) in compare_boots(&doubtful, &files)? {
            let first = differing.entry(name).or_default();
            for once in keep_lasting(first, &again) {
                say(&format!("  in one of two boots of {name}, so not compared: {}", once.key));
            }
        }
    }
    let judgement = list.judge(&differing);
    intended::print(&judgement, "SeaBIOS", args.intended);
    let machines = if chosen.len() == 1 { "machine" } else { "machines" };
    say(&format!("Compared {} {machines} in {:.1} s.", chosen.len(), start.elapsed().as_secs_f64()));
    let (wrong, stale) = (judgement.unintended.len(), judgement.stale.len());
    let strict = list.is_for(&guest.kernel.release);
    if stale > 0 && !strict {
        say(&format!(
            "Unused entries of {INTENDED} are no errors here: it is for another version of QEMU or of the kernel."
        ));
    }
    if wrong > 0 || stale > 0 && strict {
        bail!(
            "{wrong} differences are not in {INTENDED}, and {stale} of its entries are unused; docs/parity.md explains the \
             output and what to do"
        );
    }
    Ok(())
}

/// Boots each machine under both firmwares, and returns the differences by the machine's name.
fn compare_boots<'a>(
    machines: &[&'a Machine],
    files: &boot::Files<'_>,
) -> anyhow::Result<BTreeMap<&'a str, Vec<Difference>>> {
    let mut boots = Vec::new();
    for machine in machines {
        let seabios = machine.seabios().found().context("SeaBIOS is not installed")?;
        boots.push(Boot { machine, firmware: "seabios", image: seabios });
        boots.push(Boot { machine, firmware: "firstlight", image: files.image.to_path_buf() });
    }
    let printed = boot::all(&boots, files)?;
    let pairs = machines.iter().zip(printed.chunks_exact(2));
    pairs
        .map(|(machine, pair)| {
            let differences = compare(machine.extra_roots, &pair[0], &pair[1]);
            Ok((machine.name.as_str(), differences.with_context(|| machine.name.clone())?))
        })
        .collect()
}

/// Takes out the differences in the kernel's log that a second comparison has not: they depend on the host's load, not on the
/// firmware. The other sections have to be the same in every boot.
fn keep_lasting(first: &mut Vec<Difference>, again: &[Difference]) -> Vec<Difference> {
    first.extract_if(.., |one| one.section == log::SECTION && !again.contains(one)).collect()
}

/// The differences between the guest's two outputs.
fn compare(extra_roots: bool, seabios: &str, firstlight: &str) -> anyhow::Result<Vec<Difference>> {
    let facts = |text, side: &str| facts(extra_roots, text).with_context(|| format!("under {side}"));
    let differences = differences(&facts(seabios, "SeaBIOS")?, &facts(firstlight, "Firstlight")?);
    Ok(without_parts(differences, "pci"))
}

/// The facts in the guest's output.
fn facts(extra_roots: bool, text: &str) -> anyhow::Result<Facts> {
    let transcript = Transcript::parse(text)?;
    let mut facts = Facts::default();
    log::read(transcript.section("kernel-log")?, &mut facts);
    resources::read_map(transcript.section("e820")?, &mut facts)?;
    acpi::read(&transcript, extra_roots, &mut facts)?;
    dmi::read(transcript.section("dmidecode")?, &mut facts);
    pci::read(transcript.section("lspci")?, &mut facts);
    resources::read("iomem", transcript.section("iomem")?, &mut facts)?;
    resources::read("ioports", transcript.section("ioports")?, &mut facts)?;
    proc::read_interrupts(transcript.section("interrupts")?, &mut facts);
    proc::read_cpus(transcript.section("cpu")?, &mut facts);
    for section in ["mtrr", "clock-sources", "sleep-states"] {
        proc::read_lines(section, transcript.section(section)?, &mut facts);
    }
    proc::read_lines("firmware", &transcript.firmware_lines(), &mut facts);
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts of a guest's output on q35 under QEMU 7.2.
    const PRINTED: &str = include_str!("sample.txt");

    fn compared(text: &str) -> Vec<Difference> {
        compare(false, PRINTED, text).unwrap()
    }

    #[test]
    fn a_difference_in_any_section_is_found() {
        for (section, from, to) in [
            ("log", "ACPI: Interpreter enabled", "ACPI: Interpreter disabled."),
            ("log", "<6>[    1.650649] ACPI: Interp", "<4>[    1.650649] ACPI: Interp"),
            ("e820", "0x9fc00-0x9ffff : Reserved", "0x9f000-0x9ffff : Reserved"),
            ("e820", "0x100000-0x1ffdffff : System RAM", "0x100000-0x1ffcffff : System RAM"),
            ("acpi", "0900b20000000203", "0900b20000000303"),
            ("dmi", "Product Name: Standard PC (Q35 + ICH9, 2009)", "Product Name: none"),
            ("pci", "LLActRep+ BwNot+", "LLActRep- BwNot+"),
            ("pci", "Port #0, Speed 16GT/s, Width x32", "Port #0, Speed 16GT/s, Width x1"),
            ("pci", "[size=16K]", "<unassigned> [size=16K]"),
            ("iomem", "      c1300000-c1303fff : virtio-pci-modern\n", ""),
            ("ioports", "0070-0077 : rtc0", "0070-0071 : rtc0"),
            ("interrupts", "   9-fasteoi   acpi", "   9-edge      acpi"),
            ("mtrr", "size= 1024MB, count=1: uncachable", "size=  512MB, count=1: uncachable"),
            ("cpu", " pat pse36", " pse36"),
            ("clock-sources", "tsc hpet acpi_pm", "tsc acpi_pm"),
            ("sleep-states", "freeze mem disk", "freeze disk"),
            (
                "firmware",
                "firstlight-guest: script: begins",
                "firstlight: warning: x\nfirstlight-guest: script: begins",
            ),
        ] {
            assert_eq!(PRINTED.matches(from).count(), 1, "the sample must have {from:?} once");
            let found = compared(&PRINTED.replace(from, to));
            assert!(!found.is_empty(), "{to:?} is not found");
            assert!(found.iter().all(|difference| difference.section == section), "{to:?}: {found:?}");
        }
    }

    #[test]
    fn only_differences_in_the_log_may_be_of_one_boot() {
        let one = |section, key: &str| Difference {
            section,
            key: key.to_owned(),
            other: "there".to_owned(),
            firstlight: "absent".to_owned(),
        };
        let mut first = vec![one(log::SECTION, "lasting"), one(log::SECTION, "once"), one("acpi", "once")];
        assert_eq!(keep_lasting(&mut first, &[one(log::SECTION, "lasting")]), [one(log::SECTION, "once")]);
        assert_eq!(first, [one(log::SECTION, "lasting"), one("acpi", "once")]);
    }

    #[test]
    fn values_that_change_from_boot_to_boot_are_masked() {
        for (from, to) in [
            ("[    1.650649] ACPI: Interp", "[    0.150649] ACPI: Interp"),
            ("Memory at c1100000", "Memory at fe300000"),
            ("  4:       6230", "  4:        999"),
        ] {
            assert_eq!(PRINTED.matches(from).count(), 1, "the sample must have {from:?} once");
            assert_eq!(compared(&PRINTED.replace(from, to)), []);
        }
    }
}
