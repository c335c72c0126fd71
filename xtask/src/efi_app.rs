//! The EFI programs of the tests (`tests/efi-app`), built for UEFI's own target.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use crate::paths::{self, shown};
use crate::progress::run_step;
use crate::target::{self, EFI};

/// Builds one of the programs, and returns the file.
///
/// # Errors
/// If the target is not there, or a crate cannot be downloaded.
pub fn prepare(name: &str) -> anyhow::Result<PathBuf> {
    let folder = paths::target().join("efi-app");
    let mut cargo = paths::cargo();
    cargo.args(["build", "--release", "--locked", "--bin", name, "--manifest-path"]);
    cargo.arg(paths::root().join("tests/efi-app/Cargo.toml")).arg("--target-dir").arg(&folder);
    target::apply_efi(&mut cargo)?;
    run_step(&format!("Building the EFI program {name} of the tests"), &mut cargo)
        .context("cannot build tests/efi-app")?;
    let program = folder.join(EFI).join(format!("release/{name}.efi"));
    ensure!(program.is_file(), "cargo has built no {}", shown(&program));
    Ok(program)
}
