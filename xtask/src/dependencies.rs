//! `cargo xtask dependencies`: what the project is built of, against what ARCHITECTURE.md says of it.
//!
//! Read from cargo's own resolution of both workspaces and the lock files, so it needs no list of advisories. `deny.toml` has
//! the same licences and sources for `cargo deny`, which looks up advisories as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::paths;
use crate::progress::say;

/// The licences that a crate may be under, by SPDX.
const LICENCES: [&str; 7] = ["Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "NCSA", "Unicode-3.0", "Zlib"];
/// Where crates come from: crates.io, as cargo names it.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// The workspaces' lock files.
const LOCKS: [&str; 2] = ["Cargo.lock", "fuzz/Cargo.lock"];
/// What cargo is asked to resolve: the main workspace with all that is in the image, and the fuzz targets' with libFuzzer.
const WORKSPACES: [[&str; 4]; 2] = [
    ["--manifest-path", "Cargo.toml", "--features", "firmware"],
    ["--manifest-path", "fuzz/Cargo.toml", "--features", "libfuzzer"],
];
/// The project's packages, with what the table has behind the crates that only they use.
const PACKAGES: [(&str, &str); 5] = [
    ("firstlight", "tests"),
    ("xtask", "xtask"),
    ("vmm", "test VMM"),
    ("faults", "tests of faults"),
    ("firstlight-fuzz", "fuzz targets"),
];

/// Check the crates that the project uses: reasons, licences, sources, versions, and code that runs while building
#[derive(clap::Args)]
pub struct Args {}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Clone, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    targets: Vec<Target>,
    dependencies: Vec<Declared>,
}

