//! The list of intended differences, and its application to those that were found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::configuration;
use super::fact::Difference;
use super::pattern::matches;

/// The list in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intended {
    /// The version of QEMU that it is for.
    qemu: String,
    /// The series of the guest's kernel that it is for.
    kernel: String,
    intended: Vec<Entry>,
}

/// Differences with the same reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Patterns for the machines' names.
    on: Vec<String>,
    /// The section.
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

/// A difference on a machine.
pub type Found<'a> = (&'static str, &'a Difference);

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

impl Intended {
    /// Reads the file.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let intended: Self = toml::from_str(text)?;
        for entry in &intended.intended {
            ensure!(
                !entry.on.is_empty() && !entry.what.is_empty(),
                "an entry needs machines in `on` and keys in `what`: {}",
                entry.reason
            );
            ensure!(!entry.reason.trim().is_empty(), "an entry has no reason: {:?}", entry.what);
            for on in &entry.on {
                let known = configuration::names().any(|name| matches(on, name));
                ensure!(known, "no machine has the name {on}: {}", entry.reason);
            }
        }
        Ok(intended)
    }
}

impl Intended {
    /// Whether it is for this version of QEMU, such as 7.2, and this kernel release, such as 6.1.0-56-cloud-amd64. With others, it
    /// may have unused entries.
    pub fn is_for(&self, qemu: Option<(u32, u32)>, kernel: &str) -> bool {
        let qemu = qemu.map(|(major, minor)| format!("{major}.{minor}"));
        let series = kernel.split('.').take(2).collect::<Vec<_>>().join(".");
        qemu.as_ref() == Some(&self.qemu) && series == self.kernel
    }
}

impl Entry {
    /// The patterns that the difference fits: their numbers in `on` and in `what`.
    fn fits(&self, machine: &str, difference: &Difference) -> Vec<(usize, usize)> {
        let values = matches(&self.seabios, &difference.seabios) && matches(&self.firstlight, &difference.firstlight);
        if self.section != difference.section || !values {
            return Vec::new();
        }
        let on = (0..).zip(&self.on).filter(|(_, on)| matches(on, machine));
        on.flat_map(|(on, _)| {
            let what = (0..).zip(&self.what).filter(|(_, what)| matches(what, &difference.key));
            what.map(move |(what, _)| (on, what))
        })
        .collect()
    }
}

impl<'a> Judgement<'a> {
    /// Looks up each difference in the list, and finds the patterns that fit no difference. A pattern for machines is only judged if
    /// all machines that it fits were compared.
    pub fn of(list: &'a Intended, found: &'a BTreeMap<&'static str, Vec<Difference>>) -> Self {
        let mut judgement = Self::default();
        let mut used = BTreeSet::new();
        for (machine, difference) in found.iter().flat_map(|(name, all)| all.iter().map(|one| (*name, one))) {
            let mut by = None;
            for (number, entry) in list.intended.iter().enumerate() {
                let fits = entry.fits(machine, difference);
                if !fits.is_empty() {
                    by.get_or_insert(entry);
                    used.extend(fits.into_iter().map(|(on, what)| (number, on, what)));
                }
            }
            match by {
                Some(entry) => judgement.intended.push((entry, (machine, difference))),
                None => judgement.unintended.push((machine, difference)),
            }
        }
        for (number, entry) in list.intended.iter().enumerate() {
            for (on_number, on) in entry.on.iter().enumerate() {
                if !configuration::names().filter(|name| matches(on, name)).all(|name| found.contains_key(name)) {
                    continue;
                }
                let unused = (0..).zip(&entry.what).filter(|(what, _)| !used.contains(&(number, on_number, *what)));
                judgement.stale.extend(unused.map(|(_, what)| {
                    format!("on {on}, section {}: {what} (\"{}\")", entry.section, first_line(&entry.reason))
                }));
            }
        }
        judgement
    }
}

/// The first line of a text.
fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"
        qemu = "7.2"
        kernel = "6.1"
        [[intended]]
        on = ["q35*", "pc"]
        section = "log"
        what = ["<6> input: *"]
        firstlight = "absent"
        reason = "no keyboard"
    "#;

    fn difference(key: &str, firstlight: &str) -> Difference {
        Difference {
            section: "log",
            key: key.to_owned(),
            seabios: "there".to_owned(),
            firstlight: firstlight.to_owned(),
        }
    }

    /// The same differences on every machine.
    fn everywhere(differences: &[Difference]) -> BTreeMap<&'static str, Vec<Difference>> {
        configuration::names().map(|name| (name, differences.to_vec())).collect()
    }

    #[test]
    fn a_difference_is_intended_if_an_entry_names_it() {
        let list = Intended::parse(LIST).unwrap();
        let found = everywhere(&[difference("<6> input: a", "absent"), difference("<4> b", "absent")]);
        let judgement = Judgement::of(&list, &found);
        assert_eq!(judgement.intended.len(), 5, "on q35, q35-*, and pc");
        assert!(judgement.unintended.iter().any(|(machine, found)| *machine == "q35" && found.key == "<4> b"));
        assert!(
            judgement.unintended.iter().any(|(machine, found)| *machine == "pc-pxb" && found.key == "<6> input: a")
        );
        assert_eq!(judgement.unintended.len(), 2 * configuration::names().count() - 5);
        assert!(judgement.stale.is_empty());
    }

    #[test]
    fn an_entry_that_fits_no_difference_is_stale() {
        let list = Intended::parse(LIST).unwrap();
        let none = everywhere(&[]);
        assert_eq!(Judgement::of(&list, &none).stale.len(), 2, "for each pattern of machines");
        let mut only_pc = everywhere(&[]);
        only_pc.insert("pc", vec![difference("<6> input: a", "absent")]);
        assert_eq!(Judgement::of(&list, &only_pc).stale.len(), 1);
        // A pattern is not judged if it names a machine that was not compared.
        let part = BTreeMap::from([("pc", Vec::new())]);
        assert_eq!(Judgement::of(&list, &part).stale.len(), 1);
    }

    #[test]
    fn the_projects_list_is_well_formed() {
        Intended::load(&xtask::paths::root().join(super::super::INTENDED)).unwrap();
    }
}
