//! `cargo xtask support`: makes the README's table of what is supported from the tests' list of it.
//!
//! The list, `tests/support.toml`, names for each kernel and host the tests that show that it boots. A step of `cargo
//! xtask test` fails when a test of the list is not there, or when the README has another table than the list makes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::paths;
use crate::progress::{command_line, say};

/// The list, from the repository's top folder.
const LIST: &str = "tests/support.toml";
/// The file that has the table.
const README: &str = "README.md";
/// What stands before the table and behind it.
const START: &str = "<!-- The table is made from tests/support.toml by `cargo xtask support`. -->\n";
const END: &str = "<!-- End of the table. -->\n";

/// The test binaries that the list may name tests of, each with what cargo is told to build it.
const BINARIES: [(&str, &str); 2] = [
    ("qemu", "test --package firstlight --features qemu-tests --test qemu"),
    ("boot", "test --package vmm --features kvm-tests --test boot"),
];

/// Write the README's table of what is supported, made from the list in tests/support.toml
///
/// Builds the tests to see that each one that the list names is there, and runs none.
#[derive(clap::Args)]
pub struct Args {}

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// The columns.
    hosts: Vec<String>,
    /// The rows.
    kernel: Vec<Row>,
}

/// A kernel, and where it boots.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// Of which kind it is.
    kind: String,
    /// Which one it is.
    with: String,
    /// By host, the tests that show it.
    tests: BTreeMap<String, Vec<String>>,
}

/// Runs the command.
///
/// # Errors
/// When the list is not as it is to be, a test of it is not there, or the README cannot be written.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    let list = List::read()?;
    list.find_tests()?;
    let path = paths::root().join(README);
    let readme = fs::read_to_string(&path).with_context(|| format!("cannot read {README}"))?;
    let written = with_table(&readme, &list.table())?;
    if written == readme {
        say(&format!("{README} has the table of {LIST} already."));
        return Ok(());
    }
    fs::write(&path, written).with_context(|| format!("cannot write {README}"))?;
    say(&format!("The table of {LIST} is in {README} now."));
    Ok(())
}

/// Checks that the tests of the list are there and that the README has its table.
///
/// # Errors
/// When one is not so.
pub fn check() -> anyhow::Result<()> {
    let list = List::read()?;
    list.find_tests()?;
    check_readme(&list)
}

fn check_readme(list: &List) -> anyhow::Result<()> {
    let readme = fs::read_to_string(paths::root().join(README)).with_context(|| format!("cannot read {README}"))?;
    ensure!(
        with_table(&readme, &list.table())? == readme,
        "{README} has another table than {LIST} makes; `cargo xtask support` writes it there"
    );
    Ok(())
}

impl List {
    /// Reads the file.
    fn read() -> anyhow::Result<Self> {
        let text = fs::read_to_string(paths::root().join(LIST)).with_context(|| format!("cannot read {LIST}"))?;
        Self::parse(&text).with_context(|| format!("{LIST} is not as its head says"))
    }

    /// Parses the file's text, and checks that no row, no column and no cell is without a test.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let list: Self = toml::from_str(text)?;
        let mut used = BTreeSet::new();
        let mut kinds = Vec::<&str>::new();
        for Row { kind, with, tests } in &list.kernel {
            ensure!(!tests.is_empty(), "{kind}, {with}: there is no test");
            if kinds.last() != Some(&kind.as_str()) {
                ensure!(!kinds.contains(&kind.as_str()), "{kind}: its rows do not stand together");
                kinds.push(kind);
            }
            for (host, tests) in tests {
                ensure!(list.hosts.contains(host), "{kind}, {with}: `hosts` has no {host:?}");
                ensure!(!tests.is_empty(), "{kind}, {with}, {host}: there is no test");
                used.insert(host.as_str());
            }
        }
        if let Some(host) = list.hosts.iter().find(|host| !used.contains(host.as_str())) {
            bail!("there is no test on {host:?}");
        }
        Ok(list)
    }

    /// All the tests, each once.
    fn tests(&self) -> BTreeSet<&str> {
        self.kernel.iter().flat_map(|row| row.tests.values().flatten()).map(String::as_str).collect()
    }

    /// Builds the test binaries, and checks that each test of the list is in them.
    fn find_tests(&self) -> anyhow::Result<()> {
        let mut there = BTreeSet::new();
        for (binary, arguments) in BINARIES {
            let mut cargo = paths::cargo();
            cargo.args(arguments.split(' ')).args(["--quiet", "--", "--list", "--format", "terse"]);
            let output = cargo.stderr(std::process::Stdio::inherit()).output().context("cannot start cargo")?;
            ensure!(output.status.success(), "the tests cannot be listed: {}", command_line(&cargo));
            there.extend(listed(binary, &String::from_utf8_lossy(&output.stdout)));
        }
        self.missing_in(&there)
    }

    /// Fails when a test of the list is not among those that are there.
    fn missing_in(&self, there: &BTreeSet<String>) -> anyhow::Result<()> {
        let missing: Vec<_> = self.tests().into_iter().filter(|test| !there.contains(*test)).collect();
        ensure!(missing.is_empty(), "{LIST} names tests that are not there: {}", missing.join(", "));
        Ok(())
    }

    /// The table, in Markdown. A kind's name stands in the first of its rows.
    fn table(&self) -> String {
        let mut table = format!("| kernel | tested with | {} |\n", self.hosts.join(" | "));
        table += &format!("|---|---|{}\n", ":-:|".repeat(self.hosts.len()));
        let mut last = "";
        for Row { kind, with, tests } in &self.kernel {
            let shown = if kind == last { String::new() } else { format!(" {kind}") };
            let cells = self.hosts.iter().map(|host| if tests.contains_key(host) { " ✓ |" } else { " |" });
            table += &format!("|{shown} | {with} |{}\n", cells.collect::<String>());
            last = kind;
        }
        table
    }
}

