//! `/proc/cpuinfo`: each property of each CPU, and each feature by itself.

use super::fact::Facts;

const SECTION: &str = "cpu";

/// Reads the file.
pub fn read(text: &str, facts: &mut Facts) {
    let mut cpu = "";
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let (key, value) = (key.trim(), value.trim());
        match key {
            "processor" => cpu = value,
            "flags" | "bugs" => {
                for word in value.split_whitespace() {
                    facts.mark(SECTION, format!("{cpu} {key} {word}"));
                }
            }
            _ => facts.add(SECTION, format!("{cpu} {key}"), value),
        }
    }
}
