//! The list of the crates in the image (SBOM, a software bill of materials) in CycloneDX's form, by cargo-cyclonedx.
//!
//! The tool reads Cargo.toml and Cargo.lock, and writes beside them, for each member of the workspace. So it gets a folder with a
//! manifest that has no other members, and no crates for tests, but the crates that the firmware's other packages use.
//!
//! Besides the crates in the image, the list has macros, which run on the machine that builds. It does not have Rust's library.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use toml::Table;
use xtask::progress::run_quietly;
use xtask::version::Version;
use xtask::{packages, paths};

use crate::notices::Crate;

/// The file with the list.
pub const NAME: &str = "firstlight.cdx.json";

/// The tool, and its version.
const TOOL: &str = "cargo-cyclonedx";
const TOOL_VERSION: &str = "0.5.9";
/// The manifests of the firmware's other packages.
const PARTS: [&str; 3] = ["src/firmware/Cargo.toml", "src/firmware/efi/Cargo.toml", "src/firmware/machine/Cargo.toml"];
/// What the tool reads besides Cargo.toml.
const SOURCES: [&str; 2] = ["build.rs", "src"];

/// Makes the list for an image that is built for `target`. Checks that it has all of `crates`.
pub fn make(target: &str, version: &Version, crates: &[Crate]) -> anyhow::Result<String> {
    // Without optimisation, which takes longer than the tool runs.
    let tool = packages::of_crate(TOOL, TOOL_VERSION, &["--debug"])?;
    let folder = paths::target().join("sbom");
    paths::remake(&folder)?;
    for name in SOURCES {
        symlink(paths::root().join(name), folder.join(name)).with_context(|| format!("cannot link to {name}"))?;
    }
    // The tool's cargo removes the crates of others from this copy.
    fs::copy(paths::root().join("Cargo.lock"), folder.join("Cargo.lock")).context("cannot copy Cargo.lock")?;
    fs::write(folder.join("Cargo.toml"), manifest()?).context("cannot write a manifest")?;

    let mut list = std::process::Command::new(tool);
    list.current_dir(&folder)
        .args(["cyclonedx", "--quiet", "--format", "json", "--spec-version", "1.5", "--no-build-deps"])
        .args(["--features", "firmware,runtime-services", "--target", target, "--override-filename", "list"])
        .env("SOURCE_DATE_EPOCH", version.seconds.to_string());
    run_quietly(&mut list)?;
    let text = fs::read_to_string(folder.join("list.json")).context("cannot read what cargo-cyclonedx wrote")?;
    // Its names for the project's own package have the path of the folder.
    let text = text.replace(&format!("path+file://{}", folder.display()), "path+file:///firstlight");
    check(&text, crates)?;
    Ok(text)
}

/// The manifest without other members of the workspace and without tests, with all crates of the firmware's packages.
fn manifest() -> anyhow::Result<String> {
    let mut whole = read("Cargo.toml")?;
    table(&mut whole, "workspace")?.remove("members");
    for tests in ["dev-dependencies", "test"] {
        whole.remove(tests);
    }
    for part in PARTS {
        let mut part = read(part)?;
        let crates = std::mem::take(table(&mut part, "dependencies")?);
        // Those of the firmware itself have a path.
        let crates = crates.into_iter().filter(|(_, one)| one.get("path").is_none());
        table(&mut whole, "dependencies")?.extend(crates);
    }
    Ok(whole.to_string())
}

fn read(name: &str) -> anyhow::Result<Table> {
    let text = fs::read_to_string(paths::root().join(name)).with_context(|| format!("cannot read {name}"))?;
    text.parse().with_context(|| format!("cannot read {name}"))
}

fn table<'a>(manifest: &'a mut Table, name: &str) -> anyhow::Result<&'a mut Table> {
    let table = manifest.get_mut(name).and_then(toml::Value::as_table_mut);
    table.with_context(|| format!("a manifest has no {name}"))
}

/// Checks that the list has these crates, and no path of this machine.
fn check(text: &str, crates: &[Crate]) -> anyhow::Result<()> {
    let list: Value = serde_json::from_str(text).context("cannot read the list")?;
    let main = list.pointer("/metadata/component").into_iter();
    let listed = main.chain(list["components"].as_array().into_iter().flatten());
    let mut names: Vec<_> =
        listed.filter_map(|one| Some(format!("{} {}", one["name"].as_str()?, one["version"].as_str()?))).collect();
    names.sort();
    let mut wanted: Vec<_> = crates.iter().map(|one| format!("{} {}", one.name, one.version)).collect();
    wanted.sort();
    let missing: Vec<_> = wanted.iter().filter(|name| !names.contains(name)).cloned().collect();
    ensure!(missing.is_empty(), "the list of crates lacks {}", missing.join(", "));
    for path in [paths::root(), paths::target()] {
        ensure!(!text.contains(&path.display().to_string()), "the list of crates has the path {}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_for_the_tool_has_no_other_members_and_no_crates_for_tests() {
        let manifest = manifest().unwrap();
        assert!(!manifest.contains("members") && !manifest.contains("proptest"), "{manifest}");
        assert!(manifest.contains("name = \"firstlight\"") && manifest.contains("zerocopy"), "{manifest}");
        assert!(manifest.contains("x86_64") && !manifest.contains("path = \"machine\""), "{manifest}");
    }
}
