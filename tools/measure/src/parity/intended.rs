//! The list of machines and intended differences, and its application to the differences that were found.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;
use wildmatch::WildMatch;
use xtask::packages::{self, Need};

use super::fact::Difference;

/// The list in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intended {
    /// The version of QEMU that it is for.
    qemu: String,
    /// The series of the guest's kernel that it is for.
    kernel: String,
    pub machine: Vec<Machine>,
    intended: Vec<Entry>,
}

/// A machine on which the guest is compared.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    pub name: String,
    /// QEMU's arguments, separated by white space.
    pub arguments: String,
    /// Whether there are extra PCI root buses.
    #[serde(default)]
    pub extra_roots: bool,
}

/// Differences with the same reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Patterns for the machines' names.
    on: Vec<String>,
    section: String,
    /// Patterns for the keys of facts.
    what: Vec<String>,
    /// A pattern for the value under SeaBIOS.
    #[serde(default = "anything")]
    seabios: String,
    /// A pattern for the value under this firmware.
    #[serde(default = "anything")]
    firstlight: String,
    /// Why it is intended.
    pub reason: String,
}

fn anything() -> String {
    "*".to_owned()
}

/// Whether a text fits a pattern, in which `*` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    WildMatch::new(pattern).matches(text)
}

/// A difference on a machine.
pub type Found<'a> = (&'a str, &'a Difference);

/// The differences, sorted by the list.
#[derive(Debug, Default)]
pub struct Judgement<'a> {
    /// The differences without an entry.
    pub unintended: Vec<Found<'a>>,
    /// The differences with an entry, and the entry.
    pub intended: Vec<(&'a Entry, Found<'a>)>,
    /// The unused parts of the list, in words for the user.
    pub stale: Vec<String>,
}

impl Machine {
    /// SeaBIOS's build for the machine.
    pub fn seabios(&self) -> Need {
        if self.name.starts_with("microvm") { packages::SEABIOS_MICROVM } else { packages::SEABIOS }
    }
}

impl Intended {
    /// Reads the file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let list: Self = toml::from_str(text)?;
        for Entry { on, what, reason, .. } in &list.intended {
            ensure!(!on.is_empty() && !what.is_empty(), "an entry needs machines in `on` and keys in `what`: {reason}");
            ensure!(!reason.trim().is_empty(), "an entry has no reason: {what:?}");
            for on in on {
                ensure!(list.machines(on).next().is_some(), "no machine has the name {on}: {reason}");
            }
        }
        Ok(list)
    }

    /// The names that the pattern fits.
    fn machines<'a>(&'a self, on: &str) -> impl Iterator<Item = &'a str> {
        self.machine.iter().map(|machine| machine.name.as_str()).filter(|name| fits(on, name))
    }

    /// Whether it is for this version of QEMU, such as 7.2, and this kernel release, such as 6.1.0-56-cloud-amd64. With others, it
    /// may have unused entries.
    pub fn is_for(&self, qemu: Option<(u32, u32)>, kernel: &str) -> bool {
        let qemu = qemu.map(|(major, minor)| format!("{major}.{minor}"));
        let series = kernel.split('.').take(2).collect::<Vec<_>>().join(".");
        qemu.as_ref() == Some(&self.qemu) && series == self.kernel
    }

    /// Looks up each difference in the list, and finds the patterns that fit no difference. A pattern for machines is only judged if
    /// all machines that it fits were compared.
    pub fn judge<'a>(&'a self, found: &'a BTreeMap<&str, Vec<Difference>>) -> Judgement<'a> {
        let mut judgement = Judgement::default();
        // Each pair of patterns, and whether it fits a difference.
        let mut rules = Vec::new();
        for entry in &self.intended {
            rules.extend(entry.on.iter().flat_map(|on| entry.what.iter().map(move |what| (entry, on, what, false))));
        }
        for (machine, difference) in found.iter().flat_map(|(name, all)| all.iter().map(|one| (*name, one))) {
            let mut by = None;
            for (entry, on, what, used) in &mut rules {
                if fits(on, machine) && fits(what, &difference.key) && entry.allows(difference) {
                    by.get_or_insert(*entry);
                    *used = true;
                }
            }
            match by {
                Some(entry) => judgement.intended.push((entry, (machine, difference))),
                None => judgement.unintended.push((machine, difference)),
            }
        }
        let stale =
            rules.iter().filter(|(_, on, _, used)| !used && self.machines(on).all(|name| found.contains_key(name)));
        judgement.stale = stale
            .map(|(entry, on, what, _)| {
                let reason = entry.reason.trim().lines().next().unwrap_or_default();
                format!("on {on}, section {}: {what} (\"{reason}\")", entry.section)
            })
            .collect();
        judgement
    }
}

impl Entry {
    /// Whether section and values are those of the entry.
    fn allows(&self, difference: &Difference) -> bool {
        self.section == difference.section
            && fits(&self.seabios, &difference.seabios)
            && fits(&self.firstlight, &difference.firstlight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_intended_if_an_entry_names_it_and_an_unused_entry_is_stale() {
        let mut list = Intended::load(&xtask::paths::root().join(super::super::INTENDED)).unwrap();
        list.intended.clear();
        list.intended.push(Entry {
            on: ["q35*", "pc"].map(str::to_owned).into(),
            section: "log".to_owned(),
            what: vec!["<6> input: *".to_owned()],
            seabios: anything(),
            firstlight: "absent".to_owned(),
            reason: "no keyboard".to_owned(),
        });
        let difference = |key: &str| Difference {
            section: "log",
            key: key.to_owned(),
            seabios: "there".to_owned(),
            firstlight: "absent".to_owned(),
        };
        let both = || vec![difference("<6> input: a"), difference("<4> b")];
        let found = BTreeMap::from([("q35", both()), ("pc", both()), ("pc-pxb", both())]);
        let judgement = list.judge(&found);
        assert_eq!((judgement.intended.len(), judgement.unintended.len(), judgement.stale.len()), (2, 4, 0));
        let none = BTreeMap::from([("pc", Vec::new()), ("q35", Vec::new())]);
        assert_eq!(list.judge(&none).stale.len(), 1, "not every q35 was compared");
    }
}
