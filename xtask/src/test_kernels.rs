//! Kernels of Debian's that only tests boot: Xen and GNU Mach, for Multiboot.
//!
//! Each is downloaded and unpacked once below `target/guest`, without installing it, as the default guest's kernel is. One for
//! another architecture comes by lists and sources of its own for apt, so that the machine's stay as they are. Removing the
//! folder gets the newest one again. Where one is not to be had its tests are skipped, and say why.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::guest::{self, compare_versions};
use crate::newer_qemu::{sources_of, this_release};
use crate::packages::{self, apt};
use crate::paths;
use crate::progress::{run_quietly, run_step, say};

/// A kernel in a package.
struct Packaged {
    /// What it is called.
    name: &'static str,
    /// The folder it is unpacked into.
    folder: &'static str,
    /// What the package's name begins and ends with; between them are a version's digits and dots.
    package: [&'static str; 2],
    /// Debian's architecture, where it is another one than the machine's.
    architecture: Option<&'static str>,
    /// What the name of the file in `boot` begins with. It ends with `.gz`, and is packed so.
    file: &'static str,
    /// The variables that tell the tests of it (`tests/qemu/environment.rs`): the file, or why there is none.
    variables: [&'static str; 2],
}

const ALL: [Packaged; 2] = [
    Packaged {
        name: "Xen",
        folder: "xen",
        package: ["xen-hypervisor-", "-amd64"],
        architecture: None,
        file: "xen-",
        variables: ["FIRSTLIGHT_XEN", "FIRSTLIGHT_NO_XEN"],
    },
    // The one for amd64 is a 64-bit file, which QEMU does not load.
    Packaged {
        name: "GNU Mach",
        folder: "gnumach",
        package: ["gnumach-image-", "-486"],
        architecture: Some("i386"),
        file: "gnumach-",
        variables: ["FIRSTLIGHT_GNU_MACH", "FIRSTLIGHT_NO_GNU_MACH"],
    },
];

/// Gets them ready, and gives the variables that tell the tests, with their values.
pub fn for_tests() -> Vec<(&'static str, String)> {
    let variable = |kernel: &Packaged| {
        let [found, absent] = kernel.variables;
        match kernel.prepare() {
            Ok(path) => (found, path.display().to_string()),
            Err(error) => {
                say(&format!("The tests with {} are skipped: {error:#}", kernel.name));
                (absent, format!("{error:#}"))
            }
        }
    };
    ALL.iter().map(variable).collect()
}

impl Packaged {
    /// The kernel, unpacked.
    fn prepare(&self) -> anyhow::Result<PathBuf> {
        let folder = paths::guest_folder().join(self.folder);
        let _lock = guest::lock(&folder)?;
        let kernel = folder.join("kernel");
        if !kernel.is_file() {
            let partial = folder.join("partial");
            guest::remake(&partial)?;
            let packed = self.download(&partial)?;
            let unpacked = run_quietly(Command::new("gzip").arg("-dc").arg(&packed))?;
            guest::write_if_changed(&kernel, &unpacked)?;
            fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
        }
        Ok(kernel)
    }

    /// Downloads the package to `folder`, and gives the packed kernel in it.
    fn download(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        ensure!(packages::apt_usable(), "apt is not there to download it with");
        let options = match self.architecture {
            Some(architecture) => foreign(folder, architecture)?,
            None => Vec::new(),
        };
        let names = run_quietly(apt("apt-cache").args(&options).args(["pkgnames", self.package[0]]))?;
        let names = String::from_utf8_lossy(&names).into_owned();
        let package = self.newest(&names).with_context(|| format!("apt knows no package {}*", self.package[0]))?;
        let mut command = apt("apt-get");
        command.args(&options).arg("download").arg(package).current_dir(folder);
        run_step(&format!("Downloading {}, which tests boot", self.name), &mut command)?;
        let archive = find(folder, |name| name.ends_with(".deb")).context("apt-get download left no package behind")?;
        run_quietly(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(folder.join("system")))?;
        find(&folder.join("system/boot"), |name| name.starts_with(self.file) && name.ends_with(".gz"))
            .with_context(|| format!("the package {package} has no boot/{}*.gz", self.file))
    }

    /// The package of the newest version among the names, one a line.
    fn newest<'a>(&self, names: &'a str) -> Option<&'a str> {
        let [start, end] = self.package;
        let is_version = |text: &str| text.contains('.') && text.chars().all(|c| c.is_ascii_digit() || c == '.');
        let fits =
            |name: &&str| name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end)).is_some_and(is_version);
        names.lines().filter(fits).max_by(|a, b| compare_versions(a, b))
    }
}

/// Options that make apt look for packages of another architecture, with lists in `folder`.
fn foreign(folder: &Path, architecture: &str) -> anyhow::Result<Vec<String>> {
    let release = this_release()?;
    for part in ["lists/partial", "cache/archives/partial"] {
        guest::remake(&folder.join(part))?;
    }
    let [sources, status] = ["sources.list", "status"].map(|name| folder.join(name));
    fs::write(&sources, sources_of(&release)).and_then(|()| fs::write(&status, "")).context("cannot write for apt")?;
    let mut options = Vec::new();
    for (option, value) in [
        ("APT::Architecture", architecture.to_owned()),
        ("APT::Architectures", architecture.to_owned()),
        ("Dir::Etc::SourceList", sources.display().to_string()),
        ("Dir::Etc::SourceParts", folder.join("no-more-sources").display().to_string()),
        ("Dir::State::Lists", folder.join("lists").display().to_string()),
        ("Dir::State::Status", status.display().to_string()),
        ("Dir::Cache", folder.join("cache").display().to_string()),
        ("Acquire::Languages", "none".to_owned()),
        ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_owned()),
        // Nothing of the machine's is written, and only root could lock it.
        ("Debug::NoLocking", "true".to_owned()),
    ] {
        options.extend(["-o".to_owned(), format!("{option}={value}")]);
    }
    run_step(&format!("Looking up Debian's packages for {architecture}"), apt("apt-get").args(&options).arg("update"))?;
    Ok(options)
}

/// A file in a folder, by its name.
fn find(folder: &Path, is_it: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries.map(|entry| entry.path()).find(|path| path.file_name().is_some_and(|name| is_it(&name.to_string_lossy())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_is_chosen_and_variants_are_not() {
        let names = "xen-hypervisor-4.9-amd64\nxen-hypervisor-4.17-amd64\nxen-hypervisor-4.17-amd64-dbg\n\
            xen-hypervisor-common\nxen-hypervisor-4.20-arm64\n";
        assert_eq!(ALL[0].newest(names), Some("xen-hypervisor-4.17-amd64"));
        let names =
            "gnumach-image-1-486\ngnumach-image-1.8-xen-486\ngnumach-image-1.8-486\ngnumach-image-1.8-486-dbg\n";
        assert_eq!(ALL[1].newest(names), Some("gnumach-image-1.8-486"));
        assert_eq!(ALL[1].newest(""), None);
    }
}
