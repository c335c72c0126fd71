//! The list of disks, `disks.toml`.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use serde::Deserialize;

/// The list. Its head describes the fields.
const TABLE: &str = include_str!("../disks.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    files: BTreeMap<String, Files>,
    disk: Vec<Disk>,
}

/// Files by their paths on a file system.
pub type Files = BTreeMap<String, Source>;

/// Where the bytes of a file are from.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Program(String),
    Guest(GuestFile),
    Unified(String),
    Text(String),
    Utf16(String),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestFile {
    Kernel,
    Initrd,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Disk {
    pub name: String,
    pub about: String,
    #[serde(default)]
    pub on_request: bool,
    #[serde(default)]
    pub table: Kind,
    #[serde(default = "sector")]
    pub sector: u32,
    #[serde(default)]
    pub partition: Vec<Partition>,
    #[serde(default)]
    pub package: Option<(String, String)>,
    #[serde(default)]
    pub zero: Vec<(u64, u64)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    #[default]
    Gpt,
    Mbr,
    None,
    Iso,
    GrubIso,
    Genimage,
    Package,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    #[serde(rename = "type", default = "uefi")]
    pub kind: String,
    pub system: System,
    pub mib: u64,
    pub cluster: Option<u32>,
    #[serde(default)]
    pub logical: bool,
    #[serde(default)]
    pub fragmented: bool,
    #[serde(default)]
    pub files: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum System {
    Fat12,
    Fat16,
    Fat32,
    Ext4,
    Iso9660,
    Debian,
}

fn sector() -> u32 {
    512
}

fn uefi() -> String {
    "uefi".to_owned()
}

impl Table {
    pub fn read() -> anyhow::Result<Self> {
        toml::from_str(TABLE).context("tools/disks/disks.toml does not have the form that its head describes")
    }

    /// The disks with these names, each with its number in the list. Without names, those that are always made, or all.
    pub fn choose(&self, names: &[String], all: bool) -> anyhow::Result<Vec<(u32, &Disk)>> {
        for name in names {
            ensure!(self.disk.iter().any(|disk| disk.name == *name), "there is no disk {name}; --list has all");
        }
        let is_chosen = |disk: &Disk| match names {
            [] => all || !disk.on_request,
            names => names.contains(&disk.name),
        };
        Ok((1..).zip(&self.disk).filter(|(_, disk)| is_chosen(disk)).collect())
    }

    /// The files of each partition of a disk.
    pub fn contents(&self, disk: &Disk) -> anyhow::Result<Vec<Files>> {
        let files = |name: &String| self.files.get(name).with_context(|| format!("there is no files.{name}"));
        let of_partition = |partition: &Partition| -> anyhow::Result<Files> {
            let sets = partition.files.iter().map(files).collect::<anyhow::Result<Vec<_>>>()?;
            Ok(sets.into_iter().flatten().map(|(path, source)| (path.clone(), source.clone())).collect())
        };
        disk.partition.iter().map(of_partition).collect()
    }
}

impl Disk {
    /// Whether an installed system is on it.
    pub fn has_a_system(&self) -> bool {
        self.partition.iter().any(|partition| partition.system == System::Debian)
    }

    /// The name of its file.
    pub fn file_name(&self) -> String {
        let end = if matches!(self.table, Kind::Iso | Kind::GrubIso | Kind::Package) { "iso" } else { "img" };
        format!("{}.{end}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_disk_has_files_and_a_name_of_its_own() {
        let table = Table::read().unwrap();
        let disks = table.choose(&[], true).unwrap();
        for (_, disk) in &disks {
            assert_eq!(table.choose(std::slice::from_ref(&disk.name), false).unwrap().len(), 1, "{}", disk.name);
            let is_by_others = disk.partition.iter().all(|partition| partition.files.is_empty());
            assert!(
                is_by_others || table.contents(disk).unwrap().iter().all(|files| !files.is_empty()),
                "{}",
                disk.name
            );
        }
        assert!(table.choose(&[], false).unwrap().len() < disks.len());
        assert!(table.choose(&["no-such-disk".to_owned()], false).is_err());
    }
}
