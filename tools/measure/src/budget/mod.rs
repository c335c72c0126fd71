//! `cargo xtask budget`: counts what a boot costs, and fails if that is more than the record.
//!
//! Load on the machine changes no count. Most counts repeat exactly, so the smallest growth shows. Counts that depend on the
//! compiler or on QEMU's threads have a tolerance (`costs`). Another version of QEMU has other tables and items, so the record is
//! valid for one version; under another, the counts are shown and nothing fails. Counts that depend on the compiled code are
//! compared with the record on the target that it names, and only shown on others (`crate::target`).

mod costs;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use xtask::image::Image;
use xtask::progress::{say, step};
use xtask::qemu;
use xtask::{image, packages, paths};

use self::costs::{COLUMNS, Costs, HOST_INSTRUCTIONS, compare, explanation, table};
use crate::boot::counts;
use crate::boot::host::qemu_build;
use crate::boot::host_instructions::{self, OverBaseLine};
use crate::boot::probe::Files;
use crate::boot::scenario::{self, LARGE, MACHINES, Payload, SMALL, Scenario, Sizes};
use crate::boot::translation;
use crate::numbers::grouped;

/// Where the record is, from the repository's top folder.
const RECORD: &str = "benches/budget.toml";

/// The record's first lines.
const HEAD: &str = "\
# What a boot may cost, per machine: counted by `cargo xtask budget`, a step of `cargo xtask test`, with `-nodefaults`, a
# kernel of 14 MiB and an initrd of 32 MiB, from reset to the kernel's first instruction. The step fails when a count is
# above its budget. `cargo xtask budget --update` records what is measured; say in the commit why a count grew.
#
# The counts are those of one version of QEMU, and the host instructions those of one build of it. Code pages, instructions,
# blocks and host instructions are those of one target.
#
";

/// A q35 whose kernel gets EFI tables, one whose kernel is entered as an EFI program, and one with a unified kernel image.
const EFI_TABLES: &str = "q35-efi-tables";
const EFI_ON: &str = "q35-efi-on";
const UKI: &str = "q35-uki";

/// What is counted.
const ROWS: [&str; 6] = [MACHINES[0], MACHINES[1], MACHINES[2], EFI_TABLES, EFI_ON, UKI];

/// How often host instructions above their budget are counted: a busy machine must not make the comparison fail.
const ATTEMPTS: usize = 2;

/// Count what a boot costs, and compare with the recorded budget
///
/// Boots a probe kernel on q35, pc and microvm, and on q35 with EFI tables, as an EFI program and as a unified kernel image, and
/// counts the columns below. Fails if a count is above the budget in benches/budget.toml. Leaves out the columns that this host
/// cannot count.
#[derive(clap::Args)]
#[command(after_help = help())]
pub struct Args {
    /// Record the counts as the new budget instead of comparing
    #[arg(long)]
    update: bool,
}

fn help() -> String {
    format!("Columns, by their names in {RECORD}:\n{}", explanation("  "))
}

/// The record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// The version of QEMU, as in "7.2".
    qemu: String,
    /// The first line of `qemu-system-x86_64 --version`: host instructions depend on the build.
    qemu_build: String,
    /// The target that the firmware was built for.
    target: String,
    /// The budgets.
    machine: BTreeMap<String, Costs>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    packages::ensure(&[packages::QEMU])?;
    let image = image::build()?;
    if args.update { update(&image) } else { check(&image) }
}

