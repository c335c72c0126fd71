//! The EFI program of the tests (`tests/efi-app`), built for UEFI's own target.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use crate::paths::{self, shown};
use crate::progress::run_step;
use crate::target::{self, EFI};

/// Builds the program, and returns the file.
///
/// # Errors
/// If the target is not there, or a crate cannot be downloaded.
pub fn prepare() -> anyhow::Result<PathBuf> {
    let folder = paths::target().join("efi-app");
    let mut cargo = paths::cargo();
    cargo.args(["build", "--release", "--locked", "--manifest-path"]);
    cargo.arg(paths::root().join("tests/efi-app/Cargo.toml")).arg("--target-dir").arg(&folder);
    target::apply_efi(&mut cargo)?;
    run_step("Building the EFI program of the tests", &mut cargo).context("cannot build tests/efi-app")?;
    let program = folder.join(EFI).join("release/efi-app.efi");
    ensure!(program.is_file(), "cargo has built no {}", shown(&program));
    Ok(program)
}
