//! The ACPI tables, byte for byte but for addresses of other tables and of memory that firmware reserved for them, and the
//! checksums that follow from those.
//!
//! Sections are of the ACPI specification 6.5. DSDT and SSDT are read object by object (`aml`).

use std::ops::Range;

use anyhow::{Context, ensure};

use super::aml;
use super::fact::Facts;
use super::transcript::Transcript;

pub(super) const SECTION: &str = "acpi";

/// The length of the header that most tables have (5.2.6).
const HEADER: usize = 36;

/// The checksum in that header.
const CHECKSUM: Range<usize> = 9..10;

/// The length in that header.
const LENGTH: Range<usize> = 4..8;

/// Reads every table. `extra_roots` says whether firmware's choice of addresses for PCI shows in the windows of the root
/// buses.
///
/// # Errors
/// When a table is not one, or is not there though every machine has it.
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
/// BXPC 00000001)`. It shows the length and all of the header; what follows the header is addresses (5.2.7, 5.2.8). The
/// guest cannot read this table: the kernel shows it nowhere.
fn root_table(line: &str) -> Option<(&str, &str)> {
    let (name, rest) = line.split_once("ACPI: ")?.1.split_once(" 0x")?;
    let (_, rest) = rest.split_once(' ')?;
    matches!(name, "RSDT" | "XSDT").then_some((name, rest))
}

fn table_facts(name: &str, mut table: Vec<u8>, extra_roots: bool, facts: &mut Facts) -> anyhow::Result<()> {
    let code = name.starts_with("DSDT") || name.starts_with("SSDT");
    ensure!(!code || table.len() >= HEADER, "it is shorter than its header");
    for range in masked(name) {
        if let Some(bytes) = table.get_mut(range) {
            bytes.fill(0);
        }
    }
    if code {
        let (header, body) = table.split_at(HEADER);
        facts.add(SECTION, format!("{name} header"), digits(header));
        aml::read(name, body, extra_roots, facts);
    } else {
        facts.add(SECTION, name, digits(&table));
    }
    Ok(())
}

/// The bytes that may differ: checksums, and addresses that are firmware's choice
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
        // The length of code follows from what is in it, and that is compared.
        _ if name.starts_with("DSDT") || name.starts_with("SSDT") => vec![CHECKSUM, LENGTH],
        _ => vec![CHECKSUM],
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that hexadecimal digits stand for; lines are put together.
fn bytes(text: &str) -> anyhow::Result<Vec<u8>> {
    let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16)).collect();
    let digits: Option<Vec<u32>> = digits.into_iter().collect();
    let digits = digits.context("it is not in hexadecimal digits")?;
    ensure!(digits.len().is_multiple_of(2) && !digits.is_empty(), "it has no bytes, or half of one");
    digits.chunks_exact(2).map(|pair| Ok(u8::try_from(pair[0] << 4 | pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fact::differences;
    use super::*;

    fn facts(name: &str, table: &[u8]) -> Facts {
        let mut facts = Facts::default();
        table_facts(name, table.to_vec(), false, &mut facts).unwrap();
        facts
    }

    /// The bytes whose change is seen.
    fn seen(name: &str, length: usize) -> Vec<usize> {
        let table = vec![0; length];
        let changed = |at: usize| {
            let mut table = table.clone();
            table[at] ^= 1;
            differences(&facts(name, &table), &facts(name, &vec![0; length])).len()
        };
        (0..length).filter(|at| changed(*at) > 0).collect()
    }

    fn all_but(ranges: &[Range<usize>], length: usize) -> Vec<usize> {
        (0..length).filter(|at| !ranges.iter().any(|range| range.contains(at))).collect()
    }

    #[test]
    fn every_byte_but_checksums_and_addresses_is_compared() {
        assert_eq!(seen("RSDP", 20), all_but(&[8..9, 16..20], 20));
        assert_eq!(seen("RSDP", 36), all_but(&[8..9, 16..20, 24..33], 36));
        assert_eq!(seen("FACP", 244), all_but(&[9..10, 36..44, 132..148], 244));
        assert_eq!(seen("FACP", 116), all_but(&[9..10, 36..44], 116));
        assert_eq!(seen("FACS", 64), all_but(&[], 64));
        assert_eq!(seen("APIC", 60), all_but(&[CHECKSUM], 60));
        assert_eq!(seen("TPM2", 76), all_but(&[9..10, 68..76], 76));
        assert_eq!(seen("DSDT", 40), all_but(&[4..8, 9..10], 40));
    }

    #[test]
    fn a_table_of_another_length_is_seen() {
        assert_eq!(differences(&facts("APIC", &[0; 56]), &facts("APIC", &[0; 52])).len(), 1);
    }

    #[test]
    fn the_root_table_is_read_from_the_log() {
        let line = "<6>[    0.005] ACPI: RSDT 0x000000001FFE2408 000038 (v01 BOCHS  BXPC     00000001 BXPC 00000001)";
        assert_eq!(root_table(line), Some(("RSDT", "000038 (v01 BOCHS  BXPC     00000001 BXPC 00000001)")));
        assert_eq!(root_table(&line.replace("RSDT", "APIC")), None);
        assert_eq!(root_table("<6>[    0.1] ACPI: Interpreter enabled"), None);
    }

    #[test]
    fn bytes_are_read_from_lines_of_digits() {
        assert_eq!(bytes("0aff\n10\n").unwrap(), [0x0a, 0xff, 0x10]);
        for bad in ["", "0", "0g", "é0"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
