//! The memory map that firmware gave: how much of it is usable, and what is not.

use anyhow::{Context, ensure};

use super::fact::Facts;

const SECTION: &str = "e820";

/// Reads lines with the first and the last address of a range and its type.
///
/// # Errors
/// When a line is not of that form.
pub fn read(text: &str, facts: &mut Facts) -> anyhow::Result<()> {
    let mut usable = 0;
    for line in text.lines() {
        let range = parse(line).with_context(|| format!("a line of the memory map: {line}"))?;
        let (start, end, kind) = range;
        if kind == "System RAM" {
            usable += end - start + 1;
        } else {
            // What ends at the same address is the same thing, however large it is.
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

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "0x0 0x9fbff System RAM\n0x9fc00 0x9ffff Reserved\n0x100000 0x1fffff System RAM\n";

    #[test]
    fn usable_bytes_are_added_and_the_rest_is_listed() {
        let mut facts = Facts::default();
        read(MAP, &mut facts).unwrap();
        assert_eq!(facts.get(SECTION, "usable bytes"), Some("0x19fc00"));
        assert_eq!(facts.get(SECTION, "Reserved that ends at 0x9ffff"), Some("begins at 0x9fc00"));
    }

    #[test]
    fn a_line_that_is_no_range_is_an_error() {
        for line in ["", "0x0", "0 0x1 System RAM", "0x2 0x1 System RAM", "0x0 0xffffffffffffffff System RAM"] {
            assert!(read(&format!("{line}\n"), &mut Facts::default()).is_err(), "{line}");
        }
    }
}
