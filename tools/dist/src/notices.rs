//! The licences of all that is in the image: the crates, and Rust's library.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use xtask::paths;
use xtask::progress::run_quietly;
use xtask::version::Version;

/// The file with the licences.
pub const NAME: &str = "NOTICES.txt";

/// The package of the image. All that the runtime services use is in the library, which it uses too.
const PACKAGE: &str = "firstlight-firmware";
/// The feature of the image.
const FEATURE: &str = "firmware";
/// The beginning of the names of the packages that the project's own is made of: its licence is theirs.
const PARTS: &str = "firstlight-";
/// The beginnings of the names of files with a licence or a notice, in capital letters.
const FILES: [&str; 4] = ["LICENSE", "LICENCE", "COPYING", "NOTICE"];

/// A crate that has code in the image, or a type or a constant that code there uses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Crate {
    pub name: String,
    pub version: String,
    license: Option<String>,
    repository: Option<String>,
    manifest_path: PathBuf,
}

/// What `cargo metadata` prints, as far as it is needed.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Crate>,
}

/// All crates in the image that is built for `target`, without macros and build scripts.
pub fn crates(target: &str) -> anyhow::Result<Vec<Crate>> {
    let mut tree = paths::cargo();
    tree.args(["tree", "--locked", "--package", PACKAGE, "--features", FEATURE, "--target", target]);
    tree.args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"]);
    let printed = run_quietly(&mut tree)?;
    // "name v1.2.3", and behind that the path of the project's own.
    let printed = printed.lines().filter(|line| !line.starts_with(PARTS));
    let used: BTreeSet<_> = printed.filter_map(|line| line.split_once(" v")).map(first_word).collect();
    let metadata = run_quietly(paths::cargo().args([
        "metadata",
        "--locked",
        "--format-version",
        "1",
        "--filter-platform",
        target,
    ]))?;
    let metadata: Metadata = serde_json::from_str(&metadata).context("cannot read what cargo metadata prints")?;
    let mut crates = metadata.packages;
    crates.retain(|one| used.contains(&(one.name.as_str(), one.version.as_str())));
    crates.sort();
    ensure!(crates.len() == used.len(), "cargo metadata knows {} of {} crates", crates.len(), used.len());
    Ok(crates)
}

fn first_word<'a>((name, rest): (&'a str, &'a str)) -> (&'a str, &'a str) {
    (name, rest.split(' ').next().unwrap_or_default())
}

/// The text: what is in the image, by which licence, and the licences. A text that several crates have is there once.
pub fn text(version: &Version, crates: &[Crate]) -> anyhow::Result<String> {
    let compiler = run_quietly(std::process::Command::new("rustc").current_dir(paths::root()).arg("--version"))?;
    let mut text = format!("{} has code of these crates, each under the licence beside its name.\n\n", version.name());
    for one in crates {
        let license = one.license.as_deref().with_context(|| format!("{} names no licence", one.name))?;
        text.push_str(&format!("{} {}: {license}", one.name, one.version));
        text.extend(one.repository.as_ref().map(|place| format!(", {place}")));
        text.push('\n');
    }
    text.push_str(&format!(
        "core, alloc and compiler_builtins of {}: MIT OR Apache-2.0, and Apache-2.0 WITH LLVM-exception;\n  copyright (c) the \
         Rust Project contributors, https://github.com/rust-lang/rust\n",
        compiler.trim()
    ));
    let mut texts = BTreeMap::<String, Vec<String>>::new();
    for one in crates {
        let found = licenses(one.manifest_path.parent().context("a manifest is in a folder")?)?;
        ensure!(!found.is_empty(), "the crate {} {} has no file with its licence", one.name, one.version);
        for license in found {
            texts.entry(license).or_default().push(format!("{} {}", one.name, one.version));
        }
    }
    let mut texts: Vec<_> = texts.into_iter().map(|(license, crates)| (crates, license)).collect();
    texts.sort();
    for (crates, license) in texts {
        text.push_str(&format!("\n{}\n{}:\n\n{license}\n", "-".repeat(80), crates.join(", ")));
    }
    Ok(text)
}

/// The texts of the licences in a crate's folder.
fn licenses(folder: &Path) -> anyhow::Result<Vec<String>> {
    let is_license = |name: &String| FILES.iter().any(|start| name.to_uppercase().starts_with(start));
    let names = crate::files::names(folder)?.into_iter().filter(is_license).map(|name| folder.join(name));
    let read = |path: PathBuf| -> anyhow::Result<_> {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.replace('\r', "").trim().to_owned())
    };
    names.filter(|path| path.is_file()).map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_in_the_image_has_its_licence_in_the_notices_and_those_of_tests_and_macros_are_not_there() {
        let crates = crates("x86_64-unknown-linux-gnu").unwrap();
        let names: Vec<_> = crates.iter().map(|one| one.name.as_str()).collect();
        // Of the library, and of the other packages of the image only.
        let some =
            ["firstlight", "log", "sha2", "zerocopy", "bit_field", "linked_list_allocator", "volatile", "x86_64"];
        assert!(some.iter().all(|name| names.contains(name)), "{names:?}");
        assert!(!names.iter().any(|name| ["proptest", "syn", "thiserror-impl"].contains(name)), "{names:?}");
        let version = Version { commit: "5119d36f2a1b".to_owned(), seconds: 0 };
        let text = text(&version, &crates).unwrap();
        assert!(text.starts_with(&version.name()));
        for one in &crates {
            assert!(text.matches(&format!("{} {}", one.name, one.version)).count() > 1, "{}", one.name);
        }
        assert!(text.contains("Apache License") && text.contains("Permission is hereby granted"));
        assert!(!text.contains(&paths::root().display().to_string()), "a path of this machine");
    }
}
