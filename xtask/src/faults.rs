//! `cargo xtask faults`: injects faults of a host on the fakes and in the test VMM, and prints the result of each.
//!
//! `tests/faults` has the list of faults and the two ways to inject them; this module builds the image for them.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::progress::run_quietly;
use crate::{child, image, paths};

/// The arguments of cargo that run the program with the faults.
const PROGRAM: [&str; 5] = ["run", "--quiet", "--package", "faults", "--"];

/// Try faults of the host: on the fakes, and with the image in the test VMM, where there is a KVM
///
/// Prints a table of the faults and their results. Fails if a result is not expected.
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
    if let Some(filter) = &args.filter {
        // Checked before the image is built.
        let names = run_quietly(paths::cargo().args(PROGRAM).arg("--names"))?;
        find(filter, &String::from_utf8_lossy(&names))?;
    }
    check(&image::build()?.bin, args.filter.as_deref())
}

/// Checks that one of these names, one on each line, contains `filter`.
fn find(filter: &str, names: &str) -> anyhow::Result<()> {
    ensure!(
        names.lines().any(|name| name.contains(filter)),
        "no fault has {filter} in its name; docs/faults.md lists them"
    );
    Ok(())
}

/// Tries the faults with this image.
///
/// # Errors
/// As for [`run`].
pub fn check(image: &Path, filter: Option<&str>) -> anyhow::Result<()> {
    let mut command = paths::cargo();
    command.args(PROGRAM).args(filter).env("FIRSTLIGHT_IMAGE", image);
    let status = child::tied(&command).status().context("cannot start cargo")?;
    ensure!(status.success(), "the faults did not all end as expected; see above");
    Ok(())
}
