//! A newer QEMU in addition to the installed one: the tests run on both.
//!
//! If the installed QEMU is old, the newer one comes from the backports of this machine's Debian release, downloaded and unpacked
//! below `target/newer-qemu` without installing it. apt gets its own lists, cache and sources for that, so the machine's are
//! unchanged. It still knows the installed packages, so it finds the missing libraries. Remove the folder to get the newest
//! packages.

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::guest;
use crate::packages::{AptApart, QEMU_PROGRAM, apt, apt_usable, installed_qemu, qemu_version, unpack_all};
use crate::paths::{find_program, target};
use crate::progress::{run_quietly, run_step, say};

/// A QEMU of this major version or later is a newer one.
const NEWER: u32 = 10;

/// The archive when no source of the machine names one.
const ARCHIVE: &str = "http://deb.debian.org/debian";

/// The keys that Debian's archive is signed with (Debian's package `debian-archive-keyring`).
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Describes the system (os-release(5)).
const OS_RELEASE: &str = "/etc/os-release";

/// The Debian package with [`QEMU_PROGRAM`].
const PACKAGE: &str = "qemu-system-x86";

/// Starts what was unpacked; put into its top folder.
const START: &str = include_str!("newer_qemu.sh");

/// The variables that tell the tests of it (`tests/qemu/environment.rs`): the program, or why there is none.
const PROGRAM_VARIABLE: &str = "FIRSTLIGHT_NEWER_QEMU";
const REASON_VARIABLE: &str = "FIRSTLIGHT_NO_NEWER_QEMU";

/// Gets it ready for the tests, and gives the variable that tells them, with its value. They can do without it.
pub fn for_tests() -> (&'static str, String) {
    match prepare() {
        Ok(program) => (PROGRAM_VARIABLE, program.display().to_string()),
        Err(error) => {
            say(&format!("The tests of a newer QEMU are skipped: {error:#}"));
            (REASON_VARIABLE, format!("{error:#}"))
        }
    }
}

/// Gets a QEMU of version 10 or later ready, and gives the program: the installed one where that is new enough.
///
/// # Errors
/// When there is none to be had, with why.
fn prepare() -> anyhow::Result<PathBuf> {
    if installed_qemu().is_some_and(|(major, _)| major >= NEWER) {
        return find_program(QEMU_PROGRAM).with_context(|| format!("{QEMU_PROGRAM} is not on the PATH"));
    }
    let folder = target().join("newer-qemu");
    let _lock = guest::lock(&folder)?;
    let system = folder.join("system");
    if !system.is_dir() {
        let release = this_release()?;
        let partial = folder.join("partial");
        guest::remake(&partial)?;
        let unpacked = unpack(&partial, &release)?;
        write_program(&unpacked.join(QEMU_PROGRAM))?;
        fs::rename(&unpacked, &system).with_context(|| format!("cannot make {}", system.display()))?;
        fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    let program = system.join(QEMU_PROGRAM);
    // It may not start: a library may be missing that apt does not know of.
    let printed = run_quietly(Command::new(&program).arg("--version"))?;
    let printed = String::from_utf8_lossy(&printed);
    let is_newer = qemu_version(&printed).is_some_and(|(major, _)| major >= NEWER);
    ensure!(is_newer, "{} is not QEMU {NEWER}: {printed}", program.display());
    Ok(program)
}

/// The code name of the Debian release that this machine runs.
///
/// # Errors
/// When it runs another system.
pub fn this_release() -> anyhow::Result<String> {
    debian_release(&fs::read_to_string(OS_RELEASE).unwrap_or_default())
}

/// The sources of a Debian release and its backports, from the machine's own mirror.
pub fn sources_of(release: &str) -> String {
    source_lines(&archive(release), release, Path::new(KEYRING).is_file())
}

/// The source of the backports of a Debian release, which need not be this machine's.
pub fn backports_of(release: &str) -> String {
    let archive = this_release().map_or_else(|_| ARCHIVE.to_owned(), |own| archive(&own));
    format!("deb {}{archive} {release}-backports main\n", keys(Path::new(KEYRING).is_file()))
}

/// The code name of the Debian release that the text of `/etc/os-release` describes.
fn debian_release(text: &str) -> anyhow::Result<String> {
    let fields: HashMap<_, _> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let field = |name| fields.get(name).map_or("", |value: &&str| value.trim_matches('"'));
    let (system, release) = (field("ID"), field("VERSION_CODENAME"));
    ensure!(system == "debian", "the installed QEMU is older than {NEWER}, and this is not Debian but {system:?}");
    ensure!(!release.is_empty(), "{OS_RELEASE} names no release of Debian");
    Ok(release.to_owned())
}

/// Downloads what QEMU of the release's backports needs that is not installed, and unpacks it. Returns the top folder of
/// what was unpacked.
fn unpack(folder: &Path, release: &str) -> anyhow::Result<PathBuf> {
    if !apt_usable() {
        bail!("apt is not there to download QEMU with");
    }
    let apt = AptApart::new(folder, &sources_of(release))?;
    let what = format!("QEMU of {release}-backports");
    run_step(&format!("Looking up {what}, to test with beside the installed one"), apt.get().arg("update"))?;
    let mut command = apt.get();
    command.args(["install", "--download-only", "--yes", "--no-install-recommends"]);
    command.args(["--target-release", &format!("{release}-backports"), PACKAGE]);
    run_step(&format!("Downloading {what}"), &mut command)?;
    let system = unpack_all(&folder.join("cache/archives"), &folder.join("system"))?;
    ensure!(system.join("usr/bin").join(QEMU_PROGRAM).is_file(), "{release}-backports has no newer QEMU");
    Ok(system)
}

/// The archive from which this machine has its release, so that its mirror is asked.
fn archive(release: &str) -> String {
    let mut command = apt("apt-get");
    command.args(["indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Created-By: Packages"]);
    let printed = run_quietly(&mut command).unwrap_or_default();
    archive_in(&String::from_utf8_lossy(&printed), release).unwrap_or_else(|| ARCHIVE.to_owned())
}

/// The archive of Debian's `release` in lines of an origin, a code name and an address.
fn archive_in(printed: &str, release: &str) -> Option<String> {
    printed.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let is_it = words.next() == Some("Debian") && words.next() == Some(release);
        words.next().filter(|_| is_it).map(str::to_owned)
    })
}

/// The sources for apt (sources.list(5)): the release, for missing libraries, and its backports.
fn source_lines(archive: &str, release: &str, has_keyring: bool) -> String {
    let keys = keys(has_keyring);
    format!("deb {keys}{archive} {release} main\ndeb {keys}{archive} {release}-backports main\n")
}

/// Names the keys of Debian's archive to apt. Without them apt uses the keys that it trusts anyway.
fn keys(has_keyring: bool) -> String {
    if has_keyring { format!("[signed-by={KEYRING}] ") } else { String::new() }
}

/// Writes the program that starts QEMU.
fn write_program(path: &Path) -> anyhow::Result<()> {
    fs::write(path, START)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_and_other_systems_are_refused() {
        let release = |text| debian_release(text).map_err(|error| error.to_string());
        assert_eq!(release("NAME=\"x\"\nVERSION_CODENAME=bookworm\nID=debian\n"), Ok("bookworm".to_owned()));
        assert_eq!(release("ID=\"debian\"\nVERSION_CODENAME=\"trixie\"\n"), Ok("trixie".to_owned()));
        assert!(release("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n").unwrap_err().contains("\"ubuntu\""));
        assert!(release("ID=debian\n").unwrap_err().contains("no release"));
        assert!(release("").is_err());
    }
}
