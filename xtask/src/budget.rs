//! `cargo xtask budget`: counts what a boot costs, and fails when that is more than what is recorded.
//!
//! The counts repeat exactly as long as the host is the same, so the smallest growth shows, and no other load on the
//! machine does. Another version of QEMU has other tables and other items, so the record holds for one version; under
//! another one the counts are shown and nothing fails.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use serde::{Deserialize, Serialize};

use crate::compare::counts::{self, Counts};
use crate::compare::plan::LARGE;
use crate::compare::probe::{Files, Format};
use crate::compare::process;
use crate::compare::scenario::{Payload, Scenario, Transport, memory_for};
use crate::progress::{say, step};
use crate::qemu::{self, Accelerator};
use crate::{image, packages, paths};

/// Where the record is, from the repository's top folder.
const RECORD: &str = "benches/budget.toml";

/// What stands at the head of the record.
const HEAD: &str = "\
# What a boot may cost, per machine: counted by `cargo xtask budget`, a step of `cargo xtask test`, with `-nodefaults`, a
# kernel of 14 MiB and an initrd of 32 MiB, from reset to the kernel's first instruction. The step fails when a count is
# above its budget. `cargo xtask budget --update` records what is measured; say in the commit why a count grew.
#
# The counts are those of one version of QEMU. Exits to QEMU are counted where there is a KVM.

";

/// Count what a boot costs, and compare with the recorded budget
///
/// Boots a probe kernel on q35, pc and microvm, and counts device accesses, topology writes, DMA transfers, instructions,
/// and, where there is a KVM, exits to QEMU. Fails when a count is above what benches/budget.toml records.
#[derive(clap::Args)]
pub struct Args {
    /// Record what is measured, in place of comparing
    #[arg(long)]
    update: bool,
}

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// The version of QEMU, as in "7.2".
    qemu: String,
    /// The budgets.
    machine: BTreeMap<String, Budget>,
}

/// What a boot may cost on one machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    accesses: u64,
    config_accesses: u64,
    topology_writes: u64,
    dma_transfers: u64,
    dma_bytes: u64,
    instructions: u64,
    /// Not there where the record was made without a KVM.
    exits: Option<u64>,
}

/// The machines, in order.
const MACHINES: [&str; 3] = ["q35", "pc", "microvm"];

/// Runs the command.
///
/// # Errors
/// As [`check`].
pub fn run(args: &Args) -> anyhow::Result<()> {
    packages::ensure(&[packages::QEMU])?;
    let image = image::build()?;
    if args.update { update(&image.bin) } else { check(&image.bin) }
}

/// Counts, and compares with the record.
///
/// # Errors
/// When a count is above its budget, and when the firmware does not boot.
pub fn check(image: &Path) -> anyhow::Result<()> {
    let path = path();
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", paths::shown(&path)))?;
    let record: Record = toml::from_str(&text).with_context(|| format!("cannot read {}", paths::shown(&path)))?;
    let qemu = qemu_version();
    let mut failures = String::new();
    for machine in MACHINES {
        let counts = count(image, machine)?;
        let budget = record.machine.get(machine).with_context(|| format!("{RECORD} has no budget for {machine}"))?;
        let findings = compare(&counts, budget);
        say(&format!("{machine}: {}", summary(&counts)));
        counts.not_counted.iter().for_each(|why| say(&format!("  {why}")));
        for (finding, above) in findings {
            if above && qemu == record.qemu {
                writeln!(failures, "  {machine}: {finding}")?;
            } else {
                say(&format!("  {finding}"));
            }
        }
    }
    if qemu != record.qemu {
        say(&format!("The budget is for QEMU {}, and this is {qemu}: nothing is held against it.", record.qemu));
    }
    if !failures.is_empty() {
        bail!(
            "a boot costs more than {RECORD} allows:\n{failures}If that is worth it, `cargo xtask budget --update` records \
             it."
        );
    }
    Ok(())
}

/// Counts, and records.
fn update(image: &Path) -> anyhow::Result<()> {
    let old = fs::read_to_string(path()).ok().and_then(|text| toml::from_str::<Record>(&text).ok());
    let mut machine = BTreeMap::new();
    for name in MACHINES {
        let mut budget = Budget::of(&count(image, name)?)?;
        if budget.exits.is_none() {
            say(&format!("{name}: no KVM runs the firmware here, so the budget of exits stays as it is"));
            budget.exits = old.as_ref().and_then(|old| old.machine.get(name)).and_then(|old| old.exits);
        }
        machine.insert(name.to_owned(), budget);
    }
    let record = Record { qemu: qemu_version(), machine };
    let path = path();
    fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).context("cannot make the record's folder")?;
    fs::write(&path, format!("{HEAD}{}", toml::to_string(&record)?))
        .with_context(|| format!("cannot write {}", paths::shown(&path)))?;
    say(&format!("Recorded in {}", paths::shown(&path)));
    Ok(())
}

fn path() -> PathBuf {
    paths::root().join(RECORD)
}

fn qemu_version() -> String {
    packages::installed_qemu().map_or_else(String::new, |(major, minor)| format!("{major}.{minor}"))
}

