//! The list of machines and intended differences.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use xtask::packages::{self, Need};

use crate::intended::{self, Difference, Entry, Judgement};

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
        intended::check(&list.intended, &list.names())?;
        Ok(list)
    }

    /// The names of the machines.
    pub fn names(&self) -> Vec<&str> {
        self.machine.iter().map(|machine| machine.name.as_str()).collect()
    }

    /// Whether it is for the installed version of QEMU and this kernel release, such as 6.1.0-56-cloud-amd64. With others, it may
    /// have unused entries.
    pub fn is_for(&self, kernel: &str) -> bool {
        let series = kernel.split('.').take(2).collect::<Vec<_>>().join(".");
        intended::is_for_qemu(&self.qemu) && series == self.kernel
    }

    /// Looks up each difference of the compared machines in the list.
    pub fn judge<'a>(&'a self, found: &'a BTreeMap<&str, Vec<Difference>>) -> Judgement<'a> {
        intended::judge(&self.intended, &self.names(), found)
    }
}