#[derive(Clone, Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Clone, Deserialize)]
struct Declared {
    name: String,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    source: Option<String>,
    checksum: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// As [`check`].
pub fn run(_args: &Args) -> Result<()> {
    say(&check()?);
    Ok(())
}

/// Says what the image is made of.
///
/// # Errors
/// When the lock file is not up to date, or anything is not as ARCHITECTURE.md and the rules have it.
pub fn check() -> Result<String> {
    let [metadata, fuzz] = WORKSPACES.map(resolve);
    let mut metadata = metadata?;
    let known: BTreeSet<_> = metadata.packages.iter().map(|package| package.id.clone()).collect();
    metadata.packages.extend(fuzz?.packages.into_iter().filter(|package| !known.contains(&package.id)));
    let document = fs::read_to_string(paths::root().join("ARCHITECTURE.md")).context("cannot read ARCHITECTURE.md")?;
    let mut problems = Vec::new();
    let own = metadata.packages.iter().filter(|package| package.source.is_none()).map(|package| package.name.as_str());
    let own: BTreeSet<_> = own.collect();
    for path in LOCKS {
        let text = fs::read_to_string(paths::root().join(path)).with_context(|| format!("cannot read {path}"))?;
        problems.extend(lock_problems(path, &text, &own)?);
    }
    let image = image(&metadata)?;
    problems.extend(problems_of(&metadata, &image, &document));
    ensure!(problems.is_empty(), "dependencies:\n  {}", problems.join("\n  "));
    let building = image.iter().filter(|package| !runs_while_building(package).is_empty()).count();
    Ok(format!("Dependencies: {} crates in the image, {building} of which run code while building", image.len()))
}

/// What cargo makes of a workspace.
fn resolve(workspace: [&str; 4]) -> Result<Metadata> {
    let output = paths::cargo()
        .current_dir(paths::root())
        .args(["metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .args(workspace)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo metadata fails for {}; is its lock file up to date?", workspace[1]);
    serde_json::from_slice(&output.stdout).context("cargo metadata is not understood")
}

/// All crates that the image is made of or made with.
fn image(metadata: &Metadata) -> Result<Vec<Package>> {
    let root = metadata.packages.iter().find(|package| package.name == "firstlight").context("no firstlight")?;
    let nodes: BTreeMap<_, _> = metadata.resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut found = BTreeSet::new();
    let mut left = vec![&root.id];
    while let Some(id) = left.pop() {
        let deps = nodes.get(id).map(|node| node.deps.as_slice()).unwrap_or_default();
        let used = deps.iter().filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev")));
        left.extend(used.filter(|dep| found.insert(&dep.pkg)).map(|dep| &dep.pkg));
    }
    Ok(metadata.packages.iter().filter(|package| found.contains(&package.id)).cloned().collect())
}

/// What of a crate runs on the machine that builds.
fn runs_while_building(package: &Package) -> BTreeSet<&'static str> {
    let kinds = package.targets.iter().flat_map(|target| &target.kind);
    kinds
        .filter_map(|kind| match kind.as_str() {
            "proc-macro" => Some("macro"),
            "custom-build" => Some("build script"),
            _ => None,
        })
        .collect()
}

/// What is wrong with a lock file.
fn lock_problems(path: &str, text: &str, own: &BTreeSet<&str>) -> Result<Vec<String>> {
    let lock: Lock = toml::from_str(text).with_context(|| format!("{path} is not understood"))?;
    let bad = lock.package.into_iter().filter_map(|package| match (&package.source, &package.checksum) {
        (None, None) if own.contains(package.name.as_str()) => None,
        (Some(source), Some(_)) if source == SOURCE => None,
        (Some(source), Some(_)) => Some(format!("{path}: {} comes from {source}, not from crates.io", package.name)),
        _ => Some(format!("{path}: {} has no source with a checksum", package.name)),
    });
    Ok(bad.collect())
}

/// The rows of the table under `heading`, as cells.
fn rows<'a>(document: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let section = document.split_once(heading).map(|(_, rest)| rest).unwrap_or_default();
    let lines = section.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    lines.skip(2).map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// What stands between back quotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Whether a licence expression can be met with what is allowed.
fn is_allowed(expression: &str) -> bool {
    expression
        .replace('/', " OR ")
        .split(" AND ")
        .all(|part| part.trim_matches(['(', ')']).split(" OR ").any(|licence| LICENCES.contains(&licence.trim())))
}

fn problems_of(metadata: &Metadata, image: &[Package], document: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let table = rows(document, "\n## Dependencies\n");
    // Each crate with whom the table says that it is for; the image where it says nothing.
    let mut reasons = BTreeSet::new();
    for row in &table {
        let cell = row.first().copied().unwrap_or_default();
        let whom = cell.split_once('(').map_or("image", |(_, rest)| rest.trim_end_matches(')'));
        reasons.extend(quoted(cell).flat_map(|name| whom.split(", ").map(move |whom| (name, whom))));
    }
    let mut used = BTreeSet::new();
    for (name, whom) in PACKAGES {
        let declared = metadata.packages.iter().filter(|package| package.name == name && package.source.is_none());
        for dependency in declared.flat_map(|package| &package.dependencies) {
            let whom = if name == "firstlight" && dependency.kind.is_none() { "image" } else { whom };
            if PACKAGES.iter().all(|(own, _)| *own != dependency.name) {
                used.insert((dependency.name.as_str(), whom));
            }
        }
    }
    // What the image has its reason for may be used elsewhere as well.
    for (name, whom) in used.difference(&reasons).filter(|(name, _)| !reasons.contains(&(*name, "image"))) {
        problems.push(format!("{name} ({whom}) has no reason in ARCHITECTURE.md, \"Dependencies\""));
    }
    for (name, whom) in reasons.difference(&used) {
        problems.push(format!("{name} ({whom}) is in ARCHITECTURE.md, \"Dependencies\", and not used"));
    }

    let described: BTreeMap<_, _> = rows(document, "\n### All that the image is made of\n")
        .into_iter()
        .filter_map(|row| Some((quoted(row.first()?).next()?, row.get(2).copied().unwrap_or_default())))
        .collect();
    let mut names = BTreeSet::new();
    for package in image {
        if !names.insert(package.name.as_str()) {
            problems.push(format!("{} is in the image in two versions, {} one of them", package.name, package.version));
        }
        let runs = runs_while_building(package).into_iter().collect::<Vec<_>>().join(", ");
        match described.get(package.name.as_str()) {
            None => problems.push(format!("{} is in the image and not in ARCHITECTURE.md", package.name)),
            Some(said) if *said != runs => {
                problems
                    .push(format!("{} runs while building: \"{runs}\"; ARCHITECTURE.md has \"{said}\"", package.name));
            }
            Some(_) => {}
        }
    }
    for name in described.keys().filter(|name| !names.contains(*name)) {
        problems.push(format!("{name} is in ARCHITECTURE.md and not in the image"));
    }
    let own = |package: &Package| package.source.is_none() && PACKAGES.iter().all(|(name, _)| *name != package.name);
    for package in metadata.packages.iter().filter(|package| own(package)) {
        problems.push(format!("{} is a package that xtask/src/dependencies.rs does not know", package.name));
    }
    for package in &metadata.packages {
        if !package.license.as_deref().is_some_and(is_allowed) {
            let licence = package.license.as_deref().unwrap_or("none");
            problems.push(format!("{} has the licence {licence}, which is not allowed", package.name));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\n## Dependencies\n\n| crate | for |\n|---|---|\n| `a` | reason |\n| `t` (tests) | reason |\n\
        \n### All that the image is made of\n\n| crate | by | while building |\n|---|---|---|\n| `a` | | |\n| `b` | `a` | macro |\n";

    fn package(name: &str, kinds: &[&str]) -> Package {
        let targets = kinds.iter().map(|kind| Target { kind: vec![(*kind).to_owned()] }).collect();
        Package {
            id: name.to_owned(),
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: Some("MIT OR Apache-2.0".to_owned()),
            source: Some(SOURCE.to_owned()),
            targets,
            dependencies: Vec::new(),
        }
    }

    fn metadata() -> Metadata {
        let declared =
            |name: &str, kind: Option<&str>| Declared { name: name.to_owned(), kind: kind.map(str::to_owned) };
        let mut root = package("firstlight", &["lib"]);
        root.source = None;
        root.dependencies = vec![declared("a", None), declared("t", Some("dev"))];
        let dependency = |pkg: &str, kind: Option<&str>| Dependency {
            pkg: pkg.to_owned(),
            dep_kinds: vec![Kind { kind: kind.map(str::to_owned) }],
        };
        let node = |id: &str, deps| Node { id: id.to_owned(), deps };
        let nodes = vec![
            node("firstlight", vec![dependency("a", None), dependency("t", Some("dev"))]),
            node("a", vec![dependency("b", None)]),
        ];
        let packages = vec![root, package("a", &["lib"]), package("b", &["proc-macro"]), package("t", &["lib"])];
        Metadata { packages, resolve: Resolve { nodes } }
    }

    /// The problems after a change.
    fn after(change: impl FnOnce(&mut Metadata), document: &str) -> String {
        let mut metadata = metadata();
        change(&mut metadata);
        problems_of(&metadata, &image(&metadata).unwrap(), document).join("\n")
    }

    #[test]
    fn every_difference_is_found() {
        assert_eq!(after(|_| (), DOCUMENT), "");
        let declare = |name: &'static str| {
            move |metadata: &mut Metadata| {
                metadata.packages[0].dependencies.push(Declared { name: name.to_owned(), kind: None });
            }
        };
        assert!(after(declare("c"), DOCUMENT).contains("c (image) has no reason"));
        let fuzz = after(
            |metadata| {
                let dependencies = vec![Declared { name: "f".to_owned(), kind: None }];
                metadata.packages.push(Package { source: None, dependencies, ..package("firstlight-fuzz", &["lib"]) });
            },
            DOCUMENT,
        );
        assert!(fuzz.contains("f (fuzz targets) has no reason"), "{fuzz}");
        // A reason for tests is none for the image.
        assert!(after(declare("t"), DOCUMENT).contains("t (image) has no reason"));
        let unused = after(|metadata| drop(metadata.packages[0].dependencies.remove(0)), DOCUMENT);
        assert!(unused.contains("a (image) is in ARCHITECTURE.md, \"Dependencies\", and not used"), "{unused}");
        let deep = |name: &'static str, package: Package| {
            move |metadata: &mut Metadata| {
                metadata.resolve.nodes[1]
                    .deps
                    .push(Dependency { pkg: name.to_owned(), dep_kinds: vec![Kind { kind: None }] });
                metadata.packages.push(package);
            }
        };
        assert!(
            after(deep("c", package("c", &["lib"])), DOCUMENT).contains("c is in the image and not in ARCHITECTURE.md")
        );
        let second = Package { id: "b 2".to_owned(), ..package("b", &["proc-macro"]) };
        assert!(after(deep("b 2", second), DOCUMENT).contains("b is in the image in two versions"));
        let gone = after(|metadata| metadata.resolve.nodes[1].deps.clear(), DOCUMENT);
        assert!(gone.contains("b is in ARCHITECTURE.md and not in the image"), "{gone}");
        let script = after(|metadata| metadata.packages[1] = package("a", &["lib", "custom-build"]), DOCUMENT);
        assert!(script.contains("a runs while building: \"build script\""), "{script}");
        let unknown = after(|metadata| metadata.packages[3].source = None, DOCUMENT);
        assert!(unknown.contains("t is a package that xtask/src/dependencies.rs does not know"), "{unknown}");
        for licence in [None, Some("GPL-3.0-only".to_owned()), Some("MIT AND GPL-3.0-only".to_owned())] {
            assert!(
                after(|metadata| metadata.packages[2].license = licence, DOCUMENT).contains("which is not allowed")
            );
        }
    }

    #[test]
    fn licences_are_read_as_expressions() {
        for good in ["MIT", "GPL-2.0-only OR MIT", "Apache-2.0/MIT", "(MIT OR Apache-2.0) AND Unicode-3.0"] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in ["", "GPL-2.0-only", "(MIT OR Apache-2.0) AND GPL-2.0-only"] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }

    #[test]
    fn a_lock_file_has_crates_io_and_checksums_only() {
        let problems = |fields: &str| {
            let text = format!("[[package]]\nname = \"xtask\"\n[[package]]\nname = \"a\"\n{fields}");
            lock_problems("Cargo.lock", &text, &BTreeSet::from(["xtask"])).unwrap().join("\n")
        };
        assert_eq!(problems(&format!("source = \"{SOURCE}\"\nchecksum = \"00\"\n")), "");
        assert!(problems("source = \"git+https://example.org/a\"\nchecksum = \"00\"\n").contains("not from crates.io"));
        assert!(problems(&format!("source = \"{SOURCE}\"\n")).contains("no source with a checksum"));
        assert!(problems("").contains("no source with a checksum"));
        assert!(lock_problems("Cargo.lock", "[[package]]\n", &BTreeSet::new()).is_err());
    }
}
