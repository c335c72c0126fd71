//! Pages name the tests that hold what they say: the threat model one for each promise, the page on isolation too, the one on
//! fuzzing one for each finding. Here they are held to that: each is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/threat-model.md";
/// The other pages with a table that has tests in the last cells of its rows, and what stands in the head of that table.
const MORE_PAGES: [(&str, &str); 2] =
    [("docs/isolation.md", "| promise | test (`tests/qemu/`) |"), ("docs/fuzzing.md", "| found | test |")];
/// Where tests are.
const TESTS: [&str; 4] = ["src", "tests", "xtask/src", "fuzz/tests"];
/// What stands before the name of a fuzz target, and where it is.
const FUZZ: &str = "fuzz:";
const FUZZ_TARGETS: &str = "fuzz/fuzz_targets";
/// What stands before the name of a fault, and where the list of these is, each of which is a test.
const FAULT: &str = "fault:";
const FAULTS: &str = "tests/faults/src/list.rs";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The last cells of the rows of the page's table of promises.
fn shown_by(page: &str) -> Vec<&str> {
    let table =
        page.split("## What is promised").nth(1).and_then(|rest| rest.split("\n## ").next()).unwrap_or_default();
    let rows = table.lines().filter(|line| line.starts_with("| **"));
    rows.filter_map(|row| row.trim_end_matches(" |").rsplit("| ").next()).collect()
}

/// The last cells of the rows of the table with this head.
fn cells_under<'a>(head: &str, page: &'a str) -> Vec<&'a str> {
    let lines = page.lines().skip_while(|line| *line != head).skip(2).take_while(|line| line.starts_with('|'));
    lines.filter_map(|row| row.trim_end_matches(" |").rsplit("| ").next()).collect()
}

/// The names of all tests.
fn tests() -> BTreeSet<String> {
    let mut texts = Vec::new();
    for folder in TESTS {
        sources(&root().join(folder), &mut texts);
    }
    texts.iter().flat_map(|text| tests_in(text)).map(str::to_owned).collect()
}

/// What is between backticks in a cell and has the form of a test's or a fuzz target's name.
fn names(cell: &str) -> Vec<&str> {
    let is_name = |text: &&str| {
        text.contains(['_', ':'])
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c))
    };
    cell.split('`').skip(1).step_by(2).filter(is_name).collect()
}

fn sources(folder: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(fs::read_to_string(&path).unwrap());
        }
    }
}

/// The names of functions that come after a line with `#[test]`, in any macro too.
fn tests_in(source: &str) -> impl Iterator<Item = &str> {
    source.split("#[test]").skip(1).filter_map(|rest| {
        let rest = rest.split_once("fn ")?.1;
        rest.split_once('(').map(|(name, _)| name)
    })
}

#[test]
fn every_promise_of_the_threat_model_has_tests_that_exist() {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let faults = fs::read_to_string(root().join(FAULTS)).unwrap();
    let tests = tests();
    let cells = shown_by(&page);
    assert!(cells.len() > 10, "{PAGE} has another form than was thought");
    for cell in cells {
        let names = names(cell);
        assert!(!names.is_empty(), "{PAGE}: a promise without a test: {cell}");
        for name in names {
            let there = match (name.strip_prefix(FUZZ), name.strip_prefix(FAULT)) {
                (Some(target), _) => root().join(FUZZ_TARGETS).join(target).with_extension("rs").is_file(),
                (_, Some(fault)) => faults.contains(&format!("\n    {fault}: \"")),
                _ => tests.contains(name),
            };
            assert!(there, "{PAGE} names {name}, and there is no such test");
        }
    }
}

#[test]
fn every_test_that_isolation_and_fuzzing_name_exists() {
    let tests = tests();
    for (path, head) in MORE_PAGES {
        let page = fs::read_to_string(root().join(path)).unwrap();
        let cells = cells_under(head, &page);
        assert!(cells.len() > 5, "{path} has another form than was thought");
        for cell in cells {
            let names = names(cell);
            assert!(!names.is_empty(), "{path}: a row without a test: {cell}");
            for name in names {
                let test = name.rsplit("::").next().unwrap_or(name);
                assert!(tests.contains(test), "{path} names {name}, and there is no such test");
            }
        }
    }
}

#[test]
fn test_names_are_distinguished_from_other_code() {
    assert_eq!(names("`a_test`, `fuzz:boot`; a step of `cargo xtask test`, `acpi/`"), ["a_test", "fuzz:boot"]);
    assert_eq!(shown_by("x\n## What is promised\n\n| **A.** b | `c_d` |\n\n## Not\n| **E** | `f_g` |\n"), ["`c_d`"]);
    assert_eq!(cells_under("| a | b |", "| a | b |\n|---|---|\n| c | `d::e_f` |\n\n| g | `h_i` |\n"), ["`d::e_f`"]);
    assert_eq!(tests_in("#[test]\n#[ignore]\nfn one() {}\nfn two() {}").collect::<Vec<_>>(), ["one"]);
}
