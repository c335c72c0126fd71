//! The memory map from firmware, and `/proc/iomem` and `/proc/ioports`: the owners of addresses.
//!
//! Of the memory map, the size of the usable memory counts, and what the rest is. In the other two, a range is identified by its
//! name and the names of the ranges around it, and compared by its size. Addresses are compared only if firmware does not choose
//! them: ports below 0x1000, which ISA and the chipset have. The size of a window to a PCI bus follows from the addresses behind
//! it; `lspci` and the ACPI tables show what has to be compared. The same is true for the map of RAM and reserved memory.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};

use super::fact::Facts;

/// PCI functions have ports from here on.
const FIRST_PCI_PORT: u64 = 0x1000;

/// Reads the memory map from firmware, in lines such as `0x9fc00-0x9ffff : Reserved`.
pub fn read_map(text: &str, facts: &mut Facts) -> anyhow::Result<()> {
    let mut usable = 0;
    for line in text.lines() {
        let (start, end, kind) = parse(line).with_context(|| format!("a line of the memory map: {line}"))?;
        if kind == "System RAM" {
            usable += end - start + 1;
        } else {
            // Ranges that end at the same address are the same thing, even with different sizes.
            facts.add("e820", format!("{kind} that ends at {end:#x}"), format!("begins at {start:#x}"));
        }
    }
    facts.add("e820", "usable bytes", format!("{usable:#x}"));
    Ok(())
}

/// Reads lines such as `  0060-0060 : keyboard`. A range inside another one is indented by two more spaces.
pub fn read(section: &'static str, text: &str, facts: &mut Facts) -> anyhow::Result<()> {
    let mut around: Vec<&str> = Vec::new();
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let entry = line.trim_start();
        let depth = (line.len() - entry.len()) / 2;
        let (start, end, name) = parse(entry).with_context(|| format!("a line of {section}: {line}"))?;
        ensure!(depth <= around.len(), "a line of {section} is indented too much: {line}");
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
        // Without the order of the addresses.
        values.sort();
        facts.add(section, place, values.join(", "));
    }
    Ok(())
}

fn parse(entry: &str) -> anyhow::Result<(u64, u64, &str)> {
    let (range, name) = entry.split_once(" : ").context("there is no name")?;
    let (start, end) = range.split_once('-').context("there is no range")?;
    let number = |text| u64::from_str_radix(str::trim_start_matches(text, "0x"), 16).context("not a number");
    let (start, end) = (number(start)?, number(end)?);
    ensure!(start <= end && end < u64::MAX, "not a range");
    Ok((start, end, name))
}
