//! Debian's packages, downloaded and unpacked without being installed.
//!
//! Guests, programs for them and a newer QEMU come from packages. Downloads need no root: apt gets its own lists and cache where
//! the machine's do not have what is needed ([`Apart`]), and a package is unpacked into a folder below `target/`.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};

use crate::packages::{is_root, update_lists};
use crate::paths::{self, find_program};
use crate::progress::{run_quietly, run_step};

/// Where apt keeps the lists of the packages that it knows.
const LISTS: &str = "/var/lib/apt/lists";
/// The archive if no source of the machine names one.
const ARCHIVE: &str = "http://deb.debian.org/debian";
/// The keys that Debian's archive is signed with (Debian's package `debian-archive-keyring`).
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Describes the system (os-release(5)).
const OS_RELEASE: &str = "/etc/os-release";

/// The first words of the error of a download that found no room.
const DISK_FULL: &str = "the disk is full; make room below the build folder and try again";

/// apt's lists have no package of this name.
#[derive(Debug)]
pub struct NotInLists(pub String);

impl std::fmt::Display for NotInLists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "apt knows no package {}", self.0)
    }
}

impl std::error::Error for NotInLists {}

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
pub fn apt(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    if is_root() {
        // Without this, apt warns that its sandbox user cannot write to the folder of the download.
        command.args(["-o", "APT::Sandbox::User=root"]);
    }
    command
}

/// Checks that apt can look up, download and unpack a package here.
pub fn check() -> anyhow::Result<()> {
    for program in ["apt-cache", "apt-get", "dpkg-deb"] {
        ensure!(find_program(program).is_some(), "{program} is not installed, so nothing can be downloaded");
    }
    Ok(())
}

/// Downloads the packages that `names` returns into `folder`, and unpacks them. Returns the top folder of the unpacked files.
///
/// If the download fails, tries once more with new package lists: an old list names versions that the archive no longer has.
pub fn download(
    folder: &Path,
    what: &str,
    mut names: impl FnMut() -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<PathBuf> {
    check()?;
    let has_lists = fs::read_dir(LISTS).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().contains("_Packages")))
    });
    if !has_lists {
        update_lists("there are none yet")?;
    }
    let fetch =
        || run_step(&format!("Downloading {what}"), apt("apt-get").current_dir(folder).arg("download").args(names()?));
    retried(fetch, || update_lists("the download failed, and they may be old"))?;
    unpack_all(folder, &folder.join("system"))
}

/// Runs `fetch`, and once more after `update` if it failed for a reason that new package lists may remove.
fn retried<T>(
    mut fetch: impl FnMut() -> anyhow::Result<T>,
    update: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<T> {
    let result = match fetch() {
        Err(error) if !is_disk_full(&error) && !error.is::<NotInLists>() => update().and_then(|()| fetch()),
        result => result,
    };
    result.map_err(|error| if is_disk_full(&error) { error.context(DISK_FULL) } else { error })
}

/// Whether a step failed because the disk is full. apt and dpkg-deb have different messages; the third is for a quota.
pub fn is_disk_full(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}");
    ["No space left on device", "enough free space", "Disk quota exceeded"].iter().any(|sign| text.contains(sign))
}

/// apt with its own sources, lists and cache, so that the machine's are unchanged. It still knows which packages are installed.
pub struct Apart {
    folder: PathBuf,
    options: Vec<String>,
}

impl Apart {
    /// All files are in `folder`. The sources are in the format of sources.list(5).
    pub fn new(folder: &Path, sources: &str) -> anyhow::Result<Self> {
        check()?;
        for part in ["lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make the folder {}", part.display()))?;
        }
        let file = folder.join("sources.list");
        fs::write(&file, sources).with_context(|| format!("cannot write {}", file.display()))?;
        let place = |name: &str| folder.join(name).display().to_string();
        let mut apart = Self { folder: folder.to_owned(), options: Vec::new() };
        apart.set(&[
            ("Dir::Etc::SourceList", &place("sources.list")),
            ("Dir::Etc::SourceParts", &place("no-more-sources")),
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
        let mut command = self.command("apt-get");
        run_step(&format!("Downloading {what}"), command.current_dir(&self.folder).arg("download").args(names))?;
        unpack_all(&self.folder, &self.folder.join("system"))
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
    debian_release(&fs::read_to_string(OS_RELEASE).unwrap_or_default())
}

/// The code name of the Debian release in the text of `/etc/os-release`.
fn debian_release(text: &str) -> anyhow::Result<String> {
    let fields: HashMap<_, _> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let field = |name| fields.get(name).map_or("", |value: &&str| value.trim_matches('"'));
    let (system, release) = (field("ID"), field("VERSION_CODENAME"));
    ensure!(system == "debian", "this system is {system:?}, and the package is looked up in Debian's archive only");
    if release.is_empty() {
        bail!("{OS_RELEASE} names no release of Debian");
    }
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

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    /// Fails to download. Returns the error, and how often it was tried and the lists were updated.
    fn failed_download(why: impl Fn() -> anyhow::Error) -> (String, u32, u32) {
        let (mut attempts, mut updates) = (0, 0);
        let fetch = || -> anyhow::Result<()> {
            attempts += 1;
            Err(why())
        };
        let update = || {
            updates += 1;
            Ok(())
        };
        let error = retried(fetch, update).unwrap_err();
        (format!("{error:#}"), attempts, updates)
    }

    #[test]
    fn a_full_disk_is_reported_without_a_second_download() {
        let apt = "`apt-get download x` failed (exit status: 100):\nE: You don't have enough free space in /x.";
        for why in [apt, "dpkg-deb: error: failed to write: No space left on device"] {
            let (error, attempts, updates) = failed_download(|| anyhow!(why));
            assert_eq!((attempts, updates), (1, 0));
            assert!(error.starts_with("the disk is full") && error.ends_with(why), "{error}");
        }
        let (error, ..) = failed_download(|| std::io::Error::from_raw_os_error(28).into());
        assert!(error.starts_with("the disk is full"), "ENOSPC: {error}");
    }

    #[test]
    fn lists_are_updated_once_and_not_for_an_unknown_package() {
        let (_, attempts, updates) = failed_download(|| anyhow!("404  Not Found"));
        assert_eq!((attempts, updates), (2, 1));
        let (error, attempts, _) = failed_download(|| NotInLists("x".to_owned()).into());
        assert_eq!((error.as_str(), attempts), ("apt knows no package x", 1));
    }

    #[test]
    fn debians_release_is_read_and_other_systems_are_refused() {
        let release = |text| debian_release(text).map_err(|error| error.to_string());
        assert_eq!(release("NAME=\"x\"\nVERSION_CODENAME=bookworm\nID=debian\n"), Ok("bookworm".to_owned()));
        assert_eq!(release("ID=\"debian\"\nVERSION_CODENAME=\"trixie\"\n"), Ok("trixie".to_owned()));
        assert!(release("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n").unwrap_err().contains("\"ubuntu\""));
        assert!(release("ID=debian\n").unwrap_err().contains("no release"));
    }
}