/// Counts, and compares with the record.
pub fn check(image: &Image) -> anyhow::Result<()> {
    let path = path();
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", paths::shown(&path)))?;
    let record = Record::parse(&text).with_context(|| format!("cannot read {}", paths::shown(&path)))?;
    let (version, build) = (qemu_version(), qemu_build());
    let mut machines = Vec::new();
    let mut notes = Vec::new();
    for machine in ROWS {
        let budget = record.machine.get(machine).with_context(|| format!("{RECORD} has no budget for {machine}"))?;
        let budget = record.held(budget, &build, image.target);
        let costs = count(&image.bin, machine, Some(&budget), &mut notes)?;
        machines.push((machine, costs, budget));
    }
    say(&table(&machines));
    notes.iter().for_each(|text| say(text));
    if record.qemu_build != build {
        say(&format!(
            "Host instructions are not compared: the budget was recorded with {}, and this is {build}.",
            record.qemu_build
        ));
    }
    if record.target != image.target {
        say(&format!(
            "Counts that depend on the compiled code are not compared: the budget was recorded for {}, and this image is for {}.",
            record.target, image.target
        ));
    }
    let is_held = version == record.qemu;
    if !is_held {
        say(&format!(
            "A count above the budget is no error here: the budget was recorded with QEMU {}, and this is {version}.",
            record.qemu
        ));
    }
    let mut failures = String::new();
    for (machine, costs, budget) in &machines {
        for finding in compare(costs, budget) {
            let text = format!("  {machine}: {}", finding.text);
            if finding.is_above && is_held {
                writeln!(failures, "{text}")?;
            } else {
                say(&text);
            }
        }
    }
    ensure!(
        failures.is_empty(),
        "a boot costs more than {RECORD} allows:\n{failures}If the change is worth that, `cargo xtask budget --update` records it."
    );
    Ok(())
}

/// Counts, and records.
fn update(image: &Image) -> anyhow::Result<()> {
    let old = fs::read_to_string(path()).ok().and_then(|text| Record::parse(&text).ok());
    let build = qemu_build();
    let mut machine = BTreeMap::new();
    let mut notes = Vec::new();
    for name in ROWS {
        let held = |record: &Record| Some(record.held(record.machine.get(name)?, &build, image.target));
        let old = old.as_ref().and_then(held);
        let mut costs = count(&image.bin, name, None, &mut notes)?;
        match costs.complete_from(old.as_ref()) {
            Err(column) => {
                notes.iter().for_each(|text| say(text));
                bail!("{name}: nothing is recorded, because {} could not be counted", column.name)
            }
            Ok(kept) => kept.iter().for_each(|column| {
                note(&mut notes, format!("{}: not counted here, so the budget keeps its value", column.name))
            }),
        }
        machine.insert(name.to_owned(), costs);
    }
    notes.iter().for_each(|text| say(text));
    let record = Record { qemu: qemu_version(), qemu_build: build, target: image.target.to_owned(), machine };
    let path = path();
    fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).context("cannot make the record's folder")?;
    fs::write(&path, record.text()?).with_context(|| format!("cannot write {}", paths::shown(&path)))?;
    say(&format!("Recorded in {}", paths::shown(&path)));
    Ok(())
}

impl Record {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let record: Self = toml::from_str(text)?;
        let keys = record.machine.values().flat_map(|costs| costs.0.keys());
        for key in keys {
            ensure!(COLUMNS.iter().any(|column| column.key == *key), "there is no column {key}");
        }
        Ok(record)
    }

    /// The budgets that can be compared for this target of the firmware and this build of QEMU.
    fn held(&self, costs: &Costs, qemu: &str, target: &str) -> Costs {
        // Only one target repeats the counts with a tolerance, and only one build of QEMU the host instructions.
        let costs = costs.clone().without(|column| self.target != target && column.tolerance != 0);
        costs.without(|column| self.qemu_build != qemu && column.key == HOST_INSTRUCTIONS)
    }

    /// The file's contents.
    fn text(&self) -> anyhow::Result<String> {
        let Self { qemu, qemu_build, target, machine } = self;
        let mut text =
            format!("{HEAD}{}\nqemu = {qemu:?}\nqemu_build = {qemu_build:?}\ntarget = {target:?}\n", explanation("# "));
        for (machine, costs) in machine {
            writeln!(text, "\n[machine.{machine}]")?;
            for column in COLUMNS.iter() {
                if let Some(count) = costs.get(column) {
                    writeln!(text, "{} = {count}", column.key)?;
                }
            }
        }
        Ok(text)
    }
}

/// Adds a message for the user after the counts, each once.
fn note(notes: &mut Vec<String>, text: String) {
    if !notes.contains(&text) {
        notes.push(text);
    }
}

