//! Facts about a machine, and the comparison of two lists of them.

use std::collections::BTreeMap;

use crate::intended::{ABSENT, Difference};

/// Facts: a section and a key, with a value.
#[derive(Debug, Default)]
pub struct Facts(BTreeMap<(&'static str, String), String>);

impl Facts {
    /// Adds a fact. The values of the same key are joined, so that none is lost.
    pub fn add(&mut self, section: &'static str, key: impl Into<String>, value: impl AsRef<str>) {
        let all = self.0.entry((section, key.into())).or_default();
        if !all.is_empty() {
            all.push_str(", ");
        }
        all.push_str(value.as_ref());
    }

    /// Adds a fact without a value. To add it twice changes nothing.
    pub fn mark(&mut self, section: &'static str, key: impl Into<String>) {
        self.0.insert((section, key.into()), "there".to_owned());
    }
}

/// The facts that differ, in order.
pub fn differences(seabios: &Facts, firstlight: &Facts) -> Vec<Difference> {
    let mut keys: Vec<_> = seabios.0.keys().chain(firstlight.0.keys()).collect();
    keys.sort();
    keys.dedup();
    let value = |facts: &Facts, key| facts.0.get(key).map_or(ABSENT, String::as_str).to_owned();
    keys.into_iter()
        .map(|key| Difference {
            section: key.0,
            key: key.1.clone(),
            other: value(seabios, key),
            firstlight: value(firstlight, key),
        })
        .filter(|difference| difference.other != difference.firstlight)
        .collect()
}

/// Removes the differences in the parts of a thing that is missing on one side: the thing's own difference is enough. A part's key
/// begins with the thing's key and a space.
pub fn without_parts(differences: Vec<Difference>, section: &str) -> Vec<Difference> {
    let absent = |difference: &&Difference| difference.other == ABSENT || difference.firstlight == ABSENT;
    let whole: Vec<_> = differences
        .iter()
        .filter(|difference| difference.section == section && !difference.key.contains(' '))
        .filter(absent)
        .map(|difference| format!("{} ", difference.key))
        .collect();
    let is_part = |difference: &Difference| {
        difference.section == section && whole.iter().any(|start| difference.key.starts_with(start))
    };
    differences.into_iter().filter(|difference| !is_part(difference)).collect()
}
