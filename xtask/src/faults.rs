//! `cargo xtask faults`: injects faults of a host on the fakes and in the test VMM, and prints the result of each.
//!
//! `tests/faults` has the list of faults and the two ways to inject them; this module builds the image for them.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::progress::run_quietly;
use crate::{child, image, paths};

/// The arguments with which cargo runs the tests of faults.
const PROGRAM: [&str; 5] = ["run", "--quiet", "--package", "faults", "--"];

/// Inject faults of a host, on the fakes and, with KVM, in the test VMM
///
/// Prints a table of the faults and their results. Fails if a result differs from the expected one.
#[derive(clap::Args)]
pub struct Args {
    /// Only faults whose names contain this
    filter: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if let Some(filter) = &args.filter {
        // Checked before the image is built.
        let names = run_quietly(paths::cargo().args(PROGRAM).arg("--names"))?;
        ensure!(
            names.lines().any(|name| name.contains(filter)),
            "no fault has a name with {filter:?} in it; docs/faults.md lists the names"
        );
    }
    check(&image::build()?.bin, args.filter.as_deref())
}

/// Injects the faults with this image.
pub fn check(image: &Path, filter: Option<&str>) -> anyhow::Result<()> {
    let mut command = paths::cargo();
    command.args(PROGRAM).args(filter).env("FIRSTLIGHT_IMAGE", image);
    let status = child::tied(&command).status().context("cannot start cargo")?;
    ensure!(status.success(), "some faults had another result than expected; the table above marks them");
    Ok(())
}
