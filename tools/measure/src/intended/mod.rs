//! Differences between two firmwares, and lists of those that are intended, with reasons.
//!
//! A difference that is not in the list is an error, and so is an entry of the list that fits none.

mod report;

use std::collections::BTreeMap;

use anyhow::ensure;
use serde::Deserialize;
use wildmatch::WildMatch;
use xtask::packages::{self, QEMU_PROGRAM};

pub use self::report::print;

/// The value that stands for what one side has not.
pub const ABSENT: &str = "absent";

/// The section of an entry that names none.
pub const CALLS: &str = "calls";

/// Something that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub section: &'static str,
    pub key: String,
    /// The value under the other firmware, or [`ABSENT`].
    pub other: String,
    /// The value under this firmware, or [`ABSENT`].
    pub firstlight: String,
}

/// Differences with the same reason.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Patterns for the names of machines or boots.
    on: Vec<String>,
    #[serde(default = "calls")]
    section: String,
    /// Patterns for what differs.
    what: Vec<String>,
    /// A pattern for the value under the other firmware.
    #[serde(default = "anything", alias = "seabios", alias = "ovmf")]
    other: String,
    /// A pattern for the value under this firmware.
    #[serde(default = "anything")]
    firstlight: String,
    /// Why it is intended.
    pub reason: String,
}

fn calls() -> String {
    CALLS.to_owned()
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

/// Checks that each entry has a reason and is for something in `names`.
pub fn check(entries: &[Entry], names: &[&str]) -> anyhow::Result<()> {
    for Entry { on, what, reason, .. } in entries {
        ensure!(!on.is_empty() && !what.is_empty(), "an entry needs names in `on` and patterns in `what`: {reason}");
        ensure!(!reason.trim().is_empty(), "an entry has no reason: {what:?}");
        for on in on {
            ensure!(names.iter().any(|name| fits(on, name)), "nothing has the name {on}: {reason}");
        }
    }
    Ok(())
}

/// Whether a list for this version of QEMU, such as 7.2, is for the one that is installed. With another one, it may have unused
/// entries.
pub fn is_for_qemu(version: &str) -> bool {
    let installed = packages::qemu_version(std::path::Path::new(QEMU_PROGRAM));
    installed.is_some_and(|(major, minor)| format!("{major}.{minor}") == version)
}

/// Looks up each difference in the list, and finds the patterns that fit no difference. A pattern for names is only judged
/// if all names that it fits were compared.
pub fn judge<'a>(entries: &'a [Entry], names: &[&str], found: &'a BTreeMap<&str, Vec<Difference>>) -> Judgement<'a> {
    let mut judgement = Judgement::default();
    // Each pair of patterns, and whether it fits a difference.
    let mut rules = Vec::new();
    for entry in entries {
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
    let stale = rules
        .iter()
        .filter(|(_, on, _, used)| !used && names.iter().all(|name| !fits(on, name) || found.contains_key(name)));
    judgement.stale = stale
        .map(|(entry, on, what, _)| {
            let reason = entry.reason.trim().lines().next().unwrap_or_default();
            format!("on {on}, section {}: {what} (\"{reason}\")", entry.section)
        })
        .collect();
    judgement
}

impl Entry {
    /// Whether section and values are those of the entry.
    fn allows(&self, difference: &Difference) -> bool {
        self.section == difference.section
            && fits(&self.other, &difference.other)
            && fits(&self.firstlight, &difference.firstlight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_intended_if_an_entry_names_it_and_an_unused_entry_is_stale() {
        let names = ["q35", "q35-pxb", "pc", "pc-pxb"];
        let entries = [Entry {
            on: ["q35*", "pc"].map(str::to_owned).into(),
            section: "log".to_owned(),
            what: vec!["<6> input: *".to_owned()],
            other: anything(),
            firstlight: "absent".to_owned(),
            reason: "no keyboard".to_owned(),
        }];
        check(&entries, &names).unwrap();
        let difference = |key: &str| Difference {
            section: "log",
            key: key.to_owned(),
            other: "there".to_owned(),
            firstlight: "absent".to_owned(),
        };
        let both = || vec![difference("<6> input: a"), difference("<4> b")];
        let found = BTreeMap::from([("q35", both()), ("pc", both()), ("pc-pxb", both())]);
        let judgement = judge(&entries, &names, &found);
        assert_eq!((judgement.intended.len(), judgement.unintended.len(), judgement.stale.len()), (2, 4, 0));
        let none = BTreeMap::from([("pc", Vec::new()), ("q35", Vec::new())]);
        assert_eq!(judge(&entries, &names, &none).stale.len(), 1, "not every q35 was compared");
    }

    #[test]
    fn an_entry_has_a_reason_and_is_for_something() {
        let entry = |on: &str, reason: &str| {
            toml::from_str::<Entry>(&format!("on = [\"{on}\"]\nwhat = [\"*\"]\nreason = \"{reason}\"")).unwrap()
        };
        assert!(check(&[entry("p*", "why")], &["pc"]).is_ok());
        assert!(check(&[entry("q*", "why")], &["pc"]).is_err());
        assert!(check(&[entry("p*", " ")], &["pc"]).is_err());
    }
}