fn count(image: &Path, machine: &str) -> anyhow::Result<Counts> {
    process::handle_signals()?;
    let payload = Payload::Probe { format: Format::Bzimage, kernel: LARGE.kernel, initrd: LARGE.initrd };
    let scenario = Scenario {
        machine: machine.to_owned(),
        transport: Transport::Dma,
        accelerator: Accelerator::Tcg,
        memory: memory_for(&payload),
        payload,
        devices: Vec::new(),
        cpus: 1,
    };
    let files = Files::new(&paths::target().join("compare"))?;
    let payload = scenario.payload.files(&files)?;
    let step = step(&format!("Counting on {machine}"));
    let counts = counts::exact(&scenario, image, &payload, qemu::kvm_opens())?;
    let counts = counts.map_err(|failure| anyhow!("{machine}: the firmware {failure}"))?;
    step.done();
    Ok(counts)
}

impl Budget {
    /// The budget that these counts just keep.
    fn of(counts: &Counts) -> anyhow::Result<Self> {
        Ok(Self {
            accesses: counts.accesses,
            config_accesses: counts.config_accesses,
            topology_writes: counts.topology_writes,
            dma_transfers: counts.dma_transfers,
            dma_bytes: counts.dma_bytes.context("the bytes cannot be counted here: ptrace is forbidden")?,
            instructions: counts.instructions.context("the instructions were not counted")?,
            exits: counts.exits,
        })
    }
}

/// Each count that is not its budget: what to tell the user, and whether it is above. What could not be counted is not
/// compared.
fn compare(counts: &Counts, budget: &Budget) -> Vec<(String, bool)> {
    let pairs = [
        ("device accesses", Some(counts.accesses), budget.accesses),
        ("PCI configuration accesses", Some(counts.config_accesses), budget.config_accesses),
        ("writes that change the memory topology", Some(counts.topology_writes), budget.topology_writes),
        ("DMA transfers", Some(counts.dma_transfers), budget.dma_transfers),
        ("bytes by DMA", counts.dma_bytes, budget.dma_bytes),
        ("instructions", counts.instructions, budget.instructions),
    ];
    let exits = budget.exits.map(|budget| ("exits to QEMU", counts.exits, budget));
    pairs
        .into_iter()
        .chain(exits)
        .filter_map(|(name, count, budget)| Some((name, count?, budget)))
        .filter(|(_, count, budget)| count != budget)
        .map(|(name, count, budget)| {
            if count > budget {
                (format!("{name}: {count}, which is {} above the budget of {budget}", count - budget), true)
            } else {
                (
                    format!("{name}: {count}, below the budget of {budget}: lower it (cargo xtask budget --update)"),
                    false,
                )
            }
        })
        .collect()
}

fn summary(counts: &Counts) -> String {
    let number = |count: Option<u64>| count.map_or_else(|| "uncounted".to_owned(), |count| count.to_string());
    format!(
        "{} accesses, {} topology writes, {} transfers, {} instructions, {} exits",
        counts.accesses,
        counts.topology_writes,
        counts.dma_transfers,
        number(counts.instructions),
        number(counts.exits)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> Counts {
        Counts {
            accesses: 111,
            config_accesses: 89,
            topology_writes: 3,
            dma_transfers: 16,
            dma_bytes: Some(1 << 20),
            instructions: Some(187_412),
            exits: Some(110),
            topology: Vec::new(),
            not_counted: Vec::new(),
        }
    }

    #[test]
    fn a_count_above_its_budget_is_found() {
        let budget = Budget::of(&counts()).unwrap();
        assert_eq!(compare(&counts(), &budget), []);
        let found = compare(&Counts { instructions: Some(187_413), ..counts() }, &budget);
        assert_eq!(found, [("instructions: 187413, which is 1 above the budget of 187412".to_owned(), true)]);
        let found = compare(&Counts { topology_writes: 4, exits: Some(111), ..counts() }, &budget);
        assert!(found.len() == 2 && found.iter().all(|(_, above)| *above));
    }

    #[test]
    fn a_count_below_its_budget_is_told_but_is_no_failure() {
        let budget = Budget::of(&counts()).unwrap();
        let found = compare(&Counts { accesses: 100, ..counts() }, &budget);
        assert!(matches!(found.as_slice(), [(text, false)] if text.contains("lower it")), "{found:?}");
    }

    #[test]
    fn what_cannot_be_counted_here_is_not_compared() {
        let budget = Budget::of(&counts()).unwrap();
        let here = Counts { exits: None, dma_bytes: None, ..counts() };
        assert_eq!(compare(&here, &budget), []);
        assert_eq!(Budget::of(&Counts { exits: None, ..counts() }).unwrap().exits, None);
        assert!(Budget::of(&here).is_err(), "a record without the bytes would be no budget");
    }

    #[test]
    fn the_record_is_complete_and_can_be_read_back() {
        let record: Record = toml::from_str(&fs::read_to_string(path()).unwrap()).unwrap();
        assert!(MACHINES.iter().all(|machine| record.machine.contains_key(*machine)));
        let text = format!("{HEAD}{}", toml::to_string(&record).unwrap());
        assert_eq!(toml::from_str::<Record>(&text).unwrap(), record);
        assert!(toml::from_str::<Record>(&text.replace("accesses", "access")).is_err());
    }
}
