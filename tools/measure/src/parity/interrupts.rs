//! `/proc/interrupts`: the interrupts and their controllers. Their counts are not compared.

use super::fact::Facts;

const SECTION: &str = "interrupts";

/// Reads the table. Its head names the CPUs.
pub fn read(text: &str, facts: &mut Facts) {
    let mut lines = text.lines();
    let cpus = lines.next().unwrap_or_default().split_whitespace().count();
    facts.add(SECTION, "CPUs", cpus.to_string());
    for line in lines {
        let Some((number, rest)) = line.split_once(':') else { continue };
        let words: Vec<_> = rest.split_whitespace().collect();
        let words = words.get(cpus..).unwrap_or_default();
        match words {
            // The kernel numbers these in the order in which they are requested. The name identifies them.
            [kind @ "PCI-MSI", source, name @ ..] => {
                facts.add(SECTION, format!("{kind} {}", name.join(" ")), *source);
            }
            _ => facts.add(SECTION, number.trim(), words.join(" ")),
        }
    }
}
