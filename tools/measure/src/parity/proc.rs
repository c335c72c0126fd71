//! Sections of a few words: CPUs, interrupts, and lines that are facts as they are.

use super::fact::Facts;

/// Reads `/proc/cpuinfo`: each property of each CPU, and each feature by itself.
pub fn read_cpus(text: &str, facts: &mut Facts) {
    let mut cpu = "";
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let (key, value) = (key.trim(), value.trim());
        match key {
            "processor" => cpu = value,
            "flags" | "bugs" => {
                value.split_whitespace().for_each(|word| facts.mark("cpu", format!("{cpu} {key} {word}")))
            }
            _ => facts.add("cpu", format!("{cpu} {key}"), value),
        }
    }
}

/// Reads `/proc/interrupts`: the interrupts and their controllers. Its head names the CPUs. The counts are not compared.
pub fn read_interrupts(text: &str, facts: &mut Facts) {
    let mut lines = text.lines();
    let cpus = lines.next().unwrap_or_default().split_whitespace().count();
    facts.add("interrupts", "CPUs", cpus.to_string());
    for line in lines {
        let Some((number, rest)) = line.split_once(':') else { continue };
        let words: Vec<_> = rest.split_whitespace().skip(cpus).collect();
        match &words[..] {
            // The kernel numbers these in the order in which they are requested. The name identifies them.
            [kind @ "PCI-MSI", source, name @ ..] => {
                facts.add("interrupts", format!("{kind} {}", name.join(" ")), *source);
            }
            words => facts.add("interrupts", number.trim(), words.join(" ")),
        }
    }
}

/// Reads MTRRs, clocks, sleep states or the firmware's own messages.
pub fn read_lines(section: &'static str, text: &str, facts: &mut Facts) {
    for (number, line) in text.lines().enumerate() {
        match section {
            "clock-sources" | "sleep-states" => {
                for word in line.split_whitespace() {
                    facts.mark(section, format!("line {}: {word}", number + 1));
                }
            }
            // Without the register's number.
            "mtrr" => facts.mark(section, line.split_once(": ").map_or(line, |(_, range)| range)),
            _ => facts.mark(section, line),
        }
    }
}