/// The tests of `binary`, from what its `--list` prints.
fn listed(binary: &str, printed: &str) -> Vec<String> {
    printed.lines().filter_map(|line| line.strip_suffix(": test")).map(|test| format!("{binary}::{test}")).collect()
}

/// The README with `table` in the place of the one it has.
fn with_table(readme: &str, table: &str) -> anyhow::Result<String> {
    let parts = readme.split_once(START).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, behind) = parts.with_context(|| format!("{README} has no place for the table: {START}{END}"))?;
    Ok(format!("{before}{START}\n{table}\n{END}{behind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        hosts = ["a", "b"]
        [[kernel]]
        kind = "k"
        with = "one"
        tests.a = ["qemu::x::y"]
        [[kernel]]
        kind = "k"
        with = "two"
        tests.a = ["boot::z"]
        tests.b = ["qemu::x::y"]
    "#;

    #[test]
    fn the_readme_has_the_table_of_the_list() {
        check_readme(&List::read().unwrap()).unwrap();
    }

    #[test]
    fn a_list_becomes_a_table() {
        let list = List::parse(TEXT).unwrap();
        let table = "| kernel | tested with | a | b |\n|---|---|:-:|:-:|\n| k | one | ✓ | |\n| | two | ✓ | ✓ |\n";
        assert_eq!(list.table(), table);
        let readme = format!("before\n{START}old\n{END}behind\n");
        let written = with_table(&readme, table).unwrap();
        assert_eq!(written, format!("before\n{START}\n{table}\n{END}behind\n"));
        assert_eq!(with_table(&written, table).unwrap(), written);
        assert!(with_table("no place", table).is_err());
    }

    #[test]
    fn a_test_that_is_not_there_is_named() {
        let list = List::parse(TEXT).unwrap();
        let mut there: BTreeSet<_> =
            listed("qemu", "x::y: test\nx::other: test\nx::z: benchmark\n").into_iter().collect();
        let error = list.missing_in(&there).unwrap_err().to_string();
        assert!(error.ends_with("not there: boot::z"), "{error}");
        there.extend(listed("boot", "z: test\n"));
        list.missing_in(&there).unwrap();
    }

    #[test]
    fn no_row_column_or_cell_is_without_a_test() {
        let cases = [
            ("\"b\"]", "\"b\", \"c\"]", "no test on \"c\""),
            ("tests.b", "tests.c", "`hosts` has no \"c\""),
            ("[\"boot::z\"]", "[]", "two, a: there is no test"),
            ("tests.a = [\"qemu::x::y\"]", "tests = {}", "one: there is no test"),
        ];
        for (from, to, message) in cases {
            let error = List::parse(&TEXT.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        let apart = format!("{TEXT}[[kernel]]\nkind = \"l\"\nwith = \"\"\ntests.a = [\"\"]\n");
        let apart = format!("{apart}[[kernel]]\nkind = \"k\"\nwith = \"\"\ntests.a = [\"\"]\n");
        assert!(List::parse(&apart).unwrap_err().to_string().contains("do not stand together"));
    }
}
