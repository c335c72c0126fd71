//! `/proc/cpuinfo`: each property of each CPU, and each feature by itself.

use super::fact::Facts;

const SECTION: &str = "cpu";

/// Reads it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_feature_of_each_cpu_is_a_fact() {
        let mut facts = Facts::default();
        read("processor\t: 0\nflags\t\t: fpu pat\n\nprocessor\t: 1\nflags\t\t: fpu\nmodel\t\t: 107\n", &mut facts);
        assert_eq!(facts.get(SECTION, "0 flags pat"), Some("there"));
        assert_eq!(facts.get(SECTION, "1 flags pat"), None);
        assert_eq!(facts.get(SECTION, "1 model"), Some("107"));
    }
}
