//! The ACPI tables, byte for byte, except addresses of other tables, addresses of memory that firmware reserved for them, and the
//! checksums that depend on those. Sections are those of the ACPI specification 6.5.
//!
//! DSDT and SSDT are compared as the text that ACPICA's `iasl` makes from them, so that a window's addresses are recognized. The
//! order of lines matters.

use std::fs;
use std::ops::Range;
use std::process::Command;

use anyhow::{Context, ensure};
use xtask::progress::run_quietly;

use super::fact::Facts;
use super::transcript::Transcript;

const SECTION: &str = "acpi";

/// The checksum in the header that most tables have (5.2.6).
const CHECKSUM: Range<usize> = 9..10;

/// Lines in the header of `iasl`'s text that follow from the rest, or change from run to run.
const FOLLOWING: [&str; 3] = ["* Disassembly of", "* Length", "* Checksum"];

/// The first words of a window of memory or I/O in a resource list (19.6).
const WINDOWS: [&str; 5] = ["WordIO (", "DWordIO (", "QWordIO (", "DWordMemory (", "QWordMemory ("];

/// Reads every table. With `extra_roots`, the windows of the root buses depend on the firmware's choice of addresses for PCI.
pub fn read(transcript: &Transcript<'_>, extra_roots: bool, facts: &mut Facts) -> anyhow::Result<()> {
    let mut names = Vec::new();
    for (name, digits) in transcript.sections("acpi ") {
        let table = bytes(digits).with_context(|| format!("the ACPI table {name}"))?;
        names.push(name);
        table_facts(name, table, extra_roots, facts).with_context(|| format!("the ACPI table {name}"))?;
    }
    for name in ["RSDP", "FACP", "DSDT"] {
        ensure!(names.contains(&name), "the guest printed no ACPI table {name}");
    }
    let log = transcript.section("kernel-log")?;
    let roots = log.lines().filter_map(root_table).map(|(name, rest)| facts.add(SECTION, name, rest)).count();
    ensure!(roots > 0, "the kernel's log names neither RSDT nor XSDT");
    Ok(())
}

/// The RSDT or XSDT in a line of the kernel's log such as `ACPI: RSDT 0x000000001FFE2408 000038 (v01 BOCHS  BXPC     00000001
/// BXPC 00000001)`. It has the length and all of the header. Behind the header are only addresses (5.2.7, 5.2.8).
/// The kernel does not show this table to programs.
fn root_table(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once("ACPI: ")?.1.split_once(" 0x")?;
    let (_, rest) = rest.split_once(' ')?;
    matches!(name, "RSDT" | "XSDT").then_some((name, rest))
}

fn table_facts(name: &str, mut table: Vec<u8>, extra_roots: bool, facts: &mut Facts) -> anyhow::Result<()> {
    if name.starts_with("DSDT") || name.starts_with("SSDT") {
        facts.add(SECTION, name, code(&decompiled(&table)?, extra_roots));
        return Ok(());
    }
    for range in masked(name) {
        if let Some(bytes) = table.get_mut(range) {
            bytes.fill(0);
        }
    }
    facts.add(SECTION, name, table.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    Ok(())
}

/// The text of a table of code.
fn decompiled(table: &[u8]) -> anyhow::Result<String> {
    // Tests do without iasl.
    if cfg!(test) {
        return Ok(format!("{table:x?}"));
    }
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("table.aml"), table)?;
    run_quietly(Command::new("iasl").args(["-d", "table.aml"]).current_dir(folder.path()))?;
    fs::read_to_string(folder.path().join("table.dsl")).context("iasl did not write the text")
}

/// The text without what may differ. With `extra_roots`, the addresses of windows of memory and I/O may differ, and how many of a
/// kind follow each other.
fn code(text: &str, extra_roots: bool) -> String {
    let mut lines = Vec::new();
    let mut in_window = false;
    for line in text.lines() {
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let begins = |starts: &[&str]| starts.iter().any(|start| line.starts_with(start));
        if in_window {
            in_window = !line.ends_with(')');
            continue;
        }
        in_window = extra_roots && begins(&WINDOWS);
        let is_again = in_window && lines.last() == Some(&line);
        if !is_again && !begins(&FOLLOWING) {
            lines.push(line);
        }
    }
    lines.join(" ")
}

/// The bytes that may differ: checksums, and addresses that firmware chooses.
fn masked(name: &str) -> Vec<Range<usize>> {
    match name {
        // Checksum, address of the RSDT; address of the XSDT, second checksum (5.2.5.3).
        "RSDP" => vec![8..9, 16..20, 24..33],
        // FIRMWARE_CTRL, DSDT, X_FIRMWARE_CTRL, X_DSDT (5.2.9).
        "FACP" => vec![CHECKSUM, 36..44, 132..148],
        // Has no checksum (5.2.10).
        "FACS" => vec![],
        // The log's address (TCG ACPI specification 1.4, 8.3, table 7; for TCPA 8.2, table 5).
        "TPM2" => vec![CHECKSUM, 68..76],
        "TCPA" => vec![CHECKSUM, 42..50],
        // The error region's address (18.3.1).
        "BERT" => vec![CHECKSUM, 40..48],
        _ => vec![CHECKSUM],
    }
}

/// The bytes in lines of hexadecimal digits.
fn bytes(text: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).collect();
    ensure!(digits.len().is_multiple_of(2) && !digits.is_empty(), "no bytes, or half a byte");
    let pairs = digits.chunks_exact(2).map(String::from_iter);
    pairs.map(|pair| u8::from_str_radix(&pair, 16).context("not in hexadecimal digits")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_compared_unless_firmware_chooses_them() {
        let window =
            |least: &str| format!("DWordMemory (ResourceProducer,\n  {least}, // Range Minimum\n  ,, , TypeStatic)\n");
        let list =
            |windows: &[&str]| windows.iter().map(|least| window(least)).collect::<String>() + "Name (_UID, One)\n";
        let head = |length: &str| format!(" *     Length           {length}\n");
        let [one, other] = ["0xC0000000", "0xE0000000"].map(|least| list(&[least]));
        assert_eq!(code(&(head("1") + &one), false), code(&(head("2") + &one), false));
        assert_ne!(code(&one, false), code(&other, false));
        assert_eq!(code(&one, true), code(&list(&["0xA0000000", "0xE0000000"]), true));
        assert_ne!(code(&one, true), code(&list(&[]), true));
        assert_ne!(code(&one, true), code(&one.replace("One", "Zero"), true));
    }
}
