//! Sections whose lines are facts as they are: MTRRs, clocks, sleep states, the firmware's own messages.

use super::fact::Facts;

/// Reads such a section.
pub fn read(section: &'static str, text: &str, facts: &mut Facts) {
    for (number, line) in text.lines().enumerate() {
        // A list of words in which one may be missing; elsewhere the line counts as a whole.
        if matches!(section, "clock-sources" | "sleep-states") {
            for word in line.split_whitespace() {
                facts.mark(section, format!("line {}: {word}", number + 1));
            }
        } else {
            facts.mark(section, line.split_once(": ").filter(|_| section == "mtrr").map_or(line, |(_, range)| range));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fact::differences;
    use super::*;

    fn facts(section: &'static str, text: &str) -> Facts {
        let mut facts = Facts::default();
        read(section, text, &mut facts);
        facts
    }

    #[test]
    fn an_mtrr_is_a_range_and_a_type_whatever_its_number() {
        let [a, b] =
            [0, 1].map(|n| format!("reg0{n}: base=0x0c0000000 ( 3072MB), size= 1024MB, count=1: uncachable\n"));
        assert_eq!(differences(&facts("mtrr", &a), &facts("mtrr", &b)), []);
        let other = a.replace("uncachable", "write-back");
        assert_eq!(differences(&facts("mtrr", &a), &facts("mtrr", &other)).len(), 2);
    }

    #[test]
    fn a_missing_word_is_one_difference() {
        let found = differences(&facts("sleep-states", "freeze mem\n"), &facts("sleep-states", "freeze\n"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].key, "line 1: mem");
    }
}
