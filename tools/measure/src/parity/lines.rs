//! Sections whose lines are facts as they are: MTRRs, clocks, sleep states, the firmware's own messages.

use super::fact::Facts;

/// Reads a section.
pub fn read(section: &'static str, text: &str, facts: &mut Facts) {
    for (number, line) in text.lines().enumerate() {
        // In these sections, each word is a fact. In others, each line is.
        if matches!(section, "clock-sources" | "sleep-states") {
            for word in line.split_whitespace() {
                facts.mark(section, format!("line {}: {word}", number + 1));
            }
        } else {
            facts.mark(section, line.split_once(": ").filter(|_| section == "mtrr").map_or(line, |(_, range)| range));
        }
    }
}
