//! Every test that a page names exists. The threat model and the page on memory protection name tests for each promise,
//! the page on fuzzing names one for each finding, and the pages on EFI and on disks one for each pitfall.

use std::fs;
use std::path::{Path, PathBuf};

/// The pages, and what the lines before the table begin with that has tests in the last cells of its rows.
const PAGES: [(&str, &str); 7] = [
    ("docs/threat-model.md", "## What is promised"),
    ("docs/isolation.md", "| promise | test (`tests/qemu/`) |"),
    ("docs/fuzzing.md", "| found | test |"),
    ("docs/efi.md", "| pitfall | test |"),
    ("docs/disks.md", "| pitfall | test |"),
    ("docs/disks.md", "| needed | test |"),
    ("docs/disks.md", "### What QEMU says of disks"),
];
/// Where tests are; each fuzz target is a file.
const TESTS: [&str; 5] = ["src", "tests", "xtask/src", "tools", "fuzz/tests"];
/// The list of faults, each of which is a test.
const FAULTS: &str = "tests/faults/src/list.rs";

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text of all Rust files in a folder.
fn sources(folder: PathBuf) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: PathBuf| match path.is_dir() {
        true => sources(path),
        false if path.extension().is_some_and(|extension| extension == "rs") => read(path),
        false => String::new(),
    };
    entries.map(text).collect()
}

#[test]
fn every_test_that_a_page_names_exists() {
    let tests: String =
        TESTS.iter().map(|folder| sources(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))).collect();
    let tests: Vec<_> =
        tests.split("#[test]").skip(1).filter_map(|rest| rest.split_once("fn ")?.1.split('(').next()).collect();
    let faults = read(FAULTS);
    for (page, head) in PAGES {
        let text = read(page);
        let (_, behind) = text.split_once(head).unwrap_or_else(|| panic!("{page} has no {head}"));
        let rows =
            behind.lines().skip_while(|line| !line.starts_with("|--")).skip(1).take_while(|line| line.starts_with('|'));
        let cells: Vec<_> = rows.filter_map(|row| row.trim_end_matches(" |").rsplit("| ").next()).collect();
        assert!(cells.len() > 5, "{page} has no table behind {head}");
        for cell in cells {
            let is_name = |name: &&str| name.contains(['_', ':']) && !name.contains([' ', '/', '.']);
            let names: Vec<_> = cell.split('`').skip(1).step_by(2).filter(is_name).collect();
            assert!(!names.is_empty(), "{page}: a row without a test: {cell}");
            for name in names {
                let is_there = match name.split_once(':') {
                    Some(("fuzz", target)) => Path::new(env!("CARGO_MANIFEST_DIR"))
                        .join("fuzz/fuzz_targets")
                        .join(target)
                        .with_extension("rs")
                        .is_file(),
                    Some(("fault", fault)) => faults.contains(&format!("\n    {fault}: \"")),
                    _ => tests.contains(&name.rsplit(':').next().unwrap_or(name)),
                };
                assert!(is_there, "{page} names {name}, and there is no such test");
            }
        }
    }
}
