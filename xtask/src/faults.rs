//! `cargo xtask faults`: tries faults of a host on the fakes and in the test VMM, and prints what became of each.
//!
//! The list of them and the two ways to try them are in `tests/faults`; this builds the image for them.

use std::path::Path;

use anyhow::Context;

use crate::{image, paths};

/// Try faults of the host: on the fakes, and with the image in the test VMM, where there is a KVM
///
/// Prints a table of what was tried and what happened. Fails when something did that is not expected.
#[derive(clap::Args)]
pub struct Args {
    /// Only faults whose names contain this
    filter: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// When the image or the program with the faults cannot be built, or a fault does what is not expected.
pub fn run(args: &Args) -> anyhow::Result<()> {
    check(&image::build()?.bin, args.filter.as_deref())
}

/// Tries the faults with this image.
///
/// # Errors
/// As for [`run`].
pub fn check(image: &Path, filter: Option<&str>) -> anyhow::Result<()> {
    let mut command = paths::cargo();
    command.args(["run", "--quiet", "--package", "faults", "--"]).args(filter).env("FIRSTLIGHT_IMAGE", image);
    let status = command.status().context("cannot start cargo")?;
    anyhow::ensure!(status.success(), "the faults did not all end as expected, or none was tried; see above");
    Ok(())
}
