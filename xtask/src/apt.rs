//! Debian's packages, downloaded and unpacked without being installed.
//!
//! Guests, programs for them and a newer QEMU come from packages. Downloads need no root: apt gets its own lists and cache
//! ([`Apart`]), and a package is unpacked into a folder below `target/`.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::packages::is_root;
use crate::paths::{self, find_program};
use crate::progress::{run_quietly, run_step};

/// The archive if no source of the machine names one.
const ARCHIVE: &str = "http://deb.debian.org/debian";
/// The keys that Debian's archive is signed with (Debian's package `debian-archive-keyring`).
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Describes the system (os-release(5)).
const OS_RELEASE: &str = "/etc/os-release";

/// After this time, the lists of the machine's sources are downloaded again.
const LISTS_ARE_OLD: Duration = Duration::from_secs(60 * 60);

/// The first words of the error of a download that found no room.
const DISK_FULL: &str = "the disk is full; make room below the build folder and try again";

/// Makes `place`, a file or a folder, with `make`, if it does not exist yet. `make` works in an empty folder beside it, and returns
/// the path of what it made there.
pub fn kept(place: &Path, make: impl FnOnce(&Path) -> anyhow::Result<PathBuf>) -> anyhow::Result<()> {
    let folder = place.parent().context("no folder to download into")?;
    let _lock = paths::lock(folder)?;
    if place.exists() {
        return Ok(());
    }
    let partial = folder.join("partial");
    paths::remake(&partial)?;
    let made = make(&partial)?;
    fs::rename(&made, place).with_context(|| format!("cannot make {}", place.display()))?;
    fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))
}

/// Runs `apt-cache` or `apt-get` as this user, in English.
fn apt(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    if is_root() {
        // Without this, apt warns that its sandbox user cannot write to the folder of the download.
        command.args(["-o", "APT::Sandbox::User=root"]);
    }
    command
}

/// Checks that apt can look up, download and unpack a package here.
fn check() -> anyhow::Result<()> {
    for program in ["apt-cache", "apt-get", "dpkg-deb"] {
        ensure!(find_program(program).is_some(), "{program} is not installed, so nothing can be downloaded");
    }
    Ok(())
}

/// Whether a step failed because the disk is full. apt and dpkg-deb have different messages; the third is for a quota.
pub fn is_disk_full(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    ["No space left on device", "enough free space", "Disk quota exceeded"].iter().any(|sign| text.contains(sign))
}

/// apt with its own lists and cache, so that the machine's are unchanged. It still knows which packages are installed.
pub struct Apart {
    folder: PathBuf,
    options: Vec<String>,
}

impl Apart {
    /// With the machine's sources. The lists are kept for a while, because several packages are looked up in them.
    pub fn here() -> anyhow::Result<Self> {
        let folder = paths::guest_folder().join("apt");
        let _lock = paths::lock(&folder)?;
        let apart = Self::without_sources(&folder)?;
        let updated = folder.join("updated");
        let age = fs::metadata(&updated).and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
        if age.is_none_or(|age| age > LISTS_ARE_OLD) {
            apart.update("the packages of this machine's sources")?;
            fs::write(&updated, "").with_context(|| format!("cannot write {}", updated.display()))?;
        }
        Ok(apart)
    }

    /// All files are in `folder`. The sources are in the format of sources.list(5).
    pub fn new(folder: &Path, sources: &str) -> anyhow::Result<Self> {
        let mut apart = Self::without_sources(folder)?;
        let file = folder.join("sources.list");
        fs::write(&file, sources).with_context(|| format!("cannot write {}", file.display()))?;
        apart.set(&[
            ("Dir::Etc::SourceList", &file.display().to_string()),
            ("Dir::Etc::SourceParts", &folder.join("no-more-sources").display().to_string()),
        ]);
        Ok(apart)
    }

