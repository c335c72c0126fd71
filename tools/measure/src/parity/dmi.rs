//! What `dmidecode` prints: the structures, field by field.

use super::fact::Facts;

const SECTION: &str = "dmi";

/// Reads the output. A structure is identified by its type's name and its handle.
pub fn read(text: &str, facts: &mut Facts) {
    let mut structure = String::new();
    let mut handle = "";
    let mut list = "";
    for line in text.lines() {
        let depth = line.len() - line.trim_start_matches('\t').len();
        let line = line.trim();
        match depth {
            _ if line.is_empty() => {}
            0 if line.starts_with("Handle ") => {
                let mut parts = line.split(", ");
                handle = parts.next().unwrap_or_default();
                facts.add(SECTION, handle, parts.collect::<Vec<_>>().join(", "));
                structure.clear();
            }
            0 if handle.is_empty() => head(line, facts),
            // The line after a handle.
            0 => structure = format!("{line} ({})", handle.trim_start_matches("Handle ")),
            1 => match line.split_once(':') {
                Some((key, "")) => list = key,
                Some((key, value)) => facts.add(SECTION, format!("{structure} / {key}"), value.trim()),
                None => facts.mark(SECTION, format!("{structure} / {line}")),
            },
            _ => facts.mark(SECTION, format!("{structure} / {list} / {line}")),
        }
    }
}

/// The lines before the first structure, such as `9 structures occupying 376 bytes.` Their
/// length follows from the structures, and firmware chooses their address.
fn head(line: &str, facts: &mut Facts) {
    match line.split_once(" structures occupying ") {
        Some((count, _)) => facts.add(SECTION, "structures", count),
        None if line.starts_with("Table at ") => {}
        None => facts.mark(SECTION, line),
    }
}
