//! The kernel modules the default guest loads: which ones, in which order, and their bytes.
//!
//! Distribution kernels have drivers the guest needs as modules. Which modules one depends on stands in the module
//! itself (`depends=` in the section `.modinfo`), so a package that was only unpacked, without `depmod`, does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use object::{Object, ObjectSection};

use crate::progress::run_quietly;

/// The drivers of the default guest. One that the kernel has built in, or lacks, is passed over: the guest's report
/// shows what it found.
const WANTED: [&str; 6] = ["virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "nvme", "qemu_fw_cfg"];

/// Drivers that few guests need, for scripts to load: persistent memory, the windows of CXL, and a console of virtio.
const FOR_SCRIPTS: [&str; 4] = ["nfit", "nd_pmem", "cxl_acpi", "virtio_console"];

/// How deep folders of modules are followed.
const MAX_DEPTH: usize = 12;

/// A kernel module.
#[derive(Debug)]
pub struct Module {
    /// Its name, with `_` and never `-`.
    pub name: String,
    /// The object file, decompressed.
    pub bytes: Vec<u8>,
}

/// Reads the wanted modules and those they depend on from a folder such as `/lib/modules/6.1.0-56-cloud-amd64`, each
/// after the ones it depends on. A folder that does not exist gives none: its kernel may have everything built in.
///
/// # Errors
/// When a module cannot be read, decompressed or parsed.
pub fn load(folder: &Path) -> anyhow::Result<Vec<Module>> {
    load_named(folder, &WANTED)
}

/// As [`load`], the modules that only some scripts load.
///
/// # Errors
/// As for [`load`].
pub fn load_for_scripts(folder: &Path) -> anyhow::Result<Vec<Module>> {
    load_named(folder, &FOR_SCRIPTS)
}

fn load_named(folder: &Path, names: &[&str]) -> anyhow::Result<Vec<Module>> {
    let mut index = BTreeMap::new();
    find(folder, MAX_DEPTH, &mut index);
    let mut loaded = Loaded { index, seen: BTreeSet::new(), modules: Vec::new() };
    for name in names {
        loaded.add(name)?;
    }
    Ok(loaded.modules)
}

struct Loaded {
    index: BTreeMap<String, PathBuf>,
    seen: BTreeSet<String>,
    modules: Vec<Module>,
}

impl Loaded {
    /// Adds a module after its dependencies. Each name is visited once, which bounds the recursion.
    fn add(&mut self, name: &str) -> anyhow::Result<()> {
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let Some(path) = self.index.get(name).cloned() else { return Ok(()) };
        let bytes = read(&path)?;
        let depends = depends(&bytes).with_context(|| format!("{} is no kernel module", path.display()))?;
        for other in depends {
            self.add(&other)?;
        }
        self.modules.push(Module { name: name.to_owned(), bytes });
        Ok(())
    }
}

fn find(folder: &Path, depth: usize, index: &mut BTreeMap<String, PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        // The links `build` and `source` lead out of the folder.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth > 0 {
            find(&path, depth - 1, index);
        } else if let Some(name) = module_name(&entry.file_name().to_string_lossy()) {
            index.insert(name, path);
        }
    }
}

/// The module in a file of that name, such as `virtio-rng.ko` or `nvme.ko.xz`.
fn module_name(file: &str) -> Option<String> {
    let (stem, compression) = file.rsplit_once(".ko")?;
    matches!(compression, "" | ".xz" | ".gz" | ".zst").then(|| stem.replace('-', "_"))
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    // busybox is there anyway, and knows two of the three compressions in use.
    let decompressor: &[&str] = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => &["busybox", "unxz", "-c"],
        Some("gz") => &["busybox", "gunzip", "-c"],
        Some("zst") => &["zstd", "--decompress", "--stdout"],
        _ => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    run_quietly(Command::new(decompressor[0]).args(&decompressor[1..]).arg(path))
}

/// The modules that the module with these bytes depends on.
fn depends(bytes: &[u8]) -> anyhow::Result<Vec<String>> {
    let file = object::File::parse(bytes)?;
    let section = file.section_by_name(".modinfo").context("it has no section .modinfo")?;
    Ok(depends_in(section.data()?))
}

/// The dependencies in a section `.modinfo`: entries `key=value` that each end with a zero byte.
fn depends_in(modinfo: &[u8]) -> Vec<String> {
    let value = modinfo.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"depends="));
    let value = String::from_utf8_lossy(value.unwrap_or_default());
    value.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_known_by_their_file_names() {
        assert_eq!(module_name("virtio-rng.ko").as_deref(), Some("virtio_rng"));
        assert_eq!(module_name("nvme.ko.xz").as_deref(), Some("nvme"));
        assert_eq!(module_name("nvme.ko.sig"), None);
        assert_eq!(module_name("modules.builtin"), None);
    }

    #[test]
    fn dependencies_are_read_from_modinfo() {
        let modinfo = b"license=GPL\0depends=virtio,virtio-ring\0retpoline=Y\0";
        assert_eq!(depends_in(modinfo), ["virtio", "virtio_ring"]);
        assert!(depends_in(b"license=GPL\0depends=\0").is_empty());
        assert!(depends_in(b"").is_empty());
    }

    #[test]
    fn a_file_that_is_no_module_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("kernel")).unwrap();
        fs::write(folder.path().join("kernel/virtio_pci.ko"), "not an object file").unwrap();
        let error = load(folder.path()).unwrap_err();
        assert!(format!("{error:#}").contains("virtio_pci.ko is no kernel module"), "{error:#}");
    }

    #[test]
    fn no_folder_means_no_modules() {
        assert!(load(Path::new("/nonexistent")).unwrap().is_empty());
    }
}