    fn without_sources(folder: &Path) -> anyhow::Result<Self> {
        check()?;
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make the folder {}", part.display()))?;
        }
        let place = |name: &str| folder.join(name).display().to_string();
        let mut apart = Self { folder: folder.to_owned(), options: Vec::new() };
        apart.set(&[
            ("Dir::State::Lists", &place("lists")),
            ("Dir::Cache", &place("cache")),
            // Descriptions of applications and translations are of no use here.
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false"),
            ("Acquire::Languages", "none"),
            // apt writes nothing of the machine's, and only root could lock it.
            ("Debug::NoLocking", "true"),
        ]);
        Ok(apart)
    }

    /// The same, and nothing is installed for it.
    pub fn without_installed(folder: &Path, sources: &str) -> anyhow::Result<Self> {
        let mut apart = Self::new(folder, sources)?;
        let status = folder.join("status");
        fs::write(&status, "").with_context(|| format!("cannot write {}", status.display()))?;
        apart.set(&[("Dir::State::Status", &status.display().to_string())]);
        Ok(apart)
    }

    /// The same for another architecture, with its lists.
    pub fn foreign(folder: &Path, architecture: &str) -> anyhow::Result<Self> {
        let mut apart = Self::without_installed(folder, &sources_of(&this_release()?))?;
        apart.set(&[("APT::Architecture", architecture), ("APT::Architectures", architecture)]);
        apart.update(&format!("Debian's packages for {architecture}"))?;
        Ok(apart)
    }

    fn set(&mut self, options: &[(&str, &str)]) {
        self.options.extend(options.iter().flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")]));
    }

    /// Downloads the lists, in which `what` is looked up.
    pub fn update(&self, what: &str) -> anyhow::Result<()> {
        run_step(&format!("Looking up {what}"), self.command("apt-get").arg("update"))
    }

    /// An `apt-get` or `apt-cache` command.
    pub fn command(&self, program: &str) -> Command {
        let mut command = apt(program);
        command.args(&self.options);
        command
    }

    /// Downloads these packages and unpacks them. Returns the top folder of the unpacked files.
    pub fn download(&self, what: &str, names: &[&str]) -> anyhow::Result<PathBuf> {
        self.download_to(&self.folder, what, names)
    }

    /// The same, in this folder.
    pub fn download_to(&self, folder: &Path, what: &str, names: &[&str]) -> anyhow::Result<PathBuf> {
        let mut command = self.command("apt-get");
        command.current_dir(folder).arg("download").args(names);
        let system = run_step(&format!("Downloading {what}"), &mut command)
            .and_then(|()| unpack_all(folder, &folder.join("system")));
        system.map_err(|error| if is_disk_full(&error) { error.context(DISK_FULL) } else { error })
    }
}

/// Unpacks the packages in `folder` into `system`, and returns that.
pub fn unpack_all(folder: &Path, system: &Path) -> anyhow::Result<PathBuf> {
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            run_quietly(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(system))?;
        }
    }
    ensure!(system.is_dir(), "apt-get downloaded no package into {}", folder.display());
    Ok(system.to_owned())
}

/// The code name of the Debian release that this machine runs.
pub fn this_release() -> anyhow::Result<String> {
    let text = fs::read_to_string(OS_RELEASE).unwrap_or_default();
    let fields: HashMap<_, _> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let field = |name| fields.get(name).map_or("", |value: &&str| value.trim_matches('"'));
    let (system, release) = (field("ID"), field("VERSION_CODENAME"));
    ensure!(system == "debian", "this system is {system:?}, and the package is looked up in Debian's archive only");
    ensure!(!release.is_empty(), "{OS_RELEASE} names no release of Debian");
    Ok(release.to_owned())
}

/// The sources of a Debian release and its backports, from the machine's own mirror.
pub fn sources_of(release: &str) -> String {
    let archive = archive(release);
    format!("deb {0}{archive} {release} main\ndeb {0}{archive} {release}-backports main\n", keys())
}

/// The source of the backports of a Debian release, which may be another than this machine's.
pub fn backports_of(release: &str) -> String {
    let archive = this_release().map_or_else(|_| ARCHIVE.to_owned(), |own| archive(&own));
    format!("deb {}{archive} {release}-backports main\n", keys())
}

/// Names the keys of Debian's archive to apt. If they are not installed, apt uses the keys that it trusts by itself.
fn keys() -> String {
    if Path::new(KEYRING).is_file() { format!("[signed-by={KEYRING}] ") } else { String::new() }
}

/// The archive from which this machine has `release`, so that its mirror is asked.
fn archive(release: &str) -> String {
    let mut command = apt("apt-get");
    command.args(["indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Created-By: Packages"]);
    let printed = run_quietly(&mut command).unwrap_or_default();
    let start = format!("Debian {release} ");
    printed.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or(ARCHIVE).to_owned()
}

/// Compares two names that contain versions. Digits count as numbers: 6.9 comes before 6.10.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    let parts = |text: &str| -> Vec<(u64, String)> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let other = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |length| digits + length);
            parts.push((rest[..digits].parse().unwrap_or(0), rest[digits..other].to_owned()));
            rest = &rest[other..];
        }
        parts
    };
    parts(a).cmp(&parts(b))
}
