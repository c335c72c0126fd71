//! `cargo xtask support`: generates the tables of supported kernels, hosts and disks in `docs/support.md` from `tests/support.toml`.
//!
//! The list names the tests that boot each kernel and host, and for disks the names that such tests have. A step of `cargo xtask
//! test` fails if one of these tests does not exist, or if the page's tables differ from the generated ones.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, ensure};
use serde::Deserialize;
use xtask::paths;
use xtask::progress::{run_quietly, say};

/// The list, from the repository's top folder.
const LIST: &str = "tests/support.toml";
/// The list of the test disks.
const DISKS: &str = "tools/disks/disks.toml";
/// Where each disk has a module with its tests, and the module in it with those that run on request.
const DISK_TESTS: &str = "qemu::disks::";
const ON_REQUEST: &str = "on_request::";
/// The page that has the tables.
const PAGE: &str = "docs/support.md";
/// The lines before the table and behind it.
const START: &str = "<!-- The table is made from tests/support.toml by `cargo xtask support`. -->\n";
const END: &str = "<!-- End of the table. -->\n";

/// The test binaries with the tests of the list, each with the arguments of cargo that build it.
const BINARIES: [(&str, &str); 2] = [
    ("qemu", "test --package firstlight --features qemu-tests --test qemu"),
    ("boot", "test --package vmm --features kvm-tests --test boot"),
];

/// Write the tables of supported kernels, hosts and disks in docs/support.md
///
/// Makes them from the list in tests/support.toml. Builds the tests, to check that the list names existing ones, and runs none.
#[derive(clap::Args)]
pub struct Args {
    /// Write nothing, and fail if the page has other tables
    #[arg(long)]
    check: bool,
}

/// The list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// The columns.
    hosts: Vec<String>,
    /// The rows.
    kernel: Vec<Row>,
    /// The columns of the second table, each with the tests that boot a disk there.
    disks: Vec<(String, Vec<String>)>,
}

/// The test disks, as far as the table has them.
#[derive(Deserialize)]
struct Disks {
    disk: Vec<Disk>,
}

#[derive(Deserialize)]
struct Disk {
    name: String,
    about: String,
}

/// A kernel, and where it boots.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// Its kind.
    kind: String,
    with: String,
    /// The tests that boot it, by host.
    tests: BTreeMap<String, Vec<String>>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let (page, written) = tables()?;
    ensure!(
        !args.check || page == written,
        "the tables in {PAGE} differ from {LIST}; `cargo xtask support` writes them anew"
    );
    if written != page {
        fs::write(paths::root().join(PAGE), written).with_context(|| format!("cannot write {PAGE}"))?;
    }
    say(&format!("{PAGE} has the tables of {LIST}."));
    Ok(())
}

/// The page as it is, and with the tables from the list.
fn tables() -> anyhow::Result<(String, String)> {
    let read = |path| fs::read_to_string(paths::root().join(path)).with_context(|| format!("cannot read {path}"));
    let wrong = |path| format!("{path} does not have the form that its head describes");
    let list: List = toml::from_str(&read(LIST)?).with_context(|| wrong(LIST))?;
    let disks: Disks = toml::from_str(&read(DISKS)?).with_context(|| wrong(DISKS))?;
    let there = list.find_tests()?;
    let page = read(PAGE)?;
    let parts = page.split_once(START).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, behind) = parts.with_context(|| format!("{PAGE} lacks the lines around the tables: {START}{END}"))?;
    let tables = format!("{}\n{}", list.table(), list.table_of_disks(&disks.disk, &there)?);
    let written = format!("{before}{START}\n{tables}\n{END}{behind}");
    Ok((page, written))
}

impl List {
    /// Builds the test binaries, and checks that they have each test of the list and that each cell has a test.
    /// Returns the tests that there are.
    fn find_tests(&self) -> anyhow::Result<BTreeSet<String>> {
        let mut there = BTreeSet::new();
        for (binary, arguments) in BINARIES {
            let mut cargo = paths::cargo();
            cargo.args(arguments.split(' ')).args(["--quiet", "--", "--list", "--format", "terse"]);
            let printed = run_quietly(&mut cargo)?;
            let names = printed.lines().filter_map(|line| line.strip_suffix(": test"));
            there.extend(names.map(|name| format!("{binary}::{name}")));
        }
        for Row { kind, with, tests } in &self.kernel {
            for (host, tests) in tests {
                ensure!(self.hosts.contains(host), "{kind}, {with}: the list `hosts` has no {host:?}");
                ensure!(!tests.is_empty(), "{kind}, {with}, {host}: the list names no test");
                for test in tests {
                    ensure!(there.contains(test), "{LIST} names the test {test}, which does not exist");
                }
            }
        }
        Ok(there)
    }

    /// The table of disks, in Markdown, for disks with tests. Those that run on request only have a mark of their own.
    fn table_of_disks(&self, disks: &[Disk], there: &BTreeSet<String>) -> anyhow::Result<String> {
        let boots_by = |disk: &Disk, tests: &[String], part| {
            let module = format!("{DISK_TESTS}{}::{part}", disk.name.replace('-', "_"));
            tests.iter().any(|test| there.contains(&format!("{module}{test}")))
        };
        let mark = |disk: &Disk, tests: &[String]| match ["", ON_REQUEST].map(|part| boots_by(disk, tests, part)) {
            [true, _] => " ✓ |",
            [false, true] => " ○ |",
            [false, false] => " |",
        };
        for (column, tests) in &self.disks {
            ensure!(
                disks.iter().any(|disk| mark(disk, tests).contains('✓')),
                "{LIST}: no test boots a disk at {column:?}"
            );
        }
        let heads: Vec<_> = self.disks.iter().map(|(column, _)| column.as_str()).collect();
        let mut table = format!("| disk | {} |\n|---|{}\n", heads.join(" | "), ":-:|".repeat(heads.len()));
        for disk in disks {
            let cells: String = self.disks.iter().map(|(_, tests)| mark(disk, tests)).collect();
            if cells.contains(['✓', '○']) {
                table += &format!("| {} |{cells}\n", disk.about);
            }
        }
        Ok(table)
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
