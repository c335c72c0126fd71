//! A newer QEMU in addition to the installed one: the tests run on both.
//!
//! If the installed QEMU is old, the newer one comes from the backports of this machine's Debian release, downloaded and unpacked
//! below `target/newer-qemu` without installing it. apt knows the installed packages, so it downloads only the missing libraries.
//! Remove the folder to get the newest packages.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::apt::{self, Apart};
use crate::packages::{QEMU_PROGRAM, qemu_version};
use crate::paths::{find_program, target};
use crate::progress::run_step;

/// A QEMU of this major version or later is a newer one.
const NEWER: u32 = 10;

/// The Debian package with [`QEMU_PROGRAM`].
const PACKAGE: &str = "qemu-system-x86";

/// Starts the unpacked QEMU. It is put into the top folder of the unpacked packages.
const START: &str = include_str!("newer_qemu.sh");

/// Returns a QEMU of version 10 or later: the installed one if it is new enough.
pub fn prepare() -> anyhow::Result<PathBuf> {
    let is_newer = |program: &Path| qemu_version(program).is_some_and(|(major, _)| major >= NEWER);
    if let Some(installed) = find_program(QEMU_PROGRAM).filter(|program| is_newer(program)) {
        return Ok(installed);
    }
    let system = target().join("newer-qemu").join("system");
    apt::kept(&system, unpack)?;
    let program = system.join(QEMU_PROGRAM);
    // It does not start if it needs a library that apt does not know of.
    ensure!(is_newer(&program), "{} does not start, or is older than QEMU {NEWER}", program.display());
    Ok(program)
}

/// Downloads QEMU from the release's backports with the libraries that are not installed, and unpacks all of it. Returns the top
/// folder of the unpacked files.
fn unpack(folder: &Path) -> anyhow::Result<PathBuf> {
    let release = apt::this_release()?;
    let apt = Apart::new(folder, &apt::sources_of(&release))?;
    let what = format!("QEMU of {release}-backports");
    apt.update(&format!("{what}, to test with it too"))?;
    let mut command = apt.command("apt-get");
    command.args(["install", "--download-only", "--yes", "--no-install-recommends"]);
    command.args(["--target-release", &format!("{release}-backports"), PACKAGE]);
    run_step(&format!("Downloading {what}"), &mut command)?;
    let system = apt::unpack_all(&folder.join("cache/archives"), &folder.join("system"))?;
    ensure!(system.join("usr/bin").join(QEMU_PROGRAM).is_file(), "{release}-backports has no newer QEMU");
    let start = system.join(QEMU_PROGRAM);
    fs::write(&start, START)
        .and_then(|()| fs::set_permissions(&start, Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", start.display()))?;
    Ok(system)
}