fn path() -> PathBuf {
    paths::root().join(RECORD)
}

fn qemu_version() -> String {
    packages::qemu_version(Path::new(packages::QEMU_PROGRAM))
        .map_or_else(String::new, |(major, minor)| format!("{major}.{minor}"))
}

/// The machine with a probe of these sizes, under TCG.
pub fn scenario(machine: &str, sizes: Sizes) -> Scenario {
    match machine {
        EFI_TABLES => Scenario::plain("q35", Payload::Probe(sizes)).with(&scenario::EFI_TABLES),
        EFI_ON => Scenario::plain("q35", Payload::Probe(sizes)).with(&scenario::EFI_ON),
        UKI => Scenario::plain("q35", Payload::Unified(sizes)),
        machine => Scenario::plain(machine, Payload::Probe(sizes)),
    }
}

/// Counts everything on one machine. If host instructions are above `budget`, they are counted again.
fn count(image: &Path, machine: &str, budget: Option<&Costs>, notes: &mut Vec<String>) -> anyhow::Result<Costs> {
    let large = scenario(machine, LARGE);
    let files = Files::new(&paths::target().join("compare"))?;
    let payload = large.payload.files(&files)?;
    let step = step(&format!("Counting on {machine}"));
    let failed = |failure| anyhow!("{machine}: the firmware {failure}");
    let counts = counts::exact(&large, image, &payload, qemu::kvm_opens())?.map_err(failed)?;
    counts.not_counted.iter().for_each(|why| note(notes, why.clone()));
    let mut had = |name: &str, why: String| note(notes, format!("not counted: {name}: {why}"));
    let log = translation::log(&large, image, &payload)?;
    let log = log.map_err(|why| had("blocks, code pages, CPUID, RDMSR and WRMSR", why)).ok();
    let host = host_instructions(image, machine, budget, &files)?;
    let host = host.map_err(|why| had("host instructions", why)).ok();
    step.done();
    if let Some(OverBaseLine { instructions, noise }) = host {
        let (instructions, noise) = (grouped(instructions), grouped(noise));
        note(notes, format!("{machine}: {instructions} host instructions; the runs differ by up to {noise}"));
    }
    Ok(Costs::of(&counts, log.as_ref().map(|log| &log.translation), host))
}

/// Counts the host instructions, and again if they are above the budget.
fn host_instructions(
    image: &Path,
    machine: &str,
    budget: Option<&Costs>,
    files: &Files,
) -> anyhow::Result<Result<OverBaseLine, String>> {
    if let Some(lack) = host_instructions::lack() {
        return Ok(Err(lack));
    }
    let small = scenario(machine, SMALL);
    let payload = small.payload.files(files)?;
    let base_line = files.base_line()?;
    let (mut base_runs, mut runs) = (Vec::new(), Vec::new());
    let mut attempts = ATTEMPTS;
    loop {
        for (image, runs) in [(base_line.as_path(), &mut base_runs), (image, &mut runs)] {
            if let Err(why) = host_instructions::count(&small, image, &payload, runs)? {
                return Ok(Err(why));
            }
        }
        attempts -= 1;
        let over = OverBaseLine::of(&runs, &base_runs).context("valgrind made no run")?;
        if attempts == 0 || budget.is_none_or(|budget| budget.allows_host_instructions(over.instructions)) {
            return Ok(Ok(over));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_complete_and_can_be_read_back() {
        let record = Record::parse(&fs::read_to_string(path()).unwrap()).unwrap();
        for machine in ROWS {
            let costs = record.machine.get(machine).unwrap();
            let lacking = COLUMNS.iter().filter(|column| column.needs.is_none() && costs.get(column).is_none());
            assert_eq!(lacking.map(|column| &column.key).collect::<Vec<_>>(), [""; 0], "{machine}");
        }
        let text = record.text().unwrap();
        assert_eq!(Record::parse(&text).unwrap(), record);
        assert!(Record::parse(&text.replace("accesses =", "access =")).is_err());
    }
}
