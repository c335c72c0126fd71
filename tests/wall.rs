//! Lints are the wall around `unsafe`, and keep panics out of the image. These tests check that the lints are on, and that
//! modules have no import cycles.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Modules of tests, and the binary's.
const IGNORED: [&str; 3] = ["tests", "fakes", "firmware"];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file of the project")
}

/// The compiler then refuses `unsafe` and every exception from that, in every module.
#[test]
fn the_library_forbids_unsafe_code_at_its_root() {
    let library = read("src/lib.rs");
    assert!(library.lines().any(|line| line == "#![forbid(unsafe_code)]"));
}

/// The folders of the packages beside the one at the top.
fn members() -> Vec<String> {
    let workspace = read("Cargo.toml");
    let (_, members) = workspace.split_once("\nmembers = [").expect("the members");
    let (members, _) = members.split_once(']').expect("their end");
    members.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The image is made of the library, which other programs use too, and of the packages in `src/firmware`.
#[test]
fn the_packages_of_the_image_deny_the_same_panics() {
    let denied = |path: &str, before: &str| {
        let text = read(path);
        let (_, list) = text.split_once(before).unwrap_or_else(|| panic!("{path} has no list"));
        let (list, _) = list.split_once(')').expect("its end");
        list.split(',').map(|lint| lint.trim().to_owned()).filter(|lint| !lint.is_empty()).collect::<Vec<_>>()
    };
    let library = denied("src/lib.rs", "\n#![cfg_attr(\n    feature = \"firmware\",\n    deny(\n");
    let mut parts = members();
    parts.retain(|member| Path::new(member).starts_with("src/firmware"));
    assert!(!parts.is_empty());
    for part in parts {
        let has = |file: &&str| Path::new(env!("CARGO_MANIFEST_DIR")).join(&part).join(file).is_file();
        let roots: Vec<_> = ["lib.rs", "main.rs"].into_iter().filter(has).collect();
        assert!(!roots.is_empty(), "{part}");
        for root in roots {
            let path = format!("{part}/{root}");
            assert_eq!(denied(&path, "\n#![deny(\n"), library, "{path}");
        }
    }
    for lint in ["arithmetic_side_effects", "expect_used", "indexing_slicing", "panic", "unwrap_used"] {
        assert!(library.contains(&format!("clippy::{lint}")), "{lint}");
    }
}

/// The lints for SAFETY comments and for one operation a block apply in every crate.
#[test]
fn every_crate_inherits_the_lints() {
    let workspace = read("Cargo.toml");
    for lint in
        ["unsafe_op_in_unsafe_fn", "missing_safety_doc", "multiple_unsafe_ops_per_block", "undocumented_unsafe_blocks"]
    {
        assert!(workspace.contains(&format!("\n{lint} = \"deny\"\n")), "{lint}");
    }
    let members = members().into_iter().map(|member| format!("{member}/Cargo.toml"));
    for manifest in members.chain(["Cargo.toml".to_owned()]) {
        assert!(read(&manifest).contains("\n[lints]\nworkspace = true\n"), "{manifest}");
    }
}

/// The paths in a file, each with whether it is only re-exported (`pub use`). The paths of a group in braces are listed one by
/// one. Comments and the tests at the end are left out.
fn paths(source: &str) -> Vec<(bool, Vec<&str>)> {
    let code = source.split_once("mod tests {").map_or(source, |(code, _)| code);
    let (mut found, mut groups, mut path) = (Vec::new(), vec![Vec::new()], Vec::new());
    let (mut last, mut reexported) = ("", false);
    for mut line in code.lines().map(|line| line.split("//").next().unwrap_or_default().trim_start()) {
        while let Some(first) = line.chars().next() {
            let name = line.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(line.len());
            let (token, rest) = line.split_at(if line.starts_with("::") { 2 } else { name.max(first.len_utf8()) });
            if token != "::" && (last != "::" || name == 0) {
                let path = std::mem::take(&mut path);
                if last == "::" && token == "{" {
                    groups.push(path);
                } else {
                    found.push((reexported, path));
                    match token {
                        "{" => groups.push(Vec::new()),
                        "}" => drop(groups.pop()),
                        "use" => reexported = ["pub", ")"].contains(&last),
                        ";" => reexported = false,
                        _ => {}
                    }
                }
            }
            if name > 0 {
                path = if last == "::" { path } else { groups.last().cloned().unwrap_or_default() };
                path.push(token);
            }
            (last, line) = (token, rest.trim_start());
        }
    }
    found.retain(|(_, path)| path.len() > 1);
    found
}

/// The imports that are part of a cycle, in a folder: module and imported module. A re-exported name belongs to the module that
/// it comes from. An import from a submodule does not count.
fn cycles(folder: &str) -> BTreeSet<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let (mut files, mut sources) = (vec![root.clone()], BTreeMap::new());
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(&root).unwrap().with_extension("").display().to_string();
            let module: Vec<_> =
                name.split('/').filter(|part| !["mod", "lib", "main"].contains(part)).map(str::to_owned).collect();
            if !module.iter().any(|part| IGNORED.contains(&&**part)) {
                sources.insert(module, fs::read_to_string(path).unwrap());
            }
        }
    }
    let child = |module: &[String], name: &str| [module, &[name.to_owned()]].concat();
    let (mut uses, mut reexported) = (Vec::new(), BTreeMap::new());
    for (module, source) in &sources {
        for (is_reexported, path) in paths(source) {
            if is_reexported {
                reexported.insert(child(module, path[path.len() - 1]), (module.clone(), path));
            } else if ["crate", "super"].contains(&path[0]) {
                uses.push((module, path));
            }
        }
    }
    let resolved = |from: &[String], path: &[&str]| {
        let (mut module, mut path) = (from.to_vec(), path.to_vec());
        for _ in 0..20 {
            let Some(name) = (!path.is_empty()).then(|| path.remove(0)) else { break };
            let inner = child(&module, name);
            match (name, reexported.get(&inner)) {
                ("crate", _) => module.clear(),
                ("super", _) => drop(module.pop()),
                ("self", _) => {}
                _ if sources.contains_key(&inner) => module = inner,
                (_, Some((from, real))) => (module, path) = (from.clone(), real.clone()),
                _ => break,
            }
        }
        module.join("::")
    };
    let mut edges: BTreeSet<_> =
        uses.iter().map(|(module, path)| (module.join("::"), resolved(module, path))).collect();
    edges.retain(|(from, to)| from != to && !to.is_empty());
    // A module that nothing imports, or that imports nothing, is in no cycle.
    loop {
        let before = edges.clone();
        edges.retain(|(from, to)| before.iter().any(|edge| edge.0 == *to) && before.iter().any(|edge| edge.1 == *from));
        if edges.len() == before.len() {
            return edges;
        }
    }
}

#[test]
fn modules_have_no_import_cycles() {
    for folder in ["src", "xtask/src", "tools/inspect/src", "tools/measure/src"] {
        assert_eq!(cycles(folder), BTreeSet::new(), "{folder}");
    }
}
