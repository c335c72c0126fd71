//! `/proc/iomem` and `/proc/ioports`: who has which addresses.
//!
//! A range is known by its name and those of the ranges around it, and compared by its size. Addresses are compared only
//! where they are not firmware's choice: ports below 0x1000, which ISA and the chipset have. The size of a window to a PCI
//! bus follows from the addresses behind it; `lspci` and the ACPI tables show what is to be compared of it. So does the
//! memory map of RAM and of what is reserved.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};

use super::fact::Facts;

/// Ports from here on are given to PCI functions.
const FIRST_PCI_PORT: u64 = 0x1000;

/// Reads lines such as `  0060-0060 : keyboard`, two spaces deeper than what is around them.
///
/// # Errors
/// When a line is not of that form.
pub fn read(section: &'static str, text: &str, facts: &mut Facts) -> anyhow::Result<()> {
    let mut around: Vec<&str> = Vec::new();
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let entry = line.trim_start();
        let depth = (line.len() - entry.len()) / 2;
        let (start, end, name) = parse(entry).with_context(|| format!("a line of {section}: {line}"))?;
        ensure!(depth <= around.len(), "a line of {section} that is too deep: {line}");
        around.truncate(depth);
        around.push(name);
        let value = if name.starts_with("PCI Bus ") || matches!(name, "System RAM" | "Reserved") {
            facts.mark(section, around.join(" / "));
            continue;
        } else if section == "ioports" && start < FIRST_PCI_PORT {
            format!("{start:#x}-{end:#x}")
        } else {
            format!("{:#x} bytes", end - start + 1)
        };
        places.entry(around.join(" / ")).or_default().push(value);
    }
    for (place, mut values) in places {
        // In whatever order the addresses have.
        values.sort();
        facts.add(section, place, values.join(", "));
    }
    Ok(())
}

fn parse(entry: &str) -> anyhow::Result<(u64, u64, &str)> {
    let (range, name) = entry.split_once(" : ").context("there is no name")?;
    let (start, end) = range.split_once('-').context("there is no range")?;
    let number = |text| u64::from_str_radix(text, 16).context("not a number");
    let (start, end) = (number(start)?, number(end)?);
    ensure!(start <= end && end < u64::MAX, "not a range");
    Ok((start, end, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(section: &'static str, text: &str) -> Facts {
        let mut facts = Facts::default();
        read(section, text, &mut facts).unwrap();
        facts
    }

    #[test]
    fn ranges_are_known_by_what_is_around_them() {
        let text = "c0000000-febfffff : PCI Bus 0000:00\n  c1000000-c1000fff : 0000:00:01.0\n\
            \x20 c1004000-c1005fff : 0000:00:01.0\n  c1006000-c1006fff : 0000:00:01.0\nfec00000-fec003ff : IOAPIC 0\n";
        let facts = facts("iomem", text);
        assert_eq!(facts.get("iomem", "PCI Bus 0000:00"), Some("there"));
        assert_eq!(
            facts.get("iomem", "PCI Bus 0000:00 / 0000:00:01.0"),
            Some("0x1000 bytes, 0x1000 bytes, 0x2000 bytes")
        );
        assert_eq!(facts.get("iomem", "IOAPIC 0"), Some("0x400 bytes"));
    }

    #[test]
    fn the_ports_of_the_chipset_are_compared_with_their_addresses() {
        let facts = facts("ioports", "0060-0060 : keyboard\n6000-603f : 0000:00:1f.3\n");
        assert_eq!(facts.get("ioports", "keyboard"), Some("0x60-0x60"));
        assert_eq!(facts.get("ioports", "0000:00:1f.3"), Some("0x40 bytes"));
    }

    #[test]
    fn a_line_that_is_no_range_is_an_error() {
        for line in ["keyboard", "60 : keyboard", "    60-64 : keyboard", "64-60 : keyboard", "x-y : keyboard"] {
            assert!(read("ioports", &format!("{line}\n"), &mut Facts::default()).is_err(), "{line}");
        }
    }
}
