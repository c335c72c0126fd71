//! The memory map from firmware: how much of it is usable, and what the rest is.

use anyhow::{Context, ensure};

use super::fact::Facts;

const SECTION: &str = "e820";

/// Reads the lines. Each has the first and the last address of a range, and its type.
pub fn read(text: &str, facts: &mut Facts) -> anyhow::Result<()> {
    let mut usable = 0;
    for line in text.lines() {
        let range = parse(line).with_context(|| format!("a line of the memory map: {line}"))?;
        let (start, end, kind) = range;
        if kind == "System RAM" {
            usable += end - start + 1;
        } else {
            // Ranges that end at the same address are the same thing, even with different sizes.
            facts.add(SECTION, format!("{kind} that ends at {end:#x}"), format!("begins at {start:#x}"));
        }
    }
    facts.add(SECTION, "usable bytes", format!("{usable:#x}"));
    Ok(())
}

fn parse(line: &str) -> anyhow::Result<(u64, u64, &str)> {
    let (start, rest) = line.split_once(' ').context("too short")?;
    let (end, kind) = rest.split_once(' ').context("too short")?;
    let number = |text: &str| {
        let digits = text.strip_prefix("0x").context("not in hexadecimal")?;
        u64::from_str_radix(digits, 16).context("not a number")
    };
    let (start, end) = (number(start)?, number(end)?);
    ensure!(start <= end && end < u64::MAX, "not a range");
    Ok((start, end, kind))
}
